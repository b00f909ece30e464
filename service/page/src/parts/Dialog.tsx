/** The browser's own modal dialog: it keeps the focus inside, closes on Escape and gives the focus back. */

import { type ReactNode, useEffect, useRef } from "react";

interface Props {
  title: string;
  className?: string;
  bare?: boolean; // the content brings its own heading, `title` is for screen readers
  onClose: () => void;
  children: ReactNode;
}

export function Dialog({ title, className, bare = false, onClose, children }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);

  useEffect(() => {
    const element = dialog.current;
    const back = document.activeElement;
    if (element && !element.open) element.showModal();
    return () => {
      element?.close();
      if (back instanceof HTMLElement && back.isConnected) back.focus();
    };
  }, []);

  return (
    <dialog
      ref={dialog}
      className={className}
      aria-label={title}
      onCancel={(event) => {
        event.preventDefault(); // who opened it closes it
        if (event.target === dialog.current) onClose();
      }}
      onPointerDown={(event) => {
        if (event.target === dialog.current) onClose(); // the backdrop
      }}
    >
      {bare ? (
        children
      ) : (
        <div className="dialog">
          <h2>{title}</h2>
          {children}
        </div>
      )}
    </dialog>
  );
}
