"""The gate before an activation: would searches be as complete, and about as good, with the other checkpoint?

It refuses what would lose something: images nobody would find any more, an encoder that does not give what it gave
when it was registered, people who are labelled and no longer come first. That rankings differ is no fault in itself, so
the overlap of the first ten only warns. What was searched for is used to compare, but never kept in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import text
from sqlalchemy.orm import Session

from indexer import checkpoints, gallery, traces
from indexer.canaries import embed_canaries, faults, similarity
from indexer.checkpoints import Missing
from indexer.database import Database, transaction
from indexer.embeddings import lock_changes
from indexer.settings import GallerySettings

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

TOP = 10
SAMPLED = 50  # recent texts, and images, to compare rankings with
LABELLED = 5_000  # images whose identity is known, the newest, to measure Rank-1 on
LABELLED_QUERIES = 500
FEW = 30  # with fewer labelled queries a difference of Rank-1 is chance: it only warns


class Judged(Protocol):
    """What is asked of an encoder."""

    @property
    def checkpoint_id(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def has_text(self) -> bool: ...
    def embed_images(self, images: Sequence[Image.Image]) -> Vectors: ...  # (N, D)
    def embed_texts(self, texts: Sequence[str]) -> Vectors: ...  # (N, D)


@dataclass(frozen=True)
class LabelledText:
    """A description, and the identity in the gallery that it describes."""

    text: str
    identity: str


@dataclass(frozen=True)
class Overlap:
    """The share of the first ten that both rankings have, over sampled queries."""

    queries: int
    mean: float
    lowest: float


@dataclass(frozen=True)
class Rank1:
    """How often the first result was the right person, with the active checkpoint and with the candidate."""

    queries: int
    active: float
    candidate: float


@dataclass(frozen=True)
class Report:
    """What the gate found. `refusals` and `warnings` are sentences; without refusals the candidate passes."""

    candidate_id: str
    active_id: str
    missing: int
    allow_missing: int
    missing_images: list[Missing]
    canaries: dict[str, float]  # kind of query -> cosine with the stored vector
    overlap: dict[str, Overlap] = field(default_factory=dict)  # "text", "image"
    rank1: dict[str, Rank1] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.refusals

    def as_json(self) -> dict[str, Any]:
        images = [{**asdict(one), "image_id": str(one.image_id)} for one in self.missing_images]
        return {**asdict(self), "missing_images": images, "passed": self.passed}


def judge(
    database: Database,
    candidate: Judged,
    active: Judged,
    settings: GallerySettings,
    *,
    allow_missing: int = 0,
    labelled_texts: Sequence[LabelledText] = (),
) -> Report:
    """Compare a candidate with the active checkpoint; both encoders stand for the vectors that are stored.

    Raises `NotFound` for a checkpoint that is not registered.
    """
    now = embed_canaries(candidate)
    with transaction(database.engine) as session:
        stored = checkpoints.record(session, candidate.checkpoint_id).canaries
        missing, examples = checkpoints.missing(session, candidate.checkpoint_id, active.checkpoint_id)
        texts = _recent_texts(session) if active.has_text and candidate.has_text else []
        sample = _sampled_rows(session, candidate.checkpoint_id, active.checkpoint_id)
        labels = _labels(session, candidate.checkpoint_id, active.checkpoint_id)
    report = Report(
        candidate_id=candidate.checkpoint_id,
        active_id=active.checkpoint_id,
        missing=missing,
        allow_missing=allow_missing,
        missing_images=examples,
        canaries={kind: round(similarity(now[kind], stored[kind]), 6) for kind in now if kind in stored},
    )
    report.refusals.extend(faults(now, stored))
    if not stored:
        report.refusals.append("No canaries are stored for this checkpoint. Register its file again.")
    _judge_coverage(report, candidate, active)
    if not report.canaries or report.missing > allow_missing:
        return report  # its rankings would be compared in vain
    _compare_rankings(database, report, candidate, active, texts, sample, settings)
    if labels is not None:
        _measure_rank1(database, report, candidate, active, labels, labelled_texts, settings)
    elif labelled_texts:
        report.warnings.append("The labelled texts were not used: no image of the gallery has an identity.")
    return report


def keep(session: Session, report: Report) -> None:
    """Remember the report, without the images that were erased while it was made: nobody would take them out later."""
    lock_changes(session)
    there = traces.still_there(session, [one.image_id for one in report.missing_images])
    detail = report.as_json()
    detail["missing_images"] = [one for one in detail["missing_images"] if UUID(one["image_id"]) in there]
    checkpoints.note(session, report.candidate_id, "gate", detail)


def _judge_coverage(report: Report, candidate: Judged, active: Judged) -> None:
    if active.has_text and not candidate.has_text:
        report.refusals.append("The candidate cannot read text, so nobody could search by description any more.")
    if report.missing > report.allow_missing:
        failed = sum(one.state == "failed" for one in report.missing_images)
        report.refusals.append(
            f"{report.missing} images that are found now would not be found: {failed or 'none'} of the first "
            f"{len(report.missing_images)} were given up, the others wait for a worker. Wait, or accept the loss with "
            f"--allow-missing {report.missing}."
        )
    elif report.missing:
        report.warnings.append(f"{report.missing} images that are found now will not be found, as was allowed.")


# --------------------------------------------------------------------------------------------------------------------
# Rankings


_RECENT_TEXTS = text("""
    SELECT text FROM (
        SELECT request -> 'asked' -> 'query' ->> 'text' AS text, max(created_at) AS last FROM search GROUP BY 1
    ) AS asked WHERE text IS NOT NULL ORDER BY last DESC LIMIT :limit
""")
# The order of a hash: as good as chance, and the same images the next time.
_SAMPLED_ROWS = text("""
    SELECT one.image_row FROM embedding AS one JOIN embedding AS other ON other.image_row = one.image_row
    WHERE one.checkpoint_id = :one AND one.state = 'ready' AND other.checkpoint_id = :other AND other.state = 'ready'
    ORDER BY md5(one.image_row::text) LIMIT :limit
""")


def _recent_texts(session: Session) -> list[str]:
    return list(session.scalars(_RECENT_TEXTS, {"limit": SAMPLED}))


def _sampled_rows(session: Session, one: str, other: str) -> Rows:
    session.execute(text("SET LOCAL statement_timeout = 0"))
    rows = session.scalars(_SAMPLED_ROWS, {"one": one, "other": other, "limit": SAMPLED})
    return np.array(list(rows), np.int64)


def _compare_rankings(
    database: Database,
    report: Report,
    candidate: Judged,
    active: Judged,
    texts: Sequence[str],
    sample: Rows,
    settings: GallerySettings,
) -> None:
    tops = [_top(database, encoder, texts, sample) for encoder in (active, candidate)]  # each (T + S, TOP)
    shares = np.array([_shared(old, new) for old, new in zip(*tops, strict=True)])
    for kind, part in (("text", shares[: len(texts)]), ("image", shares[len(texts) :])):
        if not len(part):
            continue
        overlap = Overlap(len(part), round(float(part.mean()), 4), round(float(part.min()), 4))
        report.overlap[kind] = overlap
        if overlap.mean < settings.overlap_warning:
            report.warnings.append(
                f"Searches by {kind} will look different: of the first {TOP} results {overlap.mean:.0%} stay "
                f"(the warning starts below {settings.overlap_warning:.0%})."
            )


def _shared(old: Rows, new: Rows) -> float:
    """The share of the shorter ranking that both have; rankings (TOP,) are padded with -1."""
    kept, found = set(old[old >= 0].tolist()), set(new[new >= 0].tolist())
    return len(kept & found) / max(1, min(len(kept), len(found)))


def _top(database: Database, encoder: Judged, texts: Sequence[str], sample: Rows) -> Rows:
    """The rows (T + S, TOP) most similar to each text and to each sampled image, itself left out; padded with -1.

    One pass over the stored vectors, with no index: what is compared are the checkpoints, whatever index serves them.
    """
    with transaction(database.engine) as session:
        queries = _vectors(session, encoder.checkpoint_id, sample)  # (S, D)
    if texts:
        queries = np.concatenate([encoder.embed_texts(texts), queries])  # (T + S, D)
    selves = np.concatenate([np.full(len(texts), -1), sample])[:, None]  # (T + S, 1)
    best = np.full((len(queries), TOP), -np.inf, np.float32)
    rows = np.full((len(queries), TOP), -1, np.int64)
    with transaction(database.engine) as session:
        for some, vectors in gallery.snapshot(session, encoder.checkpoint_id).chunks:
            similarities = queries @ vectors.T  # (T + S, N)
            similarities[selves == some[None]] = -np.inf
            best = np.concatenate([best, similarities], axis=1)
            rows = np.concatenate([rows, np.broadcast_to(some, similarities.shape)], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :TOP]
            best, rows = np.take_along_axis(best, order, axis=1), np.take_along_axis(rows, order, axis=1)
    return np.where(np.isfinite(best), rows, -1)


_VECTORS = text("""
    SELECT image_row, vector FROM embedding
    WHERE checkpoint_id = :id AND state = 'ready' AND image_row = ANY(:rows)
""")


def _vectors(session: Session, checkpoint_id: str, rows: Rows) -> Vectors:
    """The stored vectors (N, D) of rows (N,); zeros for those deleted a moment ago, which are like nothing."""
    stored = session.execute(_VECTORS, {"id": checkpoint_id, "rows": rows.tolist()})
    found: dict[int, bytes] = {row.image_row: row.vector for row in stored}
    dim = checkpoints.record(session, checkpoint_id).dim
    zeros = np.zeros(dim, np.float32)
    vectors = [np.frombuffer(found[row], "<f4") if row in found else zeros for row in rows.tolist()]
    return np.array(vectors, np.float32).reshape(len(rows), dim)


# --------------------------------------------------------------------------------------------------------------------
# Rank-1


@dataclass(frozen=True, eq=False)
class _Labels:
    """Images whose identity is known, and that both checkpoints have embedded."""

    rows: Rows  # (N,)
    identities: NDArray[np.str_]  # (N,)
    cameras: NDArray[np.str_]  # (N,), "" where unknown


_LABELS = text("""
    SELECT image.row, identity, coalesce(camera_id, '') FROM image
    JOIN embedding AS one ON one.image_row = image.row AND one.checkpoint_id = :one AND one.state = 'ready'
    JOIN embedding AS other ON other.image_row = image.row AND other.checkpoint_id = :other AND other.state = 'ready'
    WHERE identity IS NOT NULL ORDER BY image.row DESC LIMIT :limit
""")


def _labels(session: Session, one: str, other: str) -> _Labels | None:
    found = session.execute(_LABELS, {"one": one, "other": other, "limit": LABELLED}).all()
    if not found:
        return None
    rows, identities, cameras = zip(*found, strict=True)
    return _Labels(np.array(rows, np.int64), np.array(identities), np.array(cameras))


def _measure_rank1(
    database: Database,
    report: Report,
    candidate: Judged,
    active: Judged,
    labels: _Labels,
    labelled_texts: Sequence[LabelledText],
    settings: GallerySettings,
) -> None:
    with transaction(database.engine) as session:
        old = _vectors(session, active.checkpoint_id, labels.rows)
        new = _vectors(session, candidate.checkpoint_id, labels.rows)
    queries = np.flatnonzero(_seen_elsewhere(labels))[:LABELLED_QUERIES]
    if len(queries):
        right = [rank1_across_cameras(vectors, labels.identities, labels.cameras, queries) for vectors in (old, new)]
        _compare_rank1(report, "image", Rank1(len(queries), *right), settings)
    known = set(labels.identities.tolist())
    texts = [one for one in labelled_texts if one.identity in known]
    if len(texts) < len(labelled_texts):
        report.warnings.append(
            f"{len(labelled_texts) - len(texts)} labelled texts were not used: no image has their identity."
        )
    if texts and active.has_text and candidate.has_text:
        asked, right = np.array([one.identity for one in texts]), []
        for encoder, vectors in ((active, old), (candidate, new)):
            first = (encoder.embed_texts([one.text for one in texts]) @ vectors.T).argmax(axis=1)  # (T,)
            right.append(round(float((labels.identities[first] == asked).mean()), 4))
        _compare_rank1(report, "text", Rank1(len(texts), *right), settings)


def _seen_elsewhere(labels: _Labels) -> NDArray[np.bool_]:
    """Which images (N,) show a person whom another camera saw as well."""
    cameras_of: dict[str, set[str]] = {}
    for identity, camera in zip(labels.identities.tolist(), labels.cameras.tolist(), strict=True):
        cameras_of.setdefault(identity, set()).add(camera)
    return np.array([len(cameras_of[identity]) > 1 for identity in labels.identities.tolist()])


def rank1_across_cameras(
    vectors: Vectors, identities: NDArray[np.str_], cameras: NDArray[np.str_], queries: NDArray[np.intp]
) -> float:
    """How often the nearest image is of the same person, images of that person by the same camera left out.

    `vectors` (N, D), `identities` and `cameras` (N,), `queries` (Q,) indices into them. The usual protocol of person
    re-identification (Zheng et al., Market-1501, 2015).
    """
    similarities = vectors[queries] @ vectors.T  # (Q, N)
    same = identities[queries, None] == identities[None]  # (Q, N)
    similarities[same & (cameras[queries, None] == cameras[None])] = -np.inf
    first = similarities.argmax(axis=1)  # (Q,)
    return round(float((identities[first] == identities[queries]).mean()), 4)


def _compare_rank1(report: Report, kind: str, rank1: Rank1, settings: GallerySettings) -> None:
    report.rank1[kind] = rank1
    if rank1.active - rank1.candidate <= settings.rank1_drop:
        return
    sentence = (
        f"Rank-1 by {kind} on {rank1.queries} labelled queries falls from {rank1.active:.1%} to {rank1.candidate:.1%}"
    )
    if rank1.queries < FEW:
        report.warnings.append(f"{sentence}; with so few queries that may be chance.")
    else:
        report.refusals.append(f"{sentence}, by more than the {settings.rank1_drop:.1%} that are accepted.")
