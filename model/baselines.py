"""What a search reaches by luck, and by colours alone: chance, and named colours in three bands of the image.

Every table of results prints both beside the nets. ``expected_ranking`` is exact for rankings with ties, so it also
serves the oracle ceiling of the synthetic set. Needs numpy and Pillow only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
RANKS = (1, 5, 10)
METRICS = (*(f"rank{k}" for k in RANKS), "mean_ap", "mean_inp")


def expected_ranking(levels: Array, positive: Array) -> dict[str, float]:
    """Expected Rank-k, AP and INP of one query when equal levels are put in random order; all in 0..1.

    Within a tie of n images, r of them positive, at ranks N+1..N+n after P earlier positives:
    the first m places hold no positive with probability C(n-r, m) / C(n, m); a positive at place i finds on average
    P + 1 + (i-1)(r-1)/(n-1) positives up to itself, and place i is one with probability r/n, so AP sums in closed
    form by linearity; the last positive is at place i with probability C(i-1, r-1) / C(n, r).

    Args:
        levels: (G,) the lower the better; only their order and equality matter.
        positive: (G,) bool, at least one True.
    """
    total = int(positive.sum())
    assert total > 0, "a query needs a positive"
    _, group = np.unique(levels, return_inverse=True)
    sizes = np.bincount(group)
    hits = np.bincount(group, weights=positive).astype(int)
    found = dict.fromkeys(RANKS, 0.0)
    ap = inp = 0.0
    above = above_hits = 0  # N and P
    for n, r in zip(sizes.tolist(), hits.tolist(), strict=True):
        if r:
            if above_hits == 0:
                for k in RANKS:
                    found[k] = 1.0 - _none_among(n, r, min(max(k - above, 0), n))
            place = np.arange(1, n + 1)
            so_far = above_hits + 1 + (place - 1) * ((r - 1) / max(n - 1, 1))
            ap += float((r / n * so_far / (above + place)).sum()) / total
            if above_hits + r == total:
                inp = float((_last_place(n, r) * total / (above + place)).sum())
        above, above_hits = above + n, above_hits + r
    return {**{f"rank{k}": found[k] for k in RANKS}, "mean_ap": ap, "mean_inp": inp}


def _none_among(n: int, r: int, m: int) -> float:
    """Probability that the first m of n shuffled images hold none of the r positives."""
    if m > n - r:
        return 0.0
    taken = np.arange(m)
    return float(np.prod((n - r - taken) / (n - taken)))


def _last_place(n: int, r: int) -> Array:
    """(n,) probability that the last of r positives among n shuffled images stands at place i = 1..n.

    Backwards from P(n) = r/n by the ratio P(i)/P(i+1) = (i+1-r)/i of the binomials, which never overflows.
    """
    probability = np.zeros(n)
    probability[n - 1] = r / n
    for i in range(n - 1, r - 1, -1):
        probability[i - 1] = probability[i] * (i + 1 - r) / i
    return probability


def chance(gallery_pids: Sequence[int] | Array, query_pids: Sequence[int] | Array) -> dict[str, float]:
    """Expected metrics of a random ranking in percent: rank1, rank5, rank10, mean_ap, mean_inp.

    Queries without a positive are skipped, as everywhere.

    Raises:
        ValueError: no query has a positive in the gallery.
    """
    gallery = np.asarray(gallery_pids)
    pids, counts = np.unique(gallery, return_counts=True)
    positives = dict(zip(pids.tolist(), counts.tolist(), strict=True))
    per_count: dict[int, int] = {}  # number of positives -> queries that have so many
    for pid in np.asarray(query_pids).tolist():
        if pid in positives:
            per_count[positives[pid]] = per_count.get(positives[pid], 0) + 1
    if not per_count:
        raise ValueError("No query has its person in the gallery; check that both come from the same split.")
    levels = np.zeros(len(gallery))
    rows = [expected_ranking(levels, np.arange(len(gallery)) < r) for r in per_count]
    weights = list(per_count.values())
    return {name: 100 * float(np.average([row[name] for row in rows], weights=weights)) for name in METRICS}


# --- named colours ------------------------------------------------------------------------------------------------

# sRGB of the colours that pixels are named by, as they come out in photographs rather than on a colour chart.
PALETTE: dict[str, tuple[int, int, int]] = {
    "black": (28, 28, 31),
    "white": (225, 225, 222),
    "gray": (128, 128, 130),
    "red": (180, 35, 40),
    "brown": (95, 65, 45),
    "tan": (190, 165, 130),
    "pink": (225, 155, 175),
    "orange": (220, 125, 45),
    "yellow": (215, 190, 65),
    "green": (55, 110, 60),
    "light blue": (150, 185, 215),
    "blue": (55, 80, 150),
    "navy": (35, 42, 75),
    "purple": (105, 65, 125),
    "maroon": (100, 30, 42),
}
BANDS = {"upper": (0.16, 0.50), "lower": (0.50, 0.86), "feet": (0.86, 1.0)}  # of the image height

# Colour words and the palette entries they stand for; "dark" and "light" before "blue" are read in _colors_of.
_COLOR_WORDS: dict[str, tuple[str, ...]] = {
    "black": ("black",), "white": ("white",), "gray": ("gray",), "grey": ("gray",), "charcoal": ("gray", "black"),
    "red": ("red",), "crimson": ("red",), "scarlet": ("red",), "brown": ("brown",), "chocolate": ("brown",),
    "tan": ("tan",), "beige": ("tan",), "khaki": ("tan",), "cream": ("tan", "white"), "ivory": ("tan", "white"),
    "camel": ("tan",), "olive": ("green", "tan"), "pink": ("pink",), "salmon": ("pink",), "rose": ("pink",),
    "orange": ("orange",), "yellow": ("yellow",), "gold": ("yellow",), "mustard": ("yellow",), "green": ("green",),
    "teal": ("green", "blue"), "turquoise": ("light blue", "green"), "aqua": ("light blue",), "blue": ("blue",),
    "navy": ("navy",), "purple": ("purple",), "violet": ("purple",), "lavender": ("purple",), "maroon": ("maroon",),
    "burgundy": ("maroon",), "silver": ("gray",),
}  # fmt: skip
_SHADES = {
    ("dark", "blue"): ("navy",), ("light", "blue"): ("light blue",), ("pale", "blue"): ("light blue",),
    ("sky", "blue"): ("light blue",), ("dark", "red"): ("maroon",), ("light", "brown"): ("tan",),
    ("navy", "blue"): ("navy",),
}  # fmt: skip
_GARMENTS: dict[str, tuple[str, ...]] = {
    "upper": (
        "shirt", "tshirt", "tee", "top", "polo", "blouse", "sweater", "sweatshirt", "hoodie", "pullover", "jacket",
        "coat", "overcoat", "windbreaker", "cardigan", "vest", "tank", "tunic", "jumper", "blazer",
    ),
    "lower": ("pants", "trousers", "jeans", "slacks", "shorts", "skirt", "leggings", "tights", "bottoms", "denims"),
    "feet": ("shoes", "shoe", "sneakers", "boots", "sandals", "slippers", "trainers", "loafers", "flip", "footwear"),
    "upper lower": ("dress", "gown", "sundress"),
    "": ("hair", "bag", "backpack", "purse", "handbag", "cap", "hat", "glasses", "umbrella", "phone", "ponytail"),
}  # fmt: skip
_REGION_OF = {noun: regions.split() for regions, nouns in _GARMENTS.items() for noun in nouns}


def _lab(rgb: Array) -> Array:
    """CIE L*a*b* (D65) of sRGB values 0..255; shape (..., 3) in and out."""
    c = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


_PALETTE_LAB = _lab(np.array(list(PALETTE.values())))  # (C, 3)


def color_histogram(image: Image.Image) -> Array:
    """Share of each PALETTE colour in the upper, lower and foot band of a person crop; (3, C), rows sum to 1.

    A pixel has the name of the nearest palette colour in L*a*b*; pixels near the vertical axis count more, because the
    person stands there.
    """
    width, height = 32, 96
    pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    distance = ((_lab(pixels)[:, :, None, :] - _PALETTE_LAB) ** 2).sum(-1)  # (96, 32, C)
    nearest = distance.argmin(-1)
    offset = (np.arange(width) + 0.5) / width - 0.5
    weight = np.exp(-0.5 * (offset / 0.14) ** 2)  # (32,)
    rows = []
    for top, bottom in BANDS.values():
        names = nearest[round(top * height) : round(bottom * height)]
        counts = np.bincount(names.ravel(), np.broadcast_to(weight, names.shape).ravel(), minlength=len(PALETTE))
        rows.append(counts / counts.sum())
    return np.stack(rows)


def _colors_of(words: list[str]) -> list[tuple[int, tuple[str, ...]]]:
    """(position, palette colours) of every colour word."""
    found = []
    for i, word in enumerate(words):
        if word == "navy" and words[i + 1 : i + 2] == ["blue"]:
            continue  # counted at "blue"
        if word in _COLOR_WORDS:
            before = words[i - 1] if i else ""
            found.append((i, _SHADES.get((before, word), _COLOR_WORDS[word])))
    return found


def _demand(text: str) -> Array:
    """(3, C) how much of which colour a caption asks for in each band; each colour word adds 1 in all."""
    words = [word.strip(".,;:!?\"'()").replace("-", "") for word in text.lower().split()]
    nouns = [i for i, word in enumerate(words) if word in _REGION_OF]
    demand = np.zeros((len(BANDS), len(PALETTE)))
    bands, names = list(BANDS), list(PALETTE)
    for at, colors in _colors_of(words):
        if not nouns:
            continue
        # The nearest garment noun; at equal distance the one after the colour.
        noun = min(nouns, key=lambda i: (abs(i - at), i < at))
        for band in _REGION_OF[words[noun]]:
            for color in colors:
                demand[bands.index(band), names.index(color)] += 1 / (len(colors) * len(_REGION_OF[words[noun]]))
    return demand


def color_similarity(captions: Sequence[str], histograms: Array) -> Array:
    """Similarity (Q, G) of captions to images: the summed share of the colours asked for, where they are asked for.

    Args:
        histograms: (G, 3, C) from ``color_histogram``.
    """
    demand = np.zeros((len(captions), len(BANDS), len(PALETTE)))
    for row, text in enumerate(captions):
        demand[row] = _demand(text)
    gallery = np.asarray(histograms, dtype=np.float64).reshape(-1, len(BANDS) * len(PALETTE))
    similarity: Array = demand.reshape(-1, len(BANDS) * len(PALETTE)) @ gallery.T
    return similarity
