/** Clocks of time zones, with nothing but what the browser knows of them. */

export const ownZone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

export function allZones(): string[] {
  const known = Intl.supportedValuesOf("timeZone");
  return known.includes("UTC") ? known : ["UTC", ...known];
}

const formats = new Map<string, Intl.DateTimeFormat>();

function clock(zone: string): Intl.DateTimeFormat {
  let format = formats.get(zone);
  if (!format) {
    const two = "2-digit";
    format = new Intl.DateTimeFormat("en-GB", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: two,
      day: two,
      hour: two,
      minute: two,
      second: two,
    });
    formats.set(zone, format);
  }
  return format;
}

/** A moment as the clocks of a zone show it: "2026-09-01T20:04:11". */
export function localOf(moment: Date, zone: string): string {
  const part: Record<string, string> = {};
  for (const { type, value } of clock(zone).formatToParts(moment)) part[type] = value;
  return `${part["year"]}-${part["month"]}-${part["day"]}T${part["hour"]}:${part["minute"]}:${part["second"]}`;
}

/**
 * The moment at which the clocks of a zone show a local time ("2026-09-01T20:04", seconds optional). Of a time that
 * comes twice, when clocks go back, the first; of one that never comes, the moment as far after the change.
 */
export function momentOf(local: string, zone: string): Date {
  const wanted = Date.parse(`${local.length === 16 ? `${local}:00` : local}Z`);
  if (Number.isNaN(wanted)) return new Date(NaN);
  const offset = (moment: number) => Date.parse(`${localOf(new Date(moment), zone)}Z`) - moment;
  const around = [offset(wanted - 86_400_000), offset(wanted + 86_400_000)];
  const matching = around.map((by) => wanted - by).filter((moment) => offset(moment) === wanted - moment);
  return new Date(matching.length ? Math.min(...matching) : wanted - (around[0] ?? 0));
}
