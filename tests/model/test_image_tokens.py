"""What hidden patches are named: pixels by hand, k-means against a loop, the dVAE against transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.image_tokens import DVAE, PatchCodebook, normalized_pixels, patch_pixels

GRID = (3, 2)


def make_images(count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 24, 16, generator=torch.Generator().manual_seed(seed))


def test_patches_are_cut_row_by_row_and_normalised_one_by_one() -> None:
    images = make_images()
    cut, normal = patch_pixels(images, GRID), normalized_pixels(images, GRID)
    assert cut.shape == (4, 6, 3 * 8 * 8)
    for n in range(4):
        for row in range(3):
            for column in range(2):
                patch = images[n, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].numpy()
                assert np.array_equal(cut[n, 2 * row + column].numpy(), patch.ravel())
                expected = (patch.ravel() - patch.mean()) / np.sqrt(patch.var() + 1e-6)
                np.testing.assert_allclose(normal[n, 2 * row + column].numpy(), expected, atol=1e-5)


def test_centres_are_the_means_of_all_patches_they_ever_won() -> None:
    torch.manual_seed(0)
    codebook = PatchCodebook(5)
    won: list[list[np.ndarray]] = [[] for _ in range(5)]
    start: np.ndarray | None = None
    for step in range(4):
        images = make_images(seed=step)
        patches = np.array(
            [
                [
                    image[:, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8].reshape(3, 4, 2, 4, 2).mean(axis=(2, 4)).ravel()
                    for r in range(3)
                    for c in range(2)
                ]
                for image in images.numpy()
            ]
        ).reshape(-1, 48)
        if start is None:
            state = torch.get_rng_state()
            start = patches[torch.randint(len(patches), (5,)).numpy()]
            torch.set_rng_state(state)
        centres = np.array([np.mean(w, axis=0) if w else start[k] for k, w in enumerate(won)])
        codebook.learn(images, GRID)
        for patch in patches:
            won[int(np.argmin([((patch - centre) ** 2).sum() for centre in centres]))].append(patch)
        expected = np.array([np.mean(w, axis=0) if w else start[k] for k, w in enumerate(won)])
        np.testing.assert_allclose(codebook.centres.numpy(), expected, atol=1e-5)
        assert codebook.counts.tolist() == [len(w) for w in won]

    codes = codebook.codes(images, GRID)
    assert codes.shape == (4, 6) and codes.dtype == torch.int64
    distances = ((patches[:, None] - expected[None]) ** 2).sum(axis=2)
    assert codes.flatten().tolist() == distances.argmin(axis=1).tolist()


def test_the_dvae_of_a_folder_names_patches_as_transformers_does(tmp_path: Path) -> None:
    from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

    torch.manual_seed(0)
    theirs = FlavaImageCodebook(FlavaImageCodebookConfig(hidden_size=4, num_blocks_per_group=1, vocab_size=16)).eval()
    theirs.save_pretrained(tmp_path)
    plain = torch.rand(2, 3, 24, 16)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    normal = (plain - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    dvae = DVAE(tmp_path, mean, std)
    codes = dvae.codes(normal, GRID)  # 8 pixels to a code: the images are not resized
    assert codes.shape == (2, 6) and len(codes.unique()) > 1
    assert torch.equal(codes, theirs.get_codebook_indices(0.8 * plain + 0.1).flatten(1))
    assert dvae.codes(torch.randn(2, 3, 48, 32), GRID).shape == (2, 6)
    with pytest.raises(ValueError, match=r"There is no image codebook in .*kmeans or pixels, which need none"):
        DVAE(tmp_path / "nothing", mean, std)
