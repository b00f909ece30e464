/** The results as a grid of whole crops, as many of them in the document as there are on the screen. */

import { useVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, type RefObject, memo, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import type { Result, Word } from "../api/types";
import { BANDS, VERDICTS, capital, longTime, plural, shortTime } from "../lib/format";
import { command, isTyping, move } from "../lib/keyboard";
import { columnsIn, rowOf, rowsOf, usualRatio } from "../lib/layout";
import { markOf } from "../lib/marks";
import { Icon } from "../parts/Icon";
import { Picture } from "../parts/Picture";
import { useHere } from "../session";
import { usePreferences } from "../settings";
import { useWork, verdictKey } from "./workspace";

const GAP = 10;
const CAPTION = 64; // pixels below the frame: three lines
const HEADING = 44;

export type GridCommand = "refine" | "more" | "case" | "like" | "unlike" | Word;

interface Props {
  search: string;
  results: readonly Result[];
  headings: boolean; // bands come in order
  scroller: RefObject<HTMLElement | null>;
  hasMore: boolean;
  onMore: () => void;
  focused: number;
  setFocused: (index: number) => void;
  returnTo: { index: number } | null; // another object: the focus goes to that card
  onOpen: (index: number) => void;
  onCommand: (command: GridCommand, index: number) => void;
  dimmed: boolean;
}

export function Grid(props: Props) {
  const { search, results, headings, scroller, hasMore, onMore, focused, setFocused, returnTo, onOpen, onCommand, dimmed } = props;
  const { size, zone } = usePreferences();
  const { cameraName } = useHere();
  const { marks, verdicts, toggleMark } = useWork();
  const list = useRef<HTMLDivElement>(null);
  const [place, setPlace] = useState({ width: 0, top: 0 });
  const wantsFocus = useRef(false);

  // Where the grid begins in what scrolls, and how wide it is; both change with the window and with what stands above.
  useLayoutEffect(() => {
    const grid = list.current;
    const main = scroller.current;
    if (!grid || !main) return;
    const measure = () => {
      const top = grid.getBoundingClientRect().top - main.getBoundingClientRect().top + main.scrollTop;
      setPlace((before) => (before.width === grid.clientWidth && Math.abs(before.top - top) < 1 ? before : { width: grid.clientWidth, top }));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(grid);
    for (const above of grid.parentElement?.parentElement?.children ?? []) observer.observe(above);
    return () => observer.disconnect();
  }, [scroller]);

  const { columns, width } = columnsIn(place.width, size, GAP);
  const rows = useMemo(() => rowsOf(results.map(({ band }) => band), columns, headings), [results, columns, headings]);
  const ratio = useMemo(() => usualRatio(results.slice(0, 200).map(({ image }) => image)), [results]);
  const frame = Math.round(width / ratio);
  const height = frame + CAPTION + GAP;

  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: (index) => (rows[index]?.kind === "weak" ? HEADING : height),
    scrollMargin: place.top,
    overscan: 2,
    scrollPaddingStart: 8,
    scrollPaddingEnd: 8,
  });
  useEffect(() => virtual.measure(), [virtual, height, rows]);

  const shown = virtual.getVirtualItems();
  const lastShown = shown.at(-1)?.index ?? 0;
  useEffect(() => {
    if (hasMore && rows.length > 0 && lastShown >= rows.length - 3) onMore();
  }, [hasMore, lastShown, rows.length, onMore]);

  /** Gives the focus to the card that is asked for, once it is in the document. */
  const focusCard = useCallback((index: number) => {
    const card = list.current?.querySelector<HTMLElement>(`[data-index="${index}"] > button`);
    if (!wantsFocus.current || !card) return;
    wantsFocus.current = false;
    card.focus({ preventScroll: true });
  }, []);

  const focusOn = useCallback(
    (index: number) => {
      wantsFocus.current = true;
      setFocused(index);
      const row = rowOf(rows, index);
      if (row >= 0) virtual.scrollToIndex(row, { align: "auto" });
      focusCard(index); // now, if it is on the screen: nothing may be left to render
    },
    [rows, setFocused, virtual, focusCard],
  );

  const focusNow = useRef(focusOn);
  focusNow.current = focusOn;
  useEffect(() => {
    if (returnTo) focusNow.current(returnTo.index);
  }, [returnTo]);

  useEffect(() => focusCard(focused));

  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (document.querySelector("dialog[open]") || target.closest(".popover")) return;
      const asked = command(event, isTyping(target));
      if (!asked) return;
      const inGrid = list.current?.contains(target) ?? false;
      const loose = target === document.body || target.id === "main" || inGrid;
      switch (asked) {
        case "open":
          if (target !== document.body && target.id !== "main") return; // a button does what it says
          onOpen(focused);
          break;
        case "close":
        case "type":
        case "help":
          return; // the page's own
        case "next":
        case "previous":
        case "up":
        case "down":
        case "first":
        case "last": {
          if (event.key.length > 1 && !loose) return; // arrows belong to whatever has the focus
          if (!inGrid && event.key.length > 1) return; // and scroll the page until somebody is in the grid
          focusOn(inGrid ? move(focused, asked, results.length, columns) : focused);
          break;
        }
        default:
          onCommand(asked, focused);
      }
      event.preventDefault();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [focused, focusOn, onCommand, onOpen, results.length, columns]);

  return (
    <div
      ref={list}
      className={dimmed ? "grid dimmed" : "grid"}
      role="list"
      aria-label="Results"
      aria-busy={dimmed}
      style={{ height: virtual.getTotalSize() }}
    >
      {shown.map((item) => {
        const row = rows[item.index];
        if (!row) return null;
        const style = { transform: `translateY(${item.start - place.top}px)`, height: row.kind === "weak" ? HEADING : height - GAP };
        if (row.kind === "weak") {
          return (
            <div key={item.key} className="band-heading" style={style} role="presentation">
              <strong>{row.from === 0 ? "Nothing convincing" : "Weak from here on"}</strong>
              <span className="muted small clip">{BANDS.weak.meaning}</span>
            </div>
          );
        }
        return (
          <div key={item.key} className="cards" style={{ ...style, gridTemplateColumns: `repeat(${columns}, ${width}px)`, gap: GAP }} role="presentation">
            {results.slice(row.from, row.to).map((result, offset) => {
              const index = row.from + offset;
              const card = (
                <Card
                  key={result.rank}
                  result={result}
                  index={index}
                  total={results.length}
                  frame={frame}
                  camera={cameraName(result.image.camera_id)}
                  zone={zone}
                  marked={markOf(marks, result.image_id)}
                  verdict={verdicts.get(verdictKey(search, result.image_id)) ?? null}
                  active={index === focused}
                  onOpen={onOpen}
                  onFocus={setFocused}
                  onMark={toggleMark}
                />
              );
              if (index !== row.turn) return card;
              return [
                <div key="turn" className="turn" style={{ height: frame }}>
                  <strong>Weak from here on</strong>
                  <span>{BANDS.weak.meaning}</span>
                </div>,
                card,
              ];
            })}
          </div>
        );
      })}
    </div>
  );
}

interface CardProps {
  result: Result;
  index: number;
  total: number;
  frame: number;
  camera: string;
  zone: string;
  marked: "like" | "unlike" | null;
  verdict: Word | null;
  active: boolean;
  onOpen: (index: number) => void;
  onFocus: (index: number) => void;
  onMark: (image: string, kind: "like" | "unlike") => void;
}

const VERDICT_ICONS = { match: "check", no_match: "close", unsure: "question" } as const;

/** What a screen reader says of a result. */
export function spoken(result: Result, camera: string, zone: string): string {
  const { rank, image, similarity, band, group } = result;
  const parts = [`Rank ${rank}`, camera, image.captured_at ? longTime(image.captured_at, zone) : "time unknown"];
  if (band) parts.push(BANDS[band].name);
  parts.push(`similarity ${similarity.toFixed(2)}`);
  if (group && group.size > 1) parts.push(plural(group.size, "image"));
  return parts.join(", ");
}

/** For screen readers, between what everybody sees: the name of a card begins with what stands on it. */
const Unseen = ({ children }: { children: ReactNode }) => <span className="unseen">{children}</span>;

const Card = memo(function Card(props: CardProps) {
  const { result, index, total, frame, camera, zone, marked, verdict, active, onOpen, onFocus, onMark } = props;
  const { image, band, group } = result;
  const judged = [verdict && `judged ${VERDICTS[verdict]}`, marked === "like" && "marked as like this", marked === "unlike" && "marked as not this"];
  const states = judged.filter(Boolean).map((state) => `, ${state}`).join("");
  return (
    <div className={`hit${marked ? ` ${marked}` : ""}`} role="listitem" aria-posinset={index + 1} aria-setsize={total} data-index={index}>
      <button type="button" tabIndex={active ? 0 : -1} onClick={() => onOpen(index)} onFocus={() => onFocus(index)}>
        <span className="frame" style={{ height: frame }}>
          <Picture key={image.thumbnail} src={image.thumbnail} gone={<span className="muted tiny">Not shown any more</span>} />
          {group && group.size > 1 && <span className="badge pile figures" aria-hidden="true">{group.size}</span>}
          {verdict && (
            <span className={`badge verdict ${verdict}`}>
              <Icon name={VERDICT_ICONS[verdict]} />
            </span>
          )}
        </span>
        <span className="caption">
          <span className="line">
            <Unseen>Rank </Unseen>
            <span className="rank figures">{result.rank}</span>
            <Unseen>, </Unseen>
            <span className="clip grow">{camera}</span>
          </span>
          <Unseen>, </Unseen>
          <span className="line muted figures">
            <span className="clip">{image.captured_at ? shortTime(image.captured_at, zone) : "no time"}</span>
          </span>
          <Unseen>, </Unseen>
          <span className="line muted figures">
            {band && <span className={`level ${band}`} />}
            <span className="clip grow">{band ? capital(BANDS[band].short) : "similarity"}</span>
            <Unseen>{band ? " resemblance, " : " "}</Unseen>
            <span>{result.similarity.toFixed(2)}</span>
          </span>
          <Unseen>
            {group && group.size > 1 && `, ${plural(group.size, "image")}`}
            {states}
          </Unseen>
        </span>
      </button>
      <span className="marks">
        <button type="button" tabIndex={-1} aria-label={`Like rank ${result.rank}`} aria-pressed={marked === "like"} title="Like this one (+)" onClick={() => onMark(result.image_id, "like")}>
          <Icon name="plus" />
        </button>
        <button type="button" tabIndex={-1} aria-label={`Unlike rank ${result.rank}`} aria-pressed={marked === "unlike"} title="Not this one (−)" onClick={() => onMark(result.image_id, "unlike")}>
          <Icon name="minus" />
        </button>
      </span>
    </div>
  );
});
