import { describe, expect, test } from "vitest";
import { type Question, around, clearedFilter, emptyQuestion, filterOf, isFiltered, moreLike, questionOf, requestOf, whyNot, without } from "./question";

const ID = "0199a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b";
const asked = (part: Partial<Question>): Question => ({ ...emptyQuestion("Europe/Berlin"), ...part });

const FULL = asked({
  text: "a man in a red coat",
  not: "a hat",
  picture: { kind: "gallery", image: ID, crop: { left: 1, top: 2, width: 30, height: 80 } },
  share: 0.35,
  like: ["a"],
  unlike: ["b", "c"],
  cameras: ["north", "south"],
  from: "2026-07-01T08:00",
  until: "2026-07-02T00:30",
  hours: { from: "20:00", until: "06:00" },
  tags: ["platform"],
  notTags: ["staff"],
  identity: "unknown",
  group: "track_id",
  order: "-captured_at",
  caseId: ID,
  reason: "missing person",
});

describe("requests", () => {
  test("a description alone is nothing but itself", () => {
    expect(requestOf(asked({ text: "  a red coat " }))).toEqual({ query: { text: "a red coat" }, limit: 60 });
  });

  test("everything at once, as the API writes it", () => {
    expect(requestOf(FULL)).toEqual({
      query: {
        text: "a man in a red coat",
        negative_text: "a hat",
        image: { image_id: ID, crop: { left: 1, top: 2, width: 30, height: 80 } },
        weights: { text: 0.35, image: 0.65 },
        positive_image_ids: ["a"],
        negative_image_ids: ["b", "c"],
      },
      filter: {
        camera_id: { in: ["north", "south"] },
        captured_at: { gte: "2026-07-01T06:00:00.000Z", lt: "2026-07-01T22:30:00.000Z" }, // Berlin is two hours ahead in July
        time_of_day: { gte: "20:00", lt: "06:00", tz: "Europe/Berlin" },
        tags: { all: ["platform"], none: ["staff"] },
        identity: { exists: false },
      },
      limit: 60,
      group_by: "track_id",
      order_by: "-captured_at",
      purpose: { case_id: ID, reason: "missing person" },
    });
  });

  test("a request becomes the question it was", () => {
    expect(questionOf(requestOf(FULL), "Europe/Berlin")).toEqual(FULL);
  });

  test("weights are sent with both text and picture only", () => {
    const both = asked({ text: "x", picture: { kind: "gallery", image: ID, crop: null }, share: 1 - 0.55 });
    expect(requestOf(both).query.weights).toEqual({ text: 0.45, image: 0.55 });
    expect(requestOf(asked({ text: "x" })).query.weights).toBeUndefined();
    expect(requestOf(asked({ picture: { kind: "gallery", image: ID, crop: null } })).query.weights).toBeUndefined();
  });

  test("what the page has no control for stays in the request", () => {
    const filter = { attributes: { carriage: { eq: 3 } }, any: [{ height_px: { gte: 96 } }], camera_id: { not_in: ["north"] }, identity: { eq: "p1" } };
    const question = questionOf({ query: { text: "x" }, filter }, "UTC");
    expect(question.cameras).toEqual([]);
    expect(requestOf(question).filter).toEqual(filter);
    expect(requestOf(clearedFilter(question)).filter).toBeUndefined();
  });

  test("times that the controls cannot show exactly stay as they were", () => {
    const filter = { captured_at: { gte: "2026-07-01T06:00:30Z" } };
    expect(requestOf(questionOf({ query: { text: "x" }, filter }, "UTC")).filter).toEqual(filter);
  });

  test("the picture of an earlier search is gone, and that is said", () => {
    const question = questionOf({ query: { text: "x", image: { sha256: "ab" } } }, "UTC");
    expect(question.picture).toEqual({ kind: "gone" });
    expect(whyNot(question)).toMatch(/not kept/);
  });
});

describe("what can be asked", () => {
  test.each([
    [{}, /Describe/],
    [{ text: "   " }, /Describe/],
    [{ not: "a hat" }, /too/],
    [{ unlike: ["a"] }, /Describe/],
  ] as [Partial<Question>, RegExp][])("%o cannot", (part, why) => expect(whyNot(asked(part))).toMatch(why));

  test.each([{ text: "x" }, { like: ["a"] }, { picture: { kind: "gallery", image: ID, crop: null } }] as Partial<Question>[])("%o can", (part) =>
    expect(whyNot(asked(part))).toBeNull(),
  );
});

describe("filters", () => {
  test("none", () => {
    expect(filterOf(asked({ text: "x" }))).toEqual({});
    expect(isFiltered(asked({ text: "x" }))).toBe(false);
    expect(isFiltered(asked({ identity: "known" }))).toBe(true);
  });

  test("without the field whose values are counted", () => {
    expect(without({ camera_id: { in: ["a"] }, identity: { exists: true } }, "camera_id")).toEqual({ identity: { exists: true } });
  });

  test("around a moment at one camera, the clock hours aside", () => {
    const filter = filterOf(around(FULL, "east", "2026-07-01T10:00:40Z", 10));
    expect(filter.camera_id).toEqual({ in: ["east"] });
    expect(filter.captured_at).toEqual({ gte: "2026-07-01T09:50:00.000Z", lt: "2026-07-01T10:11:00.000Z" });
    expect(filter.time_of_day).toBeUndefined();
  });

  test("more like one image keeps filter and purpose", () => {
    const request = requestOf(moreLike(FULL, "other"));
    expect(request.query).toEqual({ image: { image_id: "other" } });
    expect(request.filter).toEqual(requestOf(FULL).filter);
    expect(request.purpose).toEqual(requestOf(FULL).purpose);
  });
});
