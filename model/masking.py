"""What masked pre-training hides of an image and of a text, drawn anew every time a sample is read.

Images lose rectangles of patches, as in BEiT; texts lose word pieces, alone or by whole words, as in BERT. Nothing here
knows a network: masks in, masks out. The special pieces [CLS], [SEP] and padding are never hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MASK = 103  # [MASK] of the uncased BERT vocabulary
ASPECTS = (0.3, 1 / 0.3)
TRIES = 10  # rectangles that may fail to fit before an image is left as it is
SMALLEST = 16 / 75  # area of the smallest rectangle, as a share of all patches to hide: 16 of 75 on a 14 x 14 grid


def block_mask(grid: tuple[int, int], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(rows, columns) bool, True where hidden: random rectangles until ``count`` patches are hidden or none fits.

    A rectangle has between the smallest area and what is left to hide, and an aspect ratio log-uniform in 0.3..3.33.
    """
    rows, columns = grid
    hidden = np.zeros(grid, bool)
    smallest = max(1, round(SMALLEST * count))
    left = count
    while left > 0:
        for _ in range(TRIES):
            area = rng.uniform(min(smallest, left), max(smallest, left))
            aspect = np.exp(rng.uniform(*np.log(ASPECTS)))
            tall, wide = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if not (0 < tall <= rows and 0 < wide <= columns):
                continue
            top, at = int(rng.integers(rows - tall + 1)), int(rng.integers(columns - wide + 1))
            block = hidden[top : top + tall, at : at + wide]
            new = tall * wide - int(block.sum())
            if 0 < new <= left:
                block[:] = True
                left -= new
                break
        else:
            break
    return hidden


def image_masks(count: int, grid: tuple[int, int], share: float, rng: np.random.Generator) -> Tensor:
    """(count, rows * columns) bool: `block_mask` for so many images, about ``share`` of the patches of each hidden."""
    hide = int(share * grid[0] * grid[1])
    return torch.from_numpy(np.stack([block_mask(grid, hide, rng).ravel() for _ in range(count)]))


@dataclass(frozen=True)
class MaskedText:
    """ids: (B, T) what the net reads. hidden: (B, T) bool, True at the pieces it has to name, replaced or not."""

    ids: Tensor
    hidden: Tensor


def mask_text(
    ids: Tensor,
    mask: Tensor,
    share: float,
    vocabulary: int,
    rng: np.random.Generator,
    *,
    continues: Tensor | None = None,
) -> MaskedText:
    """Choose ``share`` of the pieces; of the chosen, 80 % become [MASK], 10 % a random piece, 10 % stay as they are.

    ids: (B, T) int64. mask: (B, T) bool, True where a piece may be chosen. continues: (vocabulary,) bool, True for
    pieces that go on with a word ("##s"); with it whole words are chosen, each with probability ``share``.
    """
    shape = tuple(ids.shape)
    chance = torch.from_numpy(rng.random(shape)).to(ids.device)  # (B, T)
    if continues is not None:
        word = word_numbers(ids, mask, continues)  # (B, T)
        chance = chance.gather(1, word)  # every piece of a word shares the draw of its number
    hidden = (chance < share) & mask
    fate = torch.from_numpy(rng.random(shape)).to(ids.device)
    random = torch.from_numpy(rng.integers(1, vocabulary, shape)).to(ids.device)
    replaced = torch.where(fate < 0.8, MASK, torch.where(fate < 0.9, random, ids))
    return MaskedText(torch.where(hidden, replaced, ids), hidden)


def word_numbers(ids: Tensor, mask: Tensor, continues: Tensor) -> Tensor:
    """(B, T) int64: which word of its text a piece belongs to, from 0; a word runs until the next piece that begins
    one. Where ``mask`` is False the number means nothing."""
    begins = mask & ~continues.to(ids.device)[ids]
    begins[:, 0] |= mask[:, 0]
    return (begins.cumsum(dim=1) - 1).clamp(min=0)
