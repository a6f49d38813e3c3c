"""Scenes, tasks and files that several tests of training take, and what compares them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spectralmamba import Classifier, Settings, Split, fit
from spectralmamba.errors import TrainingInterrupted
from spectralmamba.pixels import Pixels, as_input
from spectralmamba.training import Progress
from spectralmamba.training.task import Task, prepare

SIDE, BANDS = 16, 12
TRAINING_COLUMNS = 8  # of the training side of the fixture `halved`
Data = tuple[xr.DataArray, xr.DataArray, Split]


def scene_of(
    counts: list[int], bands: int = BANDS, noise: float = 0.7, seed: int = 0
) -> tuple[xr.DataArray, xr.DataArray]:
    """A scene whose pixels are the centre of a class and noise, and labels of so many pixels of each class."""
    random = np.random.default_rng(seed)
    classes = len(counts)
    rest = np.arange(SIDE * SIDE - sum(counts)) % classes
    of_pixel = random.permutation(np.concatenate([np.repeat(np.arange(classes), counts), rest]))
    spectra = random.normal(size=(classes, bands))[of_pixel] + noise * random.normal(size=(SIDE * SIDE, bands))
    ids = np.zeros(SIDE * SIDE, np.int64)
    for number, count in enumerate(counts):
        ids[np.flatnonzero(of_pixel == number)[:count]] = number + 1
    return scene_from(spectra), xr.DataArray(ids.reshape(SIDE, SIDE), dims=("y", "x"))


def scene_from(spectra: np.ndarray) -> xr.DataArray:
    return xr.DataArray(spectra.T.reshape(-1, SIDE, SIDE).astype(np.float32), dims=("band", "y", "x"))


def task_of(scene: xr.DataArray, labels: xr.DataArray, settings: Settings, split: Split | None = None) -> Task:
    return prepare(Pixels.from_scene(scene, np.arange(len(scene))), labels, {0: split}, settings)[0]


def inputs_of(task: Task, patch: int) -> Tensor:
    """All pixels as the classifier gives them to its members."""
    pixels = task.normalised.pixels
    return as_input(pixels.gathered(pixels.neighbourhoods(torch.arange(len(pixels)), patch)))


def same_tensors(first: nn.Module, second: nn.Module) -> bool:
    state, other = first.state_dict(), second.state_dict()
    return all(state[name].equal(other[name]) for name in state.keys() | other.keys())


def rewrite(path: Path, change: Callable[[Any, dict[str, Tensor]], object]) -> None:
    """Change the card's `model` entry and the tensors of a classifier's file."""
    with safe_open(path, framework="pt") as opened:
        card = json.loads(opened.metadata()["card"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    change(card["model"], tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"card": json.dumps(card)})


def stopped_and_resumed(data: Data, settings: Settings, checkpoint: Path, step: int) -> Classifier:
    """Train, press Ctrl-C after a step, and go on from the checkpoint."""

    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        fit(*data, settings, device="cpu", checkpoint=checkpoint, on_step=stop)
    return fit(*data, settings, device="cpu", checkpoint=checkpoint, resume=True)
