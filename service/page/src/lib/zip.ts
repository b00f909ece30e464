/**
 * The list of a zip's entries, and the text of one of them, read from the end of the file without the rest of it.
 * Format: PKWARE's APPNOTE 6.3.10, sections 4.3.12 to 4.3.16 and 4.5.3 (zip64).
 */

export interface ZipEntry {
  name: string;
  size: number;
  packed: number;
  method: number;
  offset: number;
}

const END = 0x06054b50;
const END64 = 0x06064b50;
const LOCATOR64 = 0x07064b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;
const TEXT_MAX = 64 * 1024 * 1024;

export class NotAZip extends Error {
  constructor() {
    super("This is not a zip, or it is damaged at its end.");
  }
}

async function view(file: Blob, from: number, length: number): Promise<DataView> {
  if (from < 0 || from > file.size) throw new NotAZip();
  return new DataView(await file.slice(from, from + length).arrayBuffer());
}

export async function entriesOf(file: Blob): Promise<ZipEntry[]> {
  const tail = await view(file, Math.max(0, file.size - 65_557), 65_557); // the end record and the longest comment
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) throw new NotAZip();
  let count = tail.getUint16(end + 10, true);
  let size = tail.getUint32(end + 12, true);
  let offset = tail.getUint32(end + 16, true);
  if (count === 0xffff || size === 0xffffffff || offset === 0xffffffff) {
    if (end < 20 || tail.getUint32(end - 20, true) !== LOCATOR64) throw new NotAZip();
    const end64 = await view(file, Number(tail.getBigUint64(end - 20 + 8, true)), 56);
    if (end64.byteLength < 56 || end64.getUint32(0, true) !== END64) throw new NotAZip();
    count = Number(end64.getBigUint64(32, true));
    size = Number(end64.getBigUint64(40, true));
    offset = Number(end64.getBigUint64(48, true));
  }
  const central = await view(file, offset, size);
  const entries: ZipEntry[] = [];
  const utf8 = new TextDecoder();
  for (let at = 0; entries.length < count; ) {
    if (at + 46 > central.byteLength || central.getUint32(at, true) !== CENTRAL) throw new NotAZip();
    const [name, extra, comment] = [28, 30, 32].map((field) => central.getUint16(at + field, true)) as [number, number, number];
    const entry = {
      name: utf8.decode(new Uint8Array(central.buffer, central.byteOffset + at + 46, name)),
      method: central.getUint16(at + 10, true),
      packed: central.getUint32(at + 20, true),
      size: central.getUint32(at + 24, true),
      offset: central.getUint32(at + 42, true),
    };
    long(entry, central, at + 46 + name, extra);
    entries.push(entry);
    at += 46 + name + extra + comment;
  }
  return entries.filter(({ name }) => !name.endsWith("/"));
}

/** Sizes that did not fit 32 bits stand in an extra field, in this order, only those that are missing. */
function long(entry: ZipEntry, data: DataView, from: number, length: number): void {
  for (let at = from; at + 4 <= from + length; at += 4 + data.getUint16(at + 2, true)) {
    if (data.getUint16(at, true) !== 1) continue;
    let field = at + 4;
    for (const name of ["size", "packed", "offset"] as const) {
      if (entry[name] !== 0xffffffff) continue;
      entry[name] = Number(data.getBigUint64(field, true));
      field += 8;
    }
  }
}

export async function textOf(file: Blob, entry: ZipEntry): Promise<string> {
  if (entry.size > TEXT_MAX) throw new Error(`${entry.name} is too large to be looked at here.`);
  const header = await view(file, entry.offset, 30);
  if (header.byteLength < 30 || header.getUint32(0, true) !== LOCAL) throw new NotAZip();
  const start = entry.offset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  const packed = file.slice(start, start + entry.packed);
  if (entry.method === 0) return packed.text();
  if (entry.method !== 8) throw new Error(`${entry.name} is packed in a way that cannot be looked at here.`);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("deflate-raw"))).text();
}
