"""Single images over HTTP: what is added can be read back, found, and deleted without a trace."""

from __future__ import annotations

import hashlib
import io
import uuid
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.service.conftest import Service, encoded, picture, pixels, problem

METADATA = {
    "external_id": "north-1",
    "camera_id": "north",
    "captured_at": "2026-09-01T18:04:11+02:00",
    "track_id": "t-1",
    "identity": None,
    "tags": ["platform", "evening"],
    "attributes": {"carriage": 3},
}


def test_an_added_image_is_described_as_it_was_sent(service: Service) -> None:
    service.camera("north")
    data = picture(1)
    response = service.add(data, METADATA)
    assert response.status_code == 201
    image = response.json()
    assert response.headers["Location"] == f"/api/v1/images/{image['id']}"
    assert image["state"] == "pending" and image["duplicate"] is False
    assert {name: image[name] for name in METADATA} == {**METADATA, "captured_at": "2026-09-01T16:04:11Z"}
    assert image["sha256"] == hashlib.sha256(data).hexdigest()
    assert (image["width"], image["height"], image["format"], image["byte_size"]) == (20, 48, "PNG", len(data))
    service.embed()
    again = service.http.get(response.headers["Location"])
    assert again.status_code == 200
    assert again.json() == {**image, "state": "indexed"}


def test_the_same_image_twice_is_one_image(service: Service) -> None:
    first = service.add(picture(2), {"tags": ["x"]})
    second = service.add(picture(2), {"tags": ["y"]})
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == {**first.json(), "duplicate": True}
    assert second.headers["Location"] == first.headers["Location"]


def test_metadata_may_be_left_out_or_sent_as_a_file(service: Service) -> None:
    assert service.add(picture(3)).status_code == 201
    files: dict[str, Any] = {
        "image": ("image.png", picture(4)),
        "metadata": ("metadata.json", b'{"tags": ["from-a-file"]}', "application/json"),
    }
    response = service.http.post("/api/v1/images", files=files)
    assert response.status_code == 201 and response.json()["tags"] == ["from-a-file"]


def test_the_content_is_the_file_and_the_thumbnail_is_small(service: Service) -> None:
    data = encoded(pixels(5, height=900, width=300))
    id = service.added(data)
    full = service.http.get(f"/api/v1/images/{id}/content")
    assert full.content == data
    assert full.headers["Content-Type"] == "image/png"
    assert full.headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert full.headers["Cache-Control"] == "private, no-store"
    thumb = service.http.get(f"/api/v1/images/{id}/content?variant=thumb")
    with Image.open(io.BytesIO(thumb.content)) as small:
        assert small.height == 256 and small.format == "WEBP"
    unchanged = service.http.get(f"/api/v1/images/{id}/content", headers={"If-None-Match": full.headers["ETag"]})
    assert unchanged.status_code == 304 and unchanged.content == b""


def test_a_deleted_image_is_gone_everywhere(service: Service) -> None:
    data = picture(6)
    id = service.added(data)
    service.http.get(f"/api/v1/images/{id}/content?variant=thumb")
    files = service.settings.data_dir / "images"
    digest = hashlib.sha256(data).hexdigest()
    assert [path for path in files.rglob("*") if digest in path.name]
    assert service.http.delete(f"/api/v1/images/{id}").status_code == 204
    assert not [path for path in files.rglob("*") if digest in path.name]
    for path in (f"/api/v1/images/{id}", f"/api/v1/images/{id}/content"):
        assert problem(service.http.get(path))["code"] == "not_found"
    assert problem(service.http.delete(f"/api/v1/images/{id}"))["status"] == 404


def test_a_file_two_images_share_outlives_one_of_them(service: Service) -> None:
    service.camera("share-1", "share-2")
    data = picture(7)
    ids = [service.added(data, camera_id=camera) for camera in ("share-1", "share-2")]
    assert ids[0] != ids[1]
    service.http.delete(f"/api/v1/images/{ids[0]}")
    assert service.http.get(f"/api/v1/images/{ids[1]}/content").content == data


def test_an_external_id_belongs_to_one_image(service: Service) -> None:
    service.added(picture(8), external_id="taken")
    refused = service.add(picture(9), {"external_id": "taken"})
    assert refused.status_code == 409
    body = problem(refused)
    assert body["code"] == "external_id_conflict" and body["errors"][0]["pointer"] == "/external_id"


@pytest.mark.parametrize("path", ["", "/content"])
def test_what_does_not_exist_is_404_and_what_is_no_id_is_422(service: Service, path: str) -> None:
    assert problem(service.http.get(f"/api/v1/images/{uuid.uuid4()}{path}"))["code"] == "not_found"
    assert problem(service.http.get(f"/api/v1/images/17{path}"))["errors"][0]["pointer"] == "image_id"


def test_a_missing_file_is_a_404_with_a_sentence(service: Service) -> None:
    data = picture(10)
    id = service.added(data)
    Path(service.context.store.path(hashlib.sha256(data).hexdigest())).unlink()
    for variant in ("full", "thumb"):
        body = problem(service.http.get(f"/api/v1/images/{id}/content?variant={variant}"))
        assert body["status"] == 404 and "missing" in body["detail"]


def test_cameras_are_listed_by_id_and_made_once(service: Service) -> None:
    body = {"id": "zebra-crossing", "name": "Crossing", "site": "Town"}
    made = service.http.post("/api/v1/cameras", json=body)
    assert made.status_code == 201 and body.items() <= made.json().items()
    assert problem(service.http.post("/api/v1/cameras", json=body))["code"] == "camera_exists"
    listed = [camera["id"] for camera in service.http.get("/api/v1/cameras").json()["cameras"]]
    assert listed == sorted(listed) and "zebra-crossing" in listed
