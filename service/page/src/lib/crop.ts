/** The part of a picture that counts, in whole pixels of the upright picture. */

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

export const SIDE_MIN = 8; // pixels; the service refuses less

/** The rectangle between two corners, inside a picture of that size; null when it is too small to mean one. */
export function boxBetween(a: { x: number; y: number }, b: { x: number; y: number }, width: number, height: number): Box | null {
  const clamp = (value: number, most: number) => Math.min(most, Math.max(0, Math.round(value)));
  const left = clamp(Math.min(a.x, b.x), width);
  const top = clamp(Math.min(a.y, b.y), height);
  const box = { left, top, width: clamp(Math.max(a.x, b.x), width) - left, height: clamp(Math.max(a.y, b.y), height) - top };
  return box.width >= SIDE_MIN && box.height >= SIDE_MIN ? box : null;
}

/** Moved or resized by some pixels, without leaving the picture; how the keyboard works a crop. */
export function nudge(box: Box, by: { x: number; y: number }, resize: boolean, width: number, height: number): Box {
  if (resize) {
    return {
      ...box,
      width: Math.min(width - box.left, Math.max(SIDE_MIN, box.width + by.x)),
      height: Math.min(height - box.top, Math.max(SIDE_MIN, box.height + by.y)),
    };
  }
  return {
    ...box,
    left: Math.min(width - box.width, Math.max(0, box.left + by.x)),
    top: Math.min(height - box.height, Math.max(0, box.top + by.y)),
  };
}
