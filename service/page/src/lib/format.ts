/** Numbers, times and bands in words. Nothing here knows the page. */

import type { Band, Word } from "../api/types";

const shortTimes = new Map<string, Intl.DateTimeFormat>();
const longTimes = new Map<string, Intl.DateTimeFormat>();

function cached(cache: Map<string, Intl.DateTimeFormat>, zone: string, options: Intl.DateTimeFormatOptions) {
  let format = cache.get(zone);
  if (!format) cache.set(zone, (format = new Intl.DateTimeFormat("en-GB", { timeZone: zone, hourCycle: "h23", ...options })));
  return format;
}

/** "6 May 18:14" in the zone; what stands below a picture. */
export function shortTime(utc: string, zone: string): string {
  const format = cached(shortTimes, zone, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  return format.format(new Date(utc)).replace(",", "");
}

/** "Monday, 6 May 2024 at 18:14:38 CEST": everything there is to say of a time. */
export function longTime(utc: string, zone: string): string {
  const two = "2-digit";
  const format = cached(longTimes, zone, {
    weekday: "short",
    day: "numeric",
    month: "short",
    year: "numeric",
    hour: two,
    minute: two,
    second: two,
    timeZoneName: "short",
  });
  return format.format(new Date(utc));
}

/** "−12 s", "+3 min", "+1 h 20 min": how far a moment is from another one. */
export function apart(seconds: number): string {
  if (Math.abs(seconds) < 0.5) return "same moment";
  return `${seconds < 0 ? "−" : "+"}${duration(Math.abs(seconds))}`;
}

/** "45 s", "3 min", "1 h 20 min", "2 days". */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 36) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

export function bytes(count: number): string {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]] as const) {
    if (count >= size) return `${(count / size).toFixed(count < 10 * size ? 1 : 0)} ${unit}`;
  }
  return `${count} bytes`;
}

const numbers = new Intl.NumberFormat("en-GB");
export const number = (count: number): string => numbers.format(count);
/** `plural(1, "image")` -> "1 image", `plural(2, "person", "people")` -> "2 people". */
export const plural = (count: number, one: string, many = `${one}s`): string => `${number(count)} ${count === 1 ? one : many}`;
export const percent = (share: number): string => `${Math.floor(share * 100)} %`;

export const BANDS: Record<Band, { name: string; short: string; meaning: string }> = {
  strong: { name: "Strong resemblance", short: "strong", meaning: "On validation data, at least one in two results this similar was the person." },
  possible: { name: "Possible", short: "possible", meaning: "On validation data, at least one in ten results this similar was the person: look closely." },
  weak: { name: "Weak", short: "weak", meaning: "On validation data, fewer than one in ten results this similar were the person." },
};

export const VERDICTS: Record<Word, string> = { match: "Match", no_match: "No match", unsure: "Unsure" };

/** "8e1f…": the beginning of something long that is only recognised, not read. */
export const brief = (id: string, length = 8): string => (id.length > length ? `${id.slice(0, length)}…` : id);

/** "image.view" -> "image view"; what machines call something, a little more readable. */
export const spaced = (name: string): string => name.replaceAll(/[._]/g, " ");
export const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
