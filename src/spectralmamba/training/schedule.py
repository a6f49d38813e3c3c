"""Which training pixels each step sees, and its learning rate."""

from __future__ import annotations

import math

import numpy as np

from spectralmamba.settings import Settings
from spectralmamba.training.draws import Purpose, below, words

# One-cycle schedule (Smith and Topin 2017, arXiv 1708.07120): share of the steps that the rate rises, and where it starts
# and ends as a part of the highest rate.
_RISE, _START, _END = 0.3, 1 / 25, 1e-4 / 25


def one_cycle(step: int, steps: int, highest: float) -> float:
    """Return the learning rate of a step counted from 0: up by a cosine for 30 % of the steps, then down to almost nothing."""
    peak = max(1.0, _RISE * steps)
    if step < peak:
        start, end, part = _START, 1.0, step / peak
    else:
        start, end, part = 1.0, _END, (step - peak) / max(1.0, steps - peak)
    return highest * (end + (start - end) * (1 + math.cos(math.pi * part)) / 2)


class Batches:
    """Draws the training pixels of each step.

    Args:
        targets: Index of the class of each training pixel, `(n,)`.
        settings: Seed, batch size, and whether classes are drawn equally often.
    """

    def __init__(self, targets: np.ndarray, settings: Settings) -> None:
        self._settings, self._count = settings, len(targets)
        self._by_class = np.argsort(targets, kind="stable")
        self._sizes = np.bincount(targets)
        self._firsts = np.cumsum(self._sizes) - self._sizes

    def take(self, first: int, count: int) -> np.ndarray:
        """Return the pixels of `count` steps from step `first` on, `(count, B)`, as numbers from 0 to n − 1.

        Whole shuffles of all pixels follow one after the other; or, if asked for, every class is drawn equally often.
        """
        size = self._settings.batch_size
        if self._settings.rare_classes == "balanced batches":
            return self._balanced(first, count)
        epochs, places = np.divmod(np.arange(first * size, (first + count) * size), self._count)
        order = self._shuffles(int(epochs[0]), int(epochs[-1]) + 1)
        return order[epochs - epochs[0], places].reshape(count, size)

    def _shuffles(self, first: int, end: int) -> np.ndarray:
        """Return the orders `(end - first, n)` of some epochs."""
        blocks = -(-self._count // 4)
        keys = words(self._settings.seed, Purpose.ORDER, (end - first) * blocks * 4, first_block=first * blocks)
        return np.argsort(keys.reshape(-1, blocks * 4)[:, : self._count], axis=1, kind="stable")

    def _balanced(self, first: int, count: int) -> np.ndarray:
        size = self._settings.batch_size
        blocks = -(-size // 2)
        drawn = words(self._settings.seed, Purpose.ORDER, count * blocks * 4, first_block=first * blocks)
        drawn = drawn.reshape(count, blocks * 4)[:, : 2 * size].reshape(count, size, 2)
        classes = below(drawn[..., 0], len(self._sizes))
        return self._by_class[self._firsts[classes] + below(drawn[..., 1], self._sizes[classes])]
