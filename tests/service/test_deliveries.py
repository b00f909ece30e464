"""Deliveries over HTTP in all their forms, sent twice, cancelled, tried again, watched, and onto a full disk."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from indexer.database import transaction
from service.routes import ingestions
from tests.postgres_fixtures import fresh_database
from tests.service.conftest import Json, Service, picture, problem, running_service, wait_until, zipped

PATH = "/api/v1/ingestions"


def jsonl(lines: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def tarred(files: Mapping[str, bytes], lines: Sequence[Mapping[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in {"metadata.jsonl": jsonl(lines), **files}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def described(seeds: range, **common: Any) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Files by name, and the lines that name them."""
    files = {f"people/{seed}.png": picture(seed) for seed in seeds}
    return files, [{"external_id": f"d{seed}", "file": f"people/{seed}.png", **common} for seed in seeds]


def finished(service: Service, response: Any) -> Json:
    """The ingestion once it was read and embedded."""
    assert response.status_code == 202, response.text
    path = response.headers["Location"]
    wait_until(lambda: service.http.get(path).json()["state"] in ("done", "failed", "cancelled"), "it is taken in")
    service.embed()
    answer: Json = service.http.get(path).json()
    return answer


def counted(ingestion: Json) -> dict[str, int]:
    return {state: count for state, count in ingestion["counts"].items() if count}


def values(service: Service, statement: str) -> list[Any]:
    with transaction(service.database.engine) as session:
        return list(session.scalars(text(statement)))


@contextmanager
def held_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """No file gets into the image store until the event is set, or the context ends."""
    gate, save = threading.Event(), service.context.store.save

    def wait_and_save(*arguments: Any) -> Any:
        assert gate.wait(30)
        return save(*arguments)

    monkeypatch.setattr(service.context.store, "save", wait_and_save)
    try:
        yield gate
    finally:
        gate.set()


# --- forms of delivery -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "media_type", "pack"),
    [
        ("tar", "application/x-tar", bytes),
        ("tar.gz", "application/gzip", gzip.compress),
        ("tgz", "application/x-tar", gzip.compress),
    ],
)
@pytest.mark.parametrize("form", [False, True])
def test_tars(service: Service, name: str, media_type: str, pack: Callable[[bytes], bytes], form: bool) -> None:
    start = 1000 + 10 * sum(map(ord, name)) + 5 * form
    data = pack(tarred(*described(range(start, start + 3))))
    if form:
        response = service.http.post(PATH, files={"archive": (f"gallery.{name}", data)})
    else:
        response = service.http.post(PATH, content=data, headers={"Content-Type": media_type})
    assert response.json()["total"] == 3
    ingestion = finished(service, response)
    assert (ingestion["state"], counted(ingestion)) == ("done", {"indexed": 3})


def test_a_form_with_a_manifest_and_its_files(service: Service) -> None:
    files, lines = described(range(100, 104))
    lines.append({"file": "gone.png"})
    parts: list[Any] = [("files", (name, data, "image/png")) for name, data in files.items()]
    parts.insert(2, ("manifest", ("metadata.jsonl", jsonl(lines))))
    parts.append(("files", ('odd "name".png', picture(104))))
    ingestion = finished(service, service.http.post(PATH, files=parts))
    assert counted(ingestion) == {"indexed": 4, "rejected": 2}
    rejected = {item["file"]: item["code"] for item in service.items(ingestion, state="rejected")}
    assert rejected == {"gone.png": "file_missing", 'odd "name".png': "not_in_metadata"}
    found = service.found({"query": {}}, picture(102))["results"][0]["image"]
    assert found["external_id"] == "d102"


FORMS: dict[str, tuple[list[Any], str, str | None]] = {
    "no manifest": ([("files", ("a.png", b"x"))], "invalid_request", "/manifest"),
    "two manifests": ([("manifest", ("m", b"")), ("manifest", ("m", b""))], "invalid_request", "/manifest"),
    "an archive too": ([("manifest", ("m", b"")), ("archive", ("a.zip", b"x"))], "invalid_request", "/archive"),
    "an archive first": ([("archive", ("a.zip", b"x")), ("manifest", ("m", b""))], "invalid_request", "/archive"),
    "another part": ([("manifest", ("m", b"")), ("extra", ("a", b"x"))], "invalid_request", "/extra"),
    "no filename": ([("manifest", ("m", b"")), ("files", (None, b"x"))], "invalid_request", "/files"),
    "slip": ([("files", ("../a.png", b"x"))], "archive_unsafe_path", None),
    "twice": ([("files", ("a.png", b"x")), ("files", ("./a.png", b"y"))], "archive_duplicate_name", None),
    "neither": ([("archive", ("a.zip", b"x"))], "archive_unreadable", None),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_make_no_sense(service: Service, name: str) -> None:
    parts, code, pointer = FORMS[name]
    body = problem(service.http.post(PATH, files=parts))
    assert (body["status"], body["code"]) == (422, code)
    assert [error["pointer"] for error in body["errors"]] == ([pointer] if pointer else [])


def test_a_form_that_breaks_off_is_malformed(service: Service) -> None:
    for kind, content in (
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"no boundary at all"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="manifest"\r\n\r\n{}'),
    ):
        response = service.http.post(PATH, content=content, headers={"Content-Type": kind})
        assert problem(response)["code"] == "malformed"


def test_a_manifest_by_reference(tmp_path: Path) -> None:
    root = tmp_path / "deliveries"
    (root / "day" / "people").mkdir(parents=True)
    files, lines = described(range(120, 123))
    for name, data in files.items():
        (root / "day" / name).write_bytes(data)
    (root / "day" / "metadata.jsonl").write_bytes(jsonl([*lines, {"file": "../../x"}]))
    with running_service(tmp_path / "data", intake_roots=(str(root),)) as service:
        response = service.http.post(PATH, json={"manifest": f"{root}/day/metadata.jsonl"})
        assert response.json()["total"] == 4
        assert counted(finished(service, response)) == {"indexed": 3, "rejected": 1}
        for outside in ("/etc/passwd", f"{root}/../x", "http://example.com/metadata.jsonl"):
            body = problem(service.http.post(PATH, json={"manifest": outside}))
            assert (body["status"], body["code"]) == (422, "reference_not_allowed")
        assert problem(service.http.post(PATH, json={"manifest": 3}))["errors"][0]["pointer"] == "/manifest"


def test_metadata_alone_changes_images_that_are_there(service: Service) -> None:
    service.camera("platform-1")
    files, lines = described(range(140, 144), tags=["old"], identity="somebody")
    finished(
        service, service.http.post(PATH, content=zipped(files, lines), headers={"Content-Type": "application/zip"})
    )
    moved = {"camera_id": "platform-1", "captured_at": "2026-09-01T18:00:00Z"}
    changes = [
        {"external_id": "d140", "tags": ["new"], **moved},
        {"external_id": "d141", "identity": None},
        {"external_id": "nobody", "tags": []},
        {"external_id": "d142", "camera_id": "nowhere"},
        {"external_id": "d143", "tags": ["old"]},
    ]
    headers = {"Content-Type": "application/x-ndjson"}
    first = finished(service, service.http.post(PATH, content=jsonl(changes), headers=headers))
    assert first["total"] == 5
    assert counted(first) == {"indexed": 2, "duplicate": 1, "rejected": 2}
    codes = [item["code"] for item in service.items(first, state="rejected")]
    assert codes == ["not_found", "unknown_camera"]
    one, two = (service.http.get(f"/api/v1/images/{item['image_id']}").json() for item in service.items(first)[:2])
    assert (one["tags"], one["camera_id"], one["identity"]) == (["new"], "platform-1", "somebody")
    assert (two["tags"], two["identity"]) == (["old"], None)
    again = finished(service, service.http.post(PATH, content=jsonl(changes), headers=headers))
    assert counted(again) == {"duplicate": 3, "rejected": 2}, "sent twice, nothing changes"
    found = service.found(
        {"query": {}, "filter": {"camera_id": {"eq": "platform-1"}, "tags": {"all": ["new"]}}}, picture(1)
    )
    assert found["candidates"] == 1, "filters know at once"


def test_metadata_that_would_make_two_images_one_is_rejected(service: Service) -> None:
    service.camera("yard-a", "yard-b")
    for camera in ("yard-a", "yard-b"):
        service.added(picture(150), camera_id=camera, external_id=f"at-{camera}")
    content = jsonl([{"external_id": "at-yard-b", "camera_id": "yard-a"}, {"external_id": "at-yard-a", "tags": ["x"]}])
    response = service.http.post(PATH, content=content, headers={"Content-Type": "application/x-ndjson"})
    ingestion = finished(service, response)
    assert [item["code"] for item in service.items(ingestion)] == ["duplicate_content", None]


# --- sent twice --------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_are_one_ingestion(service: Service) -> None:
    files, lines = described(range(160, 163))
    parts: list[Any] = [("manifest", ("m", jsonl(lines))), *(("files", (name, data)) for name, data in files.items())]
    headers = {"Idempotency-Key": "delivery-17"}
    first = service.http.post(PATH, files=parts, headers=headers)  # each time with another boundary
    finished(service, first)
    second = service.http.post(PATH, files=parts, headers=headers)
    assert second.status_code == 202 and second.headers["Location"] == first.headers["Location"]
    assert counted(second.json()) == {"indexed": 3}, "the same ingestion, as it is by now"
    other = service.http.post(PATH, files=parts[:-1], headers=headers)
    assert problem(other)["code"] == "idempotency_conflict" and other.status_code == 422
    asking_more = service.http.post(PATH, files=parts, headers=headers, params={"register_cameras": True})
    assert problem(asking_more)["code"] == "idempotency_conflict"
    without = service.http.post(PATH, files=parts)
    assert without.headers["Location"] != first.headers["Location"]
    assert counted(finished(service, without)) == {"duplicate": 3}


def test_a_key_brings_nobody_back_who_was_erased(service: Service) -> None:
    files, lines = described(range(168, 170))
    lines[0] |= {"external_id": "vera-1", "identity": "vera-y"}
    data, headers = zipped(files, lines), {"Idempotency-Key": "delivery-18", "Content-Type": "application/zip"}
    first = service.http.post(PATH, content=data, headers=headers)
    finished(service, first)
    receipt = service.http.post("/api/v1/erasures", json={"identity": "vera-y", "reason": "asked for"}).json()
    assert receipt["state"] == "done"
    second = service.http.post(PATH, content=data, headers=headers)
    assert second.headers["Location"] == first.headers["Location"] and "vera" not in second.text
    assert counted(second.json()) == {"removed": 1, "indexed": 1}
    assert "vera" not in json.dumps(service.items(second.json()))
    assert values(service, "SELECT count(*) FROM image WHERE identity = 'vera-y'") == [0]


def test_a_key_is_forgotten_after_a_day_and_not_kept_for_what_failed(service: Service) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/zip"}
    assert service.http.post(PATH, content=b"no zip", headers=headers).status_code == 422
    data = zipped(*described(range(164, 165)))
    first = service.http.post(PATH, content=data, headers=headers)
    with transaction(service.database.engine) as session:
        session.execute(text("UPDATE idempotency_key SET expires_at = now()"))
    second = service.http.post(PATH, content=data, headers=headers)
    assert first.status_code == second.status_code == 202
    assert first.headers["Location"] != second.headers["Location"]
    for wrong in ("", "x" * 256):
        response = service.http.post(PATH, content=data, headers={**headers, "Idempotency-Key": wrong})
        assert problem(response)["errors"][0]["pointer"] == "idempotency-key"


def test_the_same_key_at_once_is_one_ingestion(service: Service) -> None:
    before = len(values(service, "SELECT id FROM ingestion"))
    data = zipped(*described(range(166, 168)))
    headers = {"Idempotency-Key": "at-once", "Content-Type": "application/zip"}
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda _: service.http.post(PATH, content=data, headers=headers), range(4)))
    assert len({response.headers["Location"] for response in responses}) == 1
    assert len(values(service, "SELECT id FROM ingestion")) == before + 1
    assert counted(finished(service, responses[0])) == {"indexed": 2}


# --- cancelled, tried again, watched -----------------------------------------------------------------------------


def test_cancelling_stops_what_waits_and_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_service(tmp_path) as service:
        headers = {"Content-Type": "application/zip"}
        with held_up(service, monkeypatch):
            locations = [
                service.http.post(PATH, content=zipped(*described(seeds)), headers=headers).headers["Location"]
                for seeds in (range(180, 184), range(190, 194))
            ]
            for location in locations:
                for _ in range(2):  # the second time changes nothing
                    cancelled = service.http.post(f"{location}/cancel")
                    assert cancelled.status_code == 200 and cancelled.json()["state"] == "cancelled"
                    assert "send the same again" in cancelled.json()["error"]
        done = finished(service, service.http.post(PATH, content=zipped(*described(range(190, 192))), headers=headers))
        assert counted(done) == {"indexed": 2}
        for location in locations:
            ingestion = service.http.get(location).json()
            assert (ingestion["state"], ingestion["done"], counted(ingestion)) == ("cancelled", True, {})
        assert len(list((tmp_path / "images").rglob("*.*"))) == 0
        stored = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
        assert len(stored) == 2, "files whose images did not come to be added are gone"
        over = service.http.post(f"{PATH}/{done['id']}/cancel")
        assert over.status_code == 409 and problem(over)["code"] == "ingestion_finished"


def test_failed_images_are_tried_again(service: Service) -> None:
    response = service.http.post(
        PATH, content=zipped(*described(range(200, 204))), headers={"Content-Type": "application/zip"}
    )
    ingestion = finished(service, response)
    rows = "SELECT row FROM image WHERE external_id IN ('d201', 'd202')"
    with transaction(service.database.engine) as session:
        failed = "state = 'failed', vector = NULL, seq = NULL, attempts = 4, error = 'The worker died.'"
        session.execute(text(f"UPDATE embedding SET {failed} WHERE image_row IN ({rows})"))
    path = f"{PATH}/{ingestion['id']}"
    assert [item["code"] for item in service.items(ingestion, state="failed")] == ["embedding_failed"] * 2
    retried = service.http.post(f"{path}/retry")
    assert retried.status_code == 202 and counted(retried.json()) == {"pending": 2, "indexed": 2}
    service.embed()
    assert counted(service.http.get(path).json()) == {"indexed": 4}
    nothing = service.http.post(f"{path}/retry")
    assert nothing.status_code == 409 and problem(nothing)["code"] == "nothing_to_retry"
    with transaction(service.database.engine) as session:
        session.execute(text("UPDATE ingestion SET state = 'failed', error = 'The disk is full.'"))
    assert "The disk is full. " in problem(service.http.post(f"{path}/retry"))["detail"]


def test_there_is_nothing_to_do_about_what_is_not_there(service: Service) -> None:
    for call, method in (("retry", "POST"), ("cancel", "POST"), ("events", "GET")):
        response = service.http.request(method, f"{PATH}/0199a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b/{call}")
        assert problem(response)["code"] == "not_found"


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, Json]]:
    kind = ""
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))
        elif line.startswith(":"):
            yield "comment", {}


def test_events_tell_how_far_it_is_until_the_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingestions, "HEARTBEAT_SECONDS", 0.0)
    with held_up(service, monkeypatch) as gate:
        headers = {"Content-Type": "application/zip"}
        location = service.http.post(PATH, content=zipped(*described(range(210, 213))), headers=headers).headers[
            "Location"
        ]
        with service.http.stream("GET", f"{location}/events") as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            told = events_of(stream.iter_lines())
            kind, state = next(told)
            assert (kind, state["total"], counted(state), state["rate"]) == ("progress", 3, {}, None)
            assert next(told)[0] == "comment", "a sign of life while nothing changes"
            gate.set()
            for kind, state in told:
                if kind == "progress" and counted(state) == {"pending": 3}:
                    service.embed()
            assert (kind, counted(state), state["seconds_left"]) == ("done", {"indexed": 3}, 0.0)
            assert state["rate"] > 0


# --- more than one service ---------------------------------------------------------------------------------------


def test_a_second_service_leaves_the_first_ones_deliveries_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Content-Type": "application/zip"}
    with fresh_database() as database, running_service(tmp_path, database=database) as first:
        with held_up(first, monkeypatch):
            locations = [
                first.http.post(PATH, content=zipped(*described(seeds)), headers=headers).headers["Location"]
                for seeds in (range(220, 223), range(230, 233))
            ]
            with running_service(tmp_path, database=database) as second:
                states = [second.http.get(location).json()["state"] for location in locations]
                assert states == ["receiving", "receiving"], "one is being read, one waits, neither is given up"
                assert second.http.post(f"{locations[1]}/cancel").json()["state"] == "cancelled"
        wait_until(lambda: first.http.get(locations[0]).json()["state"] == "done", "the first goes on")
        assert first.http.get(locations[0]).json()["counts"]["pending"] == 3
        assert first.http.get(locations[1]).json()["state"] == "cancelled", "what one cancelled the other leaves"


# --- a full disk -------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_while_an_archive_arrives(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    asked: list[object] = []

    def filling(path: object) -> object:
        asked.append(path)
        return usage(100, 0, 10**9 if len(asked) < 3 else -1)

    data = os.urandom(3 * 2**20)
    with monkeypatch.context() as patched:
        patched.setattr("service.operations.shutil.disk_usage", filling)
        response = service.http.post(PATH, content=data, headers={"Content-Type": "application/zip"})
    assert response.status_code == 507 and problem(response)["code"] == "storage_full"
    assert len(asked) == 3
    ingestion = service.ingest(zipped(*described(range(240, 242))))
    assert counted(ingestion) == {"indexed": 2}, "it goes on once there is room"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts nothing")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("guard", [0, 2**20])
def test_a_disk_that_is_really_full(small_disk: Path, guard: int) -> None:
    """The upload does not fit, later the images do not fit; each time nothing half-written is left, and it goes on."""
    with running_service(small_disk, min_free_bytes=guard, max_ingestion_bytes=2**25) as service:
        free = shutil.disk_usage(small_disk).free
        headers = {"Content-Type": "application/zip"}
        for _ in range(2):
            response = service.http.post(PATH, content=os.urandom(12 * 2**20), headers=headers)
            assert response.status_code == 507 and problem(response)["code"] == "storage_full"
            wait_until(lambda: shutil.disk_usage(small_disk).free == free, "the upload left nothing behind")
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(free - guard - 600_000))
        files = {f"{seed}.bmp": bmp(seed) for seed in range(16)}  # fits while it is packed, and not beside its images
        lines = [{"file": name} for name in files]
        broken = finished(service, service.http.post(PATH, content=zipped(files, lines), headers=headers))
        assert broken["state"] == "failed" and "Free some space" in broken["error"]
        assert list((small_disk / "images" / "incoming").iterdir()) == []
        assert (
            len([path for path in (small_disk / "images").rglob("*") if path.is_file()]) == broken["counts"]["indexed"]
        )
        ballast.unlink()
        again = finished(service, service.http.post(PATH, content=zipped(files, lines), headers=headers))
        assert again["state"] == "done" and sum(counted(again).values()) == 16
        assert service.found({"query": {}}, picture(1))["candidates"] == 16


def bmp(seed: int) -> bytes:
    """About 200 kB on disk, nearly nothing in a zip."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (200, 333), (seed, 100, 50)).save(buffer, "BMP")
    return buffer.getvalue()
