/** Which words met which strip of the body. It shows how the network came to a similarity, and is no evidence. */

import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Failure, call, sentence } from "../api/client";
import type { Explanation as Answer } from "../api/types";

export type Highlight = readonly { top: number; bottom: number; weight: number }[];

interface Props {
  search: string;
  image: string;
  onHighlight: (highlight: Highlight | null) => void;
}

export function Explanation({ search, image, onHighlight }: Props) {
  const [open, setOpen] = useState(false);
  const [chosen, setChosen] = useState<number | null>(null);
  const { data, error, isLoading } = useQuery({
    queryKey: ["explanation", search, image],
    queryFn: () => call<Answer>(`/searches/${search}/results/${image}/explanation`),
    enabled: open,
    staleTime: Infinity,
  });
  const show = (answer: Answer, index: number | null) => {
    setChosen(index);
    onHighlight(index === null ? null : highlightOf(answer, index));
  };
  return (
    <details
      className="explanation"
      onToggle={(event) => {
        setOpen(event.currentTarget.open);
        if (!event.currentTarget.open) {
          setChosen(null);
          onHighlight(null);
        }
      }}
    >
      <summary>
        Which words met what <span className="tag bad">not evidence</span>
      </summary>
      {isLoading && <p className="small muted">Looking …</p>}
      {error && (
        <p className="small muted" role="status">
          {error instanceof Failure && error.status === 501 ? `There is none for this result. ${sentence(error)}` : sentence(error)}
        </p>
      )}
      {data && (
        <>
          <ul>
            {data.phrases.map(({ phrase, strips, best_strip }, index) => {
              const most = Math.max(...strips.map(Math.abs), 1e-6);
              return (
                <li key={`${index} ${phrase}`}>
                  <button
                    type="button"
                    aria-pressed={chosen === index}
                    onClick={() => show(data, chosen === index ? null : index)}
                    aria-label={`${phrase}: strip ${best_strip + 1} of ${strips.length} from the top`}
                  >
                    <span className="clip grow">{phrase}</span>
                    <span className="strips" aria-hidden="true">
                      {strips.map((value, at) => (
                        <span key={at} className={at === best_strip ? "best" : undefined} style={{ height: `${Math.max(8, (100 * Math.max(0, value)) / most)}%` }} />
                      ))}
                    </span>
                  </button>
                </li>
              );
            })}
          </ul>
          <p className="tiny muted">{data.note}</p>
        </>
      )}
    </details>
  );
}

/** How strongly each strip of the picture is tinted for a phrase: nothing below its mean, most where it is highest. */
export function highlightOf(answer: Pick<Answer, "strip_bounds" | "phrases">, index: number): Highlight {
  const strips = answer.phrases[index]?.strips ?? [];
  const [least, most] = [Math.min(...strips), Math.max(...strips)];
  return answer.strip_bounds.map(([top, bottom], at) => {
    const share = most > least ? ((strips[at] ?? least) - least) / (most - least) : 0;
    return { top: Number(top), bottom: Number(bottom), weight: share < 0.5 ? 0 : share * 0.5 };
  });
}
