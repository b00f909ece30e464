import { expect, test } from "vitest";
import { localOf, momentOf } from "./zones";

test.each([
  ["2026-01-15T12:00", "Europe/Berlin", "2026-01-15T11:00:00.000Z"],
  ["2026-07-15T12:00", "Europe/Berlin", "2026-07-15T10:00:00.000Z"],
  ["2026-07-15T12:00:30", "UTC", "2026-07-15T12:00:30.000Z"],
  ["2026-07-15T00:00", "Asia/Kolkata", "2026-07-14T18:30:00.000Z"],
  ["2026-07-15T12:00", "America/Los_Angeles", "2026-07-15T19:00:00.000Z"],
  ["2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30:00.000Z"], // comes twice: the first, still in summer time
  ["2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:30:00.000Z"], // never comes: as far after the change
])("%s in %s", (local, zone, utc) => expect(momentOf(local, zone).toISOString()).toBe(utc));

test.each(["Europe/Berlin", "Pacific/Auckland", "UTC"])("there and back in %s, through a whole year", (zone) => {
  for (let day = 0; day < 365; day++) {
    const moment = new Date(Date.UTC(2026, 0, 1 + day, 12, 34, 56));
    expect(momentOf(localOf(moment, zone), zone)).toEqual(moment);
  }
});

test("what is no time is none", () => expect(momentOf("tomorrow", "UTC").getTime()).toBeNaN());
