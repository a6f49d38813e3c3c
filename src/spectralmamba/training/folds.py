"""Which training pixels are left out together, to see how a classifier does on what it has not learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from spectralmamba.training.task import Task

FOLDS = 5
_TOGETHER = 8  # pixels; labels of one class that are no farther apart are of one group
_FIELD = 32  # pixels; groups at least so wide are divided into blocks
_BLOCK = 16  # pixels


def divide(task: Task, random: np.random.Generator) -> np.ndarray:
    """Return the fold of each training pixel `(n,)`, −1 for those that are never left out: the only group of their class.

    Where tests are apart in space, or all labels train, labels of one class near each other are left out together, since a map's
    pixels are mostly in fields without labels. Where training pixels were drawn at random, each is left out by itself.
    """
    targets = task.targets.cpu().numpy()
    groups = _groups(task, targets) if task.apart else np.arange(len(targets))
    folds, first = np.full(len(targets), -1), 0
    for target in np.unique(targets):
        of_class = random.permutation(np.unique(groups[targets == target]))
        if len(of_class) > 1:
            place = np.full(groups.max() + 1, -1)
            place[of_class] = (first + np.arange(len(of_class))) % FOLDS
            folds = np.where(targets == target, place[groups], folds)
            first += len(of_class)
    return folds


def leave_out(task: Task, left_out: np.ndarray) -> Task:
    """Return a task without some training pixels `(n,)` and, where tests are apart, without the pixels near them.

    Args:
        task: What there is to learn.
        left_out: Which training pixels are left out, `(n,)` bool.
    """
    keep = torch.from_numpy(~left_out).to(task.positions.device)
    side = task.training_side
    if task.apart:
        pixels = task.normalised.pixels
        mask = np.zeros(tuple(pixels.grid.shape), bool)
        rows, columns = _places(task)
        mask[rows[left_out], columns[left_out]] = True
        near = np.asarray(ndimage.maximum_filter(mask, 2 * _TOGETHER + 1))
        near[rows[~left_out], columns[~left_out]] = False
        side = side[~torch.isin(side, pixels.at(near))]
    weights = None if task.weights is None else task.weights[keep]
    return replace(
        task, positions=task.positions[keep], targets=task.targets[keep], weights=weights, training_side=side
    )


def _groups(task: Task, targets: np.ndarray) -> np.ndarray:
    """Return the group of each training pixel, `(n,)`."""
    rows, columns = _places(task)
    groups, count = np.empty(len(targets), np.int64), 0
    for target in np.unique(targets):
        members = np.flatnonzero(targets == target)
        row, column = rows[members] - rows[members].min(), columns[members] - columns[members].min()
        mask = np.zeros((row.max() + 1, column.max() + 1), bool)
        mask[row, column] = True
        grown = ndimage.binary_dilation(mask, np.ones((_TOGETHER, _TOGETHER)))
        found, _ = ndimage.label(grown, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
        joined = np.asarray(found)[row, column]
        blocks = (row // _BLOCK) * (mask.shape[1] // _BLOCK + 1) + column // _BLOCK + 1
        for number in np.unique(joined):
            there = joined == number
            wide = max(np.ptp(row[there]), np.ptp(column[there])) + 1 >= _FIELD
            _, part = np.unique(blocks[there] * wide, return_inverse=True)
            groups[members[there]] = count + part
            count += part.max() + 1
    return groups


def _places(task: Task) -> tuple[np.ndarray, np.ndarray]:
    pixels = task.normalised.pixels
    return pixels.rows[task.positions].cpu().numpy(), pixels.columns[task.positions].cpu().numpy()
