/** What somebody prefers on this screen: theme, zone of the clocks, size of the pictures. Nothing about any person. */

import { useSyncExternalStore } from "react";
import { ownZone } from "./lib/zones";

export interface Preferences {
  theme: "auto" | "light" | "dark";
  zone: string;
  size: number; // least width of a card in pixels
}

export const SIZES = [80, 104, 136, 184] as const;
const KEY = "person-search";
const DEFAULTS: Preferences = { theme: "auto", zone: ownZone(), size: 104 };

function read(): Preferences {
  try {
    return { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Preferences>) };
  } catch {
    return DEFAULTS; // storage is off, or holds something else
  }
}

let current = read();
const listeners = new Set<() => void>();
const dark = matchMedia("(prefers-color-scheme: dark)");

function paint(): void {
  const theme = current.theme === "auto" ? (dark.matches ? "dark" : "light") : current.theme;
  document.documentElement.dataset["theme"] = theme;
}

dark.addEventListener("change", paint);
paint();

export function prefer(change: Partial<Preferences>): void {
  current = { ...current, ...change };
  try {
    localStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // Storage is off: the preference holds until the page is left.
  }
  paint();
  for (const listener of listeners) listener();
}

export function usePreferences(): Preferences {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => current,
  );
}
