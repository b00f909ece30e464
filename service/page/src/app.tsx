/** The frame around the pages: who is here, where they can go, and what they see when the service is away. */

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Suspense, lazy, useEffect, useRef, useState } from "react";
import { Failure, call, onSessionEnd, setCsrf } from "./api/client";
import type { Permission, Session } from "./api/types";
import { Door } from "./door";
import { allZones } from "./lib/zones";
import { type Page, type Route, formatRoute } from "./lib/route";

import { MARK } from "./mark";
import { Icon, type IconName } from "./parts/Icon";
import { Password } from "./accounts/Password";
import { Popover } from "./parts/Popover";
import { Failed, Loading, Notice, State } from "./parts/states";
import { go, useRoute } from "./place";
import { SearchPage } from "./search/SearchPage";
import { Workspace } from "./search/workspace";
import { Present, useHere } from "./session";
import { prefer, usePreferences } from "./settings";

const AddPage = lazy(() => import("./add/AddPage"));
const CasesPage = lazy(() => import("./cases/CasesPage"));
const SystemPage = lazy(() => import("./system/SystemPage"));
const AuditPage = lazy(() => import("./audit/AuditPage"));
const AccountsPage = lazy(() => import("./accounts/AccountsPage"));

const PLACES: readonly { page: Page; name: string; icon: IconName; needs: readonly Permission[]; route: Route }[] = [
  { page: "search", name: "Search", icon: "search", needs: ["search"], route: { page: "search", search: null, image: null } },
  { page: "add", name: "Add images", icon: "add", needs: ["ingest"], route: { page: "add", ingestion: null } },
  { page: "cases", name: "Cases", icon: "case", needs: ["case"], route: { page: "cases", case: null } },
  { page: "system", name: "System", icon: "system", needs: [], route: { page: "system" } },
  { page: "audit", name: "Audit", icon: "audit", needs: ["audit"], route: { page: "audit" } },
  { page: "accounts", name: "Accounts", icon: "accounts", needs: ["accounts"], route: { page: "accounts" } },
];

export function App() {
  const route = useRoute();
  const queries = useQueryClient();
  const [token] = useState(() => (route.page === "setup" ? route.token : null));
  const [ended, setEnded] = useState(false);
  const session = useQuery({
    queryKey: ["session"],
    queryFn: async () => {
      const found = await call<Session>("/session");
      setCsrf(found.csrf_token);
      return found;
    },
    staleTime: Infinity,
    gcTime: Infinity,
  });

  useEffect(() => {
    // A set-up link is good once and belongs into no history.
    if (route.page === "setup") go({ page: "search", search: null, image: null }, true);
  }, [route]);
  useEffect(
    () =>
      onSessionEnd(() => {
        if (queries.getQueryData(["session"]) === undefined) return; // nobody had signed in yet
        setEnded(true);
        queries.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== "session" }); // nothing seen stays
      }),
    [queries],
  );

  const door = <Door token={token} ended={ended} onIn={() => setEnded(false)} />;
  if (session.data) {
    return (
      <Present key={session.data.id} session={session.data}>
        <Workspace>{ended ? door : <Shell route={route} />}</Workspace>
      </Present>
    );
  }
  if (session.error instanceof Failure && session.error.status === 401) return door;
  if (session.isError) return <Failed error={session.error} retry={() => void session.refetch()} />;
  return null; // for the blink until it is known
}

function Shell({ route }: { route: Route }) {
  const { may, session } = useHere();
  const places = PLACES.filter(({ needs }) => needs.every((permission) => may(permission)));
  const main = useRef<HTMLElement>(null);
  const page = route.page === "setup" ? "search" : route.page;
  const place = PLACES.find((place) => place.page === page);
  const allowed = places.some((place) => place.page === page);
  const first = places[0];
  const atStart = location.hash === "" && !allowed;

  useEffect(() => {
    document.title = place ? `${place.name} · Person search` : "Person search";
  }, [place]);
  useEffect(() => {
    if (atStart && first) go(first.route, true); // an auditor starts at the audit
  }, [atStart, first]);

  return (
    <div className="shell">
      <a
        className="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to the content
      </a>
      <header className="rail">
        <div className="mark">
          <img src={MARK} alt="Person search" />
        </div>
        <nav aria-label="Pages">
          <ul>
            {places.map(({ page: target, name, icon, route: to }) => (
              <li key={target}>
                <a
                  href={formatRoute(to)}
                  aria-current={target === page ? "page" : undefined}
                  onClick={(event) => {
                    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
                    event.preventDefault();
                    if (target !== page) go(to);
                  }}
                >
                  <Icon name={icon} />
                  {name}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <Account name={session.kind === "open" ? "Open" : session.name} />
      </header>
      <main className="main" id="main" ref={main} tabIndex={-1}>
        {!allowed ? (
          atStart ? null : (
            <State icon="lock" title="Not for your account">
              <p>Your roles do not include this page. An admin can change them.</p>
            </State>
          )
        ) : page === "search" ? (
          <SearchPage route={route.page === "search" ? route : { page: "search", search: null, image: null }} scroller={main} />
        ) : (
          <Suspense fallback={<Loading what="the page" />}>
            {route.page === "add" && <AddPage ingestion={route.ingestion} />}
            {route.page === "cases" && <CasesPage id={route.case} />}
            {route.page === "system" && <SystemPage />}
            {route.page === "audit" && <AuditPage />}
            {route.page === "accounts" && <AccountsPage />}
          </Suspense>
        )}
      </main>
      <Offline />
    </div>
  );
}

function Account({ name }: { name: string }) {
  const { session, cameraName } = useHere();
  const { theme, zone } = usePreferences();
  const [changing, setChanging] = useState(false);
  const signOut = async () => {
    await call("/session", { method: "DELETE" });
    location.replace(location.pathname); // nothing of what was seen stays on the page
  };
  return (
    <div className="account">
      <Popover
        className=""
        title="Account and appearance"
        label={
          <>
            <Icon name="person" />
            <span className="clip">{name}</span>
          </>
        }
      >
        <div className="stack">
          {session.kind === "open" ? (
            <p className="small muted">This service is open: whoever is on this machine may do anything.</p>
          ) : (
            <div>
              <h3>{session.name}</h3>
              <p className="small muted">{session.roles.join(", ")}</p>
              {session.cameras && <p className="small muted">Cameras: {session.cameras.map(cameraName).join(", ")}</p>}
            </div>
          )}
          <div className="field">
            <span id="theme">Appearance</span>
            <div className="segments" role="group" aria-labelledby="theme">
              {(["auto", "light", "dark"] as const).map((choice) => (
                <button key={choice} type="button" aria-pressed={theme === choice} onClick={() => prefer({ theme: choice })}>
                  {choice === "auto" ? "As the system" : choice === "light" ? "Light" : "Dark"}
                </button>
              ))}
            </div>
          </div>
          <label className="field">
            <span>Times are shown in</span>
            <select value={zone} onChange={(event) => prefer({ zone: event.target.value })}>
              {allZones().map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          {session.kind === "user" && (
            <div className="row">
              <button type="button" className="button" onClick={() => setChanging(true)}>
                Change password
              </button>
              <button type="button" className="button" onClick={() => void signOut()}>
                Sign out
              </button>
            </div>
          )}
        </div>
      </Popover>
      {changing && <Password onClose={() => setChanging(false)} />}
    </div>
  );
}

/** A quiet line while the service is away; it looks again by itself. */
function Offline() {
  const queries = useQueryClient();
  const [away, setAway] = useState(false);
  useEffect(
    () =>
      queries.getQueryCache().subscribe((event) => {
        const { error } = event.query.state;
        if (error instanceof Failure && error.status === 0) setAway(true);
      }),
    [queries],
  );
  useEffect(() => {
    if (!away) return;
    const look = setInterval(() => {
      call("/livez").then(
        () => {
          setAway(false);
          void queries.refetchQueries({ predicate: ({ state }) => state.status === "error" });
        },
        () => undefined, // still away
      );
    }, 2000);
    return () => clearInterval(look);
  }, [away, queries]);
  if (!away) return null;
  return (
    <div className="offline">
      <Notice alert>The service does not answer. This page goes on as soon as it does.</Notice>
    </div>
  );
}
