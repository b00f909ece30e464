"""A search made anew with examples of what it got right and wrong. How examples count: query_vector.py."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from indexer import searches
from indexer.database import transaction
from service import search
from service.context import Context
from service.errors import Refusal, invalid
from service.principals import Principal
from service.search import Parent
from service.search_schemas import RefinementRequest, SearchRequest, SearchResponse


def refine(context: Context, principal: Principal, search_id: UUID, wanted: RefinementRequest) -> SearchResponse:
    """Run the search again with these examples added to those it had; filter, limit and order are as they were.

    Raises Refusal as `search.run` and `search.own` do, and when the picture it was asked with was looked at by another
    checkpoint than the one that answers now.
    """
    with transaction(context.database.engine) as session:
        before = search.own(session, search_id, principal)
        picture = searches.upload_vector(session, search_id)
    asked = before.request["asked"]
    image = asked["query"].get("image") or {}
    if "sha256" in image and picture is None:  # it is of a version that did not keep what the network made of it
        raise Refusal("checkpoint_conflict", "The picture of this search was not kept. Search with the picture again.")
    parent = Parent(search_id, before.checkpoint_id, image if picture is not None else None, picture)
    return search.run(context, principal, refined(asked, wanted), None, parent)


def refined(asked: dict[str, Any], wanted: RefinementRequest) -> SearchRequest:
    """The request of a search with examples and text changed. What is said last of an image holds."""
    query = dict(asked["query"])
    if "sha256" in (query.get("image") or {}):
        del query["image"]  # it was sent, and is not in the gallery
    if wanted.text is not None:
        query["text"] = wanted.text
    now = {"positive_image_ids": wanted.positive, "negative_image_ids": wanted.negative}
    said = {str(id) for ids in now.values() for id in ids}
    for name, ids in now.items():
        left = [id for id in query.get(name, []) if id not in said]
        query[name] = list(dict.fromkeys([*left, *map(str, ids)]))
    body = {**asked, "query": {name: value for name, value in query.items() if value != []}}
    if wanted.purpose is not None:
        body["purpose"] = wanted.purpose.model_dump(mode="json", exclude_unset=True)
    try:
        return SearchRequest.model_validate_json(json.dumps(body))
    except ValidationError as error:
        raise invalid({**one, "loc": ("body", *one["loc"])} for one in error.errors()) from error
