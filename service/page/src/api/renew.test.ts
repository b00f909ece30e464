import { QueryClient, QueryObserver } from "@tanstack/react-query";
import { expect, test } from "vitest";
import { renew } from "./renew";

test("a first call that was sent before the change is not taken for the new state", async () => {
  const queries = new QueryClient();
  const answers: ((list: string[]) => void)[] = [];
  const queryFn = () => new Promise<string[]>((resolve) => answers.push(resolve));
  const observer = new QueryObserver(queries, { queryKey: ["list"], queryFn });
  const stop = observer.subscribe(() => undefined);
  expect(answers.length).toBe(1);
  const renewed = renew(queries, ["list"]);
  await expect.poll(() => answers.length).toBe(2);
  answers[1]?.(["new"]);
  answers[0]?.(["old"]);
  await renewed;
  expect(observer.getCurrentResult().data).toEqual(["new"]);
  stop();
});
