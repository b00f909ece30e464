import { describe, expect, test } from "vitest";
import { type Route, formatRoute, parseRoute } from "./route";

const ID = "0199a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b";
const OTHER = "0199a1b2-8d4e-7f50-9b6c-7d8e9f0a1b2c";

describe("routes", () => {
  const routes: Route[] = [
    { page: "search", search: null, image: null },
    { page: "search", search: ID, image: null },
    { page: "search", search: ID, image: OTHER },
    { page: "add", ingestion: null },
    { page: "add", ingestion: ID },
    { page: "cases", case: OTHER },
    { page: "system" },
    { page: "audit" },
    { page: "accounts" },
    { page: "setup", token: "abc_DEF-1" },
  ];
  test.each(routes)("%o comes back from its address", (route) => {
    expect(parseRoute(formatRoute(route))).toEqual(route);
  });

  test.each(["", "#", "#/", "#/nowhere", "#/search/not-an-id", `#/search/not-an-id/${ID}`, "#/search/<script>"])(
    "%j is the empty search page",
    (fragment) => expect(parseRoute(fragment)).toEqual({ page: "search", search: null, image: null }),
  );

  test("an address holds ids only", () => {
    expect(formatRoute({ page: "search", search: ID, image: OTHER })).toBe(`#/search/${ID}/${OTHER}`);
  });
});
