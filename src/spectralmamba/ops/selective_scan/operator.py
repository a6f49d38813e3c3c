"""The selective scan as an operator of torch, and which implementation a call takes.

The operator has batches in G equal groups with an A, D and bias each: what `torch.vmap` over parameters becomes.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from spectralmamba.errors import ModelError
from spectralmamba.ops.groups import in_groups, out_of_groups
from spectralmamba.ops.selective_scan import portable
from spectralmamba.ops.selective_scan.reference import computing_dtype, selective_scan_reference

_MOST_STATES = 64  # of the Triton kernels


@cache
def _warn_once(reason: str) -> None:
    message = f"the selective scan falls back from Triton kernels to plain torch, which is slower: {reason}"
    warnings.warn(message, RuntimeWarning, stacklevel=4)


@cache
def triton_kernels(device: torch.device) -> ModuleType | None:
    """Return the Triton implementation if it can be had and is right on this device, which is tried once a process."""
    try:
        from spectralmamba.ops.selective_scan import triton as kernels

        if os.environ.get("SPECTRALMAMBA_SELF_CHECK") != "0":
            _self_check(kernels, device)
    except Exception as error:  # a missing compiler, driver or package shows in many ways
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _warn_once(reason)
        return None
    return kernels


@torch.inference_mode(False)  # a classifier's first map calls it from within
def _self_check(kernels: ModuleType, device: torch.device) -> None:
    """Compare with the definition on a few sequences; raises where values or gradients are off."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 5, 64), (2, 5, 64), (64, 16), (2, 5, 16), (2, 5, 16), (64,), (64,)
    u, delta, A, B, C, D, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    inputs = [tensor.requires_grad_() for tensor in (u, delta, -A.exp(), B, C, D, bias)]
    u, delta, A, B, C, D, bias = inputs
    with torch.enable_grad():
        y, _ = selective_scan_reference(u, delta, A, B, C, D, None, bias, True, None)
        expected = y, *torch.autograd.grad(y.sum(), inputs)
    u, delta, A, B, C, D, bias = (tensor.detach().to(device) for tensor in inputs)
    rest = u, delta, A[None], B, C, D[None], bias[None], True, None
    found_y = kernels.forward(*rest, final_state=False)[0]
    found = found_y, *kernels.backward(torch.ones_like(found_y), None, *rest)[:7]
    for name, value, wanted in zip(
        ("y", "∂u", "∂delta", "∂A", "∂B", "∂C", "∂D", "∂delta_bias"), found, expected, strict=True
    ):
        error = ((value.cpu().view_as(wanted) - wanted).norm() / wanted.norm()).item()
        if not error < 1e-4:
            raise RuntimeError(f"the kernels fail their self-check: {name} is off by {error:.1e}")


def _kernels(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, asked: str) -> ModuleType | None:
    """Return the Triton implementation if this call takes it.

    Raises:
        ModelError: It was asked for by name, and cannot do this.
    """
    if asked == "torch" or (asked == "auto" and u.device.type != "cuda") or not u.numel():
        return None
    problem = _beyond_the_kernels(u, delta, A, B, C)
    if asked == "auto":
        if problem is None:
            return triton_kernels(u.device)
        _warn_once(problem)
        return None
    try:
        from spectralmamba.ops.selective_scan import triton as kernels
    except ImportError as error:
        raise ModelError("the package triton is not installed", found=error, remedy="Use backend='auto'.") from error
    if problem is None and u.device.type != "cuda" and not kernels.INTERPRETED:
        problem = f"tensors are on {u.device}"
    if problem is not None:
        raise ModelError("the Triton kernels cannot do this scan", found=problem, remedy="Use backend='auto'.")
    return kernels


def _beyond_the_kernels(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> str | None:
    """Return why the Triton kernels cannot do a scan, None if they can."""
    if computing_dtype(u, delta, A, B, C) == torch.float64:
        return "there is no kernel for float64"
    if A.shape[-1] > _MOST_STATES:
        return f"N = {A.shape[-1]} states are more than the {_MOST_STATES} that a thread can hold"
    if u.shape[1] * max(u.shape[2], *(tensor.stride(1) for tensor in (u, delta, B, C))) >= 2**31:
        return "a sequence's elements are more than 32-bit addresses reach"
    return None


def _dense(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """Give results memory of their own, as operators must."""
    return lambda *arguments: tuple(
        result.clone(memory_format=torch.contiguous_format) for result in function(*arguments)
    )


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    final_state: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Scan a batch of G groups of sequences.

    Args:
        u: `(B, T, E)`, as delta.
        delta: `(B, T, E)`.
        A: `(G, E, N)`, one for each of G consecutive parts of the batch; computing dtype, as what follows but B and C.
        B: `(B, T, N)`, as C.
        C: `(B, T, N)`.
        D: `(G, E)`.
        delta_bias: `(G, E)`.
        delta_softplus: Whether Δ is softplus(delta + delta_bias).
        initial_state: `(B, E, N)`.
        final_state: Whether the last state is wanted; it is `(0,)` if not.
        backend: "auto", "torch" or "triton".

    Returns:
        y `(B, T, E)` in u's dtype, and the last state `(B, E, N)`.
    """
    kernels = _kernels(u, delta, A, B, C, backend)
    if kernels is None:
        y, last = portable.forward(u, delta, A, B, C, D, delta_bias, delta_softplus, initial_state)
        return y, last if final_state else last.new_empty(0)
    y, last = kernels.forward(u, delta, A, B, C, D, delta_bias, delta_softplus, initial_state, final_state)
    return y, u.new_empty(0, dtype=torch.float32) if last is None else last


scan = torch.library.custom_op(
    "spectralmamba::selective_scan",
    _dense(_scan),
    mutates_args=(),
    schema=torch.library.infer_schema(_scan, mutates_args=()),
)


@scan.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any, delta_bias: Any, delta_softplus: bool,
      initial_state: Any, final_state: bool, backend: str) -> tuple[Tensor, Tensor]:  # fmt: skip
    dtype = computing_dtype(u, delta, A, B, C)
    shape = (u.shape[0], A.shape[1], A.shape[2]) if final_state else (0,)
    return u.new_empty(u.shape), u.new_empty(shape, dtype=dtype)


def _scan_backward(
    grad_y: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, Δ, A, B, C, D, the bias and the initial state, `(0,)` if none is given."""
    implementation: Any = _kernels(u, delta, A, B, C, backend) or portable
    return implementation.backward(grad_y, grad_last, u, delta, A, B, C, D, delta_bias, delta_softplus, initial_state)


scan_backward = torch.library.custom_op(
    "spectralmamba::selective_scan_backward",
    _dense(_scan_backward),
    mutates_args=(),
    schema=torch.library.infer_schema(_scan_backward, mutates_args=()),
)


@scan_backward.register_fake
def _(grad_y: Tensor, grad_last: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any,
      delta_bias: Any, delta_softplus: bool, initial_state: Any, backend: str) -> tuple[Tensor, ...]:  # fmt: skip
    dtype, (groups, channels, states) = computing_dtype(u, delta, A, B, C), A.shape
    of_channels = [A.new_empty((groups, channels), dtype=dtype) for _ in range(2)]
    same = (tensor.new_empty(tensor.shape) for tensor in (u, delta, A, B, C))
    shape = (0,) if initial_state is None else (u.shape[0], channels, states)
    return *same, *of_channels, A.new_empty(shape, dtype=dtype)


def selective_scan_in_groups(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    final_state: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Do what `scan` does, and without torch's dispatch of operators, longer than a small scan, where nothing needs it."""
    function = scan if torch.compiler.is_compiling() else _Scan.apply
    return function(  # pyright: ignore[reportReturnType]
        u, delta, A, B, C, D, delta_bias, delta_softplus, initial_state, final_state, backend
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    u, delta, A, B, C, D, delta_bias, ctx.delta_softplus, initial_state, ctx.final_state, ctx.backend = inputs
    ctx.save_for_backward(u, delta, A, B, C, D, delta_bias, initial_state)


def _gradients(ctx: Any, function: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    u, delta, A, B, C, D, delta_bias, initial_state = ctx.saved_tensors
    *grads, grad_D, grad_bias, grad_state = function(
        grad_y, grad_last if ctx.final_state else None, u, delta, A, B, C, D, delta_bias, ctx.delta_softplus,
        initial_state, ctx.backend,
    )  # fmt: skip
    given = (D, grad_D), (delta_bias, grad_bias), (initial_state, grad_state)
    grad_D, grad_bias, grad_state = (None if tensor is None else grad for tensor, grad in given)
    return *grads, grad_D, grad_bias, None, grad_state, None, None


def _refuse_second_derivative(ctx: Any, *gradients: Tensor) -> None:
    raise ModelError(
        "the selective scan is differentiated once only",
        remedy="Use selective_scan(…, backend='reference') for second derivatives.",
    )


scan.register_autograd(
    lambda ctx, grad_y, grad_last: _gradients(ctx, scan_backward, grad_y, grad_last), setup_context=_setup_context
)
scan_backward.register_autograd(_refuse_second_derivative)


for _function in (
    _scan,
    _scan_backward,
):  # torch looks at it in every call; made anew it takes longer than a small scan
    _function.__signature__ = inspect.signature(_function)  # pyright: ignore[reportFunctionMemberAccess]


class _Scan(torch.autograd.Function):
    forward = staticmethod(_scan)
    setup_context = staticmethod(_setup_context)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, _ScanGradients.apply, *gradients)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return out_of_groups(info, _Scan.apply(*in_groups(info, in_dims, arguments)))  # pyright: ignore[reportArgumentType]


class _ScanGradients(torch.autograd.Function):
    forward = staticmethod(_scan_backward)
    backward = staticmethod(_refuse_second_derivative)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing: there is no second derivative."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return out_of_groups(info, _ScanGradients.apply(*in_groups(info, in_dims, arguments)))  # pyright: ignore[reportArgumentType]
