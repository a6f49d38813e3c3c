"""Label propagation: what it spreads over the scene's spectra, as teacher and as companion of the network."""

from __future__ import annotations

import dataclasses
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.semi_supervised import LabelSpreading
from torch import Tensor, nn
from training_example import (
    BANDS,
    SIDE,
    Data,
    inputs_of,
    rewrite,
    same_tensors,
    scene_from,
    scene_of,
    stopped_and_resumed,
    task_of,
)

from spectralmamba import Classifier, Settings, fit, fit_seeds, map_scene, split_disjoint
from spectralmamba.errors import ClassifierError, SettingsError, TrainingInterrupted
from spectralmamba.models import SpectralMamba
from spectralmamba.models.committee import Committee, KernelSmoother, LabelPropagation, SupportVectorMachine
from spectralmamba.pixels import Pixels, as_input, patch_means
from spectralmamba.training import companions, self_training
from spectralmamba.training.companions import _spread, labels_are_few, learn_companion, propagate_labels
from spectralmamba.training.self_training import Pupil
from spectralmamba.training.task import Task, prepare
from spectralmamba.transforms import learn_transform

SUM = 5e-6  # by which a sum of probabilities may be off: float32's 6e-8 times some dozens of 256 nodes


VIEWS = {"blunt": 0.5, "sharp": 0.9}  # of spectra, and α in each


def nodes_of(task: Task, patch: int, pixels: Pixels | None = None) -> Tensor:
    """Patch means of the labelled pixels and of all others of the training side, in this order; as normalised if not told."""
    others = task.training_side[~torch.isin(task.training_side, task.positions)]
    return patch_means(pixels or task.normalised.pixels, torch.cat([task.positions, others]), patch)


def seen_by(view: str, task: Task, patch: int) -> Tensor:
    """The nodes as a view sees them."""
    nodes = nodes_of(task, patch)
    return nodes if view == "blunt" else nodes @ task.normalised.sharpening


def smoothers_of(propagation: LabelPropagation) -> dict[str, KernelSmoother]:
    return {"blunt": propagation.blunt, "sharp": propagation.sharp}


def by_definition(
    nodes: np.ndarray, gamma: float, targets: np.ndarray, classes: int, alpha: float = 0.5, *, balanced: bool = False
) -> np.ndarray:
    """Shares of (I − α S)⁻¹ Y, all in float64; the first nodes are labelled. Balanced, columns of Y sum to one."""
    weights = np.exp(-gamma * np.square(nodes[:, None] - nodes).sum(2))
    np.fill_diagonal(weights, 0)
    roots = np.sqrt(weights.sum(1))
    given = np.zeros((len(nodes), classes))
    given[np.arange(len(targets)), targets] = 1 / np.bincount(targets)[targets] if balanced else 1
    found = np.linalg.solve(np.eye(len(nodes)) - alpha * weights / np.outer(roots, roots), given)
    return found / found.sum(1, keepdims=True)


def committee_of(classifier: Classifier) -> Committee:
    assert isinstance(classifier.network, Committee)
    return classifier.network


def propagation_of(classifier: Classifier) -> LabelPropagation:
    companion = committee_of(classifier).companion
    assert isinstance(companion, LabelPropagation)
    return companion


# What is spread ----------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("patch", [1, 3, 7])
@pytest.mark.parametrize("counts", [[8, 8], [70, 2, 1], [5] * 9, [1] * 3], ids=str)
def test_nodes_get_the_shares_that_the_definition_and_scikit_learn_give_them(counts: list[int], patch: int, view: str):
    """scikit-learn's graph has no edge of a node to itself, either; its (1 − α) falls out of the shares."""
    settings, alpha = Settings(patch=patch), VIEWS[view]
    task = task_of(*scene_of(counts), settings)
    smoother = smoothers_of(propagate_labels(task, settings, patch))[view]
    nodes = seen_by(view, task, patch)
    assert torch.equal(smoother.support, nodes)
    assert len(nodes) == SIDE * SIDE
    exact, targets = nodes.double().numpy(), task.targets.numpy()
    gamma = float(smoother.gamma)
    assert gamma == pytest.approx(60 / (BANDS * exact.var(0).mean()), rel=1e-6)
    # Rounded to float32 at last, 6e-8 of a share of 1 at most; the matrix' condition is at most 3, or 19 of the sharp view.
    expected = by_definition(exact, gamma, targets, len(counts), alpha)
    np.testing.assert_allclose(smoother.shares.numpy(), expected, rtol=0, atol=1e-7)
    options: dict[str, Any] = {"kernel": "rbf", "gamma": gamma, "alpha": alpha, "max_iter": 1000, "tol": 0}
    spreading = LabelSpreading(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after 1000 steps nothing changes, which tol 0 never is
        spreading.fit(exact, np.concatenate([targets, np.full(len(nodes) - len(targets), -1)]))
    np.testing.assert_allclose(smoother.shares.numpy(), spreading.label_distributions_, rtol=0, atol=1e-7)


def of_a_sharper_whitening(scene: xr.DataArray, task: Task, settings: Settings, area: np.ndarray, patch: int) -> Tensor:
    """The nodes, of the scene whitened anew with a tenth of ε; what is learned is learned from the pixels of an area `(H, W)`."""
    pixels = Pixels.from_scene(scene, np.arange(len(scene)))
    sharper = settings.replace(whitening_epsilon=settings.whitening_epsilon / 10)
    transform = learn_transform(pixels.values, pixels.at(area), pixels.neighbour_pairs(area), sharper)
    return nodes_of(task, patch, pixels.with_values(transform(pixels.values)))


@pytest.mark.parametrize("side", ["whole scene", "training side"])
@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("patch", [1, 3])
def test_sharp_nodes_are_those_of_a_scene_whitened_with_a_tenth_of_epsilon_but_for_an_offset(
    halved: Data, patch: int, epsilon: float, side: str
):
    scene, labels, split = halved
    settings = Settings(patch=patch, whitening_epsilon=epsilon, statistics_from="training side")
    used = split if side == "training side" else None
    area = np.ones(labels.shape, bool) if used is None else used.training_side
    task = task_of(scene, labels, settings, used)
    propagation = propagate_labels(task, settings, patch)
    off, blunt = (
        seen - of_a_sharper_whitening(scene, task, settings, area, patch)
        for seen in (propagation.sharp.support, propagation.blunt.support)
    )
    # Values are up to 5, and both matrices are rounded to float32.
    torch.testing.assert_close(off, off.mean(0).expand_as(off), rtol=0, atol=1e-5)
    assert (blunt - blunt.mean(0)).abs().max() > 0.1


@pytest.mark.parametrize("patch", [1, 3])
def test_pixels_asked_are_seen_as_the_nodes_are(halved: Data, patch: int):
    scene, labels, split = halved
    settings = Settings(patch=patch)
    task = task_of(scene, labels, settings, split)
    propagation = propagate_labels(task, settings, patch)
    x = inputs_of(task, patch)
    blunt, sharp, _ = propagation.judge(x)
    means = patch_means(task.normalised.pixels, torch.arange(len(x)), patch)
    bluntly, sharply = propagation.blunt(means).exp(), propagation.sharp(means @ propagation.sharpening).exp()
    torch.testing.assert_close(blunt.exp(), bluntly, rtol=0, atol=1e-4)
    torch.testing.assert_close(sharp.exp(), (2 * sharply + bluntly) / 3, rtol=0, atol=1e-4)
    assert not torch.equal(blunt, sharp)


@pytest.mark.parametrize("patch", [1, 3])
def test_standardised_spectra_are_sharp_as_they_are(patch: int):
    settings = Settings(patch=patch, normalisation="standard")
    task = task_of(*scene_of([9, 2, 1, 5]), settings)
    propagation = propagate_labels(task, settings, patch)
    assert torch.equal(propagation.sharpening, torch.eye(BANDS))
    assert torch.equal(propagation.sharp.support, propagation.blunt.support)
    assert torch.equal(propagation.sharp.gamma, propagation.blunt.gamma)
    assert not torch.equal(propagation.sharp.shares, propagation.blunt.shares)  # as what neighbours say counts for more


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    "rare_classes", ["as drawn", "balanced batches", "balanced loss", "logit adjustment", "prior correction"]
)
def test_classes_spread_as_much_as_each_other_only_if_something_is_done_for_rare_ones(rare_classes: str, view: str):
    settings = Settings(patch=1, rare_classes=rare_classes)
    task = task_of(*scene_of([70, 2, 9], noise=2.0), settings)
    smoother = smoothers_of(propagate_labels(task, settings, 1))[view]
    nodes, targets = seen_by(view, task, 1).double().numpy(), task.targets.numpy()
    expected, other = (
        by_definition(nodes, float(smoother.gamma), targets, 3, VIEWS[view], balanced=balanced)
        for balanced in (rare_classes != "as drawn", rare_classes == "as drawn")
    )
    np.testing.assert_allclose(smoother.shares.numpy(), expected, rtol=0, atol=1e-7)  # rounded to float32
    assert (expected.argmax(1) != other.argmax(1)).any()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("patch", [1, 3])
def test_nodes_know_how_far_they_are_from_the_nearest_other_one(patch: int, view: str):
    settings = Settings(patch=patch)
    task = task_of(*scene_of([9, 2, 1, 5]), settings)
    propagation = propagate_labels(task, settings, patch)
    smoother, nodes = smoothers_of(propagation)[view], seen_by(view, task, patch).double()
    distances = (nodes[:, None] - nodes).square().sum(2).sqrt() + torch.diag(torch.full((len(nodes),), torch.inf))
    torch.testing.assert_close(smoother.spacing.double(), distances.amin(1), rtol=1e-3, atol=0)
    assert (propagation.judge(inputs_of(task, patch))[2] == 1).all()  # every pixel is a node


@pytest.mark.parametrize("view", ["blunt", "sharp"])
def test_twins_are_no_measure_of_how_far_apart_spectra_are(view: str):
    """In a scene resampled by nearest neighbours each spectrum is there several times."""
    settings = Settings(patch=1)
    scene, labels = scene_of([6] * 4, noise=0.3)
    scene.values[:, :, 1::2] = scene.values[:, :, : scene.sizes["x"] // 2 * 2 : 2]
    task = task_of(scene, labels, settings)
    smoother = smoothers_of(propagate_labels(task, settings, 1))[view]
    nodes = seen_by(view, task, 1).double()
    distances = (nodes[:, None] - nodes).square().sum(2).sqrt()
    differing = torch.where(distances < 1e-3, torch.inf, distances).amin(1)
    torch.testing.assert_close(smoother.spacing.double(), differing, rtol=1e-3, atol=0)


def test_the_middle_of_wide_patches_is_spread_over_by_itself():
    settings = Settings(patch=5)
    task = task_of(*scene_of([9, 2, 1, 5]), settings)
    wide = propagate_labels(task, settings, 5)
    narrow = propagate_labels(task, settings, 3)
    assert narrow.near is None
    assert wide.near is not None
    assert same_tensors(wide.near, narrow.sharp)
    assert not same_tensors(wide.near, wide.sharp)


def test_equal_nodes_make_no_pixel_remote_that_equals_them():
    settings = Settings(patch=1)
    scene, labels = scene_of([5] * 4, noise=0.3)
    scene.values[:, :, 1:] = scene.values[:, :, :1]  # every spectrum in a row is the same
    task = task_of(scene, labels, settings)
    propagation = propagate_labels(task, settings, 1)
    assert all((smoother.spacing > 0).all() for smoother in smoothers_of(propagation).values())
    assert (propagation.blunt.judge(inputs_of(task, 1))[1] <= 1).all()
    assert (propagation.judge(inputs_of(task, 1))[2] == 1).all()


def test_pixels_of_a_class_unlike_all_nodes_are_less_familiar(halved: Data):
    scene, labels, split = halved
    other = scene.copy(deep=True)
    other.values[:, ~split.training_side] *= np.linspace(0.5, 2, len(scene))[:, None].astype(np.float32)
    settings = Settings(patch=1, statistics_from="training side")
    found = []
    for seen in (scene, other):
        task = task_of(seen, labels, settings, split)
        familiarity = propagate_labels(task, settings, 1).judge(inputs_of(task, 1))[2][:, 0]
        inside = torch.isin(torch.arange(len(familiarity)), task.training_side)
        assert (familiarity[inside] == 1).all()
        assert ((familiarity > 0) & (familiarity <= 1)).all()
        found.append(familiarity[~inside].median())
    assert found[0] > 0.3
    assert found[1] < 0.01


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("patch", [1, 3])
def test_labelled_pixels_keep_their_own_class_and_shares_sum_to_one(patch: int, view: str):
    settings = Settings(patch=patch)
    task = task_of(*scene_of([9, 2, 1, 5]), settings)
    smoother = smoothers_of(propagate_labels(task, settings, patch))[view]
    assert smoother.shares[: len(task.targets)].argmax(1).tolist() == task.targets.tolist()
    assert (smoother.shares >= 0).all()
    torch.testing.assert_close(smoother.shares.sum(1), torch.ones(SIDE * SIDE), rtol=0, atol=1e-6)


@pytest.mark.parametrize("patch", [1, 3])
def test_pixels_that_are_nodes_are_told_the_class_that_is_spread_to_them(patch: int):
    settings = Settings(patch=patch)
    task = task_of(*scene_of([5] * 4, noise=0.3), settings)
    propagation = propagate_labels(task, settings, patch)
    x = inputs_of(task, patch)
    blunt, sharp, _ = propagation.judge(x)
    for logits in (blunt, sharp, propagation(x)):
        found = logits.exp()
        torch.testing.assert_close(found.sum(1), torch.ones(SIDE * SIDE), rtol=0, atol=SUM)
        assert found[task.positions].argmax(1).tolist() == task.targets.tolist()


def spread(places: list[float], targets: list[int], alpha: float, classes: int = 3) -> Tensor:
    nodes = torch.tensor(places, dtype=torch.float64)[:, None]
    return _spread(torch.exp(-torch.cdist(nodes, nodes).square()), torch.tensor(targets), classes, alpha).float()


@pytest.mark.parametrize("alpha", VIEWS.values())
def test_a_node_that_no_label_reaches_may_be_of_any_class(alpha: float):
    alone = spread([0.0, 1.0, 0.5, 1e3, 1e3 + 1, 1e6], [0, 2], alpha)[3:]
    torch.testing.assert_close(alone, torch.full((3, 3), 1 / 3))


@pytest.mark.parametrize("alpha", VIEWS.values())
@pytest.mark.parametrize("apart", [1.0, 5.0, 15.0, 18.0, 19.0, 19.2, 27.0, 28.0, 1e3])
def test_however_weakly_a_label_reaches_a_node_its_shares_sum_to_one(apart: float, alpha: float):
    found = spread([0.0, 0.01, apart, apart + 0.01, 2 * apart, 2 * apart + 0.01], [0, 1], alpha, classes=2)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(6), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", ["lines", "moons"])
def test_labels_follow_the_shape_of_a_class_where_the_nearest_label_is_anothers(shape: str):
    along = np.linspace(0, 1, SIDE * SIDE // 2)
    if shape == "lines":  # labelled at opposite ends
        spectra = np.concatenate([np.stack([along, side + 0 * along], 1) for side in (0, 1)])
        first, second = 0, SIDE * SIDE - 1
    else:  # labelled in the middle, which the other's inner tip is nearer to than its own
        spectra = np.asarray(make_moons(SIDE * SIDE, shuffle=False, noise=0.03, random_state=0)[0])
        first, second = SIDE * SIDE // 4, SIDE * SIDE * 3 // 4
    of_pixel = np.arange(SIDE * SIDE) * 2 // (SIDE * SIDE)
    labels = np.zeros(SIDE * SIDE, np.int64)
    labels[first], labels[second] = 1, 2
    settings = Settings(patch=1, normalisation="standard")
    task = task_of(scene_from(spectra), xr.DataArray(labels.reshape(SIDE, SIDE), dims=("y", "x")), settings)
    values = task.normalised.pixels.values
    nearest = torch.cdist(values, values[task.positions]).argmin(1).numpy()
    found = propagate_labels(task, settings, 1)(values).argmax(1).numpy()
    assert (nearest != of_pixel).mean() > 0.1
    np.testing.assert_array_equal(found, of_pixel)


# Which pixels are nodes --------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 3])
def test_spectra_of_the_test_side_have_no_influence(small_scene: xr.DataArray, small_labels: xr.DataArray, patch: int):
    split = split_disjoint(small_labels, method="columns", boundary=6, per_class=3, patch=patch)
    other = small_scene.copy(deep=True)
    other.values[:, split.test] *= 3
    settings = Settings(patch=patch, statistics_from="training side")
    first, second = (
        propagate_labels(task_of(scene, small_labels, settings, split), settings, patch)
        for scene in (small_scene, other)
    )
    assert (
        first.size == len(first.blunt.support) == (split.training_side & np.isfinite(small_scene.values).all(0)).sum()
    )
    assert same_tensors(first, second)
    other.values[:, split.training_side] *= 3
    changed = propagate_labels(task_of(other, small_labels, settings, split), settings, patch)
    assert not same_tensors(first, changed)


def test_a_pixelwise_graph_sees_nothing_outside_the_training_side(data: Data):
    scene, labels, split = data
    side = np.zeros(labels.shape, bool)
    side[:, :8] = True
    split = dataclasses.replace(split, train=split.train & side, training_side=side)
    other = scene.copy(deep=True)
    other.values[:, ~side] *= 3
    settings = Settings(patch=1)
    first, second = (propagate_labels(task_of(given, labels, settings, split), settings, 1) for given in (scene, other))
    assert same_tensors(first, second)


@pytest.mark.parametrize(("labelled", "nodes"), [(20, 50), (75, 76), (75, 75), (75, 256), (20, 1000), (30, 20)])
def test_no_more_pixels_than_set_are_nodes_and_every_class_has_one(
    labelled: int, nodes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(companions, "_MOST_LABELLED", labelled)
    monkeypatch.setattr(companions, "_MOST_NODES", nodes)
    counts, settings = [40, 30, 5], Settings(patch=1)
    task = task_of(*scene_of(counts), settings)
    values = task.normalised.pixels.values
    propagation = propagate_labels(task, settings, 1)
    smoother = propagation.blunt
    position = {tuple(spectrum): number for number, spectrum in enumerate(values.tolist())}
    found = [position[tuple(spectrum)] for spectrum in smoother.support.tolist()]
    target = dict(zip(task.positions.tolist(), task.targets.tolist(), strict=True))
    chosen = [target[number] for number in found if number in target]
    assert len(set(found)) == len(found)
    assert [number for number in found if number in target] == found[: len(chosen)]  # before all that are not labelled
    assert labelled - len(counts) < len(chosen) <= labelled  # shares are rounded down
    assert set(chosen) == {0, 1, 2}
    assert len(found) == max(len(chosen), min(nodes, SIDE * SIDE - sum(counts) + len(chosen)))
    sharp = values[found] @ propagation.sharpening
    torch.testing.assert_close(propagation.sharp.support, sharp, rtol=0, atol=1e-5)  # the same pixels
    for view, smoother in smoothers_of(propagation).items():
        spectra, gamma = smoother.support.double().numpy(), float(smoother.gamma)
        expected = by_definition(spectra, gamma, np.array(chosen), len(counts), VIEWS[view])
        np.testing.assert_allclose(smoother.shares.numpy(), expected, rtol=0, atol=1e-7)


def test_the_seed_decides_which_of_many_pixels_are_nodes(monkeypatch: pytest.MonkeyPatch):
    settings = Settings(patch=3)
    task = task_of(*scene_of([20, 20, 20]), settings)

    def found(seed: int) -> LabelPropagation:
        return propagate_labels(task, settings.replace(seed=seed), 3)

    assert same_tensors(found(0), found(1))
    for limit, most in (("_MOST_NODES", 100), ("_MOST_LABELLED", 30)):
        with monkeypatch.context() as patch:
            patch.setattr(companions, limit, most)
            assert same_tensors(found(0), found(0))
            assert not same_tensors(found(0), found(1))


def test_numbers_that_others_draw_stay_as_they_were(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(companions, "_MOST_NODES", 100)
    settings = Settings(patch=1)
    task = task_of(*scene_of([8, 8]), settings)
    np.random.seed(7)  # noqa: NPY002  the old global state is what must stay
    torch.manual_seed(7)
    expected = np.random.random(3), torch.rand(3)  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    propagate_labels(task, settings, 1)
    np.testing.assert_array_equal(np.random.random(3), expected[0])  # noqa: NPY002
    assert torch.equal(torch.rand(3), expected[1])


@pytest.mark.parametrize("patch", [1, 3])
def test_classes_in_another_order_get_the_same_shares(patch: int):
    settings = Settings(patch=patch)
    task = task_of(*scene_of([9, 2, 1, 5]), settings)
    order = torch.tensor([2, 0, 3, 1])
    renumbered = propagate_labels(dataclasses.replace(task, targets=order[task.targets]), settings, patch)
    propagation = propagate_labels(task, settings, patch)
    for view, smoother in smoothers_of(propagation).items():
        found = smoothers_of(renumbered)[view].shares
        torch.testing.assert_close(found[:, order], smoother.shares, rtol=0, atol=1e-7)
    x = inputs_of(task, patch)
    torch.testing.assert_close(renumbered(x).exp()[:, order], propagation(x).exp(), rtol=0, atol=1e-6)


# Scenes that are hard to learn from --------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("normalisation", ["standard", "whitening"])
@pytest.mark.parametrize(
    ("what", "counts", "bands"),
    [
        ("identical spectra", [4, 4], BANDS),
        ("identical spectra", [9, 1, 3], BANDS),
        ("a constant band", [4, 4, 4], BANDS),
        ("an outlier", [4, 4, 4], BANDS),
        ("four bands", [4, 4, 4], 4),
        ("one band", [4, 4, 4], 1),
        ("more bands than pixels", [2, 2, 2], 300),
        ("more bands than pixels to learn whitening from", [2, 2], BANDS),
        ("constant bands", [4, 4, 4], BANDS),
        ("one label each", [1, 1], BANDS),
        ("one label each", [1] * 24, BANDS),
        ("labels everywhere", [100, 100, 56], BANDS),
    ],
)
def test_a_hard_scene_gives_probabilities_and_no_warning(
    what: str, counts: list[int], bands: int, normalisation: str, patch: int
):
    scene, labels = scene_of(counts, bands)
    if what == "identical spectra":
        scene.values[:] = scene.values[:, :1, :1]
    if what == "a constant band":
        scene.values[5] = 0.37
    if what == "constant bands":
        scene.values[1:] = scene.values[1:, :1, :1]
    if what == "an outlier":
        scene.values[:, 3, 3] = 1e6
    few = what.endswith("to learn whitening from")
    statistics_from = "training pixels" if few else "training side"
    settings = Settings(patch=patch, normalisation=normalisation, statistics_from=statistics_from)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        propagation = propagate_labels(task := task_of(scene, labels, settings), settings, patch)
        x = inputs_of(task, patch)
        blunt, sharp, familiarity = propagation.judge(x)
        found = [logits.exp() for logits in (blunt, sharp, propagation(x))]
    assert all(buffer.isfinite().all() for buffer in propagation.buffers())
    assert ((familiarity > 0) & (familiarity <= 1)).all()
    for shares in (propagation.blunt.shares, propagation.sharp.shares, *found):
        assert shares.shape == (SIDE * SIDE, len(counts))
        torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)), rtol=0, atol=SUM)


def test_spectra_that_are_all_the_same_may_be_of_any_class_that_has_as_many_labels():
    scene, labels = scene_of([4, 4])
    scene.values[:] = scene.values[:, :1, :1]
    settings = Settings(patch=1)
    task = task_of(scene, labels, settings)
    propagation = propagate_labels(task, settings, 1)
    blunt, sharp, _ = propagation.judge(x := inputs_of(task, 1))
    for logits in (blunt, sharp, propagation(x)):
        torch.testing.assert_close(logits.exp(), torch.full_like(logits, 0.5), rtol=0, atol=1e-5)


# When it decides ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "wanted", "few"),
    [
        ([8, 7, 8], 8, False),
        ([8, 7, 8], 9, True),
        ([1, 1, 90], 2, True),
        ([1, 90, 90], 90, False),
        ([2, 10], 6, False),
        ([2, 10], 7, True),
    ],
    ids=str,
)
def test_labels_are_few_where_half_the_classes_have_fewer_than_they_are_filled_up_to(
    counts: list[int], wanted: int, few: bool
):
    settings = Settings(patch=1, pseudo_labels=wanted)
    task = task_of(*scene_of(counts), settings)
    assert labels_are_few(task, settings) == few
    assert isinstance(learn_companion(task, settings, 1), LabelPropagation) == few


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, LabelPropagation),
        ({"companion": "label propagation", "pseudo_labels": 5}, LabelPropagation),
        ({"companion": "support vectors"}, SupportVectorMachine),
        ({"companion": "none"}, None),
        ({"pseudo_labels": 4}, None),
        ({"companion": "support vectors", "pseudo_labels": 4}, None),
    ],
    ids=str,
)
def test_the_companion_decides_beside_the_same_network_where_labels_are_few(
    data: Data, quick: Settings, changes: dict[str, Any], kind: type | None
):
    bare = fit(*data, quick, companion="none", device="cpu").network
    classifier = fit(*data, quick, device="cpu", **changes)
    network = classifier.network
    if kind is not None:
        assert type(committee_of(classifier).companion) is kind
        network = committee_of(classifier).network
    assert isinstance(network, SpectralMamba)
    assert all(tensor.equal(network.state_dict()[name]) for name, tensor in bare.state_dict().items())


@pytest.mark.parametrize("value", ["label_propagation", "Label propagation", "svm", "", 1, None, True], ids=repr)
def test_a_companion_that_is_not_known_is_refused(value: Any):
    with pytest.raises(SettingsError, match="companion"):
        Settings(companion=value)


class Part(nn.Module):
    """Logits of one view of label propagation, or of its familiarity f as if probabilities were f, 1 − f and 0."""

    takes_patches = True

    def __init__(self, propagation: LabelPropagation, number: int) -> None:
        super().__init__()
        self.propagation, self.number = propagation, number

    def forward(self, x: Tensor) -> Tensor:
        found = self.propagation.judge(x)[self.number]
        return torch.cat([found, 1 - found, 0 * found], 1).log() if self.number == 2 else found


@pytest.mark.parametrize("patch", [1, 3])
def test_the_classifiers_probabilities_are_the_weighted_mean_of_networks_and_both_views(
    halved: Data, quick: Settings, patch: int
):
    classifier = fit(*halved, quick, device="cpu", patch=patch)
    committee, propagation = committee_of(classifier), propagation_of(classifier)

    def given_by(member: nn.Module) -> np.ndarray:
        return dataclasses.replace(classifier, network=member, sets=None).predict_proba(halved[0]).values

    network, blunt, sharp, familiarity = map(given_by, (committee.network, *(Part(propagation, n) for n in range(3))))
    f = familiarity[0]
    expected = f * (network / 4 + 3 / 4 * sharp) + (1 - f) * blunt
    # Through logarithms and back in float32.
    np.testing.assert_allclose(given_by(committee), expected, rtol=5e-6)
    np.testing.assert_allclose(classifier.predict_proba(halved[0]).values, expected, rtol=5e-6)
    alone = f * sharp + (1 - f) * blunt
    np.testing.assert_allclose(given_by(propagation), alone, rtol=5e-6, atol=1e-30)
    for member, other in ((network, blunt), (blunt, sharp), (f, 1)):
        assert np.nanmax(np.abs(member - other)) > 0.1


def test_a_map_is_what_network_and_propagation_predict(
    data: Data, quick: Settings, small_scene: xr.DataArray, tmp_path: Path
):
    classifier = fit(*data, quick, device="cpu")
    with rasterio.open(map_scene(classifier, small_scene, tmp_path / "map.tif", tile=5).classes) as raster:
        mapped = raster.read(1)
    probabilities = classifier.predict_proba(small_scene).values
    valid = np.isfinite(small_scene.values).all(0)
    np.testing.assert_array_equal(mapped > 0, valid)
    clear = valid & (np.diff(np.sort(probabilities, 0)[-2:], axis=0)[0] > 1e-4)
    assert clear.sum() > 0.9 * valid.sum()
    np.testing.assert_array_equal(mapped[clear], classifier.predict(small_scene).values[clear])


# The classifier's file ---------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 3])
def test_the_card_tells_how_many_nodes_there_are_and_what_they_cost(data: Data, quick: Settings, patch: int):
    whole, bare = (
        fit(*data, quick, patch=patch, companion=kind, device="cpu") for kind in ("label propagation", "none")
    )
    nodes, bands = propagation_of(whole).blunt.support.shape
    assert propagation_of(whole).sharp.support.shape == (nodes, bands)
    assert nodes == np.isfinite(data[0].values).all(0).sum()
    assert bands == len(whole.card["bands"]["used"])
    assert whole.card["model"]["companion"] == {"kind": "label propagation", "size": nodes}
    assert bare.card["model"]["companion"] is None
    more = whole.card["model"]["multiply_accumulates"] - bare.card["model"]["multiply_accumulates"]
    assert more == 2 * (nodes * bands + nodes * len(whole.classes)) + bands * bands  # two views, and the sharpening
    assert whole.card["model"]["parameters"] == bare.card["model"]["parameters"]


@pytest.mark.parametrize("patch", [1, 3])
def test_a_classifier_with_label_propagation_is_read_as_it_was_written(
    data: Data, quick: Settings, small_scene: xr.DataArray, bytes_of: Any, tmp_path: Path, patch: int
):
    classifier = fit(*data, quick, device="cpu", patch=patch)
    classifier.save(tmp_path / "model.safetensors")
    again = Classifier.load(tmp_path / "model.safetensors", "cpu")
    assert again.card == classifier.card
    assert same_tensors(propagation_of(again), propagation_of(classifier))
    xr.testing.assert_identical(again.predict_proba(small_scene), classifier.predict_proba(small_scene))
    assert bytes_of(again) == (tmp_path / "model.safetensors").read_bytes()


@pytest.fixture
def file(data: Data, quick: Settings, tmp_path: Path) -> Path:
    """The file of a classifier with label propagation."""
    fit(*data, quick, device="cpu").save(tmp_path / "propagating.safetensors")
    return tmp_path / "propagating.safetensors"


PROPAGATION = "network.companion."
OLDER = ("gamma", "support", "shares")  # of a smoother when there was but one
WRONG: dict[str, Callable[[Any, dict[str, Tensor]], object]] = {
    "one node more": lambda model, _: model["companion"].update(size=model["companion"]["size"] + 1),
    "one node less": lambda model, _: model["companion"].update(size=model["companion"]["size"] - 1),
    "no node": lambda model, _: model["companion"].update(size=0),
    "negative": lambda model, _: model["companion"].update(size=-1),
    "too many": lambda model, _: model["companion"].update(size=10**12),
    "a float": lambda model, _: model["companion"].update(size=float(model["companion"]["size"])),
    "true": lambda model, _: model["companion"].update(size=True),
    "a machine": lambda model, _: model["companion"].update(kind="support vectors"),
    "an oracle": lambda model, _: model["companion"].update(kind="oracle"),
    "none": lambda model, _: model["companion"].update(kind="none"),
    "a list": lambda model, _: model["companion"].update(kind=["label propagation"]),
    "null": lambda model, _: model.update(companion=None),
    "left out": lambda model, _: model.pop("companion"),
    "a word": lambda model, _: model.update(companion="label propagation"),
    "a stranger": lambda _, t: t.update({f"{PROPAGATION}mean": torch.zeros(3)}),
    "an older one": lambda _, t: [
        t.update({f"{PROPAGATION}{name}": t.pop(f"{PROPAGATION}blunt.{name}")}) for name in OLDER
    ],
    "one view": lambda _, t: [t.pop(name) for name in list(t) if name.startswith(f"{PROPAGATION}sharp.")],
    "no sharpening": lambda _, t: t.pop(f"{PROPAGATION}sharpening"),
    "a sharpening of fewer bands": lambda _, t: t.update(
        {f"{PROPAGATION}sharpening": t[f"{PROPAGATION}sharpening"][1:]}
    ),
    "NaN in sharpening": lambda _, t: t[f"{PROPAGATION}sharpening"].fill_(torch.nan),
}
WRONG_VIEW: dict[str, Callable[[str, dict[str, Tensor]], object]] = {
    "a node less of shares": lambda view, t: t.update({f"{view}shares": t[f"{view}shares"][1:]}),
    "a class less": lambda view, t: t.update({f"{view}shares": t[f"{view}shares"][:, 1:]}),
    "a band less": lambda view, t: t.update({f"{view}support": t[f"{view}support"][:, 1:]}),
    "a node less of spacing": lambda view, t: t.update({f"{view}spacing": t[f"{view}spacing"][1:]}),
    "no spacing": lambda view, t: t.pop(f"{view}spacing"),
    "infinite spacing": lambda view, t: t[f"{view}spacing"].fill_(torch.inf),
    "many gammas": lambda view, t: t.update({f"{view}gamma": t[f"{view}gamma"].expand(3)}),
    "float64": lambda view, t: t.update({f"{view}support": t[f"{view}support"].double()}),
    "no gamma": lambda view, t: t.pop(f"{view}gamma"),
    "a stranger": lambda view, t: t.update({f"{view}mean": torch.zeros(3)}),
    "NaN": lambda view, t: t[f"{view}support"].fill_(torch.nan),
    "infinity": lambda view, t: t[f"{view}gamma"].fill_(torch.inf),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_whose_label_propagation_does_not_fit_its_card_is_refused(file: Path, wrong: str):
    rewrite(file, WRONG[wrong])
    with pytest.raises(ClassifierError) as refused:
        Classifier.load(file, "cpu")
    assert str(file) in str(refused.value)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("wrong", WRONG_VIEW)
def test_a_file_of_which_a_view_does_not_fit_the_card_is_refused(file: Path, wrong: str, view: str):
    rewrite(file, lambda _, tensors: WRONG_VIEW[wrong](f"{PROPAGATION}{view}.", tensors))
    with pytest.raises(ClassifierError, match=rf"network\.companion\.{view}\.") as refused:
        Classifier.load(file, "cpu")
    assert str(file) in str(refused.value)


# As a teacher ------------------------------------------------------------------------------------


@pytest.fixture
def taught(tiny: Settings) -> Settings:
    """A self-training whose teachers see wider patches than the classifier."""
    return tiny.replace(patch=3)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, list[int], list[int]]]:
    """Sums that teachers come to in each round from here on, and positions and targets of the pixels that they label."""
    found: list[tuple[Tensor, list[int], list[int]]] = []
    label = Pupil._label

    def noted(self: Pupil, number: int) -> None:
        label(self, number)
        found.append((self.sums, self.positions.tolist(), self.targets.tolist()))

    monkeypatch.setattr(Pupil, "_label", noted)
    return found


def test_label_propagation_is_one_of_a_rounds_three_teachers(
    data: Data, taught: Settings, rounds: list[Any], monkeypatch: pytest.MonkeyPatch
):
    scene, labels, split = data
    fit(*data, taught, device="cpu")
    asked: list[int] = []

    def nothing(task: Task, _: Settings, patch: int) -> LabelPropagation:
        """Label propagation of equal shares."""
        asked.append(patch)
        return LabelPropagation(task.normalised.pixels.values.shape[1], len(task.classes), 1, patch)

    with monkeypatch.context() as patched:
        patched.setattr(self_training, "propagate_labels", nothing)
        fit(*data, taught, device="cpu")
    assert asked == [5]  # as wide as the widest teacher, and once for both rounds
    propagating, without = rounds[0], rounds[2]
    assert propagating[1:] != without[1:]
    pixels = Pixels.from_scene(scene, np.flatnonzero(scene["good"].values))
    task = prepare(pixels, labels, {0: split}, taught)[0]
    others = task.training_side[~torch.isin(task.training_side, task.positions)]
    patches = as_input(task.normalised.pixels.gathered(task.normalised.pixels.neighbourhoods(others, 5)))
    expected = without[0] - 1 / 3 + propagate_labels(task, taught, 5)(patches).exp()
    torch.testing.assert_close(propagating[0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(propagating[0].sum(1), torch.full((len(expected),), 3.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("companion", ["support vectors", "none"])
def test_label_propagation_teaches_whatever_the_companion(
    data: Data, taught: Settings, rounds: list[Any], companion: str
):
    fit(*data, taught, device="cpu")
    fit(*data, taught, companion=companion, device="cpu")
    assert [part[1:] for part in rounds[:2]] == [part[1:] for part in rounds[2:]]


def test_as_companion_it_spreads_given_labels_and_not_those_of_teachers(data: Data, taught: Settings):
    alone = fit(*data, taught, self_training_rounds=0, device="cpu")
    after = fit(*data, taught, device="cpu")
    assert sum(after.card["self_training"]["pseudo_labels"].values()) > 0
    assert same_tensors(propagation_of(after), propagation_of(alone))


# Again and on ------------------------------------------------------------------------------------


@pytest.fixture(params=[40, 3000])
def _most(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Let the graph have so many nodes at most, of some 140 pixels."""
    monkeypatch.setattr(companions, "_MOST_NODES", request.param)


@pytest.mark.usefixtures("_most")
def test_training_twice_gives_the_same_file(data: Data, taught: Settings, bytes_of: Any):
    first, again = (bytes_of(fit(*data, taught, device="cpu")) for _ in range(2))
    assert first == again


@pytest.mark.usefixtures("_most")
def test_seeds_trained_together_have_the_propagation_of_each_alone(data: Data, taught: Settings, bytes_of: Any):
    scene, labels, split = data
    taught = taught.replace(pseudo_labels=1000)  # more than labels without a split
    together = fit_seeds(scene, labels, {0: split, 5: split, 7: None}, taught, device="cpu")
    for seed, used in ((0, split), (5, split), (7, None)):
        alone = fit(scene, labels, used, taught, seed=seed, device="cpu")
        assert same_tensors(propagation_of(together[seed]), propagation_of(alone))
        assert bytes_of(together[seed]) == bytes_of(alone)


@pytest.mark.usefixtures("_most")
@pytest.mark.parametrize("step", [1, 4, 5, 10])
def test_a_training_that_goes_on_from_a_checkpoint_comes_to_the_same_file(
    data: Data, taught: Settings, bytes_of: Any, tmp_path: Path, step: int
):
    resumed = stopped_and_resumed(data, taught, tmp_path / "checkpoint.safetensors", step)
    assert bytes_of(resumed) == bytes_of(fit(*data, taught, device="cpu"))


def pressing_ctrl_c(how: str, *, at: int = 1) -> Callable[..., LabelPropagation]:
    """Label propagation during which Ctrl-C is pressed when it is called for the so-manieth time."""
    calls = 0

    def pressed(*arguments: Any) -> LabelPropagation:
        nonlocal calls
        calls += 1
        if calls == at and how == "raised":
            raise KeyboardInterrupt
        if calls == at:
            signal.raise_signal(signal.SIGINT)
        return propagate_labels(*arguments)

    return pressed


@pytest.mark.parametrize("how", ["pressed", "raised"])
@pytest.mark.parametrize(("module", "done"), [(companions, 10), (self_training, 4)], ids=["companion", "teacher"])
def test_ctrl_c_while_labels_are_propagated_leaves_a_checkpoint_to_go_on_from(
    data: Data,
    taught: Settings,
    bytes_of: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    done: int,
    how: str,
):
    checkpoint, heard = tmp_path / "checkpoint.safetensors", []
    with monkeypatch.context() as patch:
        patch.setattr(module, "propagate_labels", pressing_ctrl_c(how))
        with pytest.raises(TrainingInterrupted, match=f"after {done} of 10 steps") as stopped:
            fit(*data, taught, device="cpu", checkpoint=checkpoint)
    assert stopped.value.file == checkpoint
    resumed = fit(
        *data, taught, device="cpu", checkpoint=checkpoint, resume=True, on_step=lambda p: heard.append(p.step)
    )
    assert heard == list(range(done + 1, 11))
    assert bytes_of(resumed) == bytes_of(fit(*data, taught, device="cpu"))
    assert not checkpoint.exists()


def test_ctrl_c_while_a_seeds_companion_is_learned_lets_all_seeds_go_on(
    data: Data, taught: Settings, bytes_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scene, labels, split = data
    splits = {0: split, 5: split}
    checkpoints = {seed: tmp_path / f"{seed}.safetensors" for seed in splits}
    with monkeypatch.context() as patch:
        patch.setattr(companions, "propagate_labels", pressing_ctrl_c("raised", at=2))
        with pytest.raises(TrainingInterrupted):
            fit_seeds(scene, labels, splits, taught, device="cpu", checkpoints=checkpoints)
    assert all(file.is_file() for file in checkpoints.values())
    resumed = fit_seeds(scene, labels, splits, taught, device="cpu", checkpoints=checkpoints, resume=True)
    for seed, classifier in resumed.items():
        assert bytes_of(classifier) == bytes_of(fit(*data, taught, seed=seed, device="cpu"))
    assert not any(file.exists() for file in checkpoints.values())
