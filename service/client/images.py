"""Images one at a time, and cameras."""

from __future__ import annotations

import json
import mimetypes
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from service.client.connection import Connection, Id, Json, at, given, plain
from service.schemas import (
    CameraChanges,
    CameraList,
    CameraRequest,
    CameraResponse,
    ImageChanges,
    ImageMetadata,
    ImageResponse,
    Neighbours,
)

Part = tuple[str, bytes, str]


def part(image: Path | bytes) -> Part:
    """An image as the part of a form; what it is shows in its bytes, so the name matters to people alone."""
    if isinstance(image, bytes):
        return "image", image, "application/octet-stream"
    return image.name, image.read_bytes(), mimetypes.guess_type(image.name)[0] or "application/octet-stream"


class SeenImage(ImageResponse):
    """What is known about an image, and the version of it that was seen."""

    etag: str = Field(description="To be named by whoever changes it, so that nobody overwrites what they did not see")


class Images(Connection):
    def add_image(self, image: Path | bytes, metadata: ImageMetadata | Json | None = None) -> SeenImage:
        """Add one image. `duplicate` is true where it was there already."""
        return self._image("POST", at("images"), files=form(image, metadata))

    def put_image(
        self,
        external_id: str,
        image: Path | bytes,
        metadata: ImageMetadata | Json | None = None,
        *,
        if_match: str | None = None,
        only_add: bool = False,
    ) -> SeenImage:
        """Make the image of this external id what is sent, whatever was there.

        `if_match`: only if it is the version with this `etag`. `only_add`: only if there is none.
        """
        headers = {"If-Match": if_match, "If-None-Match": "*" if only_add else None}
        path = at("images", "by-external-id", external_id)
        return self._image("PUT", path, files=form(image, metadata), headers=given(**headers))

    def image(self, image_id: Id) -> SeenImage:
        return self._image("GET", at("images", image_id))

    def change_image(self, image_id: Id, changes: ImageChanges | Json, *, if_match: str) -> SeenImage:
        """Change what is known about an image of which you saw the version `if_match`: its `etag`, or "*" for any."""
        return self._image("PATCH", at("images", image_id), json=plain(changes), headers={"If-Match": if_match})

    def delete_image(self, image_id: Id) -> None:
        """Erase one image for good."""
        self.request("DELETE", at("images", image_id))

    def content(self, image_id: Id, variant: Literal["full", "thumb"] = "full") -> bytes:
        """The file as it was added, or a small WebP of it."""
        return self.request("GET", at("images", image_id, "content"), params={"variant": variant}).content

    def neighbours(self, image_id: Id, seconds: float | None = None, limit: int | None = None) -> Neighbours:
        """What the same camera took so many seconds before and after an image (60 if none are given)."""
        parameters = given(seconds=seconds, limit=limit)
        return self._ask(Neighbours, "GET", at("images", image_id, "neighbours"), params=parameters)

    def cameras(self) -> list[CameraResponse]:
        return self._ask(CameraList, "GET", at("cameras")).cameras

    def camera(self, camera_id: str) -> CameraResponse:
        return self._ask(CameraResponse, "GET", at("cameras", camera_id))

    def add_camera(self, request: CameraRequest | Json) -> CameraResponse:
        return self._ask(CameraResponse, "POST", at("cameras"), request)

    def change_camera(self, camera_id: str, changes: CameraChanges | Json) -> CameraResponse:
        return self._ask(CameraResponse, "PATCH", at("cameras", camera_id), changes)

    def delete_camera(self, camera_id: str) -> None:
        """Remove a camera that has no images."""
        self.request("DELETE", at("cameras", camera_id))

    def _image(self, method: str, path: str, **arguments: Any) -> SeenImage:
        response = self.request(method, path, **arguments)
        return self._read(SeenImage, response, etag=response.headers.get("ETag"))


def form(image: Path | bytes, metadata: ImageMetadata | Json | None) -> dict[str, Any]:
    described = {} if metadata is None else {"metadata": (None, json.dumps(plain(metadata)), "application/json")}
    return {"image": part(image), **described}
