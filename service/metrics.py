"""What is counted and measured, for Prometheus. Names of routes and stages, never of people, images or searches.

Each process has a registry of its own and serves it with `serving`, at an address that is not the public one. What the
numbers mean and what to do about them is in docs/operations.md.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from indexer import audit
from indexer.database import transaction
from indexer.deadlines import deadline
from indexer.embeddings import pending_count, seconds_behind
from indexer.errors import GalleryError
from indexer.worker import Embedded
from service.rankings import forbidden_hits

if TYPE_CHECKING:
    from service.context import Context

PREFIX = "person_search"
SCRAPE_SECONDS = 3.0  # for what a scrape asks the database; Prometheus gives up after ten
IDLE_SECONDS = 10.0  # for a scrape to send its request

# Upper bounds. A picture from disk takes a millisecond, a search tens of them, an upload of an archive minutes.
REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
# A filter that keeps everything is nothing; reading a text takes tens of milliseconds on a CPU; 30 s is the deadline.
STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
CANDIDATES = (0, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
SIMILARITIES = tuple(n / 20 for n in range(21))  # below 0, nothing is alike; the bands lie between 0.2 and 0.6
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = structlog.get_logger(__name__)


class ServiceMetrics:
    """What the service counts. `watch` adds what is looked up when it is asked for."""

    def __init__(self) -> None:
        self.registry = registry = _registry()
        self.http_request_duration = Histogram(
            f"{PREFIX}_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer",
            ["route", "method", "status"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.search_duration = Histogram(
            f"{PREFIX}_search_duration_seconds",
            "Stages of searches that were answered",
            ["stage"],
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self.search_candidates = Histogram(
            f"{PREFIX}_search_candidates",
            "Images that passed the filter of a search",
            buckets=CANDIDATES,
            registry=registry,
        )
        self.search_top_similarity = Histogram(
            f"{PREFIX}_search_top_similarity",
            "Similarity of the best result of a search that has one",
            buckets=SIMILARITIES,
            registry=registry,
        )
        self.ingest_items = Counter(
            f"{PREFIX}_ingest_items", "Images that were sent, by what became of them", ["state"], registry=registry
        )
        self.embed_batch_size = _batch_size(registry)
        for state in ("accepted", "duplicate", "rejected"):
            self.ingest_items.labels(state)  # shown from the start, so that the first one is seen as a change

        registry.register(_Counted())

    def request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """`route` is a template, None for an address that is none; raw ones hold ids, and there is no end of them."""
        labels = (route or "none", known_method(method), f"{status // 100}xx" if status else "aborted")
        self.http_request_duration.labels(*labels).observe(seconds)

    def searched(self, took_ms: Mapping[str, float], candidates: int, top_similarity: float | None) -> None:
        for stage, milliseconds in took_ms.items():
            self.search_duration.labels(stage).observe(milliseconds / 1000)
        self.search_candidates.observe(candidates)
        if top_similarity is not None:
            self.search_top_similarity.observe(top_similarity)

    def ingested(self, states: Mapping[str, int]) -> None:
        """How many items ended in which state of the ledger."""
        for state, count in states.items():
            self.ingest_items.labels(state).inc(count)

    def embedded_texts(self, count: int) -> None:
        """How many texts the encoder was given at once."""
        self.embed_batch_size.labels("text").observe(count)

    @contextmanager
    def watch(self, context: Context) -> Iterator[None]:
        """Also show how this running service stands."""
        collector = _Standing(context)
        self.registry.register(collector)
        try:
            yield
        finally:
            self.registry.unregister(collector)


class WorkerMetrics:
    """What a worker counts."""

    def __init__(self, data_dir: Path) -> None:
        self.registry = registry = _registry()
        self.embed_batch_size = _batch_size(registry)
        self.embed_images = Counter(
            f"{PREFIX}_embed_images", "Images a worker took, by what became of them", ["outcome"], registry=registry
        )
        for outcome in ("embedded", "late", "failed", "postponed"):
            self.embed_images.labels(outcome)
        self._on_gpu = False
        registry.register(_Machine(data_dir, lambda: self._on_gpu))

    def embedded(self, batch: Embedded) -> None:
        self._on_gpu = on_gpu(batch.encoder)
        self.embed_batch_size.labels("image").observe(batch.images)
        for outcome in ("embedded", "late", "failed", "postponed"):
            self.embed_images.labels(outcome).inc(getattr(batch, outcome))


class _Machine(Collector):
    """Disk and GPU."""

    def __init__(self, data_dir: Path, gpu: Any) -> None:
        self._data_dir, self._gpu = data_dir, gpu

    def describe(self) -> Iterable[Metric]:
        return ()  # else it would be collected to find out its names

    def collect(self) -> Iterator[Metric]:
        yield _gauge("gpu_active", "Whether the encoder is on a GPU", self._gpu())
        with suppress(FileNotFoundError):  # a worker with a database elsewhere makes its folder when it first needs it
            free = shutil.disk_usage(self._data_dir).free
            yield _gauge("disk_free_bytes", "Free space where the data folder is", free)


class _Counted(Collector):
    """What is counted where it happens, for the whole process."""

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        hits = "Images a search found outside the filter or the caller's scope, withheld: anything but 0 is a defect"
        yield CounterMetricFamily(f"{PREFIX}_search_forbidden_hit", hits, forbidden_hits.value)
        failures = "Acts that failed because they could not be audited"
        yield CounterMetricFamily(f"{PREFIX}_audit_write_failures", failures, audit.write_failures)


class _Standing(_Machine):
    """How a running service stands. What the database would have to say is left out while it does not answer."""

    def __init__(self, context: Context) -> None:
        super().__init__(context.settings.data_dir, lambda: on_gpu(context.replica.state.encoder))
        self._context = context

    def collect(self) -> Iterator[Metric]:
        yield from super().collect()
        replica, admission = self._context.replica, self._context.admission
        live = replica.state
        with suppress(GalleryError), deadline(SCRAPE_SECONDS):  # Milvus may be away
            yield _gauge("index_vectors", "Vectors in the index that answers searches", len(live.index))
        gap = "Rows by which the index differed from the database when they were last compared"
        yield _gauge("index_database_gap", gap, replica.gap.total)
        yield _gauge("searches_running", "Searches that hold a place", admission.running)
        yield _gauge("searches_waiting", "Searches in line for a place", admission.waiting)
        try:
            with deadline(SCRAPE_SECONDS), transaction(self._context.database.engine) as session:
                pending = pending_count(session, live.checkpoint_id)
                behind = seconds_behind(session, live.checkpoint_id, live.seq)
        except GalleryError:
            yield _gauge("database_up", "Whether the database answered this scrape", 0)
            return
        yield _gauge("database_up", "Whether the database answered this scrape", 1)
        yield _gauge("images_pending", "Images that are not embedded yet", pending)
        yield _gauge("index_lag_seconds", "Age of the oldest change that the index has not taken in", behind)


def known_method(method: str) -> str:
    """A client may call its method whatever it likes."""
    return method if method in METHODS else "other"


def on_gpu(encoder: object) -> bool:
    return str(getattr(encoder, "device", "cpu")).startswith("cuda")


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)  # memory, CPU time and open files of this process
    return registry


def _batch_size(registry: CollectorRegistry) -> Histogram:
    name, what = f"{PREFIX}_embed_batch_size", "Images or texts the encoder was given at once"
    return Histogram(name, what, ["kind"], buckets=BATCHES, registry=registry)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", what, value=float(value))


# ------------------------------------------------------------------------------------------------------------ serving


@contextmanager
def serving(registry: CollectorRegistry, host: str, port: int) -> Iterator[int | None]:
    """Serve `GET /metrics` from a thread; yields the port. Not at all, and None, with port 0 or one that is taken.

    Taken by the next worker of the same machine, say: being watched matters less than being there.
    """
    if port == 0:
        yield None
        return
    try:
        server = _server(registry, host, port)
    except OSError as error:
        log.warning("metrics_not_served", host=host, port=port, reason=error.strerror)
        yield None
        return
    with server:
        thread = threading.Thread(target=server.serve_forever, args=[0.1], name="metrics", daemon=True)
        thread.start()
        log.info("metrics_served", host=host, port=server.server_port)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _server(registry: CollectorRegistry, host: str, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_SECONDS
        server_version, sys_version = "person-search", ""

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "There is only /metrics here")
                return
            encode, media_type = choose_encoder(self.headers.get("Accept", ""))
            body = encode(registry)
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A scrape every few seconds is nothing to write down."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, request: object, client_address: object) -> None:
            """The base class prints to stderr, past the log."""
            log.warning("scrape_broke_off", exc_info=True)

    return Server((host, port), Handler)
