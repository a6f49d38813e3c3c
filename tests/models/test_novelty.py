"""The novelty score itself: the share of known distances that are smaller, whatever is asked."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from spectralmamba.models.novelty import LEVELS, NoveltyScore


@pytest.fixture
def score() -> NoveltyScore:
    """A score of four bands and three classes with distances that grow ever faster."""
    random = torch.Generator().manual_seed(0)
    score = NoveltyScore(4, 3)
    score.projection.copy_(torch.randn(4, 4, generator=random))
    score.means.copy_(torch.randn(3, 4, generator=random) @ score.projection)
    score.levels.copy_(torch.linspace(0, 4, LEVELS) ** 3)
    return score


def spectra(count: int, seed: int = 1) -> Tensor:
    return 2 * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_share_of_distances_that_are_smaller(score: NoveltyScore):
    x, projection, means, levels = (
        tensor.double().numpy() for tensor in (spectra(200), score.projection, score.means, score.levels)
    )
    distances = ((x @ projection)[:, None] - means) ** 2
    nearest = distances.sum(2).min(1)
    shares = np.minimum((levels < nearest[:, None]).sum(1), LEVELS - 1) / (LEVELS - 1)
    assert len(np.unique(shares)) > 50
    found = score(spectra(200))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), shares, rtol=0, atol=1.5 / (LEVELS - 1))  # float32 may miss by one level


def test_it_grows_with_the_distance_from_the_nearest_class(score: NoveltyScore):
    found, distances = score(spectra(500)), score.distances(spectra(500))
    ordered = found[distances.argsort()]
    assert (ordered.diff() >= 0).all()
    assert len(torch.unique(found)) > 50


@pytest.mark.parametrize("factor", [0, 1e-6, 1, 1e3, 1e6, 1e15])
def test_it_lies_between_0_and_1_however_far_a_spectrum_is(score: NoveltyScore, factor: float):
    found = score(factor * spectra(100))
    assert ((found >= 0) & (found <= 1)).all()
    if factor >= 1e3:
        assert (found == 1).all()


def test_a_class_mean_is_not_novel_at_all(score: NoveltyScore):
    means = torch.linalg.solve(score.projection.T.double(), score.means.T.double()).T.float()
    assert (score(means) <= 0.01).all()  # a distance of 0 but for float32's rounding, which levels near 0 show


def test_what_is_as_far_as_all_known_or_farther_is_wholly_novel(score: NoveltyScore):
    (far,) = score.distances(spectra(1))
    score.levels.copy_(torch.linspace(0, 1, LEVELS) * far)
    assert score(spectra(1)).item() == 1
    score.levels.copy_(torch.linspace(0, 1, LEVELS) * far * 0.99)
    assert score(spectra(1)).item() == 1


def test_of_a_patch_the_mean_spectrum_counts(score: NoveltyScore):
    patches = spectra(8 * 9).reshape(8, 3, 3, 4).permute(0, 3, 1, 2)
    torch.testing.assert_close(score.distances(patches.mean((2, 3))), score.distances(patches.flatten(2).mean(2)))
    assert torch.equal(score(patches), score(patches.mean((2, 3))))


def test_no_pixels_have_no_scores(score: NoveltyScore):
    assert score(torch.zeros(0, 4)).shape == (0,)


def test_it_learns_nothing_by_gradients_and_moves_with_its_tensors(score: NoveltyScore):
    assert not list(score.parameters())
    shapes = {name: tuple(tensor.shape) for name, tensor in score.state_dict().items()}
    assert shapes == {"projection": (4, 4), "means": (3, 4), "levels": (LEVELS,)}


def test_where_nothing_differs_scores_are_numbers():
    score = NoveltyScore(3, 2)
    score.projection.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score(torch.ones(5, 3)).tolist() == [0] * 5
