"""The random numbers of training, which follow from seed and step alone: on every device, and however many seeds train together.

They are counter-based (Philox 4×64-10; Salmon et al. 2011, doi 10.1145/2063384.2063405): four 64-bit words follow from a key
(seed, purpose) and a counter (block of four words, step, call, 0), so that each thread of a GPU draws its own.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What numbers are drawn for; each has a stream of its own."""

    ORDER = 0
    CHANGES = 1
    NOISE = 2
    DROPOUT = 3
    MIXUP = 4
    PSEUDO_LABELS = 5
    SUGGESTIONS = 6
    GRAPH = 7
    NOVELTY = 8
    FOLDS = 9


def words(seed: int, purpose: Purpose, count: int, *, step: int = 0, call: int = 0, first_block: int = 0) -> np.ndarray:
    """Return `count` random 64-bit words of a stream, from a block of four words on, `(count,)` uint64."""
    return _stream(seed, purpose, step, call, first_block).random_raw(count)


def generator(seed: int, purpose: Purpose, *, step: int) -> np.random.Generator:
    """Return numpy's generator of a stream, for numbers that are drawn on the host alone."""
    return np.random.Generator(_stream(seed, purpose, step, 0, 0))


def some_of(positions: Tensor, most: int, random: np.random.Generator) -> Tensor:
    """Return positions `(m,)`, or if there are more than `most` so many of them at random, in their order."""
    if len(positions) <= most:
        return positions
    chosen = np.sort(random.choice(len(positions), most, replace=False))
    return positions[torch.from_numpy(chosen).to(positions.device)]


def uniform(drawn: np.ndarray) -> np.ndarray:
    """Turn words into float32 in [0, 1)."""
    return (drawn >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def below(drawn: np.ndarray, limit: int | np.ndarray) -> np.ndarray:
    """Turn words into int64 from 0 to below a limit, itself below 2³²."""
    return ((drawn >> np.uint64(32)) * np.asarray(limit, np.uint64) >> np.uint64(32)).astype(np.int64)


def _stream(seed: int, purpose: Purpose, step: int, call: int, first_block: int) -> np.random.Philox:
    # numpy adds one to the counter before it draws.
    return np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=[first_block, step, call, 0])
