"""The processes behind `person-search serve` and `worker`: how they start, how they are told to stop, how they end.

The service listens at once, and says that it is starting until all is open. The first SIGTERM or SIGINT ends it in
order: /readyz says so, new connections are refused, requests under way are finished, everything is closed, exit status
0. The second ends it on the spot: every part of the system survives kill -9, so that is only less polite.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import ExitStack
from types import FrameType
from typing import NoReturn

import structlog
import uvicorn
from fastapi import FastAPI

from indexer.database import open_database
from indexer.errors import InvalidSettings
from indexer.images import ImageStore
from indexer.presence import WORKER_LOCK, Presence
from indexer.worker import run
from service.app import create_app, open_context
from service.encoders import CheckpointFiles
from service.logs import configure_logs, uncaught_logged
from service.metrics import WorkerMetrics, serving
from service.settings import ServiceSettings

KEEP_ALIVE_SECONDS = 75  # longer than proxies and clients keep their connections: who closes first resets nobody
CANCEL_SECONDS = 2.0  # between the end of patience with requests and the end of the process
REQUEST_THREAD = "AnyIO worker thread"  # what the web framework calls those that work on requests; idle ones have ended
BACKLOG = 1024  # connections that wait to be accepted

log = structlog.get_logger(__name__)


def serve(settings: ServiceSettings) -> None:
    """Serve until told to stop. Raises what `open_context` raises, and InvalidSettings for a port that is taken."""
    app = create_app(settings, opened_elsewhere=True)
    with uncaught_logged(), _listening(settings.host, settings.port) as listener, ExitStack() as stack:
        registry = app.state.metrics.registry
        stack.enter_context(serving(registry, settings.metrics_host, settings.metrics_port))
        server = _Server(app, settings)
        opening = _Opening(app, settings, server, stack)
        opening.start()
        server.run([listener])
        server.finished.set()
        opening.join(settings.shutdown_seconds)
        if opening.is_alive():  # it waits for a database, say; whatever it has begun survives this
            log.warning("stopped_while_starting")
            os._exit(0)
    if opening.error is not None:
        raise opening.error
    if any(thread.name == REQUEST_THREAD for thread in threading.enumerate()):
        _cut_off(settings)
    log.info("stopped")


def work(settings: ServiceSettings) -> None:
    """Embed images until told to stop. Raises what `indexer.worker.run` and the loading of a checkpoint raise."""
    from model.encoder import Encoder  # takes seconds: now rather than when there is work

    stop = threading.Event()
    _stop_on_signals(stop)
    configure_logs(settings.log_level)
    metrics = WorkerMetrics(settings.data_dir)
    chosen = settings.checkpoint
    own = None if chosen is None else Encoder(chosen, settings.device, settings.batch_size)
    with (
        uncaught_logged(),
        open_database(settings) as database,
        Presence(database, WORKER_LOCK),
        serving(metrics.registry, settings.metrics_host, settings.worker_metrics_port),
    ):
        store = ImageStore(settings.data_dir / "images")
        load = CheckpointFiles(settings).load
        run(database, store, own, settings, stop, load=load, observe=metrics.embedded)


def print_setup_link(host: str, port: int, token: str) -> None:
    """To stdout and not to the log. What follows # stays in the browser, so no other log gets it either."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)
    link = f"http://{shown}:{port or 'PORT'}/#setup={token}"
    print(f"There is no user yet. Create the first one, an admin, within 24 hours:\n{link}", flush=True)


class _Opening(threading.Thread):
    """Opens what the application needs, beside the server. `error` is why it could not, and stops the server."""

    def __init__(self, app: FastAPI, settings: ServiceSettings, server: _Server, stack: ExitStack) -> None:
        super().__init__(name="opening", daemon=True)
        self._app, self._settings, self._server, self._stack = app, settings, server, stack
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            context = open_context(self._stack, self._settings, metrics=self._app.state.metrics)
        except BaseException as error:  # raised again by `serve`, where it becomes a sentence for the user
            self.error = error
            self._server.should_exit = True
        else:
            self._app.state.context = context
            if token := context.access.setup_token():
                print_setup_link(self._settings.host, self._settings.port, token)
            log.info("ready_to_serve", checkpoint=context.replica.state.checkpoint_id)


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI, settings: ServiceSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
            )
        )
        self._app, self._settings = app, settings
        self.finished = threading.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for SIGTERM and SIGINT. Not passed on to uvicorn, which would give the signal back at the end."""
        if self._app.state.stopping:
            os._exit(128 + sig)
        self._app.state.stopping = True
        threading.Thread(target=self._stop, name="stopping", daemon=True).start()

    def _stop(self) -> None:
        self.finished.wait(self._settings.shutdown_notice_seconds)
        if self._app.state.context is not None:
            self._app.state.context.intake.stopping.set()  # and streams of its progress
        self.should_exit = True
        if not self.finished.wait(self._settings.shutdown_seconds + CANCEL_SECONDS):
            _cut_off(self._settings)


def _cut_off(settings: ServiceSettings) -> NoReturn:
    """A thread that works on a request cannot be interrupted, and Python would wait for it."""
    log.error("requests_cut_off", after_seconds=settings.shutdown_seconds)
    os._exit(1)


def _stop_on_signals(stop: threading.Event) -> None:
    """Have the first SIGTERM or SIGINT set `stop`, and the second end the process."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


def _listening(host: str, port: int) -> socket.socket:
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(address[0], socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address[4])
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise InvalidSettings(
            f"The service cannot listen on {host}, port {port}: {error.strerror}. Stop what uses it, or set "
            "PERSON_SEARCH_HOST and PERSON_SEARCH_PORT."
        ) from error
    log.info("listening", host=host, port=listener.getsockname()[1])
    return listener
