"""Weights of labels: in the loss, in what decides beside the network, and in the card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression as Regression
from sklearn.svm import SVC
from training_example import Data, inputs_of, scene_of

from spectralmamba import Settings, fit, fit_seeds
from spectralmamba.errors import LabelError, SettingsError, TrainingInterrupted
from spectralmamba.models.committee import SIMPLE_MODELS
from spectralmamba.pixels import Pixels, patch_means
from spectralmamba.training import Progress
from spectralmamba.training.companions import learn_simple, propagate_labels
from spectralmamba.training.folds import leave_out
from spectralmamba.training.rare_classes import Loss, batch_weights
from spectralmamba.training.self_training import Pupil
from spectralmamba.training.task import Task, prepare

ALONE = {"self_training_rounds": 0, "companion": "none", "set_coverage": 0.0}


@pytest.fixture
def weights(small_labels: xr.DataArray) -> np.ndarray:
    """A weight for every pixel of the small scene, powers of two."""
    return 2.0 ** np.random.default_rng(0).integers(-3, 4, small_labels.shape)


def weighted_task(settings: Settings, weights_of: Callable[[np.ndarray], np.ndarray]) -> tuple[Task, np.ndarray]:
    """A task of labels of three classes, and the weight of each, divided by the mean."""
    scene, labels = scene_of([12, 12, 12], bands=4, noise=3.0)
    of_pixels = weights_of(labels.values)
    task = prepare(Pixels.from_scene(scene, np.arange(len(scene))), labels, {0: None}, settings, of_pixels)[0]
    chosen = of_pixels[labels.values > 0]
    return task, chosen / chosen.mean()


def at_random(ids: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.1, 3, ids.shape)


# The loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rare_classes", ["as drawn", "balanced loss", "logit adjustment"])
def test_the_loss_is_the_mean_of_weighted_losses(rare_classes: str):
    random, counts = np.random.default_rng(0), np.array([70.0, 5.0, 25.0])
    logits, targets = random.normal(size=(2, 8, 3)), random.dirichlet([0.5] * 3, (2, 8))
    weights = random.uniform(0, 3, (2, 8))
    settings = Settings(rare_classes=rare_classes, label_smoothing=0.1)
    adjustment = np.log(counts / 100) if rare_classes == "logit adjustment" else 0
    balance = targets @ (100 / (3 * counts)) if rare_classes == "balanced loss" else 1
    losses = -((0.9 * targets + 0.1 / 3) * log_softmax(logits + adjustment, axis=-1)).sum(-1)
    expected = (weights * balance * losses).mean(-1)
    parts = [torch.from_numpy(part).float() for part in (logits, targets, weights)]
    loss = Loss(torch.from_numpy(counts).float(), settings)
    np.testing.assert_allclose(loss(*parts), expected, rtol=1e-6)  # float32
    np.testing.assert_allclose(loss(*(part[0] for part in parts)), expected[0], rtol=1e-6)


def test_in_balanced_batches_weights_tell_pixels_of_a_class_apart_but_not_classes():
    one_hot = torch.eye(2)[[0, 0, 1, 1, 1]]
    weights = torch.tensor([1.0, 3.0, 5.0, 5.0, 20.0])
    assert torch.equal(batch_weights(weights, one_hot, Settings()), weights)
    found = batch_weights(weights, one_hot, Settings(rare_classes="balanced batches"))
    assert found.tolist() == [0.5, 1.5, 0.5, 0.5, 2.0]


# Training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_only_ratios_of_weights_matter_and_those_of_other_pixels_do_not(
    data: Data, quick: Settings, weights: np.ndarray, bytes_of: Any, mixup: float
):
    settings = quick.replace(mixup=mixup, **ALONE)
    expected = bytes_of(fit(*data, settings, weights=weights, device="cpu"))
    others = np.where(data[2].train, 4 * weights, 0)
    labels = xr.DataArray(others, dims=("y", "x"))
    assert bytes_of(fit(*data, settings, weights=labels, device="cpu")) == expected
    assert bytes_of(fit(*data, settings, device="cpu")) != expected
    train = np.argwhere(data[2].train)
    swapped = weights.copy()
    first, second = next((a, b) for a in train for b in train if weights[tuple(a)] != weights[tuple(b)])
    swapped[tuple(first)], swapped[tuple(second)] = weights[tuple(second)], weights[tuple(first)]
    assert bytes_of(fit(*data, settings, weights=swapped, device="cpu")) != expected


def test_labels_of_weight_zero_do_not_train(data: Data, quick: Settings, weights: np.ndarray, bytes_of: Any):
    scene, labels, split = data
    left_out = tuple(np.argwhere(split.train)[0])
    fewer = split.train.copy()
    fewer[left_out] = False
    expected = fit(scene, labels, dataclasses.replace(split, train=fewer), quick, weights=weights, device="cpu")
    weights[left_out] = 0
    found = fit(scene, labels, split, quick, weights=weights, device="cpu")
    expected.card["split"] = found.card["split"]
    assert bytes_of(found) == bytes_of(expected)
    low, high = found.card["labels"]["weights"]
    assert 0 < low < 1 < high
    assert "weights" not in fit(scene, labels, split, quick, device="cpu").card["labels"]


def recall_of_weighted_class(model: str, weight: float) -> float:
    """Of two classes that overlap, the share of the first's pixels that is told, if its labels have a weight."""
    scene, labels = scene_of([60, 60], bands=4, noise=3.0)
    unknown = ("band", np.full(4, np.nan))
    scene = scene.assign_coords({"good": ("band", np.ones(4, bool)), "wavelength": unknown, "fwhm": unknown})
    settings = Settings(model=model, patch=1, steps=60, normalisation="standard", neighbour_difference=0)
    settings = settings.replace(**ALONE)
    weights = np.where(labels.values == 1, weight, 1)
    found = fit(scene, labels, None, settings, weights=weights, device="cpu").predict(scene)
    return float((found.values[labels.values == 1] == 1).mean())


@pytest.mark.parametrize("model", ["spectral_mamba", *SIMPLE_MODELS])
def test_a_class_of_heavier_labels_is_told_more_often(model: str):
    light, heavy = (recall_of_weighted_class(model, weight) for weight in (0.05, 20))
    assert heavy > light + 0.1


def test_a_stopped_training_goes_on_with_its_own_weights_alone(
    data: Data, quick: Settings, weights: np.ndarray, bytes_of: Any, tmp_path: Path
):
    checkpoint = tmp_path / "checkpoint"

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        fit(*data, quick, weights=weights, device="cpu", checkpoint=checkpoint, on_step=stop)
    with pytest.raises(SettingsError, match="of a training with other labels"):
        fit(*data, quick, device="cpu", checkpoint=checkpoint, resume=True)
    found = fit(*data, quick, weights=weights, device="cpu", checkpoint=checkpoint, resume=True)
    assert bytes_of(found) == bytes_of(fit(*data, quick, weights=weights, device="cpu"))


def test_every_seed_has_the_weights(data: Data, quick: Settings, weights: np.ndarray, bytes_of: Any):
    scene, labels, split = data
    found = fit_seeds(scene, labels, {0: split, 3: split}, quick, weights=weights, device="cpu")
    for seed, classifier in found.items():
        alone = fit(scene, labels, split, quick, weights=weights, seed=seed, device="cpu")
        assert bytes_of(classifier) == bytes_of(alone)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.ones((3, 3)), r"different shapes; found \(3, 3\); expected \(12, 12\)"),
        (np.full((12, 12), -1.0), r"weight that cannot be; found -1\.0; expected a finite number"),
        (np.full((12, 12), np.nan), "found nan"),
        (np.zeros((12, 12)), "nothing to tell apart"),
    ],
)
def test_weights_that_cannot_be_are_refused(data: Data, quick: Settings, wrong: np.ndarray, message: str):
    with pytest.raises(LabelError, match=message):
        fit(*data, quick, weights=wrong, device="cpu")


# Beside the network ------------------------------------------------------------------------------


def test_simple_models_are_scikit_learns_with_these_weights():
    settings = Settings(patch=1, normalisation="standard")
    task, weights = weighted_task(settings, at_random)
    spectra = patch_means(task.normalised.pixels, task.positions, 1).double().numpy()
    spectra = (spectra - spectra.mean(0)) / spectra.std(0)
    inputs = inputs_of(task, 1)[task.positions]
    regression = Regression(C=0.01, max_iter=1000).fit(spectra, task.targets.numpy(), weights)
    found = learn_simple("logistic regression", task, settings, 1)(inputs).softmax(1)
    np.testing.assert_allclose(
        found, regression.predict_proba(spectra), atol=1e-4
    )  # float32 and the optimizer's tolerance
    machine = SVC(C=10, gamma=1 / (spectra.shape[1] * spectra.var()), decision_function_shape="ovo")
    machine.fit(spectra, task.targets.numpy(), weights)
    of_pairs = learn_simple("support vectors", task, settings, 1).decisions(inputs)
    np.testing.assert_allclose(of_pairs, machine.decision_function(spectra), atol=2e-3)  # the solver stops at 1e-3


def test_label_propagation_starts_from_the_weights():
    settings = Settings(patch=1, normalisation="standard")
    task, _ = weighted_task(settings, lambda ids: np.where(ids == 1, 50.0, 1.0))
    heavy = propagate_labels(task, settings, 1)
    plain = propagate_labels(dataclasses.replace(task, weights=None), settings, 1)
    ones = propagate_labels(dataclasses.replace(task, weights=torch.ones(len(task.targets))), settings, 1)
    inputs = inputs_of(task, 1)
    shares = [module(inputs).softmax(1)[:, 0].mean() for module in (heavy, plain)]
    assert shares[0] > shares[1] + 0.05
    assert torch.equal(ones(inputs), plain(inputs))


def test_weights_stay_with_their_pixels_when_some_are_left_out_or_added(tiny: Settings):
    task, weights = weighted_task(tiny, at_random)
    np.testing.assert_allclose(task.weights, weights, rtol=1e-6)  # float32
    left_out = np.arange(len(task.targets)) % 3 == 0
    np.testing.assert_array_equal(leave_out(task, left_out).weights, task.weights[~left_out])
    pupil = Pupil(task, tiny)
    pupil.positions, pupil.targets = task.unlabelled[:2], task.targets[:2]
    lesson = pupil.lesson()
    assert lesson.weights is not None
    assert torch.equal(lesson.weights, torch.cat([task.weights, torch.ones(2)]))
    assert task.checksum() != dataclasses.replace(task, weights=None).checksum()
