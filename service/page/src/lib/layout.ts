/** How results stand in a grid: rows of cards, and a heading where the weak ones of a ranking begin. */

import type { Band } from "../api/types";

export type Row = { kind: "weak"; from: number } | { kind: "cards"; from: number; to: number };

/** As many columns of at least `least` pixels as fit, one at least, and their width. */
export function columnsIn(width: number, least: number, gap: number): { columns: number; width: number } {
  const columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
  return { columns, width: Math.max(1, Math.floor((width - gap * (columns - 1)) / columns)) };
}

/** The heading stands only where bands come in order, as in a ranking; a page of nothing but weak results has it, too. */
export function rowsOf(bands: readonly (Band | null | undefined)[], columns: number, headings: boolean): Row[] {
  const rows: Row[] = [];
  let from = 0;
  while (from < bands.length) {
    let to = from + 1;
    const weak = bands[from] === "weak";
    if (headings && weak && bands[from - 1] !== "weak") rows.push({ kind: "weak", from });
    while (to < bands.length && to - from < columns && (!headings || (bands[to] === "weak") === weak)) to++;
    rows.push({ kind: "cards", from, to });
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
