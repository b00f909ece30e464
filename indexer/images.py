"""Image files: what the gallery accepts, how bytes become an upright RGB image, and where the originals are kept.

`decode` is the one way from bytes to pixels: intake, queries and the worker all use it. `ImageStore` keeps the original
bytes under their sha256. Nothing here knows the database, and nothing here resizes for a network.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageFile

from indexer.errors import (
    GalleryError,
    ImageTooLarge,
    ImageTooSmall,
    InvalidCrop,
    NotFound,
    StorageFull,
    UnreadableImage,
    UnsupportedImage,
)

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "GIF": "image/gif",
}
THUMBNAIL_MEDIA_TYPE = "image/webp"
ACCEPTED = "JPEG, PNG, WebP, BMP, TIFF or GIF"
DECODED_PIXELS = 4_000_000  # larger images are reduced once decoded: 64 of them must fit into a worker's memory
BACKDROP = (128, 128, 128)  # behind transparent pixels: mid-gray pulls an embedding less than white or black would

# Openings of files that are images, or are taken for images, but not of an accepted format.
FOREIGN = {
    "HEIC or AVIF": re.compile(rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1|avif|avis)", re.DOTALL),
    "JPEG 2000": re.compile(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"),
    "JPEG XL": re.compile(rb"\x00\x00\x00\x0cJXL |\xff\x0a"),
    "Photoshop": re.compile(rb"8BPS"),
    "ICO": re.compile(rb"\x00\x00[\x01\x02]\x00"),
    "PNM": re.compile(rb"P[1-7]\s"),
    "PDF": re.compile(rb"%PDF"),
    "SVG": re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", re.DOTALL),
}

_TRANSPOSE = {  # EXIF orientation -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_INCOMING = "incoming"
_THUMBNAILS = "thumbnails"


class ImageLimits(Protocol):
    """What an image may measure. `GallerySettings` is one."""

    @property
    def max_image_bytes(self) -> int: ...
    @property
    def max_image_pixels(self) -> int: ...
    @property
    def min_image_side(self) -> int: ...


@dataclass(frozen=True)
class Limits:
    """Image limits on their own, with the defaults of `GallerySettings`."""

    max_image_bytes: int = 20 * 2**20
    max_image_pixels: int = 40_000_000
    min_image_side: int = 8


DEFAULT_LIMITS: ImageLimits = Limits()
# A stored image passed the limits of its day; a limit lowered later must not hide it.
_STORED_LIMITS: ImageLimits = Limits(max_image_bytes=2**62, max_image_pixels=2**62, min_image_side=1)


@dataclass(frozen=True)
class StoredImage:
    """An original in the store. `width` and `height` are those of the upright image, in pixels."""

    sha256: str
    width: int
    height: int
    format: str  # a key of MEDIA_TYPES
    byte_size: int


@dataclass(frozen=True)
class Crop:
    """A part of an image, in pixels of the upright one at its full size."""

    left: int
    top: int
    width: int
    height: int


# --- bytes -> pixels ---------------------------------------------------------------------------------------------


def decode(source: bytes | Path, limits: ImageLimits = DEFAULT_LIMITS, crop: Crop | None = None) -> Image.Image:
    """Bytes or a file -> upright RGB image, fully decoded, reduced to DECODED_PIXELS; of an animation, the first frame.

    With `crop` only that part of it. Raises ImageTooLarge, ImageTooSmall, UnsupportedImage, UnreadableImage or, for a
    crop, InvalidCrop, and nothing else, whatever the bytes are.
    """
    image, _ = _decode(source, limits)
    return _reduced(image if crop is None else _cropped(image, crop))


def _cropped(image: Image.Image, crop: Crop) -> Image.Image:
    right, bottom = crop.left + crop.width, crop.top + crop.height
    if min(crop.left, crop.top) < 0 or min(crop.width, crop.height) < 1 or right > image.width or bottom > image.height:
        raise InvalidCrop(
            f"The crop reaches to {right} x {bottom}, but the upright image has {image.width} x {image.height} pixels. "
            "Keep it inside the image."
        )
    return image.crop((crop.left, crop.top, right, bottom))


def _decode(source: bytes | Path, limits: ImageLimits) -> tuple[Image.Image, str]:
    """The image at its full size, and its format, a key of MEDIA_TYPES."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > limits.max_image_bytes:
        raise ImageTooLarge(
            f"The image file has {size:,} bytes; at most {limits.max_image_bytes:,} are accepted. "
            "Send the crop of the person, not the whole recording."
        )
    if size == 0:
        raise UnreadableImage("The image file is empty. Send it again.")
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=list(MEDIA_TYPES)) as opened:
            _check_size(opened.size, limits)  # from the header, before any pixel is decoded
            opened.load()
            _check_size(opened.size, limits)
            format = "JPEG" if opened.format == "MPO" else str(opened.format)
            return _upright(_rgb(opened), opened), format
    except GalleryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(_too_many_pixels(limits)) from error
    except Exception as error:  # decoders answer hostile bytes with almost any exception; all of them mean the same
        raise _refusal(data, error) from error


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_image_pixels:
        raise ImageTooLarge(f"The image has {width} x {height} pixels. {_too_many_pixels(limits)}")
    if min(width, height) < limits.min_image_side:
        raise ImageTooSmall(
            f"The image has {width} x {height} pixels; each side needs at least {limits.min_image_side}. "
            "Send a larger crop."
        )


def _too_many_pixels(limits: ImageLimits) -> str:
    most = min(limits.max_image_pixels, 2 * (Image.MAX_IMAGE_PIXELS or 2**62))
    return f"At most {most:,} pixels are accepted; send a smaller image."


def _refusal(data: bytes, error: Exception) -> GalleryError:
    """The sentence for bytes that did not decode."""
    if "MAX_TEXT" in str(error):  # Pillow's guard against compressed text and profiles that unpack without end
        return ImageTooLarge(
            f"The text stored inside the PNG unpacks to more than {ImageFile.SAFEBLOCK:,} bytes. "
            "Save the image without its metadata and send it again."
        )
    for name, opening in FOREIGN.items():
        if opening.match(data[:512]):
            return UnsupportedImage(f"{name} files are not accepted. Send {ACCEPTED}.")
    return UnreadableImage(f"The file cannot be read as an image: it is damaged, cut short, or not {ACCEPTED}.")


def _rgb(image: Image.Image) -> Image.Image:
    """Any decoded mode -> 8-bit RGB."""
    mode = image.mode
    if mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint32)  # (H, W), 0..65535
        gray = ((levels * 255 + 32767) // 65535).astype(np.uint8)  # scaled, where Pillow's own conversion clips
        return Image.fromarray(gray).convert("RGB")
    if mode in ("I", "F"):
        return _stretched(np.asarray(image, dtype=np.float64)).convert("RGB")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        backdrop = Image.new("RGBA", layer.size, (*BACKDROP, 255))
        return Image.alpha_composite(backdrop, layer).convert("RGB")
    if mode == "LAB":
        raise UnsupportedImage("Images in the Lab colour space are not accepted. Save it as RGB and send it again.")
    return image.convert("RGB")


def _stretched(levels: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image.Image:
    """(H, W) levels without a white point of their own, so that the darkest becomes 0 and the lightest 255."""
    if not np.isfinite(levels).all():
        raise UnreadableImage("The image holds values that are not numbers. Save it with 8 bits a channel.")
    low, high = levels.min(), levels.max()
    scaled = (levels - low) * (255.0 / (high - low)) if high > low else np.zeros_like(levels)
    return Image.fromarray(scaled.round().astype(np.uint8))


def _upright(rgb: Image.Image, opened: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. TIFF files were already turned by Pillow, which then drops the tag."""
    try:
        orientation = opened.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF beside sound pixels: the pixels stand as they are, as every viewer shows them
        orientation = 1
    turn = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return rgb if turn is None else rgb.transpose(turn)


def _reduced(image: Image.Image) -> Image.Image:
    pixels = image.width * image.height
    if pixels <= DECODED_PIXELS:
        return image
    scale = (DECODED_PIXELS / pixels) ** 0.5
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


# --- the store ---------------------------------------------------------------------------------------------------


class ImageStore:
    """Original image files under their sha256: `root/ab/cd/abcd…`; thumbnails apart, under `root/thumbnails`.

    Safe for many processes at once: a file appears whole or not at all, and the same bytes land on the same path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where the original lies, whether it exists or not."""
        return self.root / _folders(sha256) / sha256

    def save(self, data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> StoredImage:
        """Keep an image. Saving the same bytes again changes nothing, except that it repairs a damaged file.

        Raises what `decode` raises, and StorageFull; then nothing is left behind.
        """
        image, format = _decode(data, limits)
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        if not _holds(path, data):
            self._write(path, data)
        return StoredImage(sha256, image.width, image.height, format, len(data))

    def open(self, sha256: str, crop: Crop | None = None) -> Image.Image:
        """The stored image, upright and RGB, or a part of it.

        Raises NotFound when its file is gone, UnreadableImage when damaged, InvalidCrop for a part that is not inside.
        """
        try:
            return decode(self.path(sha256), _STORED_LIMITS, crop)
        except FileNotFoundError as error:
            raise NotFound("The image's file is missing from the store. Send the image again.") from error

    def thumbnail(self, sha256: str, height: int = 256) -> bytes:
        """A WebP at most `height` high and 4 x `height` wide, aspect kept, never enlarged. Made once, then read.

        Raises what `open` raises. Removing the cache is always safe.
        """
        cached = self.root / _THUMBNAILS / _folders(sha256) / f"{sha256}-{height}.webp"
        with suppress(FileNotFoundError):
            return cached.read_bytes()
        image = self.open(sha256)
        image.thumbnail((4 * height, height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=85, method=4)
        with suppress(StorageFull):  # a full disk must not keep anybody from seeing an image
            self._write(cached, buffer.getvalue())
        return buffer.getvalue()

    def remove(self, sha256: str) -> None:
        """Remove the original and its thumbnails; what is already gone stays gone."""
        files = self.files_of(sha256)
        for file in files:
            file.unlink(missing_ok=True)
        for folder in {file.parent for file in files}:
            _sync_folder(folder)

    def files_of(self, sha256: str) -> list[Path]:
        """What there is of one image: its thumbnails and its original."""
        thumbnails = (self.root / _THUMBNAILS / _folders(sha256)).glob(f"{sha256}-*")
        return [file for file in (*thumbnails, self.path(sha256)) if file.exists()]

    def files(self) -> Iterator[Path]:
        """Every original and every thumbnail, in no order; a name begins with the sha256."""
        for root in (self.root, self.root / _THUMBNAILS):
            for folder in sorted(root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]")):
                yield from folder.iterdir()

    def adopt(self, sha256: str, source: Path) -> None:
        """Keep the file of a backup. Raises `UnreadableImage` if its bytes are not those of its name, StorageFull."""
        data = source.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UnreadableImage(f"The file {source} is damaged. Take another backup.")
        if not _holds(self.path(sha256), data):
            self._write(self.path(sha256), data)

    def remove_leftovers(self, older_than_seconds: float = 3600.0) -> int:
        """Remove what a process killed in mid-write left behind; returns how many files."""
        incoming, removed = self.root / _INCOMING, 0
        for file in incoming.iterdir() if incoming.exists() else ():
            with suppress(FileNotFoundError):  # another process sweeps too
                if time.time() - file.stat().st_mtime > older_than_seconds:
                    file.unlink()
                    removed += 1
        return removed

    def _write(self, path: Path, data: bytes) -> None:
        """Temporary file, fsync, rename, fsync of the folder: after a power cut the file is whole or absent."""
        temporary = self.root / _INCOMING / uuid.uuid4().hex
        try:
            _make_folder(temporary.parent)
            _make_folder(path.parent)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno in _NO_SPACE:
                raise StorageFull("The disk of the image store is full. Free some space and send it again.") from error
            raise


def _folders(sha256: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"not a sha256 in hexadecimal: {sha256!r}")
    return Path(sha256[:2], sha256[2:4])


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _make_folder(folder: Path) -> None:
    """Create a folder and those above it, each one's entry on disk before anything is put inside."""
    if folder.exists():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
