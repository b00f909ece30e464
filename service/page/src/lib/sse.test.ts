import { expect, test } from "vitest";
import { EventParser } from "./sse";

const STREAM = 'event: progress\ndata: {"n":1}\n\n: still here\n\nevent: done\r\ndata: a\r\ndata: b\r\n\r\ndata:plain\n\nevent: nothing\n\n';
const EVENTS = [
  { event: "progress", data: '{"n":1}' },
  { event: "done", data: "a\nb" },
  { event: "message", data: "plain" },
];

test("events, comments and line ends", () => expect(new EventParser().push(STREAM)).toEqual(EVENTS));

test("however the stream is cut", () => {
  for (let size = 1; size < 12; size++) {
    const parser = new EventParser();
    const found = [];
    for (let at = 0; at < STREAM.length; at += size) found.push(...parser.push(STREAM.slice(at, at + size)));
    expect(found).toEqual(EVENTS);
  }
});

test("an event that is not finished is none yet", () => {
  const parser = new EventParser();
  expect(parser.push("data: half")).toEqual([]);
  expect(parser.push("\n\n")).toEqual([{ event: "message", data: "half" }]);
});
