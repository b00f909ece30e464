"""A wide phrase book for training: one look told as keywords, radio logs, forms, questions, gossip or statements.

``voice_with_facts`` mentions only what one image shows. A random part of the look becomes a list of Items
(voices_look.py), and one of the MANNERS (voices_manners.py) tells them with the words of voices_words.py. Prose is
written in captions.py.
"""

from __future__ import annotations

import numpy as np

from model.synth import voices_words as w
from model.synth.attributes import Attributes
from model.synth.phrases import Facts, Speaker, bearing
from model.synth.visibility import visible_attributes
from model.synth.voices_look import draw_items, draw_who, lack
from model.synth.voices_manners import MANNERS, Manner, add, typed, worn_by

_COUNT_EDGES = np.cumsum([0.18, 0.28, 0.25, 0.14, 0.08, 0.04])  # of 1 to 6 items; the rest is 7
_MANNERS = tuple(manner for manner, _ in MANNERS.values())
_MANNER_EDGES = np.cumsum([share for _, share in MANNERS.values()]) / sum(share for _, share in MANNERS.values())


def voice_with_facts(
    rng: np.random.Generator,
    a: Attributes,
    view: str,
    occluded: str | None = None,
    activity: str | None = None,
    *,
    manner: Manner | None = None,
) -> tuple[str, Facts]:
    """One text about one image and what it states, as for ``captions.caption_with_facts``.

    Args:
        view, occluded: as for ``visible_attributes``, whose ValueError they may raise.
        activity: "walking" or "standing"; None where it is not known, and then nothing is said of it.
        manner: a way to tell it; None draws one of MANNERS by its share.
    """
    s = Speaker(rng, a, visible_attributes(a, view, occluded))
    drawn = _MANNERS[int(np.searchsorted(_MANNER_EDGES, rng.random(), side="right"))]
    manner = manner or drawn
    who = draw_who(s, named=manner is not worn_by and s.chance(0.78))
    items = draw_items(s, who, int(np.searchsorted(_COUNT_EDGES, rng.random(), side="right")) + 1)
    if not items and not who.noun:
        manner, who = MANNERS["phrase"][0], draw_who(s, named=True)
    text = manner(s, who, items)
    if s.chance(0.07):
        text = add(text, s.pick(*w.SEEN_FROM[bearing(view)]))
    elif activity is not None and s.chance(0.07):
        text = add(text, s.pick(*w.ACTIVITY[activity]).replace("{his}", who.his))
    if s.chance(0.06) and (missing := lack(s, who)):
        text = add(text, missing)
    return typed(s, text), s.facts
