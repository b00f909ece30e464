/** A picture of one's own, looked at before it is sent: is it one, how large is it. */

import type { Picture } from "../lib/question";

const MAX = 20 * 1024 * 1024;

/** The picture, or why it is none. */
export async function pictureFrom(file: File): Promise<Picture | string> {
  if (file.size > MAX) return "This picture is larger than 20 MiB. Make it smaller, or cut the person out.";
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    return { kind: "file", file, url, width: image.naturalWidth, height: image.naturalHeight, crop: null };
  } catch {
    URL.revokeObjectURL(url);
    return `${file.name} cannot be read as a picture here. JPEG, PNG, WebP, BMP and GIF are.`;
  }
}
