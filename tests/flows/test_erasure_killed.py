"""kill -9 in the middle of an erasure: the next start completes it, whatever was left to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indexer import journal
from indexer.database import Database
from tests.flows.processes import ROOT, wait_until
from tests.postgres_fixtures import database
from tests.small_gallery import Gallery, metadata, picture, sha256

__all__ = ["database"]

IMAGES = 8
MOMENTS = {  # a question whose answer becomes true on the way
    "decided": "SELECT count(*) > 0 FROM erasure",
    "some rows gone": f"SELECT count(*) < {IMAGES} FROM image WHERE identity = 'zelda-q'",
    "rows gone, some files not": f"SELECT count(*) BETWEEN 1 AND {IMAGES - 2} FROM erasure_file"
    " WHERE NOT EXISTS (SELECT FROM image WHERE identity = 'zelda-q')",
}


@contextmanager
def erasing(filled: Gallery) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.flows.erasing_process", filled.database.url, str(filled.folder), "zelda-q"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_erasure_that_was_killed_is_completed(database: Database, tmp_path: Path, moment: str) -> None:
    filled = Gallery(database, tmp_path / "data")
    zelda = [(n, metadata(f"ext-zelda-{n}", "zelda-q")) for n in range(IMAGES)]
    ids = filled.add(*zelda, (100, metadata("ext-bob-1", "bob-r")))
    filled.freeze(ids, {"query": {"text": "somebody"}})
    with erasing(filled) as process:
        wait_until(lambda: filled.values(MOMENTS[moment]) == [True], moment)
        process.kill()
        process.wait()
    assert filled.values("SELECT state FROM erasure") == ["running"], "it was killed in the middle"
    assert filled.traces_of(sha256(IMAGES - 1), "ext-zelda-7") or moment.startswith("rows gone")

    wait_until(lambda: bool(filled.eraser.resume()), "its lock ended with it")

    assert filled.values("SELECT state FROM erasure") == ["done"]
    assert filled.values("SELECT counts ->> 'images' FROM erasure") == [str(IMAGES)]
    assert filled.values("SELECT counts ->> 'files' FROM erasure") == [str(IMAGES)]
    needles = [needle for n in range(IMAGES) for needle in (sha256(n), picture(n))]
    assert filled.traces_of("zelda", *needles) == []
    assert filled.values("SELECT external_id FROM image") == ["ext-bob-1"]
    assert len(filled.replica.state.index) == 1
    assert {id for entry in journal.read(filled.journal) for id in entry.image_ids} == set(ids[:IMAGES])
