import type { ReactNode } from "react";

/** A page that is read rather than looked at: a title, a sentence, what can be done, and sections below. */
export function Page({ title, children, about, actions }: { title: string; about?: ReactNode; actions?: ReactNode; children: ReactNode }) {
  return (
    <div className="page">
      <header>
        <div>
          <h1>{title}</h1>
          {about && <p>{about}</p>}
        </div>
        {actions && <div className="row wrap">{actions}</div>}
      </header>
      {children}
    </div>
  );
}
