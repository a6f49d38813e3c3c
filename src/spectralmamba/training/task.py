"""What there is to learn, and what is kept of it in the classifier's card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from spectralmamba.classifier import FORMAT, versions
from spectralmamba.errors import LabelError, SplitError
from spectralmamba.files import numbers_or_none
from spectralmamba.pixels import Pixels, as_input
from spectralmamba.scenes.class_rasters import HIGHEST_ID
from spectralmamba.scenes.palette import default_colors
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.transforms import InputTransform, learn_transform

_ASKED = 2048  # pixels at a time
_SHARPER = 10.0  # by this ε of the sharper whitening is smaller


@dataclass(frozen=True)
class Normalised:
    """A scene's pixels as the network sees them.

    Attributes:
        pixels: Normalised spectra.
        transform: What normalised them.
        pairs: Positions `(m, 2)` of the neighbouring pixels that it was learned from.
        count: Number of the pixels that it was learned from.
        sharpening: What turns normalised spectra into those of a sharper whitening, `(L, L)`.
    """

    pixels: Pixels
    transform: InputTransform
    pairs: Tensor
    count: int
    sharpening: Tensor


@dataclass(frozen=True)
class Task:
    """What there is to learn.

    Attributes:
        normalised: The scene; the same object for tasks that learn it from the same pixels.
        positions: Positions `(n,)` of the training pixels.
        targets: Index of their class, `(n,)`.
        classes: Class ids `(K,)`.
        training_side: Positions of the pixels whose spectra, never labels, may be looked at, `(s,)`.
        apart: Whether what is to be told lies apart from the training pixels, rather than among them at random.
        weights: How much each training pixel counts, `(n,)`, 1 in the mean; None if all count alike.
    """

    normalised: Normalised
    positions: Tensor
    targets: Tensor
    classes: np.ndarray
    training_side: Tensor
    apart: bool
    weights: Tensor | None = None

    @property
    def unlabelled(self) -> Tensor:
        """Positions of the training side's pixels without a label, `(u,)`."""
        return self.training_side[~torch.isin(self.training_side, self.positions)]

    @torch.no_grad()
    def logits(self, module: nn.Module, positions: Tensor, patch: int) -> Tensor:
        """Return what a module answers `(m, K)` to the patches of pixels at `positions` `(m,)`."""
        module.eval()
        parts = [module(as_input(part)) for part in self.normalised.pixels.patches(positions, patch, _ASKED)]
        return torch.cat([self.normalised.pixels.values.new_zeros(0, len(self.classes)), *parts])

    def checksum(self) -> str:
        """Return the SHA-256 of the training pixels, their classes and, if there are any, their weights."""
        digest = hashlib.sha256()
        for tensor in (self.positions, self.targets, *([] if self.weights is None else [self.weights])):
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        return digest.hexdigest()


def prepare(
    pixels: Pixels,
    labels: xr.DataArray,
    splits: Mapping[int, Split | None],
    settings: Settings,
    weights: xr.DataArray | np.ndarray | None = None,
) -> dict[int, Task]:
    """Make the task of each split.

    Raises:
        LabelError: Fewer than two classes to train on, labels or weights on another grid, or weights that cannot be.
        SplitError: A split is of another grid.
    """
    ids = np.asarray(labels.values)
    if ids.shape != tuple(pixels.grid.shape):
        raise LabelError("labels and scene have different shapes", found=ids.shape, expected=tuple(pixels.grid.shape))
    of_pixels = None if weights is None else _checked_weights(weights, ids)
    scenes: dict[bytes, Normalised] = {}
    tasks: dict[int, Task] = {}
    for key, split in splits.items():
        if split is not None and split.train.shape != ids.shape:
            raise SplitError("split and labels have different shapes", found=split.train.shape, expected=ids.shape)
        training = ids > 0 if split is None else split.train & (ids > 0)
        if of_pixels is not None:
            training = training & (of_pixels > 0)
        positions, targets, classes = _training_pixels(pixels, ids, training)
        area = statistics_area(training, split, settings)
        name = area.tobytes()
        if name not in scenes:
            scenes[name] = normalise(pixels, area, settings)
        side = pixels.at(np.ones_like(training) if split is None else split.training_side | training)
        apart = split is None or split.record["method"] != "random"
        counts = None if of_pixels is None else _of_mean_one(of_pixels, pixels, positions)
        tasks[key] = Task(scenes[name], positions, targets, classes, side, apart, counts)
    return tasks


def _checked_weights(weights: xr.DataArray | np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return weights `(H, W)`, float64.

    Raises:
        LabelError: They are on another grid, or that of a label is negative or no finite number.
    """
    values = np.asarray(weights, np.float64)
    if values.shape != ids.shape:
        raise LabelError("labels and their weights have different shapes", found=values.shape, expected=ids.shape)
    of_labels = values[ids > 0]
    if (wrong := of_labels[~((of_labels >= 0) & np.isfinite(of_labels))]).size:
        raise LabelError(
            "a label has a weight that cannot be", found=wrong[0], expected="a finite number of at least 0"
        )
    return values


def _of_mean_one(weights: np.ndarray, pixels: Pixels, positions: Tensor) -> Tensor:
    """Return the weights `(n,)` of pixels at positions `(n,)`, divided by their mean; `weights` are those of all, `(H, W)`."""
    chosen = weights[pixels.rows[positions].cpu().numpy(), pixels.columns[positions].cpu().numpy()]
    return torch.from_numpy(chosen / chosen.mean()).float().to(positions.device)


def _training_pixels(pixels: Pixels, ids: np.ndarray, training: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return the positions of the training pixels, the index of their class and the class ids."""
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
    return positions, torch.from_numpy(targets.reshape(-1)).to(positions.device), classes


def normalise(pixels: Pixels, area: np.ndarray, settings: Settings) -> Normalised:
    """Learn the input transform from the pixels under a mask `(H, W)`, and apply it to all."""
    statistics, pairs = pixels.at(area), pixels.neighbour_pairs(area)
    transform = learn_transform(pixels.values, statistics, pairs, settings)
    sharp = learn_transform(pixels.values, statistics, pairs, settings, _SHARPER)
    with torch.no_grad():
        normalised = pixels.with_values(transform(pixels.values))
        sharpening = torch.linalg.solve(transform.matrix.cpu().double(), sharp.matrix.cpu().double()).to(
            transform.matrix
        )
    return Normalised(normalised, transform, pairs, len(statistics), sharpening)


def statistics_area(training: np.ndarray, split: Split | None, settings: Settings) -> np.ndarray:
    """Return the mask `(H, W)` of the pixels that `settings.statistics_from` lets normalisation be learned from."""
    if settings.statistics_from == "training pixels":
        return training
    if settings.statistics_from == "scene" or split is None:
        return np.ones_like(training)
    return split.training_side | training


def make_card(
    scene: xr.DataArray,
    bands: np.ndarray,
    labels: xr.DataArray,
    task: Task,
    split: Split | None,
    settings: Settings,
    checksum: str,
) -> dict[str, Any]:
    """Return the card of a classifier, without the size of its network."""
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
            "pixels": task.normalised.count,
            "pairs": len(task.normalised.pairs),
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
        "labels": {
            "file": Path(str(labels.attrs.get("source", "in memory"))).name,
            **labels.attrs.get("opened_with", {}),
            **_weights_in_card(task.weights),
        },
        "model": describe_model(settings),
    }


def _weights_in_card(weights: Tensor | None) -> dict[str, Any]:
    """Return least and greatest weight of training pixels, whose mean is 1; nothing where all count alike."""
    return {} if weights is None else {"weights": [float(weights.min()), float(weights.max())]}


def describe_model(settings: Settings) -> dict[str, Any]:
    """Return a card's `model` entry, from which `classifier.build_network` builds the network."""
    return {
        "name": settings.model,
        "preset": settings.preset,
        "patch": settings.patch,
        "options": settings.model_options,
    }
