/**
 * What a delivery of images would come to, told before it is sent. The service has the last word; this spares a long
 * upload of what it would refuse.
 */

export interface Finding {
  line: number | null; // of metadata.jsonl
  file: string | null;
  reason: string;
}

export interface Preview {
  images: number; // lines that look fine
  total: number;
  bytes: number;
  cameras: string[];
  findings: Finding[];
  fatal: string | null; // nothing of it would be accepted
}

export interface Entry {
  name: string;
  size: number;
}

export const IMAGE_MAX = 20 * 1024 * 1024;
const PICTURE = /\.(jpe?g|png|webp|bmp|tiff?|gif)$/i;
const ZONED = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)$/;
const JUNK = /(^|\/)(__MACOSX\/|\.DS_Store$|Thumbs\.db$|desktop\.ini$|\.)/i;

export const isPicture = (name: string): boolean => PICTURE.test(name) && !JUNK.test(name);

/** Where metadata.jsonl lies: at the root, or in the only folder. null: there is none. */
export function metadataName(names: readonly string[]): string | null {
  const all = names.filter((name) => name === "metadata.jsonl" || name.endsWith("/metadata.jsonl"));
  return all.sort((a, b) => a.split("/").length - b.split("/").length).find((name) => name.split("/").length <= 2) ?? null;
}

/** Judge a manifest against the files that lie beside it. `root` is the folder of the manifest, "" or "name/". */
export function preview(manifest: string, entries: readonly Entry[], root = ""): Preview {
  const sizes = new Map(entries.map(({ name, size }) => [name.startsWith(root) ? name.slice(root.length) : name, size]));
  const found: Preview = { images: 0, total: 0, bytes: 0, cameras: [], findings: [], fatal: null };
  const cameras = new Set<string>();
  const seen = new Set<string>();
  const unsafe = entries.find(({ name }) => name.startsWith("/") || name.split(/[/\\]/).includes(".."));
  if (unsafe) return { ...found, fatal: `The path ${unsafe.name} leads out of the archive. Pack the files with plain names.` };
  manifest.split("\n").forEach((text, index) => {
    if (!text.trim()) return;
    found.total++;
    const line = index + 1;
    const refuse = (reason: string, file: string | null) => found.findings.push({ line, file, reason });
    let data: Record<string, unknown>;
    try {
      data = JSON.parse(text) as Record<string, unknown>;
    } catch {
      return refuse("This line is not JSON.", null);
    }
    const file = typeof data["file"] === "string" ? data["file"] : typeof data["path"] === "string" ? data["path"] : null;
    if (file === null) return refuse("The line names no file.", null);
    const size = sizes.get(file.replace(/^\.\//, ""));
    if (size === undefined) return refuse("The file is not in the delivery.", file);
    if (size === 0) return refuse("The file is empty.", file);
    if (size > IMAGE_MAX) return refuse("The file is larger than 20 MiB.", file);
    if (!PICTURE.test(file)) return refuse("This is no picture by its name; JPEG, PNG, WebP, BMP, TIFF and GIF are accepted.", file);
    const at = data["captured_at"];
    if (at !== undefined && at !== null && !(typeof at === "string" && ZONED.test(at))) {
      return refuse("The time has no zone, or is no time: write it like 2026-09-01T18:04:11+02:00.", file);
    }
    if (seen.has(file)) return refuse("The file is named twice.", file);
    seen.add(file);
    if (typeof data["camera_id"] === "string") cameras.add(data["camera_id"]);
    found.images++;
    found.bytes += size;
  });
  found.cameras = [...cameras].sort();
  if (found.total === 0) found.fatal = "metadata.jsonl has no lines, so there is nothing to add.";
  return found;
}

/** A manifest for a folder that has none: every picture, from one camera if one was chosen. */
export function manifestFor(entries: readonly Entry[], camera: string | null): string {
  const lines = entries.filter(({ name }) => isPicture(name)).map(({ name }) => ({ file: name, ...(camera && { camera_id: camera }) }));
  return lines.map((line) => JSON.stringify(line)).join("\n") + "\n";
}

/** Rows for a spreadsheet; a cell that begins like a formula is kept from being one. */
export function csv(rows: readonly (readonly (string | number | null)[])[]): string {
  const cell = (value: string | number | null) => {
    const text = value === null ? "" : String(value);
    const safe = /^[=+\-@\t\r]/.test(text) && typeof value !== "number" ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}
