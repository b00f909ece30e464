"""One gallery served by one network after the other: each is registered, embeds it, answers, and is left again.

The networks are untrained and small; every answer is held to what the checkpoint's own encoder says of the images.
That trained ones find the right people is for tests/model and docs/training.md.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from indexer import worker
from model.checkpoint import save
from model.encoder import Encoder
from model.nets import build
from model.recipe import to_dict
from model.recipes import RECIPES, tiny
from tests.helpers import LOWER, UPPER
from tests.service.conftest import Json, Service, encoded, problem, running_service, wait_until

Vectors = NDArray[np.float32]

KNOWN = sorted({*UPPER, *LOWER, "a", "and", "in", "man", "pants", "shirt"})
TEXT = "a man in a green shirt and purple pants"
IMAGES = 12
TOLERANCE = 1e-4  # of a similarity: the worker reads images in larger batches
PATH = "/api/v1/checkpoints"


def pixels(number: int) -> Image.Image:
    """A figure in an outfit of its own shades."""
    rng = np.random.default_rng(number)
    upper, lower = (rng.choice(list(colours.values())) for colours in (UPPER, LOWER))
    values = rng.normal(0, 25, (64, 32, 3))
    values[:32] += upper
    values[32:] += lower
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def checkpoint(path: Path, name: str) -> Encoder:
    """An untrained network by the tiny preset of a recipe, as a file, and its encoder."""
    recipe = tiny(RECIPES[name]())
    config: Any = recipe.net_config
    if recipe.text is not None and recipe.text.kind == "words":
        config = replace(config, vocabulary_size=len(KNOWN) + 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net: Any = build(recipe.net, to_dict(replace(recipe, net_config=config))["net_config"])
        net.begin_stage(recipe.stages[-1].number)
        net.train()
        net.encode_image(torch.randn(64, 3, recipe.preprocessing.height, recipe.preprocessing.width))  # for its norms
    info = {
        "net": recipe.net,
        "net_config": config,
        "preprocessing": recipe.preprocessing,
        "text": recipe.text,
        "recipe": to_dict(recipe),
        "vocabulary": [] if recipe.text is None else KNOWN,
    }
    save(path, net, info, heads=False)
    return Encoder(path, "cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    recipes = {"axm_net": "axm_net_synth", "ssan": "ssan_synth", "mmet": "mmet_synth", "mcja": "mcja_synth"}
    found = {net: folder / f"{net}.safetensors" for net in recipes}
    for net, path in found.items():
        checkpoint(path, recipes[net])
    return found


@pytest.fixture
def gallery(files: dict[str, Path], tmp_path: Path) -> Iterator[Gallery]:
    with running_service(tmp_path, checkpoint=files["axm_net"]) as service:
        yield Gallery(service, files)


class Gallery:
    """A running service with twelve images, embedded with AXM-Net."""

    def __init__(self, service: Service, files: dict[str, Path]) -> None:
        self.service, self.files = service, files
        self.pictures = [pixels(number) for number in range(IMAGES)]
        self.numbers = {service.added(encoded(image)): n for n, image in enumerate(self.pictures)}
        self.embed()
        self.images: Vectors
        self.encoder: Encoder
        self.expect("axm_net")

    def embed(self) -> None:
        """What a worker that serves every checkpoint does, until nothing is left."""
        stop, load = threading.Event(), self.service.context.files.load
        worker.run(
            self.service.database, self.service.context.store, None, self.service.settings, stop, once=True, load=load
        )

    def expect(self, net: str) -> None:
        """From here on the answers are to be those of this network."""
        self.encoder = Encoder(self.files[net], "cpu")
        self.images = self.encoder.embed_images(self.pictures)
        replica = self.service.context.replica
        wait_until(lambda: replica.state.checkpoint_id == self.encoder.checkpoint_id, f"{net} answers")

    def act(self, net: str, action: str, status: int = 200, **body: object) -> Json:
        id = Encoder(self.files[net], "cpu").checkpoint_id
        response = self.service.http.post(f"{PATH}/{id}/{action}", json=body)
        assert response.status_code == status, response.text
        return problem(response) if status >= 400 else dict(response.json())

    def upgrade(self, net: str, **how: object) -> None:
        """Register a file, have the gallery embedded with it, and let it answer."""
        headers = {"Content-Type": "application/octet-stream"}
        response = self.service.http.post(PATH, content=self.files[net].read_bytes(), headers=headers)
        assert response.status_code == 201, response.text
        self.embed()
        assert self.act(net, "activate", **how)["state"] == "active"
        self.expect(net)

    def check(self, body: Json, query: Vectors, upload: int | None = None) -> None:
        """The whole ranking is that of the query's vector (D,) among the expected vectors of the images."""
        sent = None if upload is None else encoded(self.pictures[upload])
        answer = self.service.found({"query": body, "limit": IMAGES}, sent)
        assert answer["checkpoint_id"] == self.encoder.checkpoint_id
        similarities = self.images @ query  # (N,)
        assert np.ptp(similarities) > 20 * TOLERANCE, "a network to which all images are the same tells nothing"
        order = [self.numbers[result["image_id"]] for result in answer["results"]]
        assert sorted(order) == list(range(IMAGES))
        given = [result["similarity"] for result in answer["results"]]
        np.testing.assert_allclose(given, similarities[order], atol=TOLERANCE)
        np.testing.assert_allclose(given, np.sort(similarities)[::-1], atol=TOLERANCE)

    def check_texts_and_images(self) -> None:
        self.check({"text": TEXT}, self.encoder.embed_texts([TEXT])[0])
        self.check({}, self.images[4], upload=4)


def test_from_axm_net_to_ssan_and_back(gallery: Gallery) -> None:
    gallery.check_texts_and_images()
    gallery.upgrade("ssan")
    gallery.check_texts_and_images()
    unknown = gallery.service.found({"query": {"text": "a man in a zebra shirt"}})["unknown_words"]
    assert unknown == ["zebra"], "SSAN reads the words that its checkpoint lists"
    gallery.act("ssan", "rollback")
    gallery.expect("axm_net")
    gallery.check_texts_and_images()


def test_mmet_reads_a_text_and_an_image_together(gallery: Gallery) -> None:
    gallery.upgrade("mmet")
    gallery.check_texts_and_images()
    pair = gallery.encoder.embed_pairs([gallery.pictures[4]], [TEXT])[0]
    text, image = gallery.encoder.embed_texts([TEXT])[0], gallery.images[4]
    mixed = (text + image) / np.linalg.norm(text + image)
    assert pair @ mixed < 1 - 20 * TOLERANCE, "the fusion branch has a view of its own"
    gallery.check({"text": TEXT}, pair, upload=4)
    gallery.check({"text": TEXT, "weights": {"text": 1, "image": 1}}, mixed, upload=4)


def test_mcja_answers_images_alone(gallery: Gallery) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    content = gallery.files["mcja"].read_bytes()
    assert gallery.service.http.post(PATH, content=content, headers=headers).status_code == 201
    gallery.embed()
    refused = gallery.act("mcja", "activate", 409)
    assert refused["code"] == "gate_refused" and "cannot read text" in refused["detail"]
    gallery.act("mcja", "activate", force=True, reason="a camera that sees at night")
    gallery.expect("mcja")
    gallery.check({}, gallery.images[7], upload=7)
    assert problem(gallery.service.search({"query": {"text": TEXT}}))["code"] == "no_text_branch"
    assert gallery.service.http.get("/version").json()["has_text"] is False
    gallery.act("mcja", "rollback")
    gallery.expect("axm_net")
    gallery.check_texts_and_images()
