/** The search page: ask above, look below; one result opens on top of it. */

import { type RefObject, useCallback, useEffect, useRef, useState } from "react";
import { Failure } from "../api/client";
import type { SearchResponse } from "../api/types";
import { number, plural } from "../lib/format";
import { HELP, command, isTyping } from "../lib/keyboard";
import { moreLike, whyNot } from "../lib/question";
import type { Route } from "../lib/route";
import { AddToCase } from "../result/AddToCase";
import { ResultView } from "../result/ResultView";
import { Dialog } from "../parts/Dialog";
import { Icon } from "../parts/Icon";
import { Failed, State } from "../parts/states";
import { go } from "../place";
import { SIZES, prefer, usePreferences } from "../settings";
import { FilterBar } from "./FilterBar";
import { Grid, type GridCommand } from "./Grid";
import { PurposeBar } from "./PurposeBar";
import { QueryBox } from "./QueryBox";
import { RefineBar } from "./RefineBar";
import { SavedSearches } from "./SavedSearches";
import { Welcome } from "./Welcome";
import { useResults, useSearch } from "./results";
import { useWork } from "./workspace";

interface Props {
  route: Extract<Route, { page: "search" }>;
  scroller: RefObject<HTMLElement | null>;
}

export function SearchPage({ route, scroller }: Props) {
  const work = useWork();
  const { question, run, adopt, running, error, update } = work;
  const search = useSearch(route.search);
  const answer = search.data;
  const { results, hasNextPage, isFetchingNextPage, fetchNextPage, error: pageError } = useResults(route.search, answer);
  const [focused, setFocused] = useState(0);
  const [helping, setHelping] = useState(false);
  const [adding, setAdding] = useState<string | null>(null);
  const [returnTo, setReturnTo] = useState<{ index: number } | null>(null);

  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (document.querySelector("dialog[open]")) return;
      const asked = command(event, isTyping(event.target as HTMLElement));
      if (asked === "type") document.getElementById("description")?.focus();
      else if (asked === "help") setHelping(true);
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);

  // A search of before, by the id in the address: after a reload, or when somebody goes back.
  const adopted = useRef<string | null>(null);
  useEffect(() => {
    if (!answer || adopted.current === answer.id) return;
    adopted.current = answer.id;
    adopt(answer);
    setFocused(0);
    scroller.current?.scrollTo({ top: 0 });
  }, [answer, adopt, scroller]);

  // Shortly after the last change of a filter, so that dragging the slider is one search, not twenty.
  const waiting = useRef<ReturnType<typeof setTimeout>>(undefined);
  const soon = useCallback(() => {
    clearTimeout(waiting.current);
    waiting.current = setTimeout(() => void runNow.current(), 350);
  }, []);
  const runNow = useRef(async () => {});
  runNow.current = async () => {
    if (route.search !== null || whyNot(question) === null) await run();
  };
  useEffect(() => () => clearTimeout(waiting.current), []);

  const open = useCallback(
    (index: number) => {
      const result = results[index];
      if (!result || !route.search) return;
      setFocused(index);
      go({ page: "search", search: route.search, image: result.image_id });
    },
    [results, route.search],
  );

  const onCommand = useCallback(
    (asked: GridCommand, index: number) => {
      const image = results[index]?.image_id;
      if (!image || !route.search) return;
      if (asked === "refine") void work.refine(route.search);
      else if (asked === "more") void run(moreLike(question, image));
      else if (asked === "case") setAdding(image);
      else if (asked === "like" || asked === "unlike") work.toggleMark(image, asked);
      else void work.judge(route.search, image, asked);
    },
    [results, route.search, work, run, question],
  );

  const more = useCallback(() => {
    if (!isFetchingNextPage) void fetchNextPage();
  }, [fetchNextPage, isFetchingNextPage]);

  const failed = error ?? search.error;
  const index = route.image ? results.findIndex(({ image_id }) => image_id === route.image) : -1;
  const headings = (answer?.request as { order_by?: string } | undefined)?.order_by === undefined;
  const blank = (running || search.isLoading) && !results.length;

  return (
    <div className="search">
      <h1 className="unseen">Search</h1>
      <div className="asking" role="search" aria-label="Person search">
        <QueryBox onFilter={soon} />
        <div className="under">
          <FilterBar onFilter={soon} />
          <PurposeBar />
        </div>
      </div>
      <div className="answer" aria-label="Answer" role="region">
        {(route.search !== null || running) && !failed && (
          <div className="strip">
            <p role="status" aria-live="polite" className="grow figures">
              {running ? "Searching …" : answer ? told(answer) : "Loading the search …"}
            </p>
            <Order onChange={soon} update={update} />
            <Size />
            <SavedSearches />
            <button type="button" className="button quiet bare" aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" onClick={() => setHelping(true)}>
              <Icon name="keyboard" />
            </button>
            <button type="button" className="button quiet" onClick={work.clear}>
              New search
            </button>
          </div>
        )}
        {answer && !failed && !running && <Warnings answer={answer} />}
        {failed ? (
          <Failed
            error={failed}
            retry={
              failed instanceof Failure && failed.status === 410
                ? undefined
                : () => (error ? void run() : void search.refetch())
            }
          >
            <button type="button" className="button" onClick={work.clear}>
              New search
            </button>
          </Failed>
        ) : blank ? (
          <Placeholders />
        ) : route.search === null ? (
          !running && <Welcome />
        ) : answer && results.length === 0 ? (
          <State icon="search" title="Nothing to show">
            <p>{answer.candidates === 0 ? "The filter leaves no image. Take something out of it." : "The images of this ranking have been removed since."}</p>
          </State>
        ) : (
          answer && (
            <div>
              <Grid
                search={answer.id}
                results={results}
                headings={headings}
                scroller={scroller}
                hasMore={hasNextPage}
                onMore={more}
                focused={Math.min(focused, Math.max(0, results.length - 1))}
                setFocused={setFocused}
                returnTo={returnTo}
                onOpen={open}
                onCommand={onCommand}
                dimmed={running}
              />
              {isFetchingNextPage && (
                <p className="muted small end" role="status">
                  Loading more …
                </p>
              )}
              {pageError && <Failed error={pageError} retry={() => void fetchNextPage()} />}
              {!hasNextPage && !running && results.length > 0 && (
                <p className="muted small end">{headings ? "That is the whole ranking." : "These are the most similar images, by time."}</p>
              )}
            </div>
          )
        )}
      </div>
      {route.search && <RefineBar search={route.search} />}
      {route.search && answer && route.image && (
        <ResultView
          answer={answer}
          results={results}
          index={index}
          image={route.image}
          onStep={(to) => {
            const next = results[to];
            if (!next || !route.search) return;
            setFocused(to);
            go({ page: "search", search: route.search, image: next.image_id }, true);
            if (to > results.length - 5 && hasNextPage) more();
          }}
          onClose={() => {
            if (index >= 0) setReturnTo({ index });
            go({ page: "search", search: route.search, image: null });
          }}
          onCase={setAdding}
        />
      )}
      {adding && route.search && <AddToCase search={route.search} image={adding} onClose={() => setAdding(null)} />}
      {helping && <Help onClose={() => setHelping(false)} />}
    </div>
  );
}

/** "300 images, best first · 24 ms": what was searched, in one line. */
function told(answer: SearchResponse): string {
  const { total, ...stages } = answer.took_ms;
  const took = total ?? Object.values(stages).reduce((sum: number, ms) => sum + ms, 0);
  const request = answer.request as { group_by?: string | null; order_by?: string };
  const groups: Record<string, string> = { track_id: "track", camera_id: "camera", identity: "identity" };
  const group = request.group_by ? groups[request.group_by] : undefined;
  const what = group
    ? `${plural(answer.ranked ?? 0, group, group === "identity" ? "identities" : `${group}s`)} of ${plural(answer.candidates, "image")}`
    : plural(answer.candidates, "image");
  const order = { captured_at: "earliest first", "-captured_at": "latest first" }[request.order_by ?? ""] ?? "best first";
  return `${what}, ${order} · ${Math.max(1, Math.round(took))} ms${answer.exact ? "" : " · approximate"}`;
}

function Warnings({ answer }: { answer: SearchResponse }) {
  const unknown = answer.unknown_words;
  const text = String((answer.request as { query?: { text?: string } }).query?.text ?? "");
  if (!answer.warnings.length && !answer.pending && !unknown.length) return null;
  return (
    <ul className="warnings" aria-label="Notes on this search">
      {unknown.length > 0 && text && (
        <li>
          Unknown words were ignored: <Marked text={text} words={unknown} />
        </li>
      )}
      {answer.warnings
        .filter((warning) => !(unknown.length && unknown.every((word) => warning.includes(word)) && !/only|little/i.test(warning)))
        .map((warning) => (
          <li key={warning}>{warning}</li>
        ))}
      {answer.pending > 0 && !answer.warnings.some((warning) => warning.includes(String(answer.pending))) && (
        <li>{number(answer.pending)} more images are not searchable yet.</li>
      )}
    </ul>
  );
}

/** The description, with the words the checkpoint never met struck through. */
function Marked({ text, words }: { text: string; words: readonly string[] }) {
  const unknown = new Set(words.map((word) => word.toLowerCase()));
  return (
    <q>
      {text.split(/(\s+)/).map((part, index) =>
        unknown.has(part.toLowerCase().replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "")) ? <del key={index}>{part}</del> : part,
      )}
    </q>
  );
}

function Order({ onChange, update }: { onChange: () => void; update: ReturnType<typeof useWork>["update"] }) {
  const { question } = useWork();
  return (
    <>
      <label className="select">
        <span>Order</span>
        <select
          value={question.order}
          onChange={(event) => {
            update({ order: event.target.value as typeof question.order });
            onChange();
          }}
        >
          <option value="similarity">best first</option>
          <option value="captured_at">earliest first</option>
          <option value="-captured_at">latest first</option>
        </select>
      </label>
      <label className="select">
        <span>Group</span>
        <select
          value={question.group ?? ""}
          onChange={(event) => {
            update({ group: (event.target.value || null) as typeof question.group });
            onChange();
          }}
        >
          <option value="">none</option>
          <option value="track_id">by track</option>
          <option value="camera_id">by camera</option>
          <option value="identity">by identity</option>
        </select>
      </label>
    </>
  );
}

function Size() {
  const { size } = usePreferences();
  const at = Math.max(0, SIZES.findIndex((step) => step === size));
  return (
    <label className="select size">
      <span>Size</span>
      <input
        type="range"
        min={0}
        max={SIZES.length - 1}
        value={at}
        aria-label="Size of the pictures"
        aria-valuetext={`${at + 1} of ${SIZES.length}`}
        onChange={(event) => prefer({ size: SIZES[event.target.valueAsNumber] ?? SIZES[1] })}
      />
    </label>
  );
}

function Placeholders() {
  const { size } = usePreferences();
  return (
    <div className="placeholders" aria-hidden="true" style={{ gridTemplateColumns: `repeat(auto-fill, minmax(${size}px, 1fr))` }}>
      {Array.from({ length: 24 }, (_, index) => (
        <div key={index} />
      ))}
    </div>
  );
}

function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keyboard" onClose={onClose}>
      <dl className="facts keys">
        {HELP.map(([keys, meaning]) => (
          <div key={keys}>
            <dt>
              {keys.split(" ").map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
      <footer>
        <button type="button" className="button" onClick={onClose}>
          Close
        </button>
      </footer>
    </Dialog>
  );
}
