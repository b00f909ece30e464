"""A query becomes a ranking: query -> embedding -> neighbours within the filter -> frozen ranking -> page of results.

The filter is applied before ranking, and the answer is exact within it. What the caller may see is part of the filter,
inside the SQL. The database decides what exists: an image that was deleted is dropped even while the index has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from indexer import audit, checkpoints, gallery, searches
from indexer.audit import Purpose
from indexer.database import transaction
from indexer.filters import ImageFilter, Scope
from indexer.replica import Live
from indexer.searches import Ranking, SearchRecord, band
from indexer.tables import new_id
from service import cursors, purpose, rankings, results
from service.context import Context, QueryEncoder
from service.errors import Refusal
from service.filters import refuse_unknown
from service.notes import Notes
from service.principals import Principal
from service.query_vector import EQUAL_WEIGHTS, Asked, Vector, embed, fuse, look_up
from service.rankings import Allowed
from service.search_schemas import PurposeRequest, SearchPage, SearchRequest, SearchResponse

MEASURED = (["text"], ["image"], ["text", "image"])  # kinds of query that validation has bands for


@dataclass(frozen=True, eq=False)
class Parent:
    """The search that one refines, and the picture it was asked with, if that is not in the gallery."""

    id: UUID
    checkpoint_id: str
    image: dict[str, Any] | None = None  # as it was understood
    vector: Vector | None = None


def run(
    context: Context, principal: Principal, request: SearchRequest, upload: bytes | None, parent: Parent | None = None
) -> SearchResponse:
    """Search, keep the ranking, and return its first page. `upload` is the picture to search with, if one was sent.

    Raises Refusal for what cannot be searched for, and GalleryError for a picture that cannot be read.
    """
    notes, scope = Notes(), principal.cameras
    inherited = None if parent is None else parent.vector
    live = context.replica.state  # once: a checkpoint activated meanwhile answers the next search
    refuse_impossible(context, live.encoder, request, sent=upload is not None, inherited=inherited is not None)
    if parent is not None and inherited is not None and parent.checkpoint_id != live.checkpoint_id:
        sentence = f"Checkpoint {parent.checkpoint_id} looked at the picture of this search, and another answers now."
        raise Refusal("checkpoint_conflict", f"{sentence} Search with the picture again.")
    with notes.timed("embed"):
        asked = embed(context, live.encoder, scope, request.query, upload, notes)
        if inherited is not None:
            asked = replace(asked, image=inherited)
    uploaded = asked.image if upload is not None else inherited
    why = purpose.check(context.settings, purpose_of(request.purpose))
    with transaction(context.database.engine) as session:
        purpose.check_case(session, principal, why)
        refuse_unknown(session, request.filter, scope)
        asked = look_up(session, asked, request.query, live.checkpoint_id, scope)
        bands = bands_of(live.encoder, asked)
        vector = fuse(asked, request.query.weights or EQUAL_WEIGHTS)
        found = find(context, session, live, vector, request, scope, notes)
        pending = gallery.pending_count(session, live.checkpoint_id, scope)
        notes.quality(best=None if found.best is None else band(found.best, bands), pending=pending)
        answered = {
            "asked": as_understood(request, upload, parent),
            "exact": found.exact,
            "candidates": found.candidates,
            "pending": pending,
            "bands": bands,
            "unknown_words": notes.unknown_words,
            "warnings": notes.warnings,
            "took_ms": notes.took_ms,
        }
        parent_id = None if parent is None else parent.id
        kept = (new_id(), answered, live.checkpoint_id, found.ranking)
        search = searches.save(session, *kept, owner=principal.id, parent_id=parent_id, upload_vector=uploaded)
        detail = {"kinds": asked.kinds, "limit": request.limit, "parent": None if parent_id is None else str(parent_id)}
        answered_with = answer(session, search, principal)
        audit.record(  # the last statement: from here on other acts wait for this transaction
            session,
            principal.actor,
            "search.run",
            ("search", str(search.id)),
            purpose=why,
            checkpoint_id=live.checkpoint_id,
            detail={**detail, "candidates": found.candidates, "exact": found.exact},
        )
    context.metrics.searched(notes.took_ms, found.candidates, found.best)
    return answered_with


@dataclass(frozen=True, eq=False)
class Found:
    """A ranking as it will be frozen, out of how many images, and the greatest similarity in it."""

    ranking: Ranking
    candidates: int
    exact: bool
    best: float | None


def find(
    context: Context,
    session: Session,
    live: Live[QueryEncoder],
    vector: Vector,
    request: SearchRequest,
    scope: Scope,
    notes: Notes,
) -> Found:
    """Filter, rank, and put in the order that was asked for."""
    with notes.timed("filter"):
        wanted = request.filter.conditions()
        filtered = wanted != ImageFilter() or scope is not None
        rows = gallery.allowed_rows(session, wanted, live.checkpoint_id, scope) if filtered else None
    refuse_retired(session, live.checkpoint_id)
    by_time, most = request.order_by != "similarity", context.settings.ranking_max
    if by_time:
        most = min(most, request.depth)
    with notes.timed("rank"):
        context.replica.refresh(session)  # after the filter, so that the index has every row the filter allows
        rearranged = by_time or request.group_by is not None
        allowed, page = Allowed(wanted, scope, rows), min(request.limit, most)
        ranking = rankings.rank(session, live.index, vector, allowed, most, page, check_all=rearranged)
        best = float(ranking.similarities[0]) if len(ranking) else None
        candidates = len(live.index) if rows is None else len(rows)
        if not len(ranking):
            notes.nothing(filtered=filtered)
        if request.group_by is not None and not by_time:
            notes.cut(len(ranking), candidates)
        if rearranged:
            ranking = rankings.arranged(session, ranking, request.group_by, request.order_by)
    return Found(ranking, candidates, live.index.exact_among(rows), best)


def purpose_of(stated: PurposeRequest | None) -> Purpose | None:
    return None if stated is None else Purpose(stated.case_id, stated.reason)


# ---------------------------------------------------------------------------------------------------- reading again


def own(session: Session, search_id: UUID, principal: Principal) -> SearchRecord:
    """A search of the caller's own. Raises Refusal when there is none, or when it has expired."""
    search = searches.by_id(session, search_id)
    if search is None or search.owner != principal.id:
        raise Refusal("not_found", f"There is no search {search_id}.")
    if search.expires_at <= datetime.now(UTC):
        raise Refusal("expired", "This search has expired: rankings are kept for 24 hours. Run it again.")
    return search


def again(session: Session, search_id: UUID, principal: Principal) -> SearchResponse:
    """A search as it was answered, without the images that were deleted since. Raises Refusal as `own` does."""
    return answer(session, own(session, search_id, principal), principal)


def read_page(
    session: Session, search_id: UUID, principal: Principal, cursor: str | None, limit: int | None
) -> SearchPage:
    """A page of a search, the first one without a cursor. Raises Refusal as `own` does, and for a wrong cursor."""
    search = own(session, search_id, principal)
    first = 0
    if cursor is not None:
        first = cursors.read(searches.signing_key(session, "cursors"), search.id, cursor)
    return results.page(session, search, principal.cameras, first, limit or search.request["asked"]["limit"])


def answer(session: Session, search: SearchRecord, principal: Principal) -> SearchResponse:
    """A kept search as its response; ranks stay what they were when an image in between is gone."""
    page = results.page(session, search, principal.cameras, 0, search.request["asked"]["limit"])
    return SearchResponse(
        id=search.id,
        parent_id=search.parent_id,
        request=search.request["asked"],
        checkpoint_id=search.checkpoint_id,
        ranked=search.places,
        created_at=search.created_at,
        expires_at=search.expires_at,
        results=page.results,
        next_cursor=page.next_cursor,
        **{name: value for name, value in search.request.items() if name != "asked"},
    )


# --------------------------------------------------------------------------------------------- what can be searched


def refuse_impossible(
    context: Context, encoder: QueryEncoder, request: SearchRequest, *, sent: bool, inherited: bool
) -> None:
    """What the fields allow one by one but not together, or not with this checkpoint.

    `sent`: a picture came with the request; `inherited`: one came with the search that this one refines.
    """
    query, most, given = request.query, context.settings.search_limit_max, request.model_fields_set
    stored = query.image is not None and query.image.image_id is not None
    has_image = sent or inherited or stored
    if request.limit > most:
        raise Refusal("invalid_request", f"limit: this service returns at most {most} results.", "/limit")
    if sent and stored:
        sentence = "There are two images to search with: send the part `image` or `image_id`, not both."
        raise Refusal("invalid_request", sentence, "/query/image")
    if query.image is not None and not has_image:
        sentence = "There is a crop but no image: send the part `image`, or give image_id."
        raise Refusal("invalid_request", sentence, "/query/image")
    if query.text is None and not has_image and not query.positive_image_ids:
        sentence = "There is nothing to search for: give a text, an image, or positive examples."
        raise Refusal("invalid_request", sentence, "/query")
    if query.weights is not None and not (query.text is not None and has_image):
        sentence = "Weights balance a text against an image: give both, or leave the weights out."
        raise Refusal("invalid_request", sentence, "/query/weights")
    if "depth" in given and request.order_by == "similarity":
        raise Refusal("invalid_request", "depth belongs to order_by captured_at. Give both, or neither.", "/depth")
    if "group_members" in given and request.group_by is None:
        raise Refusal("invalid_request", "group_members belongs to group_by. Give both, or neither.", "/group_members")
    for name in ("text", "negative_text"):
        if getattr(query, name) is not None and not encoder.has_text:
            sentence = "The active checkpoint cannot read text: it only compares images. Search with an image."
            raise Refusal("no_text_branch", sentence, f"/query/{name}")


def refuse_retired(session: Session, checkpoint_id: str) -> None:
    """Embeddings go after the state says so, so what was read before this check was complete."""
    if checkpoints.is_retired(session, checkpoint_id):
        sentence = "The checkpoint of this replica was retired while another is being loaded. Try again in a moment."
        raise Refusal("checkpoint_replaced", sentence)


def bands_of(encoder: QueryEncoder, asked: Asked) -> Mapping[str, float] | None:
    """Least similarity of "strong" and "possible" for this kind of query, as measured on the validation data.

    None where that was not measured: nobody knows what a similarity means to a query that examples have moved, or to a
    text and an image that were read together.
    """
    if asked.pair is not None:
        return None
    measured: Mapping[str, Mapping[str, float]] = (encoder.info.get("validation") or {}).get("bands") or {}
    return measured.get("+".join(asked.kinds)) if asked.kinds in MEASURED else None


def as_understood(request: SearchRequest, upload: bytes | None, parent: Parent | None) -> dict[str, Any]:
    """The request to keep with the ranking. An uploaded picture is not kept, only its checksum."""
    asked: dict[str, Any] = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    asked["limit"] = request.limit
    if upload is not None:
        asked["query"]["image"] = {
            "sha256": hashlib.sha256(upload).hexdigest(),
            **(asked["query"].get("image") or {}),
        }
    elif parent is not None and parent.image is not None:
        asked["query"]["image"] = parent.image
    return asked
