"""The audit: written with the act or not at all, in one chain without gaps, and nothing in it changes unnoticed."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import exc, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from indexer import audit, audit_anchors, audit_verify, gallery
from indexer.audit import GENESIS, SYSTEM, Actor, Purpose, Wanted
from indexer.audit_verify import Verification
from indexer.database import Database, transaction
from indexer.errors import AuditUnavailable, InvalidAuditFile

ANNA = Actor("user", UUID(int=1), "anna")
CASE = UUID(int=7)


def write(database: Database, count: int = 1, actor: Actor = ANNA) -> None:
    for n in range(count):
        with transaction(database.engine) as session:
            audit.record(
                session,
                actor,
                "search.run",
                ("search", str(uuid4())),
                purpose=Purpose(CASE, f"missing person {n}"),
                checkpoint_id="3f2a9c51d07be846",
                detail={"results": n, "weights": [0.25, 1.0], "cameras": ["nörd", None, True]},
            )


def add_camera(database: Database, then: Callable[[], object] = lambda: None) -> None:
    with transaction(database.engine) as session:
        gallery.add_camera(session, "north")
        audit.record(session, ANNA, "camera.create", ("camera", "north"))
        then()


def verify(database: Database, folder: Path) -> Verification:
    return audit_verify.verify(database, folder / audit_anchors.NAME)


@contextmanager
def by_hand(database: Database) -> Iterator[Session]:
    """What somebody can do who owns the database."""
    with transaction(database.engine) as session:
        for table in ("audit_event", "audit_reason", "audit_head"):
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        session.execute(text("ALTER TABLE audit_reason DROP CONSTRAINT IF EXISTS audit_reason_seq_fkey"))
        session.execute(text("ALTER TABLE audit_reason DROP CONSTRAINT IF EXISTS audit_reason_both_check"))
        yield session


def change(database: Database, *statements: str) -> None:
    with by_hand(database) as session:
        for statement in statements:
            session.execute(text(statement))


# ------------------------------------------------------------------------------------------------------------ writing


def test_a_row_tells_who_did_what_when_and_why(database: Database) -> None:
    before = datetime.now(UTC)
    with transaction(database.engine) as session:
        audit.record(session, ANNA, "image.view", ("image", "17"), purpose=Purpose(CASE, "because"), detail={"n": 1})
        audit.record(session, SYSTEM, "backup.restore")
    with transaction(database.engine) as session:
        second, first = audit.events(session, Wanted())
    assert (first.seq, first.actor_kind, first.actor_id, first.actor_name) == (1, "user", ANNA.id, "anna")
    assert (first.action, first.object_kind, first.object_id) == ("image.view", "image", "17")
    assert (first.case_id, first.reason, first.detail) == (CASE, "because", {"n": 1})
    assert before <= first.at <= second.at
    assert (first.previous, second.previous) == (GENESIS, first.hash)
    assert (second.object_kind, second.case_id, second.reason, second.detail) == (None, None, None, {})


def test_the_hash_is_what_the_documentation_says(database: Database) -> None:
    """Worked out here with nothing but json and hashlib."""
    write(database, 2)
    with transaction(database.engine) as session:
        event = audit.events(session, Wanted())[0]
    row = event.as_json()
    links = {name: row.pop(name) for name in ("reason", "reason_salt", "previous", "hash")}
    row["detail"]["weights"] = [0.25, 1]  # a whole number is written as one
    content = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    inner = hashlib.sha256(content).digest()
    assert links["hash"] == hashlib.sha256(bytes.fromhex(links["previous"]) + inner).hexdigest()
    salted = bytes.fromhex(links["reason_salt"]) + links["reason"].encode()
    assert row["reason_digest"] == hashlib.sha256(salted).hexdigest()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # What PostgreSQL cannot hold is refused before: character zero and half surrogates.
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcü", max_size=3), inner),
    max_leaves=8,
)


@given(value=json_values)
def test_what_the_database_gives_back_has_the_same_canonical_form(value: Any) -> None:
    from tests.postgres_fixtures import never_committed

    with never_committed().connect() as connection:
        back = connection.scalar(text("SELECT CAST(:value AS jsonb)").columns(v=JSONB), {"value": json.dumps([value])})
    assert audit.canonical(back) == audit.canonical([value])


def test_an_act_that_is_rolled_back_leaves_no_row_and_no_gap(database: Database, tmp_path: Path) -> None:
    write(database, 2)
    with pytest.raises(ZeroDivisionError):
        add_camera(database, then=lambda: 1 // 0)
    write(database)
    found = verify(database, tmp_path)
    assert (found.rows, found.head.seq, found.fault) == (3, 3, None)
    with transaction(database.engine) as session:
        assert gallery.cameras(session) == []


def test_an_act_that_cannot_be_recorded_does_not_happen(database: Database) -> None:
    write(database)
    change(database, "DELETE FROM audit_head")  # so that the next row takes a number that is taken
    failures = audit.write_failures
    with pytest.raises(AuditUnavailable, match="not done"):
        add_camera(database)
    with transaction(database.engine) as session:
        assert gallery.cameras(session) == []
    assert audit.write_failures == failures + 1


def test_what_json_cannot_say_is_refused_and_counted(database: Database) -> None:
    with transaction(database.engine) as session:
        audit.record(session, ANNA, "search.run", detail={"id": CASE, "rows": (np.int64(3), 2.0)})
        assert audit.events(session, Wanted())[0].detail == {"id": str(CASE), "rows": [3, 2]}
    for detail in ({"a": float("nan")}, {"a": object()}, {"a": b"bytes"}):
        failures = audit.write_failures
        with pytest.raises(AuditUnavailable), transaction(database.engine) as session:
            audit.record(session, ANNA, "search.run", detail=detail)
        assert audit.write_failures == failures + 1


def test_writers_at_once_make_one_chain_without_gaps(database: Database, tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def some(n: int) -> None:
        start.wait()
        for k in range(20):
            with transaction(database.engine) as session:
                gallery.add_camera(session, f"c-{n}-{k}")
                audit.record(session, Actor("user", UUID(int=n + 1), f"u{n}"), "camera.create", ("camera", f"{n}-{k}"))
                if k % 5 == 4:
                    session.rollback()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(some, range(6)))
    found = verify(database, tmp_path)
    assert (found.rows, found.head.seq, found.fault) == (96, 96, None)
    with transaction(database.engine) as session:
        assert len(gallery.cameras(session)) == 96
        mine = audit.events(session, Wanted(actor="u3"), limit=100)
    assert [event.object_id for event in reversed(mine)] == [f"3-{k}" for k in range(20) if k % 5 != 4]


# ---------------------------------------------------------------------------------------------------------- tampering

TAMPERED = {
    "seq": "seq + 100",
    "at": "at + interval '1 microsecond'",
    "actor_kind": "'system'",
    "actor_id": "gen_random_uuid()",
    "actor_name": "actor_name || ' '",
    "action": "'image.view'",
    "object_kind": "'image'",
    "object_id": "NULL",
    "case_id": "NULL",
    "reason_digest": "repeat('0', 64)",
    "checkpoint_id": "NULL",
    "detail": "jsonb_set(detail, '{results}', '99')",
    "previous": "repeat('1', 64)",
    "hash": "repeat('2', 64)",
}
ROWS = 5


@pytest.mark.parametrize("column", TAMPERED)
def test_a_change_of_any_column_of_any_row_is_found_at_that_row(
    database: Database, tmp_path: Path, column: str
) -> None:
    with transaction(database.engine) as session:
        names = session.scalars(
            text("SELECT column_name FROM information_schema.columns WHERE table_name = 'audit_event'")
        )
        assert set(names) == set(TAMPERED), "a new column has to be covered by the hash"
    write(database, ROWS)
    for seq in range(1, ROWS + 1):
        change(
            database,
            "CREATE TABLE kept AS TABLE audit_event",
            f"UPDATE audit_event SET {column} = {TAMPERED[column]} WHERE seq = {seq}",
        )
        fault = verify(database, tmp_path).fault
        assert fault is not None and fault.seq == seq, (column, fault)
        change(database, "DELETE FROM audit_event", "INSERT INTO audit_event TABLE kept", "DROP TABLE kept")
    assert verify(database, tmp_path).fault is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_reason SET reason = reason || '!' WHERE seq = 3",
        "UPDATE audit_reason SET salt = repeat('0', 32) WHERE seq = 3",
        "UPDATE audit_reason SET salt = 'no salt' WHERE seq = 3",
        "UPDATE audit_reason SET salt = NULL WHERE seq = 3",
        "UPDATE audit_reason SET salt = NULL, reason = NULL WHERE seq = 3",
        "DELETE FROM audit_reason WHERE seq = 3",
        "UPDATE audit_reason SET seq = 5 - seq WHERE seq IN (2, 3)",
        "INSERT INTO audit_reason VALUES (3, repeat('0', 32), 'another')",
    ],
)
def test_a_change_of_a_reason_is_found(database: Database, tmp_path: Path, statement: str) -> None:
    write(database, 2)
    with transaction(database.engine) as session:
        purpose = None if statement.startswith("INSERT") else Purpose(reason="why")
        audit.record(session, ANNA, "export", purpose=purpose)
    write(database)
    if "5 - seq" in statement:
        change(database, "ALTER TABLE audit_reason DROP CONSTRAINT audit_reason_pkey")
    assert verify(database, tmp_path).fault is None
    change(database, statement)
    fault = verify(database, tmp_path).fault
    assert fault is not None and fault.seq in (2, 3), fault


SWAP = "UPDATE audit_event SET seq = {0} + {1} - seq WHERE seq IN ({0}, {1})"
DAMAGES = {
    "one removed": (["DELETE FROM audit_event WHERE seq = 3"], 3, "removed"),
    "the first removed": (["DELETE FROM audit_event WHERE seq = 1"], 1, "removed"),
    "the last removed": (["DELETE FROM audit_event WHERE seq = 5"], 5, "truncated"),
    "all removed": (["DELETE FROM audit_event"], 1, "truncated"),
    "two exchanged": (["ALTER TABLE audit_event DROP CONSTRAINT audit_event_pkey", SWAP.format(2, 4)], 2, "reordered"),
    "neighbours exchanged": (
        ["ALTER TABLE audit_event DROP CONSTRAINT audit_event_pkey", SWAP.format(2, 3)],
        2,
        "reordered",
    ),
    "removed and renumbered": (
        ["DELETE FROM audit_event WHERE seq = 3", "UPDATE audit_event SET seq = seq - 1 WHERE seq = 4"],
        3,
        "reordered",
    ),
    "one put in at the end": (
        [
            "INSERT INTO audit_event SELECT 6, at, actor_kind, actor_id, actor_name, action, object_kind, object_id,"
            " case_id, NULL, checkpoint_id, detail, hash, repeat('3', 64) FROM audit_event WHERE seq = 5"
        ],
        6,
        "inserted",
    ),
    "one put in before the first": (
        ["INSERT INTO audit_event SELECT 0, now(), 'user', NULL, 'x', 'y', NULL, NULL, NULL, NULL, NULL, '{}', '', ''"],
        0,
        "inserted",
    ),
    "the head moved back": (["UPDATE audit_head SET seq = 4"], 4, "changed"),
    "the head moved back with its hash": (
        ["UPDATE audit_head SET seq = 4, hash = (SELECT hash FROM audit_event WHERE seq = 4)"],
        5,
        "inserted",
    ),
    "the head removed": (["DELETE FROM audit_head"], 1, "inserted"),
    "another hash at the head": (["UPDATE audit_head SET hash = repeat('4', 64)"], 5, "changed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_that_are_missing_moved_or_too_many_are_found(database: Database, tmp_path: Path, damage: str) -> None:
    statements, seq, kind = DAMAGES[damage]
    write(database, ROWS)
    change(database, "ALTER TABLE audit_reason DROP CONSTRAINT IF EXISTS audit_reason_seq_fkey")
    assert verify(database, tmp_path).fault is None
    change(database, *statements)
    fault = verify(database, tmp_path).fault
    assert fault is not None and (fault.seq, fault.kind) == (seq, kind), fault


def rewrite(database: Database, rows: int) -> None:
    """A whole new chain, sound in itself, head and all."""
    change(database, "DELETE FROM audit_reason", "DELETE FROM audit_event", "DELETE FROM audit_head")
    write(database, rows)


def test_a_chain_that_was_rewritten_as_a_whole_disagrees_with_the_heads_on_disk(
    database: Database, tmp_path: Path
) -> None:
    anchors = tmp_path / audit_anchors.NAME
    for _ in range(2):
        write(database, 2)
        audit_anchors.drop(database, anchors)
        audit_anchors.drop(database, anchors)  # nothing new: no second line
    write(database)
    assert len(anchors.read_text().splitlines()) == 2
    found = verify(database, tmp_path)
    assert (found.fault, found.anchors, found.rows) == (None, 2, 5)
    rewrite(database, 5)
    fault = verify(database, tmp_path).fault
    assert fault is not None and (fault.seq, fault.kind) == (2, "anchor")
    rewrite(database, 1)
    fault = verify(database, tmp_path).fault
    assert fault is not None and (fault.seq, fault.kind) == (2, "truncated")
    audit_anchors.drop(database, anchors)  # what a start would write does not hide it
    fault = verify(database, tmp_path).fault
    assert fault is not None
    audit_anchors.drop(database, anchors, restored=True)
    assert verify(database, tmp_path).fault is None


def test_a_damaged_file_of_heads_is_said_and_a_cut_line_is_forgiven(database: Database, tmp_path: Path) -> None:
    anchors = tmp_path / audit_anchors.NAME
    write(database)
    audit_anchors.drop(database, anchors)
    with anchors.open("a") as file:
        file.write('{"seq": 2, "ha')  # a crash in the middle of a line
    assert verify(database, tmp_path).fault is None
    write(database)
    audit_anchors.drop(database, anchors)
    assert verify(database, tmp_path).anchors == 2
    anchors.write_text("no line\n" + anchors.read_text())
    fault = verify(database, tmp_path).fault
    assert fault is not None and fault.kind == "anchor" and "Line 1" in fault.detail


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET action = 'x'",
        "DELETE FROM audit_event",
        "TRUNCATE audit_event CASCADE",
        "DELETE FROM audit_head",
        "TRUNCATE audit_head",
        "UPDATE audit_reason SET reason = 'x'",
        "DELETE FROM audit_reason",
        "TRUNCATE audit_reason",
    ],
)
def test_the_database_refuses_changes(database: Database, statement: str) -> None:
    write(database)
    with pytest.raises(exc.ProgrammingError, match="audit"), transaction(database.engine) as session:
        session.execute(text(statement))


# -------------------------------------------------------------------------------------------------- erasing and files


def test_an_erased_reason_leaves_the_chain_whole(database: Database, tmp_path: Path) -> None:
    write(database, 3)
    with transaction(database.engine) as session:
        assert audit.forget_reasons(session, ["person 1", "nobody"]) == 1
        assert audit.forget_reasons(session, []) == 0
    found = verify(database, tmp_path)
    assert (found.fault, found.rows, found.reasons_erased) == (None, 4, 1)
    with transaction(database.engine) as session:
        reasons = [event.reason for event in audit.events(session, Wanted(action="search.run"))]
    assert reasons == ["missing person 2", None, "missing person 0"]


def exported(database: Database, path: Path) -> list[str]:
    path.write_text("".join(audit_verify.export(database)))
    return path.read_text().splitlines(keepends=True)


def test_an_export_is_checked_without_the_database(database: Database, tmp_path: Path) -> None:
    write(database, ROWS)
    path = tmp_path / "audit.jsonl"
    written = exported(database, path)
    found = audit_verify.verify_file(path)
    assert (found.rows, found.fault) == (ROWS, None)
    path.write_text("".join(written[2:]))
    assert audit_verify.verify_file(path).fault is None, "a later part is whole in itself"
    links = [json.dumps({"seq": n, "digest": audit.digest(_content(written[n - 1]))}) + "\n" for n in (2, 3)]
    path.write_text("".join([written[0], *links, *written[3:]]))
    assert audit_verify.verify_file(path).fault is None, "rows that are not shown are followed by their digest"

    damages = {
        "cut short": (written[:-1], ROWS + 1),
        "the last row missing": ([*written[:-2], written[-1]], ROWS),
        "one missing": ([*written[:2], *written[3:]], 3),
        "exchanged": ([written[0], written[2], written[1], *written[3:]], 2),
        "twice": ([*written[:3], *written[2:]], 3),
        "more behind the end": ([*written, written[-2]], ROWS + 1),
        "a word changed": ([line.replace("person 2", "person 9") for line in written], 3),
        "a number changed": ([line.replace('"results": 2', '"results": 3') for line in written], 3),
        "another field": ([written[0].replace("{", '{"more": 1, ', 1), *written[1:]], 1),
        "a wrong digest": ([written[0], links[1].replace(":3,", ":2,").replace(" 3,", " 2,"), *written[2:]], 3),
    }
    for damage, (lines, seq) in damages.items():
        path.write_text("".join(lines))
        fault = audit_verify.verify_file(path).fault
        assert fault is not None and fault.seq == seq, (damage, fault)
    for nonsense in ("no json\n", '{"seq": 1}\n', "[]\n"):
        path.write_text(nonsense)
        with pytest.raises(InvalidAuditFile, match="Line 1"):
            audit_verify.verify_file(path)


def _content(line: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)
    return {name: value for name, value in row.items() if name not in ("reason", "reason_salt", "previous", "hash")}


def test_filters_find_what_they_say(database: Database) -> None:
    with transaction(database.engine) as session:
        audit.record(session, ANNA, "image.view", ("image", "1"))
        audit.record(session, Actor("user", UUID(int=2), "bert"), "image.view", ("image", "2"))
        audit.record(session, ANNA, "case.create", ("case", str(CASE)), purpose=Purpose(CASE))
        audit.record(session, SYSTEM, "search.run", ("search", str(UUID(int=5))))
    with transaction(database.engine) as session:

        def found(**wanted: Any) -> list[int]:
            return [event.seq for event in audit.events(session, Wanted(**wanted))]

        assert found() == [4, 3, 2, 1]
        assert found(actor="anna") == found(actor=str(ANNA.id)) == [3, 1]
        assert found(action="image.view") == found(object_kind="image") == [2, 1]
        assert found(object_id="2") == [2] and found(case_id=CASE) == [3]
        moments = [event.at for event in audit.events(session, Wanted())]
        assert found(since=moments[1]) == [4, 3] and found(until=moments[1]) == [2, 1]
        assert [event.seq for event in audit.events(session, Wanted(), before=3, limit=1)] == [2]
        assert audit.about_case(session, CASE, [UUID(int=5)], until=4) == [3, 4]
        assert audit.about_case(session, CASE, [], until=2) == []
