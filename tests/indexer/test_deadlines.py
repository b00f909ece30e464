"""Deadlines: who knows of them, and what the database is allowed."""

from __future__ import annotations

import threading
from contextvars import copy_context

import pytest
from sqlalchemy import text

from indexer import gallery
from indexer.database import STATEMENT_SECONDS, Database, transaction
from indexer.deadlines import check, deadline, remaining
from indexer.errors import DatabaseUnavailable, DeadlinePassed


def test_without_one_there_is_all_the_time_there_is() -> None:
    assert remaining() is None
    check()


def test_it_lasts_as_long_as_its_block_and_the_outer_one_comes_back() -> None:
    with deadline(1000):
        with deadline(10):
            left = remaining()
            assert left is not None and 0 < left <= 10
        left = remaining()
        assert left is not None and 10 < left <= 1000
        check()
    assert remaining() is None


def test_once_it_has_passed_nothing_is_begun(database: Database) -> None:
    with deadline(0):
        assert remaining() == 0
        with pytest.raises(DeadlinePassed, match="try again"):
            check()
        with pytest.raises(DeadlinePassed), transaction(database.engine):
            pytest.fail("the transaction was begun")


def test_it_follows_a_copied_context_and_no_other_thread() -> None:
    seen: list[float | None] = []
    with deadline(1000):
        copied = copy_context()
        threads = [threading.Thread(target=lambda: seen.append(remaining()))]
        threads += [threading.Thread(target=copied.run, args=[lambda: seen.append(remaining())])]
        for thread in threads:
            thread.start()
            thread.join()
    assert seen[0] is None and seen[1] is not None and 0 < seen[1] <= 1000


def timeout(database: Database) -> str:
    with transaction(database.engine) as session:
        return str(session.scalar(text("SHOW statement_timeout")))


def test_a_statement_gets_what_is_left_and_never_more_than_any(database: Database) -> None:
    usual = f"{STATEMENT_SECONDS}s"
    assert timeout(database) == usual
    with deadline(STATEMENT_SECONDS * 10):
        assert timeout(database) == usual
    with deadline(5):
        allowed = timeout(database)
        assert allowed.endswith("ms") and 0 < int(allowed.removesuffix("ms")) < 5000
    assert timeout(database) == usual  # the connection goes back as it was


def test_a_statement_that_takes_too_long_says_which_patience_ended(database: Database) -> None:
    def slow(milliseconds: int | None = None) -> None:
        with transaction(database.engine) as session:
            if milliseconds is not None:
                session.execute(text(f"SET LOCAL statement_timeout = {milliseconds}"))
            session.execute(text("SELECT pg_sleep(30)"))

    with deadline(0.05), pytest.raises(DeadlinePassed):
        slow()
    with pytest.raises(DatabaseUnavailable, match="took too long"):
        slow(milliseconds=50)


def test_what_comes_too_late_is_not_committed(database: Database) -> None:
    def late() -> None:
        with transaction(database.engine) as session:
            gallery.add_camera(session, "late")
            while remaining():
                threading.Event().wait(0.01)

    with deadline(0.5), pytest.raises(DeadlinePassed):
        late()
    with transaction(database.engine) as session:
        assert gallery.unknown_cameras(session, ["late"]) == ["late"]


def test_a_transaction_may_still_ask_for_one_moment(database: Database) -> None:
    with deadline(60), transaction(database.engine) as session:
        gallery.stay_at_one_moment(session)
        assert session.scalar(text("SHOW transaction_isolation")) == "repeatable read"
