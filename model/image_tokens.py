"""What a hidden image patch is to be named: its code in a codebook that stands still, or one learned on the way.

FLAVA names patches by the codes of DALL-E's dVAE, whose weights a person must supply. Without them mini-batch k-means
(Sculley, 2010) over patch pixels makes a codebook of our own, or the net paints the normalised pixels themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.distributed import all_rows

CODE_PIXELS = 8  # side of the square that one code of the dVAE stands for
LOGIT_LAPLACE = 0.1  # the dVAE reads 0..1 squeezed into 0.1..0.9


def patch_pixels(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) -> (B, rows * columns, 3 * p * q): the pixels of every patch, channel by channel."""
    batch, channels, height, width = images.shape
    p, q = height // grid[0], width // grid[1]
    cut = images.reshape(batch, channels, grid[0], p, grid[1], q).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(batch, grid[0] * grid[1], channels * p * q)


def normalized_pixels(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """`patch_pixels` with mean 0 and variance 1 in every patch, as masked autoencoders paint them."""
    pixels = patch_pixels(images.float(), grid)
    variance, mean = torch.var_mean(pixels, dim=2, keepdim=True, correction=0)
    return (pixels - mean) / (variance + 1e-6).sqrt()


class PatchCodebook(nn.Module):
    """k-means over patches shrunk to 4 x 4 pixels: ``codes`` names them, ``learn`` moves the centres a little.

    The centres start as patches of the first batch; each then is the mean of all patches it ever won, so that it moves
    less and less.
    """

    side = 4

    def __init__(self, size: int) -> None:
        super().__init__()
        self.centres: Tensor
        self.counts: Tensor
        self.register_buffer("centres", torch.zeros(size, 3 * self.side**2))
        self.register_buffer("counts", torch.zeros(size))

    def codes(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 3, H, W) -> (B, rows * columns) int64 in 0..size-1."""
        shrunk = self._shrunk(images, grid)
        return self._nearest(shrunk.flatten(0, 1)).view(shrunk.shape[:2])

    @torch.no_grad()
    def learn(self, images: Tensor, grid: tuple[int, int]) -> None:
        """One step of mini-batch k-means with the patches of all processes."""
        patches = all_rows(self._shrunk(images, grid)).flatten(0, 1)  # (P, 48)
        if not self.counts.any():
            chosen = torch.randint(len(patches), (len(self.centres),))
            self.centres.copy_(patches[chosen.to(patches.device)])
        nearest = self._nearest(patches)
        won = torch.zeros_like(self.counts).index_add_(0, nearest, torch.ones_like(patches[:, 0]))
        total = torch.zeros_like(self.centres).index_add_(0, nearest, patches)
        self.counts += won
        self.centres += (total - won[:, None] * self.centres) / self.counts.clamp(min=1)[:, None]

    def _shrunk(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        small = F.adaptive_avg_pool2d(images.float(), (grid[0] * self.side, grid[1] * self.side))
        return patch_pixels(small, grid)  # (B, rows * columns, 48)

    def _nearest(self, patches: Tensor) -> Tensor:
        """(P, 48) -> (P,) the centre at the smallest distance; |patch|^2 is the same for all of them."""
        return torch.addmm(self.centres.square().sum(dim=1), patches, self.centres.T, alpha=-2).argmin(dim=1)


class DVAE:
    """The frozen image codebook of FLAVA in a local folder, through transformers. It is no part of any checkpoint."""

    def __init__(self, folder: Path | str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """mean, std: what the images were normalised with; the codebook reads plain RGB. Raises ValueError."""
        from transformers import FlavaImageCodebook

        if not (Path(folder) / "config.json").is_file():
            raise ValueError(
                f"There is no image codebook in {folder}. Set net_config.codebook to a local folder with FLAVA's (or "
                f"DALL-E's) dVAE encoder, or net_config.image_target to kmeans or pixels, which need none."
            )
        self.net: Any = FlavaImageCodebook.from_pretrained(folder, local_files_only=True).eval().requires_grad_(False)
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    @torch.no_grad()
    def codes(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Normalised (B, 3, H, W) -> (B, rows * columns) int64, each patch's most likely code."""
        self.net.to(images.device)
        plain = images.float() * self.std.to(images.device) + self.mean.to(images.device)
        size = (grid[0] * CODE_PIXELS, grid[1] * CODE_PIXELS)
        small = F.interpolate(plain, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        squeezed = (1 - 2 * LOGIT_LAPLACE) * small + LOGIT_LAPLACE
        codes: Tensor = self.net.get_codebook_indices(squeezed).flatten(1)
        return codes
