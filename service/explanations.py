"""Why an image is where it is in a ranking: which words met which part of the body, as `model.explain` works it out."""

from __future__ import annotations

from uuid import UUID

from indexer import gallery, searches
from indexer.database import transaction
from indexer.errors import NotFound
from service import search
from service.context import Context
from service.errors import Refusal
from service.principals import Principal
from service.search_schemas import ExplanationResponse, PhraseExplanation

NOTE = (
    "This shows how the network came to its similarity, part by part. It does not show that this is the person, and is "
    "not evidence."
)


def explain(context: Context, principal: Principal, search_id: UUID, image_id: UUID) -> ExplanationResponse:
    """Takes seconds: the network looks at some dozens of versions of the image. Raises Refusal."""
    with transaction(context.database.engine) as session:
        asked = search.own(session, search_id, principal)
        image = gallery.image_by_id(session, image_id, principal.cameras)
        if image is None or image.row not in searches.ranking(session, search_id).rows:
            raise Refusal("not_found", f"There is no image {image_id} among the results of this search.")
    live = context.replica.state
    if live.checkpoint_id != asked.checkpoint_id:
        sentence = f"Checkpoint {asked.checkpoint_id} made this ranking, and another one answers now. Search again."
        raise Refusal("checkpoint_conflict", sentence)
    text: str | None = asked.request["asked"]["query"].get("text")
    if text is None:
        raise Refusal("no_explanation", "The search has no text, so there are no words to explain.")

    # Imported here, because torch takes seconds that a service which is never asked need not wait for.
    from model.errors import ModelError
    from model.explain import explain as explain_similarity

    try:
        found = explain_similarity(live.encoder, context.store.open(image.sha256), text)  # type: ignore[arg-type]
    except NotFound as error:
        raise Refusal("not_found", str(error)) from error
    except ModelError as error:
        raise Refusal("no_explanation", str(error)) from error
    return ExplanationResponse(
        search_id=search_id,
        image_id=image_id,
        checkpoint_id=live.checkpoint_id,
        text=text,
        similarity=found.similarity,
        strip_bounds=list(found.strip_bounds),
        phrases=[
            PhraseExplanation(phrase=phrase, strips=row.tolist(), best_strip=int(marks.argmax()))
            for phrase, row, marks in zip(found.phrases, found.strips, found.marks, strict=True)
        ],
        note=NOTE,
    )
