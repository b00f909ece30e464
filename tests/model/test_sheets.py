"""Sheets: where things stand, what their frames say, and that nothing runs over the edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from model.sheets import (
    FRAME,
    GAP,
    INK,
    MARGIN,
    MAT,
    PAPER,
    RESULT_CELL,
    RESULTS,
    RIGHT,
    WRONG,
    contact_sheet,
    result_sheet,
    save_png,
    some,
    wrap,
)

BLUE, GOLD = (20, 40, 200), (210, 170, 30)


def flat(color: tuple[int, int, int], size: tuple[int, int] = (32, 96)) -> Image.Image:
    return Image.new("RGB", size, color)


@pytest.fixture
def person(tmp_path: Path) -> Path:
    path = tmp_path / "person.png"
    flat(BLUE).save(path)
    return path


def assert_margins_are_empty(sheet: Image.Image) -> None:
    edge = MARGIN - 2  # a letter may lean a pixel over its place
    pixels = np.asarray(sheet).copy()
    pixels[edge:-edge, edge:-edge] = PAPER
    assert (pixels == PAPER).all()


def test_a_contact_sheet_is_a_grid(person: Path) -> None:
    sheet = contact_sheet([person, flat(GOLD), flat(GOLD)], columns=2, cell=(40, 90))
    assert sheet.size == (2 * 40 + GAP + 2 * MARGIN, 2 * 90 + GAP + 2 * MARGIN)
    assert sheet.getpixel((MARGIN + 20, MARGIN + 45)) == BLUE
    assert sheet.getpixel((MARGIN + 40 + GAP + 20, MARGIN + 45)) == GOLD
    assert sheet.getpixel((MARGIN + 20, MARGIN + 90 + GAP + 45)) == GOLD
    assert sheet.getpixel((MARGIN + 40 + GAP + 20, MARGIN + 90 + GAP + 45)) == PAPER  # no fourth image
    assert sheet.getpixel((MARGIN, MARGIN + 45)) == MAT  # 32x96 fits 40x90 as 30x90: nothing is cut or stretched


def test_labels_stand_below_and_stay_in_their_cells() -> None:
    plain = contact_sheet([flat(BLUE), flat(GOLD)], columns=2, cell=(40, 90))
    labelled = contact_sheet([flat(BLUE), flat(GOLD)], columns=2, cell=(40, 90), labels=["a very long label", "W" * 30])
    assert labelled.width == plain.width and labelled.height > plain.height
    below = np.asarray(labelled)[MARGIN + 90 :]
    assert (below == INK).all(axis=2).any()
    gap = below[:, MARGIN + 40 + 1 : MARGIN + 40 + GAP - 1]
    assert (gap == PAPER).all()
    assert_margins_are_empty(labelled)


def test_frames_and_marks_tell_right_from_wrong(person: Path) -> None:
    sheet = result_sheet([("a man", [(person, True), (person, False)])])
    assert sheet.width == RESULTS * (RESULT_CELL[0] + GAP) - GAP + 2 * MARGIN
    pixels = np.asarray(sheet)
    bottom = sheet.height - MARGIN  # below the marks of the only row
    for place, color in enumerate([RIGHT, WRONG]):
        left = MARGIN + place * (RESULT_CELL[0] + GAP)
        column = (pixels[:, left + FRAME // 2] == color).all(axis=1)
        assert column.sum() == RESULT_CELL[1]
        top = int(column.argmax())
        assert sheet.getpixel((left + RESULT_CELL[0] // 2, top + FRAME // 2)) == color
        assert sheet.getpixel((left + RESULT_CELL[0] // 2, top + RESULT_CELL[1] // 2)) == BLUE
    marks = [
        (pixels[top + RESULT_CELL[1] : bottom, left : left + RESULT_CELL[0]] == color).all(axis=2)[:, 20:]
        for left, color in ((MARGIN, RIGHT), (MARGIN + RESULT_CELL[0] + GAP, WRONG))
    ]
    assert marks[0].any() and marks[1].any()
    assert (marks[0] != marks[1]).any()  # the shapes differ, not only the colours
    third = pixels[top:bottom, MARGIN + 2 * (RESULT_CELL[0] + GAP) :]
    assert (third == PAPER).all()


def test_only_ten_results_are_drawn_and_long_captions_stay_inside(person: Path) -> None:
    results = [(person, False)] * 25
    short = result_sheet([("a man", results)])
    long = result_sheet([("a man in a long coat " * 20 + "x" * 400, results)])
    assert long.width == short.width and long.height > short.height
    assert_margins_are_empty(short)
    assert_margins_are_empty(long)


def test_wrapped_lines_fit_and_lose_nothing() -> None:
    font = ImageFont.load_default(16)
    text = "two women " * 9 + "m" * 70 + " end"
    lines = wrap(text, font, 120)
    assert max(font.getlength(line) for line in lines) <= 120
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap("one line", font, 500) == ["one line"]


def test_the_same_input_gives_the_same_bytes(person: Path, tmp_path: Path) -> None:
    for name in ("deep/er/a.png", "b.png"):
        save_png(result_sheet([("a man", [(person, True)] * 3)]), tmp_path / name)
    assert (tmp_path / "deep/er/a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    chosen = some(range(1000), 60)
    assert chosen == some(range(1000), 60) == sorted(set(chosen)) and len(chosen) == 60
    assert some("abc", 60) == ["a", "b", "c"]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([], columns=3)
    with pytest.raises(ValueError, match="1 images and 2 labels"):
        contact_sheet([flat(BLUE)], columns=3, labels=["a", "b"])
    with pytest.raises(ValueError, match="at least one query"):
        result_sheet([])
