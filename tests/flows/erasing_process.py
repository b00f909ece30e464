"""A process that erases an identity slowly, in small batches, to be killed in the middle: URL FOLDER IDENTITY."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from indexer import erasure, journal, traces
from indexer.database import Database, connect
from indexer.images import ImageStore
from indexer.traces import Selection

PAUSE = 0.1
erase_batch = traces.erase_batch


class SlowStore(ImageStore):
    def remove(self, sha256: str) -> None:
        time.sleep(PAUSE)
        super().remove(sha256)


def slow_batch(session: Session, id: UUID, limit: int) -> int:
    time.sleep(PAUSE)
    return erase_batch(session, id, 2)


def main() -> None:
    url, folder, identity = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    replaced: dict[str, Any] = {"erase_batch": slow_batch}
    vars(traces).update(replaced)
    eraser = erasure.Eraser(Database(connect(url), url), SlowStore(folder / "images"), folder / journal.NAME)
    eraser.erase(Selection(identity=identity), "asked for by the person")


if __name__ == "__main__":
    main()
