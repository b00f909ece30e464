/**
 * What somebody is working on: the question, the examples marked so far and the verdicts given. It outlives the search
 * page, so that a look at a case loses nothing, and ends with the tab: nothing of it is stored in the browser.
 */

import { type InfiniteData, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, createContext, useContext, useMemo, useRef, useState } from "react";
import { Failure, call, sentence } from "../api/client";
import { renew } from "../api/renew";
import type { SearchPage, SearchResponse, Verdict, Word } from "../api/types";
import { type Marks, NO_MARKS, mark } from "../lib/marks";
import { type Question, emptyQuestion, questionOf, requestOf, whyNot } from "../lib/question";
import { go } from "../place";
import { usePreferences } from "../settings";

interface Work {
  question: Question;
  marks: Marks;
  verdicts: ReadonlyMap<string, Word>; // by `verdictKey`
  running: boolean;
  error: unknown; // of the last search that was asked for
  update: (change: Partial<Question>) => void;
  /** Ask now: what is in the box, or this. */
  run: (question?: Question) => Promise<void>;
  refine: (search: string) => Promise<void>;
  adopt: (answer: SearchResponse) => void;
  toggleMark: (image: string, kind: "like" | "unlike") => void;
  clearMarks: () => void;
  judge: (search: string, image: string, verdict: Word, note?: string) => Promise<void>;
  clear: () => void;
  hint: string | null;
  setHint: (hint: string | null) => void;
}

const Context = createContext<Work | null>(null);

export const verdictKey = (search: string, image: string): string => `${search}/${image}`;

export function Workspace({ children }: { children: ReactNode }) {
  const queries = useQueryClient();
  const { zone } = usePreferences();
  const [question, setQuestion] = useState(() => emptyQuestion(zone));
  const [marks, setMarks] = useState<Marks>(NO_MARKS);
  const [verdicts, setVerdicts] = useState<ReadonlyMap<string, Word>>(new Map());
  const [running, setRunning] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [hint, setHint] = useState<string | null>(null);
  const latest = useRef(question);
  const request = useRef<AbortController>(null);
  const current = useRef<string | null>(null); // the search whose question this is, edited since or not
  const asked = useRef(new Map<string, Question>()); // by search: one's own picture is known to nobody else

  const work = useMemo(() => {
    const set = (next: Question) => {
      latest.current = next;
      setQuestion(next);
    };

    /** One search at a time: a later one overtakes. */
    const answered = async (next: Question, ask: (signal: AbortSignal) => Promise<SearchResponse>) => {
      request.current?.abort();
      const own = new AbortController();
      request.current = own;
      setRunning(true);
      setError(null);
      setHint(null);
      try {
        const answer = await ask(own.signal);
        if (own.signal.aborted) return;
        keep(answer);
        asked.current.set(answer.id, next);
        current.current = answer.id;
        setMarks(NO_MARKS);
        go({ page: "search", search: answer.id, image: null });
      } catch (reason) {
        const over = reason instanceof Failure && reason.code === "unauthenticated"; // the door says so
        if (!own.signal.aborted && !over) setError(reason);
      } finally {
        if (request.current === own) setRunning(false);
      }
    };

    const keep = (answer: SearchResponse) => {
      queries.setQueryData(["search", answer.id], answer);
      const first: InfiniteData<SearchPage, string | null> = {
        pages: [{ results: answer.results, next_cursor: answer.next_cursor ?? null }],
        pageParams: [null],
      };
      queries.setQueryData(["results", answer.id], first);
    };

    return {
      update: (change: Partial<Question>) => set({ ...latest.current, ...change }),
      run: async (given?: Question) => {
        const next = given ?? latest.current;
        set(next);
        const missing = whyNot(next);
        if (missing) {
          setHint(missing);
          return;
        }
        await answered(next, (signal) => {
          const body = requestOf(next);
          if (next.picture?.kind !== "file") return call("/searches", { method: "POST", body, signal });
          const form = new FormData();
          form.append("request", JSON.stringify(body));
          form.append("image", next.picture.file);
          return call("/searches", { method: "POST", body: form, signal });
        });
      },
      refine: async (search: string) => {
        const { like, unlike } = marksNow.current;
        if (!like.length && !unlike.length) {
          setHint("Mark results with + or − first, then refine.");
          return;
        }
        const now = latest.current;
        const next: Question = {
          ...now,
          like: [...now.like.filter((id) => !unlike.includes(id) && !like.includes(id)), ...like],
          unlike: [...now.unlike.filter((id) => !like.includes(id) && !unlike.includes(id)), ...unlike],
        };
        const body = { positive: like, negative: unlike, ...purposeOf(now) };
        await answered(next, (signal) => call(`/searches/${search}/refinements`, { method: "POST", body, signal }));
        set(next);
      },
      adopt: (answer: SearchResponse) => {
        if (current.current === answer.id) return; // somebody was elsewhere meanwhile, and finds their work as it was
        current.current = answer.id;
        set(asked.current.get(answer.id) ?? questionOf(answer.request, zone));
      },
      toggleMark: (image: string, kind: "like" | "unlike") => setMarks((marks) => mark(marks, image, kind)),
      clearMarks: () => setMarks(NO_MARKS),
      judge: async (search: string, image: string, verdict: Word, note?: string) => {
        const key = verdictKey(search, image);
        try {
          const body = { verdict, ...(note && { note }) };
          await call<Verdict>(`/searches/${search}/results/${image}/verdicts`, { method: "POST", body });
          setVerdicts((verdicts) => new Map(verdicts).set(key, verdict));
          void renew(queries, ["case"]);
        } catch (reason) {
          setHint(sentence(reason));
        }
      },
      clear: () => {
        request.current?.abort();
        current.current = null;
        setRunning(false);
        setError(null);
        setHint(null);
        setMarks(NO_MARKS);
        const { caseId, reason } = latest.current; // the purpose stays: one is still working on the same thing
        set({ ...emptyQuestion(zone), caseId, reason });
        go({ page: "search", search: null, image: null });
      },
    };
  }, [queries, zone]);

  const marksNow = useRef(marks);
  marksNow.current = marks;
  const value = useMemo(
    () => ({ ...work, question, marks, verdicts, running, error, hint, setHint }),
    [work, question, marks, verdicts, running, error, hint],
  );
  return <Context value={value}>{children}</Context>;
}

function purposeOf({ caseId, reason }: Question) {
  if (!caseId && !reason.trim()) return {};
  return { purpose: { ...(caseId && { case_id: caseId }), ...(reason.trim() && { reason: reason.trim() }) } };
}

export function useWork(): Work {
  const work = useContext(Context);
  if (!work) throw new Error("There is no workspace here.");
  return work;
}
