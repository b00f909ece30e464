/** The audit, for auditors: who did what, when and why; whether the chain is sound; all of it to take away. */

import { useInfiniteQuery, useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { API, call, sentence } from "../api/client";
import type { AuditEvents, Verification } from "../api/types";
import { brief, longTime, number, plural, spaced } from "../lib/format";
import { momentOf } from "../lib/zones";
import { Icon } from "../parts/Icon";
import { Page } from "../parts/Page";
import { Failed, Loading, Notice, State } from "../parts/states";
import { usePreferences } from "../settings";

const FIELDS = [
  ["actor", "Who", "text"],
  ["action", "Did what", "text"],
  ["object_kind", "To what kind", "text"],
  ["object_id", "To which", "text"],
  ["since", "From", "datetime-local"],
  ["until", "Until before", "datetime-local"],
] as const;

type Wanted = Partial<Record<(typeof FIELDS)[number][0], string>>;

export default function AuditPage() {
  const { zone } = usePreferences();
  const [wanted, setWanted] = useState<Wanted>({});
  const list = useInfiniteQuery({
    queryKey: ["audit", wanted],
    queryFn: ({ pageParam }) => {
      const query = new URLSearchParams({ limit: "100", ...wanted, ...(pageParam !== null && { before: String(pageParam) }) });
      return call<AuditEvents>(`/audit-events?${query}`);
    },
    initialPageParam: null as number | null,
    getNextPageParam: (last) => last.next_before,
    staleTime: 60_000, // each look is an act in the audit, too
  });
  const verify = useMutation({ mutationFn: () => call<Verification>("/audit-events/verification") });
  const events = list.data?.pages.flatMap((page) => page.events) ?? [];
  return (
    <Page
      title="Audit"
      about="Every search, look, change and export, in one chain that shows when somebody meddles with it. Your looking is in it, too."
      actions={
        <>
          <button type="button" className="button" onClick={() => verify.mutate()} disabled={verify.isPending}>
            <Icon name="check" />
            {verify.isPending ? "Reading the chain …" : "Verify"}
          </button>
          <a className="button" href={`${API}/audit-events/export`} download="audit.ndjson">
            <Icon name="download" />
            Export
          </a>
        </>
      }
    >
      {verify.isError && <Notice alert>{sentence(verify.error)}</Notice>}
      {verify.data && <Verified found={verify.data} />}
      <form
        className="filters"
        aria-label="Which acts"
        onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          const next: Wanted = {};
          for (const [name, , type] of FIELDS) {
            const value = String(form.get(name) ?? "").trim();
            if (value) next[name] = type === "text" ? value : momentOf(value, zone).toISOString();
          }
          setWanted(next);
        }}
      >
        {FIELDS.map(([name, label, type]) => (
          <label className="field" key={name}>
            <span>{label}</span>
            <input name={name} type={type} maxLength={255} autoComplete="off" />
          </label>
        ))}
        <div className="row">
          <button type="submit" className="button">
            Show
          </button>
          <button type="reset" className="button quiet" onClick={() => setWanted({})}>
            All
          </button>
        </div>
      </form>
      {list.isError ? (
        <Failed error={list.error} retry={() => void list.refetch()} />
      ) : list.isLoading ? (
        <Loading what="the audit" />
      ) : events.length === 0 ? (
        <State icon="audit" title="No such act">
          <p>Nothing in the audit meets all of that.</p>
        </State>
      ) : (
        <div className="scrolled">
          <table className="audit">
            <thead>
              <tr>
                <th>No.</th>
                <th>When</th>
                <th>Who</th>
                <th>Did what</th>
                <th>To</th>
                <th>Why</th>
              </tr>
            </thead>
            <tbody>
              {events.map(({ seq, at, actor, action, object, reason, case_id, hash }) => (
                <tr key={seq} title={`Hash ${hash}`}>
                  <td className="figures muted">{number(seq)}</td>
                  <td className="figures">{longTime(at, zone)}</td>
                  <td>{actor.name}</td>
                  <td>{spaced(action)}</td>
                  <td>
                    {object && (
                      <>
                        {spaced(object.kind)} <code className="muted">{brief(object.id, 13)}</code>
                      </>
                    )}
                  </td>
                  <td>
                    {reason}
                    {case_id && <span className="muted"> case {brief(case_id, 13)}</span>}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {list.hasNextPage && (
        <div>
          <button type="button" className="button" onClick={() => void list.fetchNextPage()} disabled={list.isFetchingNextPage}>
            Show earlier ones
          </button>
        </div>
      )}
    </Page>
  );
}

function Verified({ found }: { found: Verification }) {
  if (!found.sound && found.fault) {
    return (
      <Notice alert>
        The chain is broken at row {number(found.fault.seq)} ({found.fault.kind}): {found.fault.detail}
      </Notice>
    );
  }
  return (
    <Notice>
      <span className="sound figures">
        The chain is sound: {plural(found.rows, "row")} read, in agreement with {plural(found.anchors, "earlier head")} written down beside the database.
      </span>
    </Notice>
  );
}
