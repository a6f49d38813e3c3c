"""fit: scene, labels, split, settings → classifier."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from spectralmamba.augmentation import Augmentation, ClassDifferences
from spectralmamba.classifier import FORMAT, Classifier, build_network, exact_convolutions, find_device, versions
from spectralmamba.errors import LabelError, SceneError, SettingsError, SplitError, TrainingInterrupted
from spectralmamba.files import numbers_or_none
from spectralmamba.models import model_size
from spectralmamba.pixels import Pixels, as_input
from spectralmamba.scenes.class_rasters import HIGHEST_ID
from spectralmamba.scenes.palette import default_colors
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.tensor_files import read_tensors, under_prefix, with_prefix, write_tensors
from spectralmamba.transforms import InputTransform, learn_transform

# One-cycle schedule (Smith and Topin 2017, arXiv 1708.07120): share of the steps that the rate rises, and where it starts
# and ends as a part of the highest rate.
_RISE, _START, _END = 0.3, 1 / 25, 1e-4 / 25
_CHECKPOINT_EVERY = 250
_PATCHES = 4096  # gathered at a time


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        loss: Loss of the last batch.
        accuracy: Share of the last batch that was classified right.
        learning_rate: Rate of the last step.
    """

    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float


def fit(
    scene: xr.DataArray,
    labels: xr.DataArray,
    split: Split | None = None,
    settings: Settings | None = None,
    *,
    device: str = "auto",
    on_step: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    **changes: Any,
) -> Classifier:
    """Train a classifier on the labels of a scene.

    The same arguments on the same machine give the same classifier, byte for byte.

    Args:
        scene: `(band, y, x)`, from `open_scene`.
        labels: `(y, x)` class ids, 0 unlabelled, from `open_labels`.
        split: Which labelled pixels train; all of them if None. Test labels are not looked at.
        settings: Hyper-parameters; the defaults if None.
        device: "auto" (a GPU if there is one), or torch's name of a device.
        on_step: Called after every step.
        checkpoint: File to keep the state in, every few hundred steps and on Ctrl-C; it is removed at the end.
        resume: Whether to go on from `checkpoint`.
        **changes: Single settings, such as `patch=3`.

    Raises:
        LabelError: Fewer than two classes to train on, or labels on another grid.
        SceneError: No band or no pixel can be used.
        SettingsError: A setting is unknown or out of range, or the checkpoint does not fit.
        SplitError: The split is of another grid.
        TrainingInterrupted: Ctrl-C; the checkpoint was written.
    """
    settings = (settings or Settings()).replace(**changes)
    if split is not None:
        split = split.with_patch(settings.patch)
    target = find_device(device)
    bands = np.flatnonzero(scene["good"].values)
    if not len(bands):
        raise SceneError("the scene has no good band", file=scene.attrs.get("source"))
    pixels = Pixels.from_scene(scene, bands, target)
    checksum = pixels.checksum()
    task = _prepare(pixels, labels, split, settings)
    card = _card(scene, bands, labels, task, split, settings, checksum)
    with _own_randomness(settings.seed, target):
        network = build_network(card["model"], len(bands), len(task.classes)).to(target)
        size = model_size(network, len(bands), settings.patch)
        card["model"] |= {"parameters": size.parameters, "multiply_accumulates": size.multiply_accumulates}
        run = _Run(network, task, settings, checksum, Path(checkpoint) if checkpoint is not None else None)
        run.train(resume, on_step)
    return Classifier(network.eval(), task.transform, card)


@dataclass(frozen=True)
class _Task:
    """What there is to learn: normalised pixels, the training positions and the index of their class."""

    pixels: Pixels
    transform: InputTransform
    pairs: Tensor
    positions: Tensor
    targets: Tensor
    classes: np.ndarray
    statistics_pixels: int


def _prepare(pixels: Pixels, labels: xr.DataArray, split: Split | None, settings: Settings) -> _Task:
    ids = np.asarray(labels.values)
    if ids.shape != tuple(pixels.grid.shape):
        raise LabelError("labels and scene have different shapes", found=ids.shape, expected=tuple(pixels.grid.shape))
    if split is not None and split.train.shape != ids.shape:
        raise SplitError("split and labels have different shapes", found=split.train.shape, expected=ids.shape)
    training = ids > 0 if split is None else split.train & (ids > 0)
    positions = pixels.at(training)
    rows, columns = pixels.rows[positions].cpu().numpy(), pixels.columns[positions].cpu().numpy()
    classes, targets = np.unique(ids[rows, columns], return_inverse=True)
    if len(classes) < 2:
        raise LabelError(
            "there is nothing to tell apart in the training labels",
            found=f"{len(classes)} class with valid pixels",
            expected="at least 2",
            remedy="Label a second class, or choose another split.",
        )
    if classes[-1] > HIGHEST_ID:
        raise LabelError(
            "a class id is too large for a map",
            found=classes[-1],
            expected=f"at most {HIGHEST_ID}",
            remedy="Renumber the classes.",
        )
    area = statistics_area(training, split, settings)
    statistics, pairs = pixels.at(area), pixels.neighbour_pairs(area)
    transform = learn_transform(pixels.values, statistics, pairs, settings)
    with torch.no_grad():
        normalised = pixels.with_values(transform(pixels.values))
    return _Task(
        normalised,
        transform,
        pairs,
        positions,
        torch.from_numpy(targets.reshape(-1)).to(positions.device),
        classes,
        len(statistics),
    )


def statistics_area(training: np.ndarray, split: Split | None, settings: Settings) -> np.ndarray:
    """Return the mask `(H, W)` of the pixels that `settings.statistics_from` lets normalisation be learned from."""
    if settings.statistics_from == "training pixels":
        return training
    if settings.statistics_from == "scene" or split is None:
        return np.ones_like(training)
    return split.training_side | training


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch, make it deterministic, and give the caller's state back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), exact_convolutions():
        torch.manual_seed(seed)
        yield


def _seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's own generators; without the GPU's, which `torch.manual_seed` spends most of its time on, if none is used."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step, which would otherwise wait for the system to clear new pages.

    It gives back freed memory above twice the largest block that was ever freed, counting blocks of up to 32 MiB.
    """
    torch.empty((1 << 25) - (1 << 16), dtype=torch.uint8)


@contextmanager
def _held_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block, so that a checkpoint's weights and its step count belong together."""
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


class _Run:
    """The training loop. Every step draws from generators seeded by (seed, step), so going on needs no random state."""

    def __init__(
        self, network: nn.Module, task: _Task, settings: Settings, checksum: str, checkpoint: Path | None
    ) -> None:
        self.network, self.task, self.settings = network, task, settings
        self.identity = {"settings": settings.to_dict(), "data": checksum, "labels": _labels_checksum(task)}
        self.checkpoint = checkpoint
        self.device = task.positions.device
        self.neighbourhoods = task.pixels.neighbourhoods(task.positions, settings.patch)  # (n, P²)
        means = torch.cat(
            [task.pixels.gathered(part).mean(1) for part in self.neighbourhoods.split(_PATCHES)]
        )  # (n, L)
        self.augmentation = Augmentation(
            settings, task.pixels.values, task.pairs, ClassDifferences(means, task.targets)
        )
        self.one_hot = one_hot(task.targets, len(task.classes)).float()  # (n, K)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.shuffles: dict[int, np.ndarray] = {}  # of the epochs that the last batch came from
        self.step = 0

    def train(self, resume: bool, on_step: Callable[[Progress], None] | None) -> None:
        if resume:
            self._restore()
        self.network.train()
        _keep_freed_memory()
        try:
            while self.step < self.settings.steps:
                progress = self._one_step()
                if self.checkpoint is not None and self.step % _CHECKPOINT_EVERY == 0:
                    self._save()
                if on_step is not None:
                    on_step(progress)
        except KeyboardInterrupt:
            raise self._interrupted() from None
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    def _one_step(self) -> Progress:
        seed = np.random.SeedSequence([self.settings.seed, self.step])
        random = np.random.default_rng(seed)
        _seed_torch(int(seed.generate_state(1)[0]), self.device)
        generator = torch.Generator(self.device).manual_seed(int(seed.generate_state(2)[1]))
        chosen = torch.from_numpy(self._batch(random)).to(self.device)
        neighbourhoods = self.augmentation.turn(self.neighbourhoods[chosen], generator)
        spectra = self.task.pixels.gathered(neighbourhoods)  # (B, P², L)
        spectra = self.augmentation.change(spectra, generator, random)
        spectra, targets = self.augmentation.mix(spectra, self.one_hot[chosen], random)
        rate = one_cycle(self.step, self.settings.steps, self.settings.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        logits = self.network(as_input(spectra))  # (B, K)
        loss = cross_entropy(logits, targets, label_smoothing=self.settings.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with _held_interrupt():
            self.optimizer.step()
            self.step += 1
        accuracy = (logits.detach().argmax(1) == targets.argmax(1)).float().mean()
        return Progress(self.step, self.settings.steps, loss.item(), accuracy.item(), rate)

    def _batch(self, random: np.random.Generator) -> np.ndarray:
        """Draw a batch: whole shuffles of the training pixels one after the other, or every class equally often."""
        count, size = len(self.task.positions), self.settings.batch_size
        if self.settings.class_balanced:
            targets = self.task.targets.cpu().numpy()
            weight = 1 / np.bincount(targets)[targets]
            return random.choice(count, size, p=weight / weight.sum())
        epochs, places = np.divmod(np.arange(self.step * size, (self.step + 1) * size), count)
        needed = range(epochs[0], epochs[-1] + 1)
        self.shuffles = {
            epoch: self.shuffles[epoch] if epoch in self.shuffles else self._shuffle(epoch) for epoch in needed
        }
        return np.concatenate([self.shuffles[epoch][places[epochs == epoch]] for epoch in needed])

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.task.positions))

    def _interrupted(self) -> TrainingInterrupted:
        problem = f"training was stopped after {self.step} of {self.settings.steps} steps"
        if self.checkpoint is None:
            return TrainingInterrupted(problem, remedy="No checkpoint was asked for, so nothing was kept.")
        self._save()
        return TrainingInterrupted(
            problem, file=self.checkpoint, remedy="The state is kept there; the same command with --resume goes on."
        )

    def _save(self) -> None:
        assert self.checkpoint is not None
        tensors = with_prefix("network.", self.network.state_dict())
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= with_prefix(f"optimizer.{index}.", state)
        write_tensors(self.checkpoint, tensors, "checkpoint", self.identity | {"step": self.step})

    def _restore(self) -> None:
        if self.checkpoint is None or not self.checkpoint.is_file():
            raise SettingsError(
                "there is no checkpoint to go on from",
                file=self.checkpoint,
                remedy="Train without --resume; an interrupted or killed training leaves one.",
            )
        header, tensors = _read_checkpoint(self.checkpoint)
        for part in self.identity:
            if header.get(part) != self.identity[part]:
                raise SettingsError(
                    f"the checkpoint is of a training with other {part}",
                    file=self.checkpoint,
                    remedy="Give the same scene, labels and settings, or train anew without --resume.",
                )
        self.step = header["step"]
        self.network.load_state_dict(under_prefix("network.", tensors))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under_prefix("optimizer.", tensors).items():
            index, key = name.split(".")
            states.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": states})


def one_cycle(step: int, steps: int, highest: float) -> float:
    """Return the learning rate of a step counted from 0: up by a cosine for 30 % of the steps, then down to almost nothing."""
    peak = max(1.0, _RISE * steps)
    if step < peak:
        start, end, part = _START, 1.0, step / peak
    else:
        start, end, part = 1.0, _END, (step - peak) / max(1.0, steps - peak)
    return highest * (end + (start - end) * (1 + math.cos(math.pi * part)) / 2)


def _labels_checksum(task: _Task) -> str:
    digest = hashlib.sha256()
    for tensor in (task.positions, task.targets):
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return digest.hexdigest()


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        text, tensors = read_tensors(path, "checkpoint")
        return json.loads(text or ""), tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise SettingsError("this is not a checkpoint", file=path, found=error) from error


def _card(
    scene: xr.DataArray,
    bands: np.ndarray,
    labels: xr.DataArray,
    task: _Task,
    split: Split | None,
    settings: Settings,
    checksum: str,
) -> dict[str, Any]:
    names, colors = labels.attrs.get("class_names", {}), labels.attrs.get("class_colors", {})
    fallback = default_colors([int(id_) for id_ in task.classes])
    return {
        "format": FORMAT,
        "classes": [
            {"id": id_, "name": names.get(id_, f"class {id_}"), "color": colors.get(id_, fallback[id_])}
            for id_ in map(int, task.classes)
        ],
        "bands": {
            "count": scene.sizes["band"],
            "used": [int(band) + 1 for band in bands],
            "wavelength": numbers_or_none(scene["wavelength"].values),
            "fwhm": numbers_or_none(scene["fwhm"].values),
        },
        "normalisation": {
            "method": settings.normalisation,
            "epsilon": settings.whitening_epsilon,
            "statistics_from": settings.statistics_from,
            "pixels": task.statistics_pixels,
            "pairs": len(task.pairs),
        },
        "settings": settings.to_dict(),
        "split": None if split is None else split.record,
        "scores": None,
        "versions": versions(),
        "data": {
            "file": Path(str(scene.attrs.get("source", "in memory"))).name,
            "shape": [int(size) for size in scene.shape],
            "sha256": checksum,
        },
        "model": {
            "name": settings.model,
            "preset": settings.preset,
            "patch": settings.patch,
            "options": settings.model_options,
        },
    }
