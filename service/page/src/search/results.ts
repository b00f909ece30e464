/** One search and its frozen ranking, page by page as far as somebody has scrolled. */

import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { call } from "../api/client";
import type { Result, SearchPage, SearchResponse } from "../api/types";

export const FURTHER = 120; // results of each further page

export function useSearch(id: string | null) {
  return useQuery({
    queryKey: ["search", id],
    queryFn: () => call<SearchResponse>(`/searches/${id}`),
    enabled: id !== null,
    staleTime: Infinity, // the ranking is frozen
    gcTime: 3_600_000,
  });
}

export function useResults(id: string | null, answer: SearchResponse | undefined) {
  const pages = useInfiniteQuery({
    queryKey: ["results", id],
    queryFn: ({ pageParam, signal }) =>
      pageParam === null && answer
        ? { results: answer.results, next_cursor: answer.next_cursor ?? null }
        : call<SearchPage>(`/searches/${id}/results?${new URLSearchParams({ ...(pageParam && { cursor: pageParam }), limit: String(FURTHER) })}`, {
            signal,
          }),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor ?? null,
    enabled: answer !== undefined,
    staleTime: Infinity,
    gcTime: 3_600_000,
  });
  const results = useMemo<readonly Result[]>(() => pages.data?.pages.flatMap((page) => page.results) ?? [], [pages.data]);
  return { ...pages, results };
}
