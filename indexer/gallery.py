"""What the gallery does in SQL, as functions that take a session. None of them commits: the caller does, at its edge.

Images, cameras and checkpoints are here; embeddings.py hands out the work and keeps the vectors, ledger.py keeps
account of deliveries. All of their functions are reached through this module: `gallery.claim_unembedded(...)`.

An image gets an embedding row, pending, for every wanted checkpoint when it is added; a checkpoint gets one for every
image when it is registered. Both hold one advisory lock (images shared, checkpoints exclusive), so that no pair is
missed when the two happen at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from indexer import checkpoints
from indexer.checkpoints import CHECKPOINTS_LOCK, WANTED
from indexer.embeddings import (
    WORK_CHANNEL,
    Changes,
    Claim,
    ClaimedImage,
    Counts,
    Digests,
    Listing,
    Rows,
    Snapshot,
    Vectors,
    allowed_rows,
    changes_since,
    claim_unembedded,
    counts,
    digests,
    listing,
    lock_changes,
    pending_count,
    ready_vectors,
    record_embeddings,
    record_failure,
    release,
    removed_since,
    renew_lease,
    snapshot,
    stay_at_one_moment,
    vectors_of,
)
from indexer.errors import (
    CameraExists,
    DuplicateContent,
    ExternalIdConflict,
    InvalidMetadata,
    NotFound,
    UnknownCamera,
)
from indexer.filters import Scope, in_scope
from indexer.ledger import (
    IngestionRecord,
    ItemCounts,
    ItemRecord,
    NewItem,
    add_items,
    cancel_ingestion,
    create_ingestion,
    finish_ingestion,
    ingestion,
    ingestion_items,
    retry_failed,
    take_ingestion,
)
from indexer.tables import Camera, Checkpoint, Embedding, Image, RemovedImage, change_seq, new_id

__all__ = [
    "WORK_CHANNEL",
    "Added",
    "CameraRecord",
    "Changes",
    "Claim",
    "ClaimedImage",
    "Counts",
    "Digests",
    "ImageRecord",
    "IngestionRecord",
    "ItemCounts",
    "ItemRecord",
    "Listing",
    "NewImage",
    "NewItem",
    "Rows",
    "Snapshot",
    "Vectors",
    "active_checkpoint",
    "add_camera",
    "add_image",
    "add_images",
    "add_items",
    "allowed_rows",
    "apply_changes",
    "cameras",
    "cancel_ingestion",
    "changes_since",
    "claim_unembedded",
    "counts",
    "create_ingestion",
    "delete_image",
    "digests",
    "ensure_checkpoint",
    "finish_ingestion",
    "hold_camera",
    "hold_file",
    "image_by_id",
    "images_by_row",
    "images_where",
    "ingestion",
    "ingestion_items",
    "listing",
    "no_camera",
    "pending_count",
    "ready_vectors",
    "record_embeddings",
    "record_failure",
    "release",
    "removed_since",
    "renew_lease",
    "retry_failed",
    "snapshot",
    "stay_at_one_moment",
    "take_ingestion",
    "unknown_cameras",
    "unused_file",
    "update_image",
    "vectors_of",
]

MAX_NAME = 255  # characters of an external id, camera, track or identity

FILES_LOCK = 7_305_803  # first of two keys of an advisory lock, the second is the file's


# --------------------------------------------------------------------------------------------------------------------
# Images


@dataclass(frozen=True)
class NewImage:
    """An image to add: its stored file, and what is known about it."""

    sha256: str
    width: int
    height: int
    format: str
    byte_size: int
    external_id: str | None = None
    camera_id: str | None = None
    captured_at: datetime | None = None
    track_id: str | None = None
    identity: str | None = None
    tags: Sequence[str] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Added:
    """The image's id; `duplicate` if it was there before."""

    image_id: UUID
    duplicate: bool


@dataclass(frozen=True)
class ImageRecord:
    """An image as stored. `state` tells whether it can be found: pending, indexed, or failed with its `error`."""

    id: UUID
    row: int
    external_id: str | None
    sha256: str
    width: int
    height: int
    format: str
    byte_size: int
    camera_id: str | None
    captured_at: datetime | None
    track_id: str | None
    identity: str | None
    tags: tuple[str, ...]
    attributes: dict[str, Any]
    created_at: datetime
    state: str
    error: str | None


def add_image(session: Session, image: NewImage) -> Added:
    """Add an image and the work of embedding it for every wanted checkpoint.

    The same file from the same camera at the same time is a duplicate and changes nothing, whatever else is said about
    it. Raises `UnknownCamera`, `ExternalIdConflict`, `InvalidMetadata`; nothing was written then.
    """
    values = _storable(image)
    session.execute(
        text("SELECT pg_advisory_xact_lock_shared(:key), pg_notify(:channel, '')"),
        {"key": CHECKPOINTS_LOCK, "channel": WORK_CHANNEL},
    )
    hold_file(session, image.sha256)
    if image.camera_id is not None:
        hold_camera(session, image.camera_id)
    while True:  # again only if the image in the way was deleted between the two statements
        statement = upsert(Image).values(id=new_id(), **values).on_conflict_do_nothing().returning(Image.id, Image.row)
        added = session.execute(statement).one_or_none()
        if added is not None:
            break
        if (existing := _same_image(session, image)) is not None:
            return Added(existing, duplicate=True)
    wanted = select(literal(added.row), Checkpoint.id).where(Checkpoint.state.in_(WANTED))
    session.execute(insert(Embedding).from_select(["image_row", "checkpoint_id"], wanted))
    return Added(added.id, duplicate=False)


def add_images(session: Session, images: Sequence[NewImage]) -> list[UUID | None]:
    """Add many images with a handful of statements: the ids of those that are new, None for every other.

    What is not new, or cannot be added, is left to `add_image`, which says why.
    """
    candidates = {n: values for n, image in enumerate(images) if (values := _storable_or_none(image)) is not None}
    named = {image.camera_id for image in images if image.camera_id is not None}
    known = select(Camera.id).where(Camera.id.in_(named)).order_by(Camera.id).with_for_update(read=True, key_share=True)
    cameras = {None, *session.scalars(known)}
    candidates = {n: values for n, values in candidates.items() if values["camera_id"] in cameras}
    added: list[UUID | None] = [None] * len(images)
    if not candidates:
        return added
    session.execute(
        text("SELECT pg_advisory_xact_lock_shared(:key), pg_notify(:channel, '')"),
        {"key": CHECKPOINTS_LOCK, "channel": WORK_CHANNEL},
    )
    hold_files(session, [values["sha256"] for values in candidates.values()])
    ids = {n: new_id() for n in candidates}
    statement = upsert(Image).values([{"id": ids[n], **values} for n, values in candidates.items()])
    inserted = session.execute(statement.on_conflict_do_nothing().returning(Image.id, Image.row))
    rows = {image.id: image.row for image in inserted}
    new = select(func.unnest(bindparam("rows", list(rows.values()), ARRAY(BigInteger))).label("row")).subquery()
    wanted = select(new.c.row, Checkpoint.id).join_from(new, Checkpoint, Checkpoint.state.in_(WANTED))
    session.execute(insert(Embedding).from_select(["image_row", "checkpoint_id"], wanted))
    for n, id in ids.items():
        added[n] = id if id in rows else None
    return added


def _storable_or_none(image: NewImage) -> dict[str, Any] | None:
    try:
        return _storable(image)
    except InvalidMetadata:
        return None


def hold_camera(session: Session, id: str) -> None:
    """Keep a camera from going away before what names it is committed. Raises `UnknownCamera`."""
    known = select(Camera.id).where(Camera.id == id).with_for_update(read=True, key_share=True)
    if session.scalar(known) is None:
        raise no_camera(id)


def no_camera(id: str) -> UnknownCamera:
    return UnknownCamera(f"There is no camera {id!r}; add it first, or leave the camera out.")


def update_image(
    session: Session, external_id: str, changes: Mapping[str, Any], sha256: str | None = None, scope: Scope = None
) -> Added:
    """Change what is known about an image: columns and their new values; `duplicate` if all of it was known already.

    With `sha256` only if that is its file's, with a scope only within it. Raises `NotFound`, `UnknownCamera`,
    `InvalidMetadata`, and `DuplicateContent` when another image has the file, camera and time this one would have;
    nothing was changed then.
    """
    if not is_storable([external_id, dict(changes)]):
        raise InvalidMetadata("The metadata holds a character that no text can hold.")
    if changes.get("camera_id") is not None:
        hold_camera(session, changes["camera_id"])
    image = session.scalar(select(Image).where(Image.external_id == external_id, *in_scope(scope)).with_for_update())
    if image is None:
        raise NotFound(f"There is no image with the external id {external_id!r}. Send it with its file first.")
    if sha256 is not None and sha256 != image.sha256:
        raise InvalidMetadata(f"The image {external_id!r} has another sha256. Correct it or leave it out.")
    return Added(image.id, duplicate=not apply_changes(session, image, changes))


def apply_changes(session: Session, image: Image, changes: Mapping[str, Any]) -> bool:
    """Set columns of an image that is locked; whether any of them changed. Its new camera is held already.

    Raises `ExternalIdConflict`, `DuplicateContent`; nothing was changed then.
    """
    changed = {name: value for name, value in changes.items() if getattr(image, name) != value}
    if not changed:
        return False
    try:
        with session.begin_nested():
            session.execute(update(Image).where(Image.id == image.id).values(changed))
    except IntegrityError as error:
        constraint = error.orig.diag.constraint_name if isinstance(error.orig, psycopg.Error) else None
        if constraint == "image_external_id_key":
            raise ExternalIdConflict(
                f"The external id {changes['external_id']!r} belongs to another image; give this one an id of its own."
            ) from error
        called = f"{image.external_id!r}" if image.external_id is not None else f"{image.id}"
        raise DuplicateContent(
            f"Another image has the file of {called} from this camera at this time. Delete one of the two first."
        ) from error
    return True


def _same_image(session: Session, image: NewImage) -> UUID | None:
    """The image that stands in the way of this one, if it is the same."""
    same = and_(
        Image.sha256 == image.sha256,
        Image.camera_id.is_not_distinct_from(image.camera_id),
        Image.captured_at.is_not_distinct_from(image.captured_at),
    )
    if image.external_id is not None:
        found = session.execute(select(Image.id, same).where(Image.external_id == image.external_id)).one_or_none()
        if found is not None and not found[1]:
            raise ExternalIdConflict(
                f"The external id {image.external_id!r} belongs to another image; "
                "delete that image first, or give this one an id of its own."
            )
    return session.scalar(select(Image.id).where(same))


def _storable(image: NewImage) -> dict[str, Any]:
    """The columns of an image, refusing what PostgreSQL cannot hold."""
    for name in ("external_id", "camera_id", "track_id", "identity"):
        value = getattr(image, name)
        if value is not None and not 0 < len(value) <= MAX_NAME:
            raise InvalidMetadata(f"{name} must have 1 to {MAX_NAME} characters.")
    values = {name: getattr(image, name) for name in NewImage.__dataclass_fields__}
    values["tags"] = list(image.tags)
    values["attributes"] = dict(image.attributes)
    for name in ("external_id", "camera_id", "track_id", "identity", "tags", "attributes"):
        if not is_storable(values[name]):
            raise InvalidMetadata(f"{name} holds a character that no text can hold.")
    return values


def is_storable(value: Any) -> bool:
    """Whether PostgreSQL can hold all text in a JSON value: it knows neither character zero nor half surrogates."""
    if isinstance(value, str):
        return "\x00" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, Mapping):
        return all(is_storable(key) and is_storable(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(is_storable(item) for item in value)
    return True


def image_by_id(session: Session, id: UUID, scope: Scope = None) -> ImageRecord | None:
    """One image of the scope, its state being that for the active checkpoint."""
    found = images_where(session, [Image.id == id, *in_scope(scope)])
    return found[0] if found else None


def images_where(session: Session, conditions: Sequence[ColumnElement[bool]]) -> list[ImageRecord]:
    """The images that meet all of these conditions, in no order."""
    return [_record(row) for row in session.execute(_records().where(*conditions))]


def images_by_row(session: Session, rows: Sequence[int] | Rows, scope: Scope = None) -> dict[int, ImageRecord]:
    """Those of the rows that exist and are in the scope."""
    wanted = bindparam("rows", [int(row) for row in rows], ARRAY(BigInteger))
    found = session.execute(_records().where(Image.row == func.any(wanted), *in_scope(scope)))
    return {row.Image.row: _record(row) for row in found}


def _records() -> Select[Any]:
    of_active = Embedding.checkpoint_id == select(Checkpoint.id).where(Checkpoint.state == "active").scalar_subquery()
    entities: list[Any] = [Image, Embedding.state.label("state"), Embedding.error.label("error")]
    return select(*entities).outerjoin(Embedding, and_(Embedding.image_row == Image.row, of_active))


def _record(row: Row[Any]) -> ImageRecord:
    columns = {name: getattr(row.Image, name) for name in ImageRecord.__dataclass_fields__ if hasattr(Image, name)}
    columns["tags"] = tuple(columns["tags"])
    return ImageRecord(**columns, state=_searchable(row.state), error=row.error)


def _searchable(state: str | None) -> str:
    """What the state of its embedding means for an image."""
    return {"ready": "indexed", "failed": "failed"}.get(state or "pending", "pending")


def delete_image(session: Session, id: UUID) -> str | None:
    """Remove an image, its embeddings with it, and tell the followers. Raises `NotFound`.

    Returns the sha256 of its file when no other image uses it: after the commit, remove the file as `unused_file` says.
    """
    lock_changes(session)
    deleted = session.execute(delete(Image).where(Image.id == id).returning(Image.row, Image.sha256)).one_or_none()
    if deleted is None:
        raise NotFound(f"There is no image {id}.")
    session.execute(insert(RemovedImage).values(seq=change_seq.next_value(), image_row=deleted.row))
    shared = session.scalar(select(Image.id).where(Image.sha256 == deleted.sha256).limit(1))
    return deleted.sha256 if shared is None else None


def hold_file(session: Session, sha256: str) -> None:
    """Keep others from removing this file until the transaction ends: hold it, store the file, add the image."""
    hold_files(session, [sha256])


def hold_files(session: Session, sha256s: Sequence[str]) -> None:
    """The same for several files at once, always in one order."""
    keys = bindparam("keys", sorted({_file_key(sha256) for sha256 in sha256s}), ARRAY(Integer))
    key = func.unnest(keys).column_valued("key")
    session.execute(select(func.pg_advisory_xact_lock_shared(FILES_LOCK, key)))


def unused_file(session: Session, sha256: str) -> bool:
    """Whether no image uses the file. If so remove it within this transaction: nobody can add one meanwhile."""
    session.execute(select(func.pg_advisory_xact_lock(FILES_LOCK, _file_key(sha256))))
    return session.scalar(select(Image.id).where(Image.sha256 == sha256).limit(1)) is None


def _file_key(sha256: str) -> int:
    return int(sha256[:2], 16)  # 256 locks for all files: a large batch must not fill the server's lock table


# --------------------------------------------------------------------------------------------------------------------
# Cameras


@dataclass(frozen=True)
class CameraRecord:
    """A camera as stored."""

    id: str
    name: str | None
    site: str | None
    created_at: datetime


def cameras(session: Session, scope: Scope = None) -> list[CameraRecord]:
    """The cameras of the scope, by id."""
    of_scope = [] if scope is None else [Camera.id.in_(sorted(scope))]
    found = session.scalars(select(Camera).where(*of_scope).order_by(Camera.id))
    return [CameraRecord(camera.id, camera.name, camera.site, camera.created_at) for camera in found]


def add_camera(session: Session, id: str, name: str | None = None, site: str | None = None) -> CameraRecord:
    """Add a camera. Raises `CameraExists`, `InvalidMetadata`."""
    if not 0 < len(id) <= MAX_NAME or not is_storable([id, name, site]):
        raise InvalidMetadata(f"A camera id must be text of 1 to {MAX_NAME} characters.")
    statement = upsert(Camera).values(id=id, name=name, site=site).on_conflict_do_nothing()
    added = session.execute(statement.returning(Camera.created_at)).one_or_none()
    if added is None:
        raise CameraExists(f"There is a camera {id!r} already.")
    return CameraRecord(id, name, site, added.created_at)


def unknown_cameras(session: Session, ids: Sequence[str], scope: Scope = None) -> list[str]:
    """Those of the ids that are no camera's of the scope, each once, in their order."""
    askable = [id for id in ids if is_storable(id) and (scope is None or id in scope)]
    known = set(session.scalars(select(Camera.id).where(Camera.id.in_(askable))))
    return [id for id in dict.fromkeys(ids) if id not in known or (scope is not None and id not in scope)]


# --------------------------------------------------------------------------------------------------------------------
# Checkpoints


def ensure_checkpoint(session: Session, id: str, net: str, dim: int, info: Mapping[str, Any], path: str) -> None:
    """Register a checkpoint, or find it registered, and make sure every image is embedded with it or waiting to be.

    It becomes active if none is, and a candidate otherwise.
    """
    session.execute(text("SET LOCAL statement_timeout = 0"))  # a million images may want a row each
    checkpoints.add(session, id, net, dim, info, path)
    missing = select(Image.row, literal(id)).where(
        ~select(Embedding.image_row).where(Embedding.image_row == Image.row, Embedding.checkpoint_id == id).exists()
    )
    session.execute(insert(Embedding).from_select(["image_row", "checkpoint_id"], missing))


def active_checkpoint(session: Session) -> Checkpoint | None:
    """The checkpoint that answers searches."""
    return session.scalar(select(Checkpoint).where(Checkpoint.state == "active"))
