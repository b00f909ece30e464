"""The index on disk: whatever happens to its files or its database, a start finds exactly what the database has."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from indexer import gallery, snapshots
from indexer import index as index_module
from indexer.database import Database, transaction
from indexer.errors import StorageFull
from indexer.index import FAISS_VERSION, SPECS, Coded, VectorIndex
from indexer.replica import Replica
from indexer.snapshots import MANIFEST, Manifest, SnapshotRefused, folder_of, opened
from tests.indexer.live_gallery import DIM, Encoder, add, assert_same, delete, eventually, register, vectors_in
from tests.indexer.snapshot_process import index_of, write
from tests.postgres_fixtures import fresh_database

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small gallery has several, and a compressed one codes."""
    monkeypatch.setattr(index_module, "MAX_BLOCK", 16)
    monkeypatch.setattr(index_module, "COMPRESSED_FROM", 8)


both = pytest.mark.parametrize("spec", SPECS)


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


# ------------------------------------------------------------------------------------------------------------ the files


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


# ----------------------------------------------------------------------------------------------------------- the starts


class Gallery:
    """A gallery in the database and the folder of its index; every `start` is a new replica's."""

    def __init__(self, database: Database, folder: Path, spec: str = "flat") -> None:
        self.database, self.root, self.spec = database, folder, spec
        self.folder = folder / "checkpoint"

    def start(self, encoder: Encoder | None = None) -> tuple[Replica[Encoder], list[dict[str, Any]]]:
        """A loaded replica and what it logged."""
        replica = Replica(self.database, encoder or Encoder(), self.spec, snapshots=self.root)
        with capture_logs() as logs:
            replica.load()
        return replica, [dict(line) for line in logs]

    def saved(self) -> Replica[Encoder]:
        replica, _ = self.start()
        replica.save()
        return replica

    def reads(self, logs: list[dict[str, Any]]) -> int:
        (loaded,) = [line for line in logs if line["event"] == "index_loaded"]
        return int(loaded["read_from_database"])

    def check_refused(self, because: str = "") -> None:
        """The next start refuses the snapshot, says why, and has what the database has; the one after has a new one."""
        replica, logs = self.start()
        refused = [line for line in logs if line["event"] == "index_snapshot_refused"]
        assert len(refused) == 1 and because in refused[0]["reason"], logs
        assert refused[0]["log_level"] == "warning" and refused[0]["checkpoint"] == "checkpoint"
        assert_same(self.database, replica.state)
        assert self.reads(logs) == len(vectors_in(self.database))
        replica.stop()
        replica, logs = self.start()
        assert self.reads(logs) == 0 and not any("refused" in line["event"] for line in logs)
        assert_same(self.database, replica.state)


@pytest.fixture(scope="module")
def shared() -> Iterator[Database]:
    """A gallery of 40 images with one snapshot, older than the last of them; these tests only read it."""
    with fresh_database() as database:
        register(database)
        add(database, *map(str, range(40)))
        yield database


@pytest.fixture
def kept(shared: Database, tmp_path: Path) -> Gallery:
    kept = Gallery(shared, tmp_path)
    kept.saved()
    return kept


def blocks(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.block"))


def rewritten(folder: Path, **changes: Any) -> None:
    """Another manifest, as valid as the first."""
    manifest = Manifest.decoded((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(manifest.model_copy(update=changes).encoded())


def flip(path: Path, share: float) -> None:
    """One bit, this far into the file."""
    data = bytearray(path.read_bytes())
    position = int(share * (len(data) - 1))
    data[position] ^= 1 << position % 8
    path.write_bytes(data)


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(share * path.stat().st_size))


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)  # whoever opens it waits for ever


def one_block_fewer(folder: Path) -> None:
    """Whole and consistent, but it does not hold what it says it does."""
    manifest = Manifest.decoded((folder / MANIFEST).read_bytes())
    rest = manifest.blocks[1:]
    rewritten(folder, blocks=rest, count=sum(block.count for block in rest))


def one_block_twice(folder: Path) -> None:
    manifest = Manifest.decoded((folder / MANIFEST).read_bytes())
    twice = [*manifest.blocks, manifest.blocks[0]]
    rewritten(folder, blocks=twice, count=sum(block.count for block in twice))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    **{
        f"a bit of the manifest, at {share:.0%}": (lambda f, s=share: flip(f / MANIFEST, s), "manifest is damaged")
        for share in (0, 0.3, 0.7, 1)
    },
    **{
        f"a bit of block {n}, at {share:.0%}": (lambda f, n=n, s=share: flip(blocks(f)[n], s), "not as it was written")
        for n in range(3)
        for share in (0, 0.6)
    },
    **{
        f"the manifest cut to {share:.0%}": (lambda f, s=share: truncate(f / MANIFEST, s), "manifest is damaged")
        for share in (0, 0.5, 0.99)
    },
    **{
        f"a block cut to {share:.0%}": (lambda f, s=share: truncate(blocks(f)[1], s), "not as long as")
        for share in (0, 0.5, 0.99)
    },
    "blocks swapped": (lambda f: swap(blocks(f)[0], blocks(f)[1]), "not as"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "manifest is missing"),
    "no block": (lambda f: blocks(f)[2].unlink(), "missing"),
    "the manifest is a folder": (lambda f: replace_by_folder(f / MANIFEST), "manifest is damaged"),
    "a block is a pipe": (lambda f: replace_by_pipe(blocks(f)[0]), "missing"),
    "nonsense": (lambda f: (f / MANIFEST).write_bytes(b"[" * 100_000), "manifest is damaged"),
    "not an object": (lambda f: (f / MANIFEST).write_bytes(b"[1]"), "manifest is damaged"),
    "no checksum": (lambda f: (f / MANIFEST).write_bytes(b'{"format": 1}'), "manifest is damaged"),
    "a huge manifest": (lambda f: (f / MANIFEST).write_bytes(b" " * (16 * 2**20 + 1)), "manifest is damaged"),
    "another FAISS": (lambda f: rewritten(f, faiss="0.0.1"), f"faiss is 0.0.1, not {FAISS_VERSION}"),
    "another format": (lambda f: rewritten(f, format=2), "format is 2, not 1"),
    "another kind of index": (lambda f: rewritten(f, index="other"), "index is other, not flat"),
    "another checkpoint": (lambda f: rewritten(f, checkpoint_id="other"), "checkpoint_id is other"),
    "another dim": (lambda f: rewritten(f, dim=5), "dim is 5, not 4"),
    "another count": (lambda f: rewritten(f, count=39), "do not add up"),
    "a sequence ahead": (lambda f: rewritten(f, seq=10**9), "it was restored, or another"),
    "an older count": (one_block_fewer, "vectors that the database had by then"),
    "a block twice": (one_block_twice, "a row twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_snapshot_is_never_served(kept: Gallery, name: str) -> None:
    damage, because = DAMAGE[name]
    damage(kept.folder)
    kept.check_refused(because)


def test_a_format_of_the_future_is_named(kept: Gallery) -> None:
    content = json.loads((kept.folder / MANIFEST).read_bytes())
    (kept.folder / MANIFEST).write_text(json.dumps({**content, "format": 7, "more": True}))
    kept.check_refused("format is 7, not 1")


def test_files_of_an_older_snapshot_of_the_same_gallery(database: Database, tmp_path: Path) -> None:
    """All of the older one is fine: it is followed from there. A mixture of both is refused, whichever way."""
    register(database)
    kept = Gallery(database, tmp_path / "new")
    rows = add(database, *map(str, range(40)))
    kept.saved()
    older = tmp_path / "older"
    shutil.copytree(kept.folder, older)
    for row in (rows[0], rows[20]):
        delete(database, row)
    add(database, "x", "y", "z")
    newer = tmp_path / "newer"
    kept.saved()
    shutil.copytree(kept.folder, newer)

    for manifest_of, blocks_of in ((older, newer), (newer, older)):
        shutil.rmtree(kept.folder)
        shutil.copytree(blocks_of, kept.folder)
        shutil.copy(manifest_of / MANIFEST, kept.folder)
        kept.check_refused("missing")

    shutil.rmtree(kept.folder)
    shutil.copytree(older, kept.folder)
    replica, logs = kept.start()
    assert_same(database, replica.state)
    assert kept.reads(logs) == 3 and not any("refused" in line["event"] for line in logs)


@pytest.mark.parametrize("images", [40, 60, 5])
def test_the_snapshot_of_another_gallery(kept: Gallery, database: Database, tmp_path: Path, images: int) -> None:
    """With as many images, more and fewer, in the same rows."""
    register(database)
    add(database, *map(str, range(images)), seed=1)
    other = Gallery(database, tmp_path / "other")
    other.root.mkdir()
    shutil.copytree(kept.folder, other.folder)
    other.check_refused()


def test_the_snapshot_of_a_gallery_with_other_rows(kept: Gallery, database: Database, tmp_path: Path) -> None:
    """No row in common, and nothing that is missing: only what it has too much gives it away."""
    register(database)
    with transaction(database.engine) as session:
        session.execute(text("ALTER TABLE image ALTER COLUMN row RESTART WITH 1000"))
        session.execute(text("SELECT setval('change_seq', 500)"))
    add(database, "a", "b")
    other = Gallery(database, tmp_path / "other")
    other.root.mkdir()
    shutil.copytree(kept.folder, other.folder)
    other.check_refused("belong to images that the database did not have")


def test_after_a_restore_the_snapshot_of_what_came_later_is_refused(database: Database, tmp_path: Path) -> None:
    """Once before the restored database gets as far as the snapshot, once when it went another way by then."""
    register(database)
    add(database, "a", "b", "c")
    database.engine.dispose()
    with fresh_database(template=str(database.engine.url.database)) as restored:
        add(database, "d", "e")
        kept = Gallery(database, tmp_path / "kept")
        kept.saved()
        shutil.copytree(kept.root, tmp_path / "copy")
        after = Gallery(restored, kept.root)
        after.check_refused("it goes up to change 5, the database only to 3")

        add(restored, "f", "g", "h", seed=1)
        shutil.rmtree(kept.root)
        shutil.copytree(tmp_path / "copy", kept.root)
        after.check_refused("2 of its vectors are not those of the database")


@both
def test_a_start_from_a_snapshot_reads_no_vector(spec: str, database: Database, tmp_path: Path) -> None:
    register(database)
    kept = Gallery(database, tmp_path, spec)
    rows = add(database, *map(str, range(40)))
    first = kept.saved()
    truth = vectors_in(database)
    delete(database, rows[3])
    with transaction(database.engine) as session:  # a statement that reads vectors now fails
        session.execute(text("ALTER TABLE embedding RENAME COLUMN vector TO hidden"))
    replica, logs = kept.start()
    assert any(isinstance(block.held, Coded) for block in replica.state.index.blocks) == (spec == "compressed")
    with transaction(database.engine) as session:
        session.execute(text("ALTER TABLE embedding RENAME COLUMN hidden TO vector"))
    del truth[rows[3]]
    assert same(replica.state.index) == {row: tuple(vector.tolist()) for row, vector in truth.items()}
    assert kept.reads(logs) == 0 and replica.state.seq == first.state.seq + 1

    add(database, "new", "newer")
    replica, logs = kept.start()
    assert kept.reads(logs) == 2
    assert_same(database, replica.state)
    (later,) = add(database, "followed")
    replica.refresh()
    assert later in replica.state.index


@both
def test_two_checkpoints_side_by_side(spec: str, database: Database, tmp_path: Path) -> None:
    register(database)
    add(database, *map(str, range(5)))
    register(database, "other", 2)
    with transaction(database.engine) as session:
        claimed = gallery.claim_unembedded(session, "other", 10, 60, 4)
        rows = [item.row for item in claimed.items]
        gallery.record_embeddings(session, "other", claimed.token, rows, np.eye(5, 2, dtype=np.float32))
    kept = Gallery(database, tmp_path, spec)
    for encoder in (Encoder(), Encoder("other", 2)):
        kept.start(encoder)[0].save()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "other"]
    for encoder in (Encoder(), Encoder("other", 2)):
        replica, logs = kept.start(encoder)
        assert kept.reads(logs) == 0
        assert_same(database, replica.state)
    shutil.rmtree(kept.folder)
    shutil.copytree(tmp_path / "other", kept.folder)
    kept.check_refused("checkpoint_id is other")


# -------------------------------------------------------------------------------------------------------- the shutdowns


@both
def test_it_is_saved_at_the_end_and_meanwhile_but_only_when_something_changed(
    spec: str, database: Database, tmp_path: Path
) -> None:
    register(database)
    rows = add(database, *map(str, range(3)))
    kept = Gallery(database, tmp_path, spec)
    replica, _ = kept.start()
    replica.stop()
    assert set(contents(kept.folder, spec=spec) or {}) == set(rows)

    replica, _ = kept.start()
    with capture_logs() as logs:
        replica.save()
        replica.stop()
    assert logs == [], "it is on the disk already"

    replica.start_following(0.01, save_seconds=0.01)
    try:
        (later,) = add(database, "later")
        eventually(lambda: set(contents(kept.folder, spec=spec) or {}) == {*rows, later})
    finally:
        replica.stop()


@both
def test_a_removed_vector_leaves_the_disk(spec: str, database: Database, tmp_path: Path) -> None:
    register(database)
    rows = add(database, *map(str, range(40)))
    kept = Gallery(database, tmp_path, spec)
    replica = kept.saved()
    secret = vectors_in(database)[rows[5]].tobytes()
    assert any(secret in path.read_bytes() for path in files(kept.folder))
    delete(database, rows[5])
    replica.refresh()
    replica.save()
    assert not any(secret in path.read_bytes() for path in files(kept.folder))
    assert not any(secret in block.vectors.tobytes() for block in replica.state.index.blocks)
    assert kept.reads(kept.start()[1]) == 0


def test_a_removed_vector_leaves_the_snapshot_of_a_checkpoint_nobody_loads(database: Database, tmp_path: Path) -> None:
    register(database)
    rows = add(database, *map(str, range(3)))
    kept = Gallery(database, tmp_path)
    kept.saved()
    register(database, "other", 2)
    replica, _ = kept.start(Encoder("other", 2))
    replica.mend()
    assert contents(kept.folder) is not None, "nothing was removed, so it can still be used"
    delete(database, rows[0])
    replica.mend()
    assert contents(kept.folder) is None and files(kept.folder) == []
    replica.mend()


def test_what_one_service_erased_from_the_disk_another_does_not_write_again(database: Database, tmp_path: Path) -> None:
    register(database)
    rows = add(database, *map(str, range(40)))
    kept = Gallery(database, tmp_path / "index")
    here, there = kept.saved(), kept.start()[0]  # two services on one data folder
    secret = vectors_in(database)[rows[5]].tobytes()
    delete(database, rows[5])
    here.refresh()
    assert here.forget(np.array(rows[5:6]))
    assert rows[5] in there.state.index, "it has not followed yet"
    there.save()
    assert not any(secret in path.read_bytes() for path in files(kept.folder))
    assert set(contents(kept.folder) or {}) == {*rows} - {rows[5]}


def test_nobody_writes_while_another_service_erases(database: Database, tmp_path: Path) -> None:
    register(database)
    add(database, "one")
    kept = Gallery(database, tmp_path / "index")
    here, there = kept.start()[0], kept.start()[0]
    with ThreadPoolExecutor(1) as threads:
        with here._alone_on_disk(kept.root):
            saving = threads.submit(there.save)
            eventually(lambda: there._saving.locked())
            assert not saving.done() and not kept.folder.exists()
        saving.result()
    assert kept.folder.exists()


@both
def test_what_was_mended_is_saved_although_no_change_was_followed(
    spec: str, database: Database, tmp_path: Path
) -> None:
    register(database)
    rows = add(database, *map(str, range(5)))
    kept = Gallery(database, tmp_path, spec)
    replica, _ = kept.start()
    replica.state.index.remove(np.array(rows[:2]))
    replica.save()
    replica.mend()
    replica.save()
    assert set(contents(kept.folder, spec=spec) or {}) == set(rows)


def test_where_it_cannot_be_written_the_index_serves_on(database: Database, tmp_path: Path) -> None:
    register(database)
    add(database, *map(str, range(3)))
    (tmp_path / "in the way").touch()
    replica = Replica(database, Encoder(), snapshots=tmp_path / "in the way" / "folder")
    replica.load()
    with capture_logs() as logs:
        replica.start_following(0.01, save_seconds=0.01)
        eventually(lambda: any(line["event"] == "index_stays_as_it_is" and line["job"] == "save" for line in logs))
        (later,) = add(database, "later")
        eventually(lambda: later in replica.state.index)
        replica.stop()
    assert logs[-1]["event"] == "index_not_saved"


def test_without_a_folder_nothing_is_kept(database: Database, tmp_path: Path) -> None:
    register(database)
    add(database, "a")
    replica = Replica(database, Encoder())
    replica.load()
    replica.stop()
    assert_same(database, replica.state)
    assert list(tmp_path.iterdir()) == []


@both
def test_forgetting_rows_leaves_the_blocks_of_others_and_a_snapshot_that_can_be_used(
    spec: str, database: Database, tmp_path: Path
) -> None:
    register(database)
    rows = add(database, *map(str, range(3)))
    kept = Gallery(database, tmp_path, spec)
    replica = kept.saved()
    (first,) = kept.folder.glob("*.block")
    damaged = kept.folder / ("0" * 64 + ".block")
    damaged.write_bytes(b"cut short")
    assert snapshots.holds(kept.folder, np.array([rows[2]])), "who knows what is in a file that no manifest lists"
    snapshots.forget(kept.folder, np.array([max(rows) + 1]))
    assert sorted(files(kept.folder)) == sorted([first, kept.folder / "manifest.json"])
    assert kept.reads(kept.start()[1]) == 0
    assert snapshots.holds(kept.folder, np.array([rows[2]]))
    snapshots.forget(kept.folder, np.array([rows[2]]))
    assert not snapshots.holds(kept.folder, np.array(rows)) and files(kept.folder) == []
    replica, logs = kept.start()
    assert kept.reads(logs) == 3
    assert_same(database, replica.state)
