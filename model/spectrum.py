"""What MCJA does to the colours of visible images in training: they come to mean less, and shape to mean more.

One of four operations is drawn for an image: a shift of hue, weighted grayscale, cross-channel cutmix or spectrum
jitter. Each is a plain function of one image and of what was drawn for it. Infrared images are left as they are; what
happens to both alike (flip, crop, erasing) is in batching.py. Source: MCJA (TCSVT 2024) and its public code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Array = NDArray[Any]
Operation = Literal["hue", "grayscale", "cutmix", "jitter"]
Rectangle = tuple[int, int, int, int]  # top, left, height, width
_TRIES = 10  # rectangles drawn before an image goes without one


@dataclass(frozen=True)
class Spectrum:
    """How often and how the colours of a visible image change.

    probability: that the drawn operation is applied. operations: what is drawn from, each as likely. hue: largest
    shift, as a share of the circle. patch_area, patch_aspect: of the cutmix rectangle, share of the image and height
    over width. swap_axes: as in the published code, which takes the width of an image for its height: patches then
    never reach the lower half of an upright image, and a quarter of them fall outside it.
    """

    probability: float = 0.5
    operations: tuple[Operation, ...] = get_args(Operation)
    hue: float = 0.2
    patch_area: tuple[float, float] = (0.02, 0.33)
    patch_aspect: tuple[float, float] = (0.3, 3.3)
    swap_axes: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or not 0 <= self.hue <= 0.5:
            raise ValueError("Of Spectrum, probability must be in 0..1 and hue in 0..0.5.")
        if not self.operations or not set(self.operations) <= set(get_args(Operation)):
            raise ValueError(f"operations are one or more of {', '.join(get_args(Operation))}, not {self.operations}.")


def augment_spectrum(pixels: Tensor, visible: Tensor, s: Spectrum, rng: np.random.Generator) -> Tensor:
    """(B, 3, H, W) uint8 -> the same, each visible image changed with ``s.probability``. visible: (B,) bool."""
    out = pixels.clone()
    for n in torch.nonzero(visible).flatten().tolist():
        operation = s.operations[int(rng.integers(len(s.operations)))]
        if rng.random() < s.probability:
            out[n] = _OPERATIONS[operation](out[n], s, rng)
    return out


# --- the operations: (3, H, W) uint8 -> the same, rounded down --------------------------------------------------------


def weighted_grayscale(image: Tensor, weights: Array) -> Tensor:
    """The weighted sum of the channels, three times; weights: (3,) of sum 1."""
    gray = (image * torch.from_numpy(weights.astype(np.float32))[:, None, None]).sum(dim=0)
    return _repeated(gray.to(torch.uint8))


def cross_channel_cutmix(image: Tensor, base: int, patch: int, rectangle: Rectangle) -> Tensor:
    """Channel ``base``, with a rectangle of channel ``patch`` in its place, three times; what lies outside is lost."""
    top, left, height, width = rectangle
    gray = image[base].clone()
    gray[top : top + height, left : left + width] = image[patch, top : top + height, left : left + width]
    return _repeated(gray)


def spectrum_jitter(image: Tensor, channel: int, share: float) -> Tensor:
    """``share`` of the image and the rest of one of its channels."""
    return (share * image + (1 - share) * image[channel]).to(torch.uint8)


def shift_hue(image: Tensor, shift: float) -> Tensor:
    """Hue turned by a share of the circle, saturation and value kept, in 8 bits each."""
    hsv = np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("HSV"))
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)  # wraps around
    turned = Image.fromarray(hsv, "HSV").convert("RGB")
    return torch.from_numpy(np.array(turned)).permute(2, 0, 1)


def draw_rectangle(height: int, width: int, s: Spectrum, rng: np.random.Generator) -> Rectangle | None:
    """A rectangle that lies within an image of this size, None where none of ten fitted.

    With ``swap_axes`` it lies within the transposed image instead.
    """
    if s.swap_axes:
        height, width = width, height
    for _ in range(_TRIES):
        area = rng.uniform(*s.patch_area) * height * width
        aspect = np.exp(rng.uniform(*np.log(s.patch_aspect)))
        tall, wide = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if tall < height and wide < width:
            return int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1)), tall, wide
    return None


def _repeated(gray: Tensor) -> Tensor:
    """(H, W) -> (3, H, W)."""
    return gray.expand(3, *gray.shape)


def _draw_hue(image: Tensor, s: Spectrum, rng: np.random.Generator) -> Tensor:
    return shift_hue(image, rng.uniform(-s.hue, s.hue))


def _draw_grayscale(image: Tensor, s: Spectrum, rng: np.random.Generator) -> Tensor:
    weights = rng.random(3)
    return weighted_grayscale(image, weights / weights.sum())


def _draw_cutmix(image: Tensor, s: Spectrum, rng: np.random.Generator) -> Tensor:
    base, patch = rng.permutation(3)[:2].tolist()
    rectangle = draw_rectangle(image.shape[1], image.shape[2], s, rng)
    return cross_channel_cutmix(image, base, patch, rectangle or (0, 0, 0, 0))


def _draw_jitter(image: Tensor, s: Spectrum, rng: np.random.Generator) -> Tensor:
    return spectrum_jitter(image, int(rng.integers(3)), rng.random())


_OPERATIONS = {"hue": _draw_hue, "grayscale": _draw_grayscale, "cutmix": _draw_cutmix, "jitter": _draw_jitter}
