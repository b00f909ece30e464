"""The audit when a backup is restored: no act is lost, no erased reason comes back, and the chain stays whole."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from indexer import audit, audit_anchors, audit_verify, backup, journal
from indexer.audit import Actor, Purpose, Wanted
from indexer.audit_verify import Verification
from indexer.database import Database, transaction
from indexer.images import ImageStore
from indexer.traces import Selection
from tests.postgres_fixtures import fresh_database
from tests.small_gallery import Gallery, metadata

ANNA = Actor("user", UUID(int=1), "anna")


@pytest.fixture
def filled(database: Database, tmp_path: Path) -> Gallery:
    made = Gallery(database, tmp_path / "data")
    made.add((1, metadata("ext-zelda-1", "zelda-q")), (2, metadata("ext-bob-1", "bob-r")))
    act(made.database, "first", "looking for Zelda-Q")
    return made


def act(database: Database, action: str, reason: str | None = None) -> None:
    with transaction(database.engine) as session:
        audit.record(session, ANNA, action, purpose=Purpose(reason=reason))


def acts(database: Database) -> list[str]:
    with transaction(database.engine) as session:
        return [event.action for event in reversed(audit.events(session, Wanted()))]


def restore(database: Database, folder: Path, made: Path) -> None:
    backup.restore(database, ImageStore(folder / "images"), folder / journal.NAME, made, replace=True)


def create(filled: Gallery, folder: Path) -> Path:
    backup.create(filled.database, filled.store, filled.journal, folder)
    return folder


def verify(database: Database, folder: Path) -> Verification:
    return audit_verify.verify(database, folder / audit_anchors.NAME)


def test_what_was_done_since_the_backup_is_still_told(filled: Gallery, tmp_path: Path) -> None:
    made = create(filled, tmp_path / "backup")
    act(filled.database, "second")
    audit_anchors.drop(filled.database, filled.folder / audit_anchors.NAME)
    filled.eraser.erase(Selection(identity="zelda-q"), "asked for by the person")
    told = ["first", "second", "audit.reasons_erased", "erasure.create"]
    assert acts(filled.database) == told

    restore(filled.database, filled.folder, made)
    assert acts(filled.database)[: len(told) + 1] == [*told, "backup.restore"]
    found = verify(filled.database, filled.folder)
    assert found.fault is None and found.anchors == 2 and found.reasons_erased == 1
    assert filled.traces_of("zelda") == [], "neither the person nor the reason that named them came back"
    act(filled.database, "third")
    restore(filled.database, filled.folder, made)  # once more
    assert verify(filled.database, filled.folder).fault is None and "third" in acts(filled.database)


def test_elsewhere_the_chain_of_the_backup_goes_on(filled: Gallery, tmp_path: Path) -> None:
    made, folder = create(filled, tmp_path / "backup"), tmp_path / "other"
    with fresh_database() as other:
        restore(other, folder, made)
        assert acts(other) == ["first", "backup.restore"]
        assert verify(other, folder).fault is None
        act(other, "second")
        later = create(Gallery(other, folder), tmp_path / "later")
        restore(filled.database, filled.folder, later)  # where it came from, and is now behind
        assert acts(filled.database) == ["first", "backup.restore", "second", "backup.restore"]
        assert verify(filled.database, filled.folder).fault is None


def test_another_gallery_is_replaced_with_its_audit_and_a_lost_one_is_made_up_for(
    filled: Gallery, tmp_path: Path
) -> None:
    made, folder = create(filled, tmp_path / "backup"), tmp_path / "other"
    with fresh_database() as other:
        Gallery(other, folder)
        for action in ("of", "another", "gallery"):
            act(other, action)
        audit_anchors.drop(other, folder / audit_anchors.NAME)
        restore(other, folder, made)
        assert acts(other) == ["first", "backup.restore"]
        found = verify(other, folder)
        assert found.fault is None and found.anchors == 1, "the heads of the chain that is gone no longer count"
    for _ in range(3):
        act(filled.database, "lost")
    audit_anchors.drop(filled.database, filled.folder / audit_anchors.NAME)
    with fresh_database() as empty:  # the disk of the database was lost, the data folder was not
        restore(empty, filled.folder, made)
        assert acts(empty) == ["first", "backup.restore"]
        assert verify(empty, filled.folder).fault is None
