"""Pictures of many pictures: a contact sheet of a set, and some queries with their first results, right or wrong.

Plain drawing with Pillow and its built-in font: the same input gives the same pixels. Ranking happens elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont, ImageOps

T = TypeVar("T")
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

PAPER, INK, MAT = (255, 255, 255), (30, 30, 30), (236, 236, 236)
RIGHT, WRONG = (0, 135, 70), (205, 35, 35)
MARGIN, GAP, FRAME = 12, 6, 4  # pixels: around the sheet, between cells, of a frame
RESULTS = 10
RESULT_CELL = (80, 224)  # a picture in its frame, 1:3 inside; the mark stands below
_MARK_ROW = 22
_LABEL_SIZE, _QUERY_SIZE = 12, 16
_LINE = 1.3  # line height by font size


def contact_sheet(
    images: Sequence[Image.Image | Path],
    columns: int,
    cell: tuple[int, int] = (84, 252),
    labels: Sequence[str] | None = None,
) -> Image.Image:
    """Images in rows of ``columns``, each scaled to fit a cell (width, height) in pixels, with its label below.

    Raises:
        ValueError: there are no images, no columns, or not one label for each image.
    """
    if not images or columns < 1:
        raise ValueError("A contact sheet needs at least one image and one column.")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"There are {len(images)} images and {len(labels)} labels; give one for each.")
    font = ImageFont.load_default(_LABEL_SIZE)
    texts = ["\n".join(wrap(label, font, cell[0])) for label in labels or ()]
    below = max((_height(text, _LABEL_SIZE) for text in texts), default=0)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet, draw = _paper(columns * (cell[0] + GAP) - GAP, rows * (cell[1] + below + GAP) - GAP)
    for n, image in enumerate(images):
        x = MARGIN + n % columns * (cell[0] + GAP)
        y = MARGIN + n // columns * (cell[1] + below + GAP)
        sheet.paste(_fitted(image, cell), (x, y))
        if texts:
            _write(draw, (x, y + cell[1]), texts[n], font, _LABEL_SIZE)
    return sheet


def result_sheet(queries: Sequence[tuple[str, list[tuple[Path, bool]]]]) -> Image.Image:
    """Each query's text above its first ten results: (image, whether it is right), best first.

    Right results have a green frame and a tick, wrong ones a red frame and a cross, so that colour is not needed.

    Raises:
        ValueError: there are no queries.
    """
    if not queries:
        raise ValueError("A sheet of results needs at least one query.")
    width = RESULTS * (RESULT_CELL[0] + GAP) - GAP
    font = ImageFont.load_default(_QUERY_SIZE)
    texts = ["\n".join(wrap(text, font, width)) for text, _ in queries]
    heights = [_height(text, _QUERY_SIZE) + RESULT_CELL[1] + _MARK_ROW for text in texts]
    between = 2 * MARGIN
    sheet, draw = _paper(width, sum(heights) + between * (len(queries) - 1))
    y = MARGIN
    for text, height, (_, results) in zip(texts, heights, queries, strict=True):
        _write(draw, (MARGIN, y), text, font, _QUERY_SIZE)
        top = y + _height(text, _QUERY_SIZE)
        for rank, (path, right) in enumerate(results[:RESULTS], 1):
            _result(sheet, draw, (MARGIN + (rank - 1) * (RESULT_CELL[0] + GAP), top), path, right, rank)
        y += height + between
    return sheet


def some(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the items, in their order: the same ones each time, without the rhythm of every n-th."""
    chosen = random.Random(0).sample(range(len(items)), min(count, len(items)))
    return [items[n] for n in sorted(chosen)]


def save_png(sheet: Image.Image, path: Path | str) -> None:
    """Write a sheet as PNG whatever its name ends in, making the folder it goes to."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG", optimize=True)


def wrap(text: str, font: Font, width: int) -> list[str]:
    """Lines no wider than ``width`` pixels; a word that is wider itself is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _paper(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), PAPER)
    return sheet, ImageDraw.Draw(sheet)


def _fitted(image: Image.Image | Path, size: tuple[int, int]) -> Image.Image:
    """The whole image at the given size, upright, on a mat where its shape differs."""
    if isinstance(image, Path):
        with Image.open(image) as opened:
            return _fitted(ImageOps.exif_transpose(opened), size)
    return ImageOps.pad(image.convert("RGB"), size, Image.Resampling.LANCZOS, color=MAT)


def _height(text: str, size: int) -> int:
    return round(_LINE * size) * (text.count("\n") + 1) + 4


def _write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, font: Font, size: int) -> None:
    for n, line in enumerate(text.split("\n")):
        draw.text((corner[0], corner[1] + n * round(_LINE * size)), line, INK, font)


def _result(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], path: Path, right: bool, rank: int
) -> None:
    """One framed picture with its rank and mark below."""
    (x, y), (width, height) = corner, RESULT_CELL
    color = RIGHT if right else WRONG
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    sheet.paste(_fitted(path, (width - 2 * FRAME, height - 2 * FRAME)), (x + FRAME, y + FRAME))
    draw.text((x + 2, y + height + 3), str(rank), INK, ImageFont.load_default(_LABEL_SIZE))
    left, top = x + width // 2 - 7, y + height + 4
    strokes = [((0, 7), (5, 12), (14, 1))] if right else [((1, 0), (13, 12)), ((1, 12), (13, 0))]
    for stroke in strokes:
        draw.line([(left + a, top + b) for a, b in stroke], color, width=3, joint="curve")
