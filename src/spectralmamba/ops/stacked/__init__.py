"""Layers of many small networks at once: what `torch.vmap` over their weights should call.

`torch.vmap` turns a convolution into one of very many groups, which libraries copy back and forth for, and a linear layer's
weight gradient into a few long sums. Within `StackedLayers` these layers have kernels of their own; the networks need not
know.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from spectralmamba.ops.groups import in_groups, out_of_groups
from spectralmamba.ops.stacked import triton as kernels

_WANTED_SUMS = 160  # matrices that a weight gradient's sum over rows is divided into, over all groups
_WIDEST_ROW = 1024  # of the normalisation's kernels
_MOST_TAPS = 64  # of the convolution's


class StackedLayers(TorchFunctionMode):
    """Within it, linear layers, depthwise and pointwise convolutions and layer normalisation take kernels for groups.

    Float32 only; what has no such kernel is torch's own.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or what stands for it here."""
        layer = _LAYERS.get(func)
        result = None if layer is None else layer(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if result is None else result


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if input.dim() < 2 or weight.dim() != 2 or not _in_float32(input, weight):
        return None
    result: Any = _Linear.apply(input[None], weight[None], None if bias is None else bias[None])
    return result.squeeze(0)  # unlike an index's, its gradient is a view


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """Convolve images `(B, C, H, W)` or sequences `(B, C, T)`."""
    spatial = weight.dim() - 2
    plain = all(_each(what, spatial) == (1,) * spatial for what in (stride, dilation))
    if not plain or isinstance(padding, str) or input.dim() != weight.dim() or not _in_float32(input, weight):
        return None
    if spatial == 1:
        result = _convolution(input[:, :, None], weight[:, :, None], bias, 1, (0, *_each(padding, 1)), 1, groups)
        return None if result is None else result.squeeze(2)
    taps, pads = weight.shape[2:], _each(padding, 2)
    if taps == (1, 1) and groups == 1 and pads == (0, 0):
        result = _linear(input.permute(0, 2, 3, 1), weight.flatten(1), bias)
        return None if result is None else result.permute(0, 3, 1, 2)
    depthwise = groups == input.shape[1] == weight.shape[0]
    if not depthwise or math.prod(taps) > _MOST_TAPS or any(pad >= size for pad, size in zip(pads, taps, strict=True)):
        return None
    last = input.permute(0, 2, 3, 1)[None]
    result: Any = _Depthwise.apply(last, weight.squeeze(1)[None], None if bias is None else bias[None], pads)
    return result.squeeze(0).permute(0, 3, 1, 2)


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    if weight is None or bias is None or len(normalized_shape) != 1 or normalized_shape[0] > _WIDEST_ROW:
        return None
    if input.dim() < 2 or not _in_float32(input, weight):
        return None
    result: Any = _LayerNorm.apply(input.flatten(0, -2)[None], weight[None], bias[None], eps)
    return result.squeeze(0).view(input.shape)


_LAYERS: dict[Any, Any] = {
    functional.linear: _linear,
    functional.conv1d: _convolution,
    functional.conv2d: _convolution,
    functional.layer_norm: _layer_norm,
}


def _each(value: Any, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value) * (count // len(value))


def _in_float32(*tensors: Tensor) -> bool:
    return all(tensor.dtype == torch.float32 for tensor in tensors) and not torch.is_autocast_enabled()


class _Linear(torch.autograd.Function):
    """Inputs `(G, …, K)`, weights `(G, O, K)`, bias `(G, O)` or None → `(G, …, O)`."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.flatten(1, -2)
        y = torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad, rows = gradients[0].flatten(1, -2), x.flatten(1, -2)  # (G, R, ·)
        grad_x = torch.bmm(grad, weight).view(x.shape) if ctx.needs_input_grad[0] else None
        parts = _parts(*rows.shape[:2])
        divided = (tensor.unflatten(1, (parts, -1)).flatten(0, 1) for tensor in (grad, rows))
        of_output, of_input = divided
        grad_weight = torch.bmm(of_output.mT, of_input).unflatten(0, (-1, parts)).sum(1)
        return grad_x, grad_weight, grad.sum(1) if ctx.needs_input_grad[2] else None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Tensor, int]:
        return _mapped(_Linear, info, in_dims, arguments)


def _parts(groups: int, rows: int) -> int:
    """Return how many parts of equal size a sum over rows is divided into; one group is left to the library."""
    most = _WANTED_SUMS // groups if groups > 1 else 1
    return next(parts for parts in range(max(1, min(most, rows)), 0, -1) if rows % parts == 0)


class _Depthwise(torch.autograd.Function):
    """Images `(G, B, H, W, C)`, weights `(G, C, h, w)`, bias `(G, C)` or None → `(G, B, H', W', C)`."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        return kernels.depthwise_convolution(
            x.contiguous(), weight, None if bias is None else bias.contiguous(), padding
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.padding = inputs
        ctx.save_for_backward(x.contiguous(), weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = kernels.depthwise_convolution_gradients(
            gradients[0].contiguous(), x, weight, ctx.padding, ctx.needs_input_grad[0]
        )
        return grad_x, grad_weight, grad_bias if ctx.needs_input_grad[2] else None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Tensor, int]:
        return _mapped(_Depthwise, info, in_dims, arguments)


class _LayerNorm(torch.autograd.Function):
    """Rows `(G, R, M)`, weight and bias `(G, M)` → `(G, R, M)`."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        return kernels.layer_norm(x.contiguous(), weight.contiguous(), bias.contiguous(), epsilon)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.epsilon = inputs
        ctx.save_for_backward(x.contiguous(), weight.contiguous())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return *kernels.layer_norm_gradients(gradients[0].contiguous(), x, weight, ctx.epsilon), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Tensor, int]:
        return _mapped(_LayerNorm, info, in_dims, arguments)


def _mapped(function: Any, info: Any, dims: Any, arguments: tuple[Any, ...]) -> tuple[Tensor, int]:
    (result,), (dim,) = out_of_groups(info, (function.apply(*in_groups(info, dims, arguments)),))
    return result, dim
