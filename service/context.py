"""What a handler works with: the parts that `create_app` opens at the start and closes at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np
from fastapi import Depends, Request
from numpy.typing import NDArray
from PIL import Image

from indexer.database import Database
from indexer.erasure import Eraser
from indexer.images import ImageStore
from indexer.replica import Replica
from indexer.succession import Succession
from service.access import Access
from service.errors import Refusal
from service.intake_queue import IntakeQueue
from service.metrics import ServiceMetrics
from service.settings import ServiceSettings

if TYPE_CHECKING:
    from service.admission import Admission
    from service.encoders import EncoderFiles

Vectors = NDArray[np.float32]


class QueryEncoder(Protocol):
    """What the service asks of an encoder; `model.encoder.Encoder` is one. Every row is a unit vector."""

    checkpoint_id: str
    dim: int
    info: dict[str, Any]

    @property
    def has_text(self) -> bool: ...
    @property
    def has_pairs(self) -> bool: ...  # whether it reads a picture and a text together
    def embed_images(self, images: Sequence[Image.Image]) -> Vectors: ...  # (N, D)
    def embed_texts(self, texts: Sequence[str]) -> Vectors: ...  # (N, D)
    def embed_pairs(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Vectors: ...  # (N, D)
    def unknown_words(self, text: str) -> list[str]: ...
    def is_truncated(self, text: str) -> bool: ...


@dataclass(frozen=True)
class Context:
    """The running service."""

    settings: ServiceSettings
    database: Database
    store: ImageStore
    replica: Replica[QueryEncoder]
    succession: Succession[QueryEncoder]
    files: EncoderFiles
    intake: IntakeQueue
    eraser: Eraser
    access: Access
    metrics: ServiceMetrics
    admission: Admission


def current(request: Request) -> Context:
    """Raises Refusal while the service is still opening what it needs."""
    context: Context | None = request.app.state.context
    if context is None:
        raise Refusal("not_ready", "The service is starting. Try again in a moment.")
    return context


CurrentContext = Annotated[Context, Depends(current)]
