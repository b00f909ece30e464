"""The moment by which the work of a request has to be done, known to whatever that request calls.

Set once at the edge; `database.transaction` gives the server no more time than is left. Nothing is interrupted by it:
who waits, or is about to begin something, looks at the clock. Without a deadline there is as much time as it takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from indexer.errors import DeadlinePassed

_end: ContextVar[float | None] = ContextVar("deadline", default=None)  # of the monotonic clock, which no one sets back


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """What is called from here has so many seconds. Follows calls into the threads of the web framework, no others."""
    before = _end.get()
    _end.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _end.set(before)  # not by token: an async dependency may end in another copy of the context


def remaining() -> float | None:
    """The seconds that are left, 0 if the moment has passed; None without a deadline."""
    end = _end.get()
    return None if end is None else max(0.0, end - time.monotonic())


def check() -> None:
    """Raise `DeadlinePassed` if it has."""
    if remaining() == 0.0:
        raise DeadlinePassed("The search took longer than this service allows. Narrow it, or try again in a moment.")
