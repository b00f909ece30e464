import { describe, expect, test } from "vitest";
import type { Camera, Facets } from "../api/types";
import { boxBetween, nudge } from "./crop";
import { bySite, chipOfCameras, chipOfDates, chipOfHours, chipOfIdentity, chipOfTags, toggled, toggledSite } from "./filters";
import { apart, brief, bytes, capital, duration, longTime, percent, plural, shortTime, spaced } from "./format";
import { columnsIn, rowOf, rowsOf, usualRatio } from "./layout";
import { MARKS_MAX, NO_MARKS, mark, markOf } from "./marks";
import { emptyQuestion } from "./question";

describe("format", () => {
  test("times on the clocks of a zone", () => {
    expect(shortTime("2024-05-06T16:14:38Z", "Europe/Berlin")).toBe("6 May 18:14");
    expect(longTime("2024-05-06T16:14:38Z", "UTC")).toMatch(/Mon, 6 May 2024.* 16:14:38 UTC/);
  });
  test.each([[0.2, "same moment"], [-12, "−12 s"], [180, "+3 min"], [-6000, "−1 h 40 min"], [7200, "+2 h"], [172_800, "+2 days"]] as const)("%f s apart", (seconds, said) =>
    expect(apart(seconds)).toBe(said),
  );
  test.each([[0.1, "1 s"], [89, "89 s"], [90, "2 min"], [5400, "1 h 30 min"]] as const)("%f s long", (seconds, said) => expect(duration(seconds)).toBe(said));
  test.each([[999, "999 bytes"], [1500, "1.5 kB"], [15_000, "15 kB"], [2_500_000, "2.5 MB"], [3e9, "3.0 GB"]] as const)("%i bytes", (count, said) => expect(bytes(count)).toBe(said));
  test("counts", () => {
    expect(plural(1, "image")).toBe("1 image");
    expect(plural(10_000, "image")).toBe("10,000 images");
    expect(plural(0, "query", "queries")).toBe("0 queries");
    expect(percent(0.999)).toBe("99 %"); // not all of it is not all of it
  });
  test("words", () => {
    expect(brief("0123456789", 4)).toBe("0123…");
    expect(spaced("image.view_full")).toBe("image view full");
    expect(capital("weak")).toBe("Weak");
  });
});

describe("layout", () => {
  test("columns that fit", () => {
    expect(columnsIn(1000, 100, 10)).toEqual({ columns: 9, width: 102 });
    expect(columnsIn(50, 100, 10)).toEqual({ columns: 1, width: 50 });
  });
  test("every result stands in exactly one row, however many columns", () => {
    const bands = [...Array<"strong">(3).fill("strong"), ...Array<"possible">(5).fill("possible"), ...Array<"weak">(9).fill("weak")];
    for (const columns of [1, 2, 4, 7, 30]) {
      const rows = rowsOf(bands, columns, true);
      const places = rows.flatMap((row) => (row.kind === "cards" ? Array.from({ length: row.to - row.from }, (_, at) => row.from + at) : []));
      expect(places).toEqual(bands.map((_, index) => index));
      const told = rows.flatMap((row) => (row.kind === "weak" ? [row.from] : row.turn === null ? [] : [row.turn]));
      expect(told).toEqual([8]);
      for (const row of rows) if (row.kind === "cards") expect(row.to - row.from + (row.turn === null ? 0 : 1)).toBeLessThanOrEqual(columns);
      for (const index of places) expect(rows[rowOf(rows, index)]).toMatchObject({ kind: "cards" });
    }
  });
  test("weak ones go on in the row, but for a last place or a new row", () => {
    expect(rowsOf(["possible", "weak", "weak", "weak"], 4, true)).toEqual([{ kind: "cards", from: 0, to: 3, turn: 1 }, { kind: "cards", from: 3, to: 4, turn: null }]);
    expect(rowsOf(["possible", "weak"], 2, true)).toEqual([{ kind: "cards", from: 0, to: 1, turn: null }, { kind: "weak", from: 1 }, { kind: "cards", from: 1, to: 2, turn: null }]);
  });
  test("no headings where bands do not come in order", () => {
    expect(rowsOf(["weak", "strong", "weak"], 2, false)).toEqual([{ kind: "cards", from: 0, to: 2, turn: null }, { kind: "cards", from: 2, to: 3, turn: null }]);
  });
  test("nothing but weak ones, and none with a band", () => {
    expect(rowsOf(["weak"], 2, true)[0]).toEqual({ kind: "weak", from: 0 });
    expect(rowsOf([null, undefined], 2, true)).toEqual([{ kind: "cards", from: 0, to: 2, turn: null }]);
    expect(rowsOf([], 2, true)).toEqual([]);
  });
  test("the frame of most crops", () => {
    expect(usualRatio([{ width: 50, height: 100 }, { width: 40, height: 100 }, { width: 200, height: 100 }])).toBe(0.5);
    expect(usualRatio([{ width: 500, height: 100 }])).toBe(0.75);
    expect(usualRatio([])).toBeCloseTo(1 / 3);
  });
});

describe("marks", () => {
  test("on, off, and from one kind to the other", () => {
    const one = mark(NO_MARKS, "a", "like");
    expect(markOf(one, "a")).toBe("like");
    expect(mark(one, "a", "like")).toEqual(NO_MARKS);
    expect(mark(one, "a", "unlike")).toEqual({ like: [], unlike: ["a"] });
    expect(markOf(one, "b")).toBeNull();
  });
  test("no more than the API accepts", () => {
    let marks = NO_MARKS;
    for (let index = 0; index <= MARKS_MAX; index++) marks = mark(marks, String(index), "like");
    expect(marks.like).toHaveLength(MARKS_MAX);
  });
});

describe("crop", () => {
  test("between two corners in any order, inside the picture", () => {
    const box = { left: 10, top: 20, width: 30, height: 60 };
    expect(boxBetween({ x: 40, y: 80 }, { x: 10, y: 20 }, 100, 100)).toEqual(box);
    expect(boxBetween({ x: -5, y: -5 }, { x: 500, y: 50 }, 100, 100)).toEqual({ left: 0, top: 0, width: 100, height: 50 });
    expect(boxBetween({ x: 10, y: 10 }, { x: 12, y: 90 }, 100, 100)).toBeNull();
  });
  test("moved and resized by keys", () => {
    const box = { left: 90, top: 0, width: 10, height: 10 };
    expect(nudge(box, { x: 5, y: 5 }, false, 100, 100)).toEqual({ left: 90, top: 5, width: 10, height: 10 });
    expect(nudge(box, { x: -50, y: 200 }, true, 100, 100)).toEqual({ left: 90, top: 0, width: 8, height: 100 });
  });
});

describe("chips", () => {
  const none = emptyQuestion("UTC");
  test("say nothing when nothing is chosen", () => {
    for (const said of [chipOfCameras(none, String), chipOfDates(none), chipOfHours(none), chipOfTags(none), chipOfIdentity(none)]) expect(said).toBeNull();
  });
  test("say what is chosen", () => {
    expect(chipOfCameras({ ...none, cameras: ["a"] }, () => "North gate")).toBe("North gate");
    expect(chipOfCameras({ ...none, cameras: ["a", "b"] }, String)).toBe("2 cameras");
    expect(chipOfDates({ ...none, from: "2026-05-06T00:00", until: "2026-05-07T18:30" })).toBe("6 May – 7 May 18:30");
    expect(chipOfDates({ ...none, from: "2026-05-06T08:00" })).toBe("from 6 May 08:00");
    expect(chipOfHours({ ...none, hours: { from: "20:00", until: "06:00" } })).toBe("20:00 – 06:00");
    expect(chipOfTags({ ...none, tags: ["a"], notTags: ["b"] })).toBe("a, not b");
    expect(chipOfTags({ ...none, tags: ["a", "b", "c"] })).toBe("3 tags");
    expect(chipOfIdentity({ ...none, identity: "unknown" })).toBe("Identity unknown");
  });
  test("choosing", () => {
    expect(toggled(["a", "b"], "a")).toEqual(["b"]);
    expect(toggled(["b"], "a")).toEqual(["b", "a"]);
    expect(toggledSite(["a", "x"], ["a", "b"])).toEqual(["x", "a", "b"]);
    expect(toggledSite(["a", "b", "x"], ["a", "b"])).toEqual(["x"]);
  });
  test("cameras stand by site with their counts, those without a site last", () => {
    const camera = (id: string, site: string | null): Camera => ({ id, name: null, site, created_at: "", images: 0 });
    const facets = { cameras: [{ value: "b", count: 7 }] } as Facets;
    expect(bySite([camera("c", null), camera("b", "Station"), camera("a", "Station"), camera("d", "Arcade")], facets)).toEqual([
      { site: "Arcade", cameras: [{ id: "d", name: "d", count: 0 }] },
      { site: "Station", cameras: [{ id: "a", name: "a", count: 0 }, { id: "b", name: "b", count: 7 }] },
      { site: null, cameras: [{ id: "c", name: "c", count: 0 }] },
    ]);
  });
});
