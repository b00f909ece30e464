/** What the same camera took before and after. */

import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { call, sentence } from "../api/client";
import type { Neighbours as Answer } from "../api/types";
import { formatRoute } from "../lib/route";
import { apart, longTime, plural } from "../lib/format";
import { Picture } from "../parts/Picture";
import { usePreferences } from "../settings";

const SPANS = [
  [60, "1 min"],
  [600, "10 min"],
  [3600, "1 h"],
  [43_200, "12 h"],
] as const;

export function Neighbours({ search, image }: { search: string; image: string }) {
  const { zone } = usePreferences();
  const [seconds, setSeconds] = useState<number>(3600);
  const self = useRef<HTMLLIElement>(null);
  const { data, error, isLoading } = useQuery({
    queryKey: ["neighbours", image, seconds],
    queryFn: () => call<Answer>(`/images/${image}/neighbours?seconds=${seconds}&limit=40`),
    staleTime: 60_000,
  });
  const before = data?.images.filter(({ seconds: away }) => away < 0) ?? [];
  const after = data?.images.filter(({ seconds: away }) => away >= 0) ?? [];
  useEffect(() => {
    const strip = self.current?.parentElement;
    if (strip && self.current) strip.scrollLeft = self.current.offsetLeft - strip.clientWidth / 2;
  }, [data]);
  const neighbour = ({ id, thumbnail, captured_at, seconds: away }: Answer["images"][number]) => (
    <li key={id}>
      <a href={formatRoute({ page: "search", search, image: id })} title={captured_at ? longTime(captured_at, zone) : ""}>
        <Picture src={thumbnail} gone="Not shown" lazy />
        <span className="tiny figures muted">{apart(away)}</span>
      </a>
    </li>
  );
  return (
    <section className="filmstrip" aria-label="Neighbours in time">
      <header className="row">
        <h3>Same camera, around this time</h3>
        <span className="segments" role="group" aria-label="How far around">
          {SPANS.map(([value, name]) => (
            <button key={value} type="button" aria-pressed={seconds === value} onClick={() => setSeconds(value)}>
              ± {name}
            </button>
          ))}
        </span>
        {data && <span className="small muted figures">{plural(data.images.length, "image")}{data.complete ? "" : ", the nearest of more"}</span>}
      </header>
      {isLoading && <p className="small muted">Looking …</p>}
      {error && <p className="small muted">{sentence(error)}</p>}
      {data?.images.length === 0 && <p className="small muted">This camera has no other image within that time.</p>}
      {data && data.images.length > 0 && (
        <ul tabIndex={0} aria-label="Images by time">
          {before.map(neighbour)}
          <li ref={self} className="self">
            <img src={`/api/v1/images/${image}/content?variant=thumb`} alt="" />
            <span className="tiny">this one</span>
          </li>
          {after.map(neighbour)}
        </ul>
      )}
    </section>
  );
}
