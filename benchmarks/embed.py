"""Images per second of the encoder against the same network in plain eager fp32 at batch 16."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from rich.table import Table

from benchmarks.timing import medians
from model import checkpoint
from model.encoder import Encoder
from model.preprocess import to_tensor

IMAGES = 64


def table() -> Table:
    path = checkpoint.default_checkpoint()
    encoder, net = Encoder(path, device="cpu"), checkpoint.load(path).net
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (384, 128, 3), dtype=np.uint8)) for _ in range(IMAGES)]
    pixels = torch.stack([to_tensor(p, encoder.preprocessing) for p in pictures])

    def eager() -> None:
        with torch.inference_mode():
            for start in range(0, IMAGES, 16):
                net.encode_image(pixels[start : start + 16])

    def decoded() -> None:
        encoder.embed_images(pictures)

    seconds = medians({"eager fp32, batch 16, tensors given": eager, "encoder, from decoded pictures": decoded})
    reference = next(iter(seconds.values()))
    out = Table("embed images, CPU", "images/s", "ratio", title=f"input {tuple(pixels.shape[2:])}")
    for name, value in seconds.items():
        out.add_row(name, f"{IMAGES / value:.1f}", f"{reference / value:.2f}")
    return out
