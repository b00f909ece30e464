"""An encoder without a network: cheap, deterministic, and telling different pictures apart by their colours.

It stands in for `model.encoder.Encoder` where a test is about everything around it.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import CheckpointMissing, GalleryError

MAX_WORDS = 56
WORDS = (
    "a an and the with in on of at is person people man woman boy girl he she wearing carrying red green blue yellow "
    "black white gray grey brown pink purple orange dark light bright coat jacket shirt t trousers pants jeans shorts "
    "skirt dress shoes boots hat cap bag backpack handbag hair long short striped plaid young old no without"
)
VOCABULARY = frozenset(WORDS.split())


class GridEncoder:
    """Images: a grid of 2 x dim/6 mean colours. Texts: the sum of one random vector a word. All rows are unit vectors.

    `delay` is the seconds that a call of `embed_images` takes at least, to be interrupted in the middle.
    """

    def __init__(self, dim: int = 48, *, delay: float = 0.0) -> None:
        assert dim % 6 == 0, "two columns of three colours"
        self.dim = dim
        self.delay = delay
        self.has_text = True
        self.has_pairs = False
        self.checkpoint_id = f"grid{dim:012d}"
        self.info: dict[str, Any] = {"net": "grid", "validation": {}}

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(N, dim)"""
        time.sleep(self.delay)
        grids = [np.asarray(image.convert("RGB").resize((2, self.dim // 6), Image.Resampling.BOX)) for image in images]
        return _unit(np.array([grid.reshape(-1) / 255.0 - 0.5 for grid in grids]).reshape(-1, self.dim))

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, dim)"""
        rows = [
            sum((_noise(word, self.dim) for word in _words(text)[:MAX_WORDS]), start=_noise("", self.dim))
            for text in texts
        ]
        return _unit(np.array(rows).reshape(-1, self.dim))

    def embed_pairs(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, dim): what image and text have in common, place by place; no sum of the two."""
        return _unit((self.embed_images(images) * self.embed_texts(texts)).astype(np.float64))

    def unknown_words(self, text: str) -> list[str]:
        return [word for word in dict.fromkeys(_words(text)) if word not in VOCABULARY]

    def is_truncated(self, text: str) -> bool:
        return len(_words(text)) > MAX_WORDS


class GridFiles:
    """Checkpoint files of grid encoders: such a file holds nothing but its id. Those `lost` cannot be loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.removed: list[str] = []
        self.lost: set[str] = set()

    def load(self, checkpoint_id: str) -> GridEncoder:
        if checkpoint_id in self.lost:
            raise CheckpointMissing(f"The file of checkpoint {checkpoint_id} is not there.")
        return GridEncoder(int(checkpoint_id.removeprefix("grid")))

    def admit(self, path: Path, called: str) -> GridEncoder:
        written = path.read_text(errors="replace")
        if not re.fullmatch(r"grid\d{12}", written):
            raise GalleryError(f"{called} is not a checkpoint.", code="invalid_checkpoint")
        return self.load(written)

    def remove(self, checkpoint_id: str) -> None:
        self.removed.append(checkpoint_id)

    @contextmanager
    def upload(self) -> Iterator[Path]:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / os.urandom(8).hex()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _noise(word: str, dim: int) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(dim)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)
