"""Real worker processes for tests, and waiting for what they do: always for a condition, and with a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.005)


class WorkerProcess:
    """One `tests.flows.worker_process`; its arguments are explained there. Its logs are appended to `log`."""

    def __init__(self, url: str, images: Path, folder: Path, *arguments: str) -> None:
        self.log, self._busy = folder / "worker.log", folder / f"busy-{os.urandom(4).hex()}"
        command = [sys.executable, "-m", "tests.flows.worker_process", url, str(images), "--busy", str(self._busy)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*command, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def is_busy(self) -> bool:
        """Whether it is inside its encoder, so in the middle of a batch."""
        return self.is_alive and self._busy.exists()

    def kill(self) -> None:
        """kill -9"""
        self._process.kill()
        self._process.wait(DEADLINE)

    def pause(self) -> None:
        """SIGSTOP: it hangs, in whatever it was doing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(DEADLINE)
