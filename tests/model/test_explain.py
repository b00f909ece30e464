"""Explanations: the table against sums written out, phrases as a reader cuts them, and strips a person would mark."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint import default_checkpoint
from model.encoder import Encoder
from model.errors import ModelError
from model.explain import Coalition, Explanation, draw, explain, phrase_spans, shapley, strip_bounds
from model.sheets import PAPER

GALLERY = Path(__file__).parents[2] / "service" / "demo_gallery"
TEXT = "a man in a red shirt and black pants with a yellow bag"


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> Encoder:
    return Encoder(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 32, 3)).astype(np.uint8))


def phrases(text: str) -> list[str]:
    return [text[a:b] for a, b in phrase_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man in a Red Jacket and blue jeans.", ["Red Jacket", "blue jeans"]),
        ("red jacket black pants backpack", ["red jacket", "black pants backpack"]),
        ("red jacket black pants white shoes", ["red jacket", "black pants", "white shoes"]),
        ("a black and white shirt and a hat", ["black and white shirt", "hat"]),
        ("the young woman is walking, her hair is brown", ["hair", "brown"]),
        ("no bag. a green sweater jacket", ["green sweater jacket"]),
        ("he is not wearing glasses and has white running shoes", ["white running shoes"]),
        ("seen from the back with a back pack on her right side", ["back pack"]),
        ("a knee-length skirt; t-shirt, sandals", ["knee-length skirt", "t-shirt", "sandals"]),
        ("a man walking away from the camera", []),
        ("", []),
    ],
)
def test_phrases_are_runs_of_content_words(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


def naive_shapley(players: int, value: dict[Coalition, NDArray[np.float64]]) -> NDArray[np.float64]:
    gains = np.zeros((players, 3))
    count = 0
    for order in permutations(range(players)):
        count += 1
        for n, player in enumerate(order):
            gains[player] += value[frozenset(order[: n + 1])] - value[frozenset(order[:n])]
    return gains / count


@pytest.mark.parametrize("players", [1, 2, 4])
def test_gains_are_the_mean_over_all_orders(players: int) -> None:
    rng = np.random.default_rng(players)
    value = {
        frozenset(n for n in range(players) if number >> n & 1): rng.standard_normal(3) for number in range(2**players)
    }
    found = shapley(players, lambda coalitions: np.stack([value[c] for c in coalitions]))
    np.testing.assert_allclose(found, naive_shapley(players, value), atol=1e-12)


@pytest.mark.parametrize("players", [5, 9])
def test_gains_add_up_and_a_sum_gives_each_its_own(players: int) -> None:
    own = np.random.default_rng(0).standard_normal((players, 4))

    def additive(coalitions: Any) -> NDArray[np.float64]:
        return np.stack([own[sorted(kept)].sum(axis=0) for kept in coalitions])

    np.testing.assert_allclose(shapley(players, additive), own, atol=1e-12)

    def product(coalitions: Any) -> NDArray[np.float64]:
        return np.array([[float(len(kept)) ** 3] for kept in coalitions])

    np.testing.assert_allclose(shapley(players, product).sum(), players**3)


def test_the_table_is_that_of_images_and_texts_made_by_hand(encoder: Encoder, image: Image.Image) -> None:
    """Two phrases, whose average over both orders is written out; of the strips, the sum over all of them."""
    text = "a man in a red shirt and black pants"
    e = explain(encoder, image, text)
    assert e.phrases == ("red shirt", "black pants") and e.strips.shape == (2, len(e.strip_bounds))
    t = encoder.embed_texts([text, "a man in a  and black pants", "a man in a red shirt and ", "a man in a  and "])
    words = np.stack([(t[0] - t[1] + t[2] - t[3]) / 2, (t[0] - t[2] + t[1] - t[3]) / 2])
    mean = tuple(int(c) for c in np.asarray(image).mean(axis=(0, 1)).round())
    v = encoder.embed_images([image, Image.new("RGB", image.size, mean)])
    np.testing.assert_allclose(e.strips.sum(axis=1), words @ (v[0] - v[1]), atol=1e-5)
    assert e.similarity == pytest.approx(float(v[0] @ t[0]), abs=1e-6)


def test_it_depends_on_nothing_but_image_and_text(encoder: Encoder, tiny_checkpoint: Path, image: Image.Image) -> None:
    first = explain(encoder, image, TEXT)
    again = explain(Encoder(tiny_checkpoint, device="cpu", batch_size=5), image, TEXT)
    assert first.phrases == again.phrases == ("red shirt", "black pants", "yellow bag")
    np.testing.assert_allclose(first.strips, again.strips, atol=1e-6)
    assert np.abs(first.strips).max() > 1e-4


def test_strips_are_those_of_the_net() -> None:
    for height, count in ((384, 6), (224, 6), (112, 3)):
        rows = torch.arange(height // 16).tensor_split(count)
        expected = [(int(r[0]) * 16 / height, (int(r[-1]) + 1) * 16 / height) for r in rows]
        np.testing.assert_allclose(strip_bounds(height, count), expected)


def test_what_cannot_be_explained_is_a_sentence(
    encoder: Encoder, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text, sentence in (
        (" ", "no text to explain"),
        ("a man walking", "names nothing to look for"),
        ("red shirt " * 60, "longer than the net reads"),
    ):
        with pytest.raises(ModelError, match=sentence):
            explain(encoder, image, text)
    monkeypatch.setattr(encoder, "info", encoder.info | {"net_config": {}})
    with pytest.raises(ModelError, match="in strips"):
        explain(encoder, image, TEXT)
    monkeypatch.setattr(encoder, "_text", None)
    with pytest.raises(ModelError, match="no text branch"):
        explain(encoder, image, TEXT)


def test_the_best_strip_is_the_greatest_of_a_known_phrase() -> None:
    e = Explanation(("hat", "shoes"), np.array([[3.0, 1, 0], [0, 1, 2]]), strip_bounds(48, 3), 0.5)
    assert (e.best_strip("hat"), e.best_strip("shoes")) == (0, 2)
    with pytest.raises(ValueError, match="no phrase 'coat'; the phrases are hat, shoes"):
        e.best_strip("coat")


def test_the_picture_stays_inside_and_shows_every_phrase(image: Image.Image) -> None:
    rng = np.random.default_rng(1)
    few, many = (
        Explanation(
            tuple(f"a very long phrase of words number {n}" for n in range(count)),
            rng.standard_normal((count, 6)),
            strip_bounds(96, 6),
            0.5,
        )
        for count in (2, 20)
    )
    for e in (few, many):
        picture = draw(image, e)
        assert picture.width == 600
        assert picture.tobytes() == draw(image, e).tobytes()
        pixels = np.asarray(picture).copy()
        pixels[8:-8, 8:-8] = PAPER
        assert (pixels == PAPER).all()
    assert draw(image, many).height > draw(image, few).height


# Where each thing is in the image, as strips from 0 at the top, looked up by eye. The white shoes of 07735, some ten
# pixels in the dark, are not asked for: this net marks the strip above them.
PLACES: dict[str, tuple[str, dict[str, set[int]]]] = {
    "07669_0": (
        "a woman with red hair in a white top, a red skirt and white shoes",
        {"red hair": {0, 1}, "white top": {1, 2}, "red skirt": {2, 3}, "white shoes": {4, 5}},
    ),
    "07690_0": (
        "a woman with brown hair in a yellow sweater, black trousers and green sandals",
        {"brown hair": {0, 1}, "yellow sweater": {1, 2}, "black trousers": {3, 4, 5}, "green sandals": {5}},
    ),
    "07666_0": (
        "a man with black hair in a brown t-shirt, blue trousers and black shoes",
        {"black hair": {0, 1}, "brown t-shirt": {1, 2, 3}, "blue trousers": {3, 4, 5}, "black shoes": {5}},
    ),
    "07705_0": (
        "a woman with blonde hair in a maroon jacket, cream trousers and white shoes",
        {"blonde hair": {0, 1}, "maroon jacket": {1, 2, 3}, "cream trousers": {3, 4}, "white shoes": {5}},
    ),
    "07735_0": (
        "a man with a blue hat, a black vest and blue jeans",
        {"blue hat": {0}, "black vest": {1, 2}, "blue jeans": {3, 4}},
    ),
}


@pytest.fixture(scope="module")
def shipped() -> Encoder:
    return Encoder(default_checkpoint(), device="cpu")


@pytest.mark.parametrize("name", PLACES)
def test_the_shipped_net_marks_the_strip_a_person_would(shipped: Encoder, name: str) -> None:
    rows = map(json.loads, (GALLERY / "metadata.jsonl").read_text("utf-8").splitlines())
    file = next(row["file"] for row in rows if row["external_id"] == name)
    text, places = PLACES[name]
    with Image.open(GALLERY / file) as picture:
        e = explain(shipped, picture, text)
    assert set(e.phrases) == set(places)
    assert {phrase: e.best_strip(phrase) in strips for phrase, strips in places.items()} == dict.fromkeys(places, True)
