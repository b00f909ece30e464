"""The gate: what it refuses, what it only mentions, and its figures against ones worked out by hand."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import text

from indexer import checkpoints, gallery, searches, worker
from indexer.canaries import embed_canaries
from indexer.database import Database, transaction
from indexer.gate import LabelledText, Report, _shared, judge, rank1_across_cameras
from indexer.images import ImageStore
from indexer.intake import ingest_one
from indexer.metadata import ItemMetadata
from indexer.settings import GallerySettings
from indexer.tables import new_id
from tests.fake_encoder import GridEncoder

OLD, NEW = GridEncoder(48), GridEncoder(96)


class Scrambled(GridEncoder):
    """Rankings that have nothing to do with what the pictures look like."""

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        rows = [np.random.default_rng(list(image.resize((2, 2)).tobytes())).normal(size=self.dim) for image in images]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def picture(person: int, shade: int) -> bytes:
    """Blocks of a person's colours, a little lighter or darker."""
    blocks = np.random.default_rng(person).integers(20, 230, (8, 2, 3)) + shade
    buffer = io.BytesIO()
    Image.fromarray(blocks.astype(np.uint8)).resize((16, 64), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def register(database: Database, encoder: GridEncoder) -> None:
    canaries = embed_canaries(encoder)
    checkpoints.register(database.engine, encoder.checkpoint_id, "grid", encoder.dim, {}, "", canaries)


def fill(database: Database, store: ImageStore, encoders: Sequence[GridEncoder], people: int, labelled: bool) -> None:
    """Two images of each person, by two cameras, embedded with all encoders."""
    for encoder in encoders:
        register(database, encoder)
    with transaction(database.engine) as session:
        for camera in ("north", "south"):
            gallery.add_camera(session, camera)
    for person in range(people):
        for shade, camera in enumerate(("north", "south")):
            known = ItemMetadata(camera_id=camera, identity=f"p{person}" if labelled else None)
            ingest_one(database, store, picture(person, shade), known)
    for encoder in encoders:
        embed(database, store, encoder)


def embed(database: Database, store: ImageStore, encoder: GridEncoder) -> None:
    worker.run(database, store, encoder, GallerySettings(), threading.Event(), once=True)


def asked(database: Database, *texts: str) -> None:
    nothing = searches.Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
    with transaction(database.engine) as session:
        for one in texts:
            request = {"asked": {"query": {"text": one}}}
            searches.save(session, new_id(), request, OLD.checkpoint_id, nothing)


def judged(database: Database, new: GridEncoder = NEW, **given: Any) -> Report:
    settings = GallerySettings(overlap_warning=0.5, rank1_drop=0.02)
    return judge(database, new, OLD, settings, **given)


def test_a_candidate_that_ranks_alike_passes_and_the_figures_are_told(database: Database, store: ImageStore) -> None:
    fill(database, store, [OLD, NEW], people=20, labelled=True)
    asked(database, "a man in red", "a woman", "a man in red")
    report = judged(database)
    assert report.passed and not report.missing
    assert report.canaries == pytest.approx({"image": 1.0, "text": 1.0})
    assert report.overlap["text"].queries == 2, "each text once"
    assert report.overlap["image"].queries == 40 and report.overlap["image"].mean > 0.6
    assert (report.rank1["image"].queries, report.rank1["image"].active) == (40, 1.0)
    assert "red" not in str(report.as_json()), "what was searched for is not kept"


def test_overlap_is_that_of_the_naive_rankings(database: Database, store: ImageStore) -> None:
    fill(database, store, [OLD, NEW], people=15, labelled=False)
    pictures = [picture(person, shade) for person in range(15) for shade in range(2)]
    images = [Image.open(io.BytesIO(data)) for data in pictures]
    tops = []
    for encoder in (OLD, NEW):
        vectors = encoder.embed_images(images)
        similarities = vectors @ vectors.T
        np.fill_diagonal(similarities, -np.inf)
        tops.append([set(row[:10]) for row in np.argsort(-similarities, axis=1, kind="stable").tolist()])
    shares = [len(old & new) / 10 for old, new in zip(*tops, strict=True)]
    overlap = judged(database).overlap["image"]
    assert overlap.mean == pytest.approx(np.mean(shares), abs=1e-3)
    assert overlap.lowest == pytest.approx(min(shares))


def test_shared_of_short_rankings() -> None:
    assert _shared(np.array([1, 2, 3]), np.array([3, 2, 1])) == 1
    assert _shared(np.array([1, 2, -1]), np.array([2, 4, 5])) == 0.5
    assert _shared(np.array([-1, -1]), np.array([-1, -1])) == 0


def test_missing_images_are_refused_unless_allowed_and_listed_with_their_reason(
    database: Database, store: ImageStore
) -> None:
    fill(database, store, [OLD, NEW], people=3, labelled=False)
    with transaction(database.engine) as session:
        session.execute(
            text("""
                UPDATE embedding SET state = 'failed', error = 'It is broken.', vector = NULL, seq = NULL
                WHERE checkpoint_id = :id AND image_row = (SELECT min(row) FROM image)"""),
            {"id": NEW.checkpoint_id},
        )
    report = judged(database)
    assert not report.passed and "1 images that are found now" in report.refusals[0]
    assert [one.error for one in report.missing_images] == ["It is broken."]
    allowed = judged(database, allow_missing=1)
    assert allowed.passed and "as was allowed" in allowed.warnings[0] and "image" in allowed.overlap


def test_an_encoder_that_changed_since_it_was_registered_is_refused(database: Database, store: ImageStore) -> None:
    fill(database, store, [OLD, NEW], people=2, labelled=False)
    report = judged(database, Scrambled(96))
    assert report.refusals == ["The known image does not become the vector it was when the checkpoint was registered."]


def test_other_rankings_are_warned_of_and_worse_ones_on_labelled_images_refused(
    database: Database, store: ImageStore
) -> None:
    scrambled = Scrambled(96)
    fill(database, store, [OLD, scrambled], people=20, labelled=True)
    report = judged(database, scrambled)
    assert any("Searches by image will look different" in warning for warning in report.warnings)
    (refusal,) = report.refusals
    assert refusal.startswith("Rank-1 by image on 40 labelled queries falls from 100.0%")


def test_a_few_labelled_queries_prove_nothing(database: Database, store: ImageStore) -> None:
    scrambled = Scrambled(96)
    fill(database, store, [OLD, scrambled], people=4, labelled=True)
    report = judged(database, scrambled)
    assert report.rank1["image"].queries == 8 and report.passed


def test_labelled_texts_are_measured_and_unknown_people_are_named(database: Database, store: ImageStore) -> None:
    fill(database, store, [OLD, NEW], people=4, labelled=True)
    texts = [LabelledText("a man", "p1"), LabelledText("a woman", "p2"), LabelledText("a man", "nobody")]
    report = judged(database, labelled_texts=texts)
    assert report.rank1["text"].queries == 2
    assert any(warning.startswith("1 labelled texts were not used") for warning in report.warnings)


def test_a_candidate_without_text_is_refused_where_text_is_searched(database: Database, store: ImageStore) -> None:
    mute = GridEncoder(96)
    mute.has_text = False
    fill(database, store, [OLD, mute], people=2, labelled=False)
    assert "cannot read text" in judged(database, mute).refusals[0]


def test_rank1_leaves_out_the_same_person_by_the_same_camera() -> None:
    vectors = np.array([[1, 0], [0.99, 0.1], [0.8, 0.6], [0.9, 0.4]], np.float32)
    identities, cameras = np.array(["a", "a", "a", "b"]), np.array(["1", "1", "2", "2"])
    # Of image 0, image 1 does not count (same camera), and 3 is nearer than 2: wrong. Of 2, it is 3 as well.
    assert rank1_across_cameras(vectors, identities, cameras, np.array([0, 2])) == 0
    closer = np.array([[1, 0], [0.99, 0.1], [0.95, 0.3], [0.9, 0.4]], np.float32)
    assert rank1_across_cameras(closer, identities, cameras, np.array([0])) == 1
