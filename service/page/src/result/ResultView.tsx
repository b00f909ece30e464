/** One result beside the query: the whole crop, what is known of it, what the camera saw around it, and a verdict. */

import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { call } from "../api/client";
import type { Image, Result, SearchResponse, Word } from "../api/types";
import { BANDS, VERDICTS, bytes, longTime } from "../lib/format";
import { command, isTyping } from "../lib/keyboard";
import { type Question, around, moreLike } from "../lib/question";
import { markOf } from "../lib/marks";
import { Dialog } from "../parts/Dialog";
import { Icon } from "../parts/Icon";
import { Failed } from "../parts/states";
import { spoken } from "../search/Grid";
import { useWork, verdictKey } from "../search/workspace";
import { useHere } from "../session";
import { usePreferences } from "../settings";
import { Explanation, type Highlight } from "./Explanation";
import { Neighbours } from "./Neighbours";

interface Props {
  answer: SearchResponse;
  results: readonly Result[];
  index: number; // -1: not among the results, as a neighbour
  image: string;
  onStep: (index: number) => void;
  onClose: () => void;
  onCase: (image: string) => void;
}

const MINUTES = 10;
const WORDS: readonly Word[] = ["match", "no_match", "unsure"];

export function ResultView({ answer, results, index, image, onStep, onClose, onCase }: Props) {
  const { question, marks, verdicts, run, toggleMark, judge, hint } = useWork();
  const { cameraName, may } = useHere();
  const { zone } = usePreferences();
  const [highlight, setHighlight] = useState<Highlight | null>(null);
  const result = results[index];
  const details = useQuery({ queryKey: ["image", image], queryFn: () => call<Image>(`/images/${image}`), staleTime: 60_000 });
  const known = details.data;
  const shown = result?.image ?? known;
  const verdict = verdicts.get(verdictKey(answer.id, image)) ?? null;
  const marked = markOf(marks, image);
  const camera = shown?.camera_id ?? null;
  const capturedAt = shown?.captured_at ?? null;
  const like = () => void run(moreLike(question, image));
  const near = () => {
    if (camera && capturedAt) void run(around(question, camera, capturedAt, MINUTES));
  };

  useEffect(() => setHighlight(null), [image]);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (document.querySelectorAll("dialog[open]").length > 1) return; // another one is on top
      const asked = command(event, isTyping(target));
      if (asked === "next") onStep(index + 1);
      else if (asked === "previous") onStep(index - 1);
      else if (asked === "match" || asked === "no_match" || asked === "unsure") {
        if (result) void judge(answer.id, image, asked);
      } else if (asked === "like" || asked === "unlike") toggleMark(image, asked);
      else if (asked === "more") void run(moreLike(question, image));
      else if (asked === "case") onCase(image);
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  });

  const title = result ? `Rank ${result.rank}` : "Beside the results";
  return (
    <Dialog title={title} className="viewer" bare onClose={onClose}>
      <div className="viewer-body">
        <header>
          <div className="row">
            <button type="button" className="button bare" aria-label="Previous result" title="Previous (k)" disabled={index <= 0} onClick={() => onStep(index - 1)}>
              <Icon name="left" />
            </button>
            <button
              type="button"
              className="button bare"
              aria-label="Next result"
              title="Next (j)"
              disabled={index < 0 || index >= results.length - 1}
              onClick={() => onStep(index + 1)}
            >
              <Icon name="right" />
            </button>
            <h2 className="figures">{title}</h2>
            {result?.band && (
              <span className={`band ${result.band}`} title={BANDS[result.band].meaning}>
                <span className={`level ${result.band}`} aria-hidden="true" />
                {BANDS[result.band].name}
              </span>
            )}
          </div>
          <button type="button" className="button quiet bare" aria-label="Close" title="Close (Esc)" onClick={onClose}>
            <Icon name="close" />
          </button>
        </header>

        <div className={question.picture && question.picture.kind !== "gone" ? "viewer-main" : "viewer-main worded"}>
          <Asked question={question} />
          <div className="crop-stage">
            {details.isError && !result ? (
              <Failed error={details.error} />
            ) : (
              <Crop key={image} image={image} alt={result ? spoken(result, cameraName(camera), zone) : "The image"} ratio={shown ? shown.width / shown.height : null} highlight={highlight} />
            )}
          </div>
          <aside>
            {result && (
              <div className="verdicts" role="group" aria-label="Verdict">
                {WORDS.map((word, at) => (
                  <button
                    key={word}
                    type="button"
                    className="button"
                    aria-pressed={verdict === word}
                    disabled={!may("judge")}
                    title={`${VERDICTS[word]} (${at + 1})`}
                    onClick={() => void judge(answer.id, image, word)}
                  >
                    <Icon name={word === "match" ? "check" : word === "no_match" ? "close" : "question"} />
                    {VERDICTS[word]}
                  </button>
                ))}
              </div>
            )}
            {hint && (
              <p className="hint" role="alert">
                {hint}
              </p>
            )}
            <div className="tools">
              <button type="button" className="button wide" onClick={like}>
                <Icon name="more" />
                More like this
              </button>
              <button type="button" className="button" aria-pressed={marked === "like"} onClick={() => toggleMark(image, "like")}>
                <Icon name="plus" />
                Like
              </button>
              <button type="button" className="button" aria-pressed={marked === "unlike"} onClick={() => toggleMark(image, "unlike")}>
                <Icon name="minus" />
                Not
              </button>
              {may("case") && result && (
                <button type="button" className="button wide" onClick={() => onCase(image)}>
                  <Icon name="case" />
                  Add to case
                </button>
              )}
              {camera && capturedAt && (
                <button type="button" className="button wide" onClick={near} title={`The same search, at this camera, ${MINUTES} minutes before and after`}>
                  <Icon name="clock" />
                  This camera, around this time
                </button>
              )}
            </div>
            <dl className="facts">
              <Fact name="Camera">{cameraName(camera)}</Fact>
              <Fact name="Time">{capturedAt && longTime(capturedAt, zone)}</Fact>
              <Fact name="Tags">{shown?.tags.join(", ")}</Fact>
              <Fact name="Identity">{shown?.identity}</Fact>
              <Fact name="Track">{shown?.track_id}</Fact>
              {result && <Fact name="Similarity">{result.similarity.toFixed(4)}</Fact>}
              {known && Object.keys(known.attributes).length > 0 && (
                <Fact name="Attributes">
                  {Object.entries(known.attributes)
                    .map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`)
                    .join(", ")}
                </Fact>
              )}
            </dl>
            {result && (answer.request as { query: { text?: string } }).query.text && (
              <Explanation search={answer.id} image={image} onHighlight={setHighlight} />
            )}
            <details className="provenance">
              <summary>Provenance</summary>
              <dl className="facts">
                <Fact name="Source">{shown?.external_id ?? "no external id"}</Fact>
                <Fact name="Image">{image}</Fact>
                {known && (
                  <>
                    <Fact name="SHA-256">{known.sha256}</Fact>
                    <Fact name="File">{`${known.format}, ${known.width} × ${known.height} pixels, ${bytes(known.byte_size)}`}</Fact>
                    <Fact name="Added">{longTime(known.created_at, zone)}</Fact>
                  </>
                )}
                <Fact name="Checkpoint">{answer.checkpoint_id}</Fact>
                <Fact name="Search">{answer.id}</Fact>
              </dl>
              <a href={`/api/v1/images/${image}/content?variant=full`} target="_blank" rel="noopener">
                Open the original file
              </a>
            </details>
          </aside>
        </div>
        {result?.group && result.group.members.length > 0 && (
          <section className="filmstrip" aria-label="Others of the group">
            <h3>
              {result.group.key} <span className="muted figures">{result.group.size} images</span>
            </h3>
            <ul>
              {result.group.members.map((member) => (
                <li key={member.image_id}>
                  <img src={member.image.thumbnail} alt="" />
                  <span className="tiny figures muted">{member.similarity.toFixed(2)}</span>
                </li>
              ))}
            </ul>
          </section>
        )}
        <Neighbours search={answer.id} image={image} />
      </div>
    </Dialog>
  );
}

function Fact({ name, children }: { name: string; children: React.ReactNode }) {
  if (children === null || children === undefined || children === "") return null;
  return (
    <>
      <dt>{name}</dt>
      <dd className="figures">{children}</dd>
    </>
  );
}

/** The query, to look from one to the other. */
function Asked({ question }: { question: Question }) {
  const { picture } = question;
  return (
    <section className="asked" aria-label="What was asked">
      {picture && picture.kind !== "gone" && (
        <img src={picture.kind === "file" ? picture.url : `/api/v1/images/${picture.image}/content`} alt="The picture that was searched with" />
      )}
      {question.text && <blockquote>{question.text}</blockquote>}
      {question.not && (
        <p className="small">
          <span className="muted">not:</span> {question.not}
        </p>
      )}
      {(question.like.length > 0 || question.unlike.length > 0) && (
        <div className="small muted">
          {[...question.like.map((id) => [id, "+"] as const), ...question.unlike.map((id) => [id, "−"] as const)].slice(0, 6).map(([id, sign]) => (
            <span key={id} className="example">
              {sign}
              <img src={`/api/v1/images/${id}/content?variant=thumb`} alt="" />
            </span>
          ))}
        </div>
      )}
    </section>
  );
}

/** The file itself; where a browser cannot draw it (TIFF), the thumbnail. Strips of an explanation lie on top. */
function Crop({ image, alt, ratio, highlight }: { image: string; alt: string; ratio: number | null; highlight: Highlight | null }) {
  const [thumb, setThumb] = useState(false);
  return (
    <div className="crop-frame" style={ratio ? { aspectRatio: String(ratio) } : undefined}>
      <img
        src={`/api/v1/images/${image}/content?variant=${thumb ? "thumb" : "full"}`}
        alt={alt}
        onError={() => setThumb(true)}
      />
      {highlight?.map(({ top, bottom, weight }) => (
        <span key={top} className="strip-mark" aria-hidden="true" style={{ top: `${100 * top}%`, height: `${100 * (bottom - top)}%`, opacity: weight }} />
      ))}
    </div>
  );
}
