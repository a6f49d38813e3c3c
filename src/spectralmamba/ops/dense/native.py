"""Both operations in C for float32 on the CPU: native.c, built by setup.py where there is a compiler, by ctypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from spectralmamba.ops.dense.weights import FeatureWeights, MergingWeights


def available() -> bool:
    """Return whether the library is there and not turned off."""
    return False


def gated_merging(image: Tensor, patch: int, weights: MergingWeights) -> Tensor:
    """Return what the patches around all pixels of an image merge into."""
    raise NotImplementedError


def s6_features(spectra: Tensor, weights: FeatureWeights) -> Tensor:
    """Return the network's features of spectra."""
    raise NotImplementedError
