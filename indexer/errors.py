"""Everything that can go wrong in a gallery and that a user can do something about.

Each error carries a `code` for machines and a message for people: a sentence that says what to do. What each of them
means over HTTP is the service's business, not decided here.
"""

# ruff: noqa: N818  (named for what happened: `except UnknownCamera` reads as what it is)

from __future__ import annotations


class GalleryError(Exception):
    """The gallery refused something. `str(error)` is a sentence for the user, `error.code` a stable name."""

    code = "gallery_error"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        if code is not None:
            self.code = code


class UnreadableImage(GalleryError):
    """The bytes cannot be decoded as an image."""

    code = "unreadable_image"


class UnsupportedImage(GalleryError):
    """The bytes are an image of a kind the gallery does not keep."""

    code = "unsupported_image"


class ImageTooLarge(GalleryError):
    """The file has too many bytes or the image too many pixels."""

    code = "image_too_large"


class ImageTooSmall(GalleryError):
    """The image is too small to show a person."""

    code = "image_too_small"


class InvalidCrop(GalleryError):
    """The part of an image that was asked for is not all inside it."""

    code = "invalid_crop"


class InvalidMetadata(GalleryError):
    """What was said about an image cannot be stored."""

    code = "invalid_metadata"


class TimeWithoutZone(InvalidMetadata):
    """A time was given without its zone, so nobody can tell when it was."""

    code = "time_without_zone"


class UnknownCamera(GalleryError):
    """An image names a camera the gallery does not have."""

    code = "unknown_camera"


class CameraExists(GalleryError):
    """A camera of this id is there already."""

    code = "camera_exists"


class CameraInUse(GalleryError):
    """Images, or a legal hold, name the camera that is to go."""

    code = "camera_in_use"


class ExternalIdConflict(GalleryError):
    """The external id already belongs to another image."""

    code = "external_id_conflict"


class ArchiveError(GalleryError):
    """A whole archive is refused; `code` says why."""

    code = "invalid_archive"


class IngestionFinished(GalleryError):
    """There is nothing left to cancel."""

    code = "ingestion_finished"


class NothingToRetry(GalleryError):
    """No image of the ingestion waits for another try."""

    code = "nothing_to_retry"


class IdempotencyConflict(GalleryError):
    """A key that stands for one request came with another."""

    code = "idempotency_conflict"


class DuplicateContent(GalleryError):
    """Another image has the same file, camera and time."""

    code = "duplicate_content"


class Changed(GalleryError):
    """What is to be changed is no longer what the caller saw."""

    code = "precondition_failed"


class InvalidFilter(GalleryError):
    """A search filter names a field, an operator or a value that does not exist."""

    code = "invalid_filter"


class UnderLegalHold(GalleryError):
    """An image must not be erased, nor changed so that the hold loses it, as long as a legal hold is on it."""

    code = "legal_hold"


class ReasonNamesPerson(GalleryError):
    """The reason of an erasure, which is kept, names what is to be forgotten."""

    code = "reason_names_person"


class JournalDamaged(GalleryError):
    """A line of the erasure journal cannot be read."""

    code = "journal_damaged"


class BackupRefused(GalleryError):
    """A backup cannot be made, is damaged, or must not be restored here."""

    code = "backup_refused"


class UserExists(GalleryError):
    """A user has this name already, in whatever capitals."""

    code = "user_exists"


class LastAdmin(GalleryError):
    """Without this user nobody could manage accounts any more."""

    code = "last_admin"


class NotFound(GalleryError):
    """There is nothing of that name."""

    code = "not_found"


class InvalidSettings(GalleryError):
    """The configuration cannot be used."""

    code = "invalid_settings"


class CheckpointConflict(GalleryError):
    """The checkpoint is not in a state in which this can be done with it."""

    code = "checkpoint_conflict"


class CheckpointMissing(GalleryError):
    """The file of a checkpoint is not where every process can read it."""

    code = "checkpoint_missing"


class GateRefused(GalleryError):
    """A checkpoint may not answer searches yet; the message gives every reason."""

    code = "gate_refused"


class DatabaseUnavailable(GalleryError):
    """The database cannot be reached, went away, or did not answer in time. Trying again later may help."""

    code = "database_unavailable"


class IndexUnavailable(GalleryError):
    """The server that holds the vector index cannot be reached or has lost it. Trying again later may help."""

    code = "index_unavailable"


class AuditUnavailable(DatabaseUnavailable):
    """What was asked for cannot be recorded, so it was not done."""

    code = "audit_unavailable"


class SearchExpired(GalleryError):
    """The ranking of a search is no longer kept."""

    code = "expired"


class InvalidAuditFile(GalleryError):
    """A file is no export of the audit."""

    code = "invalid_audit_file"


class CaseClosed(GalleryError):
    """A closed case takes nothing in and gives nothing up."""

    code = "case_closed"


class CaseConflict(GalleryError):
    """The case is not in a state in which this can be done with it."""

    code = "case_conflict"


class DeadlinePassed(GalleryError):
    """The time that was set for the work is over. Trying again when there is less to do may help."""

    code = "deadline"


class DatabaseTooNew(GalleryError):
    """The database was migrated by a newer version of this program."""

    code = "database_too_new"


class DatabaseTooOld(GalleryError):
    """The PostgreSQL server is older than the oldest one supported."""

    code = "database_too_old"


class StorageFull(GalleryError):
    """The disk is full."""

    code = "storage_full"
