"""Texts of searches that come at the same time are embedded together: a network reads eight nearly as fast as one.

Nobody waits for company: whoever finds the encoder free starts at once, with all that wait by then, and what comes
while it is busy goes together next. A row does not depend on the other texts of its call, so only the time shows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from indexer import deadlines
from service.context import QueryEncoder, Vectors


@dataclass(eq=False)
class _Call:
    """The texts of one caller, and what became of them."""

    texts: list[str]
    rows: Vectors | None = None  # (N, D)
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.rows is not None or self.error is not None


class BatchingEncoder:
    """An encoder around another one, for many threads at once. All but the embedding of texts is passed through."""

    def __init__(self, encoder: QueryEncoder, most: int, observe: Callable[[int], object] = lambda texts: None) -> None:
        """`most` texts go together, more only if one caller brings them; `observe` is told how many each time."""
        self._encoder, self._most, self._observe = encoder, most, observe
        self.checkpoint_id, self.dim, self.info = encoder.checkpoint_id, encoder.dim, encoder.info
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []  # in the order they came
        self._busy = False

    def __getattr__(self, name: str) -> Any:
        """What an encoder may have beyond a `QueryEncoder`, such as its device."""
        return getattr(self._encoder, name)

    @property
    def has_text(self) -> bool:
        return self._encoder.has_text

    @property
    def has_pairs(self) -> bool:
        return self._encoder.has_pairs

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        return self._encoder.embed_images(images)

    def embed_pairs(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Vectors:
        return self._encoder.embed_pairs(images, texts)

    def unknown_words(self, text: str) -> list[str]:
        return self._encoder.unknown_words(text)

    def is_truncated(self, text: str) -> bool:
        return self._encoder.is_truncated(text)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """(N, D). Raises what the encoder raises for these texts, and DeadlinePassed instead of waiting longer."""
        call = _Call(list(texts))
        with self._changed:
            self._waiting.append(call)
        while (batch := self._turn(call)) is not None:
            try:
                self._embed(batch)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        if call.error is not None:
            raise call.error
        assert call.rows is not None
        return call.rows

    def _turn(self, call: _Call) -> list[_Call] | None:
        """Wait until the call is done (None), or until its thread has to embed these calls, the oldest that wait."""
        with self._changed:
            try:
                while self._busy and not call.done:
                    deadlines.check()
                    self._changed.wait(deadlines.remaining())
            except BaseException:
                if call in self._waiting:
                    self._waiting.remove(call)
                raise
            if call.done:
                return None
            self._busy = True
            count, texts = 1, len(self._waiting[0].texts)
            while count < len(self._waiting) and texts + len(self._waiting[count].texts) <= self._most:
                texts += len(self._waiting[count].texts)
                count += 1
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            return batch

    def _embed(self, batch: Sequence[_Call]) -> None:
        """One call of the encoder for all; if that fails, one for each, so that only the culprit fails."""
        texts = [text for call in batch for text in call.texts]
        self._observe(len(texts))
        try:
            rows = self._encoder.embed_texts(texts)
            assert rows.shape == (len(texts), self.dim), rows.shape
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for call in batch:
                self._embed([call])
            return
        ends = np.cumsum([len(call.texts) for call in batch])
        for call, part in zip(batch, np.split(rows, ends[:-1]), strict=True):
            call.rows = part
