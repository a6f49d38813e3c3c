"""Prediction sets: how often they hold the true class, what they are learned from, and that files and tiles leave them alone."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from training_example import SIDE, Data, same_tensors, scene_from

from spectralmamba import Classifier, Settings, Split, fit, fit_seeds, simulate_scene, split_disjoint, split_random
from spectralmamba.errors import ClassifierError, SettingsError
from spectralmamba.models.committee import Committee, LabelPropagation, SupportVectorMachine
from spectralmamba.models.prediction_sets import PredictionSets
from spectralmamba.pixels import Pixels
from spectralmamba.training import prediction_sets
from spectralmamba.training.companions import propagate_labels
from spectralmamba.training.folds import FOLDS
from spectralmamba.training.prediction_sets import _quantile, learn_prediction_sets
from spectralmamba.training.task import Task, prepare

# Of the small scene's twelve training labels not one may be missed at 0.9: sets would hold every class.
COVERAGE = 0.6


@pytest.fixture(scope="session")
def fast() -> Settings:
    """A training whose network knows nothing, which sets do not ask."""
    return Settings(
        steps=1, patch=1, batch_size=8, model_options={"width": 8, "states": 2}, self_training_rounds=0,
        set_coverage=COVERAGE,
    )  # fmt: skip


def task_of_scene(scene: xr.DataArray, labels: xr.DataArray, split: Split | None, settings: Settings) -> Task:
    return prepare(Pixels.from_scene(scene, np.flatnonzero(scene["good"].values)), labels, {0: split}, settings)[0]


def held(classifier: Classifier, scene: xr.DataArray, labels: xr.DataArray, split: Split) -> float:
    """The share of test pixels whose set holds their class."""
    sets = classifier.predict_sets(scene)
    return float((sets & (sets["class"] == labels)).any("class").values[split.test].mean())


def sizes_of(sets: xr.DataArray) -> np.ndarray:
    return sets.values.sum(0)


# The weighted quantile ---------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["0.5", "0.8", "0.9", "0.95", "0.99"])
def test_of_labels_of_equal_weight_the_quantile_is_the_usual_one_of_split_conformal_prediction(level: str):
    """The ⌈(n + 1) level⌉-th smallest score (Angelopoulos & Bates 2021, arXiv 2107.07511, section 1), of scores in any order."""
    for count in (1, 2, 5, 9, 10, 19, 20, 99, 100, 101):
        scores = np.random.default_rng(count).permutation(np.arange(1, count + 1)) / 1000
        place = math.ceil((count + 1) * Fraction(level))
        assert _quantile(scores, np.ones(count), float(level)) == (place / 1000 if place <= count else 1.0), count


def test_only_the_ratio_of_weights_counts():
    for count in range(1, 60):
        scores = np.arange(1, count + 1) / 1000
        expected = _quantile(scores, np.ones(count), 0.9)
        for weight in (1 / count, 1 / 3, 0.1, 1e-3):
            assert _quantile(scores, np.full(count, weight), 0.9) == expected, (count, weight)


def test_a_score_counts_as_often_as_it_weighs():
    scores, weights = np.array([0.3, 0.1, 0.2]), np.array([1.0, 6.0, 2.0])
    # Sums of weight are 6, 8 and 9, of 12 to 14 with a further pixel's.
    assert _quantile(scores, weights, 0.4) == 0.1
    assert _quantile(scores, weights, 0.55) == 0.2
    assert _quantile(scores, weights, 0.99) == 1


@pytest.mark.parametrize(("count", "level"), [(1, 0.6), (4, 0.9), (8, 0.9), (18, 0.95)])
def test_with_too_few_labels_for_the_coverage_every_class_is_in_the_set(count: int, level: float):
    threshold = 1 - _quantile(np.linspace(0.1, 0.2, count), np.ones(count), level)
    sets = PredictionSets()
    sets.threshold.fill_(threshold)
    assert sets(torch.tensor([[0.0, -200.0, -torch.inf], [50.0, 0.0, 0.0]])).all()


@pytest.mark.parametrize("score", [0.0, 0.55, 0.99])
def test_labels_of_a_class_that_the_map_does_not_hold_do_not_count(score: float):
    scores, weights = np.arange(1, 10) / 10, np.ones(9)
    for level in (0.5, 0.85, 0.95):
        expected = _quantile(scores, weights, level)
        more = np.append(scores, np.full(30, score)), np.append(weights, np.zeros(30))
        assert _quantile(*more, level) == expected, level


@pytest.mark.parametrize("score", [0.0, 0.55, 0.99])
def test_the_score_of_a_label_without_weight_is_never_the_quantile(score: float):
    scores, weights = np.append(np.arange(1, 10) / 10, np.full(30, score)), np.append(np.ones(9), np.zeros(30))
    assert {_quantile(scores, weights, level) for level in np.linspace(0.05, 0.95, 19)} <= {
        *(np.arange(1, 10) / 10),
        1.0,
    }


def test_labels_none_of_whose_classes_the_map_holds_tell_nothing_and_every_class_is_in_the_set():
    assert _quantile(np.array([0.1, 0.2, 0.3]), np.zeros(3), 0.9) == 1


# Coverage ----------------------------------------------------------------------------------------


# Of 80 labels, the coverage of one scene scatters by √(c (1 − c) / 80), the mean of 12 by 0.010 or 0.013: three of these to
# either side. Above there are 0.02 more, since folds learn a fifth less than the propagation that decides.
@pytest.mark.parametrize(("coverage", "least", "most"), [(0.9, 0.87, 0.95), (0.8, 0.76, 0.86)])
def test_sets_hold_the_class_of_test_pixels_as_often_as_asked(
    fast: Settings, coverage: float, least: float, most: float
):
    found, sizes = [], []
    for seed in range(12):
        scene, labels = simulate_scene(rows=28, columns=28, bands=20, classes=4, seed=seed, noise=3)
        split = split_random(labels, per_class=20, seed=seed)
        classifier = fit(scene, labels, split, fast, seed=seed, set_coverage=coverage, device="cpu")
        found.append(held(classifier, scene, labels, split))
        sizes.append(sizes_of(classifier.predict_sets(scene))[split.test].mean())
    assert least <= np.mean(found) <= most
    assert np.mean(sizes) < 3.5  # which sets of every class would not


def test_where_tests_are_apart_neighbours_have_to_be_left_out_together_for_sets_to_hold_the_class_as_often_as_asked():
    together, one_by_one = [], []
    for seed in range(4):
        scene, labels = simulate_scene(rows=48, columns=48, bands=16, classes=3, seed=seed)
        split = split_disjoint(labels, block_size=12, seed=seed)
        settings = Settings(patch=1, seed=seed)
        task = task_of_scene(scene, labels, split, settings)
        propagation = propagate_labels(task, settings, 1)
        pixels = task.normalised.pixels
        tested = pixels.at(split.test)
        ids = labels.values[pixels.rows[tested], pixels.columns[tested]]
        truth = torch.from_numpy(np.searchsorted(task.classes, ids))
        for apart, found in ((True, together), (False, one_by_one)):
            learned = learn_prediction_sets(dataclasses.replace(task, apart=apart), settings, 1, propagation)
            assert learned is not None
            sets = learned[0](propagation(pixels.values[tested]))
            found.append(float(sets[torch.arange(len(truth)), truth].double().mean()))
    assert np.mean(one_by_one) < 0.87 < 0.9 <= np.mean(together)


def test_sets_of_a_higher_coverage_hold_those_of_a_lower_one(data: Data, fast: Settings):
    scene, labels, _ = data
    split = split_random(labels, per_class=12)
    sets = [
        fit(scene, labels, split, fast, set_coverage=level, device="cpu").predict_sets(scene)
        for level in (0.3, 0.6, 0.9)
    ]
    for fewer, more in pairwise(sets):
        assert not (fewer & ~more).any()
        assert fewer.sum() < more.sum()


def test_with_too_few_labels_for_the_coverage_sets_hold_all_classes_wherever_there_is_data(data: Data, fast: Settings):
    sets = fit(*data, fast, set_coverage=0.999, device="cpu").predict_sets(data[0])
    valid = np.isfinite(data[0].values).all(0)
    np.testing.assert_array_equal(sets.values, np.broadcast_to(valid, sets.shape))


def constant_scene(of_pixel: np.ndarray, spectra: np.ndarray) -> tuple[xr.DataArray, xr.DataArray]:
    """A scene whose pixels are their class' spectrum, and the labels of them all."""
    unknown = ("band", np.full(spectra.shape[1], np.nan))
    coordinates = {"good": ("band", np.ones(spectra.shape[1], bool)), "wavelength": unknown, "fwhm": unknown}
    labels = xr.DataArray((of_pixel + 1).reshape(SIDE, SIDE), dims=("y", "x"))
    return scene_from(spectra[of_pixel]).assign_coords(coordinates), labels


@pytest.mark.parametrize("normalisation", ["standard", "whitening"])
@pytest.mark.parametrize("classes", [2, 3])
def test_classes_that_nothing_confuses_have_sets_of_themselves_alone(fast: Settings, classes: int, normalisation: str):
    of_pixel = np.random.default_rng(0).integers(0, classes, SIDE * SIDE)
    scene, labels = constant_scene(of_pixel, 5 * np.random.default_rng(1).normal(size=(classes, 6)))
    split = split_random(labels, per_class=20)
    sets = fit(scene, labels, split, fast, set_coverage=0.9, normalisation=normalisation, device="cpu").predict_sets(
        scene
    )
    np.testing.assert_array_equal(sets.values, sets["class"].values[:, None, None] == labels.values)


@pytest.mark.parametrize(
    "classes",
    [
        2,
        3,
        6,
    ],
)
def test_spectra_that_are_all_the_same_may_be_of_any_class(fast: Settings, classes: int):
    scene, labels = constant_scene(np.arange(SIDE * SIDE) % classes, np.ones((classes, 6)))
    classifier = fit(scene, labels, split_random(labels, per_class=20), fast, set_coverage=0.9, device="cpu")
    assert classifier.predict_sets(scene).all()


# What they are learned from ----------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Task, Tensor, Tensor]]:
    """What propagations are asked for while sets are learned: the task they have learned, the positions, their answer."""
    heard: list[tuple[Task, Tensor, Tensor]] = []
    tasks: dict[int, Task] = {}
    probabilities = prediction_sets._probabilities

    def learned(task: Task, settings: Settings, patch: int) -> LabelPropagation:
        found = propagate_labels(task, settings, patch)
        tasks[id(found)] = task
        kept.append(found)
        return found

    def answered(propagation: LabelPropagation, task: Task, positions: Tensor, patch: int) -> Tensor:
        found = probabilities(propagation, task, positions, patch)
        heard.append((tasks[id(propagation)], positions, found))
        return found

    kept: list[LabelPropagation] = []  # so that no other gets its id
    monkeypatch.setattr(prediction_sets, "propagate_labels", learned)
    monkeypatch.setattr(prediction_sets, "_probabilities", answered)
    return heard


def few(scene: xr.DataArray, labels: xr.DataArray, split: Split | None, **changes: Any) -> tuple[Task, Settings]:
    settings = Settings(patch=1, set_coverage=COVERAGE, **changes)
    return task_of_scene(scene, labels, split, settings), settings


def test_every_label_is_asked_once_of_a_propagation_that_has_not_learned_it_and_the_training_side_of_the_last(
    data: Data, asked: list[tuple[Task, Tensor, Tensor]]
):
    task, settings = few(*data)
    learn_prediction_sets(task, settings, 1, None)
    assert len(asked) == FOLDS + 1
    for learned, positions, _ in asked[:-1]:
        assert not torch.isin(positions, learned.positions).any()
        assert len(learned.positions) + len(positions) == len(task.positions)
    assert sorted(torch.cat([positions for _, positions, _ in asked[:-1]]).tolist()) == task.positions.tolist()
    learned, positions, _ = asked[-1]
    assert torch.equal(positions, task.training_side)
    assert learned is task


def test_labels_weigh_as_much_together_as_their_class_has_a_share_in_the_map_however_many_they_are(
    data: Data, asked: list[tuple[Task, Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
):
    scene, labels, split = data
    train = split.train.copy()
    train[tuple(np.argwhere(train & (labels.values == 1))[2:].T)] = False  # two of four labels
    task, settings = few(scene, labels, dataclasses.replace(split, train=train))
    seen: list[tuple[np.ndarray, np.ndarray, float]] = []
    monkeypatch.setattr(prediction_sets, "_quantile", lambda *given: seen.append(given) or _quantile(*given))
    learned = learn_prediction_sets(task, settings, 1, None)
    ((scores, weights, level),) = seen
    of_label = dict(zip(task.positions.tolist(), task.targets.tolist(), strict=True))
    target = np.array([of_label[place] for _, positions, _ in asked[:-1] for place in positions.tolist()])
    assert len(set(np.bincount(target))) > 1
    shares = np.bincount(asked[-1][2].argmax(1).numpy(), minlength=3) / len(task.training_side)
    np.testing.assert_allclose(np.bincount(target, weights), shares, rtol=1e-12)
    truth = torch.cat([found for _, _, found in asked[:-1]])[torch.arange(len(target)), torch.from_numpy(target)]
    np.testing.assert_array_equal(scores, -truth.double().numpy())
    assert learned is not None
    assert level == COVERAGE
    assert float(learned[0].threshold) == pytest.approx(
        -_quantile(scores, weights, COVERAGE), rel=1e-4, abs=1e-6
    )  # float32


def test_spectra_far_from_training_and_test_labels_have_no_influence(halved: Data):
    scene, labels, split = halved
    changed, other = scene.copy(deep=True), labels.copy(deep=True)
    changed.values[..., ~split.training_side] *= 2
    other.values[~split.train & (labels.values > 0)] = 1
    found = []
    for each, ids in ((scene, labels), (changed, labels), (scene, other)):
        task, settings = few(each, ids, split)
        learned = learn_prediction_sets(task, settings, 1, None)
        assert learned is not None
        found.append(learned[1])
    assert found[0] == found[1] == found[2]


def test_the_card_tells_what_the_sets_are(data: Data, fast: Settings):
    scene, labels, split = data
    for used, labelled, how in (
        (split, 12, "labels at random"),
        (split_disjoint(labels, block_size=2), None, "neighbouring labels together"),
    ):
        classifier = fit(scene, labels, used, fast, device="cpu")
        entry, sets = classifier.card["prediction_sets"], classifier.sets
        if sets is None:
            assert entry is None
            continue
        assert entry["coverage"] == COVERAGE
        assert entry["threshold"] == float(sets.threshold)
        assert entry["left_out"] == how
        assert entry["labels"] == (labelled or entry["labels"])
        assert 0 <= entry["accuracy_left_out"] <= 1
        json.dumps(entry, allow_nan=False)


def test_folds_are_as_random_as_the_seed_says(fast: Settings):
    scene, labels = simulate_scene(rows=16, columns=16, bands=12, classes=2, noise=3)
    split = split_random(labels, per_class=12)
    first, again, other = (
        fit(scene, labels, split, fast, seed=seed, device="cpu").card["prediction_sets"] for seed in (0, 0, 1)
    )
    assert first == again
    assert first["threshold"] != other["threshold"]


# Whatever decides ---------------------------------------------------------------------------------


DECIDING: dict[str, dict[str, Any]] = {
    "label propagation": {},
    "support vectors": {"companion": "support vectors"},
    "network alone": {"companion": "none"},
    "many labels": {"pseudo_labels": 2},  # network alone, too
}


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("deciding", list(DECIDING)[1:])
def test_sets_are_the_same_whatever_decides_and_their_own_propagation_is_kept_with_them(
    data: Data, fast: Settings, deciding: str, patch: int
):
    scene = data[0]
    expected = fit(*data, fast, patch=patch, device="cpu")
    found = fit(*data, fast, patch=patch, device="cpu", **DECIDING[deciding])
    assert isinstance(expected.network, Committee)
    assert isinstance(expected.network.companion, LabelPropagation)
    assert isinstance(getattr(found.network, "companion", None), SupportVectorMachine) == (
        deciding == "support vectors"
    )
    assert expected.sets is not None
    assert found.sets is not None
    assert expected.sets.propagation is None
    assert found.sets.propagation is not None
    assert same_tensors(found.sets.propagation, expected.network.companion)
    assert found.card["prediction_sets"] == expected.card["prediction_sets"] | {"size": found.sets.propagation.size}
    assert 0 < sizes_of(expected.predict_sets(scene)).mean() < 3
    xr.testing.assert_identical(found.predict_sets(scene), expected.predict_sets(scene))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("deciding", DECIDING)
def test_without_coverage_there_are_no_sets_and_the_map_is_the_same(data: Data, fast: Settings, deciding: str):
    scene = data[0]
    with_sets, without = (
        fit(*data, fast, device="cpu", set_coverage=coverage, **DECIDING[deciding]) for coverage in (COVERAGE, 0)
    )
    assert (without.sets, without.card["prediction_sets"]) == (None, None)
    assert [tile.sets for tile in without.tiles(scene, size=6)] == [None] * 4
    xr.testing.assert_identical(without.predict_proba(scene), with_sets.predict_proba(scene))
    with pytest.raises(ClassifierError, match="set_coverage above 0"):
        without.predict_sets(scene)


@pytest.mark.parametrize("coverage", [-0.1, 0.9995, 1, math.nan, math.inf, "0.9", True, None])
def test_a_coverage_that_sets_cannot_have_is_refused(coverage: Any):
    with pytest.raises(SettingsError, match="set_coverage"):
        Settings(set_coverage=coverage)


def test_with_one_label_a_class_there_are_no_sets(data: Data, fast: Settings, tmp_path: Path):
    scene, labels, _ = data
    split = split_random(labels, per_class=1)
    classifier = fit(scene, labels, split, fast, device="cpu")
    assert (classifier.sets, classifier.card["prediction_sets"]) == (None, None)
    classifier.save(tmp_path / "model.safetensors")
    with pytest.raises(ClassifierError, match="at least 2 labels in different places"):
        Classifier.load(tmp_path / "model.safetensors", "cpu").predict_sets(scene)


def test_two_labels_of_one_class_are_enough_for_sets(data: Data, fast: Settings):
    scene, labels, split = data
    train = split_random(labels, per_class=1).train
    row, column = np.argwhere((labels.values == 2) & ~train)[0]
    train[row, column] = True
    classifier = fit(
        scene, labels, dataclasses.replace(split, train=train, test=split.test & ~train), fast, device="cpu"
    )
    assert classifier.card["prediction_sets"]["labels"] == 2
    assert classifier.card["prediction_sets"]["folds"] == 2
    assert classifier.predict_sets(scene).shape == (3, *labels.shape)


def test_a_class_whose_labels_are_never_left_out_is_in_sets_nevertheless(fast: Settings):
    of_pixel = np.arange(SIDE * SIDE) % 3
    scene, labels = constant_scene(of_pixel, 5 * np.random.default_rng(1).normal(size=(3, 6)))
    split = split_random(labels, per_class=20)
    train = split.train.copy()
    train[tuple(np.argwhere(train & (labels.values == 3))[1:].T)] = False
    classifier = fit(scene, labels, dataclasses.replace(split, train=train), fast, device="cpu")
    assert classifier.card["prediction_sets"]["labels"] == 40
    # What labels of the other classes tell of the threshold is all that is known.
    sets = classifier.predict_sets(scene).values
    assert sets[2][labels.values == 3].all()


@pytest.mark.parametrize("apart", [False, True])
def test_two_classes_have_sets(fast: Settings, apart: bool):
    scene, labels = simulate_scene(rows=40, columns=40, bands=12, classes=2, noise=2)
    split = split_disjoint(labels, block_size=10) if apart else split_random(labels, per_class=12)
    sets = fit(scene, labels, split, fast, device="cpu").predict_sets(scene)
    assert sets["class"].values.tolist() == [1, 2]
    assert {0, 1} <= set(np.unique(sizes_of(sets))) <= {0, 1, 2}


# Files, tiles, seeds ------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("deciding", DECIDING)
def test_a_classifier_that_is_read_again_has_the_same_sets_bit_for_bit(
    data: Data, fast: Settings, tmp_path: Path, bytes_of: Callable[[Classifier], bytes], deciding: str, patch: int
):
    classifier = fit(*data, fast, patch=patch, device="cpu", **DECIDING[deciding])
    classifier.save(tmp_path / "model.safetensors")
    again = Classifier.load(tmp_path / "model.safetensors", "cpu")
    assert classifier.sets is not None
    assert again.sets is not None
    assert same_tensors(again.sets, classifier.sets)
    assert again.card == classifier.card
    xr.testing.assert_identical(again.predict_sets(data[0]), classifier.predict_sets(data[0]))
    assert bytes_of(again) == (tmp_path / "model.safetensors").read_bytes()


def test_every_seed_has_the_sets_that_fit_gives_it(data: Data, fast: Settings):
    scene, labels, split = data
    other = split_random(labels, per_class=12)
    for deciding in ({}, {"companion": "none"}):
        together = fit_seeds(scene, labels, {0: split, 5: other, 6: split}, fast, device="cpu", **deciding)
        for seed, used in ((0, split), (5, other), (6, split)):
            alone = fit(scene, labels, used, fast, seed=seed, device="cpu", **deciding)
            assert together[seed].card["prediction_sets"] == alone.card["prediction_sets"] != None  # noqa: E711
            xr.testing.assert_identical(together[seed].predict_sets(scene), alone.predict_sets(scene))


@pytest.fixture(scope="module")
def both(fast: Settings) -> tuple[xr.DataArray, dict[str, Classifier]]:
    """A scene with nodata, and classifiers of it whose sets are of the companion and of a propagation of their own."""
    scene, labels = simulate_scene(rows=16, columns=18, bands=20, classes=3, noise=2)
    split = split_random(labels, per_class=8)
    return scene, {
        deciding: fit(scene, labels, split, fast, patch=3, device="cpu", **DECIDING[deciding])
        for deciding in ("label propagation", "network alone")
    }


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("deciding", ["label propagation", "network alone"])
@pytest.mark.parametrize(
    "options", [{"size": 1}, {"size": 5}, {"size": 17}, {"batch_size": 1}, {"batch_size": 7}], ids=str
)
def test_sets_do_not_depend_on_tiles_and_batches(
    both: tuple[xr.DataArray, dict[str, Classifier]], options: dict[str, int], deciding: str
):
    """Products of another size add up in another order, by which no probability here comes to the threshold's other side."""
    scene, classifiers = both
    found = np.ones((3, *scene.shape[1:]), bool)
    for tile in classifiers[deciding].tiles(scene, **options):
        assert tile.sets is not None
        found[:, tile.rows, tile.columns] = tile.sets
    expected = classifiers[deciding].predict_sets(scene)
    np.testing.assert_array_equal(found, expected.values)
    assert len(np.unique(sizes_of(expected))) > 1


@pytest.mark.parametrize("deciding", ["label propagation", "network alone"])
def test_sets_lie_on_the_scenes_grid_with_none_at_nodata(
    both: tuple[xr.DataArray, dict[str, Classifier]], deciding: str
):
    scene, classifiers = both
    sets = classifiers[deciding].predict_sets(scene)
    assert sets.dims == ("class", "y", "x")
    assert sets.dtype == np.bool_
    assert sets["class"].values.tolist() == [1, 2, 3]
    assert sets.rio.crs == scene.rio.crs
    assert sets.rio.transform() == scene.rio.transform()
    valid = np.isfinite(scene.values).all(0)
    assert 0 < valid.sum() < valid.size
    assert not sets.values[:, ~valid].any()
    nothing = scene.copy(deep=True)
    nothing.values[:] = np.nan
    assert not classifiers[deciding].predict_sets(nothing).any()


def test_pixels_that_are_not_asked_for_have_empty_sets(both: tuple[xr.DataArray, dict[str, Classifier]]):
    scene, classifiers = both
    where = np.zeros(scene.shape[1:], bool)
    where[8:, 9:] = True
    for classifier in classifiers.values():
        (tile,) = classifier.tiles(scene, where=where)
        np.testing.assert_array_equal(tile.sets, classifier.predict_sets(scene).values & where)


# Damaged files -----------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> None:
    """Change the card and the tensors of a classifier's file."""
    with safe_open(path, framework="pt") as opened:
        card = json.loads(opened.metadata()["card"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    change(card, tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"card": json.dumps(card)})


def _entry(**values: Any) -> Callable[[dict[str, Any], dict[str, Tensor]], object]:
    return lambda card, _: card["prediction_sets"].update(values)


def _without(*names: str) -> Callable[[dict[str, Any], dict[str, Tensor]], object]:
    return lambda card, _: [card["prediction_sets"].pop(name) for name in names]


def _instead(value: Any) -> Callable[[dict[str, Any], dict[str, Tensor]], object]:
    return lambda card, _: card.update(prediction_sets=value)


def _tensor(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Any], dict[str, Tensor]], object]:
    return lambda _, tensors: tensors.update({name: change(tensors[name])})


WRONG: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], object]] = {
    **{f"entry {value!r}": _instead(value) for value in (3, 0, 1.5, "sets", "", [], ["size"], {}, True, False, None)},
    "no entry": lambda card, _: card.pop("prediction_sets"),
    **{f"no {name}": _without(name) for name in ("size", "coverage", "threshold", "labels", "left_out")},
    **{f"size {value!r}": _entry(size=value) for value in (0, -1, 1, 65535, 10**6, 10**15, 2.0, "3", True, [3], {})},
    **{f"coverage {value!r}": _entry(coverage=value) for value in (0, -0.5, 1.5, "0.9", None, [])},
    **{f"threshold {value!r}": _entry(threshold=value) for value in (-0.1, 1.1, "0.1", None, {})},
    **{f"labels {value!r}": _entry(labels=value) for value in (-3, 2.5, "12", None, True)},
    **{f"left_out {value!r}": _entry(left_out=value) for value in (3, None, ["one by one"])},
    "threshold of two": _tensor("sets.threshold", lambda found: found.expand(2)),
    "threshold in float64": _tensor("sets.threshold", Tensor.double),
    "NaN threshold": _tensor("sets.threshold", lambda found: found * torch.nan),
    "no threshold tensor": lambda _, tensors: tensors.pop("sets.threshold"),
    "a stranger": lambda _, tensors: tensors.update({"sets.more": torch.zeros(1)}),
}
OTHERWISE: dict[str, dict[str, Callable[[dict[str, Any], dict[str, Tensor]], object]]] = {
    "label propagation": {
        "another companion": lambda card, _: card["model"].update(companion=None),
        "a propagation of their own": lambda card, tensors: tensors.update(
            {f"sets.propagation.{name}": torch.zeros(1) for name in ("sharpening", "blunt.gamma")}
        ),
    },
    "network alone": {
        "no propagation": _entry(size=None),
        "a node less": lambda card, _: card["prediction_sets"].update(size=card["prediction_sets"]["size"] - 1),
        "NaN in shares": _tensor("sets.propagation.blunt.shares", lambda found: found * torch.nan),
        "a class less": _tensor("sets.propagation.blunt.shares", lambda found: found[:, 1:]),
        "no spectra": lambda _, tensors: tensors.pop("sets.propagation.sharp.support"),
    },
    "support vectors": {"no propagation": _entry(size=None)},
}


@pytest.fixture(scope="module")
def files(fast: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of classifiers of two classes, by what decides."""
    scene, labels = simulate_scene(rows=8, columns=8, bands=8, classes=2)
    found = {}
    for deciding in OTHERWISE:
        found[deciding] = tmp_path_factory.mktemp("sets") / "model.safetensors"
        fit(scene, labels, split_random(labels, per_class=3), fast, device="cpu", **DECIDING[deciding]).save(
            found[deciding]
        )
    return found


@pytest.mark.parametrize(
    ("deciding", "wrong"),
    [(deciding, wrong) for deciding, more in OTHERWISE.items() for wrong in (WRONG | more)],
)
def test_a_file_whose_sets_do_not_fit_its_card_is_refused(
    files: dict[str, Path], tmp_path: Path, deciding: str, wrong: str
):
    path = tmp_path / "model.safetensors"
    path.write_bytes(files[deciding].read_bytes())
    Classifier.load(path, "cpu")
    rewrite(path, (WRONG | OTHERWISE[deciding])[wrong])
    with pytest.raises(ClassifierError) as refused:
        Classifier.load(path, "cpu")
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("deciding", OTHERWISE)
def test_a_file_of_before_sets_is_read_and_maps_the_same(files: dict[str, Path], tmp_path: Path, deciding: str):
    def older(card: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        del card["prediction_sets"]
        for name in [name for name in tensors if name.startswith("sets.")]:
            del tensors[name]

    path, (scene, _) = tmp_path / "model.safetensors", simulate_scene(rows=8, columns=8, bands=8, classes=2)
    path.write_bytes(files[deciding].read_bytes())
    expected = Classifier.load(path, "cpu").predict_proba(scene)
    rewrite(path, older)
    classifier = Classifier.load(path, "cpu")
    assert classifier.sets is None
    xr.testing.assert_identical(classifier.predict_proba(scene), expected)
