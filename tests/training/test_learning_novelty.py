"""What is learned of novelty: how unlike all classes a pixel is, from the training side alone."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.linalg import eigh
from sklearn.metrics import roc_auc_score
from training_example import TRAINING_COLUMNS, Data, same_tensors

from spectralmamba import Settings, Split, fit, simulate_scene, split_disjoint, split_random
from spectralmamba.models.novelty import LEVELS, NoveltyScore
from spectralmamba.pixels import Pixels, patch_means
from spectralmamba.training import discriminant
from spectralmamba.training.discriminant import discriminate, learn_novelty
from spectralmamba.training.task import Task, prepare

HALF = 30  # as the documentation has it


def task_of(scene: xr.DataArray, labels: xr.DataArray, split: Split | None, settings: Settings) -> Task:
    pixels = Pixels.from_scene(scene, np.flatnonzero(scene["good"].values))
    return prepare(pixels, labels, {0: split}, settings)[0]


def scores_of(score: NoveltyScore, task: Task, settings: Settings, where: np.ndarray | None = None) -> np.ndarray:
    """Novelty of the pixels under a mask, of the training side without one."""
    pixels = task.normalised.pixels
    positions = task.training_side if where is None else pixels.at(where)
    return score(patch_means(pixels, positions, settings.patch)).numpy()


@pytest.fixture(scope="module")
def larger() -> tuple[xr.DataArray, xr.DataArray]:
    """A scene of 20 bands, 32 × 32 pixels and four classes."""
    return simulate_scene(rows=32, columns=32, bands=20, classes=4)


# What it says ------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 3])
def test_a_tenth_of_the_training_side_lies_in_each_tenth_of_the_scores(larger: Any, patch: int):
    scene, labels = larger
    settings = Settings(patch=patch)
    task = task_of(scene, labels, split_random(labels, per_class=5, patch=patch), settings)
    found = scores_of(learn_novelty(task, settings), task, settings)
    counts = np.bincount(np.minimum((10 * found).astype(int), 9), minlength=10)
    # A pixel on each border, and scores in steps of a thousandth of some thousand pixels: two pixels either way.
    np.testing.assert_allclose(counts, len(found) / 10, rtol=0, atol=3)
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize("left_out", [1, 2, 3, 4])
def test_a_class_that_no_label_knows_is_more_novel_than_the_classes_that_are_known(larger: Any, left_out: int):
    scene, labels = larger
    kept = labels.where(labels != left_out, 0).astype(labels.dtype)
    settings, split = Settings(patch=3), split_random(kept, per_class=5, patch=3)
    task = task_of(scene, kept, split, settings)
    asked = (labels.values > 0) & ~split.train
    pixels = task.normalised.pixels
    positions = pixels.at(asked)
    unknown = labels.values[pixels.rows[positions], pixels.columns[positions]] == left_out
    found = roc_auc_score(unknown, scores_of(learn_novelty(task, settings), task, settings, asked))
    doubt = 1 - discriminate(task, task.positions, task.targets, positions, settings.patch).max(1)
    assert found > 0.9
    assert found > roc_auc_score(unknown, doubt) + 0.1


def clouds(centres: list[tuple[float, float]], count: int, bands: int = 6) -> xr.DataArray:
    """A scene with a row of `count` pixels about each centre in its first two bands, unit noise in all."""
    scene = simulate_scene(rows=8, columns=count, bands=bands, classes=2)[0][:, : len(centres)]
    values = np.random.default_rng(0).normal(size=scene.shape).astype(np.float32)
    values[:2] += np.array(centres, np.float32).T[:, :, None]
    scene["good"].values[:] = True
    return scene.copy(data=values)


def test_a_third_gaussian_is_novel_where_doubt_between_two_would_not_tell():
    scene = clouds([(0, 0), (8, 0), (16, 0)], 100)  # on the far side of the second class
    labels = xr.DataArray(np.zeros((3, 100), np.uint8), dims=("y", "x"))
    labels.values[0, :20], labels.values[1, :20] = 1, 2
    settings = Settings(patch=1)
    task = task_of(scene, labels, None, settings)
    unknown = np.repeat([False, False, True], 100)
    found = roc_auc_score(unknown, scores_of(learn_novelty(task, settings), task, settings))
    everything = torch.arange(300)
    doubt = 1 - discriminate(task, task.positions, task.targets, everything, 1).max(1)
    assert found > 0.99  # eight standard deviations apart
    assert roc_auc_score(unknown, doubt) < 0.5


def plain_means(task: Task, patch: int) -> np.ndarray:
    """Mean spectra of all pixels' patches, a missing neighbour replaced by the centre, pixel by pixel."""
    pixels = task.normalised.pixels
    values, grid = pixels.values.double().numpy(), pixels.grid.numpy()
    reach, means = patch // 2, []
    for row, column in zip(pixels.rows.tolist(), pixels.columns.tolist(), strict=True):
        summands = []
        for i in range(row - reach, row + reach + 1):
            for j in range(column - reach, column + reach + 1):
                inside = 0 <= i < grid.shape[0] and 0 <= j < grid.shape[1] and grid[i, j] >= 0
                summands.append(values[grid[i, j] if inside else grid[row, column]])
        means.append(np.mean(summands, 0))
    return np.array(means)


def plain_novelty(task: Task, patch: int) -> np.ndarray:
    """The documented formula for all pixels, by generalised eigenvectors of G and W."""
    spectra, targets = plain_means(task, patch), task.targets.numpy()
    labelled, bands = spectra[task.positions.numpy()], spectra.shape[1]
    means = np.array([labelled[targets == target].mean(0) for target in range(len(task.classes))])
    freedom = len(labelled) - len(means)
    within = sum(np.outer(residual, residual) for residual in labelled - means[targets]) / freedom
    shrunk = min(0.9, bands / (bands + freedom))
    within = (1 - shrunk) * within + shrunk * np.trace(within) / bands * np.eye(bands)
    side = spectra[task.training_side.numpy()]
    ratios, vectors = eigh(np.cov(side.T, bias=True), within)
    weights = np.maximum(ratios, 0) / (np.maximum(ratios, 0) + HALF)

    def distances(of: np.ndarray) -> np.ndarray:
        return np.min([weights @ ((of - mean) @ vectors).T ** 2 for mean in means], 0)

    known = distances(side)
    levels = np.quantile(known, np.linspace(0, 1, LEVELS))
    return np.minimum(np.searchsorted(levels, distances(spectra)), LEVELS - 1) / (LEVELS - 1)


@pytest.mark.parametrize("patch", [1, 3])
def test_it_is_the_documented_formula(halved: Data, patch: int):
    settings = Settings(patch=patch)
    task = task_of(*halved, settings)
    expected = plain_novelty(task, patch)
    found = scores_of(learn_novelty(task, settings), task, settings, np.ones(halved[1].shape, bool))
    assert 0.2 < expected.std()
    # Distances of float32 are off by some 1e-5, which may miss by one level.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.5 / (LEVELS - 1))


# Where it comes from -----------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 3])
def test_spectra_beyond_the_reach_of_the_training_side_have_no_influence(halved: Data, patch: int):
    scene, labels, split = halved
    settings, other = Settings(patch=patch), scene.copy(deep=True)
    other.values[:, :, TRAINING_COLUMNS + patch // 2 :] *= 3
    first, second = (learn_novelty(task_of(given, labels, split, settings), settings) for given in (scene, other))
    assert same_tensors(first, second)
    other.values[:, :, TRAINING_COLUMNS - 1] *= 3
    assert not same_tensors(first, learn_novelty(task_of(other, labels, split, settings), settings))


def test_test_pixels_of_a_disjoint_split_have_no_influence_and_score_higher_when_they_are_strange(
    larger: tuple[xr.DataArray, xr.DataArray],
):
    scene, labels = larger
    settings = Settings(patch=3)
    split = split_disjoint(labels, method="columns", boundary=16, per_class=5, patch=3)
    other, changed = scene.copy(deep=True), labels.copy(deep=True)
    other.values[:, split.test] *= 3
    changed.values[split.test] = 1 + labels.values[split.test] % 4
    tasks = [task_of(*given, split, settings) for given in ((scene, labels), (other, labels), (scene, changed))]
    first, *others = (learn_novelty(task, settings) for task in tasks)
    assert split.test.sum() > 100
    assert all(same_tensors(first, second) for second in others)
    before, after = (scores_of(first, task, settings, split.test) for task in tasks[:2])
    assert after.mean() > 0.95 > before.mean()


def test_a_classifier_learns_it_from_its_own_training_pixels_and_patch(halved: Data, quick: Settings):
    classifier = fit(*halved, quick, device="cpu")
    assert classifier.novelty is not None
    assert same_tensors(classifier.novelty, learn_novelty(task_of(*halved, quick), quick))


def test_of_a_large_training_side_so_many_pixels_count_that_the_seed_chooses(
    larger: Any, monkeypatch: pytest.MonkeyPatch
):
    scene, labels = larger
    settings = Settings(patch=3)
    task = task_of(scene, labels, split_random(labels, per_class=5, patch=3), settings)
    looked_at: list[list[int]] = []

    def noted(pixels: Pixels, positions: torch.Tensor, patch: int) -> torch.Tensor:
        looked_at.append(positions.tolist())
        return patch_means(pixels, positions, patch)

    monkeypatch.setattr(discriminant, "patch_means", noted)
    monkeypatch.setattr(discriminant, "_MOST_PIXELS", 300)
    first, again, other = (learn_novelty(task, settings.replace(seed=seed)) for seed in (0, 0, 1))
    sides = [chosen for chosen in looked_at if chosen != task.positions.tolist()]
    assert [len(chosen) for chosen in sides] == [300] * 3
    assert sides[0] == sides[1] == sorted(set(sides[0]))
    assert sides[0] != sides[2]
    assert set(sides[0]) | set(sides[2]) <= set(task.training_side.tolist())
    assert same_tensors(first, again)
    assert not same_tensors(first, other)
    deciles = np.quantile(scores_of(first, task, settings), np.linspace(0.1, 0.9, 9))
    # The standard error of a share of 300 pixels is at most 0.03.
    np.testing.assert_allclose(deciles, np.linspace(0.1, 0.9, 9), rtol=0, atol=0.09)


def test_a_side_just_at_the_limit_is_not_thinned(halved: Data, monkeypatch: pytest.MonkeyPatch):
    settings = Settings(patch=3)
    task = task_of(*halved, settings)
    whole = learn_novelty(task, settings)
    monkeypatch.setattr(discriminant, "_MOST_PIXELS", len(task.training_side))
    assert same_tensors(learn_novelty(task, settings.replace(seed=1)), whole)


# Scenes at the edge ------------------------------------------------------------------------------


def assert_scores(scene: xr.DataArray, labels: xr.DataArray, split: Split | None, patch: int) -> np.ndarray:
    """Learn and score all pixels without any warning, to numbers of 0 to 1."""
    settings = Settings(patch=patch)
    task = task_of(scene, labels, split, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score = learn_novelty(task, settings)
        found = scores_of(score, task, settings, np.ones(labels.shape, bool))
    assert all(tensor.isfinite().all() for tensor in score.state_dict().values())
    assert (score.levels.diff() >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()
    return found


@pytest.mark.parametrize("patch", [1, 3])
def test_one_label_a_class_is_enough(small_scene: xr.DataArray, small_labels: xr.DataArray, patch: int):
    found = assert_scores(small_scene, small_labels, split_random(small_labels, per_class=1, patch=patch), patch)
    assert len(np.unique(found)) > 50


def test_two_classes_are_enough(small_scene: xr.DataArray, small_labels: xr.DataArray):
    two = small_labels.where(small_labels != 3, 0).astype(small_labels.dtype)
    assert len(np.unique(assert_scores(small_scene, two, None, 3))) > 50


@pytest.mark.parametrize("bands", [[0], [0, 7], list(range(1, 20))], ids=["one", "two", "all but one"])
def test_constant_bands_do_no_harm(small_scene: xr.DataArray, small_labels: xr.DataArray, bands: list[int]):
    valid = np.isfinite(small_scene.values).all(0)
    for band in bands:
        small_scene.values[band][valid] = 0.25
    assert len(np.unique(assert_scores(small_scene, small_labels, None, 3))) > 50


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("normalisation", ["standard", "whitening"])
def test_a_scene_without_any_differences_is_survived(halved: Data, patch: int, normalisation: str, quick: Settings):
    scene, labels, split = halved
    scene.values[:, np.isfinite(scene.values).all(0)] = 0.25
    assert_scores(scene, labels, split, patch)
    trained = fit(scene, labels, split, quick, patch=patch, normalisation=normalisation, device="cpu")
    (tile,) = trained.tiles(scene)
    assert tile.novelty is not None
    found = tile.novelty[np.isfinite(scene.values).all(0)]
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(
    ("size", "bands"), [(12, 2), (12, 4), (8, 80), (8, 200)], ids=["two", "four", "more than pixels", "far more"]
)
@pytest.mark.parametrize("per_class", [1, 2, None])
def test_few_and_many_bands_are_fine(size: int, bands: int, per_class: int | None):
    scene, labels = simulate_scene(rows=size, columns=size, bands=bands, classes=2)
    scene["good"].values[:] = True
    split = None if per_class is None else split_random(labels, per_class=per_class, patch=3)
    found = assert_scores(scene, labels, split, 3)
    assert len(np.unique(found)) > len(found) / 2


def test_a_side_of_the_training_pixels_alone_is_enough(small_scene: xr.DataArray, small_labels: xr.DataArray):
    split = split_random(small_labels, per_class=1, patch=3)
    assert_scores(small_scene, small_labels, dataclasses.replace(split, training_side=split.train), 3)
