"""Both operations in C for float32 on the CPU: native.c, built by setup.py where there is a compiler, by ctypes.

Every result has the same bits for any number of threads, and a pixel's whatever pixels it is computed with. The environment
variable `SPECTRALMAMBA_NATIVE=0` turns the library off.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spectralmamba.ops.libraries import load

if TYPE_CHECKING:
    from spectralmamba.ops.dense.weights import FeatureWeights, MergingWeights


@cache
def _library() -> ctypes.CDLL | None:
    """Load the library; None if it was not built, does not load, has no kernels for this processor or is turned off."""
    functions = {"dense_features": (16, 11), "dense_merging": (6, 7), "dense_lanes": (0, 0), "dense_matrices": (0, 0)}
    library = load(__file__, functions)
    return None if library is None or library.dense_lanes() <= 0 else library


@cache
def _kernels() -> tuple[int, int]:
    """Return what kernels are called: the pixels of their vectors, and whether they multiply by AMX, 1 or 0."""
    library = _library()
    return (0, 0) if library is None else (library.dense_lanes(), library.dense_matrices())


def available() -> bool:
    """Return whether the library is there, has kernels for this processor and is not turned off."""
    return _library() is not None


def gated_merging(image: Tensor, patch: int, weights: MergingWeights) -> Tensor:
    """Return what the patches around all pixels of an image merge into.

    Args:
        image: `(H, W, L)`, float32, contiguous.
        patch: P, odd, at least 3 and at most H and W.
        weights: Of the merging.

    Returns:
        `(H − P + 1, W − P + 1, L)`.

    Raises:
        MemoryError: The work space could not be allocated.
    """
    height, width, bands = image.shape
    assert patch % 2 == 1
    assert 3 <= patch <= min(height, width)
    assert [tuple(part.shape) for part in weights] == [(3, 3, bands), (bands,), (bands, bands), (bands,)]
    merged = image.new_empty(height - patch + 1, width - patch + 1, bands)
    _call("dense_merging", (image, *weights, merged), (height, width, bands, patch), *_kernels())
    return merged


def s6_features(spectra: Tensor, weights: FeatureWeights) -> Tensor:
    """Return the network's features of spectra.

    Args:
        spectra: `(B, L)`, float32, contiguous, L ≤ T · R; the last token is padded with zeros.
        weights: Of the network.

    Returns:
        `(B, M)`.

    Raises:
        MemoryError: The work space could not be allocated.
    """
    (batch, bands), (tokens, width), piece = spectra.shape, weights.position.shape, weights.token.shape[0]
    (channels, states), (rank, _), (taps, _) = weights.A.shape, weights.delta.shape, weights.convolution.shape
    expected = [
        *((piece, width), (tokens, width), (piece, 2 * channels), (tokens, 2 * channels), (2 * channels,)),
        *((taps, channels), (channels,), (channels, rank + 2 * states), (rank, channels), (channels,)),
        *((channels, states), (channels,), (channels, width), (2,)),
    ]
    assert [tuple(part.shape) for part in weights] == expected
    assert bands <= tokens * piece
    features = spectra.new_empty(batch, width)
    sizes = batch, bands, tokens, piece, width, channels, states, rank, taps
    _call("dense_features", (spectra, *weights, features), sizes, _kernels()[0])
    return features


def _call(name: str, tensors: tuple[Tensor, ...], sizes: tuple[int, ...], *kernels: int) -> None:
    library = _library()
    assert library is not None, "the native library is not available"
    assert all(t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in tensors)
    pointers = (tensor.data_ptr() for tensor in tensors)
    if getattr(library, name)(*pointers, *sizes, torch.get_num_threads(), *kernels):
        raise MemoryError(f"no memory for the work space of {name}")
