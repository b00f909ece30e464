/** Getting images to the service: what was dropped or chosen, the upload with its progress, the events that follow. */

import { API, Failure, failure, proof, send } from "../api/client";
import type { Ingestion, Progress } from "../api/types";
import { type Entry, type Preview, isPicture, manifestFor, metadataName, preview } from "../lib/delivery";
import { EventParser } from "../lib/sse";
import { NotAZip, entriesOf, textOf } from "../lib/zip";

export type Delivery =
  | { kind: "archive"; file: File; preview: Preview | null } // null: a tar, which is not looked into here
  | { kind: "folder"; name: string; files: readonly { path: string; file: File }[]; manifest: string | null; preview: Preview };

/** Look at an archive. Rejects with a sentence when nothing of it could be accepted. */
export async function inspectArchive(file: File): Promise<Delivery> {
  if (/\.(tar|tar\.gz|tgz)$/i.test(file.name)) return { kind: "archive", file, preview: null };
  const entries = await entriesOf(file);
  const name = metadataName(entries.map((entry) => entry.name));
  if (name === null) {
    const empty: Preview = { images: 0, total: 0, bytes: 0, cameras: [], findings: [], fatal: null };
    return { kind: "archive", file, preview: { ...empty, fatal: "There is no metadata.jsonl at the root of this archive, or in its only folder." } };
  }
  const manifest = entries.find((entry) => entry.name === name);
  if (!manifest) throw new NotAZip();
  return { kind: "archive", file, preview: preview(await textOf(file, manifest), entries, name.slice(0, -"metadata.jsonl".length)) };
}

/** Files of a folder, their paths below it. One without metadata.jsonl gets a manifest of its pictures. */
export async function inspectFolder(name: string, files: readonly { path: string; file: File }[]): Promise<Delivery> {
  const entries: Entry[] = files.map(({ path, file }) => ({ name: path, size: file.size }));
  const own = files.find(({ path }) => path === "metadata.jsonl");
  const manifest = own ? await own.file.text() : null;
  const seen = preview(manifest ?? manifestFor(entries, null), entries);
  if (manifest === null && seen.total === 0) seen.fatal = "There is no picture in this folder.";
  return { kind: "folder", name, files: own ? files : files.filter(({ path }) => isPicture(path)), manifest, preview: seen };
}

/** What was dropped: an archive, or a folder, or pictures. */
export async function inspectDrop(data: DataTransfer): Promise<Delivery> {
  const items = [...data.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const files = [...data.files];
  const [only] = items;
  if (items.length === 1 && only?.isDirectory) return inspectFolder(only.name, await below(only as FileSystemDirectoryEntry, ""));
  const [file] = files;
  if (files.length === 1 && file && /\.(zip|tar|tar\.gz|tgz)$/i.test(file.name)) return inspectArchive(file);
  return inspectFolder("the files dropped", files.map((each) => ({ path: each.name, file: each })));
}

async function below(folder: FileSystemDirectoryEntry, path: string): Promise<{ path: string; file: File }[]> {
  const reader = folder.createReader();
  const found: { path: string; file: File }[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, failed) => reader.readEntries(done, failed)); // 100 at a time
    if (!some.length) return found;
    for (const entry of some) {
      const name = path + entry.name;
      if (entry.isDirectory) found.push(...(await below(entry as FileSystemDirectoryEntry, `${name}/`)));
      else found.push({ path: name, file: await new Promise<File>((done, failed) => (entry as FileSystemFileEntry).file(done, failed)) });
    }
  }
}

/** Send it; `onProgress` is told the share that is on its way. XMLHttpRequest, as fetch tells nothing of uploads. */
export function upload(
  delivery: Delivery,
  options: { camera: string | null; register: boolean; key: string },
  onProgress: (share: number) => void,
  signal: AbortSignal,
): Promise<Ingestion> {
  const { body, type } = bodyOf(delivery, options.camera);
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", `${API}/ingestions?register_cameras=${options.register}`);
    for (const [name, value] of Object.entries({ ...proof(), "Idempotency-Key": options.key })) request.setRequestHeader(name, value);
    if (type) request.setRequestHeader("Content-Type", type);
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    request.onload = () => {
      if (request.status === 202) done(JSON.parse(request.responseText) as Ingestion);
      else failed(failure(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => failed(new Failure("The service does not answer, or ended the upload. Try again: what is there already is not added twice.", 0, "offline"));
    request.onabort = () => failed(new DOMException("aborted", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

function bodyOf(delivery: Delivery, camera: string | null): { body: Blob | FormData; type: string | null } {
  if (delivery.kind === "archive") {
    const zipped = /\.zip$/i.test(delivery.file.name);
    return { body: delivery.file, type: zipped ? "application/zip" : "application/x-tar" };
  }
  const form = new FormData();
  const entries = delivery.files.map(({ path, file }) => ({ name: path, size: file.size }));
  form.append("manifest", new Blob([delivery.manifest ?? manifestFor(entries, camera)]), "metadata.jsonl");
  for (const { path, file } of delivery.files) if (path !== "metadata.jsonl") form.append("files", file, path);
  return { body: form, type: null };
}

/** Follow an ingestion until nothing is pending; comes back when the connection is lost. */
export async function follow(id: string, onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<void> {
  for (;;) {
    try {
      const response = await send(`/ingestions/${id}/events`, { signal, headers: { Accept: "text/event-stream" } });
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (;;) {
        const piece = await reader?.read();
        if (!piece || piece.done) break;
        for (const { event, data } of parser.push(piece.value)) {
          onProgress(JSON.parse(data) as Progress);
          if (event === "done") return;
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Failure && error.status !== 0 && error.status !== 503) throw error;
    }
    await new Promise((again) => setTimeout(again, 1000));
    if (signal.aborted) return;
  }
}
