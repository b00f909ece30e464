/** What the filter chips say, and what choosing in their lists does. */

import type { Camera, Facets } from "../api/types";
import type { Question } from "./question";

export const toggled = (values: readonly string[], value: string): string[] =>
  values.includes(value) ? values.filter((other) => other !== value) : [...values, value];

/** All of a site's cameras at once: off when all of them were on. */
export function toggledSite(chosen: readonly string[], site: readonly string[]): string[] {
  const all = site.every((id) => chosen.includes(id));
  const others = chosen.filter((id) => !site.includes(id));
  return all ? others : [...others, ...site];
}

export interface SiteOfCameras {
  site: string | null;
  cameras: { id: string; name: string; count: number }[];
}

/** Cameras by site with their counts, sites by name, the one without a name last; a camera without images is listed, too. */
export function bySite(cameras: readonly Camera[], facets: Facets | undefined): SiteOfCameras[] {
  const counts = new Map(facets?.cameras.map(({ value, count }) => [value, count]));
  const sites = new Map<string | null, SiteOfCameras>();
  for (const { id, name, site } of cameras) {
    const group = sites.get(site) ?? { site, cameras: [] };
    group.cameras.push({ id, name: name ?? id, count: counts.get(id) ?? 0 });
    sites.set(site, group);
  }
  const found = [...sites.values()].sort((a, b) => (a.site ?? "\uffff").localeCompare(b.site ?? "\uffff"));
  for (const group of found) group.cameras.sort((a, b) => a.name.localeCompare(b.name));
  return found;
}

/** What a chip says; null: nothing is chosen, so it shows its own name. */
export function chipOfCameras(question: Question, nameOf: (id: string) => string): string | null {
  const [first] = question.cameras;
  if (first === undefined) return null;
  return question.cameras.length === 1 ? nameOf(first) : `${question.cameras.length} cameras`;
}

export function chipOfDates({ from, until }: Question): string | null {
  const day = (local: string) => {
    const [year, month, date] = local.slice(0, 10).split("-").map(Number);
    const format = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" });
    const time = local.slice(11) === "00:00" ? "" : ` ${local.slice(11)}`;
    return format.format(Date.UTC(year ?? 0, (month ?? 1) - 1, date)) + time;
  };
  if (from && until) return `${day(from)} – ${day(until)}`;
  if (from) return `from ${day(from)}`;
  return until ? `until ${day(until)}` : null;
}

export const chipOfHours = ({ hours }: Question): string | null => (hours ? `${hours.from} – ${hours.until}` : null);

export function chipOfTags({ tags, notTags }: Question): string | null {
  const words = [...tags, ...notTags.map((tag) => `not ${tag}`)];
  return words.length > 2 ? `${words.length} tags` : words.join(", ") || null;
}

export const chipOfIdentity = ({ identity }: Question): string | null =>
  identity === "any" ? null : identity === "known" ? "Identity known" : "Identity unknown";
