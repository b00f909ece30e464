"""What /metrics says: the right numbers, under names that tell nothing about anybody, and not on the public port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from structlog.testing import capture_logs

from indexer import worker
from service.metrics import PREFIX, ServiceMetrics, WorkerMetrics, serving
from service.settings import ServiceSettings
from tests.fake_encoder import GridEncoder
from tests.postgres_fixtures import fresh_database, server
from tests.service.conftest import Service, picture, running_service, wait_until, zipped

ASK = {"query": {"text": "a man in red"}}
EVERY = {
    "http_request_duration_seconds", "search_duration_seconds", "search_candidates", "search_top_similarity",
    "search_forbidden_hit_total", "embed_batch_size", "index_vectors", "index_lag_seconds", "index_database_gap",
    "ingest_items_total", "images_pending", "audit_write_failures_total", "gpu_active", "disk_free_bytes",
    "database_up", "searches_running", "searches_waiting",
}  # fmt: skip
OF_A_WORKER = {"embed_batch_size", "embed_images_total", "gpu_active", "disk_free_bytes"}


@contextmanager
def scraped(registry: CollectorRegistry) -> Iterator[httpx.Client]:
    with (
        serving(registry, "127.0.0.1", free_port()) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http,
    ):
        yield http


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(registry: CollectorRegistry) -> Samples:
    with scraped(registry) as http:
        answer = http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"{PREFIX}_{name}", tuple(sorted(labels.items()))))


def of(service: Service) -> Samples:
    return samples(service.app.state.metrics.registry)


def names(registry: CollectorRegistry) -> set[str]:
    """Without those of the process; counters as they are exposed."""
    collected = [(metric.name, metric.type) for metric in registry.collect()]
    ours = [(name.removeprefix(f"{PREFIX}_"), kind) for name, kind in collected if name.startswith(PREFIX)]
    return {f"{name}_total" if kind == "counter" else name for name, kind in ours}


def test_everything_promised_is_there_and_documented(service: Service, tmp_path: Path) -> None:
    own = WorkerMetrics(tmp_path)
    assert names(service.app.state.metrics.registry) == EVERY
    assert names(own.registry) == OF_A_WORKER
    documented = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    assert [name for name in EVERY | OF_A_WORKER if f"`{name}" not in documented] == []


def test_requests_are_counted_by_template_and_by_nothing_a_client_chooses(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        id = service.added(picture(1))
        for path in (f"/api/v1/images/{id}", f"/api/v1/images/{id}?marker=1", "/marker", "/api/v1/marker/x"):
            service.http.get(path)
        service.http.request("MARKER", "/livez")
        service.http.get("/livez", headers={"Host": "marker.example"})
        found = of(service)
        count = "http_request_duration_seconds_count"
        template = "/api/v1/images/{image_id}"
        assert value(found, count, route=template, method="GET", status="2xx") == 1
        assert value(found, count, route=template, method="GET", status="4xx") == 1
        assert value(found, count, route="none", method="GET", status="4xx") == 3  # two addresses and one host
        assert value(found, count, route="/api/v1/images", method="POST", status="2xx") == 1
        methods = {dict(labels).get("method") for _, labels in found}
        assert methods == {None, "GET", "POST", "other"}
        with scraped(service.app.state.metrics.registry) as http:
            told = http.get("/metrics").text
        assert "marker" not in told.lower() and id not in told


def test_searches_and_images_are_counted(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        service.added(picture(1))
        service.added(picture(1))
        lines = [{"file": "a.png"}, {"file": "b.png"}, {"file": "missing.png"}]
        found = of(service)
        assert value(found, "images_pending") == 1 and value(found, "index_vectors") == 0
        service.ingest(zipped({"a.png": picture(2), "b.png": picture(1)}, lines))
        wait_until(lambda: len(service.context.replica.state.index) == 2, "the index has followed")
        answer = service.found(ASK)
        service.http.get(f"/api/v1/searches/{answer['id']}")
        service.found({**ASK, "filter": {"tags": {"all": ["nowhere"]}}})
        assert service.search({"query": {}}).status_code == 422

        found = of(service)
        by_state = {state: value(found, "ingest_items_total", state=state) for state in ("accepted", "duplicate")}
        assert by_state == {"accepted": 2, "duplicate": 2}
        assert value(found, "ingest_items_total", state="rejected") == 1
        assert value(found, "images_pending") == 0 and value(found, "index_vectors") == 2
        assert value(found, "index_lag_seconds") == 0 and value(found, "index_database_gap") == 0
        assert value(found, "database_up") == 1 and value(found, "gpu_active") == 0
        assert value(found, "searches_running") == value(found, "searches_waiting") == 0
        for stage in ("embed", "filter", "rank"):
            assert value(found, "search_duration_seconds_count", stage=stage) == 2
        assert value(found, "search_candidates_sum") == 2 and value(found, "search_candidates_count") == 2
        assert value(found, "search_top_similarity_count") == 1  # the other one found nothing
        best = answer["results"][0]["similarity"]
        assert value(found, "search_top_similarity_sum") == pytest.approx(best, abs=1e-6)
        # two texts of searches, and the known text of the checkpoint at the start came before there was a batch
        assert value(found, "embed_batch_size_count", kind="text") == 2
        assert (value(found, "disk_free_bytes") or 0) > 0


def test_an_index_that_does_not_follow_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_service(tmp_path) as service:
        monkeypatch.setattr(type(service.context.replica), "_follow", lambda *_: None)
        service.added(picture(1))
        service.embed()
        with service.database.engine.begin() as connection:
            connection.execute(text("UPDATE embedding SET updated_at = now() - interval '100 seconds'"))
        lag = value(of(service), "index_lag_seconds")
        assert lag is not None and 100 <= lag < 200
        service.context.replica.mend()
        assert value(of(service), "index_database_gap") == 1


def test_without_its_database_a_service_is_still_watched(tmp_path: Path) -> None:
    with fresh_database() as database, running_service(tmp_path, database=database) as service:
        name = database.engine.url.database
        with psycopg.connect(server().dsn(), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            found = of(service)
            assert value(found, "database_up") == 0 and value(found, "index_vectors") == 0
            assert value(found, "images_pending") is None and value(found, "index_lag_seconds") is None
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        wait_until(lambda: value(of(service), "database_up") == 1, "it is back")


def test_a_worker_counts_what_became_of_its_images(tmp_path: Path) -> None:
    metrics = WorkerMetrics(tmp_path)
    with running_service(tmp_path) as service:
        for seed in range(3):
            service.added(picture(seed))
        broken = service.added(picture(9))
        with service.database.engine.connect() as connection:
            sha256 = connection.scalar(text("SELECT sha256 FROM image WHERE id = :id"), {"id": broken})
        service.context.store.path(str(sha256)).write_bytes(b"no image")
        stop = threading.Event()
        encoder, settings = GridEncoder(), ServiceSettings(poll_seconds=0.05)
        store = service.context.store
        worker.run(service.database, store, encoder, settings, stop, once=True, observe=metrics.embedded)
    found = samples(metrics.registry)
    outcomes = {name: value(found, "embed_images_total", outcome=name) for name in ("embedded", "failed", "late")}
    assert outcomes == {"embedded": 3, "failed": 1, "late": 0}
    assert value(found, "embed_batch_size_sum", kind="image") == 3
    assert value(found, "gpu_active") == 0


def test_two_applications_do_not_share_their_numbers() -> None:
    one, other = ServiceMetrics(), ServiceMetrics()
    one.request("/livez", "GET", 200, 0.01)
    count = {"route": "/livez", "method": "GET", "status": "2xx"}
    assert value(samples(one.registry), "http_request_duration_seconds_count", **count) == 1
    assert value(samples(other.registry), "http_request_duration_seconds_count", **count) is None


def test_metrics_are_served_at_their_own_address_only(service: Service) -> None:
    assert service.http.get("/metrics").status_code == 404
    with scraped(service.app.state.metrics.registry) as http:
        assert http.get("/").status_code == http.get("/metrics/x").status_code == 404
        assert http.post("/metrics").status_code == 501


def test_a_port_that_is_taken_is_said_and_no_reason_to_stay_away() -> None:
    registry = ServiceMetrics().registry
    with serving(registry, "127.0.0.1", 0) as port:
        assert port is None
    with serving(registry, "127.0.0.1", free_port()) as taken, capture_logs() as logs:
        assert taken is not None
        with serving(registry, "127.0.0.1", taken) as port:
            assert port is None
    assert [line["event"] for line in logs] == ["metrics_not_served"]
    assert logs[0]["reason"] == "Address already in use"
