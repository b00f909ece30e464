/** A button with a panel below it. Escape and a click elsewhere close it; the focus goes in, and back to the button. */

import { type ReactNode, useEffect, useId, useRef, useState } from "react";

interface Props {
  label: ReactNode;
  title: string; // what the panel is called
  className?: string;
  end?: boolean; // aligned with the end of the button
  children: ReactNode | ((close: () => void) => ReactNode);
  onOpen?: () => void;
}

export function Popover({ label, title, className = "button", end = false, children, onOpen }: Props) {
  const [open, setOpen] = useState(false);
  const anchor = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const panel = useRef<HTMLDivElement>(null);
  const id = useId();

  useEffect(() => {
    if (!open) return;
    panel.current?.querySelector<HTMLElement>("input, button, select, textarea, [tabindex]")?.focus();
    const outside = (event: PointerEvent) => {
      if (!anchor.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, [open]);

  const close = () => {
    setOpen(false);
    button.current?.focus();
  };

  return (
    <div
      className="anchor"
      ref={anchor}
      onKeyDown={(event) => {
        if (event.key === "Escape" && open) {
          event.stopPropagation();
          event.preventDefault();
          close();
        }
      }}
      onBlur={(event) => {
        if (event.relatedTarget && !anchor.current?.contains(event.relatedTarget as Node)) setOpen(false);
      }}
    >
      <button
        ref={button}
        type="button"
        className={className}
        aria-haspopup="dialog"
        aria-expanded={open}
        aria-controls={open ? id : undefined}
        onClick={() => {
          if (!open) onOpen?.();
          setOpen(!open);
        }}
      >
        {label}
      </button>
      {open && (
        <div ref={panel} id={id} className={end ? "popover end" : "popover"} role="dialog" aria-label={title}>
          {typeof children === "function" ? children(close) : children}
        </div>
      )}
    </div>
  );
}
