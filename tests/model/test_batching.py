"""Samplers, augmentation and caches against naive versions of themselves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import batching
from model.batching import Augmentation, augment_images, circular_shift
from model.datasets import DatasetError, Sample
from model.interface import Tokens

NONE = Augmentation(flip=0, translate=0, erase=0, brightness=0)


def pixels(batch: int = 4, height: int = 12, width: int = 8) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch, 3, height, width)).astype(np.uint8))


# --- text -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_circular_shift_equals_roll_row_by_row(length: int, shifts: list[int]) -> None:
    x = torch.arange(len(shifts) * length * 2).reshape(len(shifts), length, 2)
    found = circular_shift(x, torch.tensor(shifts))
    for row, shift in enumerate(shifts):
        assert torch.equal(found[row], torch.roll(x[row], shift, dims=0))


def test_shift_and_the_rest_of_the_circle_restore_the_input() -> None:
    x = torch.randn(5, 56, 3)
    shifts = torch.tensor([0, 1, 13, 55, 28])
    assert torch.equal(circular_shift(circular_shift(x, shifts), 56 - shifts), x)


def test_tokens_shift_together() -> None:
    ids = torch.tensor([[5, 6, 0, 0]])
    tokens = Tokens(ids, ids > 0, ids[:, :, None].float())
    moved = batching.shift_tokens(tokens, torch.tensor([3]))
    assert moved.ids.tolist() == [[6, 0, 0, 5]]
    assert moved.mask.tolist() == [[True, False, False, True]]
    assert moved.states is not None and moved.states[0, :, 0].tolist() == [6, 0, 0, 5]


@pytest.mark.parametrize("with_states", [True, False])
def test_cached_captions_equal_the_tokens_they_came_from(with_states: bool) -> None:
    texts = ["one two three", "four", "five six", "", "seven eight nine ten"]

    def tokenize(chunk: list[str]) -> Tokens:
        ids = torch.zeros(len(chunk), 6, dtype=torch.long)
        for row, text in enumerate(chunk):
            for column, word in enumerate(text.split()):
                ids[row, column] = sum(map(ord, word))
        states = ids[:, :, None].float() / torch.tensor([1.0, 4.0]) if with_states else None
        return Tokens(ids, ids > 0, states)

    done: list[int] = []
    cache = batching.cache_captions(texts, tokenize, batch=2, advance=done.append)
    assert sum(done) == len(cache) == 5
    which = [3, 0, 4, 4, 1]
    found, expected = cache.tokens(which), tokenize([texts[n] for n in which])
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.mask, expected.mask)
    if with_states:
        torch.testing.assert_close(found.states, expected.states, rtol=1e-3, atol=0)  # kept in half precision
    else:
        assert found.states is None


# --- samplers ---------------------------------------------------------------------------------------------------


def test_images_sampler_draws_every_image_once_with_a_caption_of_its_own() -> None:
    captions = [1, 2, 3, 2, 1, 5, 2, 2]
    samples, which = batching.draw_images(captions, 4, batching.generator(0, 1))
    assert samples.shape == which.shape == (2, 4)
    assert sorted(samples.ravel().tolist()) == list(range(8))
    assert all(0 <= c < captions[n] for n, c in zip(samples.ravel(), which.ravel(), strict=True))


def test_pairs_sampler_draws_every_pair_once() -> None:
    captions = [1, 2, 3]
    samples, which = batching.draw_pairs(captions, 2, batching.generator(0, 1))
    drawn = sorted(zip(samples.ravel().tolist(), which.ravel().tolist(), strict=True))
    assert drawn == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=4, max_size=40), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_identity_sampler_gives_p_people_with_k_images_each(pids: list[int], p: int, k: int, seed: int) -> None:
    people = len(set(pids))
    if people < p:
        with pytest.raises(DatasetError, match="fewer than one batch"):
            batching.draw_identities([2] * len(pids), pids, p, k, batching.generator(seed))
        return
    samples, which = batching.draw_identities([2] * len(pids), pids, p, k, batching.generator(seed))
    assert samples.shape == (people // p, p * k)
    assert set(which.ravel().tolist()) <= {0, 1}
    owned = Counter(pids)
    for batch in samples:
        of = Counter(pids[n] for n in batch)
        assert len(of) == p and set(of.values()) == {k}
        for pid in of:  # all of a person's images before any of them twice
            used = Counter(int(n) for n in batch if pids[n] == pid)
            assert len(used) == min(k, owned[pid]) and max(used.values()) - min(used.values()) <= 1
    drawn = [pids[n] for n in samples[:, ::k].ravel()]
    assert len(drawn) == len(set(drawn))  # nobody twice an epoch


def test_a_place_in_a_run_draws_the_same_again_and_another_place_does_not() -> None:
    one = batching.draw_images([2] * 64, 8, batching.generator(3, 0, 1))
    again = batching.draw_images([2] * 64, 8, batching.generator(3, 0, 1))
    other = batching.draw_images([2] * 64, 8, batching.generator(3, 0, 2))
    np.testing.assert_array_equal(one, again)
    assert (one[0] != other[0]).any()


# --- images -----------------------------------------------------------------------------------------------------


def test_nothing_asked_for_changes_nothing() -> None:
    x = pixels()
    before = x.clone()
    assert torch.equal(augment_images(x, NONE, batching.generator(0)), before)
    augment_images(x, Augmentation(flip=1, translate=0.2, erase=1, brightness=0.5), batching.generator(0))
    assert torch.equal(x, before)  # the cache is never written to


def test_flip_mirrors_and_translate_moves_without_wrapping() -> None:
    x = pixels()
    flipped = augment_images(x, Augmentation(flip=1, erase=0), batching.generator(0))
    np.testing.assert_array_equal(flipped.numpy(), x.numpy()[:, :, :, ::-1])
    moved = augment_images(x, Augmentation(flip=0, translate=0.25, erase=0), batching.generator(4)).numpy()
    gray = int(x.float().mean())
    offsets = set()
    for n in range(len(x)):
        matches = []
        for down in range(-3, 4):
            for right in range(-2, 3):
                expected = np.full((3, 12, 8), gray, np.uint8)
                for row in range(12):
                    for column in range(8):
                        if 0 <= row - down < 12 and 0 <= column - right < 8:
                            expected[:, row, column] = x[n, :, row - down, column - right].numpy()
                if (moved[n] == expected).all():
                    matches.append((down, right))
        assert len(matches) == 1
        offsets.add(matches[0])
    assert len(offsets) > 1


def test_erasing_fills_one_rectangle_within_the_area_asked_for() -> None:
    x = torch.zeros((50, 3, 40, 20), dtype=torch.uint8)
    x[:, :, ::2] = 200  # mean 100, which no pixel has
    erased = augment_images(x, Augmentation(flip=0, erase=1, erase_area=(0.1, 0.3)), batching.generator(0))
    hit = (erased == 100).all(dim=1).numpy()  # (B, H, W)
    for mask in hit:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns) > 0
        assert rows[-1] - rows[0] + 1 == len(rows) and columns[-1] - columns[0] + 1 == len(columns)
        assert mask.mean() < 0.36  # rounding adds a little
    assert 0.1 < hit.mean() < 0.3
    untouched = (erased == x).all(dim=1).numpy()
    assert (untouched | hit).all()


def test_brightness_scales_an_image_as_a_whole() -> None:
    x = torch.full((20, 3, 4, 4), 100, dtype=torch.uint8)
    bright = augment_images(x, Augmentation(flip=0, erase=0, brightness=0.3), batching.generator(0))
    values = [image.unique() for image in bright]
    assert all(len(value) == 1 and 70 <= int(value) <= 130 for value in values)
    assert len({int(value) for value in values}) > 10


def test_a_resized_crop_shows_a_part_of_the_image_at_its_full_size() -> None:
    ramp = (3 * torch.arange(64)).to(torch.uint8)
    x = ramp[None, None, :, None].expand(40, 3, 64, 32).contiguous()  # rows brighten downwards, columns are alike
    cut = augment_images(x, Augmentation(flip=0, erase=0, resized_crop=0.5), batching.generator(0)).float()
    assert cut.shape == x.shape
    heights = (cut[:, 0, 40, 16] - cut[:, 0, 24, 16]) / 16 / 3 * 64  # rows of the image that fill a crop
    assert heights.min() > 64 * (0.5 * 3 / 4) ** 0.5 - 2 and heights.max() < 64 + 1
    assert heights.std() > 3  # not all the same
    torch.testing.assert_close(cut, cut[..., :1].expand_as(cut), atol=1.0, rtol=0)
    whole = Augmentation(flip=0, erase=0, resized_crop=1.0)
    assert torch.equal(augment_images(x, whole, batching.generator(0)), x)


# --- attributes -------------------------------------------------------------------------------------------------


def person(visible: set[str] | None, **attributes: str | None) -> Sample:
    return Sample(Path("x"), 1, ("a",), attributes=attributes, visible=None if visible is None else frozenset(visible))


def test_attribute_labels_know_absence_from_not_seen() -> None:
    training = [person({"bag", "hair"}, bag="backpack", hair="long"), person({"bag"}, bag=None, hair="short")]
    classes = batching.attribute_classes(training)
    assert classes["bag"] == ("backpack", "none")
    assert classes["hair"] == ("long", "short")
    others = [person(None, bag="purse", hair="short"), Sample(Path("y"), 2, ("a",))]
    labels = batching.attribute_labels([*training, *others], classes)
    bag, hair = list(classes).index("bag"), list(classes).index("hair")
    assert labels[:, bag].tolist() == [0, 1, -1, -1]  # seen, seen to be absent, a value never trained on, no attributes
    assert labels[:, hair].tolist() == [0, -1, 1, -1]  # the second image does not show the hair
    assert batching.attribute_classes([Sample(Path("y"), 2, ("a",))]) == {}


# --- preparing ahead --------------------------------------------------------------------------------------------


def test_batches_come_in_order_whatever_the_threads() -> None:
    assert list(batching.prepared(lambda n: n * n, range(3, 40), threads=4)) == [n * n for n in range(3, 40)]


def test_an_error_in_a_batch_reaches_the_loop() -> None:
    def make(step: int) -> int:
        if step == 5:
            raise DatasetError("broken image")
        return step

    made = batching.prepared(make, range(20), threads=2)
    with pytest.raises(DatasetError, match="broken image"):
        list(made)
