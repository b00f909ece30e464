"""Bands of similarity, against a hand-worked case, a library's isotonic regression, and data of known chances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.calibration import UNREACHABLE, bands, monotone_fit, thresholds
from model.datasets import Sample


def test_a_case_worked_by_hand() -> None:
    # 0.9 right, 0.8 wrong, 0.7 right, 0.6 wrong, 0.5 wrong: 0.7 and 0.8 are pooled to one half.
    similarity, right = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    values, fitted = monotone_fit(similarity, right)
    assert values.tolist() == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert fitted.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0]
    assert thresholds(similarity, right) == {"strong": 0.7, "possible": 0.7}


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=60))
def test_the_fit_equals_a_library(results: list[tuple[int, bool]]) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    similarity = np.array([s / 5 for s, _ in results])
    right = np.array([float(r) for _, r in results])
    values, fitted = monotone_fit(similarity, right)
    weights = np.array([(similarity == v).sum() for v in values])
    means = np.array([right[similarity == v].mean() for v in values])
    np.testing.assert_allclose(fitted, optimize.isotonic_regression(means, weights=weights).x, atol=1e-12)


def test_a_band_that_was_never_earned_cannot_be_reached() -> None:
    assert thresholds(np.array([0.2, 0.9]), np.array([0.0, 0.0])) == {"strong": UNREACHABLE, "possible": UNREACHABLE}


def test_known_chances_are_found() -> None:
    rng = np.random.default_rng(0)
    similarity = rng.uniform(0, 1, 200_000)
    right = rng.uniform(0, 1, len(similarity)) < similarity**2  # one half at 0.707, a tenth at 0.316
    found = thresholds(similarity, right.astype(float))
    assert found["strong"] == pytest.approx(0.707, abs=0.03)
    assert found["possible"] == pytest.approx(0.316, abs=0.03)


def test_a_query_never_sees_its_own_image() -> None:
    # Two people, each once in cameras a and b; captions equal the images. The other camera's image is orthogonal.
    samples = [Sample(Path("x"), pid, ("caption",), camera, None, None, None) for pid in (1, 2) for camera in "ab"]
    images = np.eye(4, dtype=np.float32)
    found = bands(images, images, samples)
    assert set(found) == {"text", "image", "text+image"}
    assert found["text"]["strong"] == 1.0  # the caption's own image stays in the gallery
    assert found["image"]["strong"] == UNREACHABLE  # nothing but strangers and equals at similarity 0
