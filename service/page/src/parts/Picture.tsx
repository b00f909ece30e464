import { type ReactNode, useEffect, useState } from "react";

const PAUSES = [1, 3, 9]; // seconds; a service that is asked for too much at once says no for a moment

/** A thumbnail that is asked for again when it does not come, and `gone` in its place when it never does. */
export function Picture({ src, gone, lazy = false }: { src: string; gone: ReactNode; lazy?: boolean }) {
  const [tries, setTries] = useState(0);
  const [waiting, setWaiting] = useState(false);
  useEffect(() => {
    if (!waiting) return;
    const timer = setTimeout(() => {
      setTries((before) => before + 1);
      setWaiting(false);
    }, 1000 * (PAUSES[tries] ?? 0));
    return () => clearTimeout(timer);
  }, [waiting, tries]);
  if (waiting) return null;
  if (tries > PAUSES.length) return gone;
  return (
    <img
      key={tries}
      src={src}
      alt=""
      decoding="async"
      loading={lazy ? "lazy" : undefined}
      draggable={false}
      onError={() => (tries < PAUSES.length ? setWaiting(true) : setTries(tries + 1))}
    />
  );
}
