"""What was asked becomes one unit vector: texts and pictures through the encoder, gallery images from the database, and
all of them mixed. Why in this way and with these weights: docs/decisions/0011-mixing-queries.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from sqlalchemy.orm import Session

from indexer import gallery, searches
from indexer.database import transaction
from indexer.errors import InvalidCrop, NotFound
from indexer.filters import Scope
from indexer.images import Crop, decode
from service.context import Context, QueryEncoder
from service.errors import Refusal
from service.notes import Notes
from service.search_schemas import CropBox, Query, Weights

Vector = NDArray[np.float32]  # (D,), unit length
Vectors = NDArray[np.float32]  # (N, D), unit rows

EQUAL_WEIGHTS = Weights(text=1, image=1)
# Rocchio, "Relevance feedback in information retrieval" (1971), with the weights that became usual: what was asked
# counts 1, the mean of the positive examples POSITIVES, that of the negative ones NEGATIVES.
POSITIVES, NEGATIVES = 0.75, 0.15
NEGATIVE_TEXT = 0.5  # what a negative text counts, against 1 of everything else together


@dataclass(frozen=True, eq=False)
class Asked:
    """The unit vectors of what was asked; None and () for what was not.

    pair: of text and image as the network reads them together, if it does; it then stands for both.
    """

    text: Vector | None = None
    image: Vector | None = None
    pair: Vector | None = None
    negative_text: Vector | None = None
    positives: Sequence[Vector] = ()
    negatives: Sequence[Vector] = ()

    @property
    def kinds(self) -> list[str]:
        """What there is, by name."""
        names = ("text", "image", "negative_text", "positives", "negatives")
        return [name for name in names if (value := getattr(self, name)) is not None and len(value)]


# ------------------------------------------------------------------------------------------------------- embedding


def embed(
    context: Context, encoder: QueryEncoder, scope: Scope, query: Query, upload: bytes | None, notes: Notes
) -> Asked:
    """What the encoder has to look at: texts, the picture that was sent, the part of a gallery image.

    Outside of any transaction, since it takes long. Raises Refusal, and GalleryError for a picture that cannot be read.
    """
    texts = [text for text in (query.text, query.negative_text) if text is not None]
    for text, called in ((query.text, "description"), (query.negative_text, "negative description")):
        if text is not None:
            notes.words(encoder, text, called)
    embedded = iter(encoder.embed_texts(texts)) if texts else iter(())
    asked = Asked(
        text=None if query.text is None else next(embedded),
        negative_text=None if query.negative_text is None else next(embedded),
    )
    # Weights are a wish to have them apart.
    together = query.text is not None and query.weights is None and encoder.has_pairs
    picture = query_picture(context, scope, query, upload, notes, always=together)
    if picture is None:
        return asked
    asked = replace(asked, image=encoder.embed_images([picture])[0])
    if not together or query.text is None:
        return asked
    return replace(asked, pair=encoder.embed_pairs([picture], [query.text])[0])


def query_picture(
    context: Context, scope: Scope, query: Query, upload: bytes | None, notes: Notes, *, always: bool = False
) -> Image | None:
    """The pixels to embed; None if there is no picture, or, unless `always`, one that is embedded already."""
    image = query.image
    box = None if image is None else image.crop
    crop = None if box is None else checked_crop(context, box, notes)
    try:
        if upload is not None:
            return decode(upload, context.settings, crop)
        if image is None or image.image_id is None or (crop is None and not always):
            return None
        with transaction(context.database.engine) as session:
            file = searches.file_of(session, image.image_id, scope)
        if file is None:
            raise unknown_image(image.image_id, "/query/image/image_id")
        return context.store.open(file, crop)
    except InvalidCrop as error:
        raise Refusal("invalid_crop", str(error), "/query/image/crop") from error
    except NotFound as error:
        raise Refusal("unknown_image", str(error), "/query/image/image_id") from error


def checked_crop(context: Context, box: CropBox, notes: Notes) -> Crop:
    least = context.settings.min_image_side
    if min(box.width, box.height) < least:
        sentence = f"The crop has {box.width} x {box.height} pixels; each side needs at least {least}. Draw it larger."
        raise Refusal("image_too_small", sentence, "/query/image/crop")
    crop = Crop(box.left, box.top, box.width, box.height)
    notes.crop(crop)
    return crop


def look_up(session: Session, asked: Asked, query: Query, checkpoint_id: str, scope: Scope) -> Asked:
    """Add what the gallery has embedded already: the image to search with, and the examples. Raises Refusal."""

    def stored(ids: Sequence[UUID], pointer: str) -> list[Vector]:
        return stored_vectors(session, ids, checkpoint_id, scope, pointer)

    image = asked.image
    if image is None and query.image is not None:
        image = stored([query.image.image_id], "/query/image/image_id")[0]
    return replace(
        asked,
        image=image,
        positives=stored(query.positive_image_ids, "/query/positive_image_ids"),
        negatives=stored(query.negative_image_ids, "/query/negative_image_ids"),
    )


def stored_vectors(
    session: Session, ids: Sequence[UUID], checkpoint_id: str, scope: Scope, pointer: str
) -> list[Vector]:
    """The vectors of gallery images. Raises Refusal when one is not there for whoever asks, or not embedded."""
    if not ids:
        return []
    found = gallery.vectors_of(session, ids, checkpoint_id, scope)
    for id in ids:
        if id in found:
            continue
        image = gallery.image_by_id(session, id, scope)
        if image is None:
            raise unknown_image(id, pointer)
        if image.state == "failed":
            sentence = f"The image {id} could not be embedded, so it cannot be searched with: {image.error}"
            raise Refusal("not_indexed", sentence, pointer)
        raise Refusal("not_indexed", f"The image {id} is not embedded yet. Try again in a moment.", pointer)
    return [found[id] for id in ids]


def unknown_image(id: UUID, pointer: str) -> Refusal:
    return Refusal("unknown_image", f"There is no image {id} to search with.", pointer)


# ---------------------------------------------------------------------------------------------------------- mixing


def fuse(asked: Asked, weights: Weights) -> Vector:
    """One unit vector (D,), in three steps, each made unit again:

    1. text and image by their weights, or as the network read them together;
    2. towards the mean of the positive examples, away from that of the negative ones;
    3. away from the negative text.

    So a similarity is the weighted mean of the similarities to all of them, up to one factor. Raises Refusal when what
    was asked cancels out.
    """
    vector = _described(asked, weights)
    if len(asked.positives) or len(asked.negatives):
        moved = 0.0 if vector is None else vector.astype(np.float64)
        if len(asked.positives):
            moved = moved + POSITIVES * np.mean(asked.positives, axis=0, dtype=np.float64)
        if len(asked.negatives):
            moved = moved - NEGATIVES * np.mean(asked.negatives, axis=0, dtype=np.float64)
        vector = _unit(np.asarray(moved), "The examples cancel out. Take some of them away.", "/query")
    assert vector is not None, "there is a text, an image or a positive example"
    if asked.negative_text is not None:
        sentence = "The negative text says the opposite of everything else. Take it away, or change it."
        vector = _unit(vector - NEGATIVE_TEXT * asked.negative_text, sentence, "/query/negative_text")
    return vector


def _described(asked: Asked, weights: Weights) -> Vector | None:
    """Text and image, or the one there is."""
    if asked.pair is not None:
        return asked.pair
    if asked.text is None or asked.image is None:
        return asked.text if asked.image is None else asked.image
    largest = max(weights.text, weights.image)  # only the ratio matters, and tiny weights must not vanish
    mixed = asked.text * (weights.text / largest) + asked.image * (weights.image / largest)
    return _unit(mixed, "Text and image are exact opposites and cancel out. Change the weights.", "/query/weights")


def _unit(vector: NDArray[np.floating], sentence: str, pointer: str) -> Vector:
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise Refusal("invalid_request", sentence, pointer)
    return (vector / length).astype(np.float32)
