"""A Milvus for tests: one Milvus Lite server a process, which speaks Milvus's protocol; one prefix a test."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import itertools
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.errors import IndexUnavailable
from indexer.milvus import Milvus

WITHOUT = "Milvus Lite is not installed: pip install 'person-search[milvus,milvus-lite]'"
needs_milvus = pytest.mark.skipif(importlib.util.find_spec("milvus_lite") is None, reason=WITHOUT)

DEADLINE = 60.0
_numbers = itertools.count(1)


class MilvusServer:
    """A Milvus Lite server process over a folder; what was written survives `kill` and the next `start`."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        with socket.socket() as free:
            free.bind((host, 0))
            self._address = host, free.getsockname()[1]
        self.uri = f"http://{host}:{self._address[1]}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        host, port = self._address
        command = [sys.executable, "-m", "milvus_lite.cmdline", "server", "--data-dir", str(self._folder / "data")]
        with (self._folder / "milvus.log").open("ab") as log:
            self._process = subprocess.Popen([*command, "--host", host, "--port", str(port)], stdout=log, stderr=log)
        end = time.monotonic() + DEADLINE
        while True:
            assert self._process.poll() is None, (self._folder / "milvus.log").read_text()
            try:
                socket.create_connection(self._address, timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < end, "Milvus Lite did not start"
                time.sleep(0.02)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(DEADLINE)
            self._process = None


@functools.cache
def server() -> MilvusServer:
    """This process's server, killed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="person-search-milvus-"))
    server = MilvusServer(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    server.start()
    return server


def open_milvus(server: MilvusServer, kind: str = "flat") -> Milvus:
    """With a prefix that nobody else has."""
    return Milvus(server.uri, prefix=f"test{next(_numbers)}", kind=kind)


@pytest.fixture
def milvus() -> Iterator[Milvus]:
    """A Milvus without collections."""
    milvus = open_milvus(server())
    yield milvus
    try:
        for checkpoint_id in milvus.checkpoints():
            milvus.drop(checkpoint_id)
    except IndexUnavailable:  # the test has killed it
        server.cache_clear()
    milvus.close()
