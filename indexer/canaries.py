"""Canaries: one known text and one known image, to see whether an encoder still makes of them what it once did.

A file that was damaged, another device or a faulty driver show here before they show in rankings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Vectors = NDArray[np.float32]

CANARY_TEXT = "a person in a red jacket and black trousers with a blue bag"
TOLERANCE = 1e-3  # of a length, or of a cosine: kernels may sum in another order, and a GPU rounds to bfloat16


class Embeds(Protocol):
    """What is asked of an encoder."""

    @property
    def has_text(self) -> bool: ...
    def embed_images(self, images: Sequence[Image.Image]) -> Vectors: ...  # (N, D)
    def embed_texts(self, texts: Sequence[str]) -> Vectors: ...  # (N, D)


def embed_canaries(encoder: Embeds) -> dict[str, Vectors]:
    """The known image, and the known text where the encoder reads text, as vectors (D,)."""
    levels = np.linspace(0, 255, 160 * 64, dtype=np.uint8).reshape(160, 64)
    image = Image.fromarray(np.stack([levels, levels[::-1], levels.T.reshape(160, 64)], axis=-1))  # (160, 64, 3)
    vectors = {"image": encoder.embed_images([image])[0]}
    if encoder.has_text:
        vectors["text"] = encoder.embed_texts([CANARY_TEXT])[0]
    return vectors


def faults(now: Mapping[str, Vectors], stored: Mapping[str, Vectors]) -> list[str]:
    """A sentence for every canary that is no finite unit vector, or not the one that was stored."""
    sentences = []
    for kind, vector in now.items():
        if not np.isfinite(vector).all() or abs(float(np.linalg.norm(vector)) - 1) > TOLERANCE:
            sentences.append(f"The known {kind} does not become a finite unit vector.")
        elif kind in stored and similarity(vector, stored[kind]) < 1 - TOLERANCE:
            sentences.append(f"The known {kind} does not become the vector it was when the checkpoint was registered.")
    return sentences


def similarity(one: Vectors, other: Vectors) -> float:
    """The cosine of two vectors (D,); -1 for those of different sizes."""
    if one.shape != other.shape:
        return -1.0
    return float(one.astype(np.float64) @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
