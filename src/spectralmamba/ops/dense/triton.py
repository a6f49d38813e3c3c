"""Both operations in Triton, for GPUs.

Merging: the nine depthwise convolutions that a pixel can have in a patch are written once, then one kernel multiplies each with the
pointwise weights, and gates and sums values on the way out.

Features: one kernel makes all that the scan takes, the scan is that of `ops.selective_scan`, and one kernel makes
features of what it gives. A kernel of all three was slower: its states left registers for few warps, which waited for each other.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from spectralmamba.ops import selective_scan
from spectralmamba.ops.dense.weights import FeatureWeights, MergingWeights

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # kernels then run on the CPU
_PIXELS, _TOKENS, _WARPS = 32, 5, 4  # of a program
_AT_A_TIME = 32768  # pixels, for the memory of what the scan takes
_CELLS, _BANDS, _MERGING_STAGES = 128, 64, 3
_DEPTH, _MERGING_WARPS = {False: 32, True: 64}, {False: 8, True: 4}  # in float32, in float16
_MIXED_CELLS, _MIXED_BANDS = 8, 64
_LEAST = 16  # sides of a matrix product
_CONVOLUTION = 4
_MOST = 256  # channels, width and the like
_LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * _LOG2E))


@triton.jit
def _softplus(x):
    """log(1 + eˣ) to a few units in the last place, also where it is small: log1p(w) = 2 artanh(w / (2 + w)), w = e^−|x|."""
    w = tl.exp2(-tl.abs(x) * _LOG2E)
    s = w / (2.0 + w)
    q = s * s
    series = 1 / 15 + q * (1 / 17)
    series = 1 / 13 + q * series
    series = 1 / 11 + q * series
    series = 1 / 9 + q * series
    series = 1 / 7 + q * series
    series = 1 / 5 + q * series
    series = 1 / 3 + q * series
    return tl.where(x > 0, x, 0.0) + 2.0 * s * (1.0 + q * series)


@triton.jit
def _product(x, weight, HALF: tl.constexpr):
    """Multiply matrices: in float16, kept from overflowing, or as exactly as float32."""
    if HALF:
        x = tl.minimum(tl.maximum(x, -65504.0), 65504.0)
        return tl.dot(x.to(tl.float16), weight.to(tl.float16))
    else:
        return tl.dot(x, weight, input_precision="tf32x3")


@triton.jit
def _matrix(pointer, ROWS: tl.constexpr, COLUMNS: tl.constexpr, stride, first):
    """Load columns of a matrix from `first` on."""
    return tl.load(pointer + tl.arange(0, ROWS)[:, None] * stride + first + tl.arange(0, COLUMNS)[None, :])


@triton.jit
def _token(x_ptr, p, count, t, tokens, token_bands, bands, BLOCK_R: tl.constexpr):
    """Load a token of some pixels, `(P, R)`; zeros if there is no such token."""
    r = tl.arange(0, BLOCK_R)
    band = t * token_bands + r
    in_token = (r < token_bands) & (band < bands) & (t >= 0) & (t < tokens)
    return tl.load(x_ptr + p[:, None] * bands + band[None, :], mask=(p < count)[:, None] & in_token[None, :], other=0.0)


@triton.jit
def _embedded(
    token, token_ptr, position_ptr, t, tokens, BLOCK_R: tl.constexpr, BLOCK_M: tl.constexpr, HALF: tl.constexpr
):
    """Return the residual stream of a token before the block, `(P, M)`."""
    m = tl.arange(0, BLOCK_M)
    position = tl.load(position_ptr + t * BLOCK_M + m, mask=(m >= 0) & (t >= 0) & (t < tokens), other=0.0)
    return _product(token, _matrix(token_ptr, BLOCK_R, BLOCK_M, BLOCK_M, 0), HALF) + position[None, :]


@triton.jit(do_not_specialize=["count", "bands", "tokens", "token_bands"])
def _before_kernel(
    x_ptr,
    u_ptr,
    delta_ptr,
    gate_ptr,
    selected_ptr,
    token_ptr,
    position_ptr,
    token_in_ptr,
    position_in_ptr,
    bias_in_ptr,
    convolution_ptr,
    convolution_bias_ptr,
    selection_ptr,
    delta_weight_ptr,
    delta_bias_ptr,
    count,
    bands,
    tokens,
    token_bands,
    width,
    epsilon,
    HALF: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """What the scan takes of BLOCK_T tokens of BLOCK_P spectra: u, Δ, B and C; and the gate SiLU(z)."""
    p = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    e, selected = tl.arange(0, BLOCK_E), tl.arange(0, 2 * BLOCK_N)
    tap0, tap1 = tl.load(convolution_ptr + e), tl.load(convolution_ptr + BLOCK_E + e)
    tap2, tap3 = tl.load(convolution_ptr + 2 * BLOCK_E + e), tl.load(convolution_ptr + 3 * BLOCK_E + e)
    convolution_bias, delta_bias = tl.load(convolution_bias_ptr + e), tl.load(delta_bias_ptr + e)
    u_bias, z_bias = tl.load(bias_in_ptr + e), tl.load(bias_in_ptr + BLOCK_E + e)
    u1 = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)  # of the tokens before
    u2 = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    u3 = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    for step in tl.static_range(BLOCK_T + 3):  # those that the convolution reaches back to first
        t = tl.program_id(1) * BLOCK_T + step - 3
        is_token = (t >= 0) & (t < tokens)
        token = _token(x_ptr, p, count, t, tokens, token_bands, bands, BLOCK_R)
        x = _embedded(token, token_ptr, position_ptr, t, tokens, BLOCK_R, BLOCK_M, HALF)
        scale = tl.rsqrt(tl.sum(x * x, 1) / width + epsilon)[:, None]
        position_in = position_in_ptr + t * 2 * BLOCK_E + e
        u0 = _product(token, _matrix(token_in_ptr, BLOCK_R, BLOCK_E, 2 * BLOCK_E, 0), HALF)
        u0 = (u0 + tl.load(position_in, mask=is_token & (e >= 0), other=0.0)[None, :]) * scale + u_bias[None, :]
        u0 = tl.where(is_token, u0, 0.0)
        if step >= 3:
            here = (p < count)[:, None] & is_token
            row = (p * tokens + t)[:, None]
            wide = row * BLOCK_E + e[None, :]
            z = _product(token, _matrix(token_in_ptr, BLOCK_R, BLOCK_E, 2 * BLOCK_E, BLOCK_E), HALF)
            z += tl.load(position_in + BLOCK_E, mask=is_token & (e >= 0), other=0.0)[None, :]
            z = z * scale + z_bias[None, :]
            tl.store(gate_ptr + wide, z * _sigmoid(z), mask=here)
            u = convolution_bias[None, :] + tap0[None, :] * u3 + tap1[None, :] * u2
            u += tap2[None, :] * u1 + tap3[None, :] * u0
            u = u * _sigmoid(u)
            tl.store(u_ptr + wide, u, mask=here)
            both = _product(u, _matrix(selection_ptr, BLOCK_E, 2 * BLOCK_N, 3 * BLOCK_N, 0), HALF)
            tl.store(selected_ptr + row * 2 * BLOCK_N + selected[None, :], both, mask=here)
            low_rank = _product(u, _matrix(selection_ptr, BLOCK_E, BLOCK_N, 3 * BLOCK_N, 2 * BLOCK_N), HALF)
            delta = _product(low_rank, _matrix(delta_weight_ptr, BLOCK_N, BLOCK_E, BLOCK_E, 0), HALF)
            tl.store(delta_ptr + wide, _softplus(delta + delta_bias[None, :]), mask=here)
        u3, u2, u1 = u2, u1, u0


@triton.jit(do_not_specialize=["count", "bands", "tokens", "token_bands"])
def _after_kernel(
    x_ptr,
    y_ptr,
    gate_ptr,
    result_ptr,
    token_ptr,
    position_ptr,
    out_ptr,
    count,
    bands,
    tokens,
    token_bands,
    width,
    epsilon,
    HALF: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Features of BLOCK_P spectra, from what the scan gives."""
    p = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    m, e = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_E)
    there = (p < count)[:, None]
    pooled = tl.zeros([BLOCK_P, BLOCK_M], tl.float32)
    for t in range(tokens):
        wide = (p * tokens + t)[:, None] * BLOCK_E + e[None, :]
        y = tl.load(y_ptr + wide, mask=there, other=0.0).to(tl.float32)
        y *= tl.load(gate_ptr + wide, mask=there, other=0.0).to(tl.float32)
        token = _token(x_ptr, p, count, t, tokens, token_bands, bands, BLOCK_R)
        x = _embedded(token, token_ptr, position_ptr, t, tokens, BLOCK_R, BLOCK_M, HALF)
        x += _product(y, _matrix(out_ptr, BLOCK_E, BLOCK_M, BLOCK_M, 0), HALF)
        pooled += x * tl.rsqrt(tl.sum(x * x, 1) / width + epsilon)[:, None]
    tl.store(result_ptr + p[:, None] * width + m[None, :], pooled / tokens, mask=there & (m < width)[None, :])


@triton.jit
def _tap(image_ptr, pixel, there, band, bands, weights_ptr, number):
    """Return one tap of the depthwise convolution."""
    here = there[:, None] & (band < bands)[None, :]
    value = tl.load(image_ptr + pixel[:, None] * bands + band[None, :], mask=here, other=0.0)
    return value * tl.load(weights_ptr + number * bands + band, mask=band < bands, other=0.0)[None, :]


@triton.jit
def _taps(image_ptr, cell, rows, columns, band, bands, weights_ptr, down):
    """Return the taps of one row: without the first, all, without the last."""
    row, column = cell // columns + down - 1, cell % columns
    there = (cell < rows * columns) & (row >= 0) & (row < rows)
    pixel = row * columns + column
    left = _tap(image_ptr, pixel - 1, there & (column > 0), band, bands, weights_ptr, 3 * down)
    middle = _tap(image_ptr, pixel, there, band, bands, weights_ptr, 3 * down + 1)
    right = _tap(image_ptr, pixel + 1, there & (column < columns - 1), band, bands, weights_ptr, 3 * down + 2)
    return middle + right, left + middle + right, left + middle


@triton.jit
def _store_mixed(target, value, here, HALF: tl.constexpr):
    if HALF:
        value = tl.minimum(tl.maximum(value, -65504.0), 65504.0)
    tl.store(target, value, mask=here)


@triton.jit(do_not_specialize=["rows", "columns"])
def _mixed_kernel(
    image_ptr,
    result_ptr,
    weights_ptr,
    bias_ptr,
    rows,
    columns,
    bands,
    depth,
    HALF: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """The depthwise convolution of BLOCK_C pixels, nine times: with the neighbours that each kind of position has.

    Kinds are, for rows and columns alike, without the one before, with both, and without the one after. `depth` bands are
    written, those beyond `bands` as zeros.
    """
    cell = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    band = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    cells = rows * columns
    bias = tl.load(bias_ptr + band, mask=band < bands, other=0.0)[None, :]
    a0, a1, a2 = _taps(image_ptr, cell, rows, columns, band, bands, weights_ptr, 0)
    b0, b1, b2 = _taps(image_ptr, cell, rows, columns, band, bands, weights_ptr, 1)
    c0, c1, c2 = _taps(image_ptr, cell, rows, columns, band, bands, weights_ptr, 2)
    here = (cell < cells)[:, None] & (band < depth)[None, :]
    target = result_ptr + cell[:, None] * depth + band[None, :]
    kind = cells * depth
    _store_mixed(target, b0 + c0 + bias, here, HALF)
    _store_mixed(target + kind, b1 + c1 + bias, here, HALF)
    _store_mixed(target + 2 * kind, b2 + c2 + bias, here, HALF)
    _store_mixed(target + 3 * kind, a0 + b0 + c0 + bias, here, HALF)
    _store_mixed(target + 4 * kind, a1 + b1 + c1 + bias, here, HALF)
    _store_mixed(target + 5 * kind, a2 + b2 + c2 + bias, here, HALF)
    _store_mixed(target + 6 * kind, a0 + b0 + bias, here, HALF)
    _store_mixed(target + 7 * kind, a1 + b1 + bias, here, HALF)
    _store_mixed(target + 8 * kind, a2 + b2 + bias, here, HALF)


@triton.jit(do_not_specialize=["rows", "columns", "image_columns", "pixels"])
def _gates_kernel(
    image_ptr,
    mixed_ptr,
    result_ptr,
    pointwise_ptr,
    pointwise_bias_ptr,
    rows,
    columns,
    image_columns,
    pixels,
    bands,
    depth,
    pitch,
    scale,
    SUMMED: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Gated values of BLOCK_C cells and BLOCK_L bands, from what `_mixed_kernel` has written.

    `SUMMED`: a cell is a patch of 3 × 3 of `rows` × `columns`, and its nine values are summed. Else it is a pixel of the image, and
    its nine values, as what it can be in a patch, are written one after the other.
    """
    cell = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    out = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    k = tl.arange(0, BLOCK_K)
    there = cell < rows * columns
    here = there[:, None] & (out < bands)[None, :]
    first = tl.where(
        there, (cell // columns) * image_columns + cell % columns, 0
    )  # a cell's pixel, or its patch's first
    bias = tl.load(pointwise_bias_ptr + out, mask=out < bands, other=0.0)
    total = tl.zeros([BLOCK_C, BLOCK_L], tl.float32)
    for position in range(9):
        pixel = first
        if SUMMED:
            pixel += (position // 3) * image_columns + position % 3
        mixed = mixed_ptr + (position * pixels + pixel)[:, None] * depth + k[None, :]
        pointwise = pointwise_ptr + k[:, None] * pitch + out[None, :]
        before = tl.zeros([BLOCK_C, BLOCK_L], tl.float32)
        for start in range(0, depth, BLOCK_K):
            weight = tl.load(pointwise + start * pitch)
            if HALF:
                before = tl.dot(tl.load(mixed + start), weight, before)
            else:
                before = tl.dot(tl.load(mixed + start), weight, before, input_precision="tf32x3")
        gated = tl.load(image_ptr + pixel[:, None] * bands + out[None, :], mask=here, other=0.0)
        gated *= _sigmoid(before + bias[None, :])
        if SUMMED:
            total += gated
        else:
            tl.store(result_ptr + (position * pixels + pixel)[:, None] * bands + out[None, :], gated, mask=here)
    if SUMMED:
        tl.store(result_ptr + cell[:, None] * bands + out[None, :], total * scale, mask=here)


@triton.jit(do_not_specialize=["rows", "columns", "image_rows", "image_columns", "patch"])
def _sums_kernel(
    gated_ptr,
    result_ptr,
    rows,
    columns,
    image_rows,
    image_columns,
    patch,
    bands,
    scale,
    BLOCK_C: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Sums over the patches of BLOCK_C cells, of what their pixels are there."""
    cell = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    band = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    here = (cell < rows * columns)[:, None] & (band < bands)[None, :]
    row, column = cell // columns, cell % columns
    total = tl.zeros([BLOCK_C, BLOCK_L], tl.float32)
    for down in range(patch):
        row_kind = tl.where(down == 0, 0, tl.where(down == patch - 1, 2, 1))
        for right in range(patch):
            kind = 3 * row_kind + tl.where(right == 0, 0, tl.where(right == patch - 1, 2, 1))
            place = (kind * image_rows + row + down) * image_columns + column + right
            total += tl.load(gated_ptr + place[:, None] * bands + band[None, :], mask=here, other=0.0)
    tl.store(result_ptr + cell[:, None] * bands + band[None, :], total * scale, mask=here)


class PreparedMerging(NamedTuple):
    """Weights of the merging as the kernels take them: the pointwise ones padded with zeros to whole blocks."""

    depthwise: Tensor
    depthwise_bias: Tensor
    pointwise: Tensor
    pointwise_bias: Tensor


def prepare_merging(weights: MergingWeights, half: bool) -> PreparedMerging:
    """Pad weights."""
    bands = len(weights.pointwise)
    depth, pitch = (triton.cdiv(bands, block) * block - bands for block in (_DEPTH[half], _BANDS))
    pointwise = pad(weights.pointwise, (0, pitch, 0, depth)).to(torch.float16 if half else torch.float32)
    return PreparedMerging(weights.depthwise, weights.depthwise_bias, pointwise.contiguous(), weights.pointwise_bias)


def gated_merging(image: Tensor, patch: int, prepared: PreparedMerging) -> Tensor:
    """Return what the patches around all pixels of an image `(H, W, L)` merge into, `(H − P + 1, W − P + 1, L)`."""
    height, width, bands = image.shape
    depth, pitch = prepared.pointwise.shape
    merged = image.new_empty(height - patch + 1, width - patch + 1, bands)
    rows, columns = merged.shape[:2]
    scale, summed = 2 / patch**2, patch == 3
    half = prepared.pointwise.dtype == torch.float16
    mixed = prepared.pointwise.new_empty(9, height, width, depth)
    mix: Any = _mixed_kernel
    mix[(triton.cdiv(height * width, _MIXED_CELLS), triton.cdiv(depth, _MIXED_BANDS))](
        image,
        mixed,
        prepared.depthwise,
        prepared.depthwise_bias,
        height,
        width,
        bands,
        depth,
        HALF=half,
        BLOCK_C=_MIXED_CELLS,
        BLOCK_L=_MIXED_BANDS,
    )
    gated = merged if summed else image.new_empty(9, height, width, bands)
    of_rows, of_columns = (rows, columns) if summed else (height, width)
    gates: Any = _gates_kernel
    gates[(triton.cdiv(of_rows * of_columns, _CELLS), pitch // _BANDS)](
        image,
        mixed,
        gated,
        prepared.pointwise,
        prepared.pointwise_bias,
        of_rows,
        of_columns,
        width,
        height * width,
        bands,
        depth,
        pitch,
        scale,
        SUMMED=summed,
        HALF=half,
        BLOCK_C=_CELLS,
        BLOCK_L=_BANDS,
        BLOCK_K=_DEPTH[half],
        num_warps=_MERGING_WARPS[half],
        num_stages=_MERGING_STAGES,
    )
    if not summed:
        sums: Any = _sums_kernel
        sums[(triton.cdiv(rows * columns, _MIXED_CELLS), triton.cdiv(bands, _MIXED_BANDS))](
            gated,
            merged,
            rows,
            columns,
            height,
            width,
            patch,
            bands,
            scale,
            BLOCK_C=_MIXED_CELLS,
            BLOCK_L=_MIXED_BANDS,
        )
    return merged


class PreparedFeatures(NamedTuple):
    """Weights as the kernels take them: E, N, M and R padded with zeros to powers of two.

    Attributes:
        embedding: Of tokens and positions.
        block: The rest up to the scan, in the order of the kernel's parameters.
        A: As the scan takes it, `(E, N)`.
        D: `(E,)`.
        out: The output projection.
        tokens: T.
        token_bands: R.
        width: M, without padding.
        epsilons: Of the first and the final norm.
        sizes: R, M, E and N, padded.
        dtype: Of what is kept between kernels; of float16 matrices are multiplied so, too.
    """

    embedding: tuple[Tensor, Tensor]
    block: tuple[Tensor, ...]
    A: Tensor
    D: Tensor
    out: Tensor
    tokens: int
    token_bands: int
    width: int
    epsilons: tuple[float, float]
    sizes: tuple[int, int, int, int]
    dtype: torch.dtype


def takes(weights: FeatureWeights) -> bool:
    """Tell whether the kernels hold a network of these sizes."""
    channels, states = weights.A.shape
    largest = max(channels, weights.token.shape[1], 2 * states, len(weights.token), len(weights.delta))
    return largest <= _MOST and weights.convolution.shape[0] <= _CONVOLUTION


def prepare(weights: FeatureWeights, half: bool) -> PreparedFeatures:
    """Pad weights."""
    (token_bands, width), (channels, states) = weights.token.shape, weights.A.shape
    rank = len(weights.delta)
    r, m, e, n = (
        max(_LEAST, triton.next_power_of_2(size)) for size in (token_bands, width, channels, max(states, rank))
    )

    def padded(tensor: Tensor, *shape: int) -> Tensor:
        missing = [size - there for size, there in zip(shape, tensor.shape, strict=True)]
        return pad(tensor, [side for one in reversed(missing) for side in (0, one)]).contiguous()

    def halves(tensor: Tensor, *shape: int) -> Tensor:
        """Pad u's and z's halves by themselves."""
        return torch.cat([padded(part, *shape, e) for part in tensor.chunk(2, -1)], -1)

    low_rank, B, C = weights.selection.split([rank, states, states], 1)
    earlier = weights.convolution.new_zeros(_CONVOLUTION - len(weights.convolution), channels)
    tokens = len(weights.position)
    block = (
        halves(weights.token_in, r),
        halves(weights.position_in, tokens),
        halves(weights.bias_in),
        padded(torch.cat([earlier, weights.convolution]), _CONVOLUTION, e),
        padded(weights.convolution_bias, e),
        torch.cat([padded(part, e, n) for part in (B, C, low_rank)], 1),
        padded(weights.delta, n, e),
        padded(weights.delta_bias, e),
    )
    first, final = weights.epsilon.tolist()
    return PreparedFeatures(
        (padded(weights.token, r, m), padded(weights.position, tokens, m)),
        block,
        padded(weights.A * math.log(2), e, n),
        padded(weights.D, e),
        padded(weights.out, e, m),
        tokens,
        token_bands,
        width,
        (first, final),
        (r, m, e, n),
        torch.float16 if half else torch.float32,
    )


def s6_features(spectra: Tensor, prepared: PreparedFeatures) -> Tensor:
    """Return the network's features `(B, M)` of spectra `(B, L)`."""
    result = spectra.new_empty(len(spectra), prepared.width)
    for part, features in zip(spectra.split(_AT_A_TIME), result.split(_AT_A_TIME), strict=True):
        if len(part):
            _some_features(part, features, prepared)
    return result


def _some_features(spectra: Tensor, result: Tensor, prepared: PreparedFeatures) -> None:
    (count, bands), tokens, (r, m, e, n) = spectra.shape, prepared.tokens, prepared.sizes
    half = prepared.dtype == torch.float16
    sizes = (count, bands, tokens, prepared.token_bands, prepared.width)
    u, delta, gate = (spectra.new_empty(count, tokens, e, dtype=prepared.dtype) for _ in range(3))
    selected = spectra.new_empty(count, tokens, 2 * n, dtype=prepared.dtype)
    before: Any = _before_kernel
    before[(triton.cdiv(count, _PIXELS), triton.cdiv(tokens, _TOKENS))](
        spectra,
        u,
        delta,
        gate,
        selected,
        *prepared.embedding,
        *prepared.block,
        *sizes,
        prepared.epsilons[0],
        HALF=half,
        BLOCK_P=_PIXELS,
        BLOCK_T=_TOKENS,
        BLOCK_R=r,
        BLOCK_M=m,
        BLOCK_E=e,
        BLOCK_N=n,
        num_warps=_WARPS,
    )
    y = selective_scan(u, delta, prepared.A, selected[..., :n], selected[..., n:], prepared.D, backend="triton")
    after: Any = _after_kernel
    after[(triton.cdiv(count, _PIXELS),)](
        spectra,
        y,
        gate,
        result,
        *prepared.embedding,
        prepared.out,
        *sizes,
        prepared.epsilons[1],
        HALF=half,
        BLOCK_P=_PIXELS,
        BLOCK_R=r,
        BLOCK_M=m,
        BLOCK_E=e,
        num_warps=_WARPS,
    )
