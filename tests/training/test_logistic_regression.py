"""Logistic regression, as companion of the network and alone; and the other simple models alone: what they learn and keep."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from sklearn.linear_model import LogisticRegression as Regression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from training_example import Data, inputs_of, rewrite, same_tensors, scene_of, task_of

from spectralmamba import Classifier, Settings, fit, fit_seeds, map_scene, split_random
from spectralmamba.errors import ClassifierError, SettingsError
from spectralmamba.models.committee import COMPANIONS, SIMPLE_MODELS, Committee, LogisticRegression
from spectralmamba.pixels import patch_means
from spectralmamba.training import companions
from spectralmamba.training.companions import learn_companion, learn_simple
from spectralmamba.training.task import Task


def learned(task: Task, settings: Settings) -> LogisticRegression:
    found = learn_simple("logistic regression", task, settings, settings.patch)
    assert isinstance(found, LogisticRegression)
    return found


def sharp_means(task: Task, patch: int, positions: Tensor) -> np.ndarray:
    means = patch_means(task.normalised.pixels, positions, patch).double()
    return (means @ task.normalised.sharpening.double()).numpy()


def by_scikit_learn(task: Task, patch: int, **options: Any) -> np.ndarray:
    """scikit-learn's probabilities of all pixels, `(n, K)`."""
    scaler = StandardScaler()
    spectra = scaler.fit_transform(sharp_means(task, patch, task.positions))
    found = Regression(C=0.01, max_iter=1000, **options).fit(spectra, task.targets.numpy())
    everywhere = sharp_means(task, patch, torch.arange(len(task.normalised.pixels)))
    return found.predict_proba(scaler.transform(everywhere))


def members_of(classifier: Classifier) -> tuple[torch.nn.Module, LogisticRegression]:
    assert isinstance(classifier.network, Committee)
    assert isinstance(classifier.network.companion, LogisticRegression)
    return classifier.network.network, classifier.network.companion


# What it decides ---------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("counts", [[8, 8], [40, 3], [8, 8, 8], [30, 2, 1, 9]], ids=str)
def test_probabilities_are_scikit_learns_of_sharpened_standardised_patch_means(counts: list[int], patch: int):
    settings = Settings(patch=patch)
    task = task_of(*scene_of(counts), settings)
    found = learned(task, settings)(inputs_of(task, patch)).softmax(1)
    # Weights are folded together in double precision, and kept and multiplied in float32.
    np.testing.assert_allclose(found.numpy(), by_scikit_learn(task, patch), rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
def test_balanced_classes_weigh_the_same_however_many_labels_they_have(classes: int):
    settings = Settings(patch=1, rare_classes="balanced loss")
    task = task_of(*scene_of([60, *([3] * (classes - 1))], noise=2.5), settings)
    found = learned(task, settings)(inputs_of(task, 1)).softmax(1)
    np.testing.assert_allclose(found.numpy(), by_scikit_learn(task, 1, class_weight="balanced"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalisation", ["standard", "whitening"])
@pytest.mark.parametrize("patch", [1, 3])
def test_constant_bands_decide_nothing_and_warn_of_nothing(normalisation: str, patch: int):
    scene, labels = scene_of([8, 8, 8])
    scene.values[5] = 0.37
    settings = Settings(patch=patch, normalisation=normalisation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = task_of(scene, labels, settings)
        found = learned(task, settings)
    assert all(buffer.isfinite().all() for buffer in found.buffers())
    x = inputs_of(task, patch)
    changed = x.clone()
    changed[:, 5] += 1e-3
    torch.testing.assert_close(found(changed).softmax(1), found(x).softmax(1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("patch", [1, 3])
def test_identical_spectra_of_all_labels_leave_the_classes_shares(patch: int):
    scene, labels = scene_of([9, 3])
    scene.values[:] = scene.values[:, :1, :1]
    settings = Settings(patch=patch)
    task = task_of(scene, labels, settings)
    found = learned(task, settings)(inputs_of(task, patch)).softmax(1)
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.25]]).expand_as(found), rtol=0, atol=1e-3)


def test_of_more_labels_than_it_learns_some_of_each_class_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(companions, "_MOST_REGRESSED", 20)
    settings = Settings(patch=1)
    task = task_of(*scene_of([40, 30, 2]), settings)
    first, again, other = (learned(task, settings.replace(seed=seed)) for seed in (0, 0, 1))
    assert len(first.bias) == 3
    assert same_tensors(first, again)
    assert not same_tensors(first, other)


def test_another_size_than_the_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="as many weight vectors"):
        LogisticRegression(bands=4, classes=3, size=2)


# Beside the network ------------------------------------------------------------------------------


@pytest.mark.parametrize("pseudo_labels", [1, 100])
def test_it_decides_beside_the_network_where_labels_are_few_or_many(pseudo_labels: int):
    settings = Settings(patch=1, pseudo_labels=pseudo_labels)
    task = task_of(*scene_of([8, 8]), settings)
    assert isinstance(learn_companion(task, settings.replace(companion="logistic regression"), 1), LogisticRegression)
    others = (learn_companion(task, settings.replace(companion=kind), 1) for kind in ("label propagation", "none"))
    assert [other is None for other in others] == [pseudo_labels == 1, True]


@pytest.mark.parametrize("pseudo_labels", [1, 100])
@pytest.mark.parametrize("patch", [1, 3])
def test_probabilities_are_half_the_networks_and_half_the_regressions(
    data: Data, quick: Settings, small_scene: xr.DataArray, patch: int, pseudo_labels: int
):
    changes = {"companion": "logistic regression", "patch": patch, "pseudo_labels": pseudo_labels}
    classifier = fit(*data, quick, device="cpu", **changes)
    assert classifier.card["model"]["companion"] == {"kind": "logistic regression", "size": 3}
    both = classifier.predict_proba(small_scene).values
    network, regression = (
        dataclasses.replace(classifier, network=member, sets=None).predict_proba(small_scene).values
        for member in members_of(classifier)
    )
    # Through logarithms and back in float32.
    np.testing.assert_allclose(both, (network + regression) / 2, rtol=5e-6)
    assert np.nanmax(np.abs(network - regression)) > 0.01


def test_with_the_regression_a_classifier_is_read_as_it_was_written(
    data: Data, quick: Settings, small_scene: xr.DataArray, tmp_path: Path
):
    classifier = fit(*data, quick, device="cpu", companion="logistic regression")
    classifier.save(tmp_path / "model.safetensors")
    again = Classifier.load(tmp_path / "model.safetensors", "cpu")
    assert again.card == classifier.card
    xr.testing.assert_identical(again.predict_proba(small_scene), classifier.predict_proba(small_scene))
    xr.testing.assert_identical(again.predict_sets(small_scene), classifier.predict_sets(small_scene))


def test_a_regression_beside_the_network_of_another_size_than_the_classes_is_refused(
    data: Data, quick: Settings, tmp_path: Path
):
    file = tmp_path / "model.safetensors"
    fit(*data, quick, device="cpu", companion="logistic regression").save(file)
    rewrite(file, lambda model, _: model["companion"].update(size=4))
    with pytest.raises(ClassifierError, match="weight vectors"):
        Classifier.load(file, "cpu")


# Simple models alone -----------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("name", SIMPLE_MODELS)
def test_a_simple_model_learns_maps_and_is_read_as_it_was_written(
    name: str,
    patch: int,
    classes: int,
    small_scene: xr.DataArray,
    small_labels: xr.DataArray,
    quick: Settings,
    tmp_path: Path,
):
    steps: list[int] = []
    labels = small_labels.where(small_labels <= classes, 0)
    split = split_random(labels, per_class=4, patch=patch)
    classifier = fit(
        small_scene,
        labels,
        split,
        quick,
        model=name,
        patch=patch,
        self_training_rounds=2,
        device="cpu",
        on_step=lambda progress: steps.append(progress.step),
    )
    assert steps == []
    assert type(classifier.network) is COMPANIONS[SIMPLE_MODELS[name]]
    assert classifier.card["model"]["name"] == classifier.card["settings"]["model"] == name
    assert classifier.card["model"]["companion"] is None
    assert classifier.card["model"]["parameters"] == 0
    assert classifier.card["choice"] is None
    assert classifier.card["self_training"]["rounds"] == 0
    assert classifier.sets is not None
    assert classifier.novelty is not None
    classifier.save(tmp_path / "model.safetensors")
    again = Classifier.load(tmp_path / "model.safetensors", "cpu")
    assert again.card == classifier.card
    files = map_scene(again, small_scene, tmp_path / "map.tif", tile=5)
    with rasterio.open(files.classes) as raster:
        np.testing.assert_array_equal(raster.read(1), classifier.predict(small_scene).values)
        assert raster.tags()["MODEL"] == f"{name}, patch {patch}"
    for tile, same in zip(classifier.tiles(small_scene), again.tiles(small_scene), strict=True):
        for found, expected in zip(same[2:], tile[2:], strict=True):
            np.testing.assert_array_equal(found, expected)
    right = (classifier.predict(small_scene).values == labels.values)[split.train]
    assert right.mean() > 0.9  # of labels that it has learned


def test_the_sets_of_label_propagation_alone_are_of_its_own_probabilities(
    data: Data, quick: Settings, small_scene: xr.DataArray
):
    classifier = fit(*data, quick, model="label_propagation", device="cpu")
    card = classifier.card["prediction_sets"]
    assert card["size"] is None
    expected = classifier.predict_proba(small_scene).values >= card["threshold"]
    np.testing.assert_array_equal(classifier.predict_sets(small_scene).values, expected)


@pytest.mark.parametrize("name", SIMPLE_MODELS)
def test_a_simple_model_learned_again_or_among_several_seeds_gives_the_same_file(
    name: str, data: Data, quick: Settings, bytes_of: Callable[[Classifier], bytes]
):
    scene, labels, split = data
    together = fit_seeds(scene, labels, {0: split, 5: None}, quick, model=name, device="cpu")
    for seed, used in ((0, split), (5, None)):
        alone = fit(scene, labels, used, quick, model=name, seed=seed, device="cpu")
        assert bytes_of(together[seed]) == bytes_of(alone)


@pytest.fixture(params=SIMPLE_MODELS)
def simple_file(request: pytest.FixtureRequest, data: Data, quick: Settings, tmp_path: Path) -> Path:
    """The file of a simple model."""
    fit(*data, quick, model=request.param, device="cpu").save(tmp_path / "simple.safetensors")
    return tmp_path / "simple.safetensors"


def test_a_card_without_or_with_a_wrong_size_is_refused(simple_file: Path):
    whole = simple_file.read_bytes()
    right = Classifier.load(simple_file, "cpu").card["model"]["size"]
    for wrong in (right + 1, right - 1, 0, -1, 10**30, float(right), str(right), True, None, [right]):
        simple_file.write_bytes(whole)
        rewrite(simple_file, lambda model, _, size=wrong: model.update(size=size))
        with pytest.raises(ClassifierError) as refused:
            Classifier.load(simple_file, "cpu")
        assert str(simple_file) in str(refused.value)
    simple_file.write_bytes(whole)
    rewrite(simple_file, lambda model, _: model.pop("size"))
    with pytest.raises(ClassifierError, match="does not describe a classifier"):
        Classifier.load(simple_file, "cpu")


def test_a_card_that_names_another_model_is_refused(simple_file: Path):
    whole = simple_file.read_bytes()
    named = Classifier.load(simple_file, "cpu").card["model"]["name"]
    for other in ({*SIMPLE_MODELS, "spectral_mamba", "auto", "oracle"}) - {named}:
        simple_file.write_bytes(whole)
        rewrite(simple_file, lambda model, _, name=other: model.update(name=name))
        with pytest.raises(ClassifierError):
            Classifier.load(simple_file, "cpu")


@pytest.mark.parametrize("classes", [64, 65])
def test_support_vectors_alone_refuse_more_than_64_classes(classes: int, quick: Settings, small_scene: xr.DataArray):
    labels = xr.DataArray(np.zeros((12, 12), np.int64), dims=("y", "x"))
    places = np.flatnonzero(np.isfinite(small_scene.values).all(0))[:classes]
    labels.values.flat[places] = np.arange(1, classes + 1)
    changes = {"model": "support_vectors", "device": "cpu"}
    if classes == 64:
        assert len(fit(small_scene, labels, None, quick, **changes).classes) == 64
        return
    with pytest.raises(SettingsError, match=r"fewer classes; found 65; expected at most 64\. Choose another model\."):
        fit(small_scene, labels, None, quick, **changes)
