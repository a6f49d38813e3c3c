"""Seeds trained together, on the CPU: the kernels by Triton's interpreter, and no recording."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

if torch.cuda.is_available():
    pytest.skip("the kernels are compiled where there is a GPU", allow_module_level=True)
pytest.importorskip("triton", reason="triton is not installed")

from spectralmamba import Classifier, Settings, Split, split_random
from spectralmamba.errors import TrainingInterrupted
from spectralmamba.models import register_model, registry
from spectralmamba.training import Progress, fit, fit_seeds, fitting, one_cycle, together
from spectralmamba.training.single import SingleSteps
from spectralmamba.training.together import JointSteps

SEEDS = 0, 5
Scene = tuple[xr.DataArray, xr.DataArray]


@pytest.fixture
def scene(small_scene: xr.DataArray, small_labels: xr.DataArray) -> Scene:
    return small_scene, small_labels


@pytest.fixture
def splits(small_labels: xr.DataArray) -> dict[int, Split]:
    return {seed: split_random(small_labels, per_class=4, seed=seed) for seed in SEEDS}


@pytest.fixture
def tiny() -> Settings:
    return Settings(steps=3, patch=1, batch_size=3, self_training_rounds=0)


@pytest.fixture(autouse=True)
def _without_self_check(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPECTRALMAMBA_SELF_CHECK", "0")


@contextmanager
def joined(block: int = 50) -> Iterator[None]:
    """Train seeds together, so many steps at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "_steps", lambda trainings: iter([JointSteps(trainings)]))
        patch.setattr(JointSteps, "block", block)
        yield


def alone(scene: Scene, splits: dict[int, Split], settings: Settings, **options: Any) -> dict[int, Classifier]:
    return {seed: fit(*scene, splits[seed], settings, seed=seed, device="cpu", **options) for seed in splits}


def assert_near(found: dict[int, Classifier], expected: dict[int, Classifier]) -> None:
    assert list(found) == list(expected)
    for seed, classifier in expected.items():
        assert found[seed].card == classifier.card
        tensors = found[seed].network.state_dict()
        for name, tensor in classifier.network.state_dict().items():
            if not tensor.is_floating_point() or not tensor.any():
                assert torch.equal(tensors[name], tensor), name
                continue
            # Products of other shapes add up in another order: float32's 6e-8, which some steps enlarge.
            assert (tensors[name] - tensor).norm() / tensor.norm() < 1e-5, (seed, name)


def assert_same(found: dict[int, Classifier], expected: dict[int, Classifier], bytes_of: Any) -> None:
    assert {seed: bytes_of(classifier) for seed, classifier in found.items()} == {
        seed: bytes_of(classifier) for seed, classifier in expected.items()
    }


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int, int], nn.Module]], str]:
    """Register a network of `(bands, classes)` for the time of a test."""
    for name in ("_builders", "_presets"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))

    def register(build: Callable[[int, int], nn.Module]) -> str:
        @register_model(presets=["default"])
        def of_this_test(*, bands: int, classes: int, patch: int = 1, preset: str = "default") -> nn.Module:
            return build(bands, classes)

        return "of_this_test"

    return register


def normalised(bands: int, classes: int) -> nn.Module:
    # Without bias: the normalisation takes it away, so its gradient would be rounding alone, which Adam makes a step of.
    return nn.Sequential(
        nn.Linear(bands, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, classes)
    )


def partly_frozen(bands: int, classes: int) -> nn.Module:
    network = nn.Sequential(nn.Linear(bands, 8), nn.Tanh(), nn.Linear(8, classes))
    network[0].requires_grad_(False)
    return network


class Unused(nn.Module):
    """A network with a layer that it does not use."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.only, self.unused = nn.Linear(bands, classes), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x)


class DropoutTwice(nn.Module):
    """A network that drops in two places, in shapes of their own."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.first, self.last, self.dropout = nn.Linear(bands, 8), nn.Linear(8, classes), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(torch.tanh(self.first(self.dropout(x)))))


class Noisy(nn.Module):
    """A network that draws numbers of its own, as vmap refuses to."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.only = nn.Linear(bands, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x + torch.randn_like(x) if self.training else x)


@pytest.fixture
def light(tiny: Settings, registered: Any) -> Settings:
    """A training whose network costs Triton's interpreter little."""
    return tiny.replace(model=registered(DropoutTwice))


def other_pixel_counts(labels: xr.DataArray) -> dict[int, Split]:
    return {seed: split_random(labels, per_class=3 + seed, seed=seed) for seed in SEEDS}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patch": 3},
        {"mixup": 0.4, "rare_classes": "balanced batches"},
    ],
    ids=str,
)
def test_seeds_trained_together_learn_what_each_learns_alone(
    scene: Scene, splits: dict[int, Split], tiny: Settings, changes: dict[str, Any]
):
    settings = tiny.replace(**changes)
    with joined():
        found = fit_seeds(*scene, splits, settings, device="cpu")
    assert_near(found, alone(scene, splits, settings))


@pytest.mark.parametrize(
    "rare_classes", ["as drawn", "balanced batches", "balanced loss", "logit adjustment", "prior correction"]
)
def test_seeds_trained_together_make_up_for_their_own_rare_classes(
    scene: Scene, light: Settings, rare_classes: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SPECTRALMAMBA_SELF_CHECK", "1")
    settings = light.replace(mixup=0.4, rare_classes=rare_classes)
    rare = {0: 1, 5: 3}  # class that has but two training pixels
    splits = {
        seed: without_most_of(scene[1], split, rare[seed]) for seed, split in other_pixel_counts(scene[1]).items()
    }
    with joined():
        found = fit_seeds(*scene, splits, settings, device="cpu")
    assert_near(found, alone(scene, splits, settings))


@pytest.mark.parametrize("rare_classes", ["as drawn", "balanced batches", "balanced loss"])
def test_seeds_trained_together_heed_weights(
    scene: Scene, light: Settings, rare_classes: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SPECTRALMAMBA_SELF_CHECK", "1")
    settings = light.replace(mixup=0.4, rare_classes=rare_classes)
    weights = np.random.default_rng(0).uniform(0.1, 4, scene[1].shape)
    splits = other_pixel_counts(scene[1])
    with joined():
        found = fit_seeds(*scene, splits, settings, weights=weights, device="cpu")
    expected = alone(scene, splits, settings, weights=weights)
    assert_near(found, expected)
    plain = alone(scene, splits, settings)
    for seed in SEEDS:
        first, second = (of[seed].network.state_dict()["network.last.weight"] for of in (expected, plain))
        assert (first - second).norm() / second.norm() > 1e-3


def without_most_of(labels: xr.DataArray, split: Split, class_id: int) -> Split:
    train = split.train.copy()
    rows, columns = np.nonzero(train & (labels.values == class_id))
    train[rows[2:], columns[2:]] = False
    return dataclasses.replace(split, train=train)


def test_seeds_need_not_have_as_many_training_pixels_nor_the_same_normalisation(scene: Scene, light: Settings):
    splits, settings = other_pixel_counts(scene[1]), light.replace(statistics_from="training pixels")
    with joined():
        found = fit_seeds(*scene, splits, settings, device="cpu")
    assert_near(found, alone(scene, splits, settings))
    first, second = (torch.cat([b.flatten() for b in found[seed].transform.buffers()]) for seed in SEEDS)
    assert not torch.equal(first, second)


def test_one_seed_is_trained_together_with_no_other_as_well(scene: Scene, splits: dict[int, Split], light: Settings):
    one = {5: splits[5]}
    with joined():
        found = fit_seeds(*scene, one, light, device="cpu")
    assert_near(found, alone(scene, one, light))


def test_how_many_steps_are_done_at_once_does_not_matter(
    scene: Scene, splits: dict[int, Split], light: Settings, bytes_of: Any, monkeypatch: pytest.MonkeyPatch
):
    settings = light.replace(steps=5, batch_size=2, mixup=0.4)
    with joined():
        expected = fit_seeds(*scene, splits, settings, device="cpu")
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY", 4)
    with joined(block=3):  # 3, 1 up to the checkpoint, 1
        assert_same(fit_seeds(*scene, splits, settings, device="cpu"), expected, bytes_of)


def test_on_a_cpu_every_seed_is_trained_as_by_fit_byte_for_byte(scene: Scene, quick: Settings, bytes_of: Any):
    splits = other_pixel_counts(scene[1])
    for changes in ({}, {"mixup": 0.4, "rare_classes": "balanced loss", "statistics_from": "training pixels"}):
        settings = quick.replace(**changes)
        assert_same(fit_seeds(*scene, splits, settings, device="cpu"), alone(scene, splits, settings), bytes_of)


def test_the_listener_hears_every_step_of_every_seed(scene: Scene, splits: dict[int, Split], light: Settings):
    heard: dict[int, list[Progress]] = {seed: [] for seed in SEEDS}
    expected: dict[int, list[Progress]] = {seed: [] for seed in SEEDS}
    with joined(block=2):
        fit_seeds(*scene, splits, light, device="cpu", on_step=lambda seed, progress: heard[seed].append(progress))
    fit_seeds(*scene, splits, light, device="cpu", on_step=lambda seed, progress: expected[seed].append(progress))
    for seed in SEEDS:
        assert [progress.step for progress in heard[seed]] == [1, 2, 3]
        for found, right in zip(heard[seed], expected[seed], strict=True):
            assert np.isfinite(found.loss)
            # The weights' relative difference, and the sum's.
            assert found.loss == pytest.approx(right.loss, rel=1e-5)
            assert (found.steps, found.accuracy) == (right.steps, right.accuracy)
            assert found.learning_rate == right.learning_rate == one_cycle(found.step - 1, 3, light.learning_rate)


def stop_at(seed: int, step: int) -> Callable[[int, Progress], None]:
    def on_step(of_seed: int, progress: Progress) -> None:
        if (of_seed, progress.step) == (seed, step):
            raise KeyboardInterrupt

    return on_step


def checkpoints_in(folder: Path, seeds: Iterable[int] = SEEDS) -> dict[int, Path]:
    folder.mkdir(exist_ok=True)
    return {seed: folder / f"{seed}.safetensors" for seed in seeds}


def test_interrupted_seeds_go_on_together_or_alone(
    scene: Scene, splits: dict[int, Split], light: Settings, tmp_path: Path
):
    settings = light.replace(steps=5)
    checkpoints, copies = checkpoints_in(tmp_path / "checkpoints"), checkpoints_in(tmp_path / "copies")
    unbroken = alone(scene, splits, settings)
    with joined(block=2):
        with pytest.raises(TrainingInterrupted, match="after 4 of 5 steps") as stopped:
            fit_seeds(*scene, splits, settings, device="cpu", checkpoints=checkpoints, on_step=stop_at(5, 3))
    assert stopped.value.file == checkpoints[0]
    for seed in SEEDS:
        shutil.copy(checkpoints[seed], copies[seed])

    steps: list[tuple[int, int]] = []
    with joined():
        resumed = fit_seeds(
            *scene, splits, settings, device="cpu", checkpoints=checkpoints, resume=True,
            on_step=lambda seed, progress: steps.append((seed, progress.step)),
        )  # fmt: skip
    assert sorted(steps) == [(0, 5), (5, 5)]
    assert_near(resumed, unbroken)
    assert not any(file.exists() for file in checkpoints.values())

    for seed in SEEDS:
        gone_on = fit(*scene, splits[seed], settings, seed=seed, device="cpu", checkpoint=copies[seed], resume=True)
        assert_near({seed: gone_on}, {seed: unbroken[seed]})
        assert not copies[seed].exists()


def test_seeds_interrupted_alone_go_on_together(
    scene: Scene, splits: dict[int, Split], light: Settings, tmp_path: Path
):
    checkpoints = checkpoints_in(tmp_path)
    for seed in SEEDS:
        with pytest.raises(TrainingInterrupted):
            fit_seeds(
                *scene, {seed: splits[seed]}, light, device="cpu", checkpoints=checkpoints, on_step=stop_at(seed, 2)
            )
    with joined():
        found = fit_seeds(*scene, splits, light, device="cpu", checkpoints=checkpoints, resume=True)
    assert_near(found, alone(scene, splits, light))
    assert not any(file.exists() for file in checkpoints.values())


def test_a_seed_without_checkpoint_starts_anew_when_others_go_on(
    scene: Scene, splits: dict[int, Split], tiny: Settings, bytes_of: Any, tmp_path: Path
):
    checkpoints = checkpoints_in(tmp_path)
    with pytest.raises(TrainingInterrupted, match="after 2 of 3 steps"):
        fit_seeds(*scene, splits, tiny, device="cpu", checkpoints=checkpoints, on_step=stop_at(0, 2))
    assert checkpoints[0].is_file()
    assert not checkpoints[5].exists()
    steps: list[tuple[int, int]] = []
    found = fit_seeds(
        *scene, splits, tiny, device="cpu", checkpoints=checkpoints, resume=True,
        on_step=lambda seed, progress: steps.append((seed, progress.step)),
    )  # fmt: skip
    assert steps == [(0, 3), (5, 1), (5, 2), (5, 3)]
    assert_same(found, alone(scene, splits, tiny), bytes_of)
    assert not any(file.exists() for file in checkpoints.values())


def test_a_seed_that_is_done_keeps_its_checkpoint_until_all_are(
    scene: Scene, splits: dict[int, Split], tiny: Settings, bytes_of: Any, tmp_path: Path
):
    checkpoints = checkpoints_in(tmp_path)
    with pytest.raises(TrainingInterrupted, match="after 1 of 3 steps") as stopped:
        fit_seeds(*scene, splits, tiny, device="cpu", checkpoints=checkpoints, on_step=stop_at(5, 1))
    assert stopped.value.file == checkpoints[5]
    assert all(file.is_file() for file in checkpoints.values())
    steps: list[tuple[int, int]] = []
    found = fit_seeds(
        *scene, splits, tiny, device="cpu", checkpoints=checkpoints, resume=True,
        on_step=lambda seed, progress: steps.append((seed, progress.step)),
    )  # fmt: skip
    assert steps == [(5, 2), (5, 3)]
    assert_same(found, alone(scene, splits, tiny), bytes_of)
    assert not any(file.exists() for file in checkpoints.values())


@pytest.mark.parametrize("build", [normalised, partly_frozen, Unused, DropoutTwice])
def test_other_networks_are_trained_together_as_alone(
    scene: Scene, splits: dict[int, Split], tiny: Settings, registered: Any, build: Callable[[int, int], nn.Module]
):
    settings = tiny.replace(model=registered(build))
    with joined():
        found = fit_seeds(*scene, splits, settings, device="cpu")
    assert_near(found, alone(scene, splits, settings))


def test_running_statistics_go_on_from_a_checkpoint(
    scene: Scene, splits: dict[int, Split], tiny: Settings, registered: Any, tmp_path: Path
):
    settings, checkpoints = tiny.replace(model=registered(normalised)), checkpoints_in(tmp_path)
    with joined(block=2):
        with pytest.raises(TrainingInterrupted, match="after 2 of 3 steps"):
            fit_seeds(*scene, splits, settings, device="cpu", checkpoints=checkpoints, on_step=stop_at(0, 1))
        found = fit_seeds(*scene, splits, settings, device="cpu", checkpoints=checkpoints, resume=True)
    assert_near(found, alone(scene, splits, settings))
    assert all(int(classifier.network.network[1].num_batches_tracked) == 3 for classifier in found.values())


def test_a_network_that_cannot_be_batched_is_trained_one_seed_after_the_other_with_a_warning(
    scene: Scene,
    splits: dict[int, Split],
    tiny: Settings,
    registered: Any,
    bytes_of: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    settings = tiny.replace(model=registered(Noisy))
    expected = alone(scene, splits, settings)
    monkeypatch.setattr(fitting, "_steps", fitting._together)
    with pytest.warns(RuntimeWarning, match=r"one seed and one kernel after the other.*random"):
        found = fit_seeds(*scene, splits, settings, device="cpu")
    assert_same(found, expected, bytes_of)


def test_wrong_kernels_are_found_before_training(
    scene: Scene,
    splits: dict[int, Split],
    tiny: Settings,
    bytes_of: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    expected = alone(scene, splits, tiny)
    monkeypatch.setenv("SPECTRALMAMBA_SELF_CHECK", "1")
    right = together.JointBatches.gathered
    monkeypatch.setattr(together.JointBatches, "gathered", lambda batches, chosen: 1.1 * right(batches, chosen))
    monkeypatch.setattr(fitting, "_steps", fitting._together)
    with pytest.warns(RuntimeWarning, match=r"fail their self-check: they are off by \d"):
        found = fit_seeds(*scene, splits, tiny, device="cpu")
    assert_same(found, expected, bytes_of)


def test_right_kernels_pass_their_self_check(scene: Scene, light: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPECTRALMAMBA_SELF_CHECK", "1")
    splits = {seed: split_random(scene[1], per_class=1, seed=seed) for seed in SEEDS}
    with joined():  # a batch of more than the three training pixels
        fit_seeds(*scene, splits, light.replace(steps=1, batch_size=4), device="cpu")


@pytest.fixture
def no_more_than(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make a device whose memory is enough for so many seeds at once."""

    def limit(most: int) -> None:
        def joint(trainings: list[Any]) -> SimpleNamespace:
            if len(trainings) > most:
                raise torch.OutOfMemoryError("out of memory")
            return SimpleNamespace(trainings=trainings)

        monkeypatch.setattr(together, "JointSteps", joint)

    return limit


@pytest.mark.parametrize(("most", "sizes"), [(5, [5]), (4, [3, 2]), (3, [3, 2]), (2, [2, 1, 2]), (1, [1, 1, 1, 1, 1])])
def test_seeds_are_halved_until_they_fit_into_memory(no_more_than: Callable[[int], None], most: int, sizes: list[int]):
    no_more_than(most)
    trainings: list[Any] = [object() for _ in range(5)]
    parts = [steps.trainings for steps in fitting._together(trainings)]
    assert [len(part) for part in parts] == sizes
    assert [training for part in parts for training in part] == trainings


def test_a_single_seed_that_does_not_fit_into_memory_is_trained_alone(no_more_than: Callable[[int], None]):
    no_more_than(0)
    trainings: list[Any] = [object(), object()]
    found = list(fitting._together(trainings))
    assert all(isinstance(steps, SingleSteps) for steps in found)
    assert [steps.trainings for steps in found] == [[training] for training in trainings]


def test_what_torch_cannot_batch_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch):
    def refuse(trainings: list[Any]) -> None:
        raise RuntimeError("cannot be batched\nand a second line")

    monkeypatch.setattr(together, "JointSteps", refuse)
    trainings: list[Any] = [object() for _ in range(3)]
    with pytest.warns(RuntimeWarning, match=r"slower: RuntimeError: cannot be batched$") as warned:
        found = list(fitting._together(trainings))
    assert len(warned) == 1
    assert all(isinstance(steps, SingleSteps) for steps in found)
    assert [steps.trainings for steps in found] == [[training] for training in trainings]


def test_only_seeds_at_one_step_of_one_patch_and_as_many_classes_are_put_together(
    no_more_than: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
):
    def training(step: int, classes: int, patch: int = 3) -> Any:
        task, settings = SimpleNamespace(classes=range(classes)), SimpleNamespace(patch=patch)
        return SimpleNamespace(step=step, task=task, settings=settings, device=torch.device("cuda"))

    no_more_than(10)
    monkeypatch.setattr(fitting, "triton_kernels", lambda device: object())
    shapes = (0, 3), (4, 3), (0, 3), (0, 2), (4, 3), (0, 3, 7)
    a, b, c, d, e, f = trainings = [training(*shape) for shape in shapes]
    found = [[id(part) for part in steps.trainings] for steps in fitting._steps(trainings)]
    assert found == [[id(a), id(c)], [id(b), id(e)], [id(d)], [id(f)]]
    monkeypatch.setattr(fitting, "triton_kernels", lambda device: None)
    assert all(isinstance(steps, SingleSteps) for steps in fitting._steps(trainings))
