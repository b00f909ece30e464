/** Add images: drop an archive or a folder, see what would be refused, send it, watch it, see why what failed. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { call, sentence } from "../api/client";
import { renew } from "../api/renew";
import type { Ingestion, Progress } from "../api/types";
import { bytes, duration, number, plural } from "../lib/format";
import { Icon } from "../parts/Icon";
import { Page } from "../parts/Page";
import { Bar, Failed, Notice } from "../parts/states";
import { go } from "../place";
import { useHere } from "../session";
import { Items } from "./Items";
import { type Delivery, follow, inspectArchive, inspectDrop, inspectFolder, upload } from "./deliver";

export default function AddPage({ ingestion }: { ingestion: string | null }) {
  return (
    <Page
      title="Add images"
      about={
        <>
          A zip or tar with <code>metadata.jsonl</code> in it, or a folder of pictures. Nothing is added twice: sending the same again is harmless.
        </>
      }
    >
      {ingestion ? <Following key={ingestion} id={ingestion} /> : <Sending />}
    </Page>
  );
}

function Sending() {
  const { cameras } = useHere();
  const [delivery, setDelivery] = useState<Delivery | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [looking, setLooking] = useState(false);
  const [above, setAbove] = useState(false);
  const [camera, setCamera] = useState("");
  const [register, setRegister] = useState(false);
  const [share, setShare] = useState(0);
  const aborting = useRef<AbortController>(null);
  const archive = useRef<HTMLInputElement>(null);
  const folder = useRef<HTMLInputElement>(null);
  const key = useRef("");

  const inspect = async (looked: Promise<Delivery>) => {
    setLooking(true);
    setProblem(null);
    setDelivery(null);
    try {
      const found = await looked;
      key.current = crypto.randomUUID(); // one for each delivery, so that a second try is the same request
      const known = new Set(cameras.map(({ id }) => id));
      setRegister(found.preview?.cameras.some((id) => !known.has(id)) ?? false);
      setDelivery(found);
    } catch (error) {
      setProblem(sentence(error));
    } finally {
      setLooking(false);
    }
  };

  const sending = useMutation({
    mutationFn: (chosen: Delivery) => {
      aborting.current = new AbortController();
      setShare(0);
      return upload(chosen, { camera: camera || null, register, key: key.current }, setShare, aborting.current.signal);
    },
    onSuccess: ({ id }) => go({ page: "add", ingestion: id }),
  });

  const seen = delivery?.preview;
  const unknown = seen?.cameras.filter((id) => !cameras.some((known) => known.id === id)) ?? [];
  const aborted = sending.error instanceof DOMException;

  return (
    <>
      <div
        className={above ? "landing above" : "landing"}
        onDragEnter={() => setAbove(true)}
        onDragLeave={(event) => {
          if (!event.currentTarget.contains(event.relatedTarget as Node | null)) setAbove(false);
        }}
        onDragOver={(event) => event.preventDefault()}
        onDrop={(event) => {
          event.preventDefault();
          setAbove(false);
          void inspect(inspectDrop(event.dataTransfer));
        }}
      >
        <Icon name="add" />
        <p>
          <strong>Drop a zip, a tar or a folder here</strong>
          <br />
          <span className="muted">It is looked at before anything is sent.</span>
        </p>
        <div className="row">
          <button type="button" className="button" onClick={() => archive.current?.click()}>
            Choose an archive
          </button>
          <button type="button" className="button" onClick={() => folder.current?.click()}>
            Choose a folder
          </button>
        </div>
        <input
          ref={archive}
          type="file"
          hidden
          aria-label="Archive"
          accept=".zip,.tar,.tgz,.tar.gz"
          onChange={(event) => {
            const file = event.target.files?.[0];
            if (file) void inspect(inspectArchive(file));
            event.target.value = "";
          }}
        />
        <input
          ref={(input) => {
            folder.current = input;
            input?.setAttribute("webkitdirectory", "");
          }}
          type="file"
          hidden
          multiple
          aria-label="Folder"
          onChange={(event) => {
            const files = [...(event.target.files ?? [])].map((file) => ({ path: file.webkitRelativePath.split("/").slice(1).join("/"), file }));
            const name = event.target.files?.[0]?.webkitRelativePath.split("/")[0] ?? "the folder";
            if (files.length) void inspect(inspectFolder(name, files));
            event.target.value = "";
          }}
        />
      </div>
      {looking && <Notice>Looking at it …</Notice>}
      {problem && <Notice alert>{problem}</Notice>}
      {delivery && (
        <section className="card stack" aria-label="Before sending">
          <div className="row wrap spread">
            <h2 className="clip">{delivery.kind === "archive" ? delivery.file.name : delivery.name}</h2>
            <span className="muted figures small">{bytes(delivery.kind === "archive" ? delivery.file.size : delivery.files.reduce((sum, { file }) => sum + file.size, 0))}</span>
          </div>
          {seen === null && <p className="muted">A tar is looked at when it has arrived.</p>}
          {seen?.fatal && <Notice alert>{seen.fatal}</Notice>}
          {seen && !seen.fatal && (
            <p className="figures">
              <strong>{plural(seen.images, "image")}</strong> look fine
              {seen.findings.length > 0 && (
                <>
                  , <strong className="alerting">{number(seen.findings.length)}</strong> would be rejected
                </>
              )}
              {seen.cameras.length > 0 && `, from ${plural(seen.cameras.length, "camera")}`}.
            </p>
          )}
          {seen && seen.findings.length > 0 && (
            <div className="scrolled findings" tabIndex={0} role="region" aria-label="What would be rejected">
              <table>
                <thead>
                  <tr>
                    <th>Line</th>
                    <th>File</th>
                    <th>Why</th>
                  </tr>
                </thead>
                <tbody>
                  {seen.findings.slice(0, 200).map((finding, at) => (
                    <tr key={at}>
                      <td className="figures">{finding.line}</td>
                      <td className="code">{finding.file}</td>
                      <td>{finding.reason}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
          {delivery.kind === "folder" && delivery.manifest === null && !seen?.fatal && (
            <label className="field">
              <span>There is no metadata.jsonl: all of these are from</span>
              <select value={camera} onChange={(event) => setCamera(event.target.value)}>
                <option value="">no known camera</option>
                {cameras.map(({ id, name }) => (
                  <option key={id} value={id}>
                    {name ?? id}
                  </option>
                ))}
              </select>
            </label>
          )}
          {(unknown.length > 0 || seen === null) && (
            <label className="check">
              <input type="checkbox" checked={register} onChange={(event) => setRegister(event.target.checked)} />
              <span>
                Add unknown cameras{unknown.length > 0 && `: ${unknown.slice(0, 6).join(", ")}${unknown.length > 6 ? " …" : ""}`}
                {!register && unknown.length > 0 && <span className="muted"> (otherwise their images are rejected)</span>}
              </span>
            </label>
          )}
          {sending.isPending && <Bar share={share} label="Sent" />}
          {sending.isError && !aborted && <Notice alert>{sentence(sending.error)}</Notice>}
          <div className="row">
            <button type="button" className="button primary" disabled={sending.isPending || Boolean(seen?.fatal)} onClick={() => sending.mutate(delivery)}>
              {sending.isPending ? `Sending … ${Math.round(100 * share)} %` : "Add the images"}
            </button>
            <button
              type="button"
              className="button"
              onClick={() => {
                aborting.current?.abort();
                if (!sending.isPending) setDelivery(null);
              }}
            >
              Cancel
            </button>
          </div>
        </section>
      )}
    </>
  );
}

const COUNTS = [
  ["indexed", "searchable"],
  ["duplicate", "there already"],
  ["pending", "waiting"],
  ["rejected", "rejected"],
  ["failed", "failed"],
  ["removed", "removed since"],
] as const;

function Following({ id }: { id: string }) {
  const queries = useQueryClient();
  const first = useQuery({ queryKey: ["ingestion", id], queryFn: () => call<Ingestion>(`/ingestions/${id}`) });
  const [progress, setProgress] = useState<Progress | null>(null);
  const [round, setRound] = useState(0);
  const [lost, setLost] = useState<unknown>(null);

  useEffect(() => {
    const watching = new AbortController();
    follow(id, setProgress, watching.signal).then(
      () => {
        if (watching.signal.aborted) return;
        void renew(queries, ["ingestion-items", id], ["facets"], ["cameras"]);
      },
      (error: unknown) => setLost(error),
    );
    return () => watching.abort();
  }, [id, round, queries]);

  const act = useMutation({
    mutationFn: (what: "cancel" | "retry") => call<Ingestion>(`/ingestions/${id}/${what}`, { method: "POST" }),
    onSuccess: () => setRound((round) => round + 1),
  });
  const now: Ingestion | Progress | undefined = progress ?? first.data;
  if (first.isError || lost) return <Failed error={first.error ?? lost} retry={() => void first.refetch()} />;
  if (!now) return null;
  const all = Object.values(now.counts).reduce((sum, count) => sum + count, 0);
  const total = Math.max(now.total ?? 0, all);
  const left = total - (all - now.counts.pending);
  return (
    <>
      <section className="card stack" aria-label="Progress">
        <div className="row wrap spread">
          <h2>{now.done ? outcome(now) : now.state === "open" ? "Waiting for its turn" : "Working on it"}</h2>
          <span className="muted small figures" role="status">
            {now.done
              ? plural(total, "item")
              : `${number(total - left)} of ${number(total)}${progress?.rate ? ` · ${progress.rate.toFixed(progress.rate < 10 ? 1 : 0)} a second` : ""}${progress?.seconds_left != null ? ` · ${duration(progress.seconds_left)} left` : ""}`}
          </span>
        </div>
        <Bar share={now.done ? 1 : total ? (total - left) / total : 0} label="Items done" />
        <dl className="counts">
          {COUNTS.filter(([state]) => now.counts[state] > 0 || state === "indexed").map(([state, name]) => (
            <div key={state} className={state === "rejected" || state === "failed" ? "alerting" : undefined}>
              <dd className="figures">{number(now.counts[state])}</dd>
              <dt>{name}</dt>
            </div>
          ))}
        </dl>
        {now.error && <Notice alert>{now.error}</Notice>}
        {act.isError && <Notice alert>{sentence(act.error)}</Notice>}
        <div className="row wrap">
          {!now.done && (
            <button type="button" className="button" onClick={() => act.mutate("cancel")} disabled={act.isPending || now.state === "cancelled"}>
              Stop it
            </button>
          )}
          {now.done && now.counts.failed > 0 && (
            <button type="button" className="button primary" onClick={() => act.mutate("retry")} disabled={act.isPending}>
              Try the failed ones again
            </button>
          )}
          {now.done && (
            <button type="button" className="button" onClick={() => go({ page: "add", ingestion: null })}>
              Add more
            </button>
          )}
        </div>
        <p className="tiny muted">{now.source}</p>
      </section>
      {total > 0 && <Items id={id} counts={now.counts} done={now.done} />}
    </>
  );
}

function outcome({ state, counts }: Ingestion): string {
  if (state === "cancelled") return "Stopped";
  if (state === "failed") return "Broken off";
  return counts.rejected + counts.failed > 0 ? "Done, with some left out" : "Done";
}
