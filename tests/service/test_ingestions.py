"""Archives over HTTP: received as a stream, taken in once, told item by item; safe against interruption."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer import gallery
from indexer.database import transaction
from tests.postgres_fixtures import fresh_database
from tests.service.conftest import Service, picture, problem, running_service, wait_until, zipped

ZIP = {"Content-Type": "application/zip"}


def archive(seeds: range, **common: object) -> bytes:
    files = {f"images/{seed}.png": picture(seed) for seed in seeds}
    lines = [{"external_id": f"e{seed}", "file": f"images/{seed}.png", **common} for seed in seeds]
    return zipped(files, lines)


def test_an_archive_becomes_searchable_and_twice_changes_nothing(service: Service) -> None:
    service.camera("north")
    data = archive(range(200, 212), camera_id="north", captured_at="2026-09-01T18:00:00Z", tags=["zip"])
    first = service.ingest(data)
    assert first["state"] == "done" and first["done"] and first["total"] == 12
    assert first["counts"] == {
        "pending": 0, "indexed": 12, "duplicate": 0, "rejected": 0, "failed": 0, "removed": 0,
    }  # fmt: skip
    found = service.found({"query": {}, "filter": {"tags": {"all": ["zip"]}}, "limit": 20}, picture(205))
    assert found["candidates"] == 12 and found["results"][0]["image"]["external_id"] == "e205"
    second = service.ingest(data)
    assert (second["counts"]["indexed"], second["counts"]["duplicate"]) == (0, 12)
    assert service.found({"query": {}, "filter": {"tags": {"all": ["zip"]}}}, picture(205))["candidates"] == 12


def test_a_form_carries_an_archive_too(service: Service) -> None:
    files = {"archive": ("gallery.zip", archive(range(220, 223)))}
    response = service.http.post("/api/v1/ingestions", files=files)
    assert response.status_code == 202
    path = response.headers["Location"]
    assert response.json()["total"] == 3
    wait_until(lambda: service.http.get(path).json()["state"] == "done", "the archive is taken in")
    assert service.http.get(path).json()["done"] is False, "accepted, but not searchable before the worker came"
    service.embed()
    assert service.http.get(path).json()["done"] is True


def test_items_are_paged_and_chosen_by_state(service: Service) -> None:
    files = {f"{seed}.png": picture(seed) for seed in range(230, 235)} | {"bad.png": b"x"}
    lines = [{"file": name} for name in files]
    ingestion = service.ingest(zipped(files, lines))
    path = f"/api/v1/ingestions/{ingestion['id']}/items"
    seen, after = [], -1
    while after is not None:
        page = service.http.get(path, params={"limit": 2, "after": after}).json()
        seen += [item["file"] for item in page["items"]]
        after = page["next_after"]
    assert seen == [line["file"] for line in lines]
    (rejected,) = service.items(ingestion, state="rejected")
    assert (rejected["file"], rejected["code"], rejected["position"]) == ("bad.png", "unreadable_image", 5)
    (one,) = service.items(ingestion, state="indexed", limit=1)
    service.http.delete(f"/api/v1/images/{one['image_id']}")
    (removed,) = service.items(ingestion, state="removed")
    assert removed["position"] == one["position"] and removed["image_id"] is None


def test_cameras_are_registered_only_when_asked(service: Service) -> None:
    data = archive(range(240, 242), camera_id="brand-new")
    refused = service.ingest(data)
    assert refused["counts"]["rejected"] == 2
    assert {item["code"] for item in service.items(refused)} == {"unknown_camera"}
    accepted = service.ingest(data, register_cameras=True)
    assert accepted["counts"]["indexed"] == 2
    assert "brand-new" in [camera["id"] for camera in service.http.get("/api/v1/cameras").json()["cameras"]]


@pytest.mark.parametrize("stated", [True, False])
def test_an_archive_beyond_the_limit_is_refused_with_the_limit(service: Service, stated: bool) -> None:
    data = bytes(service.settings.max_ingestion_bytes + 1)
    chunks: Iterator[bytes] = (data[at : at + 2**16] for at in range(0, len(data), 2**16))
    headers = {**ZIP, "Content-Length": str(len(data))} if stated else ZIP
    body = problem(service.http.post("/api/v1/ingestions", content=chunks, headers=headers))
    assert body["code"] == "body_too_large" and f"{service.settings.max_ingestion_bytes:,}" in body["detail"]
    assert service.http.get("/livez").status_code == 200


def test_what_is_not_an_archive_is_refused(service: Service) -> None:
    text = {"Content-Type": "text/plain"}
    assert service.http.post("/api/v1/ingestions", content=b"x", headers=text).status_code == 415
    missing = service.http.post("/api/v1/ingestions", files={"file": ("a.zip", b"")})
    assert problem(missing)["errors"][0]["pointer"] == "/file"
    for path in ("", "/items"):
        assert problem(service.http.get(f"/api/v1/ingestions/{uuid.uuid4()}{path}"))["code"] == "not_found"


def test_only_so_many_archives_wait(tmp_path: Path) -> None:
    with running_service(tmp_path, ingestion_queue=2) as service:
        data = archive(range(2))
        with service.context.intake.place(), service.context.intake.place():
            response = service.http.post("/api/v1/ingestions", content=data, headers=ZIP)
            assert problem(response)["code"] == "queue_full"
            assert response.status_code == 503 and int(response.headers["Retry-After"]) > 0
        assert service.ingest(data)["counts"]["indexed"] == 2
        broken = service.http.post("/api/v1/ingestions", content=b"x", headers=ZIP)
        assert broken.status_code == 422
        assert service.ingest(data)["counts"]["duplicate"] == 2, "a refused archive gave its place back"


def test_no_archive_is_left_on_disk(service: Service) -> None:
    service.ingest(archive(range(250, 252)))
    assert list((service.settings.data_dir / "archives").iterdir()) == []


def test_what_was_interrupted_is_marked_at_the_next_start(tmp_path: Path) -> None:
    with fresh_database() as database:
        with transaction(database.engine) as session:
            id = gallery.create_ingestion(session, "zip over HTTP")  # and then its process was killed
        with running_service(tmp_path, database=database) as service:
            ingestion = service.http.get(f"/api/v1/ingestions/{id}").json()
            assert ingestion["state"] == "failed" and ingestion["done"] is True
            assert "interrupted" in ingestion["error"]


def test_stopping_breaks_off_and_the_rest_can_be_sent_again(tmp_path: Path) -> None:
    """The service is stopped while one archive is written and another waits: the second is marked, nothing is lost."""
    data = archive(range(3))
    with fresh_database() as database:
        with running_service(tmp_path, database=database) as service, transaction(database.engine) as session:
            session.connection().exec_driver_sql("LOCK TABLE image IN SHARE MODE")
            paths = []
            for _ in range(2):
                response = service.http.post("/api/v1/ingestions", content=data, headers=ZIP)
                paths.append(response.headers["Location"])
            service.context.intake.stopping.set()
        with running_service(tmp_path, database=database) as service:
            states = [service.http.get(path).json()["state"] for path in paths]
            assert states[1] == "failed" and states[0] in ("done", "failed")
            service.ingest(data)
            assert service.found({"query": {}}, picture(1))["candidates"] == 3


def test_a_gallery_on_an_embedded_database_survives_a_restart(tmp_path: Path) -> None:
    """The path of `serve` without a database URL, and the same ranking after it."""
    rankings = []
    for _ in range(2):
        with running_service(tmp_path, embedded=True) as service:
            service.ingest(archive(range(5)))
            rankings.append(service.found({"query": {"text": "a man in red"}})["results"])
    assert rankings[0] == rankings[1] and len(rankings[0]) == 5
