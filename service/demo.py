"""`person-search demo`: the whole system on loopback, from the real parts, in real processes.

This process owns the embedded PostgreSQL and starts two children: the service and the worker. It adds the shipped
gallery through the API, runs one search, and waits. All three stop together.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from service.client import Client, ServiceError

GALLERY = Path(__file__).parent / "demo_gallery"
EXAMPLE = "a woman in a blue dress with a red handbag"
START_DEADLINE = 120.0  # seconds; a cold start on two cores takes about ten


def run_demo(data: Path, port: int, once: bool, console: Console) -> None:
    """Start everything under ``data``, add the gallery, print one ranking; then serve until Ctrl-C unless ``once``."""
    from indexer.database import open_database
    from service.search_cli import print_ranking
    from service.settings import ServiceSettings
    from service.upload import follow_with_progress, open_upload

    port = _claim_port(port)
    os.environ["PERSON_SEARCH_DATA_DIR"] = str(data.resolve())
    os.environ["PERSON_SEARCH_PORT"] = str(port)
    os.environ["PERSON_SEARCH_HOST"] = "127.0.0.1"
    os.environ["PERSON_SEARCH_AUTH"] = "open"  # whoever is on this machine may play with it
    url = f"http://127.0.0.1:{port}"
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started this in the background, deaf to Ctrl-C
        signal.signal(number, _interrupt)
    try:
        with ExitStack() as stack:
            with console.status("Starting PostgreSQL, the service and the worker"):
                stack.enter_context(open_database(ServiceSettings()))
                processes = [stack.enter_context(child(name, data / f"{name}.log")) for name in ("serve", "worker")]
                client = stack.enter_context(Client(url))
                wait_until_ready(client, processes, data)
            console.print(f"Adding the demo gallery ({GALLERY.name}) over the API")
            with open_upload(GALLERY) as upload:
                ingestion = client.ingest(upload.chunks, upload.media_type, register_cameras=True)
            follow_with_progress(client, ingestion.id, console)
            console.print(f'\n[bold]"{EXAMPLE}"[/]')
            print_ranking(client.search({"query": {"text": EXAMPLE}, "limit": 10}), console)
            if once:
                return
            console.print(f"\nOpen [bold]{url}/[/] and describe somebody. Ctrl-C stops everything.")
            _wait_for_a_death(processes, data)
    except KeyboardInterrupt:
        console.print("Stopped.")


def _claim_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServiceError(
                f"Port {port} is in use; choose another with --port, or --port 0 for a free one."
            ) from error
        return int(probe.getsockname()[1])


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    """Ask the kernel to send SIGTERM to this child when its parent dies, even by kill -9."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@contextmanager
def child(command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", command],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops its children in order
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(client: Client, processes: list[subprocess.Popen[bytes]], data: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while True:
        _check_alive(processes, data)
        try:
            client.ready()
        except ServiceError as error:
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"The service did not become ready in {START_DEADLINE:.0f} s; its log is {data / 'serve.log'}."
                ) from error
            time.sleep(0.1)
        else:
            return


def _check_alive(processes: list[subprocess.Popen[bytes]], data: Path) -> None:
    for process, name in zip(processes, ("serve", "worker"), strict=True):
        if process.poll() is not None:
            log = data / f"{name}.log"
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise ServiceError(
                f"`person-search {name}` ended with status {process.returncode}: {' '.join(last)} ({log})"
            )


def _wait_for_a_death(processes: list[subprocess.Popen[bytes]], data: Path) -> None:
    while True:
        _check_alive(processes, data)
        time.sleep(0.5)
