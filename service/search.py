"""A query becomes a ranking: query -> embedding -> neighbours within the filter -> rows of the database -> results.

The filter is applied before ranking, and the answer is exact within it. The database decides what exists: an image that
was deleted is dropped even while the index still has it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from indexer import checkpoints, gallery
from indexer.database import transaction
from indexer.filters import Condition, ImageFilter
from indexer.gallery import ImageRecord, SearchRecord
from indexer.images import decode
from indexer.index import VectorIndex
from indexer.tables import new_id
from service.context import Context, QueryEncoder
from service.errors import Refusal
from service.schemas import Filter, Result, ResultImage, SearchRequest, SearchResponse, Weights

Vector = NDArray[np.float32]  # (D,), unit length
Band = Literal["strong", "possible", "weak"]

EQUAL_WEIGHTS = Weights(text=1, image=1)


@dataclass
class Notes:
    """What an answer tells beside its ranking."""

    warnings: list[str] = field(default_factory=list)
    unknown_words: list[str] = field(default_factory=list)
    took_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.took_ms[stage] = round((time.perf_counter() - started) * 1000, 2)


def run(context: Context, request: SearchRequest, upload: bytes | None) -> SearchResponse:
    """Search, keep the ranking, and return it. `upload` is the picture to search with, if one was sent.

    Raises Refusal for what cannot be searched for, and GalleryError for a picture that cannot be read.
    """
    notes = Notes()
    live = context.replica.state  # once: a checkpoint activated meanwhile answers the next search
    refuse_impossible(context, live.encoder, request, upload)
    with notes.timed("embed"):
        vectors = embed_query(live.encoder, request.query.text, upload, context, notes)
    with transaction(context.database.engine) as session:
        refuse_unknown_cameras(session, request.filter)
        if request.query.image is not None:
            vectors["image"] = stored_vector(session, request.query.image.image_id, live.checkpoint_id)
        vector = fuse(vectors, request.query.weights or EQUAL_WEIGHTS)
        with notes.timed("filter"):
            wanted = image_filter(request.filter)
            allowed = None if wanted == ImageFilter() else gallery.allowed_rows(session, wanted, live.checkpoint_id)
        refuse_retired(session, live.checkpoint_id)
        with notes.timed("rank"):
            context.replica.refresh(session)  # after the filter, so that the index has every row the filter allows
            ranking = rank(session, live.index, vector, allowed, request.limit)
        thresholds = bands_of(live.encoder, vectors)
        note_quality(notes, ranking, thresholds, filtered=allowed is not None)
        answered = {
            "asked": as_understood(request, upload),
            "exact": live.index.exact_among(allowed),
            "candidates": len(live.index) if allowed is None else len(allowed),
            "pending": gallery.pending_count(session, live.checkpoint_id),
            "unknown_words": notes.unknown_words,
            "warnings": notes.warnings,
            "took_ms": notes.took_ms,
        }
        frozen = [{"row": image.row, "similarity": s, "band": band(s, thresholds)} for image, s in ranking]
        search = gallery.save_search(session, new_id(), answered, live.checkpoint_id, frozen)
        return answer(search, {image.row: image for image, _ in ranking})


def again(session: Session, search_id: UUID) -> SearchResponse:
    """A search as it was answered, without the images that were deleted since.

    Raises Refusal when there is none, or when it has expired.
    """
    search = gallery.search_by_id(session, search_id)
    if search is None:
        raise Refusal("not_found", f"There is no search {search_id}.")
    if search.expires_at <= datetime.now(UTC):
        raise Refusal("expired", "This search has expired: rankings are kept for 24 hours. Run it again.")
    return answer(search, gallery.images_by_row(session, [result["row"] for result in search.results]))


def answer(search: SearchRecord, images: Mapping[int, ImageRecord]) -> SearchResponse:
    """A kept search as its response; ranks stay what they were when an image in between is gone."""
    return SearchResponse(
        id=search.id,
        request=search.request["asked"],
        checkpoint_id=search.checkpoint_id,
        created_at=search.created_at,
        expires_at=search.expires_at,
        results=[
            _result(rank, result, images[result["row"]])
            for rank, result in enumerate(search.results, start=1)
            if result["row"] in images
        ],
        **{name: value for name, value in search.request.items() if name != "asked"},
    )


def _result(rank: int, result: Mapping[str, Any], record: ImageRecord) -> Result:
    return Result(
        rank=rank,
        image_id=record.id,
        similarity=result["similarity"],
        band=result["band"],
        image=ResultImage(
            camera_id=record.camera_id,
            captured_at=record.captured_at,
            tags=list(record.tags),
            identity=record.identity,
            track_id=record.track_id,
            external_id=record.external_id,
            width=record.width,
            height=record.height,
            content=content_path(record.id),
            thumbnail=content_path(record.id, "thumb"),
        ),
    )


def content_path(image_id: UUID, variant: Literal["full", "thumb"] = "full") -> str:
    return f"/api/v1/images/{image_id}/content?variant={variant}"


# --------------------------------------------------------------------------------------------- what can be searched


def refuse_impossible(context: Context, encoder: QueryEncoder, request: SearchRequest, upload: bytes | None) -> None:
    """What the fields allow one by one but not together, or not with this checkpoint."""
    query, most = request.query, context.settings.search_limit_max
    has_image = upload is not None or query.image is not None
    if request.limit > most:
        raise Refusal("invalid_request", f"limit: this service returns at most {most} results.", "/limit")
    if query.text is None and not has_image:
        raise Refusal("invalid_request", "There is nothing to search for: give a text, an image, or both.", "/query")
    if upload is not None and query.image is not None:
        sentence = "There are two images to search with: send the part `image` or `image_id`, not both."
        raise Refusal("invalid_request", sentence, "/query/image")
    if query.weights is not None and not (query.text is not None and has_image):
        sentence = "Weights balance a text against an image: give both, or leave the weights out."
        raise Refusal("invalid_request", sentence, "/query/weights")
    if query.text is not None and not encoder.has_text:
        sentence = "The active checkpoint cannot read text: it only compares images. Search with an image."
        raise Refusal("no_text_branch", sentence, "/query/text")


def refuse_retired(session: Session, checkpoint_id: str) -> None:
    """Embeddings go after the state says so, so what was read before this check was complete."""
    if checkpoints.is_retired(session, checkpoint_id):
        sentence = "The checkpoint of this replica was retired while another is being loaded. Try again in a moment."
        raise Refusal("checkpoint_replaced", sentence)


def refuse_unknown_cameras(session: Session, wanted: Filter) -> None:
    """A mistyped camera must fail, not empty the search."""
    for pointer, clause in [("/filter", wanted), *((f"/filter/any/{i}", c) for i, c in enumerate(wanted.any or ()))]:
        named: set[str] = set()
        for field_name, operator, operand in clause.comparisons():
            if field_name == "camera_id" and operator != "exists" and operand is not None:
                named.update([operand] if isinstance(operand, str) else operand)
        if unknown := gallery.unknown_cameras(session, sorted(named)):
            names = ", ".join(repr(name) for name in unknown)
            sentence = f"There is no camera {names}. GET /api/v1/cameras lists them all."
            raise Refusal("unknown_camera", sentence, f"{pointer}/camera_id")


def image_filter(wanted: Filter) -> ImageFilter:
    return ImageFilter(
        all=tuple(Condition(*comparison) for comparison in wanted.comparisons()),
        any=tuple(Condition(*comparison) for clause in wanted.any or () for comparison in clause.comparisons()),
    )


# ------------------------------------------------------------------------------------------------------ query vector


def embed_query(
    encoder: QueryEncoder, text: str | None, upload: bytes | None, context: Context, notes: Notes
) -> dict[str, Vector]:
    """ "text" and "image" -> unit vector, for what was given and is not in the gallery already."""
    vectors: dict[str, Vector] = {}
    if text is not None:
        note_words(notes, encoder, text)
        vectors["text"] = encoder.embed_texts([text])[0]
    if upload is not None:
        vectors["image"] = encoder.embed_images([decode(upload, context.settings)])[0]
    return vectors


def note_words(notes: Notes, encoder: QueryEncoder, text: str) -> None:
    """Warn of a text that is cut, and of words the checkpoint never met."""
    if encoder.is_truncated(text):
        notes.warnings.append("The description is longer than the network reads; its end was ignored. Shorten it.")
    notes.unknown_words = encoder.unknown_words(text)
    unknown = {word.casefold() for word in notes.unknown_words}
    if not any(word not in unknown for word in re.findall(r"[^\W_]+", text.casefold())):
        notes.warnings.append("No word of the description is known to the network, so this ranking means little.")
    elif unknown:
        words = ", ".join(notes.unknown_words)
        notes.warnings.append(f"Words the network never met in training, which may mislead it: {words}.")


def stored_vector(session: Session, image_id: UUID, checkpoint_id: str) -> Vector:
    """The vector of a gallery image. Raises Refusal when there is no such image or it is not embedded."""
    found = gallery.vectors_of(session, [image_id], checkpoint_id)
    if image_id in found:
        return found[image_id]
    image = gallery.image_by_id(session, image_id)
    if image is None:
        raise Refusal("unknown_image", f"There is no image {image_id} to search with.", "/query/image/image_id")
    if image.state == "failed":
        sentence = f"The image {image_id} could not be embedded, so it cannot be searched with: {image.error}"
        raise Refusal("not_indexed", sentence, "/query/image/image_id")
    sentence = f"The image {image_id} is not embedded yet. Try again in a moment."
    raise Refusal("not_indexed", sentence, "/query/image/image_id")


def fuse(vectors: Mapping[str, Vector], weights: Weights) -> Vector:
    """Unit vectors, weighted sum, unit again: (D,). So the similarity is a weighted mean of both, up to one factor."""
    if len(vectors) == 1:
        return next(iter(vectors.values()))
    largest = max(weights.text, weights.image)  # only the ratio matters, and tiny weights must not vanish
    mixed = vectors["text"] * (weights.text / largest) + vectors["image"] * (weights.image / largest)
    length = float(np.linalg.norm(mixed))
    if length < 1e-6:
        sentence = "Text and image are exact opposites and cancel out. Change the weights."
        raise Refusal("invalid_request", sentence, "/query/weights")
    return (mixed / length).astype(np.float32)


# ----------------------------------------------------------------------------------------------------------- ranking


def rank(
    session: Session, index: VectorIndex, vector: Vector, allowed: NDArray[np.int64] | None, limit: int
) -> list[tuple[ImageRecord, float]]:
    """The `limit` nearest images that exist, best first, with their similarity.

    The index may still hold images that were deleted a moment ago, so it is asked for more until the page is full.
    """
    k = limit
    while True:
        similarities, rows = index.search(vector[None], k, allowed)  # (1, k) each, padded with row -1
        found = [(int(row), float(s)) for row, s in zip(rows[0], similarities[0], strict=True) if row >= 0]
        records = gallery.images_by_row(session, [row for row, _ in found])
        ranking = [(records[row], s) for row, s in found if row in records]
        if len(ranking) >= limit or len(found) < k:
            return ranking[:limit]
        k *= 2


def bands_of(encoder: QueryEncoder, vectors: Mapping[str, Vector]) -> Mapping[str, float] | None:
    """Least similarity of "strong" and "possible" for this kind of query, as measured on the validation data."""
    bands: Mapping[str, Mapping[str, float]] = (encoder.info.get("validation") or {}).get("bands") or {}
    return bands.get("+".join(kind for kind in ("text", "image") if kind in vectors))


def band(similarity: float, thresholds: Mapping[str, float] | None) -> Band | None:
    if thresholds is None:
        return None
    if similarity >= thresholds["strong"]:
        return "strong"
    return "possible" if similarity >= thresholds["possible"] else "weak"


def note_quality(
    notes: Notes, ranking: list[tuple[ImageRecord, float]], thresholds: Mapping[str, float] | None, *, filtered: bool
) -> None:
    """Say so when there is nothing, or nothing convincing."""
    if not ranking:
        none = "No searchable image passes the filter." if filtered else "The gallery has no searchable image yet."
        notes.warnings.append(none)
    elif band(ranking[0][1], thresholds) == "weak":
        notes.warnings.append("Nothing convincing was found: even the best result is weak.")


def as_understood(request: SearchRequest, upload: bytes | None) -> dict[str, Any]:
    """The request to keep with the ranking. An uploaded picture is not kept, only its checksum."""
    asked: dict[str, Any] = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    asked["limit"] = request.limit
    if upload is not None:
        asked["query"]["image"] = {"sha256": hashlib.sha256(upload).hexdigest()}
    return asked
