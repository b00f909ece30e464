"""How good a net is while it trains: its vectors of one prepared split, and what they find there.

Not for test splits: those are measured by model.evaluate, through the encoder that serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.datasets import Sample
from model.interface import TextNet
from model.preprocess import normalize
from model.retrieval import image_to_image, text_to_image
from model.retrieval_infrared import search_across
from model.training_data import Data

Array = NDArray[Any]
_BATCH = 128


def embed(net: Any, data: Data, device: torch.device) -> tuple[Array, Array | None]:
    """Unit rows of all images (G, D) and captions (Q, D), None for a net without text. Same precision as in serving."""
    net.eval()
    images, texts = [], []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for chunk in _chunks(len(data.samples)):
            pixels = normalize(data.images[chunk].to(device), data.images.preprocessing)
            images.append(net.encode_image(pixels.to(memory_format=torch.channels_last)).float().cpu().numpy())
        if isinstance(net, TextNet) and data.captions is not None:
            texts = [
                net.encode_text(data.captions.tokens(chunk).to(device)).float().cpu().numpy()
                for chunk in _chunks(len(data.captions))
            ]
    return np.concatenate(images), np.concatenate(texts) if texts else None


def validate(images: Array, texts: Array | None, samples: Sequence[Sample]) -> dict[str, float]:
    """Retrieval on validation people, in percent: text to image, and image to image under image_*.

    A net without a text branch is judged by image to image alone; where images of two modalities are known, by the
    mean of what either finds in the other.
    """
    if texts is None and (across := search_across(images, samples)):
        ways = [_scores(way) for way in across.values()]
        return {name: sum(way[name] for way in ways) / len(ways) for name in ways[0]}
    from_image = image_to_image(images, samples)
    if texts is None:
        return _scores(from_image)
    from_text = text_to_image(texts, images, samples)
    return _scores(from_text) | {f"image_{name}": from_image[name] for name in ("rank1", "mean_ap")}


def _scores(results: dict[str, Any]) -> dict[str, float]:
    return {name: results[name] for name in ("rank1", "rank5", "rank10", "mean_ap", "mean_inp")}


def _chunks(count: int) -> Iterator[Array]:
    for start in range(0, count, _BATCH):
        yield np.arange(start, min(start + _BATCH, count))
