"""The start of the service: the index from its snapshot, against all vectors from PostgreSQL and reading the files."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
from rich.table import Table

from benchmarks.timing import medians
from indexer import gallery
from indexer.database import Database, open_database, transaction
from indexer.replica import Replica
from indexer.settings import GallerySettings

ROWS, DIM = 50_000, 512
CHECKPOINT = "benchmark"


@dataclass(frozen=True)
class NoEncoder:
    """As much of an encoder as the replica asks for."""

    checkpoint_id: str = CHECKPOINT
    dim: int = DIM


def table() -> Table:
    with tempfile.TemporaryDirectory() as folder, open_database(GallerySettings(data_dir=Path(folder))) as database:
        fill(database)
        snapshots = Path(folder, "index")
        first = Replica(database, NoEncoder(), snapshots=snapshots)
        first.load()
        first.save()
        files = sorted((snapshots / CHECKPOINT).iterdir())

        def read() -> None:
            assert sum(len(path.read_bytes()) for path in files) > ROWS * DIM * 4

        def load(where: Path | None) -> None:
            replica = Replica(database, NoEncoder(), snapshots=where)
            replica.load()
            assert len(replica.state.index) == ROWS

        sides = {"read": read, "snapshot": lambda: load(snapshots), "database": lambda: load(None)}
        seconds = medians(sides)

    title = f"{ROWS:,} x {DIM}, files in the page cache"
    out = Table("start", "ms", "against PostgreSQL", "against reading", title=title)
    names = {"read": "reading the files", "snapshot": "from the snapshot", "database": "from PostgreSQL"}
    for side, name in names.items():
        against = [f"{seconds[reference] / seconds[side]:.2f}" for reference in ("database", "read")]
        out.add_row(name, f"{1e3 * seconds[side]:.0f}", *against)
    return out


def fill(database: Database) -> None:
    """As many images and vectors, without files."""
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with transaction(database.engine) as session:
        gallery.ensure_checkpoint(session, CHECKPOINT, "none", DIM, {}, "")
    with psycopg.connect(database.url.replace("+psycopg", "", 1)) as connection:
        connection.execute(
            "INSERT INTO image (id, sha256, width, height, format, byte_size)"
            " SELECT gen_random_uuid(), to_hex(n), 64, 192, 'png', 1 FROM generate_series(1, %s) AS n",
            [ROWS],
        )
        rows = [row for (row,) in connection.execute("SELECT row FROM image ORDER BY row")]
        columns = "image_row, checkpoint_id, state, vector, seq"
        with connection.cursor().copy(f"COPY embedding ({columns}) FROM STDIN") as copy:
            for n, row in enumerate(rows):
                copy.write_row((row, CHECKPOINT, "ready", vectors[n].tobytes(), n + 1))
        connection.execute("SELECT setval('change_seq', %s)", [ROWS])
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")
