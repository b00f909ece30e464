"""The camera: where it hangs and what its optics, sensor and encoder do to the light.

``sample_camera`` draws a fixed camera; ``develop`` turns a linear rendering into the 8-bit crop such a camera would
have delivered. What stands before the camera is the scene's business (scene.py).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.synth import SynthUnavailable
from model.synth.body import Floats

try:
    from scipy.ndimage import gaussian_filter
except ImportError as missing:
    raise SynthUnavailable("Rendering needs scipy: install the [synth] extra.") from missing

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Camera:
    """Placement in decimetres and the character of its pictures."""

    seed: int
    height: float  # 22 .. 55
    distance: float  # 60 .. 140, to the middle of the walkway
    cast: tuple[float, float, float]
    gain: float
    gamma: float
    saturation: float
    blur: float  # Gaussian sigma in native pixels
    sharpening: float  # unsharp masking, as most CCTV cameras apply
    contrast: float
    noise: float
    native_height: int  # pixels of a crop at ``distance``
    jpeg_quality: int
    color: bool = True  # otherwise a single channel, repeated


def sample_camera(seed: int) -> Camera:
    rng = np.random.default_rng(seed)
    red, green, blue = 1.0 + rng.normal(0.0, 0.045, 3)
    return Camera(
        seed=seed,
        height=float(rng.uniform(22, 55)),
        distance=float(rng.uniform(60, 140)),
        cast=(float(red), float(green), float(blue)),
        gain=float(rng.uniform(0.8, 1.05)),
        gamma=float(rng.uniform(0.9, 1.12)),
        saturation=float(rng.uniform(0.75, 1.2)),
        blur=float(rng.uniform(0.25, 0.8)),
        sharpening=float(rng.uniform(0.1, 0.9)),
        contrast=float(rng.uniform(0.1, 0.6)),
        noise=float(rng.uniform(0.004, 0.022)),
        # Few crops are tiny; most are near the size a benchmark stores.
        native_height=int(60 + 324 * rng.beta(1.8, 1.1)),
        jpeg_quality=int(rng.integers(45, 93)),
    )


def infrared(camera: Camera, modality: str) -> Camera:
    """The same camera at night ("near-infrared": noisier, no colour) or a thermal one in its place (blurred)."""
    if modality == "near-infrared":
        return replace(camera, color=False, noise=1.2 * camera.noise)
    return replace(camera, color=False, blur=2.2 + camera.blur, sharpening=0.0, contrast=0.0)


def with_strong_cast(camera: Camera) -> Camera:
    """The same camera under a lamp, or with a white balance, that tints the whole picture; its seed decides how."""
    rng = np.random.default_rng([camera.seed, 1])
    hue, strength = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.28, 0.42)
    red, green, blue = 1.0 + strength * np.cos(hue + np.array([0.0, 2.0, 4.0]) * np.pi / 3.0)
    return replace(camera, cast=(float(red), float(green), float(blue)))


def develop(image: Floats, camera: Camera, rng: np.random.Generator, size: tuple[int, int] | None = None) -> Pixels:
    """The crop a camera delivers.

    Args:
        image: linear light (h, w, 3) at the camera's native resolution.
        size: (height, width) to resize the decoded crop to; its own size by default.

    Returns:
        sRGB-like (H, W, 3) uint8 after exposure, cast, saturation, tone curve, blur, sharpening, noise and JPEG.
    """
    height, width = image.shape[:2]
    exposed = image * np.float32(camera.gain * rng.uniform(0.92, 1.08))
    if camera.color:
        exposed *= np.array(camera.cast, np.float32)
        gray = exposed.mean(2, keepdims=True)
        exposed = np.maximum(gray + (exposed - gray) * np.float32(camera.saturation), 0.0)
    else:
        exposed = exposed.mean(2, keepdims=True)
    blurred = gaussian_filter(exposed, (camera.blur * rng.uniform(0.7, 1.2),) * 2 + (0.0,))
    # Highlights roll off above .75, then gamma, then an S-curve about mid-grey.
    rolled = np.where(blurred < 0.75, blurred, 0.75 + 0.25 * (1.0 - np.exp(-(blurred - 0.75) / 0.25)))
    tone = np.power(rolled, np.float32(1.0 / (1.42 * camera.gamma)))
    tone += np.float32(camera.contrast) * tone * (1.0 - tone) * (2.0 * tone - 1.0)
    tone += np.float32(camera.sharpening) * (tone - gaussian_filter(tone, (1.0, 1.0, 0.0)))
    grain = camera.noise * rng.normal(0.0, 1.0, tone.shape).astype(np.float32)
    sensor = np.clip(255.0 * (tone + grain), 0.0, 255.0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.broadcast_to(sensor, (height, width, 3))).save(buffer, "JPEG", quality=camera.jpeg_quality)
    decoded = Image.open(buffer).convert("RGB")
    if size is not None and size != (height, width):
        decoded = decoded.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(decoded)
