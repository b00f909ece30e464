"""Camera scopes: what lies outside one's own is as if it were not there, in images, searches and deliveries."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.accounts import closed, code, key, visitor
from tests.service.conftest import Json, Service, picture, problem, wait_until, zipped

__all__ = ["closed"]


@pytest.fixture(scope="module")
def images(closed: Service) -> dict[str, str]:
    """camera -> an image of it; "none" has no camera"""
    found = {name: closed.added(picture(50 + n), camera_id=name) for n, name in enumerate(("north", "south"))}
    found["none"] = closed.added(picture(52), external_id="from nowhere")
    closed.embed()
    return found


@pytest.fixture(scope="module")
def northerner(closed: Service) -> Iterator[httpx.Client]:
    """Sees and adds images of camera north."""
    with visitor(closed, key(closed, "operator", "ingest", cameras=["north"])[0]) as client:
        yield client


def without_ids(response: httpx.Response) -> Json:
    body = problem(response)
    ids = r"[0-9a-f]{8}-[0-9a-f-]{27}|north|south|atlantis"
    return {name: re.sub(ids, "ID", str(body[name])) for name in ("status", "code", "title", "detail", "instance")}


@pytest.mark.parametrize(
    "path", ["/api/v1/images/{}", "/api/v1/images/{}/content", "/api/v1/images/{}/content?variant=thumb"]
)
def test_an_image_outside_the_scope_is_as_if_absent(
    northerner: httpx.Client, images: dict[str, str], path: str
) -> None:
    assert northerner.get(path.format(images["north"])).status_code == 200
    absent = northerner.get(path.format(uuid.uuid4()))
    assert absent.status_code == 404
    for camera in ("south", "none"):
        assert without_ids(northerner.get(path.format(images[camera]))) == without_ids(absent)


def test_a_search_stays_within_the_scope(closed: Service, northerner: httpx.Client, images: dict[str, str]) -> None:
    def ask(query: Json, **more: Any) -> httpx.Response:
        return northerner.post("/api/v1/searches", json={"query": query, **more})

    found = ask({"text": "a man"}).json()
    assert {result["image"]["camera_id"] for result in found["results"]} == {"north"}
    assert images["north"] in [result["image_id"] for result in found["results"]]
    assert found["candidates"] == len(found["results"])
    everything = closed.found({"query": {"text": "a man"}, "limit": 200})
    again = northerner.get(f"/api/v1/searches/{everything['id']}")
    if again.status_code == 200:  # whoever may read a search of somebody else still sees no more than their own images
        assert {result["image"]["camera_id"] for result in again.json()["results"]} == {"north"}
    else:
        assert again.status_code == 404
    by_image = {"image": {"image_id": images["south"]}}
    absent = {"image": {"image_id": str(uuid.uuid4())}}
    assert without_ids(ask(by_image)) == without_ids(ask(absent))
    assert ask({"image": {"image_id": images["north"]}}).status_code == 201
    for operator in ({"eq": "south"}, {"in": ["north", "south"]}, {"ne": "south"}):
        unknown = {key: "atlantis" if value == "south" else value for key, value in operator.items()}
        unknown = {key: ["north", "atlantis"] if isinstance(value, list) else value for key, value in unknown.items()}
        refused = ask({"text": "a man"}, filter={"camera_id": operator})
        assert code(refused) == (422, "unknown_camera")
        assert without_ids(refused) == without_ids(ask({"text": "a man"}, filter={"camera_id": unknown}))
    assert [camera["id"] for camera in northerner.get("/api/v1/cameras").json()["cameras"]] == ["north"]


def test_images_are_added_within_the_scope_alone(closed: Service, northerner: httpx.Client) -> None:
    def add(seed: int, metadata: str) -> httpx.Response:
        files: dict[str, Any] = {"image": ("a.png", picture(seed)), "metadata": (None, metadata, "application/json")}
        return northerner.post("/api/v1/images", files=files)

    assert add(60, '{"camera_id": "north"}').status_code == 201
    outside, absent = add(61, '{"camera_id": "south"}'), add(61, '{"camera_id": "atlantis"}')
    assert code(outside) == (422, "unknown_camera") and without_ids(outside) == without_ids(absent)
    assert code(add(61, "{}")) == (422, "unknown_camera")


def delivered(closed: Service, client: httpx.Client, content: bytes, kind: str, **parameters: Any) -> list[Json]:
    headers = {"Content-Type": kind}
    accepted = client.post("/api/v1/ingestions", content=content, headers=headers, params=parameters)
    assert accepted.status_code == 202, accepted.text
    path = accepted.headers["Location"]
    wait_until(lambda: client.get(path).json()["state"] == "done", "the delivery is taken in")
    items: list[Json] = client.get(f"{path}/items").json()["items"]
    return items


def test_deliveries_stay_within_the_scope(closed: Service, northerner: httpx.Client, images: dict[str, str]) -> None:
    lines = [{"file": f"{n}.png", "camera_id": camera} for n, camera in enumerate(("north", "south", "atlantis", None))]
    archive = zipped({f"{n}.png": picture(70 + n) for n in range(4)}, lines)
    items = delivered(closed, northerner, archive, "application/zip", register_cameras=True)
    assert [(item["state"], item["code"]) for item in items[1:]] == [("rejected", "unknown_camera")] * 3
    assert items[0]["state"] == "pending"
    cameras = [camera["id"] for camera in closed.http.get("/api/v1/cameras").json()["cameras"]]
    assert "atlantis" not in cameras

    closed.added(picture(80), external_id="in the south", camera_id="south")
    for n in range(3):
        closed.added(picture(81 + n), external_id=f"north {n}", camera_id="north")
    hold = closed.http.post("/api/v1/legal-holds", json={"reason": "held", "camera_id": "south"}).json()
    changes = b"\n".join(
        [
            b'{"external_id": "in the south", "identity": "x"}',
            b'{"external_id": "nobody", "identity": "x"}',
            b'{"external_id": "from nowhere", "tags": ["x"]}',
            b'{"external_id": "north 0", "camera_id": "south"}',
            b'{"external_id": "north 1", "camera_id": null}',
            b'{"external_id": "north 2", "tags": ["x"]}',
        ]
    )
    items = delivered(closed, northerner, changes, "application/x-ndjson")
    closed.http.delete(f"/api/v1/legal-holds/{hold['id']}")
    assert [item["code"] for item in items] == ["not_found"] * 3 + ["unknown_camera"] * 2 + [None]
    assert items[0]["reason"].replace("in the south", "X") == items[1]["reason"].replace("nobody", "X")
    assert closed.http.get(f"/api/v1/images/{images['none']}").json()["tags"] == []


def test_deliveries_and_their_request_keys_are_the_senders_own(closed: Service) -> None:
    archive = zipped({"a.png": picture(90)}, [{"file": "a.png", "camera_id": "north"}])
    headers = {"Content-Type": "application/zip", "Idempotency-Key": "the same"}
    with visitor(closed, key(closed, "ingest")[0]) as one, visitor(closed, key(closed, "ingest")[0]) as other:
        mine, theirs = (client.post("/api/v1/ingestions", content=archive, headers=headers) for client in (one, other))
        again = one.post("/api/v1/ingestions", content=archive, headers=headers)
        assert mine.json()["id"] == again.json()["id"] != theirs.json()["id"]
        assert other.get(mine.headers["Location"]).status_code == 404
        assert one.get(mine.headers["Location"]).status_code == 200
    with visitor(closed, key(closed, "admin")[0]) as admin:
        assert admin.get(mine.headers["Location"]).status_code == 200


def test_a_scope_keeps_from_what_concerns_the_whole_gallery(closed: Service) -> None:
    with visitor(closed, key(closed, "admin", cameras=["north"])[0]) as scoped:
        for method, path in (("GET", "/users"), ("GET", "/legal-holds"), ("GET", "/checkpoints"), ("GET", "/erasures")):
            refused = scoped.request(method, f"/api/v1{path}")
            assert code(refused) == (403, "forbidden") and "without a camera scope" in refused.text
