"""What an answer tells beside its ranking, in sentences: words it did not know, images it could not look at yet."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from indexer.images import Crop
from service.context import QueryEncoder

SMALL_CROP = 24, 64  # pixels, width and height: below either, clothes are hardly told apart


@dataclass
class Notes:
    """Filled while a search goes on."""

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

    def words(self, encoder: QueryEncoder, text: str, called: str = "description") -> None:
        """Warn of a text that is cut, and of words the checkpoint never met."""
        if encoder.is_truncated(text):
            self.warnings.append(f"The {called} is longer than the network reads; its end was ignored. Shorten it.")
        unknown = encoder.unknown_words(text)
        self.unknown_words = list(dict.fromkeys([*self.unknown_words, *unknown]))
        folded = {word.casefold() for word in unknown}
        if not any(word not in folded for word in re.findall(r"[^\W_]+", text.casefold())):
            self.warnings.append(f"No word of the {called} is known to the network, so this ranking means little.")
        elif unknown:
            words = ", ".join(unknown)
            self.warnings.append(f"Words the network never met in training, which may mislead it: {words}.")

    def crop(self, crop: Crop) -> None:
        """Warn of a part of a picture that shows too little."""
        width, height = SMALL_CROP
        if crop.width < width or crop.height < height:
            self.warnings.append(
                f"The crop has only {crop.width} x {crop.height} pixels, so this ranking means little. "
                f"Draw it around the whole person, at least {width} x {height} pixels."
            )

    def nothing(self, *, filtered: bool) -> None:
        """Say why nothing was found."""
        none = "No searchable image passes the filter." if filtered else "The gallery has no searchable image yet."
        self.warnings.append(none)

    def quality(self, *, best: str | None, pending: int) -> None:
        """Say so when there is nothing convincing, or when not everything could be looked at."""
        if best == "weak":
            self.warnings.append("Nothing convincing was found: even the best result is weak.")
        if pending:
            images = "1 image is" if pending == 1 else f"{pending:,} images are"
            self.warnings.append(f"{images} not embedded yet and could not be found. Search again later.")

    def cut(self, ranked: int, candidates: int) -> None:
        """Groups are counted within the ranking; say so where that is not everything."""
        if ranked < candidates:
            self.warnings.append(
                f"Groups were made of the {ranked:,} most similar of {candidates:,} images. Narrow the filter to "
                "count all of them."
            )
