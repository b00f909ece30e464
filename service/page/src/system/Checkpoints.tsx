/** Checkpoints: register one, watch its coverage, ask the gate, let it answer searches, go back, let it go. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { call, sentence } from "../api/client";
import { renew } from "../api/renew";
import type { Checkpoint, CheckpointDetail, Checkpoints, GateReport } from "../api/types";
import { duration, longTime, number, percent, plural, spaced } from "../lib/format";
import { Dialog } from "../parts/Dialog";
import { Icon } from "../parts/Icon";
import { Bar, Failed, Loading, Notice } from "../parts/states";
import { usePreferences } from "../settings";

export function CheckpointsOf() {
  const queries = useQueryClient();
  const file = useRef<HTMLInputElement>(null);
  const list = useQuery({
    queryKey: ["checkpoints"],
    queryFn: () => call<Checkpoints>("/checkpoints"),
    refetchInterval: ({ state }) => (state.data?.checkpoints.some(({ coverage }) => coverage && coverage.pending > 0) ? 1000 : 10_000),
  });
  const register = useMutation({
    mutationFn: (chosen: File) => call<Checkpoint>("/checkpoints", { method: "POST", body: chosen, type: "application/octet-stream" }),
    onSettled: () => renew(queries, ["checkpoints"]),
  });
  const order = { active: 0, candidate: 1, retired: 2 };
  const checkpoints = [...(list.data?.checkpoints ?? [])].sort((a, b) => order[a.state] - order[b.state] || b.created_at.localeCompare(a.created_at));
  return (
    <section aria-label="Checkpoints" className="stack">
      <div className="row wrap spread">
        <h2>Checkpoints</h2>
        <button type="button" className="button" onClick={() => file.current?.click()} disabled={register.isPending}>
          <Icon name="add" />
          {register.isPending ? "Sending …" : "Register a checkpoint"}
        </button>
        <input
          ref={file}
          type="file"
          hidden
          accept=".safetensors"
          aria-label="Checkpoint file"
          onChange={(event) => {
            const chosen = event.target.files?.[0];
            if (chosen) register.mutate(chosen);
            event.target.value = "";
          }}
        />
      </div>
      {register.isError && <Notice alert>{sentence(register.error)}</Notice>}
      {list.isError && <Failed error={list.error} retry={() => void list.refetch()} />}
      {list.isLoading && <Loading what="the checkpoints" />}
      {checkpoints.map((checkpoint) => (
        <One key={checkpoint.id} checkpoint={checkpoint} />
      ))}
    </section>
  );
}

const STATES = { active: "answers searches", candidate: "candidate", retired: "retired" } as const;

function One({ checkpoint }: { checkpoint: Checkpoint }) {
  const { id, net, dim, state, coverage, gate, previous_id, created_at } = checkpoint;
  const { zone } = usePreferences();
  const queries = useQueryClient();
  const [asking, setAsking] = useState<"activate" | "rollback" | null>(null);
  const changed = () => {
    void renew(queries, ["checkpoints"], ["checkpoint"], ["version"], ["readyz"]);
  };
  const judge = useMutation({ mutationFn: () => call<GateReport>(`/checkpoints/${id}/gate`, { method: "POST", body: {} }), onSettled: changed });
  const retire = useMutation({ mutationFn: () => call(`/checkpoints/${id}/retire`, { method: "POST" }), onSettled: changed });
  const failed = judge.error ?? retire.error;
  const share = coverage && coverage.images ? coverage.embedded / coverage.images : 1;
  return (
    <article className="card checkpoint" aria-label={`Checkpoint ${id}`}>
      <header>
        <div className="row wrap">
          <h3 className="code">{id}</h3>
          <span className={state === "active" ? "tag good" : "tag"}>{STATES[state]}</span>
          <span className="muted small">
            {net}, {dim} dimensions, since <span className="figures">{longTime(created_at, zone)}</span>
          </span>
        </div>
        <div className="row wrap">
          {state === "candidate" && (
            <>
              <button type="button" className="button" onClick={() => judge.mutate()} disabled={judge.isPending}>
                {judge.isPending ? "Comparing …" : "Ask the gate"}
              </button>
              <button type="button" className="button primary" onClick={() => setAsking("activate")}>
                Activate
              </button>
            </>
          )}
          {state === "active" && previous_id && (
            <button type="button" className="button" onClick={() => setAsking("rollback")}>
              Roll back
            </button>
          )}
          {state === "candidate" && (
            <button type="button" className="button quiet" onClick={() => retire.mutate()} disabled={retire.isPending}>
              Retire
            </button>
          )}
        </div>
      </header>
      {coverage && (
        <div className="stack">
          <Bar share={share} label={`Embedded with ${id}`} />
          <p className="small muted figures">
            {coverage.pending === 0 && coverage.failed === 0
              ? `All ${plural(coverage.images, "image")} embedded.`
              : `${number(coverage.embedded)} of ${plural(coverage.images, "image")} embedded (${percent(share)})`}
            {coverage.pending > 0 && `, ${number(coverage.pending)} waiting`}
            {coverage.failed > 0 && `, ${number(coverage.failed)} failed`}
            {coverage.pending > 0 && coverage.per_second > 0 && `, ${coverage.per_second.toFixed(1)} a second`}
            {coverage.pending > 0 && coverage.seconds_left !== null && `, ${duration(coverage.seconds_left)} left`}
          </p>
        </div>
      )}
      {failed && <Notice alert>{sentence(failed)}</Notice>}
      {gate && state === "candidate" && <Gate report={gate} />}
      <History id={id} />
      {asking && <Decide id={id} what={asking} onClose={() => setAsking(null)} onDone={changed} />}
    </article>
  );
}

function Gate({ report }: { report: GateReport }) {
  const modes = [...new Set([...Object.keys(report.overlap), ...Object.keys(report.rank1), ...Object.keys(report.canaries)])];
  return (
    <div className="gate">
      <p>
        <span className={report.passed ? "tag good" : "tag bad"}>{report.passed ? "The gate agrees" : "The gate refuses"}</span>
      </p>
      {[...report.refusals, ...report.warnings].map((said) => (
        <p className="small" key={said}>
          {said}
        </p>
      ))}
      {modes.length > 0 && (
        <div className="scrolled">
          <table>
            <thead>
              <tr>
                <th>Compared by</th>
                <th>First ten that stay</th>
                <th>Rank-1 now</th>
                <th>Rank-1 then</th>
                <th>Canary</th>
              </tr>
            </thead>
            <tbody className="figures">
              {modes.map((mode) => {
                const overlap = report.overlap[mode];
                const rank1 = report.rank1[mode];
                const canary = report.canaries[mode];
                return (
                  <tr key={mode}>
                    <td>{mode}</td>
                    <td>{overlap ? `${percent(overlap.mean)} (${plural(overlap.queries, "query", "queries")})` : "–"}</td>
                    <td>{rank1 ? percent(rank1.active) : "–"}</td>
                    <td>{rank1 ? percent(rank1.candidate) : "–"}</td>
                    <td>{canary === undefined ? "–" : canary.toFixed(4)}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
      {report.missing > 0 && <p className="small">{plural(report.missing, "image")} found now would not be found.</p>}
    </div>
  );
}

function History({ id }: { id: string }) {
  const { zone } = usePreferences();
  const [open, setOpen] = useState(false);
  const detail = useQuery({ queryKey: ["checkpoint", id], queryFn: () => call<CheckpointDetail>(`/checkpoints/${id}`), enabled: open });
  const quality = detail.data?.info["validation"];
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary className="small">Measured quality and history</summary>
      {detail.isError && <Notice alert>{sentence(detail.error)}</Notice>}
      {detail.data && (
        <div className="stack small">
          <Quality measured={quality} />
          <ul>
            {detail.data.events.map(({ kind, at, detail: more }, index) => (
              <li key={index} className="figures">
                <span className="muted">{longTime(at, zone)}</span> {spaced(kind)}
                {typeof more["reason"] === "string" && `: ${more["reason"]}`}
              </li>
            ))}
          </ul>
        </div>
      )}
    </details>
  );
}

/** What the checkpoint says was measured on validation data: numbers by name, whichever they are. */
function Quality({ measured }: { measured: unknown }) {
  const found = numbersIn(measured, "");
  if (!found.length) return <p className="muted">The checkpoint names no measured quality.</p>;
  return (
    <dl className="facts">
      {found.slice(0, 24).map(([name, value]) => (
        <div key={name} className="pair">
          <dt>{spaced(name)}</dt>
          <dd className="figures">{Number.isInteger(value) ? number(value) : value.toFixed(4)}</dd>
        </div>
      ))}
    </dl>
  );
}

function numbersIn(value: unknown, name: string): [string, number][] {
  if (typeof value === "number") return [[name, value]];
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [];
  return Object.entries(value).flatMap(([key, inner]) => numbersIn(inner, name ? `${name} ${key}` : key));
}

function Decide({ id, what, onClose, onDone }: { id: string; what: "activate" | "rollback"; onClose: () => void; onDone: () => void }) {
  const [force, setForce] = useState(false);
  const act = useMutation({
    mutationFn: (reason: string) => call(`/checkpoints/${id}/${what}`, { method: "POST", body: { force, ...(reason && { reason }) } }),
    onSuccess: onClose,
    onSettled: onDone,
  });
  return (
    <Dialog title={what === "activate" ? "Let this checkpoint answer searches?" : "Go back to the checkpoint before?"} onClose={onClose}>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          act.mutate(String(new FormData(event.currentTarget).get("reason")).trim());
        }}
      >
        <p className="muted">
          {what === "activate" ? "The gate judges it again first. Searches go on meanwhile." : "Searches go on; new ones are answered by the one before."}
        </p>
        <label className="field">
          <span>Reason{force ? "" : ", if you like"}</span>
          <input name="reason" maxLength={255} required={force} autoComplete="off" autoFocus />
        </label>
        <label className="check">
          <input type="checkbox" checked={force} onChange={(event) => setForce(event.target.checked)} />
          <span>Even if the gate refuses; this needs a reason</span>
        </label>
        {act.isError && <Notice alert>{sentence(act.error)}</Notice>}
        <div className="row">
          <button type="submit" className="button primary" disabled={act.isPending}>
            {act.isPending ? "One moment …" : what === "activate" ? "Activate" : "Roll back"}
          </button>
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
        </div>
      </form>
    </Dialog>
  );
}
