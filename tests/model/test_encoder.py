"""The encoder gives unit rows that depend on their own input alone, from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.checkpoint import load, save
from model.encoder import Encoder, pick_device
from model.preprocess import Preprocessing, to_tensor
from model.text import TextSpec, load_text

TEXTS = [
    "A woman in a red shirt",
    "black pants",
    "a man with a black bag and white shirt, blue pants and a red bag walking away",
    "person",
]


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> Encoder:
    return Encoder(tiny_checkpoint, device="cpu", batch_size=3)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(32, 64), (20, 90), (128, 128), (33, 65), (1, 1), (64, 200), (32, 64)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3)).astype(np.uint8)) for w, h in sizes]


def test_rows_are_unit_float32(encoder: Encoder, images: list[Image.Image]) -> None:
    for rows, count in ((encoder.embed_images(images), 7), (encoder.embed_texts(TEXTS), 4)):
        assert rows.shape == (count, encoder.dim) and rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert encoder.has_text and encoder.dim == 64 and encoder.info["net"] == "axm_net"


def test_nothing_in_gives_nothing_out(encoder: Encoder) -> None:
    assert encoder.embed_images([]).shape == encoder.embed_texts([]).shape == (0, 64)


def test_a_row_depends_on_its_own_input_alone(encoder: Encoder, images: list[Image.Image]) -> None:
    together, texts = encoder.embed_images(images), encoder.embed_texts(TEXTS)
    for n, image in enumerate(images):
        np.testing.assert_allclose(encoder.embed_images([image])[0], together[n], atol=1e-6)
    for n, text in enumerate(TEXTS):
        np.testing.assert_allclose(encoder.embed_texts([text])[0], texts[n], atol=1e-6)
    np.testing.assert_allclose(encoder.embed_images(images[::-1])[::-1], together, atol=1e-6)


def test_it_is_the_net_of_the_checkpoint(encoder: Encoder, tiny_checkpoint: Path, images: list[Image.Image]) -> None:
    loaded = load(tiny_checkpoint)
    assert encoder.checkpoint_id == loaded.id
    preprocessing = Preprocessing.from_dict(loaded.info["preprocessing"])
    with torch.inference_mode():
        direct = loaded.net.encode_image(torch.stack([to_tensor(image, preprocessing) for image in images]))
        tokens = load_text(TextSpec(**loaded.info["text"]))(TEXTS)
        text = loaded.net.encode_text(tokens)  # type: ignore[attr-defined]
    np.testing.assert_allclose(encoder.embed_images(images), direct.numpy(), atol=1e-6)
    np.testing.assert_allclose(encoder.embed_texts(TEXTS), text.numpy(), atol=1e-6)


def test_threads_do_not_disturb_each_other(encoder: Encoder, images: list[Image.Image]) -> None:
    expected_images, expected_texts = encoder.embed_images(images), encoder.embed_texts(TEXTS)

    def work(n: int) -> bool:
        if n % 2:
            return np.allclose(encoder.embed_images(images), expected_images, atol=1e-6)
        return np.allclose(encoder.embed_texts(TEXTS), expected_texts, atol=1e-6)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(32)))


def test_unknown_words_are_those_never_trained_on(encoder: Encoder) -> None:
    assert encoder.unknown_words("A Woman in a red SHIRT, with a xylophone. Xylophone!") == ["in", "with", "xylophone"]
    assert encoder.unknown_words("red shirt") == []


def test_without_a_vocabulary_no_word_is_called_unknown(tmp_path: Path, tiny_checkpoint: Path) -> None:
    loaded = load(tiny_checkpoint)
    save(tmp_path / "a.safetensors", loaded.net, {**loaded.info, "vocabulary": None})
    assert Encoder(tmp_path / "a.safetensors", "cpu").unknown_words("zyx") == []


def test_long_texts_are_noticed(encoder: Encoder) -> None:
    assert not encoder.is_truncated("a red shirt")
    assert encoder.is_truncated("a red shirt " * 50)


def test_a_checkpoint_without_text_compares_images_only(
    tmp_path: Path, tiny_checkpoint: Path, images: list[Image.Image]
) -> None:
    loaded = load(tiny_checkpoint)
    save(tmp_path / "a.safetensors", loaded.net, {**loaded.info, "text": None})
    mute = Encoder(tmp_path / "a.safetensors", "cpu")
    assert not mute.has_text
    assert mute.embed_images(images[:1]).shape == (1, 64)
    with pytest.raises(ValueError, match="no text branch; search with an image"):
        mute.embed_texts(["a man"])


def test_devices_that_cannot_be_had_are_refused(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        Encoder(tiny_checkpoint, device="cuda")
    with pytest.raises(ValueError, match="not 'tpu'"):
        pick_device("tpu")
    with pytest.raises(ValueError, match="at least 1"):
        Encoder(tiny_checkpoint, device="cpu", batch_size=0)
    assert pick_device("auto").type == "cpu"
