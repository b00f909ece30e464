import { describe, expect, test } from "vitest";
import { HELP, command, isTyping, move } from "./keyboard";

const press = (key: string, held: object = {}) => ({ key, ctrlKey: false, metaKey: false, altKey: false, ...held });

describe("keys", () => {
  test.each([["j", "next"], ["k", "previous"], ["Enter", "open"], ["1", "match"], ["2", "no_match"], ["3", "unsure"], ["+", "like"], ["-", "unlike"]])(
    "%s is %s",
    (key, meaning) => expect(command(press(key), false)).toBe(meaning),
  );
  test("nothing while somebody types", () => expect(command(press("j"), true)).toBeNull());
  test.each(["ctrlKey", "metaKey", "altKey"])("nothing of the browser's, with %s", (held) =>
    expect(command(press("k", { [held]: true }), false)).toBeNull(),
  );
  test("other keys mean nothing", () => expect(command(press("x"), false)).toBeNull());
  test("the list of keys names every single letter that means something", () => {
    const said = HELP.flatMap(([keys]) => keys.split(" "));
    for (const key of "jkrmc123".split("")) expect(said).toContain(key);
  });
});

describe("typing", () => {
  test.each([{ tagName: "TEXTAREA" }, { tagName: "SELECT" }, { tagName: "INPUT", type: "text" }, { tagName: "INPUT", type: "range" }, { tagName: "DIV", isContentEditable: true }])(
    "%o",
    (target) => expect(isTyping(target)).toBe(true),
  );
  test.each([null, { tagName: "BODY" }, { tagName: "BUTTON" }, { tagName: "INPUT", type: "checkbox" }])("not %o", (target) => expect(isTyping(target)).toBe(false));
});

describe("moving in 10 places, 4 in a row", () => {
  test.each([
    [0, "next", 1],
    [0, "previous", 0],
    [9, "next", 9],
    [5, "down", 9],
    [6, "down", 6], // there is nothing below
    [5, "up", 1],
    [2, "up", 2],
    [5, "first", 0],
    [5, "last", 9],
    [5, "match", 5],
  ] as const)("%i %s -> %i", (from, asked, to) => expect(move(from, asked, 10, 4)).toBe(to));
  test("in nothing", () => expect(move(0, "last", 0, 4)).toBe(0));
});
