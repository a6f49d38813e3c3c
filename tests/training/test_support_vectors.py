"""A support vector machine as companion of the network: what it learns, decides, costs and keeps."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from scipy.special import expit, softmax
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn
from training_example import BANDS, Data, inputs_of, rewrite, same_tensors, scene_of, stopped_and_resumed, task_of

from spectralmamba import Classifier, Settings, fit, fit_seeds, map_scene
from spectralmamba.errors import ClassifierError, TrainingInterrupted
from spectralmamba.models.committee import _STEEPNESS, _VOTE, Committee, SupportVectorMachine
from spectralmamba.pixels import Pixels, patch_means
from spectralmamba.training import companions, fitting
from spectralmamba.training.companions import _of_each_class, learn_companion
from spectralmamba.training.draws import Purpose, generator
from spectralmamba.training.self_training import Pupil
from spectralmamba.training.task import Task

COUNTS = {
    "equal": lambda classes: [8] * classes,
    "very different": lambda classes: [70, *([2, 1, 9] * classes)[: classes - 1]],
    "one each": lambda classes: [1] * classes,
}


def learned(task: Task, settings: Settings) -> SupportVectorMachine:
    machine = learn_companion(task, settings.replace(companion="support vectors"), settings.patch)
    assert isinstance(machine, SupportVectorMachine)
    return machine


def means_of(task: Task, patch: int, *, training: bool = False) -> np.ndarray:
    pixels = task.normalised.pixels
    positions = task.positions if training else torch.arange(len(pixels))
    return patch_means(pixels, positions, patch).double().numpy()


def by_scikit_learn(task: Task, patch: int, **options: Any) -> tuple[SVC, np.ndarray, np.ndarray]:
    """scikit-learn's machine, its decisions `(n, J)` of all pixels, positive for the first class, and its predictions `(n,)`."""
    scaler = StandardScaler()
    spectra = scaler.fit_transform(means_of(task, patch, training=True))
    found = SVC(C=10, gamma="scale", decision_function_shape="ovo", random_state=0, **options)
    found.fit(spectra, task.targets.numpy())
    asked = scaler.transform(means_of(task, patch))
    decisions = found.decision_function(asked)
    return found, -decisions[:, None] if decisions.ndim == 1 else decisions, found.predict(asked)


def assert_decides_like(machine: SupportVectorMachine, svc: SVC, decisions: np.ndarray, spectra: np.ndarray) -> None:
    """Compare decisions up to float32.

    A kernel's exponent is off by γ (|x|² + |s|²) ε, some ε times a few since γ L is about 1; each counts by its coefficient.
    """
    assert len(machine.support) == len(svc.support_)
    weight = machine.coefficients.abs().sum(0) + machine.intercepts.abs() + 1
    found = machine.decisions(torch.from_numpy(spectra).float())
    assert found.shape == decisions.shape
    off = ((found.double() - torch.from_numpy(decisions)).abs() / weight).max()
    assert off < 10 * torch.finfo(torch.float32).eps


def network_of(classifier: Classifier) -> nn.Module:
    assert isinstance(classifier.network, Committee)
    return classifier.network.network


def machine_of(classifier: Classifier) -> SupportVectorMachine:
    assert isinstance(classifier.network, Committee)
    assert isinstance(classifier.network.companion, SupportVectorMachine)
    return classifier.network.companion


def thinned(targets: np.ndarray, most: int) -> np.ndarray:
    return _of_each_class(targets, most, np.random.default_rng(0)).numpy()


@pytest.fixture
def quick(quick: Settings) -> Settings:
    return quick.replace(companion="support vectors")


# What it decides ---------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 3, 7])
@pytest.mark.parametrize("classes", [2, 3, 9])
@pytest.mark.parametrize("counts", COUNTS)
def test_every_pair_of_classes_is_decided_as_scikit_learn_decides_it(counts: str, classes: int, patch: int):
    settings = Settings(patch=patch)
    task = task_of(*scene_of(COUNTS[counts](classes)), settings)
    assert torch.bincount(task.targets).tolist() == COUNTS[counts](classes)
    svc, decisions, _ = by_scikit_learn(task, patch)
    assert_decides_like(learned(task, settings), svc, decisions, means_of(task, patch))


@pytest.mark.parametrize("patch", [1, 3, 7])
def test_of_two_classes_scikit_learns_is_the_likelier(patch: int):
    settings = Settings(patch=patch)
    task = task_of(*scene_of([8, 8]), settings)
    _, decisions, predicted = by_scikit_learn(task, patch)
    clear = np.abs(decisions[:, 0]) > 1e-4
    assert clear.mean() > 0.99
    found = learned(task, settings)(inputs_of(task, patch)).argmax(1).numpy()
    np.testing.assert_array_equal(found[clear], predicted[clear])


@pytest.mark.parametrize("patch", [1, 3, 7])
@pytest.mark.parametrize("classes", [3, 9])
@pytest.mark.parametrize("counts", COUNTS)
def test_votes_count_by_how_clear_they_are_and_nearly_always_elect_scikit_learns_class(
    counts: str, classes: int, patch: int
):
    """A class of narrow wins may lose to one that scikit-learn gives fewer votes.

    In these scenes 92 to 100 % of the pixels have no tie, and of these 93 to 100 % have the same class.
    """
    settings = Settings(patch=patch)
    task = task_of(*scene_of(COUNTS[counts](classes)), settings)
    _, decisions, predicted = by_scikit_learn(task, patch)
    wins, votes = (np.zeros((len(decisions), classes)) for _ in range(2))
    for pair, (first, second) in enumerate(combinations(range(classes), 2)):
        for of_class, decision in ((first, decisions[:, pair]), (second, -decisions[:, pair])):
            wins[:, of_class] += decision > 0
            votes[:, of_class] += expit(_STEEPNESS * decision)
    found = learned(task, settings)(inputs_of(task, patch)).softmax(1).numpy()
    # Logits are up to 32, which float32 has to 2e-6, and decisions to some 1e-6.
    np.testing.assert_allclose(found, softmax(_VOTE * votes, 1), rtol=0, atol=2e-5)
    untied = (wins == wins.max(1, keepdims=True)).sum(1) == 1
    assert (found.argmax(1) == predicted)[untied].mean() > 0.9


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_classes_in_another_order_are_told_apart_the_same(classes: int):
    settings = Settings(patch=3)
    task = task_of(*scene_of(COUNTS["very different"](classes)), settings)
    order = torch.from_numpy(np.random.default_rng(1).permutation(classes))
    if classes == 2:
        order = torch.tensor([1, 0])
    renumbered = dataclasses.replace(task, targets=order[task.targets])
    x = inputs_of(task, 3)
    # The solver stops within 1e-3 of the best decision, on another way; a vote is worth 4 logits, at most 3 for a decision.
    torch.testing.assert_close(
        learned(renumbered, settings)(x)[:, order], learned(task, settings)(x), rtol=0, atol=0.01 * classes
    )


@pytest.mark.parametrize("patch", [1, 7])
def test_the_likeliest_classes_of_training_pixels_are_their_own(patch: int):
    settings = Settings(patch=patch)
    task = task_of(*scene_of([12] * 5), settings)
    found = learned(task, settings)(inputs_of(task, patch))[task.positions]
    assert (found.argmax(1) == task.targets).float().mean() > 0.9


@pytest.mark.parametrize("rare_classes", ["balanced batches", "balanced loss", "logit adjustment", "prior correction"])
@pytest.mark.parametrize("classes", [2, 4])
def test_balanced_classes_weigh_the_same_however_many_labels_they_have(classes: int, rare_classes: str):
    settings = Settings(patch=1, rare_classes=rare_classes)
    task = task_of(*scene_of([70, *([3] * (classes - 1))], bands=2, noise=2.5), settings)
    balanced = learned(task, settings)
    svc, decisions, _ = by_scikit_learn(task, 1, class_weight="balanced")
    assert_decides_like(balanced, svc, decisions, means_of(task, 1))
    assert not same_tensors(balanced, learned(task, settings.replace(rare_classes="as drawn")))


# What it learns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [10, 12, 37, 78])
@pytest.mark.parametrize("counts", [[70, *[1] * 9], [1, 78], [40, 40], [70, 2, 1, 9], [20, 20, 20, 20]], ids=str)
def test_no_more_training_pixels_than_set_are_learned_and_some_of_every_class(counts: list[int], most: int):
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    chosen = thinned(targets, most)
    assert len(chosen) <= most
    assert set(targets[chosen]) == set(range(len(counts)))
    assert (np.diff(chosen) > 0).all()


@pytest.mark.parametrize("counts", [[70, 2, 1, 9, 1, 1], [1] * 6], ids=str)
def test_one_pixel_of_each_class_is_learned_where_fewer_are_set_than_there_are_classes(counts: list[int]):
    targets = np.repeat(np.arange(6), counts)
    assert np.bincount(targets[thinned(targets, 1)]).tolist() == [1] * 6


def test_each_class_keeps_its_share_of_the_pixels_that_are_learned():
    targets = np.repeat(np.arange(3), [60, 30, 10])
    found = np.bincount(targets[thinned(targets, 50)])
    np.testing.assert_allclose(found, [30, 15, 5], atol=1)


def test_of_thinned_labels_nothing_but_the_chosen_pixels_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(companions, "_MOST_LABELLED", 20)
    settings = Settings(patch=3)
    task = task_of(*scene_of([40, 30, 5]), settings)
    chosen = _of_each_class(task.targets.numpy(), 20, generator(settings.seed, Purpose.GRAPH, step=1))
    fewer = dataclasses.replace(task, positions=task.positions[chosen], targets=task.targets[chosen])
    svc, decisions, _ = by_scikit_learn(fewer, 3)
    assert_decides_like(learned(task, settings), svc, decisions, means_of(task, 3))


def test_which_pixels_of_many_are_learned_follows_from_the_seed(monkeypatch: pytest.MonkeyPatch):
    settings = Settings(patch=3)
    task = task_of(*scene_of([40, 40, 40]), settings)
    assert same_tensors(learned(task, settings), learned(task, settings.replace(seed=1)))
    monkeypatch.setattr(companions, "_MOST_LABELLED", 20)
    first, again, other = (learned(task, settings.replace(seed=seed)) for seed in (0, 0, 1))
    assert same_tensors(first, again)
    assert not torch.equal(first.mean, other.mean)


def test_many_labels_of_half_the_classes_leave_the_network_alone():
    task = task_of(*scene_of([8, 7, 8]), Settings(patch=1))
    settings = Settings(patch=1, companion="support vectors")
    assert learn_companion(task, settings.replace(pseudo_labels=8), 1) is None
    assert learn_companion(task, settings.replace(pseudo_labels=9), 1) is not None


def test_numbers_that_others_draw_stay_as_they_were():
    settings = Settings(patch=1)
    task = task_of(*scene_of([8, 8]), settings)
    np.random.seed(7)  # noqa: NPY002  the old global state is what must stay
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    learned(task, settings)
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002


def test_only_given_labels_are_learned_and_not_those_of_teachers(data: Data, quick: Settings):
    alone = fit(*data, quick, device="cpu")
    changes = {"self_training_rounds": 1, "pseudo_labels": 10, "pseudo_confidence": 0.0}
    taught = fit(*data, quick, device="cpu", **changes)
    assert sum(taught.card["self_training"]["pseudo_labels"].values()) > 0
    assert same_tensors(machine_of(taught), machine_of(alone))


# Scenes that are hard to learn from --------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("normalisation", ["standard", "whitening"])
@pytest.mark.parametrize(
    ("what", "counts", "bands"),
    [
        ("identical spectra", [4, 4], BANDS),
        ("identical spectra", [9, 1, 3], BANDS),
        ("a constant band", [4, 4, 4], BANDS),
        ("four bands", [4, 4, 4], 4),
        ("one band", [4, 4, 4], 1),
        ("more bands than labels", [2, 2, 2], 90),
        ("one label each", [1, 1], BANDS),
        ("one label each", [1] * 24, BANDS),
    ],
)
def test_a_hard_scene_gives_probabilities_and_no_warning(
    what: str, counts: list[int], bands: int, normalisation: str, patch: int
):
    scene, labels = scene_of(counts, bands)
    if what == "identical spectra":
        scene.values[:, labels.values > 0] = scene.values[:, 0, 0, None]
        if patch > 1:
            scene.values[:] = scene.values[:, :1, :1]
    if what == "a constant band":
        scene.values[5] = 0.37
    settings = Settings(patch=patch, normalisation=normalisation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = task_of(scene, labels, settings)
        machine = learned(task, settings)
        found = machine(inputs_of(task, patch)).softmax(1)
    assert all(buffer.isfinite().all() for buffer in machine.buffers())
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(len(found)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("normalisation", ["standard", "whitening"])
def test_a_band_that_did_not_vary_decides_nothing_when_it_varies_by_a_millionth(normalisation: str, patch: int):
    scene, labels = scene_of([8, 8, 8])
    scene.values[5] = 0.37
    settings = Settings(patch=patch, normalisation=normalisation)
    task = task_of(scene, labels, settings)
    machine = learned(task, settings)
    changed = scene.copy(deep=True)
    changed.values[5, ::2] *= 1 + 1e-6
    pixels = Pixels.from_scene(changed, np.arange(BANDS))
    pixels = pixels.with_values(task.normalised.transform(pixels.values))
    elsewhere = dataclasses.replace(task, normalised=dataclasses.replace(task.normalised, pixels=pixels))
    found, expected = (machine(inputs_of(of, patch)).softmax(1) for of in (elsewhere, task))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("classes", "machines"), [(64, 1), (65, 0)])
def test_more_than_64_classes_have_no_machine(classes: int, machines: int, quick: Settings, small_scene: xr.DataArray):
    labels = xr.DataArray(np.zeros((12, 12), np.int64), dims=("y", "x"))
    places = np.flatnonzero(np.isfinite(small_scene.values).all(0))[:classes]
    labels.values.flat[places] = np.arange(1, classes + 1)
    classifier = fit(small_scene, labels, None, quick, steps=1, device="cpu")
    assert isinstance(classifier.network, Committee) == bool(machines)
    expected = {"kind": "support vectors", "size": classes} if machines else None
    assert classifier.card["model"]["companion"] == expected
    assert np.isfinite(classifier.predict_proba(small_scene).values).any()


# The classifier ----------------------------------------------------------------------------------


def test_no_companion_leaves_the_network_alone(data: Data, quick: Settings):
    with_machine, bare = (fit(*data, quick, device="cpu", companion=kind) for kind in ("support vectors", "none"))
    assert not isinstance(bare.network, Committee)
    assert bare.card["model"]["companion"] is None
    state = network_of(with_machine).state_dict()
    assert state.keys() == bare.network.state_dict().keys()
    assert all(state[name].equal(tensor) for name, tensor in bare.network.state_dict().items())


@pytest.mark.parametrize("patch", [1, 3])
def test_the_classifiers_probabilities_are_the_mean_of_networks_and_machines(
    data: Data, quick: Settings, small_scene: xr.DataArray, patch: int
):
    classifier = fit(*data, quick, device="cpu", patch=patch)
    both = classifier.predict_proba(small_scene).values
    network, machine = (
        dataclasses.replace(classifier, network=member, sets=None).predict_proba(small_scene).values
        for member in (network_of(classifier), machine_of(classifier))
    )
    # Through logarithms and back in float32.
    np.testing.assert_allclose(both, (network + machine) / 2, rtol=5e-6)
    assert np.nanmax(np.abs(network - machine)) > 0.1


@pytest.mark.parametrize("changes", [{}, {"rare_classes": "balanced batches"}, {"patch": 1}, {"patch": 7}], ids=str)
def test_a_classifier_with_machine_is_read_as_it_was_written(
    data: Data, quick: Settings, small_scene: xr.DataArray, tmp_path: Path, changes: dict[str, Any]
):
    classifier = fit(*data, quick, device="cpu", **changes)
    classifier.save(tmp_path / "model.safetensors")
    again = Classifier.load(tmp_path / "model.safetensors", "cpu")
    assert same_tensors(machine_of(again), machine_of(classifier))
    xr.testing.assert_identical(again.predict_proba(small_scene), classifier.predict_proba(small_scene))
    assert again.card == classifier.card


def test_two_classes_are_read_as_they_were_written(
    quick: Settings, small_scene: xr.DataArray, small_labels: xr.DataArray, tmp_path: Path
):
    classifier = fit(small_scene, small_labels.where(small_labels < 3, 0), None, quick, device="cpu")
    classifier.save(tmp_path / "model.safetensors")
    again = Classifier.load(tmp_path / "model.safetensors", "cpu")
    xr.testing.assert_identical(again.predict_proba(small_scene), classifier.predict_proba(small_scene))


@pytest.fixture
def with_machine(data: Data, quick: Settings, tmp_path: Path) -> Path:
    """The file of a classifier with a support vector machine."""
    fit(*data, quick, device="cpu").save(tmp_path / "with_machine.safetensors")
    return tmp_path / "with_machine.safetensors"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda count: count + 1,
        lambda count: count - 1,
        lambda count: -count,
        float,
        str,
        lambda count: [count],
        *(lambda _, value=value: value for value in (0, -(10**30), 10**9, 10**18, 10**30, True, False, "many", None)),
    ],
    ids=["more", "less", "negative", "float", "text", "list",
         "0", "-10^30", "10^9", "10^18", "10^30", "true", "false", "word", "null"],
)  # fmt: skip
def test_a_card_with_a_wrong_number_of_support_vectors_is_refused(with_machine: Path, wrong: Callable[[int], Any]):
    value = wrong(len(machine_of(Classifier.load(with_machine, "cpu")).support))
    rewrite(with_machine, lambda model, _: model["companion"].update(size=value))
    with pytest.raises(ClassifierError) as refused:
        Classifier.load(with_machine, "cpu")
    assert str(with_machine) in str(refused.value)


@pytest.mark.parametrize(
    "companion",
    [
        {"kind": "label propagation", "size": 12},
        {"kind": "oracle", "size": 12},
        {"kind": ["support vectors"], "size": 12},
        {"kind": None, "size": 12},
        {"kind": "support vectors"},
        {"size": 12},
        {},
        [],
        "support vectors",
        12,
        True,
        None,
    ],
    ids=repr,
)
def test_a_card_with_another_companion_is_refused(with_machine: Path, companion: Any):
    rewrite(with_machine, lambda model, _: model.update(companion=companion))
    with pytest.raises(ClassifierError) as refused:
        Classifier.load(with_machine, "cpu")
    assert str(with_machine) in str(refused.value)


def test_a_classifier_from_before_the_machine_is_still_read(
    data: Data, quick: Settings, small_scene: xr.DataArray, tmp_path: Path
):
    bare = fit(*data, quick, device="cpu", companion="none")
    bare.save(tmp_path / "older.safetensors")
    rewrite(tmp_path / "older.safetensors", lambda model, _: model.pop("companion"))
    older = Classifier.load(tmp_path / "older.safetensors", "cpu")
    assert "companion" not in older.card["model"]
    assert type(older.network) is type(bare.network)
    xr.testing.assert_identical(older.predict_proba(small_scene), bare.predict_proba(small_scene))


def test_a_machine_whose_card_does_not_tell_of_it_is_refused(with_machine: Path):
    rewrite(with_machine, lambda model, _: model.pop("companion"))
    with pytest.raises(ClassifierError, match="does not fit the card"):
        Classifier.load(with_machine, "cpu")


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_card_tells_how_many_support_vectors_there_are_and_what_they_cost(
    small_scene: xr.DataArray, small_labels: xr.DataArray, quick: Settings, classes: int, patch: int
):
    labels = small_labels.where(small_labels <= classes, 0)
    whole, bare = (
        fit(small_scene, labels, None, quick, patch=patch, companion=kind, device="cpu")
        for kind in ("support vectors", "none")
    )
    count, bands = machine_of(whole).support.shape
    assert whole.card["model"]["companion"] == {"kind": "support vectors", "size": count}
    assert bands == len(whole.card["bands"]["used"])
    pairs = classes * (classes - 1) // 2
    kernel, decisions, votes = count * bands, count * pairs, 2 * pairs * classes
    more = whole.card["model"]["multiply_accumulates"] - bare.card["model"]["multiply_accumulates"]
    assert more == kernel + decisions + votes
    assert whole.card["model"]["parameters"] == bare.card["model"]["parameters"]


# Again and on ------------------------------------------------------------------------------------


@pytest.fixture(params=[6, 1500])
def _most(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Let a machine learn so many labels at most, of the twelve that there are."""
    monkeypatch.setattr(companions, "_MOST_LABELLED", request.param)


@pytest.mark.usefixtures("_most")
def test_training_twice_gives_the_same_file(data: Data, quick: Settings, bytes_of: Any):
    first, again = (bytes_of(fit(*data, quick, device="cpu")) for _ in range(2))
    assert first == again


@pytest.mark.usefixtures("_most")
def test_seeds_trained_together_have_the_machine_of_each_alone(data: Data, quick: Settings, bytes_of: Any):
    scene, labels, split = data
    together = fit_seeds(scene, labels, {0: split, 5: split, 7: None}, quick, device="cpu")
    for seed, used in ((0, split), (5, split), (7, None)):
        alone = fit(scene, labels, used, quick, seed=seed, device="cpu")
        assert same_tensors(machine_of(together[seed]), machine_of(alone))
        assert bytes_of(together[seed]) == bytes_of(alone)


@pytest.mark.usefixtures("_most")
@pytest.mark.parametrize("step", [1, 6])
def test_a_training_that_goes_on_from_a_checkpoint_learns_the_same_tensors(
    data: Data, quick: Settings, bytes_of: Any, tmp_path: Path, step: int
):
    resumed = stopped_and_resumed(data, quick, tmp_path / "checkpoint.safetensors", step)
    assert bytes_of(resumed) == bytes_of(fit(*data, quick, device="cpu"))


def test_ctrl_c_while_the_machine_learns_does_not_lose_the_training(
    data: Data, quick: Settings, bytes_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY", 2)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pupil, "companion", interrupted)
        with pytest.raises((KeyboardInterrupt, TrainingInterrupted)):
            fit(*data, quick, device="cpu", checkpoint=checkpoint)
    assert checkpoint.is_file()
    steps: list[int] = []
    resumed = fit(
        *data, quick, device="cpu", checkpoint=checkpoint, resume=True, on_step=lambda p: steps.append(p.step)
    )
    assert steps == []
    assert bytes_of(resumed) == bytes_of(fit(*data, quick, device="cpu"))


@pytest.mark.parametrize("patch", [3, 7])
def test_a_map_by_network_and_machine_is_what_they_predict(
    data: Data, quick: Settings, small_scene: xr.DataArray, tmp_path: Path, patch: int
):
    classifier = fit(*data, quick, device="cpu", patch=patch)
    files = map_scene(classifier, small_scene, tmp_path / "map.tif", tile=5)
    with rasterio.open(files.classes) as raster:
        mapped = raster.read(1)
    probabilities = classifier.predict_proba(small_scene).values
    valid = np.isfinite(small_scene.values).all(0)
    np.testing.assert_array_equal(mapped > 0, valid)
    clear = valid & (np.diff(np.sort(probabilities, 0)[-2:], axis=0)[0] > 1e-5)
    assert clear.sum() > 0.9 * valid.sum()
    np.testing.assert_array_equal(mapped[clear], classifier.predict(small_scene).values[clear])
