/** The route the page is at, and how to go to another one. */

import { useSyncExternalStore } from "react";
import { type Route, formatRoute, parseRoute } from "./lib/route";

const listeners = new Set<() => void>();
let fragment = location.hash;
let route = parseRoute(fragment);

function changed(): void {
  if (location.hash !== fragment) {
    fragment = location.hash;
    route = parseRoute(fragment);
  }
  for (const listener of listeners) listener();
}

window.addEventListener("popstate", changed);
window.addEventListener("hashchange", changed);

export function useRoute(): Route {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => route,
  );
}

/** `replace`: the way back skips what was here. */
export function go(to: Route, replace = false): void {
  const address = formatRoute(to);
  if (address === location.hash) return;
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  changed();
}
