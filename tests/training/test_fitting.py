from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch.optim.optimizer import register_optimizer_step_post_hook

from spectralmamba import Classifier, Settings, Split, fit, simulate_scene, split_masks, split_random
from spectralmamba.errors import (
    LabelError,
    ModelError,
    OutputError,
    SceneError,
    SettingsError,
    SplitError,
    TrainingInterrupted,
)
from spectralmamba.training import Progress, fitting

Data = tuple[xr.DataArray, xr.DataArray, Split]


def stop_at(step: int, failure: type[BaseException] = KeyboardInterrupt) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.step == step:
            raise failure

    return on_step


def same_transform(first: Classifier, second: Classifier) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.transform.buffers(), second.transform.buffers(), strict=True))


def test_the_same_seed_gives_the_same_file_and_another_seed_another(data: Data, quick: Settings, bytes_of: Any):
    first, again = (bytes_of(fit(*data, quick, device="cpu")) for _ in range(2))
    assert first == again
    other = fit(*data, quick, seed=1, device="cpu")
    base = fit(*data, quick, device="cpu")
    assert not torch.equal(next(base.network.parameters()), next(other.network.parameters()))


def test_the_callers_random_state_and_switches_stay_as_they_were(data: Data, quick: Settings):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002  the old global state is what must stay
    before = (np.random.get_state()[1].copy(), torch.backends.cudnn.deterministic, signal.getsignal(signal.SIGINT))  # noqa: NPY002  # pyright: ignore
    fit(*data, quick, device="cpu")
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002  # pyright: ignore
    assert (torch.backends.cudnn.deterministic, signal.getsignal(signal.SIGINT)) == before[1:]


def test_the_callers_random_state_does_not_matter(data: Data, quick: Settings, bytes_of: Any):
    first = bytes_of(fit(*data, quick, device="cpu"))
    torch.manual_seed(123)
    assert bytes_of(fit(*data, quick, device="cpu")) == first


def test_labels_of_test_pixels_have_no_influence(data: Data, quick: Settings, bytes_of: Any):
    scene, labels, split = data
    other = labels.copy(deep=True)
    other.values[split.test] = 1 + labels.values[split.test] % 3
    assert (other.values != labels.values)[split.test].all()
    assert bytes_of(fit(scene, other, split, quick, device="cpu")) == bytes_of(
        fit(scene, labels, split, quick, device="cpu")
    )


def test_spectra_outside_the_training_side_have_no_influence_on_the_normalisation(data: Data, quick: Settings):
    scene, labels, split = data
    side = np.zeros_like(split.train)
    side[:, :8] = True
    split = dataclasses.replace(split, training_side=side | split.train)
    elsewhere = scene.copy(deep=True)
    elsewhere.values[:, ~split.training_side] *= 3
    base, changed = (fit(s, labels, split, quick, device="cpu") for s in (scene, elsewhere))
    assert same_transform(base, changed)
    assert base.card["normalisation"]["pixels"] < np.isfinite(scene.values).all(0).sum()
    whole = [fit(s, labels, split, quick, statistics_from="scene", device="cpu") for s in (scene, elsewhere)]
    assert not same_transform(*whole)


def test_statistics_of_training_pixels_alone_see_nothing_else(data: Data, quick: Settings):
    scene, labels, split = data
    elsewhere = scene.copy(deep=True)
    elsewhere.values[:, ~split.train] += 1
    quick = quick.replace(statistics_from="training pixels")
    base, changed = (fit(s, labels, split, quick, device="cpu") for s in (scene, elsewhere))
    assert same_transform(base, changed)
    assert base.card["normalisation"]["pixels"] == split.train.sum()


def test_a_split_without_training_side_learns_statistics_from_its_training_pixels(data: Data, quick: Settings):
    scene, labels, split = data
    none = dataclasses.replace(split, training_side=np.zeros_like(split.train))
    classifier = fit(scene, labels, none, quick, device="cpu")
    assert classifier.card["normalisation"]["pixels"] == split.train.sum()
    assert all(buffer.isfinite().all() for buffer in classifier.transform.buffers())


@pytest.mark.parametrize("step", [1, 3, 6])
def test_an_interrupted_training_goes_on_to_the_same_file(
    data: Data, quick: Settings, bytes_of: Any, tmp_path: Path, step: int
):
    checkpoint = tmp_path / "checkpoint.safetensors"
    unbroken = bytes_of(fit(*data, quick, device="cpu"))
    with pytest.raises(TrainingInterrupted, match=f"after {step} of 6 steps") as stopped:
        fit(*data, quick, device="cpu", checkpoint=checkpoint, on_step=stop_at(step))
    assert stopped.value.file == checkpoint
    assert checkpoint.is_file()
    steps: list[int] = []
    resumed = fit(
        *data, quick, device="cpu", checkpoint=checkpoint, resume=True, on_step=lambda p: steps.append(p.step)
    )
    assert steps == list(range(step + 1, 7))
    assert bytes_of(resumed) == unbroken
    assert not checkpoint.exists()


def test_a_training_killed_between_checkpoints_goes_on_to_the_same_file(
    data: Data, quick: Settings, bytes_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY", 2)
    unbroken = bytes_of(fit(*data, quick, device="cpu"))
    with pytest.raises(RuntimeError):
        fit(*data, quick, device="cpu", checkpoint=checkpoint, on_step=stop_at(5, RuntimeError))
    steps: list[int] = []
    resumed = fit(
        *data, quick, device="cpu", checkpoint=checkpoint, resume=True, on_step=lambda p: steps.append(p.step)
    )
    assert steps == [5, 6]
    assert bytes_of(resumed) == unbroken
    assert not checkpoint.exists()


def test_ctrl_c_in_the_middle_of_a_step_keeps_a_whole_step(data: Data, quick: Settings, bytes_of: Any, tmp_path: Path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    unbroken = bytes_of(fit(*data, quick, device="cpu"))
    calls: list[int] = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)

    hook = register_optimizer_step_post_hook(interrupt)
    try:
        with pytest.raises(TrainingInterrupted, match="after 3 of 6 steps"):
            fit(*data, quick, device="cpu", checkpoint=checkpoint)
    finally:
        hook.remove()
    resumed = fit(*data, quick, device="cpu", checkpoint=checkpoint, resume=True)
    assert bytes_of(resumed) == unbroken


def test_an_interruption_without_checkpoint_says_that_nothing_was_kept(data: Data, quick: Settings):
    with pytest.raises(TrainingInterrupted, match="nothing was kept"):
        fit(*data, quick, device="cpu", on_step=stop_at(2))


def interrupted(data: Data, settings: Settings, path: Path) -> Path:
    with pytest.raises(TrainingInterrupted):
        fit(*data, settings, device="cpu", checkpoint=path, on_step=stop_at(2))
    return path


def test_a_checkpoint_of_another_training_is_refused_and_kept(data: Data, quick: Settings, tmp_path: Path):
    scene, labels, split = data
    checkpoint = interrupted(data, quick, tmp_path / "checkpoint.safetensors")
    other_scene = scene.copy(deep=True)
    other_scene.values[0, 6, 6] += 0.01
    other_labels = labels.copy(deep=True)
    place = tuple(np.argwhere(split.train & (labels.values == 1))[0])
    other_labels.values[place] = 2
    for what, arguments in {
        "settings": (scene, labels, split, quick.replace(learning_rate=0.1)),
        "data": (other_scene, labels, split, quick),
        "labels": (scene, other_labels, split, quick),
    }.items():
        with pytest.raises(SettingsError, match=f"a training with other {what}") as refused:
            fit(*arguments, device="cpu", checkpoint=checkpoint, resume=True)
        assert refused.value.file == checkpoint
    assert checkpoint.is_file()


def test_going_on_without_a_checkpoint_is_refused(data: Data, quick: Settings, tmp_path: Path):
    for checkpoint in (None, tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(SettingsError, match="no checkpoint"):
            fit(*data, quick, device="cpu", checkpoint=checkpoint, resume=True)


def test_a_damaged_checkpoint_is_refused(data: Data, quick: Settings, tmp_path: Path):
    checkpoint = interrupted(data, quick, tmp_path / "checkpoint.safetensors")
    content = checkpoint.read_bytes()
    for damaged in (b"", b"text", content[:100], content[: len(content) // 2], content[:-1]):
        checkpoint.write_bytes(damaged)
        with pytest.raises(SettingsError, match=r"checkpoint\.safetensors: this is not a checkpoint"):
            fit(*data, quick, device="cpu", checkpoint=checkpoint, resume=True)


def test_a_classifier_is_not_a_checkpoint(data: Data, quick: Settings, classifier_file: Path):
    with pytest.raises(SettingsError, match="not a checkpoint"):
        fit(*data, quick, device="cpu", checkpoint=classifier_file, resume=True)


def test_a_checkpoint_that_cannot_be_written_is_told(data: Data, quick: Settings, tmp_path: Path):
    with pytest.raises(OutputError, match="folder does not exist"):
        fit(*data, quick, device="cpu", checkpoint=tmp_path / "none" / "c.safetensors", on_step=stop_at(2))


def test_labels_on_nodata_are_left_out(data: Data, quick: Settings, bytes_of: Any):
    scene, labels, _ = data
    nodata = ~np.isfinite(scene.values).all(0)
    assert nodata.any()
    more = labels.copy(deep=True)
    more.values[nodata] = 9  # a class of nodata alone
    classifier = fit(scene, more, None, quick, device="cpu")
    assert classifier.classes.tolist() == [1, 2, 3]
    assert bytes_of(classifier) == bytes_of(fit(scene, labels, None, quick, device="cpu"))


def test_one_class_is_refused(data: Data, quick: Settings):
    scene, labels, _ = data
    with pytest.raises(LabelError, match="found 1 class"):
        fit(scene, labels.where(labels == 1, 0), None, quick, device="cpu")


def test_a_class_with_a_single_pixel_is_learned_with_the_others(data: Data, quick: Settings):
    scene, labels, _ = data
    scarce = labels.copy(deep=True)
    scarce.values[:] = 0
    for id_ in (1, 2, 3):
        scarce.values[tuple(np.argwhere(labels.values == id_)[0])] = id_
    assert fit(scene, scarce, None, quick, device="cpu").classes.tolist() == [1, 2, 3]


@pytest.mark.parametrize("bands", [2, 4, 1000])
def test_few_and_many_bands_work(bands: int):
    scene, labels = simulate_scene(rows=12, columns=12, bands=bands, classes=2)
    scene["good"].values[:] = True
    classifier = fit(scene, labels, None, steps=2, batch_size=4, patch=3, self_training_rounds=0, device="cpu")
    assert classifier.predict_proba(scene).notnull().any()


def test_labels_or_a_split_of_another_grid_are_refused(data: Data, quick: Settings):
    scene, labels, split = data
    with pytest.raises(LabelError, match="different shapes"):
        fit(scene, labels[:-1], None, quick, device="cpu")
    with pytest.raises(SplitError, match="different shapes"):
        fit(scene[:, :-1], labels[:-1], split, quick, device="cpu")


def test_a_class_id_that_no_map_can_hold_is_refused(data: Data, quick: Settings):
    scene, labels, _ = data
    with pytest.raises(LabelError, match="found 65536"):
        fit(scene, labels.where(labels != 3, 65536), None, quick, device="cpu")


def test_a_scene_without_good_bands_is_refused(data: Data, quick: Settings):
    scene, labels, split = data
    scene["good"].values[:] = False
    with pytest.raises(SceneError, match="no good band"):
        fit(scene, labels, split, quick, device="cpu")


def test_unknown_devices_models_and_options_are_refused(data: Data, quick: Settings):
    with pytest.raises(SettingsError, match="device"):
        fit(*data, quick, device="abacus")
    for changes in ({"model": "mamba"}, {"model_options": {"depth": 2}}, {"model_options": {"preset": "paper"}}):
        with pytest.raises(ModelError):
            fit(*data, quick, device="cpu", **changes)


def test_bad_bands_are_not_looked_at(data: Data, quick: Settings):
    scene, labels, split = data
    bad = ~scene["good"].values
    assert bad.any()
    other = scene.copy(deep=True)
    other.values[bad] = np.nan
    first, second = (fit(s, labels, split, quick, device="cpu") for s in (scene, other))
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))
    assert first.card["bands"]["used"] == (np.flatnonzero(~bad) + 1).tolist()


def test_the_loss_falls_and_unseen_pixels_are_told_apart_far_better_than_by_chance():
    scene, labels = simulate_scene(rows=24, columns=24, bands=30, classes=3)
    split = split_random(labels, per_class=10, patch=3)
    losses: list[float] = []
    classifier = fit(
        scene, labels, split, steps=200, patch=3, self_training_rounds=0, device="cpu",
        on_step=lambda progress: losses.append(progress.loss),
    )  # fmt: skip
    assert len(losses) == 200
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    right = (classifier.predict(scene).values == labels.values)[split.test].mean()
    assert right > 0.75  # chance is a third; 200 steps are a fifth of the default


def test_given_masks_train_where_they_say(data: Data, quick: Settings):
    scene, labels, split = data
    masks = split_masks(split.train, split.test, labels=labels)
    card = fit(scene, labels, masks, quick, device="cpu").card
    assert card["split"]["patch"] == 3
    assert card["split"]["train_pixels"] == 12
    assert card["scores"] is None
