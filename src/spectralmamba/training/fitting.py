"""fit: scene, labels, split, settings → classifier."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import os
import signal
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import nn

from spectralmamba.classifier import Classifier, build_network, find_device
from spectralmamba.errors import ModelError, SceneError, TrainingInterrupted
from spectralmamba.inference import exact_convolutions
from spectralmamba.models import ModelSize, list_models, model_size
from spectralmamba.models.committee import SIMPLE_MODELS, Committee, Companion
from spectralmamba.models.novelty import NoveltyScore
from spectralmamba.models.prediction_sets import PredictionSets
from spectralmamba.ops.selective_scan.operator import triton_kernels
from spectralmamba.pixels import Pixels
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.tensor_files import under_prefix
from spectralmamba.training.choice import FIRST_CHOICE, Choice, choose_model
from spectralmamba.training.companions import learn_simple
from spectralmamba.training.discriminant import learn_novelty
from spectralmamba.training.prediction_sets import learn_prediction_sets
from spectralmamba.training.recommend import recommend_settings
from spectralmamba.training.self_training import Pupil, plan
from spectralmamba.training.single import SingleSteps
from spectralmamba.training.state import Checkpoint, Keeper, Progress, Training
from spectralmamba.training.task import Task, describe_model, make_card, prepare

AUTO = "auto"  # as `Settings.model`: chosen among all
_CHECKPOINT_EVERY = 250


def fit(
    scene: xr.DataArray,
    labels: xr.DataArray,
    split: Split | None = None,
    settings: Settings | None = None,
    *,
    weights: xr.DataArray | np.ndarray | None = None,
    device: str = "auto",
    on_step: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    **changes: Any,
) -> Classifier:
    """Train a classifier on the labels of a scene.

    The same arguments on the same machine give the same classifier, byte for byte. All that is random follows from the seed
    and the step, on every device alike.

    Args:
        scene: `(band, y, x)`, from `open_scene`.
        labels: `(y, x)` class ids, 0 unlabelled, from `open_labels`.
        split: Which labelled pixels train; all of them if None. Test labels are not looked at.
        settings: Hyper-parameters; what `recommend_settings` gives if None.
        weights: `(y, x)`, how much each label counts, at least 0; only ratios matter, and labels of 0 do not train. The loss and
            what decides beside the network heed them. All count alike if None.
        device: "auto" (a GPU if there is one), or torch's name of a device.
        on_step: Called for every step; on a GPU for some steps at once.
        checkpoint: File to keep the state in, every few hundred steps and on Ctrl-C; it is removed at the end.
        resume: Whether to go on from `checkpoint`.
        **changes: Single settings, such as `patch=3`.

    Raises:
        LabelError: Fewer than two classes to train on, labels or weights on another grid, or weights that cannot be.
        ModelError: There is no such model, or it does not take its options.
        SceneError: No band or no pixel can be used.
        SettingsError: A setting is unknown or out of range, or the checkpoint does not fit.
        SplitError: The split is of another grid.
        TrainingInterrupted: Ctrl-C; the checkpoint was written.
    """
    settings = (settings or recommend_settings(scene, labels, split).settings).replace(**changes)
    seed = settings.seed
    listener = None if on_step is None else lambda _, progress: on_step(progress)
    checkpoints = {} if checkpoint is None else {seed: Path(checkpoint)}
    resumed = {seed} if resume else ()
    return _fit(scene, labels, {seed: split}, settings, weights, device, listener, checkpoints, resumed)[seed]


def fit_seeds(
    scene: xr.DataArray,
    labels: xr.DataArray,
    splits: Mapping[int, Split | None],
    settings: Settings | None = None,
    *,
    weights: xr.DataArray | np.ndarray | None = None,
    device: str = "auto",
    on_step: Callable[[int, Progress], None] | None = None,
    checkpoints: Mapping[int, str | os.PathLike[str]] | None = None,
    resume: bool = False,
    **changes: Any,
) -> dict[int, Classifier]:
    """Train a classifier for each of several seeds, on a GPU all of them together as far as its memory allows.

    Each is what `fit` would give alone: it sees the same batches, changes and dropout, bit for bit. On a GPU, matrix products
    of another shape add up in another order, a relative difference of some 1e-6 a step that training then enlarges.

    Args:
        scene: `(band, y, x)`, from `open_scene`.
        labels: `(y, x)` class ids, 0 unlabelled, from `open_labels`.
        splits: The seeds, and which labelled pixels train with each; all of them if None.
        settings: Hyper-parameters but for the seed; what `recommend_settings` gives for the first split if None.
        weights: `(y, x)`, how much each label counts, at least 0; only ratios matter, and labels of 0 do not train. The loss and
            what decides beside the network heed them. All count alike if None.
        device: "auto" (a GPU if there is one), or torch's name of a device.
        on_step: Called with the seed for every step; on a GPU for some steps at once.
        checkpoints: As `fit` has one, by seed.
        resume: Whether seeds whose checkpoint is there go on from it; the others start anew.
        **changes: Single settings, such as `patch=3`.

    Raises:
        SpectralMambaError: As `fit` does.
    """
    first = next(iter(splits.values()), None)
    settings = (settings or recommend_settings(scene, labels, first).settings).replace(**changes)
    files = {seed: Path(file) for seed, file in (checkpoints or {}).items()}
    resumed = {seed for seed, file in files.items() if resume and file.is_file()}
    return _fit(scene, labels, splits, settings, weights, device, on_step, files, resumed)


def check_model(settings: Settings) -> None:
    """Check that there is such a model.

    Raises:
        ModelError: There is none; names those that there are.
    """
    known = [*list_models(), *SIMPLE_MODELS, AUTO]
    if settings.model not in known:
        close = difflib.get_close_matches(settings.model, known, n=1)
        raise ModelError(
            "unknown model",
            found=settings.model,
            expected=" or ".join(known),
            remedy=f"Did you mean {close[0]!r}?" if close else None,
        )


def _fit(
    scene: xr.DataArray,
    labels: xr.DataArray,
    splits: Mapping[int, Split | None],
    settings: Settings,
    weights: xr.DataArray | np.ndarray | None,
    device: str,
    on_step: Callable[[int, Progress], None] | None,
    checkpoints: Mapping[int, Path],
    resumed: Collection[int],
) -> dict[int, Classifier]:
    splits = {seed: split and split.with_patch(settings.patch) for seed, split in splits.items()}
    target = find_device(device)
    bands = np.flatnonzero(scene["good"].values)
    if not len(bands):
        raise SceneError("the scene has no good band", file=scene.attrs.get("source"))
    check_model(settings)
    pixels = Pixels.from_scene(scene, bands, target)
    checksum = pixels.checksum()
    tasks = prepare(pixels, labels, splits, settings, weights)
    with _own_randomness(target):
        choices: dict[int, Choice] = {}
        if settings.model == AUTO:
            first = settings.replace(model=FIRST_CHOICE)
            choices = {seed: choose_model(task, first.replace(seed=seed), _deciding) for seed, task in tasks.items()}
        models = {seed: choices[seed].model if choices else settings.model for seed in tasks}
        runs = {
            seed: _Run(
                settings.replace(seed=seed, model=models[seed]),
                task,
                checksum,
                checkpoints.get(seed),
                None if on_step is None else _of_seed(seed, on_step),
            )
            for seed, task in tasks.items()
        }
        for seed in resumed:
            runs[seed].resume()
        _go_through_stages(runs.values())
    sizes: dict[tuple[str, int, int], ModelSize] = {}
    classifiers: dict[int, Classifier] = {}
    for seed, run in runs.items():
        task, companion, network = run.task, run.companion, run.deciding
        beside = None if companion is None else {"kind": settings.companion, "size": companion.size}
        card = make_card(scene, bands, labels, task, splits[seed], run.settings, checksum)
        spectra = getattr(network if companion is None else companion, "size", 0)
        shape = run.settings.model, len(task.classes), spectra
        size = sizes.get(shape) or model_size(network, len(bands), settings.patch)
        sizes[shape] = size
        card["model"] |= {"parameters": size.parameters, "multiply_accumulates": size.multiply_accumulates}
        card["model"]["companion"] = beside
        if run.settings.model in SIMPLE_MODELS:
            card["model"]["size"] = spectra
        card["choice"] = choices[seed].record() if seed in choices else None
        card["self_training"] = run.pupil.record(run.stages)
        transform = copy.deepcopy(task.normalised.transform)
        sets, card["prediction_sets"] = run.sets or (None, None)
        classifiers[seed] = Classifier(network.eval(), transform, card, run.novelty, sets)
    for file in checkpoints.values():
        file.unlink(missing_ok=True)
    return classifiers


def _deciding(tasks: Mapping[int, Task], settings: Settings) -> dict[int, nn.Module]:
    """Train for some tasks and return what decides for each."""
    settings = settings.replace(set_coverage=0)
    runs = {key: _Run(settings, task, "", None, None) for key, task in tasks.items()}
    try:
        with torch.enable_grad():
            _go_through_stages(runs.values())
    except TrainingInterrupted:
        raise TrainingInterrupted(
            "training was stopped while classifiers were compared",
            remedy="Nothing is kept of a comparison; on the command line --resume begins it anew.",
        ) from None
    return {key: run.deciding for key, run in runs.items()}


def _go_through_stages(runs: Collection[_Run]) -> None:
    """Train stage after stage, those of all runs together."""
    for number in range(max((len(run.stages) for run in runs), default=0)):
        ready = [run for run in runs if run.pupil.stage == number < len(run.stages)]
        trainings = [run.training() for run in ready]
        _train(trainings, keep=len(runs) > 1)
        try:
            with _held_interrupt():
                for run, training in zip(ready, trainings, strict=True):
                    run.finish(training)
        except KeyboardInterrupt:
            raise _interrupted(trainings) from None


class _Run:
    """One seed's way through the stages; there are none where nothing is trained step by step."""

    def __init__(
        self,
        settings: Settings,
        task: Task,
        checksum: str,
        checkpoint: Path | None,
        listener: Callable[[Progress], None] | None,
    ) -> None:
        self.settings, self.task, self.pupil = settings, task, Pupil(task, settings)
        self.stages = [] if settings.model in SIMPLE_MODELS else plan(settings, task)
        identity = {"settings": settings.to_dict(), "data": checksum, "labels": task.checksum()}
        self._keeper = Keeper(checkpoint, listener, identity, stages=len(self.stages))
        self._kept: Checkpoint | None = None
        self.network: nn.Module
        self.companion: Companion | None
        self.novelty: NoveltyScore
        self.sets: tuple[PredictionSets, dict[str, Any]] | None
        if not self.stages:
            simple = learn_simple(SIMPLE_MODELS[settings.model], task, settings, settings.patch)
            self._conclude(simple, None, settings.patch)

    @property
    def deciding(self) -> nn.Module:
        """What decides in the end."""
        return self.network if self.companion is None else Committee(self.network, self.companion)

    def resume(self) -> None:
        """Go on from the checkpoint."""
        self._kept = Checkpoint.load(self._keeper.checkpoint, self._keeper.identity)
        self.pupil.restore(self._kept.stage, under_prefix("pupil.", self._kept.tensors))

    def training(self) -> Training:
        """Return the training of the next stage."""
        stage = self.stages[self.pupil.stage]
        pixels, classes = self.task.normalised.pixels, len(self.task.classes)
        settings = self.settings.replace(patch=stage.patch)
        torch.manual_seed(settings.seed)
        network = build_network(describe_model(settings), pixels.values.shape[1], classes).to(pixels.values.device)
        keeper = dataclasses.replace(self._keeper, stage=self.pupil.stage, tensors=self.pupil.tensors())
        training = Training(network, self.pupil.lesson(), settings, keeper)
        if self._kept is not None:
            training.restore(self._kept)
            self._kept = None
        return training

    def finish(self, training: Training) -> None:
        """Take what the stage has trained."""
        stage = self.stages[self.pupil.stage]
        if stage.last:
            self._conclude(training.answering(), self.pupil.companion(stage.patch), stage.patch)
        else:
            self.pupil.learned(training.answering(), stage)

    def _conclude(self, network: nn.Module, companion: Companion | None, patch: int) -> None:
        self.network, self.companion = network, companion
        self.novelty = learn_novelty(self.task, self.settings)
        self.sets = learn_prediction_sets(self.task, self.settings, patch, companion or network)


def _of_seed(seed: int, on_step: Callable[[int, Progress], None]) -> Callable[[Progress], None]:
    return lambda progress: on_step(seed, progress)


class Steps(Protocol):
    """Does the steps of trainings that stand at the same step.

    Attributes:
        trainings: Their step counts are always right; their networks and optimizers are after `store`.
        block: Steps that are best done at once.
    """

    trainings: list[Training]
    block: int

    def advance(self, count: int) -> np.ndarray:
        """Do some steps; return loss and accuracy of each step and training, `(count, trainings, 2)`."""
        ...

    def store(self) -> None:
        """Bring the trainings' networks and optimizers up to date."""
        ...


def _steps(trainings: list[Training]) -> Iterator[Steps]:
    """Divide trainings into those that are done together."""
    if not trainings:
        return
    device = trainings[0].device
    if device.type != "cuda" or triton_kernels(device) is None:
        yield from map(SingleSteps, trainings)
        return
    groups: dict[tuple[int, ...], list[Training]] = {}
    for training in trainings:
        alike = training.settings.patch, training.step, len(training.task.classes)
        groups.setdefault(alike, []).append(training)
    for group in groups.values():
        yield from _together(group)


def _together(group: list[Training]) -> Iterator[Steps]:
    """Put trainings together on a GPU: half of them if memory does not suffice, one after the other if it cannot be done."""
    from spectralmamba.training.together import JointSteps

    try:
        steps, parts = JointSteps(group), []
    except torch.OutOfMemoryError:
        steps, middle = None, (len(group) + 1) // 2
        parts = [group[:middle], group[middle:]]
    except Exception as error:  # torch refuses to batch or to record what a network does in many ways
        steps, parts = None, []
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        message = f"this network is trained one seed and one kernel after the other, which is slower: {reason}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    if steps is not None:
        yield steps
    elif parts and len(group) > 1:
        for part in parts:
            yield from _together(part)
    else:
        yield from map(SingleSteps, group)


def _train(trainings: list[Training], keep: bool) -> None:
    """Train to the end, and keep the last state where other seeds still have to be trained."""
    for steps in _steps(trainings):
        try:
            _run(steps)
        except KeyboardInterrupt:
            steps.store()
            raise _interrupted(steps.trainings) from None
        if keep:
            for training in steps.trainings:
                training.save()


def _run(steps: Steps) -> None:
    trainings, total = steps.trainings, steps.trainings[0].settings.steps
    while (step := trainings[0].step) < total:
        count = min(steps.block, total - step, _CHECKPOINT_EVERY - step % _CHECKPOINT_EVERY)
        with _held_interrupt():
            results = steps.advance(count)
            if trainings[0].step % _CHECKPOINT_EVERY == 0:
                steps.store()
                for training in trainings:
                    training.save()
            for number, of_step in enumerate(results, step + 1):
                for training, (loss, accuracy) in zip(trainings, of_step, strict=True):
                    training.tell(number, float(loss), float(accuracy))
    steps.store()


def _interrupted(trainings: list[Training]) -> TrainingInterrupted:
    """Keep the trainings' state, and say so."""
    done, total = trainings[0].steps_of_all(trainings[0].step)
    problem = f"training was stopped after {done} of {total} steps"
    kept = [training for training in trainings if training.keeper.checkpoint is not None]
    if not kept:
        return TrainingInterrupted(problem, remedy="No checkpoint was asked for, so nothing was kept.")
    for training in kept:
        training.save()
    return TrainingInterrupted(
        problem,
        file=kept[0].keeper.checkpoint,
        remedy="The state is kept there; the same command with --resume goes on.",
    )


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Make torch deterministic, and give the caller's random state back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), exact_convolutions():
        yield


@contextmanager
def _held_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block: what a checkpoint holds and listeners have been told belong together."""
    in_main = threading.current_thread() is threading.main_thread()  # the only one that signals reach
    before = signal.getsignal(signal.SIGINT)
    if not in_main or before is None:  # None: not Python's handler, which it cannot put back
        yield
        return
    held = []
    signal.signal(signal.SIGINT, lambda *_: held.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)
