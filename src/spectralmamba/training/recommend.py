"""Settings for a scene, chosen from its spectra and training labels alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from spectralmamba.pixels import Pixels
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.training.discriminant import discriminate
from spectralmamba.training.task import Task, prepare

_PAIRS = 20_000  # of neighbouring pixels that are looked at
_BLOCK = 16  # pixels; training pixels in one block are left out together
_FOLDS = 5
_SMOOTH = 0.8  # agreement of neighbours above which patches are taken: 0.85 to 0.93 in fields and savanna, 0.58 to 0.71 in a city
_CLEAR = 2.5  # standard errors by which patches must be better than pixels to be taken all the same
_MANY = 100  # training pixels of the median class


@dataclass(frozen=True)
class Recommendation:
    """Settings, and the reasons for them in sentences.

    Attributes:
        settings: Complete settings.
        reasons: What was found and what follows.
    """

    settings: Settings
    reasons: list[str]


def recommend_settings(
    scene: xr.DataArray, labels: xr.DataArray, split: Split | None = None, settings: Settings | None = None
) -> Recommendation:
    """Choose the patch, and augmentation and steps, from the scene's spectra and the training labels.

    Patches help where neighbours mostly belong to one class. That is told by a linear discriminant of single whitened pixels:
    how often it gives neighbours the same class, beyond chance; and, since noise makes neighbours differ, too, by
    cross-validation over blocks of the scene, of pixels against patch means. Where neighbours differ in class and labels are many,
    differences between neighbours are no augmentation, and longer training with mixup is better.

    Args:
        scene: `(band, y, x)`, from `open_scene`.
        labels: `(y, x)` class ids.
        split: Which labelled pixels train; all of them if None. Test labels are not looked at.
        settings: What the choice starts from; the defaults if None.

    Raises:
        LabelError, SplitError: As `fit` does.
    """
    settings = settings or Settings()
    bands = np.flatnonzero(scene["good"].values)
    pixels = Pixels.from_scene(scene, bands)
    if not len(bands) or not len(pixels):
        return Recommendation(settings, [])
    return recommend_for_task(prepare(pixels, labels, {0: split}, settings)[0], settings)


def recommend_for_task(task: Task, settings: Settings) -> Recommendation:
    """Choose as `recommend_settings` does, for a task that has been prepared with these settings."""
    wide = settings.patch if settings.patch > 1 else settings.teacher_patch
    agreement = neighbour_agreement(task)
    seen = f"neighbours in a pixelwise map agree to {agreement:.2f} beyond chance"
    if agreement >= _SMOOTH:
        return Recommendation(settings, [f"Patches of {wide} × {wide} pixels: {seen}."])
    gain, error = patch_gain(task, wide)
    if gain > _CLEAR * error > 0:
        reason = f"they are right {100 * gain:.0f} points more often in blocks left out of the training labels"
        return Recommendation(settings, [f"Patches of {wide} × {wide} pixels: {seen}, but {reason}."])
    reasons = [f"Single pixels, no patches: {seen}."]
    changes: dict[str, object] = {"patch": 1, "teacher_patch": 1}
    count = int(torch.bincount(task.targets).median())
    if count >= _MANY:
        changes |= {"noise": 0.3, "mixup": 0.3, "neighbour_difference": 0.0, "band_dropout": 0.3}
        changes |= {"steps": 2 * settings.steps, "companion": "logistic regression"}
        reasons.append(
            "Mixup, no neighbour differences, more band blocks, twice the steps, and logistic regression beside the network: "
            f"{count} training pixels in the median class."
        )
    return Recommendation(settings.replace(**changes), reasons)


def neighbour_agreement(task: Task) -> float:
    """Return how often neighbouring pixels get one class from a linear discriminant of single pixels, beyond chance (kappa)."""
    pairs = task.normalised.pairs
    pairs = pairs[:: max(1, -(-len(pairs) // _PAIRS))]
    if not len(pairs):
        return 0.0
    found = discriminate(task, task.positions, task.targets, pairs.flatten(), 1).argmax(1)
    shares = np.bincount(found, minlength=len(task.classes)) / len(found)
    chance = float((shares**2).sum())
    return (float((found[::2] == found[1::2]).mean()) - chance) / (1 - chance) if chance < 1 else 0.0


def patch_gain(task: Task, patch: int) -> tuple[float, float]:
    """Return how much more often patch means are right than pixels in blocks left out of the training pixels, and its error.

    Both by a linear discriminant; the error is the standard error of the mean over training pixels, 0 where there is but one block.
    """
    pixels, positions = task.normalised.pixels, task.positions
    rows, columns = pixels.rows[positions] // _BLOCK, pixels.columns[positions] // _BLOCK
    blocks = rows * (pixels.grid.shape[1] // _BLOCK + 1) + columns
    _, block = torch.unique(blocks, return_inverse=True)
    folds = block % _FOLDS
    if len(torch.unique(folds)) < 2:
        return 0.0, 0.0
    gains = np.zeros(len(positions))
    for fold in torch.unique(folds):
        left_out = folds == fold
        if len(torch.unique(task.targets[~left_out])) < 2:
            continue
        learned, targets = positions[~left_out], task.targets[~left_out]
        truth = task.targets[left_out].cpu().numpy()
        right = [
            discriminate(task, learned, targets, positions[left_out], width).argmax(1) == truth for width in (1, patch)
        ]
        gains[left_out.cpu().numpy()] = right[1].astype(float) - right[0]
    return float(gains.mean()), float(gains.std() / len(gains) ** 0.5)
