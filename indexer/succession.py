"""Follows which checkpoint is the active one, and has the replica answer with it: load beside, then swap.

One small query every poll finds out; a database that is away is waited for. While the successor is loading, and also if
it cannot be loaded, the old checkpoint answers: its rankings are whole, and every answer names its checkpoint. Who
activates what is decided in checkpoints.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic

from indexer import checkpoints
from indexer.database import Database, transaction
from indexer.errors import GalleryError
from indexer.replica import E, Replica

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0  # until a checkpoint that could not be loaded is tried again


class Succession(Generic[E]):
    """Keeps a replica on the active checkpoint. `loading` names the one to come, `problem` why it does not."""

    def __init__(self, database: Database, replica: Replica[E], load: Callable[[str], E]) -> None:
        """`load` gives the encoder of a checkpoint, and raises `GalleryError` if there is none to be had."""
        self._database, self._replica, self._load = database, replica, load
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.loading: str | None = None
        self.problem: str | None = None

    def follow(self) -> None:
        """Ask once which checkpoint is active, and load it if it is another one. Raises `GalleryError`."""
        with transaction(self._database.engine) as session:
            active = checkpoints.active_id(session)
        if active is None or active == self._replica.state.checkpoint_id:
            self.loading = self.problem = None
            return
        self.loading = active
        self._replica.switch(self._load(active))
        self.loading = self.problem = None

    def start(self, poll_seconds: float) -> None:
        """Follow every `poll_seconds` in a thread of its own, until `stop`."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, args=[poll_seconds], name="succession", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following; a checkpoint that is being loaded is waited for."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def _run(self, poll_seconds: float) -> None:
        again = 0.0
        while not self._stopping.wait(poll_seconds):
            if time.monotonic() < again:
                continue
            try:
                self.follow()
            except GalleryError as error:
                if str(error) != self.problem:  # once, not at every poll
                    log.warning("still answering with %s: %s", self._replica.state.checkpoint_id, error)
                self.problem = str(error)
                again = time.monotonic() + (RETRY_SECONDS if error.code == "checkpoint_missing" else 0.0)
