/**
 * What is being asked, as the page holds it while somebody works on it <-> the request of the API.
 *
 * What a request says that this page has no control for (attributes, sizes, `any`) is kept in `further` and sent along.
 */

import type { Filter, SearchRequest } from "../api/types";
import type { Box } from "./crop";
import { localOf, momentOf } from "./zones";

export type Picture =
  | { kind: "file"; file: File; url: string; width: number; height: number; crop: Box | null }
  | { kind: "gallery"; image: string; crop: Box | null }
  | { kind: "gone" }; // one's own picture of an earlier search: the service has not kept it

export interface Question {
  text: string;
  not: string;
  picture: Picture | null;
  share: number; // of the text against the picture, 0 to 1
  like: readonly string[];
  unlike: readonly string[];
  cameras: readonly string[];
  from: string; // local times of `zone`, as <input type="datetime-local"> has them, or ""
  until: string;
  hours: { from: string; until: string } | null; // "20:00"
  zone: string;
  tags: readonly string[]; // all of these
  notTags: readonly string[]; // none of these
  identity: "any" | "known" | "unknown";
  further: Filter;
  group: NonNullable<SearchRequest["group_by"]> | null;
  order: NonNullable<SearchRequest["order_by"]>;
  caseId: string | null;
  reason: string;
}

export const PAGE = 60; // results of the first page: more than a screen, soon there

export function emptyQuestion(zone: string): Question {
  return {
    text: "",
    not: "",
    picture: null,
    share: 0.5,
    like: [],
    unlike: [],
    cameras: [],
    from: "",
    until: "",
    hours: null,
    zone,
    tags: [],
    notTags: [],
    identity: "any",
    further: {},
    group: null,
    order: "similarity",
    caseId: null,
    reason: "",
  };
}

/** Why this cannot be asked yet, in a sentence, or null. */
export function whyNot(question: Question): string | null {
  if (question.picture?.kind === "gone") return "Your picture was not kept. Add it again, or remove it, to search anew.";
  if (question.text.trim() || question.picture || question.like.length) return null;
  return question.not.trim()
    ? "Say what the person looks like, too: what they do not look like is not enough."
    : "Describe the person, or add a picture.";
}

export function filterOf(question: Question): Filter {
  const filter: Filter = { ...question.further };
  if (question.cameras.length) filter.camera_id = { in: [...question.cameras] };
  const times: NonNullable<Filter["captured_at"]> = {};
  if (question.from) times.gte = momentOf(question.from, question.zone).toISOString();
  if (question.until) times.lt = momentOf(question.until, question.zone).toISOString();
  if (Object.keys(times).length) filter.captured_at = times;
  if (question.hours) filter.time_of_day = { gte: question.hours.from, lt: question.hours.until, tz: question.zone };
  const tags: NonNullable<Filter["tags"]> = {};
  if (question.tags.length) tags.all = [...question.tags];
  if (question.notTags.length) tags.none = [...question.notTags];
  if (Object.keys(tags).length) filter.tags = tags;
  if (question.identity !== "any") filter.identity = { exists: question.identity === "known" };
  return filter;
}

/** The same filter without some of its fields: facets of a field count what choosing another value would bring. */
export function without(filter: Filter, ...fields: (keyof Filter)[]): Filter {
  return Object.fromEntries(Object.entries(filter).filter(([name]) => !fields.includes(name as keyof Filter)));
}

/** The body of POST /searches. A picture of one's own goes beside it, as the part `image`. */
export function requestOf(question: Question): SearchRequest {
  const query: SearchRequest["query"] = {};
  const { picture } = question;
  const text = question.text.trim();
  if (text) query.text = text;
  if (question.not.trim()) query.negative_text = question.not.trim();
  if (picture?.kind === "gallery") {
    query.image = { image_id: picture.image, ...(picture.crop && { crop: picture.crop }) };
  } else if (picture?.kind === "file" && picture.crop) query.image = { crop: picture.crop };
  if (text && picture) query.weights = { text: round(question.share), image: round(1 - question.share) };
  if (question.like.length) query.positive_image_ids = [...question.like];
  if (question.unlike.length) query.negative_image_ids = [...question.unlike];
  const request: SearchRequest = { query, limit: PAGE };
  const filter = filterOf(question);
  if (Object.keys(filter).length) request.filter = filter;
  if (question.group) request.group_by = question.group;
  if (question.order !== "similarity") request.order_by = question.order;
  const purpose: NonNullable<SearchRequest["purpose"]> = {};
  if (question.caseId) purpose.case_id = question.caseId;
  if (question.reason.trim()) purpose.reason = question.reason.trim();
  if (Object.keys(purpose).length) request.purpose = purpose;
  return request;
}

/** The question behind a request, its times on the clocks of `zone` unless the request names another one. */
export function questionOf(stored: unknown, zone: string): Question {
  const request = stored as SearchRequest;
  const { query, filter = {} } = request;
  const found = emptyQuestion(filter.time_of_day?.tz ?? zone);
  const further: Filter = { ...filter };
  found.text = query.text ?? "";
  found.not = query.negative_text ?? "";
  if (query.image?.image_id) found.picture = { kind: "gallery", image: query.image.image_id, crop: query.image.crop ?? null };
  else if (query.image) found.picture = { kind: "gone" };
  if (query.weights) found.share = round(query.weights.text / (query.weights.text + query.weights.image));
  found.like = query.positive_image_ids ?? [];
  found.unlike = query.negative_image_ids ?? [];
  if (only(filter.camera_id, "in")) {
    found.cameras = filter.camera_id?.in ?? [];
    delete further.camera_id;
  }
  if (only(filter.captured_at, "gte", "lt") && Object.values(filter.captured_at ?? {}).every(ofMinutes)) {
    const local = (moment: string | undefined) => (moment ? localOf(new Date(moment), found.zone).slice(0, 16) : "");
    found.from = local(filter.captured_at?.gte);
    found.until = local(filter.captured_at?.lt);
    delete further.captured_at;
  }
  if (filter.time_of_day) {
    found.hours = { from: filter.time_of_day.gte.slice(0, 5), until: filter.time_of_day.lt.slice(0, 5) };
    delete further.time_of_day;
  }
  if (only(filter.tags, "all", "none")) {
    found.tags = filter.tags?.all ?? [];
    found.notTags = filter.tags?.none ?? [];
    delete further.tags;
  }
  if (only(filter.identity, "exists")) {
    found.identity = filter.identity?.exists ? "known" : "unknown";
    delete further.identity;
  }
  found.further = further;
  found.group = request.group_by ?? null;
  found.order = request.order_by ?? "similarity";
  found.caseId = request.purpose?.case_id ?? null;
  found.reason = request.purpose?.reason ?? "";
  return found;
}

/** Whether nothing but these operators is used, so that the controls of the page can show all of it. */
function only(operators: object | undefined, ...known: string[]): boolean {
  return operators !== undefined && Object.keys(operators).every((name) => known.includes(name));
}

/** The controls know no seconds: a time with some stays as it is. */
const ofMinutes = (moment: unknown): boolean => Date.parse(String(moment)) % 60_000 === 0;

const round = (share: number): number => Math.round(share * 100) / 100;

/** The same question, but only around a moment at one camera. */
export function around(question: Question, camera: string, capturedAt: string, minutes: number): Question {
  const at = Date.parse(capturedAt);
  const local = (moment: number) => localOf(new Date(moment), question.zone).slice(0, 16);
  const from = local(at - minutes * 60_000);
  const until = local(at + (minutes + 1) * 60_000); // a minute more: the controls know no seconds
  return { ...question, cameras: [camera], from, until, hours: null };
}

/** A search for whatever looks like one image of the gallery, under the same filter and purpose. */
export function moreLike(question: Question, image: string): Question {
  return { ...question, text: "", not: "", like: [], unlike: [], picture: { kind: "gallery", image, crop: null } };
}

export function clearedFilter(question: Question): Question {
  const { cameras, from, until, hours, tags, notTags, identity, further } = emptyQuestion(question.zone);
  return { ...question, cameras, from, until, hours, tags, notTags, identity, further };
}

export const isFiltered = (question: Question): boolean => Object.keys(filterOf(question)).length > 0;
