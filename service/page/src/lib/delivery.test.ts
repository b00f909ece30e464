import { deflateRawSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { csv, isPicture, manifestFor, metadataName, preview } from "./delivery";
import { entriesOf, textOf } from "./zip";

const line = (fields: object) => JSON.stringify(fields);

describe("a delivery before it is sent", () => {
  const entries = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "notes.txt"].map((name) => ({ name, size: 100 }));

  test("what is fine", () => {
    const found = preview([line({ file: "a.jpg", camera_id: "north", captured_at: "2026-09-01T18:04:11+02:00" }), "", line({ path: "./b.jpg" })].join("\n"), entries);
    expect(found).toMatchObject({ images: 2, total: 2, bytes: 200, cameras: ["north"], findings: [], fatal: null });
  });

  test("what would be refused, with its line and why", () => {
    const manifest = [
      "{",
      line({ file: "a.jpg", captured_at: "2026-09-01T18:04:11" }),
      line({ file: "none.jpg" }),
      line({ external_id: "x" }),
      line({ file: "notes.txt" }),
      line({ file: "b.jpg" }),
      line({ file: "b.jpg" }),
      line({ file: "empty.jpg" }),
      line({ file: "large.jpg" }),
    ].join("\n");
    const found = preview(manifest, [...entries, { name: "empty.jpg", size: 0 }, { name: "large.jpg", size: 21 * 1024 * 1024 }]);
    expect(found.images).toBe(1);
    expect(found.findings.map(({ line, reason }) => [line, /JSON|zone|not in|names no|no picture|twice|empty|larger/.exec(reason)?.[0]])).toEqual([
      [1, "JSON"],
      [2, "zone"],
      [3, "not in"],
      [4, "names no"],
      [5, "no picture"],
      [7, "twice"],
      [8, "empty"],
      [9, "larger"],
    ]);
  });

  test("a path that leads out spoils all of it", () => {
    expect(preview(line({ file: "a.jpg" }), [{ name: "../a.jpg", size: 1 }]).fatal).toMatch(/leads out/);
    expect(preview("\n", entries).fatal).toMatch(/no lines/);
  });

  test("metadata.jsonl at the root or in the only folder", () => {
    expect(metadataName(["a/metadata.jsonl", "metadata.jsonl"])).toBe("metadata.jsonl");
    expect(metadataName(["gallery/metadata.jsonl", "gallery/a.jpg"])).toBe("gallery/metadata.jsonl");
    expect(metadataName(["a/b/metadata.jsonl"])).toBeNull();
    expect(preview(line({ file: "a.jpg" }), [{ name: "gallery/a.jpg", size: 1 }], "gallery/").images).toBe(1);
  });

  test("a manifest for a folder of pictures", () => {
    const files = [...entries, { name: ".hidden.jpg", size: 1 }, { name: "__MACOSX/a.jpg", size: 1 }];
    expect(manifestFor(files, "north").trim().split("\n").map((text) => JSON.parse(text) as unknown)).toEqual(
      ["a.jpg", "b.jpg", "c.jpg", "d.jpg"].map((file) => ({ file, camera_id: "north" })),
    );
    expect(manifestFor([{ name: "a.jpg", size: 1 }], null)).toBe('{"file":"a.jpg"}\n');
    expect(isPicture("x/Y.PNG")).toBe(true);
    expect(isPicture("metadata.jsonl")).toBe(false);
  });

  test("rows for a spreadsheet, and no formulas", () => {
    expect(csv([["a", 1, null], ['say "x", y', "=1+1", -2]])).toBe('a,1,\r\n"say ""x"", y",\'=1+1,-2\r\n');
  });
});

describe("zips", () => {
  /** A zip put together by hand: stored and deflated entries, the central directory, a comment at the end. */
  function zip(files: Record<string, string>, comment = ""): Blob {
    const parts: Buffer[] = [];
    const central: Buffer[] = [];
    let offset = 0;
    Object.entries(files).forEach(([name, text], index) => {
      const method = index % 2 ? 8 : 0;
      const data = method ? deflateRawSync(Buffer.from(text)) : Buffer.from(text);
      const path = Buffer.from(name);
      const local = Buffer.alloc(30);
      local.writeUInt32LE(0x04034b50, 0);
      local.writeUInt16LE(method, 8);
      local.writeUInt32LE(data.length, 18);
      local.writeUInt32LE(Buffer.byteLength(text), 22);
      local.writeUInt16LE(path.length, 26);
      local.writeUInt16LE(3, 28);
      const entry = Buffer.alloc(46);
      entry.writeUInt32LE(0x02014b50, 0);
      entry.writeUInt16LE(method, 10);
      entry.writeUInt32LE(data.length, 20);
      entry.writeUInt32LE(Buffer.byteLength(text), 24);
      entry.writeUInt16LE(path.length, 28);
      entry.writeUInt32LE(offset, 42);
      parts.push(local, path, Buffer.from("xyz"), data);
      central.push(entry, path);
      offset += 30 + path.length + 3 + data.length;
    });
    const end = Buffer.alloc(22);
    const size = central.reduce((sum, part) => sum + part.length, 0);
    end.writeUInt32LE(0x06054b50, 0);
    end.writeUInt16LE(Object.keys(files).length, 10);
    end.writeUInt32LE(size, 12);
    end.writeUInt32LE(offset, 16);
    end.writeUInt16LE(comment.length, 20);
    return new Blob([...parts, ...central, end, Buffer.from(comment)] as BlobPart[]);
  }

  test("names, sizes and text, stored or deflated", async () => {
    const long = "line of metadata\n".repeat(500);
    const file = zip({ "a.jpg": "12345", "metadata.jsonl": long, "folder/": "", "größe.png": "x" }, "a comment");
    const entries = await entriesOf(file);
    expect(entries.map(({ name, size }) => [name, size])).toEqual([["a.jpg", 5], ["metadata.jsonl", long.length], ["größe.png", 1]]);
    expect(await textOf(file, entries[1]!)).toBe(long);
    expect(await textOf(file, entries[0]!)).toBe("12345");
  });

  test.each(["", "no zip at all", "PK\u0003\u0004 cut short"])("%j is none", async (text) => {
    await expect(entriesOf(new Blob([text]))).rejects.toThrow(/not a zip/);
  });
});
