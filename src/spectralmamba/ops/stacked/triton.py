"""Layers of many small networks at once as Triton kernels: depthwise convolution and layer normalisation.

torch has no kernel for a depthwise convolution with channels last, and its layer normalisation takes a block of threads for
each row, however short. Letters: G groups with weights of their own, B samples, H W rows and columns, C channels, R rows of M
values. Sums over samples are in a fixed order, so that results are the same bits every time.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_PROGRAMS = 1024  # wanted where they share the sum over samples
_CHANNELS, _PIXELS = 64, 16  # a program of the convolution
_SUM_CHANNELS, _SUM_ELEMENTS = 32, 2048  # a program of its weights' gradient
_ROW_ELEMENTS = 2048  # a program of the normalisation


@triton.jit
def _convolution_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    group_size,
    height,
    width,
    channel_units,
    out_height,
    out_width,
    pad_height,
    pad_width,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FLIPPED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    UNIT: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Convolve x `(G·B, H, W, C)` with weights `(G, taps, C)`, or the gradient of the result with the weights flipped."""
    channels = channel_units * UNIT  # so that the compiler knows a divisor, and reads several at once
    item = tl.program_id(0).to(tl.int64)
    group = item // group_size
    place = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    there, inside = c < channels, place < out_height * out_width
    row, column = place // out_width, place % out_width
    sums = tl.zeros([PIXELS, CHANNELS], tl.float32)
    if HAS_BIAS:
        sums += tl.load(bias_ptr + group * channels + c, mask=there, other=0.0)[None, :]
    for tap in tl.static_range(ROWS * COLUMNS):  # pyright: ignore[reportGeneralTypeIssues]
        y, x = row + tap // COLUMNS - pad_height, column + tap % COLUMNS - pad_width
        valid = inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        value = tl.load(
            x_ptr + ((item * height + y) * width + x)[:, None] * channels + c[None, :],
            mask=valid[:, None] & there[None, :],
            other=0.0,
        )
        at = ROWS * COLUMNS - 1 - tap if FLIPPED else tap
        weight = tl.load(weight_ptr + (group * ROWS * COLUMNS + at) * channels + c, mask=there, other=0.0)
        sums += value * weight[None, :]
    mask = inside[:, None] & there[None, :]
    tl.store(y_ptr + (item * out_height * out_width + place)[:, None] * channels + c[None, :], sums, mask=mask)


@triton.jit
def _weight_gradient_kernel(
    grad_ptr,
    x_ptr,
    sums_ptr,
    group_size,
    height,
    width,
    channel_units,
    out_height,
    out_width,
    pad_height,
    pad_width,
    parts,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TAPS: tl.constexpr,
    UNIT: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Sum over every `parts`-th sample the gradients of the weights and, behind them, of the bias: `(G, parts, taps + 1, C)`."""
    channels = channel_units * UNIT
    part, group = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    tap = tl.arange(0, TAPS)
    there, used = c < channels, tap < ROWS * COLUMNS
    sums = tl.zeros([TAPS, PIXELS, CHANNELS], tl.float32)
    bias = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for sample in range(part, group_size, parts):
        item = group * group_size + sample
        for first in range(0, out_height * out_width, PIXELS):
            place = first + tl.arange(0, PIXELS)
            inside = place < out_height * out_width
            grad = tl.load(
                grad_ptr + (item * out_height * out_width + place)[:, None] * channels + c[None, :],
                mask=inside[:, None] & there[None, :],
                other=0.0,
            )
            y = (place // out_width)[None, :] + (tap // COLUMNS)[:, None] - pad_height  # (taps, pixels)
            x = (place % out_width)[None, :] + (tap % COLUMNS)[:, None] - pad_width
            valid = inside[None, :] & used[:, None] & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            value = tl.load(
                x_ptr + ((item * height + y) * width + x)[:, :, None] * channels + c[None, None, :],
                mask=valid[:, :, None] & there[None, None, :],
                other=0.0,
            )
            sums += value * grad[None, :, :]
            bias += grad
    sums_ptr += (group * parts + part) * (ROWS * COLUMNS + 1) * channels
    tl.store(sums_ptr + tap[:, None] * channels + c[None, :], tl.sum(sums, 1), mask=used[:, None] & there[None, :])
    tl.store(sums_ptr + ROWS * COLUMNS * channels + c, tl.sum(bias, 0), mask=there)


@triton.jit
def _normalised(x, width, there, epsilon):
    """Return rows `(rows, M)` with mean 0 and variance 1, and the factor of each that made it so."""
    mean = tl.sum(x, 1) / width
    centred = tl.where(there, x - mean[:, None], 0.0)
    factor = 1 / tl.sqrt(tl.sum(centred * centred, 1) / width + epsilon)
    return centred * factor[:, None], factor


@triton.jit
def _norm_kernel(
    x_ptr, weight_ptr, bias_ptr, y_ptr, rows, width, epsilon, ROWS: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """Normalise rows of x `(G, R, M)`, then scale and shift them by the group's weights `(G, M)`."""
    group = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    m = tl.arange(0, WIDTH)
    there = (row < rows)[:, None] & (m < width)[None, :]
    at = (group * rows + row)[:, None] * width + m[None, :]
    normalised, _ = _normalised(tl.load(x_ptr + at, mask=there, other=0.0), width, there, epsilon)
    weight = tl.load(weight_ptr + group * width + m, mask=m < width, other=0.0)
    bias = tl.load(bias_ptr + group * width + m, mask=m < width, other=0.0)
    tl.store(y_ptr + at, normalised * weight[None, :] + bias[None, :], mask=there)


@triton.jit
def _norm_gradient_kernel(
    grad_ptr,
    x_ptr,
    weight_ptr,
    grad_x_ptr,
    sums_ptr,
    rows,
    width,
    epsilon,
    parts,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Return the gradient of x, and sums over some rows of those of weight and bias, `(G, parts, 2, M)`."""
    part, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    m = tl.arange(0, WIDTH)
    weight = tl.load(weight_ptr + group * width + m, mask=m < width, other=0.0)
    of_weight = tl.zeros([WIDTH], tl.float32)
    of_bias = tl.zeros([WIDTH], tl.float32)
    for first in range(part * ROWS, rows, parts * ROWS):
        row = first + tl.arange(0, ROWS)
        there = (row < rows)[:, None] & (m < width)[None, :]
        at = (group * rows + row)[:, None] * width + m[None, :]
        normalised, factor = _normalised(tl.load(x_ptr + at, mask=there, other=0.0), width, there, epsilon)
        grad = tl.load(grad_ptr + at, mask=there, other=0.0)
        of_weight += tl.sum(grad * normalised, 0)
        of_bias += tl.sum(grad, 0)
        grad = grad * weight[None, :]
        along = normalised * (tl.sum(grad * normalised, 1) / width)[:, None]
        grad = (grad - (tl.sum(grad, 1) / width)[:, None] - along) * factor[:, None]
        tl.store(grad_x_ptr + at, grad, mask=there)
    sums_ptr += (group * parts + part) * 2 * width + m
    tl.store(sums_ptr, of_weight, mask=m < width)
    tl.store(sums_ptr + width, of_bias, mask=m < width)


def _unit(channels: int) -> int:
    """Return how many channels can be read at once."""
    return 4 if channels % 4 == 0 else 1


def _tapwise(weight: Tensor) -> Tensor:
    """`(G, C, h, w)` → `(G, h·w, C)`."""
    return weight.flatten(2).mT.contiguous()


def depthwise_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Convolve each channel of x `(G, B, H, W, C)`, contiguous, with its own weights `(G, C, h, w)`; bias `(G, C)`."""
    (_, _, height, width, _), (rows, columns) = x.shape, weight.shape[2:]
    size = height + 2 * padding[0] - rows + 1, width + 2 * padding[1] - columns + 1
    return _convolved(x, weight, bias, padding, size, flipped=False)


def depthwise_convolution_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], of_x: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the gradients of x, if it is asked for, weight and bias."""
    (groups, batch, height, width, channels), (rows, columns) = x.shape, weight.shape[2:]
    grad_x = None
    if of_x:
        mirrored = rows - 1 - padding[0], columns - 1 - padding[1]
        grad_x = _convolved(grad, weight, None, mirrored, (height, width), flipped=True)
    blocks = triton.cdiv(channels, _SUM_CHANNELS)
    parts = min(batch, triton.cdiv(_PROGRAMS, blocks * groups))
    sums = x.new_empty(groups, parts, rows * columns + 1, channels)
    taps = triton.next_power_of_2(rows * columns)
    kernel: Any = _weight_gradient_kernel
    kernel[(parts, blocks, groups)](
        grad, x, sums, batch, height, width, channels // _unit(channels), *grad.shape[2:4], *padding, parts,
        ROWS=rows, COLUMNS=columns, TAPS=taps, UNIT=_unit(channels), CHANNELS=_SUM_CHANNELS,
        PIXELS=max(1, _SUM_ELEMENTS // (taps * _SUM_CHANNELS)),
    )  # fmt: skip
    of_weight, of_bias = sums.sum(1).split([rows * columns, 1], 1)
    return grad_x, of_weight.mT.reshape(weight.shape), of_bias[:, 0]


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], size: tuple[int, int], flipped: bool
) -> Tensor:
    (groups, batch, height, width, channels), (rows, columns) = x.shape, weight.shape[2:]
    y = x.new_empty(groups, batch, *size, channels)
    kernel: Any = _convolution_kernel
    kernel[(groups * batch, triton.cdiv(size[0] * size[1], _PIXELS), triton.cdiv(channels, _CHANNELS))](
        x, _tapwise(weight), bias, y, batch, height, width, channels // _unit(channels), *size, *padding,
        ROWS=rows, COLUMNS=columns, FLIPPED=flipped, HAS_BIAS=bias is not None,
        UNIT=_unit(channels), PIXELS=_PIXELS, CHANNELS=_CHANNELS,
    )  # fmt: skip
    return y


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Normalise the rows of x `(G, R, M)`, contiguous; weight and bias `(G, M)`."""
    groups, rows, width = x.shape
    y, block = torch.empty_like(x), triton.next_power_of_2(width)
    size = max(1, _ROW_ELEMENTS // block)
    kernel: Any = _norm_kernel
    kernel[(triton.cdiv(rows, size), groups)](x, weight, bias, y, rows, width, epsilon, ROWS=size, WIDTH=block)
    return y


def layer_norm_gradients(grad: Tensor, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias."""
    groups, rows, width = x.shape
    grad_x, block = torch.empty_like(x), triton.next_power_of_2(width)
    size = max(1, _ROW_ELEMENTS // block)
    parts = min(triton.cdiv(rows, size), triton.cdiv(_PROGRAMS, groups))
    sums = x.new_empty(groups, parts, 2, width)
    kernel: Any = _norm_gradient_kernel
    kernel[(parts, groups)](grad, x, weight, grad_x, sums, rows, width, epsilon, parts, ROWS=size, WIDTH=block)
    of_weight, of_bias = sums.sum(1).unbind(1)
    return grad_x, of_weight, of_bias
