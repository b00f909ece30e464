/**
 * One way to call the API. An answer that is a problem is thrown as a `Failure` with a sentence for people.
 *
 * The session is a cookie that no script can read; kept here, in memory, is the CSRF token that changes have to carry.
 */

import type { Problem } from "./types";

export const API = "/api/v1";

let csrf: string | null = null;

export function setCsrf(token: string | null): void {
  csrf = token;
}

let ended: () => void = () => undefined;

/** Whom to tell when a call is refused because the session is over; one listener, the frame of the page. */
export function onSessionEnd(listener: () => void): void {
  ended = listener;
}

/** Why a call got no answer it could use. `status` 0: the service was not reached. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    readonly retryAfter: number | null = null,
    readonly pointers: readonly string[] = [],
  ) {
    super(message);
    this.name = "Failure";
  }
}

export interface Call {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  body?: unknown; // JSON, or FormData and Blob as they are
  type?: string; // media type of a Blob
  signal?: AbortSignal | undefined;
  headers?: Record<string, string>;
}

export async function call<T>(path: string, { method = "GET", body, type, signal, headers = {} }: Call = {}): Promise<T> {
  const response = await send(path, { method, body, type, signal, headers });
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

/** The response as it is, once it is known to be no problem. Rejects with `Failure`, or as aborted. */
export async function send(path: string, { method = "GET", body, type, signal, headers = {} }: Call = {}): Promise<Response> {
  const all: Record<string, string> = { Accept: "application/json, */*;q=0.5", ...headers };
  if (method !== "GET") Object.assign(all, proof());
  let payload: BodyInit | undefined;
  if (body instanceof FormData) payload = body;
  else if (body instanceof Blob) {
    payload = body;
    all["Content-Type"] = type ?? (body.type || "application/octet-stream");
  } else if (body !== undefined) {
    payload = JSON.stringify(body);
    all["Content-Type"] = "application/json";
  }
  let response: Response;
  try {
    response = await fetch(path.startsWith("/") && !path.startsWith("//") ? address(path) : path, {
      method,
      headers: all,
      body: payload ?? null,
      signal: signal ?? null,
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Failure("The service does not answer. Is it still running?", 0, "offline");
  }
  if (response.ok) return response;
  const refused = failure(response.status, await response.text(), response.headers.get("Retry-After"));
  if (refused.code === "unauthenticated") ended();
  throw refused;
}

/** `/searches` -> `/api/v1/searches`; what stands outside of the prefix (`/readyz`, paths in answers) stays. */
function address(path: string): string {
  return path.startsWith(API) || OUTSIDE.has(path) ? path : API + path;
}

const OUTSIDE = new Set(["/livez", "/readyz", "/version"]);

/** Headers of a request that changes something. */
export function proof(): Record<string, string> {
  return csrf ? { "X-CSRF-Token": csrf } : {};
}

/** A failure in words, from the body of an answer. */
export function failure(status: number, body: string, retryAfter: string | null): Failure {
  const seconds = retryAfter && /^\d+$/.test(retryAfter) ? Number(retryAfter) : null;
  try {
    const problem = JSON.parse(body) as Problem;
    const errors = problem.errors ?? [];
    const sentence = errors.map((error) => error.detail).join(" ") || problem.detail;
    return new Failure(sentence, status, problem.code, seconds, errors.map((error) => error.pointer));
  } catch {
    return new Failure(`The service answered with status ${status} and no explanation.`, status, "unknown", seconds);
  }
}

/** What to tell somebody about any error at all. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
