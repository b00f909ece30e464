"""Preprocessing against plain arithmetic, and the cached training path against the serving path."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from model.batching import Images
from model.datasets import Sample
from model.preprocess import Preprocessing, normalize, to_pixels, to_tensor

SMALL = Preprocessing(height=6, width=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.5))


def picture(mode: str = "RGB", size: tuple[int, int] = (4, 6)) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_without_resizing_it_is_plain_arithmetic() -> None:
    image = picture()
    found = to_tensor(image, SMALL).numpy()
    assert found.shape == (3, 6, 4)
    for channel in range(3):
        expected = (np.asarray(image)[:, :, channel] / 255 - SMALL.mean[channel]) / SMALL.std[channel]
        np.testing.assert_allclose(found[channel], expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = picture(mode)
    assert torch.equal(to_pixels(image, SMALL), to_pixels(image.convert("RGB"), SMALL))


def test_resizing_keeps_a_flat_picture_flat() -> None:
    flat = Image.new("RGB", (37, 91), (10, 120, 250))
    found = to_pixels(flat, SMALL)
    assert found.shape == (3, 6, 4)
    assert found.flatten(1).unique(dim=1).squeeze(1).tolist() == [10, 120, 250]


def test_a_cached_training_image_equals_what_serving_computes(tmp_path) -> None:
    path = tmp_path / "a.png"
    picture(size=(20, 50)).save(path)
    with Image.open(path) as image:
        served = to_tensor(image, SMALL)
    for cache in (True, False):
        images = Images([Sample(path, 1, ("a",))], SMALL, cache=cache, threads=1)
        assert torch.equal(normalize(images[np.array([0])], SMALL)[0], served)


def test_it_survives_json() -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Preprocessing(height=0)
    with pytest.raises(ValueError, match="bilinear, bicubic"):
        Preprocessing(interpolation="nearest")
