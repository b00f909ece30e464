"""The files of the index on disk: whole or refused, however they are damaged, and whenever writing is cut short."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest

from indexer import snapshots
from indexer.errors import StorageFull
from indexer.index import VectorIndex
from indexer.snapshots import MANIFEST, Manifest, SnapshotRefused, folder_of
from tests.indexer.live_gallery import DIM
from tests.indexer.saved_index import contents, files, same, small_blocks
from tests.indexer.snapshot_process import index_of, write

__all__ = ["small_blocks"]

ROOT = Path(__file__).parents[2]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert contents(tmp_path / "none") is None
    write(tmp_path, 1)
    assert contents(tmp_path) == same(index_of(1))
    assert len(files(tmp_path)) == 4, "three blocks and the manifest"
    empty = snapshots.write(tmp_path, "checkpoint", "flat", 0, VectorIndex(DIM), WeakKeyDictionary())
    assert empty.count == 0 and contents(tmp_path) == {} and files(tmp_path) == [tmp_path / MANIFEST]


def damaged(whole: bytes, stride: int) -> Iterator[bytes]:
    """With one bit flipped, and cut off, at every `stride`-th byte; and longer."""
    for position in range(0, len(whole), stride):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        yield bytes(flipped)
        yield whole[:position]
    yield whole + b"\n"


def test_a_flipped_bit_and_another_length_are_refused_wherever_it_is(tmp_path: Path) -> None:
    write(tmp_path, 1)
    manifest = (tmp_path / MANIFEST).read_bytes()
    assert Manifest.decoded(manifest).count == 40
    for wrong in damaged(manifest, 1):
        with pytest.raises(SnapshotRefused):
            Manifest.decoded(wrong)
    for path in files(tmp_path):
        whole = path.read_bytes()
        for wrong in damaged(whole, 13):
            path.write_bytes(wrong)
            with pytest.raises(SnapshotRefused):
                contents(tmp_path)
        path.write_bytes(whole)
    assert contents(tmp_path) == same(index_of(1))


def test_only_new_blocks_are_written_and_old_ones_removed(tmp_path: Path) -> None:
    index, known = index_of(1), WeakKeyDictionary[Any, Any]()
    snapshots.write(tmp_path, "checkpoint", "flat", 1, index, known)
    before = {path.name: path.stat().st_mtime_ns for path in files(tmp_path)}
    index.remove(np.array([39]))
    index.compact()
    (tmp_path / "left-by-the-dead.new").touch()
    (tmp_path / "of-somebody-else.txt").touch()
    snapshots.write(tmp_path, "checkpoint", "flat", 2, index, known)
    after = {path.name: path.stat().st_mtime_ns for path in files(tmp_path)}
    assert contents(tmp_path) == same(index)
    assert len(before.items() & after.items()) == 2, "two blocks stayed as they were"
    assert len(after) == 5 and "of-somebody-else.txt" in after

    lost = next(path for path in files(tmp_path) if path.suffix == ".block")
    lost.unlink()
    snapshots.write(tmp_path, "checkpoint", "flat", 3, index, known)
    assert contents(tmp_path) == same(index), "what was known to be there is written again when it is not"


@pytest.mark.parametrize("step", range(5))
def test_a_disk_that_fills_up_leaves_the_old_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """It is full at the `step`-th of five points: two new blocks, their folder, the manifest, its folder."""
    write(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in files(tmp_path)}
    real, calls = os.fsync, iter(range(100))

    def full(descriptor: int) -> None:
        if next(calls) == step:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageFull, match="disk is full"):
            write(tmp_path, 2)
    if step < 4:
        assert {path.name: path.read_bytes() for path in files(tmp_path)} == before
    else:
        assert contents(tmp_path) == same(index_of(2))
    write(tmp_path, 3)
    assert contents(tmp_path) == same(index_of(3)) and len(files(tmp_path)) == 4


def test_the_reserve_of_the_disk_is_not_touched(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(StorageFull, match="not enough free disk"):
        snapshots.write(tmp_path, "checkpoint", "flat", 2, index_of(2), WeakKeyDictionary(), keep_free=2**60)
    assert contents(tmp_path) == same(index_of(1))


def test_killed_at_any_step_of_writing_the_old_one_or_the_new_one_is_whole(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.indexer.snapshot_process", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    old, new = same(index_of(1)), same(index_of(2))
    *killed, finished = sorted(tmp_path.glob("[0-9]*"), key=lambda folder: int(folder.name))
    assert contents(finished) == new
    found = [contents(folder) for folder in killed]
    assert all(held in (old, new) for held in found)
    assert found.count(old) > 5 and found.count(new) >= 2, "killed before and after the new one is in its place"
    assert any(path.suffix == ".new" for folder in killed for path in files(folder)), "some were killed within a file"
    for folder in killed:
        write(folder, 3)
        assert contents(folder) == same(index_of(3)) and len(files(folder)) == 4


def test_writers_and_readers_of_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    wanted = {seed: same(index_of(seed)) for seed in (1, 2, 3)}
    write(tmp_path, 1)

    def write_often(seed: int) -> None:
        for _ in range(15):
            write(tmp_path, seed)

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write_often, seed) for seed in wanted]
        reader = pool.submit(lambda: [contents(tmp_path) for _ in range(30)])
        assert all(found in wanted.values() for found in reader.result(120))
        for done in writers:
            done.result(120)
    assert contents(tmp_path) in wanted.values()


@pytest.mark.parametrize("id", ["", "..", "../other", "a/b", "/etc", ".hidden"])
def test_a_checkpoint_id_never_leads_elsewhere(tmp_path: Path, id: str) -> None:
    with pytest.raises(ValueError, match="not a checkpoint id"):
        folder_of(tmp_path, id)
