"""The encoder on CUDA: the vectors of the CPU, and what it says when the GPU fails. The last tests want a real GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.encoder import DeviceUnavailable, Encoder, pick_device
from model.errors import DeviceLost, ModelError
from tests.helpers import make_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    make_tiny_checkpoint(path)
    return path


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (96, 40, 3)).astype(np.uint8)) for _ in range(count)]


def patches(count: int) -> list[Image.Image]:
    """Large patches of colour: the shipped network tells these apart, as it does not tell noise apart."""
    random = np.random.default_rng(0)
    colors = random.integers(0, 256, (count, 6, 3, 3)).astype(np.uint8)
    return [Image.fromarray(one).resize((64, 192), Image.Resampling.NEAREST) for one in colors]


@pytest.mark.parametrize(
    "raised",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
    ],
)
def test_a_gpu_that_fails_is_said_to_be_lost(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    encoder = Encoder(checkpoint, "cpu")

    def fail(*_: object) -> torch.Tensor:
        raise raised

    monkeypatch.setattr(encoder._net, "encode_image", fail)
    monkeypatch.setattr(encoder._net, "encode_text", fail)
    for embed in (lambda: encoder.embed_images(pictures(1)), lambda: encoder.embed_texts(["a man"])):
        with pytest.raises(DeviceLost, match=r"CUDA error.*Start the process again") as caught:
            embed()
        assert isinstance(caught.value, ModelError) and "\n" not in str(caught.value)


@pytest.mark.parametrize("raised", [torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError("shapes differ")])
def test_what_another_batch_may_survive_is_no_lost_gpu(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    encoder = Encoder(checkpoint, "cpu")

    def fail(*_: object) -> torch.Tensor:
        raise raised

    monkeypatch.setattr(encoder._net, "encode_image", fail)
    with pytest.raises(type(raised)) as caught:
        encoder.embed_images(pictures(1))
    assert caught.value is raised


def test_cuda_never_silently_becomes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailable, match="no CUDA device"):
        pick_device("cuda")
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")


@pytest.mark.requires_cuda
def test_vectors_on_cuda_are_those_of_the_cpu(checkpoint: Path) -> None:
    cpu, cuda = Encoder(checkpoint, "cpu"), Encoder(checkpoint, "cuda", batch_size=7)
    assert cuda.device.type == "cuda"
    images, texts = pictures(60), ["a man in a red shirt", "black pants", "a woman with a white bag"]
    rows = {encoder: (encoder.embed_images(images), encoder.embed_texts(texts)) for encoder in (cpu, cuda)}
    for ours, theirs in zip(rows[cuda], rows[cpu], strict=True):
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
        assert (ours * theirs).sum(axis=1).min() >= 0.999


@pytest.mark.requires_cuda
def test_the_shipped_checkpoint_finds_the_same_first_ten_on_cuda() -> None:
    from model.checkpoint import default_checkpoint

    path = default_checkpoint()
    cpu, cuda = Encoder(path, "cpu"), Encoder(path, "cuda")
    images = patches(200)
    of_cpu, of_cuda = cpu.embed_images(images), cuda.embed_images(images)
    assert (of_cpu * of_cuda).sum(axis=1).min() >= 0.999
    # The same ten of every query, but for images about as near as the tenth: bfloat16 moves a cosine by up to 0.006
    # (measured on a CPU), and the last digits decide among those.
    close = 0.01
    for exact, found in zip(of_cpu[:20] @ of_cpu.T, of_cuda[:20] @ of_cuda.T, strict=True):
        ten, tenth = set(np.argsort(-found)[:10].tolist()), np.sort(exact)[-10]
        assert set(np.flatnonzero(exact > tenth + close).tolist()) <= ten, "one of the first ten is lost"
        assert ten <= set(np.flatnonzero(exact >= tenth - close).tolist()), "one that is none of the first ten is found"
