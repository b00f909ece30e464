"""Images and texts in, unit vectors out: a checkpoint as the gallery and the service see it.

Always float32 on a CPU, where half precision is slow or broken on many machines; on CUDA bfloat16 autocast, channels
last, pictures copied from pinned memory and prepared while the GPU is at those before. Queueing, decoding and storing
belong to the indexer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from model.batching import shift_tokens
from model.checkpoint import load
from model.errors import DeviceLost, ModelError
from model.interface import PairNet, TextNet
from model.preprocess import Preprocessing, to_tensor
from model.text import TextInput, TextSpec, load_text

Device = Literal["auto", "cpu", "cuda"]


class Encoder:
    """Embeds with one checkpoint; may be called by several threads at once.

    A row depends on its own image or text alone, whatever else is in the call. ``info`` is the checkpoint's JSON.
    Raises CheckpointError for an unusable file, ValueError for ``cuda`` without CUDA, and from any call DeviceLost.
    """

    def __init__(self, checkpoint_path: Path | str, device: Device = "auto", batch_size: int = 32) -> None:
        self.device = pick_device(device)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
        self.batch_size = batch_size
        checkpoint = load(checkpoint_path)
        self.checkpoint_id = checkpoint.id
        self.info: dict[str, Any] = checkpoint.info
        self.dim = checkpoint.net.embedding_dim
        self.preprocessing = Preprocessing.from_dict(checkpoint.info["preprocessing"])
        self._net = checkpoint.net
        assert isinstance(self._net, nn.Module)
        with _losing_the_device():
            self._net.to(self.device)
            if self.device.type == "cuda":
                self._net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in torch's stubs
        self._text: TextInput | None = None
        known = checkpoint.info.get("vocabulary") or ()
        if isinstance(self._net, TextNet) and checkpoint.info["text"] is not None:
            self._text = load_text(TextSpec(**checkpoint.info["text"]), self.device, known)
        self._vocabulary = frozenset(known)

    @property
    def has_text(self) -> bool:
        """False for a net without a text branch: it can only compare images."""
        return self._text is not None

    @property
    def has_pairs(self) -> bool:
        """Whether the net reads an image and a text together; False where each can only be embedded alone."""
        return self._text is not None and isinstance(self._net, PairNet)

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(N, D) unit rows, one for each picture; the pictures are upright, of any size and mode."""

        def embed(chunk: Sequence[Image.Image]) -> Tensor:
            return self._net.encode_image(self._images(chunk))

        return self._rows(embed, images)

    def embed_texts(self, texts: Sequence[str], shifts: int = 0) -> NDArray[np.float32]:
        """(N, D) unit rows, one for each text. Raises ValueError for a net without a text branch.

        With ``shifts`` a row is the mean over so many evenly spaced circular shifts of the tokens, made unit again;
        nets that were trained on shifted captions read each of them a little differently.
        """
        text, net = self._text_input(), self._net
        assert isinstance(net, TextNet)

        def embed(chunk: Sequence[str]) -> Tensor:
            tokens = text(chunk)
            if shifts < 2:
                return net.encode_text(tokens)
            length = tokens.ids.shape[1]
            steps = [torch.full((len(chunk),), n * length // shifts) for n in range(shifts)]
            shifted = [net.encode_text(shift_tokens(tokens, step)) for step in steps]  # each (B, D)
            return torch.stack([F.normalize(rows.float()) for rows in shifted]).mean(0)

        return self._rows(embed, texts)

    def embed_pairs(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) unit rows, one for each picture read together with the text of the same position.

        Raises ValueError for a net that reads images and texts apart only, and where their numbers differ.
        """
        text, net = self._text_input(), self._net
        if not isinstance(net, PairNet):
            raise ValueError(
                "This checkpoint reads images and texts apart; embed each alone, or use another checkpoint."
            )
        if len(images) != len(texts):
            raise ValueError(f"There are {len(images)} images for {len(texts)} texts; every pair needs one of each.")

        def embed(chunk: Sequence[tuple[Image.Image, str]]) -> Tensor:
            pictures, words = zip(*chunk, strict=True)
            return net.encode_pair(self._images(pictures), text(words))

        return self._rows(embed, list(zip(images, texts, strict=True)))

    def unknown_words(self, text: str) -> list[str]:
        """Words of ``text`` that no training caption held, or that were too rare there for a net that reads whole
        words; each once, in order of appearance."""
        if not self._vocabulary:
            return []
        words = self._text_input().words(text)
        return [word for word in dict.fromkeys(words) if word not in self._vocabulary]

    def is_truncated(self, text: str) -> bool:
        """Whether the end of ``text`` is ignored because it is longer than the net reads."""
        return self._text_input().is_truncated(text)

    def _images(self, images: Sequence[Image.Image]) -> Tensor:
        """(B, 3, H, W) on the device, ready for the network."""
        batch = torch.stack([to_tensor(image, self.preprocessing) for image in images])
        if self.device.type == "cuda":
            batch = batch.pin_memory()  # so that it is copied while the next pictures are prepared
        return batch.to(self.device, memory_format=torch.channels_last, non_blocking=True)

    def _text_input(self) -> TextInput:
        if self._text is None:
            raise ValueError("This checkpoint has no text branch; search with an image, or use another checkpoint.")
        return self._text

    def _rows(self, embed: Callable[[Sequence[Any]], Tensor], items: Sequence[Any]) -> NDArray[np.float32]:
        if not items:
            return np.empty((0, self.dim), np.float32)
        autocast = torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")
        with _losing_the_device(), torch.inference_mode(), autocast:
            # Rounded rows are not quite unit after autocast; the index relies on unit length. Waiting for the GPU only
            # at the end leaves this thread free to prepare the next pictures.
            rows = [F.normalize(embed(chunk).float()) for chunk in _chunks(items, self.batch_size)]
            return torch.cat(rows).cpu().numpy()


@contextmanager
def _losing_the_device() -> Iterator[None]:
    """What torch raises when the GPU is gone, as DeviceLost; a batch too large for its memory is another matter."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not isinstance(error, torch.AcceleratorError) and "CUDA error" not in str(error):
            raise
        reason = str(error).strip().splitlines()[0][:200]
        raise DeviceLost(
            f"The GPU stopped working ({reason}). Start the process again; if that does not help, look at `nvidia-smi`."
        ) from error


class DeviceUnavailable(ModelError, ValueError):  # noqa: N818 - a state of the machine, not a mistake
    """CUDA was asked for and is not there; it never silently becomes the CPU."""


def pick_device(device: str) -> torch.device:
    """The torch device for "auto", "cpu" or "cuda"; ValueError for other words, DeviceUnavailable for no CUDA."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f'device is "auto", "cpu" or "cuda", not {device!r}.')
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise DeviceUnavailable(
            'device is "cuda", but this machine has no CUDA device torch can use. Use "auto" or "cpu".'
        )
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
