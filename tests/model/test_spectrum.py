"""What happens to the colours of visible images: each operation by hand, how often it happens, and to whom."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from model.batching import Augmentation, augment_images
from model.recipes_mcja import PUBLISHED
from model.spectrum import (
    Spectrum,
    augment_spectrum,
    cross_channel_cutmix,
    draw_rectangle,
    shift_hue,
    spectrum_jitter,
    weighted_grayscale,
)


def make_pixels(*size: int) -> Tensor:
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_operations_equal_a_loop_over_pixels() -> None:
    image = make_pixels(3, 6, 4)
    weights = np.array([0.5, 0.3, 0.2])
    gray, cut = weighted_grayscale(image, weights), cross_channel_cutmix(image, 1, 2, (2, 1, 3, 2))
    jittered = spectrum_jitter(image, 2, 0.25)
    for row in range(6):
        for column in range(4):
            pixel = image[:, row, column].tolist()
            inside = 2 <= row < 5 and 1 <= column < 3
            weighted = sum(w * value for w, value in zip(weights, pixel, strict=True))
            for channel in range(3):
                assert int(gray[channel, row, column]) == pytest.approx(weighted - 0.5, abs=0.501)  # rounded down
                assert cut[channel, row, column] == pixel[2 if inside else 1]
                assert int(jittered[channel, row, column]) == int(0.25 * pixel[channel] + 0.75 * pixel[2])
    assert torch.equal(spectrum_jitter(image, 0, 1.0), image)
    assert torch.equal(spectrum_jitter(image, 0, 0.0), image[:1].expand(3, 6, 4))
    assert torch.equal(cross_channel_cutmix(image, 0, 1, (0, 0, 0, 0)), image[:1].expand(3, 6, 4))


def test_hue_turns_and_nothing_else_changes() -> None:
    image = torch.tensor([[[200, 90]], [[30, 90]], [[30, 90]]], dtype=torch.uint8)  # a red and a gray pixel
    turned = shift_hue(image, 1 / 3)
    assert turned[:, 0, 1].tolist() == [90, 90, 90]
    red, green, blue = (value / 255 for value in turned[:, 0, 0].tolist())
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    assert hue == pytest.approx(1 / 3, abs=0.01)
    assert (saturation, value) == (pytest.approx(170 / 200, abs=0.01), pytest.approx(200 / 255, abs=0.01))
    back = shift_hue(shift_hue(image, 0.2), -0.2)
    assert (back.int() - image.int()).abs().max() <= 4


def covered(s: Spectrum, draws: int = 4000) -> tuple[np.ndarray, int]:
    """Share of a 384 x 192 image under each patch, and the lowest row that any reaches."""
    rng, shares, lowest = np.random.default_rng(0), [], 0
    for _ in range(draws):
        rectangle = draw_rectangle(384, 192, s, rng)
        assert rectangle is not None
        top, left, height, width = rectangle
        tall, wide = max(min(384, top + height) - top, 0), max(min(192, left + width) - left, 0)
        shares.append(tall * wide / (384 * 192))
        lowest = max(lowest, top + tall if wide else 0)
    return np.array(shares), lowest


def test_patches_cover_the_image_and_those_of_the_published_code_do_not() -> None:
    shares, lowest = covered(Spectrum())
    assert shares.min() >= 0.018 and shares.max() <= 0.34
    assert shares.mean() == pytest.approx(0.164, abs=0.005) and lowest == 384
    swapped, lowest = covered(Spectrum(swap_axes=True))
    assert (swapped == 0).mean() == pytest.approx(0.26, abs=0.02)
    assert swapped.mean() == pytest.approx(0.082, abs=0.005) and lowest == 192


@pytest.mark.parametrize("operation", ["hue", "grayscale", "cutmix", "jitter"])
def test_half_of_the_visible_images_change_and_no_infrared_one(operation: str) -> None:
    pixels, visible = make_pixels(1, 3, 32, 16).expand(400, 3, 32, 16), torch.arange(400) % 4 > 0
    s = Spectrum(operations=(operation,))  # type: ignore[arg-type]
    out = augment_spectrum(pixels, visible, s, np.random.default_rng(0))
    changed = (out != pixels).flatten(1).any(dim=1)
    assert not changed[~visible].any()
    assert float(changed[visible].float().mean()) == pytest.approx(0.5, abs=0.1)
    assert torch.equal(out, augment_spectrum(pixels, visible, s, np.random.default_rng(0)))
    gray = (out[changed][:, 0] == out[changed][:, 1]).flatten(1).all(dim=1)
    assert gray.all() if operation in ("grayscale", "cutmix") else not gray.any()


def test_each_operation_has_an_equal_part() -> None:
    image = make_pixels(3, 16, 8)
    image[:, 0, 0] = torch.tensor([255, 0, 0])
    pixels = image.expand(2000, 3, 16, 8)
    out = augment_spectrum(pixels, torch.ones(2000, dtype=torch.bool), Spectrum(), np.random.default_rng(1))
    changed = (out != pixels).flatten(1).any(dim=1)
    gray = (out[:, 0] == out[:, 1]).flatten(1).all(dim=1)
    assert float(changed.float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float(gray.float().mean()) == pytest.approx(0.25, abs=0.03)


def test_infrared_images_are_flipped_cropped_and_erased_like_visible_ones() -> None:
    a = replace(PUBLISHED, spectrum=None)
    assert (a.flip, a.crop, a.erase, a.erase_area) == (0.5, 10, 0.5, (0.02, 0.3))
    pixels = make_pixels(40, 3, 40, 24)
    modalities = torch.arange(40) % 2
    plain = augment_images(pixels, a, np.random.default_rng(3))
    assert torch.equal(plain, augment_images(pixels, a, np.random.default_rng(3), modalities))
    colored = augment_images(pixels, PUBLISHED, np.random.default_rng(3), torch.ones(40))
    assert torch.equal(colored, plain)  # no visible image draws anything


def test_a_crop_moves_the_image_within_a_gray_frame() -> None:
    pixels = make_pixels(60, 3, 12, 9)
    out = augment_images(pixels, Augmentation(flip=0.0, erase=0.0, crop=2), np.random.default_rng(0))
    places = set()
    for before, after in zip(pixels, out, strict=True):
        framed = torch.full((3, 16, 13), 127, dtype=torch.uint8)
        framed[:, 2:14, 2:11] = before
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(framed[:, top : top + 12, left : left + 9], after)
        ]
        assert len(found) == 1
        places |= set(found)
    assert len(places) > 15


def test_what_is_erased_takes_its_colour() -> None:
    pixels = torch.zeros(30, 3, 32, 16, dtype=torch.uint8)
    a = Augmentation(flip=0.0, erase=1.0, erase_area=(0.02, 0.3), erase_color=(124, 116, 104))
    out = augment_images(pixels, a, np.random.default_rng(0))
    for image in out:
        erased = image.bool().any(dim=0)
        assert erased.any() and not erased.all()
        assert image[:, erased].unique(dim=1).flatten().tolist() == [124, 116, 104]


def test_unknown_operations_are_refused() -> None:
    with pytest.raises(ValueError, match="operations are one or more of hue, grayscale, cutmix, jitter"):
        Spectrum(operations=("blur",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="probability must be in"):
        Spectrum(probability=2.0)
