/** What became of each item of a delivery, with the reason where it was not accepted; the list can be taken away. */

import { useInfiniteQuery, useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { call, sentence } from "../api/client";
import type { Ingestion, Item, Items as Answer } from "../api/types";
import { csv } from "../lib/delivery";
import { number } from "../lib/format";
import { Icon } from "../parts/Icon";
import { Loading, Notice } from "../parts/states";

const STATES = [
  ["rejected", "Rejected"],
  ["failed", "Failed"],
  ["duplicate", "There already"],
  ["indexed", "Searchable"],
] as const;

const path = (id: string, state: Item["state"], after: number, limit: number) => `/ingestions/${id}/items?state=${state}&after=${after}&limit=${limit}`;

export function Items({ id, counts, done }: { id: string; counts: Ingestion["counts"]; done: boolean }) {
  const [chosen, setChosen] = useState<(typeof STATES)[number][0] | null>(null);
  const state = chosen ?? STATES.find(([each]) => counts[each] > 0)?.[0] ?? "indexed";
  const list = useInfiniteQuery({
    queryKey: ["ingestion-items", id, state, done],
    queryFn: ({ pageParam }) => call<Answer>(path(id, state, pageParam, 100)),
    initialPageParam: -1,
    getNextPageParam: (last) => last.next_after,
  });
  const save = useMutation({
    mutationFn: async () => {
      const rows: (string | number | null)[][] = [["position", "state", "file", "external_id", "image_id", "code", "reason"]];
      for (let after: number | null = -1; after !== null; ) {
        const page: Answer = await call<Answer>(path(id, state, after, 1000));
        for (const item of page.items) rows.push([item.position, item.state, item.file, item.external_id, item.image_id, item.code, item.reason]);
        after = page.next_after;
      }
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([csv(rows)], { type: "text/csv" }));
      link.download = `${state}-${id.slice(-12)}.csv`;
      link.click();
      URL.revokeObjectURL(link.href);
    },
  });
  const items = list.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <section aria-label="Items">
      <div className="row wrap spread">
        <div className="segments" role="group" aria-label="Which items">
          {STATES.map(([each, name]) => (
            <button key={each} type="button" aria-pressed={state === each} onClick={() => setChosen(each)}>
              {name} <span className="figures">{number(counts[each])}</span>
            </button>
          ))}
        </div>
        <button type="button" className="button" disabled={save.isPending || items.length === 0} onClick={() => save.mutate()}>
          <Icon name="download" />
          Download the list
        </button>
      </div>
      {(list.error ?? save.error) && <Notice alert>{sentence(list.error ?? save.error)}</Notice>}
      {list.isLoading ? (
        <Loading what="the items" />
      ) : items.length === 0 ? (
        <p className="muted small">None.</p>
      ) : (
        <div className="scrolled">
          <table>
            <thead>
              <tr>
                <th>Line</th>
                <th>File</th>
                <th>External id</th>
                <th>{state === "rejected" || state === "failed" ? "Why" : "Image"}</th>
              </tr>
            </thead>
            <tbody>
              {items.map((item) => (
                <tr key={item.position}>
                  <td className="figures">{item.position + 1}</td>
                  <td className="code">{item.file}</td>
                  <td className="code">{item.external_id}</td>
                  <td>{item.reason ?? <code className="muted">{item.image_id}</code>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {list.hasNextPage && (
        <button type="button" className="button" onClick={() => void list.fetchNextPage()} disabled={list.isFetchingNextPage}>
          Show more
        </button>
      )}
    </section>
  );
}
