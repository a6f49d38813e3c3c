"""Self-training: which networks are trained, which pixels they label, and that nothing of it is left to chance."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from training_example import TRAINING_COLUMNS, Data, same_tensors

from spectralmamba import Classifier, Settings, Split, fit, fit_seeds, simulate_scene, split_disjoint, split_random
from spectralmamba.errors import TrainingInterrupted
from spectralmamba.models import register_model, registry
from spectralmamba.pixels import Pixels
from spectralmamba.tensor_files import read_tensors
from spectralmamba.training import Progress, fitting, self_training, task
from spectralmamba.training.self_training import Pupil, Stage, plan
from spectralmamba.training.task import Task, prepare

SEEDS = 0, 5
STAGES = 5  # of the fixture `tiny`: two teachers in each of two rounds, and the classifier


def task_of(data: Data, settings: Settings) -> Task:
    scene, labels, split = data
    pixels = Pixels.from_scene(scene, np.flatnonzero(scene["good"].values))
    return prepare(pixels, labels, {0: split}, settings)[0]


def sure_of(pupil: Pupil, probabilities: list[list[float]]) -> None:
    """Let teachers give the candidates these probabilities in turn."""
    rows = torch.tensor(probabilities)
    pupil.sums = rows[torch.arange(len(pupil.sums)) % len(rows)]


def pixels_of(pupil: Pupil) -> set[tuple[int, int]]:
    pixels = pupil.task.normalised.pixels
    return set(zip(pixels.rows[pupil.positions].tolist(), pixels.columns[pupil.positions].tolist(), strict=True))


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], list[int]]]:
    """Positions and targets of the pixels that are labelled in each round from here on."""
    rounds: list[tuple[list[int], list[int]]] = []
    label = Pupil._label

    def noted(self: Pupil, number: int) -> None:
        label(self, number)
        rounds.append((self.positions.tolist(), self.targets.tolist()))

    monkeypatch.setattr(Pupil, "_label", noted)
    return rounds


def same_network(first: Classifier, second: Classifier) -> bool:
    return same_tensors(first.network, second.network)


# What is trained ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [0, 1, 2])
@pytest.mark.parametrize(("widest", "teachers"), [(1, [1]), (3, [3]), (5, [5, 3]), (7, [7, 3])])
def test_each_round_trains_the_widest_teacher_and_one_of_3_x_3_and_the_classifier_comes_last(
    halved: Data, tiny: Settings, rounds: int, widest: int, teachers: list[int]
):
    settings = tiny.replace(self_training_rounds=rounds, teacher_patch=widest, patch=7)
    *before, last = plan(settings, task_of(halved, settings))
    assert last == Stage(rounds, settings.patch, ends_round=False, last=True)
    assert [(stage.round, stage.patch) for stage in before] == [(n, patch) for n in range(rounds) for patch in teachers]
    assert [stage.ends_round for stage in before] == [
        patch == teachers[-1] for _ in range(rounds) for patch in teachers
    ]
    assert not any(stage.last for stage in before)


def test_the_classifier_alone_is_trained_where_half_the_classes_have_enough_labels(halved: Data, tiny: Settings):
    task = task_of(halved, tiny)  # three training pixels a class

    def without_one_of(targets: tuple[int, ...]) -> Task:
        left_out = [int((task.targets == target).nonzero()[0]) for target in targets]
        kept = [number for number in range(len(task.targets)) if number not in left_out]
        return dataclasses.replace(task, positions=task.positions[kept], targets=task.targets[kept])

    enough, alone = tiny.replace(pseudo_labels=3), [Stage(2, 5, ends_round=False, last=True)]
    assert plan(enough, task) == alone
    assert plan(enough, without_one_of((0,))) == alone
    assert len(plan(enough, without_one_of((0, 2)))) == STAGES
    assert len(plan(tiny.replace(pseudo_labels=4), task)) == STAGES


def test_enough_labels_give_what_a_training_without_self_training_gives(halved: Data, tiny: Settings):
    heard: list[int] = []
    enough = fit(*halved, tiny, pseudo_labels=3, device="cpu", on_step=lambda p: heard.append(p.steps))
    none = fit(*halved, tiny, self_training_rounds=0, companion="none", device="cpu")
    assert heard == [2, 2]
    assert same_network(enough, none)
    assert enough.card["self_training"] == none.card["self_training"]


# Which pixels are labelled -----------------------------------------------------------------------


def test_no_training_pixel_and_none_outside_the_training_side_is_labelled(halved: Data, tiny: Settings):
    _, _, split = halved
    pupil = Pupil(task_of(halved, tiny), tiny.replace(pseudo_labels=1000))
    sure_of(pupil, [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    pupil._label(0)
    nodata = ~np.isfinite(halved[0].values).all(0)
    allowed = split.training_side & ~split.train & ~nodata
    assert split.test[:, TRAINING_COLUMNS:].sum() == 0
    assert pixels_of(pupil) == set(map(tuple, np.argwhere(allowed).tolist()))  # all of them, since all are sure


def test_a_training_pixel_outside_the_training_side_brings_no_neighbours_along(halved: Data, tiny: Settings):
    scene, labels, split = halved
    elsewhere = np.argwhere((labels.values > 0) & ~split.training_side & np.isfinite(scene.values).all(0))[0]
    train = split.train.copy()
    train[tuple(elsewhere)] = True
    task = task_of((scene, labels, dataclasses.replace(split, train=train)), tiny)
    base = Pupil(task_of(halved, tiny), tiny)
    assert torch.equal(Pupil(task, tiny)._candidates, base._candidates)


def test_without_a_split_every_unlabelled_pixel_is_a_candidate(halved: Data, tiny: Settings):
    scene, labels, _ = halved
    task = prepare(Pixels.from_scene(scene, np.arange(20)), labels, {0: None}, tiny)[0]
    unlabelled = np.isfinite(scene.values).all(0) & (labels.values == 0)
    assert len(Pupil(task, tiny)._candidates) == unlabelled.sum()


def test_every_class_is_filled_up_to_the_same_number_and_no_further(halved: Data, tiny: Settings):
    task = task_of(halved, tiny)
    keep = torch.cat([(task.targets == target).nonzero()[:count, 0] for target, count in enumerate((1, 3, 3))])
    task = dataclasses.replace(task, positions=task.positions[keep], targets=task.targets[keep])
    for wanted, expected in ((6, [5, 3, 3]), (4, [3, 1, 1]), (3, [2, 0, 0]), (1, [0, 0, 0])):
        pupil = Pupil(task, tiny.replace(pseudo_labels=wanted))
        sure_of(pupil, [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
        pupil._label(0)
        assert torch.bincount(pupil.targets, minlength=3).tolist() == expected
        assert len(torch.unique(pupil.positions)) == len(pupil.positions)
        lesson = pupil.lesson()
        assert torch.equal(lesson.positions, torch.cat([task.positions, pupil.positions]))
        assert torch.equal(lesson.targets, torch.cat([task.targets, pupil.targets]))


def test_a_class_of_which_teachers_are_seldom_sure_gets_what_there_is(halved: Data, tiny: Settings):
    pupil = Pupil(task_of(halved, tiny), tiny)
    sure_of(pupil, [[0.9, 0.05, 0.05]])
    pupil.sums[:2] = torch.tensor([0.1, 0.8, 0.1])
    pupil._label(0)
    assert torch.bincount(pupil.targets, minlength=3).tolist() == [7, 2, 0]
    assert set(pupil.positions[pupil.targets == 1].tolist()) == set(pupil._candidates[:2].tolist())


@pytest.mark.parametrize("teachers", [1, 2, 3])
def test_only_pixels_whose_mean_probability_is_above_the_confidence_are_labelled(
    halved: Data, tiny: Settings, teachers: int
):
    pupil = Pupil(task_of(halved, tiny), tiny.replace(pseudo_confidence=0.6, pseudo_labels=1000))
    sure_of(pupil, [[0.59, 0.21, 0.2], [0.2, 0.61, 0.19], [0.3, 0.3, 0.4]])
    pupil.sums *= teachers
    pupil._label(0)
    assert sorted(pupil.positions.tolist()) == pupil._candidates[1::3].tolist()
    assert set(pupil.targets.tolist()) == {1}


def test_where_no_teacher_is_sure_nothing_is_labelled_and_the_classifier_learns_as_without(
    halved: Data, tiny: Settings
):
    unsure = fit(*halved, tiny, pseudo_confidence=1.0, device="cpu")
    assert unsure.card["self_training"]["pseudo_labels"] == {"1": 0, "2": 0, "3": 0}
    assert same_network(unsure, fit(*halved, tiny, self_training_rounds=0, device="cpu"))


def test_the_seed_and_the_round_decide_which_sure_pixels_are_labelled(halved: Data, tiny: Settings):
    task = task_of(halved, tiny)

    def drawn(seed: int, number: int) -> list[int]:
        pupil = Pupil(task, tiny.replace(seed=seed))
        sure_of(pupil, [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
        pupil._label(number)
        return sorted(pupil.positions.tolist())

    assert drawn(0, 0) == drawn(0, 0)
    assert len({tuple(drawn(seed, number)) for seed in (0, 1) for number in (0, 1)}) == 4


def test_a_round_forgets_what_the_one_before_labelled(halved: Data, tiny: Settings):
    pupil = Pupil(task_of(halved, tiny), tiny)
    sure_of(pupil, [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    pupil._label(0)
    assert len(pupil.positions) == 21
    sure_of(pupil, [[0.05, 0.9, 0.05]])
    pupil._label(1)
    assert pupil.targets.tolist() == [1] * 7


def test_in_a_large_scene_teachers_look_at_so_many_pixels_that_the_seed_chooses(
    halved: Data, tiny: Settings, monkeypatch: pytest.MonkeyPatch
):
    task = task_of(halved, tiny)
    everything = set(Pupil(task, tiny)._candidates.tolist())
    monkeypatch.setattr(self_training, "_MOST_CANDIDATES", 20)
    first, again, other = (Pupil(task, tiny.replace(seed=seed))._candidates.tolist() for seed in (0, 0, 1))
    assert first == again == sorted(set(first))
    assert first != other
    assert len(first) == len(other) == 20
    assert set(first) | set(other) <= everything


def test_the_probabilities_of_candidates_are_the_same_however_many_are_classified_at_a_time(
    halved: Data, tiny: Settings, monkeypatch: pytest.MonkeyPatch
):
    pupil = Pupil(task_of(halved, tiny), tiny)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9 * pupil.task.normalised.pixels.values.shape[1], 3))
    whole = pupil._probabilities(network, 3)
    monkeypatch.setattr(task, "_ASKED", 7)
    # Products of other shapes add up in another order, in float32.
    torch.testing.assert_close(pupil._probabilities(network, 3), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.sum(1), torch.ones(len(whole)))


# What has no influence ---------------------------------------------------------------------------


def test_labels_of_test_pixels_have_no_influence(halved: Data, tiny: Settings, bytes_of: Any, labelled: list[Any]):
    scene, labels, split = halved
    other = labels.copy(deep=True)
    other.values[split.test] = 1 + labels.values[split.test] % 3
    first, second = (fit(scene, given, split, tiny, device="cpu") for given in (labels, other))
    assert bytes_of(first) == bytes_of(second)
    assert len(labelled[0][0]) > 0
    assert labelled[:2] == labelled[2:]


def test_spectra_beyond_the_reach_of_patches_of_the_training_side_have_no_influence(
    halved: Data, tiny: Settings, labelled: list[Any]
):
    scene, labels, split = halved
    other = scene.copy(deep=True)
    other.values[:, :, TRAINING_COLUMNS + tiny.teacher_patch // 2 :] *= 3
    first, second = (fit(given, labels, split, tiny, device="cpu") for given in (scene, other))
    assert len(labelled[0][0]) > 0
    assert labelled[:2] == labelled[2:]
    assert same_network(first, second)


def test_pixelwise_teachers_see_nothing_outside_the_training_side(halved: Data, tiny: Settings, labelled: list[Any]):
    scene, labels, split = halved
    settings = tiny.replace(patch=1, teacher_patch=1)
    other = scene.copy(deep=True)
    other.values[:, ~split.training_side] *= 3
    first, second = (fit(given, labels, split, settings, device="cpu") for given in (scene, other))
    assert len(labelled[0][0]) > 0
    assert labelled[:2] == labelled[2:]
    assert same_network(first, second)


def test_a_disjoint_split_without_leaks_keeps_test_spectra_from_teachers_wider_than_the_classifier(
    small_scene: xr.DataArray, small_labels: xr.DataArray, tiny: Settings, monkeypatch: pytest.MonkeyPatch
):
    said: list[torch.Tensor] = []
    label = Pupil._label

    def noted(self: Pupil, number: int) -> None:
        said.append(self.sums.clone())
        label(self, number)

    monkeypatch.setattr(Pupil, "_label", noted)
    split = split_disjoint(small_labels, method="columns", boundary=6, per_class=3, patch=tiny.patch)
    other = small_scene.copy(deep=True)
    other.values[:, split.test] *= 3
    card = fit(small_scene, small_labels, split, tiny, device="cpu").card
    assert card["split"]["leaks"]["test_near_training"] == card["split"]["leaks"]["training_near_test"] == 0
    fit(other, small_labels, split, tiny, device="cpu")
    assert len(said) == 4
    assert torch.equal(said[0], said[2])


def test_the_callers_random_state_does_not_matter_and_another_seed_gives_another_classifier(
    halved: Data, tiny: Settings, bytes_of: Any, labelled: list[Any]
):
    first = bytes_of(fit(*halved, tiny, device="cpu"))
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002  the old global state is what must not matter
    assert bytes_of(fit(*halved, tiny, device="cpu")) == first
    fit(*halved, tiny, seed=1, device="cpu")
    assert labelled[:2] == labelled[2:4]
    assert labelled[0] != labelled[4]


# Interruptions -----------------------------------------------------------------------------------


def stop_at(step: int, failure: type[BaseException] = KeyboardInterrupt) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.step == step:
            raise failure

    return on_step


def test_steps_are_counted_over_all_stages(halved: Data, tiny: Settings):
    heard: list[Progress] = []
    fit(*halved, tiny, device="cpu", on_step=heard.append)
    assert [progress.step for progress in heard] == list(range(1, STAGES * 2 + 1))
    assert {progress.steps for progress in heard} == {STAGES * 2}
    assert all(np.isfinite(progress.loss) for progress in heard)
    rates = [progress.learning_rate for progress in heard]
    assert rates == rates[:2] * STAGES  # each network has a schedule of its own


@pytest.fixture
def unbroken(halved: Data, tiny: Settings, bytes_of: Any) -> bytes:
    return bytes_of(fit(*halved, tiny, device="cpu"))


# The first teacher; the last step of the round's other one; the second round; its end; the classifier; its last step.
@pytest.mark.parametrize("step", [1, 4, 5, 8, 9, 10])
def test_interrupted_in_any_stage_it_goes_on_to_the_same_file(
    halved: Data, tiny: Settings, bytes_of: Any, tmp_path: Path, unbroken: bytes, step: int
):
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingInterrupted, match=f"after {step} of 10 steps") as stopped:
        fit(*halved, tiny, device="cpu", checkpoint=checkpoint, on_step=stop_at(step))
    assert stopped.value.file == checkpoint
    heard: list[int] = []
    resumed = fit(
        *halved, tiny, device="cpu", checkpoint=checkpoint, resume=True, on_step=lambda p: heard.append(p.step)
    )
    assert heard == list(range(step + 1, 11))
    assert bytes_of(resumed) == unbroken
    assert not checkpoint.exists()


def test_interrupted_again_and_again_it_comes_to_the_same_file(
    halved: Data, tiny: Settings, bytes_of: Any, tmp_path: Path, unbroken: bytes
):
    checkpoint = tmp_path / "checkpoint.safetensors"
    for step in range(1, 11):
        with pytest.raises(TrainingInterrupted, match=f"after {step} of 10 steps"):
            fit(*halved, tiny, device="cpu", checkpoint=checkpoint, on_step=stop_at(step), resume=step > 1)
    assert bytes_of(fit(*halved, tiny, device="cpu", checkpoint=checkpoint, resume=True)) == unbroken


# Stages of three steps, kept after the second: killed in the first stage, the next, just after it, and in the classifier.
@pytest.mark.parametrize(("killed", "kept"), [(3, 2), (5, 5), (7, 5), (12, 11), (13, 11), (15, 14)])
def test_killed_between_checkpoints_it_goes_on_to_the_same_file(
    halved: Data,
    tiny: Settings,
    bytes_of: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed: int,
    kept: int,
):
    checkpoint, settings = tmp_path / "checkpoint.safetensors", tiny.replace(steps=3)
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY", 2)
    unbroken = bytes_of(fit(*halved, settings, device="cpu"))
    with pytest.raises(RuntimeError):
        fit(*halved, settings, device="cpu", checkpoint=checkpoint, on_step=stop_at(killed, RuntimeError))
    heard: list[int] = []
    resumed = fit(
        *halved, settings, device="cpu", checkpoint=checkpoint, resume=True, on_step=lambda p: heard.append(p.step)
    )
    assert heard == list(range(kept + 1, 16))
    assert bytes_of(resumed) == unbroken


def test_ctrl_c_while_teachers_label_leaves_a_checkpoint_to_go_on_from(
    halved: Data, tiny: Settings, bytes_of: Any, tmp_path: Path, unbroken: bytes
):
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pupil, "_probabilities", pressed)
        with pytest.raises((TrainingInterrupted, KeyboardInterrupt)) as stopped:
            fit(*halved, tiny, device="cpu", checkpoint=checkpoint)
    assert stopped.type is TrainingInterrupted
    assert "after 2 of 10 steps" in str(stopped.value)
    assert bytes_of(fit(*halved, tiny, device="cpu", checkpoint=checkpoint, resume=True)) == unbroken


def test_a_checkpoint_tells_its_stage_and_the_labelled_pixels(
    halved: Data, tiny: Settings, tmp_path: Path, labelled: list[Any]
):
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingInterrupted):
        fit(*halved, tiny, device="cpu", checkpoint=checkpoint, on_step=stop_at(7))
    text, tensors = read_tensors(checkpoint, "checkpoint")
    header = json.loads(text or "")
    assert (header["stage"], header["step"]) == (3, 1)
    assert [(tensors["pupil.positions"].tolist(), tensors["pupil.targets"].tolist())] == labelled
    # What the round's first teacher said: probabilities, which add up to 1 but for float32's rounding.
    torch.testing.assert_close(tensors["pupil.sums"].sum(1), torch.ones(len(tensors["pupil.sums"])))


# Several seeds -----------------------------------------------------------------------------------


@pytest.fixture
def splits(small_labels: xr.DataArray) -> dict[int, Split]:
    return {seed: split_random(small_labels, per_class=4, seed=seed, patch=3) for seed in SEEDS}


def each_alone(scene: xr.DataArray, labels: xr.DataArray, splits: dict[int, Split], settings: Settings) -> Any:
    return {seed: fit(scene, labels, splits[seed], settings, seed=seed, device="cpu") for seed in splits}


def saved(classifiers: dict[int, Classifier], bytes_of: Any) -> dict[int, bytes]:
    return {seed: bytes_of(classifier) for seed, classifier in classifiers.items()}


def stop_seed_at(seed: int, step: int) -> Callable[[int, Progress], None]:
    def on_step(of_seed: int, progress: Progress) -> None:
        if (of_seed, progress.step) == (seed, step):
            raise KeyboardInterrupt

    return on_step


# Seed 0 goes first: the other one has no checkpoint yet, is a stage behind, at the same step, or done with the stage.
@pytest.mark.parametrize(("seed", "step"), [(0, 1), (0, 3), (5, 3), (5, 6), (0, 9), (5, 10)])
def test_seeds_interrupted_at_different_stages_go_on_to_what_fit_gives_alone(
    small_scene: xr.DataArray,
    small_labels: xr.DataArray,
    splits: dict[int, Split],
    tiny: Settings,
    bytes_of: Any,
    tmp_path: Path,
    seed: int,
    step: int,
):
    checkpoints = {seed: tmp_path / f"{seed}.safetensors" for seed in SEEDS}
    expected = saved(each_alone(small_scene, small_labels, splits, tiny), bytes_of)
    options = {"device": "cpu", "checkpoints": checkpoints}
    heard: dict[int, list[int]] = {seed: [] for seed in SEEDS}

    def told(of_seed: int, progress: Progress) -> None:
        heard[of_seed].append(progress.step)
        if not resumed:
            stop_seed_at(seed, step)(of_seed, progress)

    resumed = False
    with pytest.raises(TrainingInterrupted, match=f"after {step} of 10 steps"):
        fit_seeds(small_scene, small_labels, splits, tiny, on_step=told, **options)
    resumed = True
    found = fit_seeds(small_scene, small_labels, splits, tiny, on_step=told, resume=True, **options)
    assert saved(found, bytes_of) == expected
    assert heard == {seed: list(range(1, 11)) for seed in SEEDS}
    assert not any(file.exists() for file in checkpoints.values())


def test_seeds_together_give_what_fit_gives_alone_byte_for_byte(
    small_scene: xr.DataArray, small_labels: xr.DataArray, splits: dict[int, Split], tiny: Settings, bytes_of: Any
):
    found = fit_seeds(small_scene, small_labels, splits, tiny, device="cpu")
    assert saved(found, bytes_of) == saved(each_alone(small_scene, small_labels, splits, tiny), bytes_of)


def test_a_seed_with_enough_labels_is_not_changed_by_one_that_has_too_few(
    small_scene: xr.DataArray, small_labels: xr.DataArray, tiny: Settings, bytes_of: Any
):
    settings = tiny.replace(pseudo_labels=5)
    splits = {seed: split_random(small_labels, per_class=3 + seed, seed=seed, patch=3) for seed in SEEDS}
    found, expected = (
        fit_seeds(small_scene, small_labels, splits, settings, device="cpu"),
        each_alone(small_scene, small_labels, splits, settings),
    )
    assert all(same_network(found[seed], expected[seed]) for seed in SEEDS)
    assert saved(found, bytes_of) == saved(expected, bytes_of)


def test_a_seed_with_enough_labels_goes_on_alone_from_a_training_with_others(
    small_scene: xr.DataArray, small_labels: xr.DataArray, tiny: Settings, bytes_of: Any, tmp_path: Path
):
    settings = tiny.replace(pseudo_labels=5)
    splits = {seed: split_random(small_labels, per_class=3 + seed, seed=seed, patch=3) for seed in SEEDS}
    checkpoints = {seed: tmp_path / f"{seed}.safetensors" for seed in SEEDS}
    with pytest.raises(TrainingInterrupted):
        fit_seeds(
            small_scene, small_labels, splits, settings, device="cpu", checkpoints=checkpoints,
            on_step=stop_seed_at(0, 10),
        )  # fmt: skip
    options: dict[str, Any] = {"device": "cpu"}
    if checkpoints[5].is_file():  # it may have had nothing to keep
        options |= {"checkpoint": checkpoints[5], "resume": True}
    resumed = fit(small_scene, small_labels, splits[5], settings, seed=5, **options)
    assert same_network(resumed, fit(small_scene, small_labels, splits[5], settings, seed=5, device="cpu"))


def test_a_seed_interrupted_with_others_goes_on_alone(
    small_scene: xr.DataArray,
    small_labels: xr.DataArray,
    splits: dict[int, Split],
    tiny: Settings,
    bytes_of: Any,
    tmp_path: Path,
):
    checkpoints = {seed: tmp_path / f"{seed}.safetensors" for seed in SEEDS}
    with pytest.raises(TrainingInterrupted):
        fit_seeds(
            small_scene, small_labels, splits, tiny, device="cpu", checkpoints=checkpoints, on_step=stop_seed_at(0, 7)
        )
    expected = each_alone(small_scene, small_labels, splits, tiny)
    for seed in SEEDS:
        kept = tmp_path / "kept.safetensors"
        shutil.copy(checkpoints[seed], kept)
        alone = fit(
            small_scene, small_labels, splits[seed], tiny, seed=seed, device="cpu", checkpoint=kept, resume=True
        )
        assert bytes_of(alone) == bytes_of(expected[seed])


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled where there is a GPU")
def test_seeds_whose_steps_are_done_at_once_learn_what_each_learns_alone(
    small_scene: xr.DataArray,
    small_labels: xr.DataArray,
    splits: dict[int, Split],
    tiny: Settings,
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("triton", reason="triton is not installed")
    from spectralmamba.training.together import JointSteps

    for name in ("_builders", "_presets"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))

    @register_model(presets=["default"])
    def of_this_test(*, bands: int, classes: int, patch: int = 1, preset: str = "default") -> nn.Module:
        return nn.Sequential(nn.Linear(bands, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, classes))

    settings = tiny.replace(model="of_this_test", model_options={}, patch=1, teacher_patch=1, steps=3, batch_size=3)
    expected = each_alone(small_scene, small_labels, splits, settings)
    monkeypatch.setenv("SPECTRALMAMBA_SELF_CHECK", "0")
    monkeypatch.setattr(fitting, "_steps", lambda trainings: iter([JointSteps(trainings)] if trainings else []))
    monkeypatch.setattr(JointSteps, "block", 2)
    found = fit_seeds(small_scene, small_labels, splits, settings, device="cpu")
    for seed in SEEDS:
        assert found[seed].card == expected[seed].card
        assert sum(found[seed].card["self_training"]["pseudo_labels"].values()) > 0
        tensors = found[seed].network.state_dict()
        for name, tensor in expected[seed].network.state_dict().items():
            # Sums in another order: float32's 6e-8, enlarged by Adam's steps of nine and by teachers' probabilities.
            assert (tensors[name] - tensor).norm() / tensor.norm() < 1e-4, (seed, name)


# Scenes at the edge ------------------------------------------------------------------------------


def assert_learns(
    scene: xr.DataArray, labels: xr.DataArray, split: Split | None, settings: Settings, **changes: Any
) -> Classifier:
    """Train without any warning to finite weights and probabilities."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier = fit(scene, labels, split, settings, device="cpu", **changes)
    assert all(tensor.isfinite().all() for tensor in classifier.network.state_dict().values())
    valid = np.isfinite(scene.values[classifier.bands]).all(0)
    assert np.isfinite(classifier.predict_proba(scene).values[:, valid]).all()
    return classifier


def scarce(labels: xr.DataArray, scene: xr.DataArray) -> xr.DataArray:
    """Keep one label a class."""
    few = labels.copy(deep=True)
    few.values[:] = 0
    for id_ in (1, 2, 3):
        few.values[tuple(np.argwhere((labels.values == id_) & np.isfinite(scene.values).all(0))[0])] = id_
    return few


def test_one_label_a_class_is_enough(small_scene: xr.DataArray, small_labels: xr.DataArray, tiny: Settings):
    card = assert_learns(small_scene, scarce(small_labels, small_scene), None, tiny).card
    assert max(card["self_training"]["pseudo_labels"].values()) <= 9


def test_two_classes_are_enough(halved: Data, tiny: Settings):
    scene, labels, split = halved
    two = labels.where(labels != 3, 0)
    split = dataclasses.replace(split, train=split.train & (two.values > 0), test=split.test & (two.values > 0))
    classifier = assert_learns(scene, two, split, tiny)
    assert list(classifier.card["self_training"]["pseudo_labels"]) == ["1", "2"]


def test_where_all_pixels_are_labelled_teachers_find_none(small_scene: xr.DataArray, small_labels: xr.DataArray):
    settings = Settings(
        steps=2, batch_size=8, patch=3, teacher_patch=5, pseudo_labels=1000, model_options={"width": 8, "states": 2}
    )
    full = small_labels.copy(deep=True)
    full.values[full.values == 0] = 1
    classifier = assert_learns(small_scene, full, None, settings)
    assert set(classifier.card["self_training"]["pseudo_labels"].values()) == {0}
    assert same_network(classifier, fit(small_scene, full, None, settings, self_training_rounds=0, device="cpu"))


@pytest.mark.parametrize("normalisation", ["standard", "whitening"])
def test_constant_bands_do_no_harm(halved: Data, tiny: Settings, normalisation: str):
    scene, labels, split = halved
    valid = np.isfinite(scene.values).all(0)
    for band in (0, 7):
        scene.values[band][valid] = 0.25
    assert_learns(scene, labels, split, tiny, normalisation=normalisation)


def test_a_scene_without_any_differences_is_survived(halved: Data, tiny: Settings):
    scene, labels, split = halved
    scene.values[:, np.isfinite(scene.values).all(0)] = 0.25
    assert_learns(scene, labels, split, tiny)


@pytest.mark.parametrize(("size", "bands"), [(12, 2), (8, 80)], ids=["two bands", "more bands than pixels"])
def test_few_and_many_bands_are_fine(tiny: Settings, size: int, bands: int):
    scene, labels = simulate_scene(rows=size, columns=size, bands=bands, classes=2)
    scene["good"].values[:] = True
    assert bands == 2 or bands > (labels.values > 0).sum()
    assert_learns(scene, labels, split_random(labels, per_class=2, patch=3), tiny)


@pytest.mark.parametrize("patch", [1, 3])
def test_a_scene_smaller_than_the_teachers_patch_is_fine(
    small_scene: xr.DataArray, small_labels: xr.DataArray, tiny: Settings, patch: int
):
    scene, labels = small_scene[:, 4:8, 4:8], small_labels[4:8, 4:8].copy(deep=True)
    assert np.isfinite(scene.values).all()
    labels.values[:] = 0
    labels.values[0, 0], labels.values[3, 3], labels.values[3, 2] = 1, 2, 2
    assert_learns(scene, labels, None, tiny, patch=patch, teacher_patch=7)


def test_a_class_that_teachers_never_see_anywhere_keeps_its_own_labels(
    halved: Data, tiny: Settings, monkeypatch: pytest.MonkeyPatch
):
    def only_the_first_two(pupil: Pupil, *_: object) -> torch.Tensor:
        return torch.tensor([0.9, 0.1, 0.0]).expand(len(pupil._candidates), 3)

    monkeypatch.setattr(Pupil, "_probabilities", only_the_first_two)
    classifier = assert_learns(*halved, tiny)
    assert classifier.card["self_training"]["pseudo_labels"] == {"1": 7, "2": 0, "3": 0}
    assert classifier.classes.tolist() == [1, 2, 3]


# The card ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "rounds", "patches"),
    [
        ({}, 2, [3, 5]),
        ({"self_training_rounds": 1, "teacher_patch": 3}, 1, [3]),
        ({"teacher_patch": 1}, 2, [1]),
        ({"self_training_rounds": 0}, 0, []),
        ({"pseudo_labels": 3}, 0, []),
    ],
    ids=str,
)
def test_the_card_tells_rounds_teachers_and_how_many_pixels_they_labelled(
    halved: Data,
    tiny: Settings,
    tmp_path: Path,
    labelled: list[tuple[list[int], list[int]]],
    changes: dict[str, Any],
    rounds: int,
    patches: list[int],
):
    classifier = fit(*halved, tiny, device="cpu", **changes)
    record = classifier.card["self_training"]
    assert (record["rounds"], record["teacher_patches"]) == (rounds, patches)
    assert len(labelled) == rounds
    last = labelled[-1][1] if labelled else []
    assert record["pseudo_labels"] == {str(id_): last.count(id_ - 1) for id_ in (1, 2, 3)}
    classifier.save(tmp_path / "model.safetensors")
    assert Classifier.load(tmp_path / "model.safetensors", "cpu").card["self_training"] == record


def test_a_classifier_from_before_self_training_is_still_read(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
):
    expected = classifier.predict(small_scene)
    del classifier.card["self_training"]
    for name in [entry.name for entry in dataclasses.fields(Settings) if entry.name.startswith("pseudo_")]:
        del classifier.card["settings"][name]
    classifier.save(tmp_path / "older.safetensors")
    older = Classifier.load(tmp_path / "older.safetensors", "cpu")
    assert "self_training" not in older.card
    np.testing.assert_array_equal(older.predict(small_scene).values, expected.values)
