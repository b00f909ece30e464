"""What is said about an image: one JSON object, checked field by field before it goes anywhere near the database.

The same rules hold for a line of metadata.jsonl and for the metadata sent with a single image. Whether a camera exists
or an external id is taken is not asked here.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from indexer.errors import ExternalIdConflict, GalleryError, InvalidMetadata, TimeWithoutZone, UnknownCamera

FIELDS = (
    "external_id",
    "file",
    "sha256",
    "camera_id",
    "captured_at",
    "track_id",
    "identity",
    "tags",
    "attributes",
    "path",
)
MAX_STRING = 255
MAX_PATH = 1024
MAX_TAGS, MAX_TAG = 50, 64
MAX_ATTRIBUTES, MAX_ATTRIBUTES_LENGTH = 100, 16 * 1024


class InvalidField(InvalidMetadata):
    """A field of the metadata is wrong; `pointer` says which ("/tags")."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(f'The field "{name}" {sentence}')
        self.pointer = "/" + name.replace("~", "~0").replace("/", "~1")


POINTERS: dict[type[GalleryError], str] = {
    TimeWithoutZone: "/captured_at",
    UnknownCamera: "/camera_id",
    ExternalIdConflict: "/external_id",
}


def pointer_of(error: GalleryError) -> str | None:
    """The JSON pointer of the metadata field an error is about, if it is about one."""
    return error.pointer if isinstance(error, InvalidField) else POINTERS.get(type(error))


@dataclass(frozen=True)
class ItemMetadata:
    """One checked line of metadata.jsonl, or the metadata sent with one image."""

    external_id: str | None = None
    file: str | None = None
    sha256: str | None = None
    camera_id: str | None = None
    captured_at: datetime | None = None  # in UTC
    track_id: str | None = None
    identity: str | None = None
    tags: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)


def parse_metadata(line: Mapping[str, Any]) -> ItemMetadata:
    """A decoded JSON object -> ItemMetadata, its time in UTC.

    `path` is another word for `file`. Raises InvalidField or TimeWithoutZone; `pointer_of` tells which field it was.
    """
    for name in line:
        if name not in FIELDS:
            raise InvalidField(printable(name), f"is not known. Accepted are {', '.join(FIELDS)}.")
    sha256 = _string(line, "sha256")
    if sha256 is not None and (len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef")):
        raise InvalidField("sha256", "must be 64 hexadecimal digits.")
    if line.get("file") is not None and line.get("path") is not None:
        raise InvalidField("path", 'is another word for "file". Leave one of them out.')
    return ItemMetadata(
        external_id=_string(line, "external_id"),
        file=_string(line, "file", MAX_PATH) or _string(line, "path", MAX_PATH),
        sha256=sha256.lower() if sha256 else None,
        camera_id=_string(line, "camera_id"),
        captured_at=_time(line.get("captured_at")),
        track_id=_string(line, "track_id"),
        identity=_string(line, "identity"),
        tags=_tags(line.get("tags")),
        attributes=_attributes(line.get("attributes")),
    )


def is_clean(text: str) -> bool:
    """No control characters and no lone surrogates: neither has a place in a name, and Postgres refuses NUL."""
    return not any(unicodedata.category(c) in ("Cc", "Cs") for c in text)


def printable(text: str) -> str:
    """A name from outside, fit to stand in a sentence."""
    text = "".join(c if is_clean(c) else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= 60 else text[:57] + "..."


def _string(line: Mapping[str, Any], name: str, longest: int = MAX_STRING) -> str | None:
    value = line.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidField(name, "must be a string.")
    if not value.strip():
        raise InvalidField(name, "is empty. Leave it out, or give it a value.")
    if len(value) > longest:
        raise InvalidField(name, f"has {len(value):,} characters; at most {longest:,} are accepted.")
    if not is_clean(value):
        raise InvalidField(name, "contains control characters. Remove them.")
    return value


def _time(value: object) -> datetime | None:
    example = 'Write it like "2026-09-01T18:00:00+02:00" or "2026-09-01T16:00:00Z".'
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidField("captured_at", f"must be a string holding a time. {example}")
    try:
        time = datetime.fromisoformat(value.strip())
        if time.tzinfo is None:
            raise TimeWithoutZone(f'The field "captured_at" has no time zone. {example}')
        return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:  # overflow: the ends of the calendar on their way to UTC
        raise InvalidField("captured_at", f"is not a time. {example}") from error


def _tags(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise InvalidField("tags", 'must be a list of strings, like ["platform", "north"].')
    if len(value) > MAX_TAGS:
        raise InvalidField("tags", f"has {len(value):,} tags; at most {MAX_TAGS} are accepted.")
    for tag in value:
        if not tag.strip():
            raise InvalidField("tags", "holds an empty tag. Leave it out.")
        if len(tag) > MAX_TAG:
            raise InvalidField("tags", f"holds a tag of {len(tag):,} characters; at most {MAX_TAG} are accepted.")
        if not is_clean(tag):
            raise InvalidField("tags", "holds a tag with control characters. Remove them.")
    return tuple(dict.fromkeys(value))  # a tag said twice is one tag


def _attributes(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidField("attributes", 'must be an object, like {"carriage": 3}.')
    if len(value) > MAX_ATTRIBUTES:
        raise InvalidField("attributes", f"has {len(value):,} entries; at most {MAX_ATTRIBUTES} are accepted.")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:  # lone surrogates, 1e999, a thousand brackets
        raise InvalidField("attributes", "holds a value that cannot be stored. Use plain text and numbers.") from error
    if len(text) > MAX_ATTRIBUTES_LENGTH:
        most = f"at most {MAX_ATTRIBUTES_LENGTH:,} are accepted"
        raise InvalidField("attributes", f"has {len(text):,} characters; {most}.")
    if "\\u0000" in text:
        raise InvalidField("attributes", "contains NUL characters. Remove them.")
    return value
