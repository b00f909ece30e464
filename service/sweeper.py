"""The thread that sweeps every so often: what goes is `indexer.retention`'s business, and that of `case_exports`."""

from __future__ import annotations

import threading

import structlog

from indexer import audit_anchors, case_exports
from indexer.erasure import Eraser
from indexer.errors import GalleryError
from indexer.retention import sweep
from service.settings import ServiceSettings

log = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps once at the start and then every `sweep_seconds`, until `stop`."""

    def __init__(self, eraser: Eraser, settings: ServiceSettings) -> None:
        self._eraser, self._settings = eraser, settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Break off between two batches; the next sweep goes on."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                swept = sweep(self._eraser, self._settings.orphan_grace_seconds, self._stopping.is_set)
                case_exports.remove_expired(self._eraser.database, self._eraser.exports)
                audit_anchors.drop(self._eraser.database, self._settings.data_dir / audit_anchors.NAME)
            except (GalleryError, OSError) as error:  # the next sweep tries again
                log.warning("sweep_broke_off", reason=str(error))
            else:
                if swept is not None and (swept.erased or swept.searches or swept.orphans):
                    log.info("swept", erased=swept.erased, searches=swept.searches, orphans=swept.orphans)
            self._stopping.wait(self._settings.sweep_seconds)
