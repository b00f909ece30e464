"""A worker as a process of its own, with a cheap encoder that can be slow, and can be taken down by one picture.

python -m tests.flows.worker_process URL IMAGES [--busy FILE] [--seconds-per-image S] [--lease-seconds S] [...]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from PIL import Image

from indexer.database import Database, connect
from indexer.images import ImageStore
from indexer.settings import GallerySettings
from indexer.worker import run
from tests.fake_encoder import GridEncoder

POISON = (255, 0, 255)  # colour of the pixel at the top left that takes the process down, with --dies-of-poison


class ProcessEncoder(GridEncoder):
    """Takes its time for each image, and shows by a file when it is at work."""

    def __init__(self, busy: Path, seconds_per_image: float, dies_of_poison: bool) -> None:
        super().__init__()
        self.busy, self.seconds_per_image, self.dies_of_poison = busy, seconds_per_image, dies_of_poison

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        self.busy.touch()
        time.sleep(self.seconds_per_image * len(images))
        if self.dies_of_poison and any(image.getpixel((0, 0)) == POISON for image in images):
            os._exit(9)
        vectors = super().embed_images(images)
        self.busy.unlink()
        return vectors


class FragileStore(ImageStore):
    """Its decoder takes the process down at a poisonous picture, as a broken image library does."""

    def open(self, sha256: str) -> Image.Image:
        image = super().open(sha256)
        if image.getpixel((0, 0)) == POISON:
            os.kill(os.getpid(), signal.SIGSEGV)
        return image


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("images", type=Path)
    parser.add_argument("--busy", type=Path, required=True)
    parser.add_argument("--seconds-per-image", type=float, default=0.0)
    parser.add_argument("--lease-seconds", type=float, default=2.0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dies-of-poison", action="store_true")
    parser.add_argument("--decoder-dies-of-poison", action="store_true")
    given = parser.parse_args()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = GallerySettings(lease_seconds=given.lease_seconds, batch_size=given.batch_size, poll_seconds=0.05)
    encoder = ProcessEncoder(given.busy, given.seconds_per_image, given.dies_of_poison)
    store = (FragileStore if given.decoder_dies_of_poison else ImageStore)(given.images)
    run(Database(connect(given.url), given.url), store, encoder, settings, stop)


if __name__ == "__main__":
    main()
