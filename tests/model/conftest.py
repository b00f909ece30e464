"""Fixtures of the model tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import make_tiny_checkpoint, make_toy_dataset


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained, seeded AXM-Net for 64x32 images."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    make_tiny_checkpoint(path)
    return path


@pytest.fixture(scope="session")
def toy_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flat coloured people with the splits train, val and test; read only."""
    return make_toy_dataset(tmp_path_factory.mktemp("toy"))
