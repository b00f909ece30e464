"""Backups: whole or refused, restored exactly, and never a way back for whom was erased."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from indexer import backup, gallery, holds, journal, retention
from indexer.database import Database, connect, transaction
from indexer.erasure import Eraser
from indexer.errors import BackupRefused, StorageFull
from indexer.holds import NewHold
from indexer.idempotency import remember
from indexer.images import ImageStore
from indexer.intake import ingest_entries
from indexer.items import Entry
from indexer.replica import Replica
from indexer.snapshots import FOLDER
from indexer.tables import Base
from indexer.traces import Selection
from tests.postgres_fixtures import fresh_database
from tests.small_gallery import ENCODER, Gallery, metadata, picture, sha256


@pytest.fixture
def filled(database: Database, tmp_path: Path) -> Gallery:
    """Three images of two people, with all that may surround them: a tab and a line break in a name among it."""
    made = Gallery(database, tmp_path / "data")
    ids = made.add(
        (1, metadata("ext-zelda-1", "zelda-q")),
        (2, metadata("ext-bob-1", "bob-r", attributes={"note": "tab\there\nand \\N there"}, tags=("a,b", '"c"'))),
        (3, metadata("ext-zelda-2", "zelda-q", camera=None)),
    )
    made.freeze(ids, {"query": {"text": "anybody"}})
    with transaction(database.engine) as session:
        holds.place_hold(session, NewHold("order 1", identity="bob-r"))
        retention.set_policy(session, None, 36_500)
        ingestion = gallery.create_ingestion(session, "zip over HTTP", owner=17)
        gallery.cancel_ingestion(session, ingestion)
        remember(session, "ingestions", "delivery-17", "fingerprint", ingestion)
    return made


def dump(database: Database) -> dict[str, list[str]]:
    """Every table as text, its rows in order, but for the audit, which goes on."""
    tables = [name for name in Base.metadata.tables if not name.startswith("audit_")]
    with transaction(database.engine) as session:
        return {name: sorted(session.scalars(text(f'SELECT t::text FROM "{name}" AS t'))) for name in tables}


def create(filled: Gallery, folder: Path) -> backup.Manifest:
    return backup.create(filled.database, filled.store, filled.journal, folder)


def restore(filled: Gallery, folder: Path, *, replace: bool = False) -> int:
    index = filled.folder / FOLDER
    return backup.restore(filled.database, filled.store, filled.journal, folder, replace=replace, snapshots=index)


def test_a_backup_restores_the_same_gallery_elsewhere(filled: Gallery, tmp_path: Path) -> None:
    made = create(filled, tmp_path / "backup")
    assert (made.images, made.files, made.missing) == (3, 3, 0)
    assert backup.verify(tmp_path / "backup") == made
    before = dump(filled.database)
    assert all(before[name] for name in ("idempotency_key", "ingestion", "embedding"))
    assert "digest" not in next(table.columns for table in made.tables if table.name == "embedding")
    with fresh_database() as other:
        store, elsewhere = ImageStore(tmp_path / "other" / "images"), tmp_path / "other" / journal.NAME
        assert backup.restore(other, store, elsewhere, tmp_path / "backup") == 0
        assert dump(other) == before
        assert store.path(sha256(1)).read_bytes() == picture(1)
        replica = Replica(other, ENCODER)
        replica.load()
        assert len(replica.state.index) == 3
        with transaction(other.engine) as session:
            added = session.scalar(
                text(
                    "INSERT INTO image (id, sha256, width, height, format, byte_size)"
                    " VALUES (gen_random_uuid(), 'x', 1, 1, 'PNG', 1) RETURNING row"
                )
            )
        assert added == 4, "numbers go on where they were"


def test_whom_was_erased_since_does_not_come_back(filled: Gallery, tmp_path: Path) -> None:
    create(filled, tmp_path / "backup")
    saved = Replica(filled.database, ENCODER, snapshots=filled.folder / FOLDER)
    saved.load()
    saved.save()
    receipt = filled.eraser.erase(Selection(identity="zelda-q"), "asked for by the person")
    assert restore(filled, tmp_path / "backup", replace=True) == 2
    assert not (filled.folder / FOLDER).exists(), "it held vectors of whom was erased"
    assert filled.values("SELECT external_id FROM image") == ["ext-bob-1"]
    assert filled.traces_of("zelda", sha256(1), sha256(3), picture(1), picture(3)) == []
    assert filled.values("SELECT id FROM erasure WHERE state = 'done'") == [receipt.id]
    assert filled.store.path(sha256(2)).read_bytes() == picture(2)
    replica = Replica(filled.database, ENCODER)
    replica.load()
    assert len(replica.state.index) == 1
    # A later backup knows of the erasure, wherever it is restored, and with it an older one can be, too.
    create(filled, tmp_path / "later")
    with fresh_database() as other:
        folder = tmp_path / "other"
        store, elsewhere = ImageStore(folder / "images"), folder / journal.NAME
        backup.restore(other, store, elsewhere, tmp_path / "later")
        assert backup.restore(other, store, elsewhere, tmp_path / "backup", replace=True) == 2
        with transaction(other.engine) as session:
            assert session.scalars(text("SELECT external_id FROM image")).all() == ["ext-bob-1"]
        assert [path.name for path in store.files()] == [sha256(2)]


def test_the_networks_of_the_gallery_are_in_it(filled: Gallery, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    for name, content in ((ENCODER.checkpoint_id, b"weights"), ("retired-long-ago", b"others")):
        (kept / f"{name}.safetensors").write_bytes(content)
    made = backup.create(filled.database, filled.store, filled.journal, tmp_path / "backup", kept)
    name = f"{ENCODER.checkpoint_id}.safetensors"
    assert made.checkpoints == {name: hashlib.sha256(b"weights").hexdigest()}
    back = tmp_path / "back"
    with fresh_database() as other:
        store, elsewhere = ImageStore(tmp_path / "other" / "images"), tmp_path / "other" / journal.NAME
        backup.restore(other, store, elsewhere, tmp_path / "backup", checkpoints=back)
    assert [(path.name, path.read_bytes()) for path in back.iterdir()] == [(name, b"weights")]
    (tmp_path / "backup" / "checkpoints" / name).write_bytes(b"weighty")
    with pytest.raises(BackupRefused, match=name):
        backup.verify(tmp_path / "backup")


def test_a_name_without_an_image_does_not_come_back_either(filled: Gallery, tmp_path: Path) -> None:
    unreadable = Entry(0, "ext-nora-1.png", "ext-nora-1", metadata("ext-nora-1", "nora-s"), b"no picture")
    ingest_entries(filled.database, filled.store, [unreadable], "a test", register_cameras=True)
    searched = filled.freeze([], {"query": {"text": "ext-nora-1 in a red coat"}})
    assert filled.traces_of("nora")
    create(filled, tmp_path / "backup")
    filled.eraser.erase(Selection(external_ids=("ext-nora-1",)), "asked for by the person")
    assert filled.traces_of("nora") == []
    restore(filled, tmp_path / "backup", replace=True)
    assert filled.traces_of("nora") == []
    assert filled.kept(searched).request == {}
    assert filled.values("SELECT count(*) FROM image") == [3], "nobody else is gone"
    assert filled.values("SELECT external_id FROM ingestion_item WHERE image_id IS NOT NULL ORDER BY 1") == [
        "ext-bob-1",
        "ext-zelda-1",
        "ext-zelda-2",
    ]


def test_a_lost_journal_is_made_up_for_by_the_database_and_the_other_way_round(filled: Gallery, tmp_path: Path) -> None:
    create(filled, tmp_path / "backup")
    filled.eraser.erase(Selection(identity="zelda-q"), "asked for by the person")
    kept = filled.journal.read_bytes()
    filled.journal.unlink()
    assert restore(filled, tmp_path / "backup", replace=True) == 2
    assert {entry.image_ids for entry in journal.read(filled.journal)} != set()

    # Somebody restored the database by other means: the next start erases again.
    filled.journal.unlink()
    with fresh_database() as other:
        store, elsewhere = ImageStore(tmp_path / "other" / "images"), tmp_path / "other" / journal.NAME
        assert backup.restore(other, store, elsewhere, tmp_path / "backup") == 0
        elsewhere.write_bytes(kept)
        eraser = Eraser(other, store, elsewhere)
        assert eraser.replay() == 2
        assert [receipt.counts["images"] for receipt in eraser.resume()] == [2]
        assert eraser.replay() == 0
        assert [path.name for path in store.files()] == [sha256(2)]


def damaged_table(folder: Path) -> None:
    path = folder / "tables" / "image.copy.gz"
    path.write_bytes(path.read_bytes()[:-3])


def flipped_image(folder: Path) -> None:
    path = ImageStore(folder / "images").path(sha256(1))
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


def missing_image(folder: Path) -> None:
    ImageStore(folder / "images").path(sha256(1)).unlink()


def changed_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "images": 4}))


def cut_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:100])


def broken_off(folder: Path) -> None:
    (folder / "manifest.json").unlink()


DAMAGES = (damaged_table, flipped_image, missing_image, changed_manifest, cut_manifest, broken_off)


def test_every_damage_is_found_and_nothing_is_restored(filled: Gallery, tmp_path: Path) -> None:
    before = dump(filled.database)
    for number, damage in enumerate(DAMAGES):
        folder = tmp_path / f"backup-{number}"
        create(filled, folder)
        damage(folder)
        with pytest.raises(BackupRefused):
            backup.verify(folder)
        with pytest.raises(BackupRefused):
            restore(filled, folder, replace=True)
    assert dump(filled.database) == before


def test_a_gallery_in_use_or_not_empty_is_left_alone(filled: Gallery, tmp_path: Path) -> None:
    create(filled, tmp_path / "backup")
    before = dump(filled.database)
    with pytest.raises(BackupRefused, match="--replace"):
        restore(filled, tmp_path / "backup")
    with pytest.raises(BackupRefused, match="not empty"):
        create(filled, tmp_path / "backup")
    service = connect(filled.database.url)
    with service.connect(), pytest.raises(BackupRefused, match="in use"):
        restore(filled, tmp_path / "backup", replace=True)
    service.dispose()
    assert dump(filled.database) == before


def test_a_connection_that_closes_in_time_does_not_stop_a_restore(
    filled: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(filled, tmp_path / "backup")
    before, service = dump(filled.database), connect(filled.database.url)
    connection = service.connect()
    waited: list[float] = []

    def close_meanwhile(seconds: float) -> None:
        connection.close()
        service.dispose()
        waited.append(seconds)

    monkeypatch.setattr(backup.time, "sleep", close_meanwhile)
    restore(filled, tmp_path / "backup", replace=True)
    assert waited and dump(filled.database) == before


def test_a_restore_that_fails_leaves_the_gallery_as_it_was(
    filled: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(filled, tmp_path / "backup")
    filled.add((4, metadata("ext-carol-1")))
    before = dump(filled.database)
    adopt: Callable[[ImageStore, str, Path], None] = ImageStore.adopt

    def full(store: ImageStore, sha256_: str, source: Path) -> None:
        if sha256_ == sha256(3):
            raise StorageFull("The disk of the image store is full.")
        adopt(store, sha256_, source)

    monkeypatch.setattr(ImageStore, "adopt", full)
    with pytest.raises(StorageFull):
        restore(filled, tmp_path / "backup", replace=True)
    assert dump(filled.database) == before
    assert filled.store.path(sha256(4)).read_bytes() == picture(4)
    monkeypatch.undo()
    restore(filled, tmp_path / "backup", replace=True)
    assert filled.values("SELECT count(*) FROM image") == [3]
    assert filled.store.files_of(sha256(4)) == []


def test_an_image_erased_while_the_backup_is_made_stays_away(
    filled: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = backup._copy_image

    def slow(store: ImageStore, sha256_: str, folder: Path) -> int | None:
        if filled.values("SELECT count(*) FROM erasure") == [0]:  # the tables are written, the files are not
            filled.eraser.erase(Selection(identity="zelda-q"), "asked for by the person")
        return copy(store, sha256_, folder)

    monkeypatch.setattr(backup, "_copy_image", slow)
    made = create(filled, tmp_path / "backup")
    assert (made.images, made.files, made.missing) == (3, 1, 2)
    with fresh_database() as other:
        store = ImageStore(tmp_path / "other" / "images")
        assert backup.restore(other, store, tmp_path / "other" / journal.NAME, tmp_path / "backup") == 2
        with transaction(other.engine) as session:
            assert session.scalars(text("SELECT external_id FROM image")).all() == ["ext-bob-1"]
