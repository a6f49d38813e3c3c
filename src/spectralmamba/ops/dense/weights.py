"""What the operations of a scene are computed with: a network's weights, turned once into what is needed."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class MergingWeights(NamedTuple):
    """Of the gated merging; L bands. All float32, contiguous.

    Attributes:
        depthwise: The 3 × 3 convolution, `(3, 3, L)`: rows, columns, bands.
        depthwise_bias: `(L,)`.
        pointwise: The pointwise convolution, `(L, L)`: from bands to bands.
        pointwise_bias: `(L,)`.
    """

    depthwise: Tensor
    depthwise_bias: Tensor
    pointwise: Tensor
    pointwise_bias: Tensor


class FeatureWeights(NamedTuple):
    """Of the embedding, one S6 block and the norms.

    T tokens of R bands, M width, E inner channels, N states, r rank of Δ, k width of the convolution. "Centred" is
    without the mean over the width, which both norms take away in any case: only so the residual stream is kept. All float32,
    contiguous.

    Attributes:
        token: Embedding, centred, `(R, M)`.
        position: Position and bias of each token, centred, `(T, M)`.
        token_in: Embedding, first norm's weight and input projection in one, `(R, 2 E)`: u, then z.
        position_in: The same of position and bias, `(T, 2 E)`.
        bias_in: The input projection of the first norm's bias, `(2 E,)`.
        convolution: Causal convolution, `(k, E)`; the last row is the token's own.
        convolution_bias: `(E,)`.
        selection: `(E, r + 2 N)`: Δ, B and C.
        delta: Δ's projection, `(r, E)`.
        delta_bias: `(E,)`.
        A: `(E, N)`, negative, times log₂ e: decays are 2^(Δ A).
        D: `(E,)`.
        out: Output projection, centred, `(E, M)`.
        epsilon: Of the first and the final norm, `(2,)`, on the CPU.
    """

    token: Tensor
    position: Tensor
    token_in: Tensor
    position_in: Tensor
    bias_in: Tensor
    convolution: Tensor
    convolution_bias: Tensor
    selection: Tensor
    delta: Tensor
    delta_bias: Tensor
    A: Tensor
    D: Tensor
    out: Tensor
    epsilon: Tensor
