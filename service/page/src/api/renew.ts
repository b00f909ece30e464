/** What has changed is asked for again, whatever is on its way. */

import type { QueryClient, QueryKey } from "@tanstack/react-query";

/** As invalidateQueries, which alone would take the answer of a first call that was sent before the change for the new one. */
export async function renew(queries: QueryClient, ...keys: QueryKey[]): Promise<void> {
  await Promise.all(
    keys.map(async (queryKey) => {
      await queries.cancelQueries({ queryKey });
      await queries.invalidateQueries({ queryKey });
    }),
  );
}
