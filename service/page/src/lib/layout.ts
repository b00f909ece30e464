/** How results stand in a grid: rows of cards, and a word where the weak ones of a ranking begin. */

import type { Band } from "../api/types";

/** `turn`: the first weak result, if it begins within this row; a place of the row is left before it. */
export type Row = { kind: "weak"; from: number } | { kind: "cards"; from: number; to: number; turn: number | null };

/** As many columns of at least `least` pixels as fit, one at least, and their width. */
export function columnsIn(width: number, least: number, gap: number): { columns: number; width: number } {
  const columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
  return { columns, width: Math.max(1, Math.floor((width - gap * (columns - 1)) / columns)) };
}

/** Weak results are announced only where bands come in order: in a place of the row, or in a line of its own above them. */
export function rowsOf(bands: readonly (Band | null | undefined)[], columns: number, headings: boolean): Row[] {
  const rows: Row[] = [];
  const turns = (index: number) => headings && bands[index] === "weak" && bands[index - 1] !== "weak";
  let from = 0;
  while (from < bands.length) {
    if (turns(from)) rows.push({ kind: "weak", from });
    let to = from + 1;
    let room = columns - 1;
    let turn: number | null = null;
    while (to < bands.length && room > 0) {
      if (turns(to)) {
        if (room < 2) break; // a last place with nothing behind it
        turn = to;
        room--;
      }
      to++;
      room--;
    }
    rows.push({ kind: "cards", from, to, turn });
    from = to;
  }
  return rows;
}

export const rowOf = (rows: readonly Row[], index: number): number =>
  rows.findIndex((row) => row.kind === "cards" && row.from <= index && index < row.to);

/** Width by height of the middle crop, so that most crops fill their frame and none is cut. */
export function usualRatio(images: readonly { width: number; height: number }[]): number {
  const ratios = images.map(({ width, height }) => width / height).sort((a, b) => a - b);
  return Math.min(0.75, Math.max(1 / 3, ratios[ratios.length >> 1] ?? 1 / 3));
}
