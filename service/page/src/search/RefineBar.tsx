/** What is marked, at the foot of the page, until it is used or dropped. */

import { plural } from "../lib/format";
import { Icon } from "../parts/Icon";
import { useWork } from "./workspace";

export function RefineBar({ search }: { search: string }) {
  const { marks, toggleMark, clearMarks, refine, running } = useWork();
  const count = marks.like.length + marks.unlike.length;
  if (count === 0) return null;
  return (
    <div className="refine" role="region" aria-label="Refine">
      {(["like", "unlike"] as const).map((kind) =>
        marks[kind].length ? (
          <div key={kind} className={`examples ${kind}`}>
            <Icon name={kind === "like" ? "plus" : "minus"} />
            <span className="small">{kind === "like" ? plural(marks.like.length, "like this", "like this") : plural(marks.unlike.length, "not this", "not this")}</span>
            {marks[kind].slice(0, 8).map((image) => (
              <button key={image} type="button" title="Take it back" aria-label="Take this example back" onClick={() => toggleMark(image, kind)}>
                <img src={`/api/v1/images/${image}/content?variant=thumb`} alt="" />
              </button>
            ))}
          </div>
        ) : null,
      )}
      <button type="button" className="button primary" disabled={running} onClick={() => void refine(search)}>
        <Icon name="refine" />
        Refine
      </button>
      <button type="button" className="button quiet" onClick={clearMarks}>
        Drop
      </button>
    </div>
  );
}
