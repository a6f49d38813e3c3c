"""Both operations in Triton, for GPUs.

Merging: the nine depthwise convolutions that a pixel can have in a patch are written once, then one kernel multiplies each with the
pointwise weights, and gates and sums values on the way out.

Features: a program owns some pixels from the spectrum to the pooled features, and T is a loop: nothing of (B, T, E) is ever in
memory. States are (N, pixels, E): a thread has all states of a channel and sums over them by itself. Three kernels, with the
scan of `ops.selective_scan` between two others, took 0.85 of the time on an H100, but 1 GB for what lies between them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from spectralmamba.ops.dense.weights import FeatureWeights, MergingWeights
from spectralmamba.ops.selective_scan.triton import softplus

_PIXELS, _FEATURE_WARPS = 16, 4  # of a program; 16 rows are the least that a matrix unit takes
_CELLS, _BANDS, _MERGING_STAGES = 128, 64, 3
_DEPTH, _MERGING_WARPS = {False: 32, True: 64}, {False: 8, True: 4}  # in float32, in float16
_MIXED_CELLS, _MIXED_BANDS = 8, 64
_LEAST = 16  # sides of a matrix product
_CONVOLUTION = 4
_MOST_STATES = 2048  # E · N of a pixel: what registers hold
_LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * _LOG2E))


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


@triton.jit(do_not_specialize=["count", "bands", "tokens", "token_bands"])
def _features_kernel(
    x_ptr,
    result_ptr,
    token_ptr,
    position_ptr,
    token_in_ptr,
    position_in_ptr,
    bias_in_ptr,
    convolution_ptr,
    convolution_bias_ptr,
    selection_ptr,
    delta_bias_ptr,
    A_ptr,
    D_ptr,
    out_ptr,
    count,
    bands,
    tokens,
    token_bands,
    width,
    first_epsilon,
    final_epsilon,
    HALF: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Features of BLOCK_P spectra."""
    p = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    r, m, e, n = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_N)
    A = tl.load(A_ptr + n[:, None] * BLOCK_E + e[None, :])  # (N, E)
    D, delta_bias = tl.load(D_ptr + e), tl.load(delta_bias_ptr + e)
    tap0, tap1 = tl.load(convolution_ptr + e), tl.load(convolution_ptr + BLOCK_E + e)
    tap2, tap3 = tl.load(convolution_ptr + 2 * BLOCK_E + e), tl.load(convolution_ptr + 3 * BLOCK_E + e)
    convolution_bias = tl.load(convolution_bias_ptr + e)
    u_bias, z_bias = tl.load(bias_in_ptr + e), tl.load(bias_in_ptr + BLOCK_E + e)
    u1 = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)  # of the tokens before
    u2 = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    u3 = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    h = tl.zeros([BLOCK_N, BLOCK_P, BLOCK_E], tl.float32)
    pooled = tl.zeros([BLOCK_P, BLOCK_M], tl.float32)
    for t in range(tokens):
        band = t * token_bands + r
        there = (p < count)[:, None] & ((r < token_bands) & (band < bands))[None, :]
        token = tl.load(x_ptr + p[:, None] * bands + band[None, :], mask=there, other=0.0)  # (P, R)
        x = _product(token, _matrix(token_ptr, BLOCK_R, BLOCK_M, BLOCK_M, 0), HALF)
        x += tl.load(position_ptr + t * BLOCK_M + m)[None, :]
        scale = tl.rsqrt(tl.sum(x * x, 1) / width + first_epsilon)[:, None]
        position_in = position_in_ptr + t * 2 * BLOCK_E
        u0 = _product(token, _matrix(token_in_ptr, BLOCK_R, BLOCK_E, 2 * BLOCK_E, 0), HALF)
        u0 = (u0 + tl.load(position_in + e)[None, :]) * scale + u_bias[None, :]
        z = _product(token, _matrix(token_in_ptr, BLOCK_R, BLOCK_E, 2 * BLOCK_E, BLOCK_E), HALF)
        z = (z + tl.load(position_in + BLOCK_E + e)[None, :]) * scale + z_bias[None, :]
        u = (
            convolution_bias[None, :]
            + tap0[None, :] * u3
            + tap1[None, :] * u2
            + tap2[None, :] * u1
            + tap3[None, :] * u0
        )
        u = u * _sigmoid(u)
        u3, u2, u1 = u2, u1, u0
        selection = 2 * BLOCK_N + BLOCK_E
        B = _product(u, _matrix(selection_ptr, BLOCK_E, BLOCK_N, selection, 0), HALF)
        C = _product(u, _matrix(selection_ptr, BLOCK_E, BLOCK_N, selection, BLOCK_N), HALF)
        delta = _product(u, _matrix(selection_ptr, BLOCK_E, BLOCK_E, selection, 2 * BLOCK_N), HALF)
        delta = softplus(delta + delta_bias[None, :])
        decay = tl.exp2(delta[None, :, :] * A[:, None, :])
        h = decay * h + (delta * u)[None, :, :] * tl.trans(B)[:, :, None]
        y = tl.sum(h * tl.trans(C)[:, :, None], 0) + D[None, :] * u
        x += _product(y * (z * _sigmoid(z)), _matrix(out_ptr, BLOCK_E, BLOCK_M, BLOCK_M, 0), HALF)
        pooled += x * tl.rsqrt(tl.sum(x * x, 1) / width + final_epsilon)[:, None]
    here = (p < count)[:, None] & (m < width)[None, :]
    tl.store(result_ptr + p[:, None] * width + m[None, :], pooled / tokens, mask=here)


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


def prepare_merging(weights: MergingWeights, half: bool) -> MergingWeights:
    """Pad the pointwise weights with zeros to whole blocks, and make them float16 if asked to."""
    bands = len(weights.pointwise)
    depth, pitch = (triton.cdiv(bands, block) * block - bands for block in (_DEPTH[half], _BANDS))
    pointwise = pad(weights.pointwise, (0, pitch, 0, depth)).to(torch.float16 if half else torch.float32)
    return weights._replace(pointwise=pointwise.contiguous())


def gated_merging(image: Tensor, patch: int, prepared: MergingWeights) -> Tensor:
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
    """Weights as the kernel takes them: E, N, M and R padded with zeros to powers of two, Δ's two matrices in one.

    Attributes:
        tensors: In the order of the kernel's parameters.
        tokens: T.
        token_bands: R.
        width: M, without padding.
        epsilons: Of the first and the final norm.
        blocks: R, M, E and N, padded.
        half: Whether matrices are multiplied in float16.
    """

    tensors: tuple[Tensor, ...]
    tokens: int
    token_bands: int
    width: int
    epsilons: tuple[float, float]
    blocks: tuple[int, int, int, int]
    half: bool


def takes(weights: FeatureWeights) -> bool:
    """Tell whether the kernel holds a network of these sizes."""
    channels, states = (triton.next_power_of_2(size) for size in weights.A.shape)
    return channels * max(states, _LEAST) <= _MOST_STATES and weights.convolution.shape[0] <= _CONVOLUTION


def prepare(weights: FeatureWeights, half: bool) -> PreparedFeatures:
    """Pad weights."""
    (token_bands, width), (channels, states) = weights.token.shape, weights.A.shape
    r, m, e, n = (max(_LEAST, triton.next_power_of_2(size)) for size in (token_bands, width, channels, states))

    def padded(tensor: Tensor, *shape: int) -> Tensor:
        missing = [size - there for size, there in zip(shape, tensor.shape, strict=True)]
        return pad(tensor, [side for one in reversed(missing) for side in (0, one)]).contiguous()

    def halves(tensor: Tensor, *shape: int) -> Tensor:
        """Pad u's and z's halves by themselves."""
        return torch.cat([padded(half, *shape, e) for half in tensor.chunk(2, -1)], -1)

    low_rank, B, C = weights.selection.split([len(weights.delta), states, states], 1)
    earlier = weights.convolution.new_zeros(_CONVOLUTION - len(weights.convolution), channels)
    tensors = (
        padded(weights.token, r, m),
        padded(weights.position, len(weights.position), m),
        halves(weights.token_in, r),
        halves(weights.position_in, len(weights.position)),
        halves(weights.bias_in),
        padded(torch.cat([earlier, weights.convolution]), _CONVOLUTION, e),
        padded(weights.convolution_bias, e),
        torch.cat([padded(B, e, n), padded(C, e, n), padded(low_rank @ weights.delta, e, e)], 1),
        padded(weights.delta_bias, e),
        padded(weights.A.mT, n, e),
        padded(weights.D, e),
        padded(weights.out, e, m),
    )
    first, final = weights.epsilon.tolist()
    return PreparedFeatures(tensors, len(weights.position), token_bands, width, (first, final), (r, m, e, n), half)


def s6_features(spectra: Tensor, prepared: PreparedFeatures) -> Tensor:
    """Return the network's features `(B, M)` of spectra `(B, L)`."""
    count, bands = spectra.shape
    result = spectra.new_empty(count, prepared.width)
    if count:
        r, m, e, n = prepared.blocks
        kernel: Any = _features_kernel
        kernel[(triton.cdiv(count, _PIXELS),)](
            spectra,
            result,
            *prepared.tensors,
            count,
            bands,
            prepared.tokens,
            prepared.token_bands,
            prepared.width,
            *prepared.epsilons,
            HALF=prepared.half,
            BLOCK_P=_PIXELS,
            BLOCK_R=r,
            BLOCK_M=m,
            BLOCK_E=e,
            BLOCK_N=n,
            num_warps=_FEATURE_WARPS,
        )
    return result
