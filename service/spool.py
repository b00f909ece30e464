"""Where a delivery lies while it arrives and until it is taken in: one file without a name, in the data folder.

Nothing is left of it however the process ends. What a delivery means is decided in indexer/.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import BinaryIO, cast

from indexer.tars import GZIP_OPENING, Gunzip
from service.operations import refuse_when_full
from service.settings import ServiceSettings


class Spool:
    """One file, written from start to end; `file` is read once `finish` was called. Gzip is unpacked on its way in.

    Every write raises StorageFull while less than the guarded space is free.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        folder = settings.data_dir / "archives"
        folder.mkdir(parents=True, exist_ok=True)
        self.file = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  (closed by whoever holds it)
        self.size = 0
        self._opening: bytes | None = b""  # of an archive, until it shows whether it is gzipped
        self._gunzip: Gunzip | None = None

    def write(self, data: bytes) -> int:
        refuse_when_full(self.settings)
        self.size += len(data)
        return self.file.write(data)

    def write_archive(self, data: bytes) -> None:
        """Raises ArchiveError for gzip that is damaged, or unpacks to too much."""
        if self._opening is not None:
            data = self._opening + data
            if len(data) < len(GZIP_OPENING):
                self._opening = data
                return
            self._opening = None
            if data.startswith(GZIP_OPENING):
                self._gunzip = Gunzip(self, self.settings)
        if self._gunzip is None:
            self.write(data)
        else:
            self._gunzip.write(data)

    def finish(self) -> None:
        """Everything arrived. Raises ArchiveError for gzip whose end is missing."""
        if self._opening:
            self.write(self._opening)
        if self._gunzip is not None:
            self._gunzip.finish()
        self.file.flush()

    def close(self) -> None:
        with suppress(OSError):  # what a full disk did not take cannot be written now either, and nobody wants it
            self.file.close()
