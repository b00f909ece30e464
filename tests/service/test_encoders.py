"""Checkpoint files in the data folder, with real, tiny checkpoints: copied, verified, found by their id."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexer.errors import CheckpointMissing
from service.encoders import CheckpointFiles, InvalidCheckpoint
from service.settings import ServiceSettings
from tests.helpers import make_tiny_checkpoint


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    return ServiceSettings(data_dir=tmp_path / "data", device="cpu", checkpoint=tmp_path / "configured.safetensors")


def test_an_admitted_file_is_found_by_its_id_wherever_it_came_from(settings: ServiceSettings, tmp_path: Path) -> None:
    files, sent = CheckpointFiles(settings), tmp_path / "sent.safetensors"
    id = make_tiny_checkpoint(sent)
    assert files.admit(sent, "The file sent").checkpoint_id == id
    sent.unlink()
    assert CheckpointFiles(settings).load(id).checkpoint_id == id
    assert files.path(id) == settings.data_dir / "checkpoints" / f"{id}.safetensors"
    files.remove(id)
    files.remove(id)
    with pytest.raises(CheckpointMissing, match=f"The file of checkpoint {id} is not in"):
        files.load(id)


def test_a_copy_that_was_lost_is_made_again_from_the_configured_file(settings: ServiceSettings) -> None:
    assert settings.checkpoint is not None
    id, files = make_tiny_checkpoint(settings.checkpoint), CheckpointFiles(settings)
    assert files.load(id).checkpoint_id == id
    assert files.path(id).read_bytes() == settings.checkpoint.read_bytes()


def test_a_damaged_copy_is_never_served(settings: ServiceSettings, tmp_path: Path) -> None:
    files, sent = CheckpointFiles(settings), tmp_path / "sent.safetensors"
    id = make_tiny_checkpoint(sent)
    files.admit(sent, "The file sent")
    whole = files.path(id).read_bytes()
    for damaged in (whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1])):
        files.path(id).write_bytes(damaged)
        with pytest.raises(CheckpointMissing, match="Register the file of checkpoint"):
            files.load(id)
    other = make_tiny_checkpoint(files.path(id), seed=8)
    with pytest.raises(CheckpointMissing, match=f"holds {other}"):
        files.load(id)


def test_what_is_no_checkpoint_is_refused_by_the_name_the_user_knows(settings: ServiceSettings, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no checkpoint")
    with pytest.raises(InvalidCheckpoint, match=r"^The file sent is not a whole safetensors file"):
        CheckpointFiles(settings).admit(tmp_path / "x", "The file sent")


def test_an_upload_leaves_nothing_and_clears_what_killed_ones_left(settings: ServiceSettings) -> None:
    folder = settings.data_dir / "checkpoints"
    folder.mkdir(parents=True)
    (folder / ".upload-1-old").touch()
    os.utime(folder / ".upload-1-old", (0, 0))
    (folder / ".upload-1-new").touch()
    with CheckpointFiles(settings).upload() as path:
        path.write_bytes(b"half a fi")
        assert sorted(folder.iterdir()) == sorted([folder / ".upload-1-new", path])
    assert list(folder.iterdir()) == [folder / ".upload-1-new"]
