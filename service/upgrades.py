"""A checkpoint's way through the service: registered from a file, judged by the gate, activated, taken back, retired.

What each step does to the gallery is in indexer/checkpoints.py, what the gate asks in indexer/gate.py; here they are
put together with the files and the encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from indexer import audit, checkpoints, snapshots
from indexer.audit import Actor, Purpose
from indexer.canaries import embed_canaries
from indexer.checkpoints import CheckpointRecord
from indexer.database import Database, transaction
from indexer.errors import CheckpointConflict, GateRefused
from indexer.gate import LabelledText, Report, judge, keep
from service.context import Context, QueryEncoder
from service.encoders import EncoderFiles, checkpoint_path
from service.settings import ServiceSettings

log = structlog.get_logger(__name__)


def open_active(
    database: Database, settings: ServiceSettings, files: EncoderFiles, given: QueryEncoder | None
) -> QueryEncoder:
    """The encoder that answers searches. A gallery without one begins with the one given, or that of the settings.

    Raises InvalidCheckpoint, CheckpointMissing.
    """
    with transaction(database.engine) as session:
        active = checkpoints.active_id(session)
    if active is None or given is not None:
        path = checkpoint_path(settings) if given is None else Path()
        encoder = given or files.admit(path, str(path))
        register(database, encoder)
        with transaction(database.engine) as session:
            active = checkpoints.active_id(session)
        if given is not None or active == encoder.checkpoint_id:
            return encoder
    assert active is not None
    checkpoints.complete_interrupted(database.engine)
    encoder = files.load(active)
    if settings.checkpoint is not None:
        log.info("active_checkpoint", checkpoint=active, hint="PERSON_SEARCH_CHECKPOINT counts for a new gallery only")
    with transaction(database.engine) as session:
        known = checkpoints.record(session, active).canaries
    if not known:  # registered before canaries were kept
        register(database, encoder)
    return encoder


def register(database: Database, encoder: QueryEncoder, actor: Actor = audit.SYSTEM) -> str:
    """Make the checkpoint of an encoder known, with its canaries; returns its state."""
    return checkpoints.register(
        database.engine,
        encoder.checkpoint_id,
        str(encoder.info.get("net")),
        encoder.dim,
        encoder.info,
        f"{checkpoints.FOLDER}/{encoder.checkpoint_id}{checkpoints.SUFFIX}",
        embed_canaries(encoder),
        actor,
    )


def gate(
    context: Context,
    id: str,
    *,
    allow_missing: int = 0,
    labelled_texts: Sequence[LabelledText] = (),
    actor: Actor = audit.SYSTEM,
) -> Report:
    """Judge a candidate against the active checkpoint, and keep the report. Raises GalleryError."""
    with transaction(context.database.engine) as session:
        candidate = checkpoints.record(session, id)
        active = checkpoints.active_id(session)
    if candidate.state != "candidate" or active is None:
        hint = "it answers searches already" if candidate.state == "active" else "register its file again first"
        raise CheckpointConflict(f"Checkpoint {id} is {candidate.state}, not a candidate: {hint}.")
    live = context.replica.state.encoder
    report = judge(
        context.database,
        context.files.load(id),
        live if live.checkpoint_id == active else context.files.load(active),
        context.settings,
        allow_missing=allow_missing,
        labelled_texts=labelled_texts,
    )
    with transaction(context.database.engine) as session:
        keep(session, report)
        told = {"passed": report.passed, "missing": report.missing}
        audit.record(session, actor, "checkpoint.gate", ("checkpoint", id), checkpoint_id=id, detail=told)
    log.info("gate", checkpoint=id, passed=report.passed, missing=report.missing)
    return report


def activate(
    context: Context,
    id: str,
    *,
    allow_missing: int = 0,
    force: bool = False,
    reason: str | None = None,
    labelled_texts: Sequence[LabelledText] = (),
    actor: Actor = audit.SYSTEM,
) -> Report:
    """Have searches answered by a candidate, if the gate lets it pass or is overruled. Raises GalleryError."""
    report = gate(context, id, allow_missing=allow_missing, labelled_texts=labelled_texts, actor=actor)
    if not report.passed and not force:
        raise GateRefused(" ".join(report.refusals))
    why = {"reason": reason, "forced": not report.passed, "refusals": report.refusals, "missing": report.missing}
    with transaction(context.database.engine) as session:
        checkpoints.activate(session, id, report.active_id, why)
        told = {"instead_of": report.active_id, "forced": not report.passed, "missing": report.missing}
        record(session, actor, "checkpoint.activate", id, reason, told)
    log.info("activated", checkpoint=id, instead_of=report.active_id, forced=not report.passed)
    return report


def roll_back(
    context: Context,
    id: str,
    *,
    allow_missing: int = 0,
    force: bool = False,
    reason: str | None = None,
    actor: Actor = audit.SYSTEM,
) -> str:
    """Have searches answered by what came before the active checkpoint `id`; returns that. Raises GalleryError."""
    with transaction(context.database.engine) as session:
        previous = checkpoints.previous(session, id)
        missing, _ = checkpoints.missing(session, previous, id)
    if missing > allow_missing and not force:
        raise GateRefused(
            f"{missing} images that are found now would not be found with {previous}. Wait for a worker to embed "
            f"them, or accept the loss with --allow-missing {missing}."
        )
    context.files.load(previous)  # what cannot be loaded had better not be activated
    why = {"reason": reason, "forced": missing > allow_missing, "missing": missing}
    with transaction(context.database.engine) as session:
        checkpoints.roll_back(session, id, previous, why)
        told = {"to": previous, "forced": missing > allow_missing, "missing": missing}
        record(session, actor, "checkpoint.roll_back", id, reason, told)
    log.info("rolled_back", checkpoint=id, to=previous)
    return previous


def retire(context: Context, id: str, actor: Actor = audit.SYSTEM) -> int:
    """Free the embeddings, the index on disk and the file of a checkpoint that is not active; returns how many
    embeddings. A replica that still answers with it may save its index once more; replicas remove that when they mend.
    """
    with transaction(context.database.engine) as session:
        checkpoints.retire(session, id)
        record(session, actor, "checkpoint.retire", id)
    freed = checkpoints.free(context.database.engine, id)
    snapshots.remove(snapshots.folder_of(context.settings.data_dir / snapshots.FOLDER, id))
    context.files.remove(id)
    log.info("retired", checkpoint=id, embeddings=freed)
    return freed


def record(
    session: Session,
    actor: Actor,
    action: str,
    id: str,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write what is done with a checkpoint to the audit."""
    purpose = Purpose(reason=reason)
    audit.record(session, actor, action, ("checkpoint", id), purpose=purpose, checkpoint_id=id, detail=detail)


def describe(context: Context, record: CheckpointRecord) -> dict[str, Any]:
    """What the API says of a checkpoint: how far it is, and what the gate found last."""
    with transaction(context.database.engine) as session:
        retired = record.state == "retired"
        coverage = None if retired else vars(checkpoints.coverage(session, record.id))
        judged = checkpoints.events(session, record.id, "gate")[:1]
    gate: Mapping[str, Any] | None = (
        {"at": judged[0].created_at.astimezone(UTC), **judged[0].detail} if judged else None
    )
    fields = ("id", "net", "dim", "state", "created_at", "activated_at", "previous_id")
    return {**{name: getattr(record, name) for name in fields}, "coverage": coverage, "gate": gate}
