"""What the tests of the index on disk share: small blocks, and everything that a snapshot or an index holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer import index as index_module
from indexer.index import VectorIndex
from indexer.snapshots import opened
from tests.indexer.live_gallery import DIM


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small gallery has several, and a compressed one codes."""
    monkeypatch.setattr(index_module, "MAX_BLOCK", 16)
    monkeypatch.setattr(index_module, "COMPRESSED_FROM", 8)


def contents(
    folder: Path, checkpoint: str = "checkpoint", dim: int = DIM, spec: str = "flat"
) -> dict[int, tuple[float, ...]] | None:
    """Everything in a snapshot, None if there is none. Raises SnapshotRefused."""
    with opened(folder, checkpoint, dim, spec) as saved:
        if saved is None:
            return None
        return {
            int(row): tuple(vector.tolist())
            for block in saved.blocks()
            for row, vector in zip(block.rows, block.vectors, strict=True)
        }


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def same(index: VectorIndex) -> dict[int, tuple[float, ...]]:
    return {int(row): tuple(index.reconstruct(np.array([row]))[0].tolist()) for row in index.rows}
