/** Cases: the list, and one case with its items, verdicts by two, notes, members and exports. */

import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { call, sentence } from "../api/client";
import { renew } from "../api/renew";
import type { Case, CaseList } from "../api/types";
import { plural, shortTime } from "../lib/format";
import { formatRoute } from "../lib/route";
import { Icon } from "../parts/Icon";
import { Page } from "../parts/Page";
import { Failed, Loading, Notice, State } from "../parts/states";
import { go } from "../place";
import { usePreferences } from "../settings";
import { OneCase } from "./OneCase";

export default function CasesPage({ id }: { id: string | null }) {
  return id ? <OneCase key={id} id={id} /> : <AllCases />;
}

function AllCases() {
  const { zone } = usePreferences();
  const queries = useQueryClient();
  const [state, setState] = useState<"open" | "closed">("open");
  const list = useInfiniteQuery({
    queryKey: ["cases", "list", state],
    queryFn: ({ pageParam }) => call<CaseList>(`/cases?state=${state}&limit=50${pageParam ? `&before=${pageParam}` : ""}`),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_before,
  });
  const create = useMutation({
    mutationFn: (title: string) => call<Case>("/cases", { method: "POST", body: { title } }),
    onSuccess: ({ id }) => {
      void renew(queries, ["cases"]);
      go({ page: "cases", case: id });
    },
  });
  const cases = list.data?.pages.flatMap((page) => page.cases) ?? [];
  return (
    <Page
      title="Cases"
      about="Results that belong together, what people say of them, and why. You see the cases you work on."
      actions={
        <div className="segments" role="group" aria-label="Which cases">
          {(["open", "closed"] as const).map((each) => (
            <button key={each} type="button" aria-pressed={state === each} onClick={() => setState(each)}>
              {each === "open" ? "Open" : "Closed"}
            </button>
          ))}
        </div>
      }
    >
      <form
        className="row"
        onSubmit={(event) => {
          event.preventDefault();
          const title = String(new FormData(event.currentTarget).get("title")).trim();
          if (title) create.mutate(title);
        }}
      >
        <input name="title" className="grow" required maxLength={255} aria-label="Title of a new case" placeholder="Title of a new case: better a reference than a name" autoComplete="off" />
        <button type="submit" className="button primary" disabled={create.isPending}>
          <Icon name="plus" />
          Open a case
        </button>
      </form>
      {create.isError && <Notice alert>{sentence(create.error)}</Notice>}
      {list.isError ? (
        <Failed error={list.error} retry={() => void list.refetch()} />
      ) : list.isLoading ? (
        <Loading what="the cases" />
      ) : cases.length === 0 ? (
        <State icon="case" title={state === "open" ? "No open case" : "No closed case"}>
          <p>{state === "open" ? "Open one above, or from a result with “Add to case”." : "Cases you close are kept here."}</p>
        </State>
      ) : (
        <ul className="list">
          {cases.map(({ id, title, items, created_at, created_by }) => (
            <li key={id}>
              <a
                href={formatRoute({ page: "cases", case: id })}
                onClick={(event) => {
                  if (event.ctrlKey || event.metaKey) return;
                  event.preventDefault();
                  go({ page: "cases", case: id });
                }}
              >
                <strong className="grow">{title}</strong>
                <span className="muted small figures">{plural(items, "item")}</span>
                <span className="muted small figures">
                  {created_by}, {shortTime(created_at, zone)}
                </span>
              </a>
            </li>
          ))}
        </ul>
      )}
      {list.hasNextPage && (
        <div>
          <button type="button" className="button" onClick={() => void list.fetchNextPage()}>
            Show more
          </button>
        </div>
      )}
    </Page>
  );
}
