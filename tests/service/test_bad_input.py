"""Everything a client can get wrong, each with its status, its code and a sentence; never a 500, nothing half-stored.

The tables are the documentation of what is accepted: a picture to add and a picture to search with obey the same rules.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import Service, encoded, picture, pixels, problem, zipped

# ------------------------------------------------------------------------------------------------------ pictures


def claiming(width: int, height: int) -> bytes:
    """A small PNG whose header claims another size."""
    data = bytearray(picture(100))
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    data[12:29], data[29:33] = header, struct.pack(">I", zlib.crc32(header))
    return bytes(data)


def unpacking_png() -> bytes:
    """40 kB of zlib that unpack to 20000 x 2001 white pixels: just above the limit of 40 million."""
    return encoded(Image.new("L", (20_000, 2_001), 255))


def rotated() -> bytes:
    image, exif = pixels(101), Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    return encoded(image, "JPEG", exif=exif)


def animated() -> bytes:
    frames = [pixels(seed) for seed in (102, 103, 104)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def sixteen_bit() -> bytes:
    levels = np.linspace(0, 65_535, 48 * 20, dtype=np.uint16).reshape(48, 20)
    return encoded(Image.fromarray(levels), "PNG")


REFUSED: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "not an image": (lambda: b"this is a letter, not a picture", 422, "unreadable_image"),
    "empty file": (lambda: b"", 422, "unreadable_image"),
    "truncated JPEG": (lambda: encoded(pixels(105, 400, 160), "JPEG")[:-900], 422, "unreadable_image"),
    "truncated PNG": (lambda: encoded(pixels(106, 400, 160))[:200], 422, "unreadable_image"),
    "pixel bomb by its header": (lambda: claiming(60_000, 60_000), 413, "image_too_large"),
    "pixel bomb by its pixels": (unpacking_png, 413, "image_too_large"),
    "too many bytes": (lambda: picture(107) + bytes(2**20), 413, "image_too_large"),
    "1 x 1": (lambda: encoded(Image.new("RGB", (1, 1))), 422, "image_too_small"),
    "7 pixels wide": (lambda: encoded(Image.new("RGB", (7, 200))), 422, "image_too_small"),
    "HEIC": (lambda: b"\x00\x00\x00\x18ftypheic" + bytes(64), 415, "unsupported_image"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "unsupported_image"),
}

ACCEPTED: dict[str, tuple[Callable[[], bytes], str, tuple[int, int]]] = {
    "CMYK": (lambda: encoded(pixels(108).convert("CMYK"), "JPEG"), "JPEG", (20, 48)),
    "16 bit": (sixteen_bit, "PNG", (20, 48)),
    "gray": (lambda: encoded(pixels(109).convert("L"), "PNG"), "PNG", (20, 48)),
    "transparent": (lambda: encoded(pixels(110).convert("RGBA"), "WEBP"), "WEBP", (20, 48)),
    "animated": (animated, "GIF", (20, 48)),
    "EXIF-rotated": (rotated, "JPEG", (48, 20)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_that_cannot_be_used_is_refused(service: Service, name: str) -> None:
    make, status, code = REFUSED[name]
    data = make()
    for response in (service.add(data), service.search({"query": {}}, data)):
        assert response.status_code == status, response.text
        assert problem(response)["code"] == code
    stored = service.settings.data_dir / "images"
    assert not [path for path in stored.rglob("*") if path.is_file() and path.read_bytes() == data]


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_unusual_picture_is_accepted_added_and_found(service: Service, name: str) -> None:
    make, format, size = ACCEPTED[name]
    data = make()
    response = service.add(data)
    assert response.status_code == 201, response.text
    image = response.json()
    assert (image["format"], (image["width"], image["height"])) == (format, size)
    service.embed()
    found = service.found({"query": {}, "limit": 1}, data)
    assert found["results"][0]["image_id"] == image["id"]
    assert found["results"][0]["similarity"] == pytest.approx(1, abs=1e-4)


# ----------------------------------------------------------------------------------------------------- metadata

METADATA: dict[str, tuple[str, int, str, str]] = {
    "time without zone": ('{"captured_at": "2026-09-01T18:00:00"}', 422, "time_without_zone", "/captured_at"),
    "no time": ('{"captured_at": "yesterday"}', 422, "invalid_metadata", "/captured_at"),
    "time as a number": ('{"captured_at": 1756742400}', 422, "invalid_metadata", "/captured_at"),
    "unknown field": ('{"camera": "north"}', 422, "invalid_metadata", "/camera"),
    "unknown camera": ('{"camera_id": "nowhere"}', 422, "unknown_camera", "/camera_id"),
    "control character": ('{"track_id": "a\\u0000b"}', 422, "invalid_metadata", "/track_id"),
    "empty string": ('{"external_id": " "}', 422, "invalid_metadata", "/external_id"),
    "too long": (json.dumps({"identity": "x" * 300}), 422, "invalid_metadata", "/identity"),
    "tags not a list": ('{"tags": "platform"}', 422, "invalid_metadata", "/tags"),
    "attributes not an object": ('{"attributes": []}', 422, "invalid_metadata", "/attributes"),
    "field of archives": ('{"file": "a.jpg"}', 422, "invalid_metadata", "/file"),
    "checksum of other bytes": (json.dumps({"sha256": "0" * 64}), 422, "invalid_metadata", "/sha256"),
    "not an object": ("[]", 422, "invalid_metadata", "/metadata"),
    "not JSON": ("{camera_id: north}", 400, "malformed", ""),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_is_wrong_is_refused_with_its_field(service: Service, name: str) -> None:
    text, status, code, pointer = METADATA[name]
    files: dict[str, Any] = {"image": ("a.png", picture(120)), "metadata": (None, text)}
    body = problem(service.http.post("/api/v1/images", files=files))
    assert (body["status"], body["code"]) == (status, code)
    assert [error["pointer"] for error in body["errors"]] == ([pointer] if pointer else [])
    assert service.add(picture(120)).status_code == 201, "the refused image was stored after all"
    service.http.delete(f"/api/v1/images/{service.added(picture(120))}")


# --------------------------------------------------------------------------------------------------- search bodies

TEXT = {"text": "a man in a red jacket"}
ID = "0199a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b"

SEARCHES: dict[str, tuple[Any, int, str, str]] = {
    "limit 0": ({"query": TEXT, "limit": 0}, 422, "greater_than_equal", "/limit"),
    "limit -1": ({"query": TEXT, "limit": -1}, 422, "greater_than_equal", "/limit"),
    "limit 10^9": ({"query": TEXT, "limit": 10**9}, 422, "less_than_equal", "/limit"),
    "limit as text": ({"query": TEXT, "limit": "5"}, 422, "int_type", "/limit"),
    "unknown field": ({"query": TEXT, "limti": 5}, 422, "unknown_field", "/limti"),
    "unknown query field": ({"query": {**TEXT, "colour": "red"}}, 422, "unknown_field", "/query/colour"),
    "unknown filter": ({"query": TEXT, "filter": {"camera": {"eq": "a"}}}, 422, "unknown_field", "/filter/camera"),
    "unknown operator": (
        {"query": TEXT, "filter": {"camera_id": {"is": "a"}}},
        422,
        "unknown_field",
        "/filter/camera_id/is",
    ),
    "filter without operator": ({"query": TEXT, "filter": {"tags": {}}}, 422, "value_error", "/filter/tags"),
    "filter that is null": ({"query": TEXT, "filter": {"tags": None}}, 422, "model_type", "/filter/tags"),
    "empty list": ({"query": TEXT, "filter": {"camera_id": {"in": []}}}, 422, "too_short", "/filter/camera_id/in"),
    "two comparisons in any": (
        {"query": TEXT, "filter": {"any": [{"tags": {"any": ["a"], "none": ["b"]}}]}},
        422,
        "value_error",
        "/filter/any",
    ),
    "time without zone": (
        {"query": TEXT, "filter": {"captured_at": {"gte": "2026-09-01T18:00:00"}}},
        422,
        "time_without_zone",
        "/filter/captured_at/gte",
    ),
    "time as a number": (
        {"query": TEXT, "filter": {"captured_at": {"gte": 1756742400}}},
        422,
        "datetime_type",
        "/filter/captured_at/gte",
    ),
    "unknown camera": (
        {"query": TEXT, "filter": {"camera_id": {"in": ["nroth"]}}},
        422,
        "unknown_camera",
        "/filter/camera_id",
    ),
    "unknown camera in any": (
        {"query": TEXT, "filter": {"any": [{"tags": {"any": ["a"]}}, {"camera_id": {"ne": "nroth"}}]}},
        422,
        "unknown_camera",
        "/filter/any/1/camera_id",
    ),
    "nothing to search for": ({"query": {}}, 422, "invalid_request", "/query"),
    "no query": ({}, 422, "missing", "/query"),
    "empty text": ({"query": {"text": ""}}, 422, "string_too_short", "/query/text"),
    "spaces": ({"query": {"text": " \t\n "}}, 422, "value_error", "/query/text"),
    "control characters only": ({"query": {"text": "\x00\x07\x1b"}}, 422, "value_error", "/query/text"),
    "a lone joiner": ({"query": {"text": "\u200d\ufe0f"}}, 422, "value_error", "/query/text"),
    "10,000 characters": ({"query": {"text": "red " * 2500}}, 422, "value_error", "/query/text"),
    "unknown image": ({"query": {"image": {"image_id": ID}}}, 422, "unknown_image", "/query/image/image_id"),
    "negative weight": (
        {"query": {**TEXT, "image": {"image_id": ID}, "weights": {"text": -1, "image": 1}}},
        422,
        "greater_than_equal",
        "/query/weights/text",
    ),
    "weights both zero": (
        {"query": {**TEXT, "image": {"image_id": ID}, "weights": {"text": 0, "image": 0}}},
        422,
        "value_error",
        "/query/weights",
    ),
    "weights for text alone": (
        {"query": {**TEXT, "weights": {"text": 1, "image": 1}}},
        422,
        "invalid_request",
        "/query/weights",
    ),
    "a list": ([], 422, "model_type", "/"),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_is_wrong_is_refused_with_its_field(service: Service, name: str) -> None:
    request, status, code, pointer = SEARCHES[name]
    body = problem(service.search(request))
    assert body["status"] == status
    assert [(error["code"], error["pointer"]) for error in body["errors"]] == [(code, pointer)]
    assert len(body["detail"]) > 20


RAW: dict[str, tuple[bytes, str, int, str]] = {
    "not JSON": (b"{query", "application/json", 400, "malformed"),
    "empty body": (b"", "application/json", 400, "malformed"),
    "half a character": (b'{"query": {"text": "\xff"}}', "application/json", 400, "malformed"),
    "NaN": (
        b'{"query": {"text": "a", "weights": {"text": NaN, "image": 1}}}',
        "application/json",
        422,
        "invalid_request",
    ),
    "1e999": (
        b'{"query": {"text": "a", "weights": {"text": 1e999, "image": 1}}}',
        "application/json",
        422,
        "invalid_request",
    ),
    "no type": (b"{}", "", 415, "unsupported_media_type"),
    "plain text": (b"a man in red", "text/plain", 415, "unsupported_media_type"),
    "a form without boundary": (b"x", "multipart/form-data", 400, "malformed"),
    "a form cut short": (b"--b\r\nContent-Disposition: form-data; name", "multipart/form-data; boundary=b", 422, ""),
    "too long": (b'"' + b"x" * 300_000 + b'"', "application/json", 413, "body_too_large"),
    "deep": (b"[" * 100_000, "application/json", 400, "malformed"),
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_search_are_refused(service: Service, name: str) -> None:
    data, kind, status, code = RAW[name]
    headers = {"Content-Type": kind} if kind else {}
    body = problem(service.http.post("/api/v1/searches", content=data, headers=headers))
    assert body["status"] == status
    assert code in ("", body["code"])


def test_parts_of_a_form_are_known_single_and_small(service: Service) -> None:
    ask = ("request", (None, json.dumps({"query": {}})))
    image = ("image", ("q.png", picture(1)))
    cases: list[tuple[list[Any], int, str]] = [
        ([ask, image, ("pciture", ("q.png", picture(1)))], 422, "pciture"),
        ([ask, image, image], 422, "more than once"),
        ([image], 422, "missing"),
        ([ask, ("image", (None, "text"))], 422, "must be a file"),
        ([ask, ("image", ("q.png", bytes(3 * 2**20)))], 413, "2,097,152"),
    ]
    for files, status, words in cases:
        body = problem(service.http.post("/api/v1/searches", files=files))
        assert body["status"] == status and words in body["detail"]
    both = json.dumps({"query": {"image": {"image_id": ID}}})
    body = problem(service.http.post("/api/v1/searches", files=[("request", (None, both)), image]))
    assert body["errors"][0]["pointer"] == "/query/image"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/cameras?siet=x"),
        ("POST", "/api/v1/searches?limit=5"),
        ("GET", f"/api/v1/images/{ID}/content?size=thumb"),
        ("GET", f"/api/v1/ingestions/{ID}/items?sate=failed"),
        ("GET", "/readyz?verbose=1"),
    ],
)
def test_an_unknown_parameter_is_refused_by_name(service: Service, method: str, path: str) -> None:
    body = problem(service.http.request(method, path, json={"query": TEXT} if method == "POST" else None))
    assert body["status"] == 422
    assert body["errors"][0]["pointer"] == path.partition("?")[2].partition("=")[0]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=1000000000", "limit=ten", "after=-2", "after=99999999999", "state=lost"]
)
def test_pages_of_items_have_limits(service: Service, query: str) -> None:
    body = problem(service.http.get(f"/api/v1/ingestions/{ID}/items?{query}"))
    assert body["status"] == 422 and body["errors"][0]["pointer"] == query.partition("=")[0]


@pytest.mark.parametrize("id", ["", "a b", "a/b", "x" * 300, "\x00"])
def test_a_camera_id_is_a_plain_name(service: Service, id: str) -> None:
    body = problem(service.http.post("/api/v1/cameras", json={"id": id}))
    assert body["status"] == 422 and body["errors"][0]["pointer"] == "/id"


# ------------------------------------------------------------------------------------------------------- archives


def raw_zip(name: str, mode: int = 0, data: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.jsonl", json.dumps({"file": "a.png"}))
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, data)
    return buffer.getvalue()


def encrypted_zip() -> bytes:
    """The flag alone, in both headers: what a reader goes by."""
    data = bytearray(zipped({"a.png": picture(130)}, [{"file": "a.png"}]))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(signature) + offset] |= 1
    return bytes(data)


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "not a zip": (lambda: b"Rar!" + bytes(100), "archive_unreadable"),
    "empty body": (lambda: b"", "archive_unreadable"),
    "cut short": (lambda: zipped({"a.png": picture(131)}, [{"file": "a.png"}])[:-30], "archive_unreadable"),
    "zip slip": (lambda: raw_zip("../../etc/cron.d/x"), "archive_unsafe_path"),
    "absolute path": (lambda: raw_zip("/etc/passwd"), "archive_unsafe_path"),
    "a link": (lambda: raw_zip("a.png", 0o120777, b"/etc/passwd"), "archive_link"),
    "no metadata.jsonl": (lambda: zipped({"a.png": picture(132)}), "archive_missing_metadata"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_is_wrong_as_a_whole_is_refused_at_once(service: Service, name: str) -> None:
    make, code = ARCHIVES[name]
    headers = {"Content-Type": "application/zip"}
    body = problem(service.http.post("/api/v1/ingestions", content=make(), headers=headers))
    assert (body["status"], body["code"]) == (422, code)


def nested_zip() -> bytes:
    return zipped({"in.zip": zipped({}, [])}, [{"file": "in.zip"}])


def zip_bomb() -> bytes:
    return zipped({"a.png": bytes(2**21)}, [{"file": "a.png"}])  # 2 MiB from 2 kB


ITEMS: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "nested zip": (nested_zip, ["rejected"]),
    "zip bomb": (zip_bomb, ["rejected"]),
    "encrypted": (encrypted_zip, ["rejected"]),
    "broken line": (
        lambda: zipped({"a.png": picture(133)}, b'{"file": "a.png"}\n{"file": \n'),
        ["indexed", "rejected"],
    ),
    "line that is no object": (lambda: zipped({}, b"17\n"), ["rejected"]),
    "missing file": (lambda: zipped({}, [{"file": "gone.png"}]), ["rejected"]),
    "file not named": (lambda: zipped({"b.png": picture(134)}, []), ["rejected"]),
    "file named twice": (
        lambda: zipped({"c.png": picture(135)}, [{"file": "c.png"}, {"file": "c.png"}]),
        ["indexed", "rejected"],
    ),
    "the same image twice": (
        lambda: zipped({"d.png": picture(136), "e.png": picture(136)}, [{"file": "d.png"}, {"file": "e.png"}]),
        ["indexed", "duplicate"],
    ),
    "time without zone": (
        lambda: zipped({"f.png": picture(137)}, [{"file": "f.png", "captured_at": "2026-09-01T18:00:00"}]),
        ["rejected"],
    ),
    "unknown field": (lambda: zipped({"g.png": picture(138)}, [{"file": "g.png", "cam": "x"}]), ["rejected"]),
    "unknown camera": (
        lambda: zipped({"h.png": picture(139)}, [{"file": "h.png", "camera_id": "nowhere"}]),
        ["rejected"],
    ),
    "no image": (lambda: zipped({"i.png": b"text"}, [{"file": "i.png"}]), ["rejected"]),
}


@pytest.mark.parametrize("name", ITEMS)
def test_a_fault_of_one_item_is_its_own(service: Service, name: str) -> None:
    make, states = ITEMS[name]
    ingestion = service.ingest(make())
    assert ingestion["state"] == "done" and ingestion["done"] is True, ingestion
    items = service.items(ingestion)
    assert [item["state"] for item in items][: len(states)] == states
    assert {item["state"] for item in items[len(states) :]} <= {"rejected"}, "a file whose line was refused"
    for item in items:
        if item["state"] == "rejected":
            assert item["code"] and item["reason"].endswith("."), item
    assert service.http.get("/livez").status_code == 200
