/** What the page shows <-> the fragment of its address. It holds ids only: no description ends up in a history. */

export type Route =
  | { page: "search"; search: string | null; image: string | null }
  | { page: "add"; ingestion: string | null }
  | { page: "cases"; case: string | null }
  | { page: "system" }
  | { page: "audit" }
  | { page: "accounts" }
  | { page: "setup"; token: string };

export type Page = Exclude<Route["page"], "setup">;

const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** What cannot be read is the search page: an address typed by hand must not end in an error. */
export function parseRoute(fragment: string): Route {
  const setup = /^#setup=(.+)$/.exec(fragment);
  if (setup?.[1]) return { page: "setup", token: setup[1] };
  const [page, first, second] = fragment.replace(/^#\/?/, "").split("/");
  const id = (text: string | undefined) => (text && ID.test(text) ? text : null);
  switch (page) {
    case "add":
      return { page, ingestion: id(first) };
    case "cases":
      return { page, case: id(first) };
    case "system":
    case "audit":
    case "accounts":
      return { page };
    default: {
      const search = page === "search" ? id(first) : null;
      return { page: "search", search, image: search && id(second) };
    }
  }
}

export function formatRoute(route: Route): string {
  switch (route.page) {
    case "search":
      return ["#/search", route.search, route.search && route.image].filter(Boolean).join("/");
    case "add":
      return ["#/add", route.ingestion].filter(Boolean).join("/");
    case "cases":
      return ["#/cases", route.case].filter(Boolean).join("/");
    case "setup":
      return `#setup=${route.token}`;
    default:
      return `#/${route.page}`;
  }
}
