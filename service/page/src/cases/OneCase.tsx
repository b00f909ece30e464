/** One case. A match counts as confirmed when as many different people as the service asks for say so. */

import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { call, sentence } from "../api/client";
import { renew } from "../api/renew";
import type { CaseDetail, CaseExport, CaseItem, CaseItems, Notes, Verdict, Word } from "../api/types";
import { VERDICTS, bytes, longTime, plural, shortTime } from "../lib/format";
import { Dialog } from "../parts/Dialog";
import { Icon } from "../parts/Icon";
import { Page } from "../parts/Page";
import { Failed, Loading, Notice, State } from "../parts/states";
import { go } from "../place";
import { useHere } from "../session";
import { usePreferences } from "../settings";

export function OneCase({ id }: { id: string }) {
  const { may } = useHere();
  const { zone } = usePreferences();
  const queries = useQueryClient();
  const [exporting, setExporting] = useState(false);
  const detail = useQuery({ queryKey: ["case", id], queryFn: () => call<CaseDetail>(`/cases/${id}`) });
  const items = useInfiniteQuery({
    queryKey: ["case", id, "items"],
    queryFn: ({ pageParam }) => call<CaseItems>(`/cases/${id}/items?limit=60${pageParam ? `&after=${pageParam}` : ""}`),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_after,
  });
  const change = useMutation({
    mutationFn: (body: { title?: string; state?: "open" | "closed" }) => call(`/cases/${id}`, { method: "PATCH", body }),
    onSuccess: () => {
      void renew(queries, ["case", id]);
      void renew(queries, ["cases"]);
    },
  });
  if (detail.isError) return <Failed error={detail.error} retry={() => void detail.refetch()} />;
  if (!detail.data) return <Loading what="the case" />;
  const { title, state, created_by, created_at, members } = detail.data;
  const open = state === "open";
  const all = items.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Page
      title={title}
      about={
        <>
          {open ? "Open" : "Closed"} · {created_by}, <span className="figures">{longTime(created_at, zone)}</span>
        </>
      }
      actions={
        <>
          <button type="button" className="button quiet" onClick={() => go({ page: "cases", case: null })}>
            <Icon name="left" />
            All cases
          </button>
          <button type="button" className="button" onClick={() => change.mutate({ state: open ? "closed" : "open" })} disabled={change.isPending}>
            {open ? "Close the case" : "Open it again"}
          </button>
          {may("export") && (
            <button type="button" className="button primary" onClick={() => setExporting(true)}>
              <Icon name="download" />
              Export
            </button>
          )}
        </>
      }
    >
      {change.isError && <Notice alert>{sentence(change.error)}</Notice>}
      <div className="two">
        <section aria-label="Items">
          <h2>Items</h2>
          {items.isError && <Notice alert>{sentence(items.error)}</Notice>}
          {items.isSuccess && all.length === 0 && (
            <State icon="picture" title="Nothing collected yet">
              <p>Open a result of a search and choose “Add to case”.</p>
            </State>
          )}
          <ul className="items">
            {all.map((item) => (
              <Item key={item.id} caseId={id} item={item} open={open} />
            ))}
          </ul>
          {items.hasNextPage && (
            <button type="button" className="button" onClick={() => void items.fetchNextPage()}>
              Show more
            </button>
          )}
        </section>
        <div className="stack">
          <NotesOf id={id} open={open} />
          <section className="card" aria-label="Members">
            <h2>Who works on it</h2>
            <ul className="small">
              {members.map(({ person_id, name }) => (
                <li key={person_id}>{name}</li>
              ))}
            </ul>
          </section>
        </div>
      </div>
      {exporting && <Export id={id} onClose={() => setExporting(false)} />}
    </Page>
  );
}

const OUTCOMES = { undecided: "Undecided", confirmed: "Confirmed", rejected: "Rejected", conflicting: "People disagree" } as const;
const WORDS: readonly Word[] = ["match", "no_match", "unsure"];

function Item({ caseId, item, open }: { caseId: string; item: CaseItem; open: boolean }) {
  const { cameraName, may, session } = useHere();
  const { zone } = usePreferences();
  const queries = useQueryClient();
  const changed = () => renew(queries, ["case", caseId]);
  const judge = useMutation({
    mutationFn: (verdict: Word) => call<Verdict>(`/cases/${caseId}/items/${item.id}/verdicts`, { method: "POST", body: { verdict } }),
    onSuccess: changed,
  });
  const annotate = useMutation({
    mutationFn: (note: string) => call(`/cases/${caseId}/items/${item.id}`, { method: "PATCH", body: { note: note || null } }),
    onSuccess: changed,
  });
  const remove = useMutation({ mutationFn: () => call(`/cases/${caseId}/items/${item.id}`, { method: "DELETE" }), onSuccess: changed });
  const { image, outcome, verdicts } = item;
  const mine = verdicts.findLast(({ person_id, name }) => (session.id ? person_id === session.id : name === session.name))?.verdict;
  const failed = judge.error ?? annotate.error ?? remove.error;
  const present = item.state === "present";
  return (
    <li className="item">
      <div className="shown">
        {image && present ? (
          <img src={image.thumbnail} alt={`${cameraName(image.camera_id)}, ${image.captured_at ? longTime(image.captured_at, zone) : "time unknown"}`} loading="lazy" />
        ) : (
          <p className="tiny muted">{item.state === "erased" ? "Erased" : "Not yours to see"}</p>
        )}
      </div>
      <div className="body">
        <div className="row spread">
          <span className={`tag ${outcome === "confirmed" ? "good" : outcome === "conflicting" ? "bad" : ""}`}>{OUTCOMES[outcome]}</span>
          {open && (
            <button type="button" className="button quiet bare" aria-label="Take it out of the case" title="Take it out of the case" onClick={() => remove.mutate()}>
              <Icon name="close" />
            </button>
          )}
        </div>
        {image && (
          <p className="small figures">
            {cameraName(image.camera_id)}
            <br />
            <span className="muted">{image.captured_at ? shortTime(image.captured_at, zone) : "time unknown"}</span>
          </p>
        )}
        <p className="tiny muted figures">
          Rank {item.rank}
          {item.similarity !== null && `, similarity ${item.similarity.toFixed(2)}`}
          {item.band && `, ${item.band}`}
        </p>
        {verdicts.length > 0 && (
          <ul className="tiny">
            {verdicts.map(({ person_id, name, verdict, note }, at) => (
              <li key={`${person_id} ${at}`}>
                <strong>{name}</strong>: {VERDICTS[verdict]}
                {note && <span className="muted"> ({note})</span>}
              </li>
            ))}
          </ul>
        )}
        {open && present && may("judge") && (
          <div className="verdicts" role="group" aria-label={`Verdict on rank ${item.rank}`}>
            {WORDS.map((word) => (
              <button key={word} type="button" className="button" aria-pressed={mine === word} disabled={judge.isPending} onClick={() => judge.mutate(word)}>
                {VERDICTS[word]}
              </button>
            ))}
          </div>
        )}
        {open ? (
          <textarea
            key={item.note}
            rows={2}
            className="small"
            defaultValue={item.note ?? ""}
            maxLength={2000}
            placeholder="Note"
            aria-label={`Note on rank ${item.rank}`}
            onBlur={(event) => {
              const note = event.target.value.trim();
              if (note !== (item.note ?? "")) annotate.mutate(note);
            }}
          />
        ) : (
          item.note && <p className="small">{item.note}</p>
        )}
        {failed && <Notice alert>{sentence(failed)}</Notice>}
      </div>
    </li>
  );
}

function NotesOf({ id, open }: { id: string; open: boolean }) {
  const { zone } = usePreferences();
  const queries = useQueryClient();
  const [text, setText] = useState("");
  const notes = useQuery({ queryKey: ["case", id, "notes"], queryFn: () => call<Notes>(`/cases/${id}/notes`) });
  const add = useMutation({
    mutationFn: (note: string) => call(`/cases/${id}/notes`, { method: "POST", body: { note } }),
    onSuccess: () => {
      setText("");
      return renew(queries, ["case", id, "notes"]);
    },
  });
  return (
    <section className="card stack" aria-label="Notes">
      <h2>Notes</h2>
      {notes.data?.notes.length === 0 && <p className="small muted">None yet.</p>}
      <ul className="notes">
        {notes.data?.notes.map(({ id: note, note: said, name, created_at }) => (
          <li key={note}>
            <p>{said}</p>
            <p className="tiny muted figures">
              {name}, {shortTime(created_at, zone)}
            </p>
          </li>
        ))}
      </ul>
      {(add.error ?? notes.error) && <Notice alert>{sentence(add.error ?? notes.error)}</Notice>}
      {open && (
        <form
          className="stack"
          onSubmit={(event) => {
            event.preventDefault();
            if (text.trim()) add.mutate(text.trim());
          }}
        >
          <textarea rows={3} maxLength={2000} value={text} onChange={(event) => setText(event.target.value)} aria-label="A note" placeholder="What was done, found, asked" />
          <div>
            <button type="submit" className="button" disabled={!text.trim() || add.isPending}>
              Add the note
            </button>
          </div>
        </form>
      )}
    </section>
  );
}

/** The case as a zip. It is made when asked for, and can be fetched for a while. */
function Export({ id, onClose }: { id: string; onClose: () => void }) {
  const { zone } = usePreferences();
  const make = useMutation({
    mutationFn: (reason: string) => call<CaseExport>(`/cases/${id}/exports`, { method: "POST", body: { reason: reason || null } }),
  });
  const made = make.data;
  return (
    <Dialog title="Export the case" onClose={onClose}>
      {made ? (
        <>
          <p>
            {plural(made.images, "image")}
            {made.byte_size !== null && `, ${bytes(made.byte_size)}`}. It can be fetched until {longTime(made.expires_at, zone)}, unless one of its images is erased before.
          </p>
          {made.sha256 && (
            <dl className="facts">
              <dt>SHA-256</dt>
              <dd className="code">{made.sha256}</dd>
            </dl>
          )}
          <footer>
            <button type="button" className="button" onClick={onClose}>
              Close
            </button>
            <a className="button primary" href={made.content} download>
              <Icon name="download" />
              Download the zip
            </a>
          </footer>
        </>
      ) : (
        <form
          className="stack"
          onSubmit={(event) => {
            event.preventDefault();
            make.mutate(String(new FormData(event.currentTarget).get("reason")).trim());
          }}
        >
          <p className="muted">Images, verdicts, notes, searches and the audit of the case leave the system in one zip, with checksums.</p>
          <label className="field">
            <span>Why it leaves the system; kept in the audit</span>
            <input name="reason" maxLength={255} autoComplete="off" autoFocus />
          </label>
          {make.isError && <Notice alert>{sentence(make.error)}</Notice>}
          <footer className="row">
            <button type="submit" className="button primary" disabled={make.isPending}>
              {make.isPending ? "Packing …" : "Export"}
            </button>
            <button type="button" className="button" onClick={onClose}>
              Cancel
            </button>
          </footer>
        </form>
      )}
    </Dialog>
  );
}
