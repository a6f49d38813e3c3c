"""What SpectralMamba does to a scene, forward only and in as few passes over memory as there can be.

Two operations: `ImageMerging` makes each pixel's patch one spectrum, and `S6Features` makes a spectrum the network's features.
Both take weights that the network's own have been turned into once: `models.fused` does that, and says what they stand for. They
are in C for CPUs (`native`) and in Triton for GPUs (`triton`); the definition is the network itself.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from spectralmamba.ops.dense import native
from spectralmamba.ops.dense.weights import FeatureWeights, MergingWeights

__all__ = ["FeatureWeights", "ImageMerging", "MergingWeights", "S6Features", "available"]


def available(device: torch.device, weights: FeatureWeights) -> bool:
    """Tell whether both operations run on a device, at these sizes."""
    if device.type == "cpu":
        return native.available()
    if device.type != "cuda":
        return False
    from spectralmamba.ops.dense import triton

    return triton.takes(weights)


class ImageMerging:
    """What the patches around all pixels of an image merge into.

    With m = `depthwise` over those of a pixel's neighbours that lie in the patch, plus `depthwise_bias`, a pixel x counts
    σ(m `pointwise` + `pointwise_bias`) x; the sum over the patch is multiplied with 2 / P².

    Args:
        weights: Of the merging.
        half: Multiply matrices in float16, on a GPU.
    """

    def __init__(self, weights: MergingWeights, *, half: bool = False) -> None:
        if weights.pointwise.device.type == "cpu":
            self._compute = partial(native.gated_merging, weights=weights)
        else:
            from spectralmamba.ops.dense import triton

            self._compute = partial(triton.gated_merging, prepared=triton.prepare_merging(weights, half))

    def __call__(self, image: Tensor, patch: int) -> Tensor:
        """Merge all patches of an image `(H, W, L)`, float32, contiguous; P is odd, 3 at least: `(H − P + 1, W − P + 1, L)`."""
        return self._compute(image, patch)


class S6Features:
    """The mean over tokens of what the final norm makes of the residual stream, before its weight and bias.

    Args:
        weights: Of the network.
        half: Multiply matrices in float16, on a GPU.
    """

    def __init__(self, weights: FeatureWeights, *, half: bool = False) -> None:
        if weights.token.device.type == "cpu":
            self._compute = partial(native.s6_features, weights=weights)
        else:
            from spectralmamba.ops.dense import triton

            self._compute = partial(triton.s6_features, prepared=triton.prepare(weights, half))

    def __call__(self, spectra: Tensor) -> Tensor:
        """Return features `(B, M)` of spectra `(B, L)`, float32, contiguous; L ≤ T · R, the last token is padded with zeros."""
        return self._compute(spectra)
