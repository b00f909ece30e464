/** Choose the part of a picture that counts: drag a frame, or move it with the arrow keys (with Shift: its size). */

import { useRef, useState } from "react";
import { type Box, boxBetween, nudge } from "../lib/crop";
import type { Picture } from "../lib/question";
import { Dialog } from "../parts/Dialog";

interface Props {
  picture: Exclude<Picture, { kind: "gone" }>;
  onCrop: (crop: Box | null) => void;
  onClose: () => void;
}

export function CropDialog({ picture, onCrop, onClose }: Props) {
  const image = useRef<HTMLImageElement>(null);
  const start = useRef<{ x: number; y: number }>(null);
  const [crop, setCrop] = useState<Box | null>(picture.crop);
  const [size, setSize] = useState({ width: 0, height: 0 });

  /** From the screen to pixels of the picture. */
  const at = (event: React.PointerEvent) => {
    const shown = image.current?.getBoundingClientRect();
    if (!shown) return { x: 0, y: 0 };
    return {
      x: ((event.clientX - shown.left) / shown.width) * size.width,
      y: ((event.clientY - shown.top) / shown.height) * size.height,
    };
  };
  const share = (value: number, whole: number) => `${(100 * value) / Math.max(1, whole)}%`;

  return (
    <Dialog title="Which part counts?" onClose={onClose} className="crop-dialog">
      <p className="small muted">Draw a frame around the person. The arrow keys move it, with Shift they change its size.</p>
      <div
        className="crop"
        role="application"
        aria-label="Frame around the person"
        tabIndex={0}
        onPointerDown={(event) => {
          event.preventDefault();
          event.currentTarget.setPointerCapture(event.pointerId);
          start.current = at(event);
        }}
        onPointerMove={(event) => {
          if (start.current) setCrop(boxBetween(start.current, at(event), size.width, size.height));
        }}
        onPointerUp={() => (start.current = null)}
        onKeyDown={(event) => {
          const steps: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
          const step = steps[event.key];
          if (!step) return;
          event.preventDefault();
          const { width, height } = size;
          const box = crop ?? { left: 0, top: 0, width, height };
          const by = { x: step[0] * Math.max(1, Math.round(width / 50)), y: step[1] * Math.max(1, Math.round(height / 50)) };
          setCrop(nudge(box, by, event.shiftKey, width, height));
        }}
      >
        <img
          ref={image}
          src={picture.kind === "file" ? picture.url : `/api/v1/images/${picture.image}/content`}
          alt=""
          draggable={false}
          onLoad={(event) => setSize({ width: event.currentTarget.naturalWidth, height: event.currentTarget.naturalHeight })}
        />
        {crop && size.width > 0 && (
          <div
            className="frame"
            style={{
              left: share(crop.left, size.width),
              top: share(crop.top, size.height),
              width: share(crop.width, size.width),
              height: share(crop.height, size.height),
            }}
          />
        )}
      </div>
      <p className="small muted figures" role="status">
        {crop ? `${crop.width} × ${crop.height} of ${size.width} × ${size.height} pixels` : "The whole picture"}
      </p>
      <footer>
        <button type="button" className="button" onClick={() => setCrop(null)} disabled={!crop}>
          Whole picture
        </button>
        <button type="button" className="button" onClick={onClose}>
          Cancel
        </button>
        <button type="button" className="button primary" onClick={() => onCrop(crop)}>
          Use this part
        </button>
      </footer>
    </Dialog>
  );
}
