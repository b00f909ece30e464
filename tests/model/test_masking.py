"""What is hidden of images and texts: by hand, against naive loops, and in the shares asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from model.masking import MASK, block_mask, image_masks, mask_text, word_numbers
from model.text import continuation_pieces


class Scripted:
    """Gives what a test wrote down: shares of the interval asked for, and corners."""

    def __init__(self, shares: list[float], corners: list[int]) -> None:
        self.shares, self.corners, self.asked = list(shares), list(corners), list[tuple[float, float]]()

    def uniform(self, low: float, high: float) -> float:
        self.asked.append((float(low), float(high)))
        return low + self.shares.pop(0) * (high - low)

    def integers(self, most: int) -> int:
        corner = self.corners.pop(0)
        assert corner < most
        return corner


def test_rectangles_are_drawn_as_written_down() -> None:
    """16 to 75 patches at first; then at most what is left. 0.5 is the aspect of a square."""
    shares = [0, 0.5, (36 - 16) / (59 - 16), 0.5, 1, 0.5, 0, 0.5, 0, 0.5]
    rng: Any = Scripted(shares, [0, 0, 2, 2, 8, 8, 13, 13, 0, 13])
    hidden = block_mask((14, 14), 75, rng)
    expected = np.zeros((14, 14), bool)
    expected[0:4, 0:4] = True  # 16, leaving 59
    expected[2:8, 2:8] = True  # 36 of which 4 were hidden, leaving 27
    expected[8:13, 8:13] = True  # 27 is nearest to a square of 5 x 5, leaving 2
    expected[13, 13] = expected[0, 13] = True
    assert np.array_equal(hidden, expected) and hidden.sum() == 75
    assert rng.asked[::2] == [(16, 75), (16, 59), (16, 27), (2, 16), (1, 16)]
    assert rng.asked[1] == pytest.approx((math.log(0.3), -math.log(0.3)))


def test_a_rectangle_larger_than_what_is_left_is_not_taken() -> None:
    class Always:
        def uniform(self, low: float, high: float) -> float:
            return 16 if low > 0 else 0.0  # a square of 4 x 4

        def integers(self, most: int) -> int:
            return 0

    rng: Any = Always()
    assert block_mask((14, 14), 15, rng).sum() == 0
    assert block_mask((14, 14), 40, rng).sum() == 16  # the second one hides nothing new, ten times over


@pytest.mark.parametrize(("grid", "share"), [((14, 14), 75.5 / 196), ((12, 4), 0.4), ((4, 2), 0.4), ((16, 8), 0.4)])
def test_about_the_share_is_hidden_and_never_more(grid: tuple[int, int], share: float) -> None:
    masks = image_masks(200, grid, share, np.random.default_rng(0))
    hidden = masks.sum(dim=1)
    most = int(share * grid[0] * grid[1])
    assert masks.shape == (200, grid[0] * grid[1]) and int(hidden.max()) == most
    assert hidden.float().mean() > 0.85 * most
    assert len(torch.unique(masks, dim=0)) > min(100, 2 * grid[0])  # drawn anew for every image
    again = image_masks(200, grid, share, np.random.default_rng(0))
    assert torch.equal(masks, again) and not torch.equal(masks, image_masks(200, grid, share, np.random.default_rng(1)))


def test_at_the_published_size_75_of_196_patches() -> None:
    hidden = image_masks(100, (14, 14), 75.5 / 196, np.random.default_rng(3)).sum(dim=1)
    assert int(hidden.max()) == 75 and hidden.float().mean() > 72


def make_text(rows: int = 40, length: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(7)
    lengths = torch.from_numpy(rng.integers(1, length + 1, rows))
    mask = torch.arange(length) < lengths[:, None]
    return torch.from_numpy(rng.integers(1000, 30522, (rows, length))) * mask, mask


@pytest.mark.parametrize("whole_words", [False, True])
def test_masking_equals_a_naive_double_loop(whole_words: bool) -> None:
    ids, mask = make_text()
    continues = continuation_pieces()
    table = continues if whole_words else None
    found = mask_text(ids, mask, 0.3, 30522, np.random.default_rng(5), continues=table)
    rng = np.random.default_rng(5)
    chance, fate = rng.random(ids.shape), rng.random(ids.shape)
    random = rng.integers(1, 30522, ids.shape)
    for row in range(len(ids)):
        word = -1
        for place in range(ids.shape[1]):
            piece = int(ids[row, place])
            if place == 0 or not continues[piece]:
                word += 1
            draw = chance[row, word if whole_words else place]
            hidden = bool(mask[row, place]) and draw < 0.3
            assert bool(found.hidden[row, place]) == hidden
            if not hidden:
                expected = piece
            elif fate[row, place] < 0.8:
                expected = MASK
            else:
                expected = int(random[row, place]) if fate[row, place] < 0.9 else piece
            assert int(found.ids[row, place]) == expected


def test_words_are_hidden_whole_or_not_at_all() -> None:
    continues = continuation_pieces()
    begin, go_on = (int(torch.nonzero(continues == what)[2000]) for what in (False, True))
    ids = torch.tensor([[begin, go_on, begin, begin, go_on, go_on, 0]]).repeat(500, 1)
    mask = ids != 0
    assert word_numbers(ids, mask, continues)[0, :6].tolist() == [0, 0, 1, 2, 2, 2]
    hidden = mask_text(ids, mask, 0.4, 30522, np.random.default_rng(0), continues=continues).hidden
    assert torch.equal(hidden[:, 0], hidden[:, 1]) and not hidden[:, 6].any()
    assert torch.equal(hidden[:, 3], hidden[:, 4]) and torch.equal(hidden[:, 4], hidden[:, 5])
    assert not torch.equal(hidden[:, 0], hidden[:, 2])
    assert hidden[:, :6].float().mean().item() == pytest.approx(0.4, abs=0.05)


def test_of_the_chosen_most_are_masked_some_random_and_some_kept() -> None:
    ids = torch.full((300, 100), 2000)
    masked = mask_text(ids, torch.ones_like(ids, dtype=torch.bool), 0.15, 30522, np.random.default_rng(1))
    chosen = masked.ids[masked.hidden]
    assert masked.hidden.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (chosen == MASK).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (chosen == 2000).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(masked.ids[~masked.hidden], ids[~masked.hidden])


def test_pieces_that_go_on_are_those_of_the_vocabulary() -> None:
    continues = continuation_pieces()
    assert len(continues) == 30522 and continues.dtype == torch.bool
    # Of the uncased BERT vocabulary: 2015 is "##s", 2075 "##ing"; 1996 is "the", 2158 "man", 103 "[MASK]".
    assert continues[[2015, 2075]].all() and not continues[[1996, 2158, 103]].any()
