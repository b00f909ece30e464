/** Which key means what, apart from the document: a pure table, tested, and shown to the user as it is. */

export type Command =
  | "next"
  | "previous"
  | "up"
  | "down"
  | "first"
  | "last"
  | "open"
  | "close"
  | "match"
  | "no_match"
  | "unsure"
  | "like"
  | "unlike"
  | "refine"
  | "more"
  | "case"
  | "type"
  | "help";

const KEYS: Record<string, Command> = {
  j: "next",
  k: "previous",
  ArrowRight: "next",
  ArrowLeft: "previous",
  ArrowDown: "down",
  ArrowUp: "up",
  Home: "first",
  End: "last",
  Enter: "open",
  Escape: "close",
  "1": "match",
  "2": "no_match",
  "3": "unsure",
  "+": "like",
  "=": "like", // + without shift, on many keyboards
  "-": "unlike",
  r: "refine",
  m: "more",
  c: "case",
  "/": "type",
  "?": "help",
};

export interface Press {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
}

/** What a key press asks for; null when it belongs to a field somebody types in, or to the browser. */
export function command(press: Press, typing: boolean): Command | null {
  if (typing || press.ctrlKey || press.metaKey || press.altKey) return null;
  return KEYS[press.key] ?? null;
}

/** Whether keys go into this element as text, or move its value. */
export function isTyping(target: { tagName?: string; type?: string; isContentEditable?: boolean } | null): boolean {
  if (!target) return false;
  if (target.isContentEditable || target.tagName === "TEXTAREA" || target.tagName === "SELECT") return true;
  return target.tagName === "INPUT" && target.type !== "checkbox" && target.type !== "radio" && target.type !== "button";
}

/** Where a command leads in a grid of `count` places, `columns` in a row; the same place at its edges. */
export function move(from: number, command: Command, count: number, columns: number): number {
  const steps: Partial<Record<Command, number>> = { next: 1, previous: -1, down: columns, up: -columns };
  if (command === "first") return 0;
  if (command === "last") return Math.max(0, count - 1);
  const step = steps[command];
  if (step === undefined || count === 0) return from;
  const to = from + step;
  return to < 0 || to >= count ? from : to;
}

export const HELP: readonly (readonly [keys: string, meaning: string])[] = [
  ["/", "Type a description"],
  ["j k ← → ↑ ↓", "Move in the results"],
  ["Enter", "Open a result"],
  ["Esc", "Close it"],
  ["1 2 3", "Match, no match, unsure"],
  ["+ −", "More like this one, less like this one"],
  ["r", "Refine with what is marked"],
  ["m", "Search for images like this one"],
  ["c", "Add to the case"],
  ["?", "This list"],
];
