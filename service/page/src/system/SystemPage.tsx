/** The system: is it ready, what answers searches, how far an upgrade is, which cameras there are. */

import { useQuery } from "@tanstack/react-query";
import { Failure, call, failure } from "../api/client";
import type { Readiness, Version } from "../api/types";
import { capital, spaced } from "../lib/format";
import { Icon } from "../parts/Icon";
import { Page } from "../parts/Page";
import { Notice } from "../parts/states";
import { useHere } from "../session";
import { CamerasOf } from "./Cameras";
import { CheckpointsOf } from "./Checkpoints";

export default function SystemPage() {
  const { may } = useHere();
  const version = useQuery({ queryKey: ["version"], queryFn: () => call<Version>("/version") });
  return (
    <Page
      title="System"
      about={version.data && `${version.data.name} ${version.data.version}, searches are answered by checkpoint ${version.data.checkpoint_id}${version.data.net ? ` (${version.data.net})` : ""}.`}
    >
      <Ready />
      {may("upgrade") && <CheckpointsOf />}
      {may("configure") && <CamerasOf />}
    </Page>
  );
}

/** The checks come with a 503, too: that is an answer, not a failure. */
async function readiness(): Promise<Readiness> {
  let response: Response;
  try {
    response = await fetch("/readyz");
  } catch {
    throw new Failure("The service does not answer. Is it still running?", 0, "offline");
  }
  const body = await response.text();
  const found = JSON.parse(body) as Partial<Readiness>;
  if (found.checks) return found as Readiness;
  throw failure(response.status, body, response.headers.get("Retry-After"));
}

function Ready() {
  const { data, error } = useQuery({ queryKey: ["readyz"], queryFn: readiness, refetchInterval: 5000 });
  return (
    <section aria-label="Readiness">
      <h2>{data ? (data.ready ? "Ready" : "Not ready") : "Readiness"}</h2>
      {error && <Notice alert>{error.message}</Notice>}
      <ul className="checks">
        {data?.checks.map(({ name, ok, detail }) => (
          <li key={name} className={ok ? undefined : "bad"}>
            <Icon name={ok ? "check" : "alert"} />
            <div>
              <h3>
                {capital(spaced(name))}
                <span className="unseen">{ok ? ": good" : ": not good"}</span>
              </h3>
              <p>{detail}</p>
            </div>
          </li>
        ))}
      </ul>
    </section>
  );
}
