"""Erasures: everything of a person goes, nothing of others, holds win, and the receipt holds none of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from indexer import checkpoints, gallery, gate, holds, index, journal, retention, traces
from indexer.checkpoints import Missing
from indexer.database import Database, transaction
from indexer.erasure import Eraser, only_one
from indexer.errors import JournalDamaged, NotFound, ReasonNamesPerson, UnderLegalHold, UnknownCamera
from indexer.filters import Condition, ImageFilter
from indexer.gate import Report
from indexer.holds import NewHold
from indexer.idempotency import remember
from indexer.images import DEFAULT_LIMITS, ImageLimits, ImageStore, StoredImage
from indexer.index import SPECS
from indexer.intake import ingest_entries
from indexer.items import Entry
from indexer.metadata import ItemMetadata
from indexer.replica import Replica
from indexer.snapshots import FOLDER
from indexer.traces import Selection
from tests.small_gallery import DAY, ENCODER, OTHER, Gallery, entry, metadata, picture, sha256

DAY_LONG = timedelta(days=1)


@pytest.fixture
def filled(database: Database, tmp_path: Path) -> Gallery:
    return Gallery(database, tmp_path)


def test_nothing_is_left_of_an_erased_person_and_all_of_the_others(filled: Gallery) -> None:
    ids = filled.add(
        (1, metadata("ext-zelda-1", "zelda-q", track_id="track-zelda")),
        (2, metadata("ext-bob-1", "bob-r")),
        (3, metadata("ext-zelda-2", "zelda-q", attributes={"note": "zelda-q again"})),
    )
    # A line that was rejected for the same name, and one of a second delivery of the same picture.
    entries = [
        entry(0, 9, metadata("ext-zelda-1")),
        entry(1, 1, metadata("ext-zelda-1", "zelda-q")),
    ]
    second = ingest_entries(filled.database, filled.store, entries, "a test")
    for seed in (1, 2, 3):
        filled.store.thumbnail(sha256(seed), 24)
    ranking = filled.freeze(ids, {"query": {"text": "somebody"}})
    asked_by_name = filled.freeze(ids[:1], {"query": {"text": "x"}, "filter": {"identity": {"eq": "zelda-q"}}})
    asked_in_text = filled.freeze([], {"query": {"text": "is this Zelda-Q"}})
    asked_by_image = filled.freeze([], {"query": {"image": {"image_id": str(ids[0])}}})
    vector = ENCODER.embed_images([filled.store.open(sha256(1))])[0]
    assert filled.traces_of("zelda", sha256(1), picture(1)), "the scan can see"

    counted = filled.eraser.count(Selection(identity="zelda-q"))
    assert (counted["images"], counted["embeddings"], counted["files"], counted["held"]) == (2, 4, 2, 0)
    receipt = filled.eraser.erase(Selection(identity="zelda-q"), "asked for by the person")

    assert receipt.state == "done" and receipt.proof is not None and "index" in receipt.proof
    assert receipt.selection == {"by": "identity"}
    expected = {"images": 2, "embeddings": 4, "files": 2, "searches": 3, "rankings": 1, "ledger_lines": 4}
    assert {name: receipt.counts[name] for name in expected} == expected
    assert filled.traces_of("zelda", sha256(1), sha256(3), picture(1), picture(3), vector.tobytes().hex()) == []
    assert filled.values("SELECT count(*) FROM erasure_file") == [0]

    assert filled.values("SELECT external_id FROM image") == ["ext-bob-1"]
    assert filled.values("SELECT count(*) FROM embedding WHERE state = 'ready'") == [2]
    assert filled.traces_of("bob-r"), "others stay"
    assert filled.store.files_of(sha256(2))
    rows = filled.ranked(ranking)
    assert len(rows) == 3 and rows[0] == rows[2] == 0, "places in the ranking stay"
    assert filled.values("SELECT row FROM image") == [rows[1]]
    for search_id in (asked_by_name, asked_in_text, asked_by_image):
        assert filled.kept(search_id).request == {} and filled.kept(search_id).expires_at < datetime.now(UTC)
    with transaction(filled.database.engine) as session:
        items = gallery.ingestion_items(session, second)
        assert [(item.state, item.external_id, item.file) for item in items] == [
            ("rejected", None, None),
            ("duplicate", None, None),
        ]
        assert items[0].reason == "The image was erased."
    assert len(filled.replica.state.index) == 1


@pytest.mark.parametrize("spec", SPECS)
def test_no_vector_of_an_erased_person_is_left_on_the_disk(
    spec: str, filled: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "COMPRESSED_FROM", 2)
    ids = filled.add(*((seed, metadata(f"j-{seed}", "jana" if seed == 2 else None)) for seed in range(1, 5)))
    folder = filled.folder / FOLDER
    replicas = [Replica(filled.database, encoder, spec, snapshots=folder) for encoder in (ENCODER, OTHER)]
    for replica in replicas:
        replica.load()
        replica.save()
    block = next((folder / ENCODER.checkpoint_id).glob("*.block"))
    block.with_suffix(".new").write_bytes(block.read_bytes())  # what a killed process left
    picture_2 = filled.store.open(sha256(2))
    secrets = [encoder.embed_images([picture_2])[0].astype("<f4").tobytes() for encoder in (ENCODER, OTHER)]

    def kept(secret: bytes) -> list[Path]:
        return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]

    assert [len(kept(secret)) for secret in secrets] == [2, 1], "the scan can see"
    filled.add((5, metadata("j-5")))  # a block of its own, in the snapshot of the first
    replicas[0].refresh()
    replicas[0].save()
    eraser = Eraser(filled.database, filled.store, filled.journal, replicas[0])
    receipt = eraser.erase(Selection(identity="jana"), "asked for by the person")
    assert receipt.state == "done" and receipt.proof is not None and "in its copy on disk" in receipt.proof
    assert [kept(secret) for secret in secrets] == [[], []]
    assert all(secrets[0] not in block.vectors.tobytes() for block in replicas[0].state.index.blocks)

    left = sorted(filled.values("SELECT row FROM image"))
    assert len(left) == len(ids)
    for replica in replicas:  # killed just now: what is left of the snapshot is used, and completed
        encoder = replica.state.encoder
        with capture_logs() as logs:
            again = Replica(filled.database, encoder, spec, snapshots=folder)
            again.load()
        assert [line["event"] for line in logs] == ["index_loaded"]
        assert sorted(again.state.index.rows.tolist()) == left
    replicas[0].save()
    with capture_logs() as logs:
        Replica(filled.database, ENCODER, spec, snapshots=folder).load()
    assert [line["read_from_database"] for line in logs] == [0]


def test_what_an_ingestion_says_of_an_erased_person_is_blanked(filled: Gallery) -> None:
    store, entries = filled.store, [entry(0, 1, metadata("k-one", "kora-v")), entry(1, 2, metadata("k-two"))]
    named = ingest_entries(
        filled.database, store, entries, "manifest /srv/Kora-V/metadata.jsonl", register_cameras=True
    )
    other = ingest_entries(filled.database, store, [], "zip over HTTP")
    with transaction(filled.database.engine) as session:
        session.execute(
            text("""UPDATE ingestion SET error = 'There are two files named "k-one.png".' WHERE id = :id"""),
            {"id": other},
        )
        assert remember(session, "ingestions", "kora-v-17", "f", named) == named
        assert remember(session, "ingestions", "delivery-17", "f", named) == named
    assert len(filled.traces_of("kora-v", "k-one")) == 6, "the scan can see"

    receipt = filled.eraser.erase(Selection(identity="kora-v"), "asked for by the person")
    assert (receipt.counts["ingestions"], receipt.counts["request_keys"]) == (2, 1)
    assert filled.traces_of("kora-v", "k-one") == []
    with transaction(filled.database.engine) as session:
        found = [gallery.ingestion(session, id) for id in (named, other)]
        assert [(one.source, one.error) for one in found if one is not None] == [
            ("It named an image that was erased.", None),
            ("zip over HTTP", "It named an image that was erased."),
        ]
        # Sent again, the request finds its ingestion, and brings nobody back.
        assert remember(session, "ingestions", "delivery-17", "f", uuid4()) == named
        assert [item.external_id for item in gallery.ingestion_items(session, named)] == [None, "k-two"]
        session.execute(text("UPDATE idempotency_key SET expires_at = now()"))
    retention.sweep(filled.eraser, 3600)
    assert filled.values("SELECT count(*) FROM idempotency_key") == [0]


def test_a_file_two_images_show_stays_for_the_other(filled: Gallery) -> None:
    first, second = filled.add((1, metadata("a-one", camera="north")), (1, metadata("a-two", camera="south")))
    receipt = filled.eraser.erase(Selection(image_ids=(first,)), "by mistake")
    assert (receipt.counts["images"], receipt.counts["files_shared"], receipt.counts.get("files", 0)) == (1, 1, 0)
    assert filled.store.path(sha256(1)).read_bytes() == picture(1)
    receipt = filled.eraser.erase(Selection(external_ids=("a-two",)), "by mistake")
    assert receipt.counts["files"] == 1
    assert filled.traces_of("a-one", "a-two", sha256(1), str(second)) == [
        path for path in filled.traces_of(str(second)) if "erased_image" in path or path.endswith(journal.NAME)
    ]


def test_an_identity_that_lives_on_elsewhere_is_not_forgotten(filled: Gallery) -> None:
    ids = filled.add((1, metadata("c-one", "carol")), (2, metadata("c-two", "carol")))
    search = filled.freeze(ids, {"filter": {"identity": {"eq": "carol"}}})
    filled.eraser.erase(Selection(image_ids=(ids[0],)), "blurred")
    assert filled.kept(search).request != {}
    assert [row == 0 for row in filled.ranked(search)] == [True, False]
    filled.eraser.erase(Selection(image_ids=(ids[1],)), "blurred")
    assert filled.kept(search).request == {}


def test_by_filter_and_what_nobody_has(filled: Gallery) -> None:
    filled.add((1, metadata("d-one", camera="north")), (2, metadata("d-two", camera="south")))
    wanted = ImageFilter(all=(Condition("camera_id", "eq", "south"),))
    receipt = filled.eraser.erase(Selection(filter=wanted), "lease ended")
    assert receipt.counts["images"] == 1 and receipt.selection == {"by": "filter", "conditions": ["camera_id eq"]}
    assert filled.values("SELECT external_id FROM image") == ["d-one"]
    again = filled.eraser.erase(Selection(external_ids=("d-two",)), "to be sure")
    assert again.state == "done" and again.counts["images"] == 0
    with transaction(filled.database.engine) as session:
        assert [one.id for one in traces.erasures(session)] == [again.id, receipt.id]
        assert [one.id for one in traces.erasures(session, before=again.id, limit=1)] == [receipt.id]


def test_the_reason_must_not_name_the_person(filled: Gallery) -> None:
    filled.add((1, metadata("e-one", "erika")))
    with pytest.raises(ReasonNamesPerson, match="erika"):
        filled.eraser.erase(Selection(external_ids=("e-one",)), "Erika asked for it")
    assert filled.values("SELECT count(*) FROM erasure") == [0] and filled.values("SELECT count(*) FROM image") == [1]


def test_a_hold_wins_over_erasures_and_retention(filled: Gallery) -> None:
    ids = filled.add((1, metadata("f-one", "fred")), (2, metadata("f-two")), (3, metadata("f-three", camera="south")))
    with transaction(filled.database.engine) as session:
        retention.set_policy(session, None, 1)
        by_identity = holds.place_hold(session, NewHold("order 1", identity="fred"))
        by_camera = holds.place_hold(
            session, NewHold("order 2", camera_id="south", captured_from=DAY, captured_until=DAY + timedelta(hours=1))
        )
        by_id = holds.place_hold(session, NewHold("order 3", image_ids=(ids[1],)))
        assert [hold.images for hold in holds.legal_holds(session)] == [1, 1, 1]
    assert filled.eraser.count(Selection(image_ids=tuple(ids)))["held"] == 3
    for id in ids:
        with pytest.raises(UnderLegalHold, match="The image is under legal hold"):
            filled.eraser.erase(Selection(image_ids=(id,)), "no")
    with pytest.raises(UnderLegalHold, match=f"3 of the 3 images are under legal hold {by_identity.id}"):
        filled.eraser.erase(Selection(image_ids=tuple(ids)), "no")
    assert retention.erase_overdue(filled.eraser) == 0
    assert filled.values("SELECT count(*) FROM image") == [3]
    for hold in (by_identity, by_camera, by_id):
        with transaction(filled.database.engine) as session:
            holds.lift_hold(session, hold.id)
    swept = retention.sweep(filled.eraser, 0)
    assert swept is not None and swept.erased == 3 and swept.orphans == 0
    with transaction(filled.database.engine) as session:
        assert [one.selection for one in traces.erasures(session)] == [{"by": "retention"}]
        with pytest.raises(NotFound):
            holds.lift_hold(session, by_id.id)
        with pytest.raises(NotFound, match=str(ids[0])):
            holds.place_hold(session, NewHold("order 4", image_ids=(ids[0],)))
        with pytest.raises(UnknownCamera):
            holds.place_hold(session, NewHold("order 5", camera_id="nroth"))


def test_what_is_held_is_not_moved_out_of_its_hold(filled: Gallery) -> None:
    filled.add((1, metadata("g-one", "greta")), (2, metadata("g-two", "greta-too")), (3, metadata("g-three", "gus")))
    with transaction(filled.database.engine) as session:
        hold = holds.place_hold(session, NewHold("order 1", identity="greta"))
        holds.place_hold(
            session, NewHold("order 2", camera_id="north", captured_from=DAY, captured_until=DAY + DAY_LONG)
        )
        later = DAY + 2 * DAY_LONG
        session.execute(text("UPDATE image SET captured_at = :later WHERE external_id <> 'g-two'"), {"later": later})
    lines = [
        Entry(0, metadata=metadata("g-one"), changes=frozenset({"identity"})),
        Entry(1, metadata=metadata("g-two", camera="south"), changes=frozenset({"camera_id"})),
        Entry(
            2,
            metadata=replace(metadata("g-two", "greta-too"), captured_at=None),
            changes=frozenset({"captured_at"}),
        ),
        Entry(3, metadata=metadata("g-three", "greta"), changes=frozenset({"identity"})),
        Entry(4, metadata=metadata("g-one", "greta", tags=("seen",)), changes=frozenset({"identity", "tags"})),
        Entry(5, metadata=metadata("g-three"), changes=frozenset({"identity"})),
    ]
    changed = ingest_entries(filled.database, filled.store, lines, "a test", register_cameras=True)
    with transaction(filled.database.engine) as session:
        items = gallery.ingestion_items(session, changed)
    states = ["rejected", "rejected", "rejected", "indexed", "indexed", "rejected"]
    assert [item.state for item in items] == states
    refused = [item for item in items if item.state == "rejected"]
    assert {item.code for item in refused} == {"legal_hold"}
    assert refused[0].reason is not None and f"legal hold {hold.id}" in refused[0].reason
    identities = filled.values("SELECT identity FROM image ORDER BY row")
    assert identities == ["greta", "greta-too", "greta"], "into a hold anybody may come"
    assert filled.values("SELECT tags FROM image ORDER BY row") == [["seen"], [], []]


def test_a_report_of_the_gate_forgets_erased_images(filled: Gallery) -> None:
    ids = filled.add((1, metadata("h-one", "hilda")), (2, metadata("h-two", "hugo")))
    there = [Missing(ids[0], "failed", "hilda's image is broken"), Missing(ids[1], "failed", "this one, too")]
    report = Report(OTHER.checkpoint_id, ENCODER.checkpoint_id, 2, 0, there, {})
    with transaction(filled.database.engine) as session:
        gate.keep(session, report)
    receipt = filled.eraser.erase(Selection(identity="hilda"), "asked for by the person")
    assert receipt.state == "done" and receipt.counts["gate_reports"] == 1
    with transaction(filled.database.engine) as session:
        gate.keep(session, report)  # a report that was being made meanwhile
        kept = checkpoints.events(session, OTHER.checkpoint_id, "gate")
    assert [[one["image_id"] for one in event.detail["missing_images"]] for event in kept] == [[str(ids[1])]] * 2
    assert filled.traces_of("hilda") == []
    filled.eraser.erase(Selection(identity="hugo"), "asked for by the person")
    with transaction(filled.database.engine) as session:
        kept = checkpoints.events(session, OTHER.checkpoint_id, "gate")
    assert [event.detail["missing_images"] for event in kept] == [[], []]


def test_retention_is_that_of_the_camera_or_the_default(filled: Gallery) -> None:
    now = datetime.now(UTC)

    def aged(name: str, camera: str | None, days: float | None) -> ItemMetadata:
        moment = None if days is None else now - timedelta(days=days)
        return ItemMetadata(external_id=name, camera_id=camera, captured_at=moment)

    filled.add(
        (1, aged("north-new", "north", 9)),
        (2, aged("north-old", "north", 11)),
        (3, aged("south-new", "south", 29)),
        (4, aged("south-old", "south", 31)),
        (5, aged("nowhere-old", None, 31)),
        (6, aged("unknown-time", None, None)),
    )
    with transaction(filled.database.engine) as session:
        retention.set_policy(session, "north", 5)
        retention.set_policy(session, "north", 10)
        retention.set_policy(session, None, 30)
        assert [(policy.camera_id, policy.days) for policy in retention.policies(session)] == [
            (None, 30),
            ("north", 10),
        ]
        with pytest.raises(UnknownCamera):
            retention.set_policy(session, "nroth", 5)
        with pytest.raises(NotFound):
            retention.remove_policy(session, "south")
    assert retention.erase_overdue(filled.eraser) == 3
    left = "SELECT external_id FROM image ORDER BY 1"
    assert filled.values(left) == ["north-new", "south-new", "unknown-time"]
    with transaction(filled.database.engine) as session:
        session.execute(text("UPDATE image SET created_at = now() - interval '31 days' WHERE captured_at IS NULL"))
        retention.remove_policy(session, "north")
    assert retention.erase_overdue(filled.eraser) == 1, "when it was added counts where nothing else is known"
    assert filled.values(left) == ["north-new", "south-new"]


def test_a_sweep_removes_orphans_past_their_grace_and_only_one_sweeps(filled: Gallery) -> None:
    filled.add((1, metadata("g-one")))
    filled.store.thumbnail(sha256(1), 24)
    filled.store.save(picture(2))
    filled.store.thumbnail(sha256(2), 24)
    swept = retention.sweep(filled.eraser, 3600)
    assert swept is not None and swept.orphans == 0, "an intake may be about to add its row"
    search = filled.freeze([], {"query": {"text": "x"}})
    with transaction(filled.database.engine) as session:
        session.execute(text("UPDATE search SET expires_at = now() - interval '2 hours'"))
    with only_one(filled.database.engine, retention.SWEEP_LOCK) as alone:
        assert alone and retention.sweep(filled.eraser, 0) is None
    swept = retention.sweep(filled.eraser, 0)
    assert swept is not None and (swept.orphans, swept.searches) == (2, 1)
    assert filled.kept(search).request == {}
    assert {path.name[:64] for path in filled.store.files()} == {sha256(1)}


def test_a_file_taken_between_its_saving_and_its_row_is_saved_again(filled: Gallery) -> None:
    class Swept(ImageStore):
        """A sweep comes by just after the first saving."""

        saved = 0

        def save(self, data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> StoredImage:
            stored = super().save(data, limits)
            self.saved += 1
            if self.saved == 1:
                assert retention.remove_orphans(filled.eraser, 0) == 1
            return stored

    store = Swept(filled.store.root)
    ingest_entries(filled.database, store, [entry(0, 1, metadata("i-one"))], "a test", register_cameras=True)
    assert store.saved == 2
    assert filled.store.path(sha256(1)).read_bytes() == picture(1)
    assert retention.remove_orphans(filled.eraser, 0) == 0


def test_what_was_decided_is_completed_by_the_next_start(filled: Gallery) -> None:
    ids = filled.add((1, metadata("h-one", "hanna")), (2, metadata("h-two", "hanna")))
    id = uuid4()
    with transaction(filled.database.engine) as session:  # ... and here the process is killed
        traces.decide(session, id, Selection(identity="hanna").images(), "why not", {"by": "identity"}, ["hanna"])
    with transaction(filled.database.engine) as session:  # another one, after its rows were gone and its files not
        traces.erase_batch(session, id, 1)
    assert filled.store.files_of(sha256(1))
    (receipt,) = Eraser(filled.database, filled.store, filled.journal, filled.replica).resume()
    assert (receipt.state, receipt.counts["images"], receipt.counts["files"]) == ("done", 2, 2)
    assert filled.traces_of("hanna", "h-one", picture(1), picture(2)) == []
    assert filled.eraser.resume() == []
    assert {image for entry in journal.read(filled.journal) for image in entry.image_ids} == set(ids)


def test_the_journal_takes_off_a_line_cut_short_and_refuses_a_damaged_one(tmp_path: Path) -> None:
    path, erasure, images = tmp_path / journal.NAME, uuid4(), [uuid4() for _ in range(2500)]
    entries = list(journal.entries_of(erasure, DAY, "reason", {"by": "identity"}, images))
    assert [len(entry.image_ids) for entry in entries] == [1000, 1000, 500]
    journal.append(path, entries)
    with path.open("ab") as file:
        file.write(b'{"erasure": "cut sho')
    assert journal.read(path) == entries
    more = list(journal.entries_of(uuid4(), DAY, "reason", {}, []))
    journal.append(path, [*more, entries[0]])
    assert journal.read(path) == [*entries, *more], "each once"
    assert all(json.loads(line) for line in path.read_text().splitlines())
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:40] + "\n" + lines[2])
    with pytest.raises(JournalDamaged, match="Line 2 of"):
        journal.read(path)
