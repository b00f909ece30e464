/** Results marked as examples, to refine a search with. */

export interface Marks {
  readonly like: readonly string[];
  readonly unlike: readonly string[];
}

export const NO_MARKS: Marks = { like: [], unlike: [] };
export const MARKS_MAX = 50; // of each kind, as the API accepts

/** Mark, or take the same mark back; an image is an example of one kind at most. */
export function mark(marks: Marks, image: string, kind: "like" | "unlike"): Marks {
  const other = kind === "like" ? "unlike" : "like";
  const had = marks[kind].includes(image);
  const kept = marks[kind].filter((id) => id !== image);
  if (!had && kept.length >= MARKS_MAX) return marks;
  return { ...marks, [kind]: had ? kept : [...kept, image], [other]: marks[other].filter((id) => id !== image) };
}

export const markOf = (marks: Marks, image: string): "like" | "unlike" | null =>
  marks.like.includes(image) ? "like" : marks.unlike.includes(image) ? "unlike" : null;
