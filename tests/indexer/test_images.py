"""Which bytes become which pixels, which are refused with which sentence, and how originals are kept.

Pixels are compared with the arrays the files were made from; the files are made here, most with Pillow, the hostile
ones byte by byte.
"""

from __future__ import annotations

import errno
import hashlib
import io
import multiprocessing
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from indexer import errors, images
from indexer.images import BACKDROP, DEFAULT_LIMITS, MEDIA_TYPES, ImageStore, Limits, decode
from indexer.settings import GallerySettings


def pixels(height: int = 24, width: int = 16, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    """A gray PNG whose header says width x height, whatever its data says."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" * (width + 1) * min(height, 64)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + data + chunk(b"IEND", b"")


def save(folder: Path, data: bytes) -> images.StoredImage:
    return ImageStore(folder).save(data)


# --- what is accepted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_give_the_pixels_they_were_made_of(format: str, options: dict[str, Any]) -> None:
    expected = pixels()
    decoded = decode(encoded(Image.fromarray(expected), format, **options))
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), expected)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF"])
def test_other_formats_come_close(format: str) -> None:
    expected = np.full((32, 16, 3), (200, 40, 90), np.uint8)
    decoded = decode(encoded(Image.fromarray(expected), format))
    assert decoded.mode == "RGB"
    assert np.abs(np.asarray(decoded).astype(int) - expected).max() <= 8


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(format: str, byte_order: str) -> None:
    levels = np.array([0, 128, 129, 257, 1000, 25700, 32768, 65279, 65535], np.uint16).repeat(9).reshape(9, 9)
    image = Image.fromarray(levels.astype(byte_order + "u2"))
    decoded = np.asarray(decode(encoded(image, format)))
    expected = np.round(levels / 257).astype(np.uint8)  # 65535 = 255 * 257
    np.testing.assert_array_equal(decoded, np.stack([expected] * 3, axis=2))


def test_float_gray_is_stretched_between_its_ends() -> None:
    levels = np.linspace(-3.0, 7.0, 256, dtype=np.float32).reshape(16, 16)
    decoded = np.asarray(decode(encoded(Image.fromarray(levels), "TIFF")))[..., 0]
    np.testing.assert_array_equal(decoded.ravel(), np.arange(256))
    flat = np.full((16, 16), 5.0, np.float32)
    assert np.asarray(decode(encoded(Image.fromarray(flat), "TIFF"))).max() == 0
    with pytest.raises(errors.UnreadableImage, match="not numbers"):
        decode(encoded(Image.fromarray(np.full((16, 16), np.nan, np.float32)), "TIFF"))


def test_transparency_lies_on_neutral_gray() -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:, :8] = (250, 10, 20, 255)
    decoded = np.asarray(decode(encoded(Image.fromarray(rgba))))
    assert tuple(decoded[0, 0]) == (250, 10, 20)
    assert tuple(decoded[0, 15]) == BACKDROP
    gray_alpha = Image.merge("LA", [Image.new("L", (16, 16), 255), Image.new("L", (16, 16), 51)])  # a fifth of white
    expected = round(128 + (255 - 128) / 5)
    assert np.abs(np.asarray(decode(encoded(gray_alpha))).astype(int) - expected).max() <= 1


def test_palettes_with_and_without_transparency() -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([9, 9, 9, 30, 60, 90])
    image.paste(0, (0, 0, 8, 16))
    assert tuple(np.asarray(decode(encoded(image)))[0, 15]) == (30, 60, 90)
    decoded = np.asarray(decode(encoded(image, transparency=0)))
    assert tuple(decoded[0, 0]) == BACKDROP
    assert tuple(decoded[0, 15]) == (30, 60, 90)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_gray_becomes_rgb(mode: str) -> None:
    decoded = decode(encoded(Image.new(mode, (16, 16), 255)))
    assert decoded.mode == "RGB"
    assert decoded.getpixel((3, 3)) == (255, 255, 255)


def test_cmyk_jpeg() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    red, green, blue = np.asarray(decode(encoded(cyan, "JPEG", quality=95)))[8, 8]
    assert red < 30 and green > 200 and blue > 200


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    red, green, blue = np.asarray(decode(data))[8, 8]
    assert red > 240 and green < 16 and blue < 16


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(format: str, orientation: int, tmp_path: Path) -> None:
    upright = np.zeros((32, 16, 3), np.uint8)  # a red corner at the top left, a blue one at the top right
    upright[:8, :8] = (255, 0, 0)
    upright[:8, 8:] = (0, 0, 255)
    # What a camera stores for each orientation, in numpy's words: the inverse of what a viewer has to do.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    exact: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **exact.get(format, {}))
    decoded = np.asarray(decode(data)).astype(int)
    assert decoded.shape == upright.shape
    assert np.abs(decoded - upright).mean() < 4
    record = save(tmp_path, data)
    assert (record.width, record.height) == (16, 32), "the size is that of the upright image"


def test_damaged_exif_does_not_cost_the_image() -> None:
    data = encoded(Image.fromarray(pixels()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff")
    assert decode(data).size == (16, 24)


def test_multi_picture_jpeg_is_a_jpeg(tmp_path: Path) -> None:
    frames = [Image.fromarray(pixels(seed=seed)) for seed in range(2)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert save(tmp_path, data).format == "JPEG"


def test_large_images_are_reduced_once_decoded_and_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "DECODED_PIXELS", 10_000)
    data = encoded(Image.new("RGB", (100, 900), "red"))
    reduced = decode(data)
    assert reduced.width * reduced.height <= 10_000
    assert reduced.height / reduced.width == pytest.approx(9, rel=0.05)
    assert save(tmp_path, data).height == 900


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", sorted(MEDIA_TYPES))
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9])
def test_truncated_files_are_unreadable(format: str, keep: float) -> None:
    data = encoded(Image.fromarray(pixels(64, 64)), format)
    with pytest.raises(errors.UnreadableImage, match="cut short"):
        decode(data[: int(len(data) * keep)])


@pytest.mark.parametrize("format", sorted(MEDIA_TYPES))
def test_damage_anywhere_never_escapes_as_another_exception(format: str) -> None:
    data = bytearray(encoded(Image.fromarray(pixels(16, 16)), format))
    random = np.random.default_rng(7)
    outcomes, sentences = set(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(150):
            damaged = bytearray(data)
            for position in random.integers(0, len(data), 3):
                damaged[position] = random.integers(0, 256)
            try:
                outcomes.add(decode(bytes(damaged)).mode)
            except errors.GalleryError as error:
                outcomes.add(error.code)
                sentences.append(str(error))
    assert outcomes <= {"RGB", "unreadable_image", "unsupported_image", "image_too_large", "image_too_small"}
    assert "unreadable_image" in outcomes
    assert all(sentence.endswith(".") for sentence in sentences)


@pytest.mark.parametrize("data", [b"", b"hello, this is no image", b"\0" * 1000, b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_image_is_unreadable(data: bytes) -> None:
    with pytest.raises(errors.UnreadableImage):
        decode(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("HEIC or AVIF", b"\0\0\0\x20ftypavif" + bytes(64)),
        ("HEIC or AVIF", encoded(Image.new("RGB", (16, 16)), "AVIF")),
        ("JPEG 2000", encoded(Image.new("RGB", (16, 16)), "JPEG2000")),
        ("PDF", b"%PDF-1.7 ..."),
        ("SVG", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'),
        ("ICO", encoded(Image.new("RGB", (16, 16)), "ICO")),
        ("PNM", encoded(Image.new("RGB", (16, 16)), "PPM")),
        ("Photoshop", b"8BPS\0\1" + bytes(64)),
    ],
)
def test_other_formats_are_named_with_those_accepted(name: str, data: bytes) -> None:
    with pytest.raises(errors.UnsupportedImage) as refused:
        decode(data)
    assert str(refused.value) == f"{name} files are not accepted. Send JPEG, PNG, WebP, BMP, TIFF or GIF."


def test_a_pixel_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("a pixel was decoded"))
    with pytest.raises(errors.ImageTooLarge, match="40,000,000") as refused:
        decode(png(8000, 5001))
    assert "8000 x 5001" in str(refused.value)


@pytest.mark.parametrize("side", [12_000, 60_000])  # beyond Pillow's warning, and beyond its error
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_pillows_own_guards_speak_our_sentence(side: int, action: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        with pytest.raises(errors.ImageTooLarge, match="40,000,000"):
            decode(png(side, side))


def test_pixels_up_to_the_limit_are_accepted() -> None:
    data = encoded(Image.new("L", (50, 20)))
    assert decode(data, Limits(max_image_pixels=1000)).size == (50, 20)
    with pytest.raises(errors.ImageTooLarge, match="999"):
        decode(data, Limits(max_image_pixels=999))


def test_bytes_up_to_the_limit_are_accepted() -> None:
    data = encoded(Image.fromarray(pixels()))
    assert decode(data, Limits(max_image_bytes=len(data))).size == (16, 24)
    with pytest.raises(errors.ImageTooLarge, match=f"{len(data) - 1:,}"):
        decode(data, Limits(max_image_bytes=len(data) - 1))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_png_text_that_unpacks_without_end_is_too_large(kind: bytes) -> None:
    opening = {b"zTXt": b"note\0\0", b"iTXt": b"note\0\1\0\0\0", b"iCCP": b"note\0\0"}[kind]
    bomb = chunk(kind, opening + zlib.compress(bytes(8 * 2**20)))
    with pytest.raises(errors.ImageTooLarge, match="1,048,576"):
        decode(png(16, 16, bomb))


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_tiny_images_are_too_small(size: tuple[int, int]) -> None:
    with pytest.raises(errors.ImageTooSmall, match="at least 8"):
        decode(encoded(Image.new("RGB", size)))
    assert decode(encoded(Image.new("RGB", (8, 8)))).size == (8, 8)


def test_default_limits_are_those_of_the_settings() -> None:
    settings = GallerySettings()
    for name in Limits.__dataclass_fields__:
        assert getattr(DEFAULT_LIMITS, name) == getattr(settings, name)


# --- the store ---------------------------------------------------------------------------------------------------


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_originals_are_kept_byte_by_byte_under_their_hash(tmp_path: Path) -> None:
    store, data = ImageStore(tmp_path), encoded(Image.fromarray(pixels()), "JPEG")
    stored = store.save(data)
    name = hashlib.sha256(data).hexdigest()
    assert stored == images.StoredImage(name, 16, 24, "JPEG", len(data))
    assert files_below(tmp_path) == [f"{name[:2]}/{name[2:4]}/{name}"]
    assert store.path(name).read_bytes() == data
    np.testing.assert_array_equal(np.asarray(store.open(name)), np.asarray(decode(data)))
    assert store.save(data) == stored
    assert len(files_below(tmp_path)) == 1


def test_saving_again_repairs_a_damaged_file(tmp_path: Path) -> None:
    store, data = ImageStore(tmp_path), encoded(Image.fromarray(pixels()))
    path = store.path(store.save(data).sha256)
    path.write_bytes(data[:-1] + b"x")
    store.save(data)
    assert path.read_bytes() == data


def test_a_refused_image_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(errors.UnreadableImage):
        save(tmp_path, encoded(Image.fromarray(pixels()))[:100])
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    data = encoded(Image.fromarray(pixels()))
    store = ImageStore(tmp_path)
    (tmp_path / "incoming").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(step, full)
        with pytest.raises(errors.StorageFull, match="Free some space"):
            store.save(data)
    assert files_below(tmp_path) == []
    assert store.path(store.save(data).sha256).read_bytes() == data


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        steps.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    name = save(tmp_path, encoded(Image.fromarray(pixels()))).sha256
    at = steps.index("rename")
    assert len(steps[at - 1].removeprefix("sync ")) == 32, "the temporary file's content"
    assert steps[at + 1] == f"sync {name[2:4]}", "the folder that now has its name"


def _save_often(root: Path, data: bytes) -> None:
    for _ in range(20):
        ImageStore(root).save(data)


def test_many_processes_may_save_the_same_image(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(pixels()))
    processes = [
        multiprocessing.get_context("fork").Process(target=_save_often, args=(tmp_path, data)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    (name,) = files_below(tmp_path)
    assert (tmp_path / name).read_bytes() == data


def test_missing_and_damaged_files_are_told_apart(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    stored = store.save(encoded(Image.fromarray(pixels())))
    store.path(stored.sha256).write_bytes(b"damaged")
    with pytest.raises(errors.UnreadableImage):
        store.open(stored.sha256)
    store.path(stored.sha256).unlink()
    with pytest.raises(errors.NotFound, match="missing"):
        store.open(stored.sha256)


def test_limits_lowered_later_do_not_hide_stored_images(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    stored = store.save(encoded(Image.new("RGB", (4, 4))), Limits(min_image_side=1))
    assert store.open(stored.sha256).size == (4, 4)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "AB" * 32, "g" * 64, "a" * 63])
def test_only_a_hash_names_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="sha256"):
        ImageStore(tmp_path).path(name)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 512), (50, 256)), ((40, 60), (40, 60)), ((5000, 50), (1024, 10)), ((30, 3000), (3, 256))],
)
def test_thumbnails_keep_the_aspect_and_never_enlarge(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    store = ImageStore(tmp_path)
    stored = store.save(encoded(Image.new("RGB", size, "teal")))
    thumbnail = Image.open(io.BytesIO(store.thumbnail(stored.sha256)))
    assert thumbnail.format == "WEBP"
    assert thumbnail.size == expected


def test_thumbnails_are_cached_and_safe_to_remove(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    stored = store.save(encoded(Image.fromarray(pixels(600, 200))))
    first = store.thumbnail(stored.sha256)
    (cached,) = (tmp_path / "thumbnails").rglob("*.webp")
    cached.write_bytes(b"from the cache")
    assert store.thumbnail(stored.sha256) == b"from the cache"
    cached.unlink()
    assert store.thumbnail(stored.sha256) == first
    store.thumbnail(stored.sha256, height=64)
    store.remove(stored.sha256)
    assert files_below(tmp_path) == []
    store.remove(stored.sha256)
    with pytest.raises(errors.NotFound):
        store.thumbnail(stored.sha256)


def test_a_full_disk_does_not_hide_thumbnails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(tmp_path)
    stored = store.save(encoded(Image.fromarray(pixels())))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert Image.open(io.BytesIO(store.thumbnail(stored.sha256))).size == (16, 24)


def test_leftovers_of_killed_processes_are_swept(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    assert store.remove_leftovers() == 0
    old, young = tmp_path / "incoming" / "old", tmp_path / "incoming" / "young"
    old.parent.mkdir()
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert store.remove_leftovers() == 1
    assert files_below(tmp_path) == ["incoming/young"]
