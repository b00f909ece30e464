/** What a place says when it has nothing to show: empty, loading, failed, offline, not allowed. */

import type { ReactNode } from "react";
import { Failure, sentence } from "../api/client";
import { Icon, type IconName } from "./Icon";

export function State({ icon, title, children }: { icon: IconName; title: string; children?: ReactNode }) {
  return (
    <div className="state">
      <Icon name={icon} />
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function Notice({ alert = false, children }: { alert?: boolean; children: ReactNode }) {
  return (
    <div className={alert ? "notice alert" : "notice"} role={alert ? "alert" : "status"}>
      {alert && <Icon name="alert" />}
      <div className="grow">{children}</div>
    </div>
  );
}

export function Failed({ error, retry, children }: { error: unknown; retry?: () => void; children?: ReactNode }) {
  const failure = error instanceof Failure ? error : null;
  const offline = failure?.status === 0;
  const title = offline
    ? "The service does not answer"
    : failure?.status === 403
      ? "Not for your account"
      : failure?.status === 410
        ? "This search has expired"
        : failure?.status === 404
          ? "This is not here"
          : failure?.status === 503
            ? "The service is busy or not ready"
            : "That did not work";
  const icon: IconName = offline ? "offline" : failure?.status === 403 ? "lock" : "alert";
  return (
    <div role="alert">
      <State icon={icon} title={title}>
        <p>{sentence(error)}</p>
        {failure?.retryAfter != null && <p>It asks to wait {failure.retryAfter} s.</p>}
        <div className="row">
          {retry && failure?.status !== 403 && (
            <button type="button" className="button" onClick={retry}>
              Try again
            </button>
          )}
          {children}
        </div>
      </State>
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p className="muted" role="status">
      Loading {what} …
    </p>
  );
}

export function Bar({ share, label }: { share: number; label: string }) {
  const percent = Math.round(100 * Math.min(1, Math.max(0, share)));
  return (
    <div className="bar" role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={percent}>
      <div style={{ width: `${percent}%` }} />
    </div>
  );
}
