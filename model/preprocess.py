"""From a picture to what the network sees: the same code in training and in serving.

Nothing random happens here; augmentation is in batching.py. Decoding, EXIF and limits belong to the caller.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
}


@dataclass(frozen=True)
class Preprocessing:
    """Input size in pixels and normalisation of RGB in 0..1; stored in every checkpoint."""

    height: int = 384
    width: int = 128
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"The input size must be positive, not {self.height}x{self.width}.")
        if self.interpolation not in _RESAMPLING:
            raise ValueError(f"interpolation is one of {', '.join(_RESAMPLING)}, not {self.interpolation!r}.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Preprocessing:
        return Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def to_pixels(image: Image.Image, p: Preprocessing) -> Tensor:
    """The picture at network size: (3, H, W) uint8. The aspect ratio is not kept, as in the literature."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    resized = rgb.resize((p.width, p.height), _RESAMPLING[p.interpolation])
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def normalize(pixels: Tensor, p: Preprocessing) -> Tensor:
    """(..., 3, H, W) uint8 -> float32 of the same shape with the mean taken off and divided by the std."""
    mean = torch.tensor(p.mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(p.std, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


def to_tensor(image: Image.Image, p: Preprocessing) -> Tensor:
    """(3, H, W) float32, ready for the network."""
    return normalize(to_pixels(image, p), p)
