"""A process that is killed while it writes a snapshot: `python -m tests.indexer.snapshot_process FOLDER`.

FOLDER/before holds a snapshot of `index_of(1)`. For every step of writing `index_of(2)` over it there is a copy of it
afterwards, FOLDER/0, FOLDER/1, ..., in which a process was killed, kill -9, just before that step.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakKeyDictionary

import numpy as np

from indexer import index as index_module
from indexer import snapshots
from indexer.index import VectorIndex

DIM, SEED_ROWS = 4, 40


def index_of(seed: int) -> VectorIndex:
    """Three blocks; the first of them is the same for every seed."""
    index_module.MAX_BLOCK = 16
    index = VectorIndex(DIM)
    vectors = np.random.default_rng(seed).normal(size=(SEED_ROWS, DIM)).astype(np.float32)
    vectors[:16] = np.random.default_rng(0).normal(size=(16, DIM))
    index.add(np.arange(SEED_ROWS), vectors)
    return index


def write(folder: Path, seed: int) -> None:
    snapshots.write(folder, "checkpoint", "flat", seed, index_of(seed), WeakKeyDictionary())


def killed_at(step: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Counts the calls of all functions wrapped by it; the one of this number does not happen."""
    calls = iter(range(10**6))

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return called

    return wrap


def opened(path: Path, mode: str) -> BinaryIO:
    """Writes at once what it is given, half of it at a time, so that a kill in between leaves half a file."""
    file = real_open(path, mode, buffering=0)

    class Halves:
        def write(self, data: Any) -> None:
            data = memoryview(data).cast("B")
            half_written(file, data[: len(data) // 2])
            half_written(file, data[len(data) // 2 :])

        def __enter__(self) -> Halves:
            return self

        def __exit__(self, *_: object) -> None:
            file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

    return Halves()  # type: ignore[return-value]


def half_written(file: BinaryIO, data: memoryview) -> None:
    file.write(data)


real_open = Path.open


def main(root: Path) -> None:
    global half_written
    write(root / "before", 1)
    for step in range(1000):
        folder = root / str(step)
        shutil.copytree(root / "before", folder)
        child = os.fork()
        if child == 0:
            wrap = killed_at(step)
            half_written = wrap(half_written)
            os.fsync = wrap(os.fsync)
            Path.replace = wrap(Path.replace)  # type: ignore[method-assign]
            Path.unlink = wrap(Path.unlink)  # type: ignore[method-assign]
            Path.open = opened  # type: ignore[assignment, method-assign]
            write(folder, 2)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0, status
            return
    raise AssertionError("it never got to its end")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
