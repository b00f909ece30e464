"""Takes one archive in and tells how much memory that needed, in a process of its own.

python -m tests.flows.intake_process URL IMAGES ARCHIVE     prints: RSS before, highest RSS (bytes), state, items
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from indexer import gallery
from indexer.archives import read_zip
from indexer.database import Database, connect, transaction
from indexer.images import ImageStore
from indexer.intake import ingest_entries
from indexer.tars import read_tar


def highest_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    url, images, archive = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    database = Database(connect(url), url)
    with transaction(database.engine):
        before = highest_rss()
    with archive.open("rb") as file:
        entries = read_tar(file) if archive.suffix == ".tar" else read_zip(file)
        id = ingest_entries(database, ImageStore(images), entries, archive.name)
    with transaction(database.engine) as session:
        ingestion = gallery.ingestion(session, id)
    assert ingestion is not None
    print(before, highest_rss(), ingestion.state, ingestion.total)


if __name__ == "__main__":
    main()
