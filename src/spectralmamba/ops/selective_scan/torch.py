"""The selective scan in plain torch: runs wherever torch runs, with a backward of its own.

All exponentials of a piece of the batch are taken at once and the recurrence is a loop of one in-place multiply-add a
token; autograd would instead record several small operations a token. The channels are the innermost dimension, so that
every sum over states or channels is a row vector times a matrix, which BLAS does at the speed of memory. A small scan keeps
its states for the backward; a large one computes them again, piece by piece, so that its memory stays that of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu, softplus

# Elements (batch, tokens, states, channels) of a piece; measured best of 2^16 … 2^22 on two cores.
_PIECE = 1 << 20
# Elements up to which decays and states are kept for the backward: 64 MiB of float32 each.
_KEPT = 1 << 24


def selective_scan_torch(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Scan by whole-tensor operations; arguments and returns as `selective_scan` has them."""
    dtype = torch.float64 if torch.float64 in (u.dtype, delta.dtype, A.dtype, B.dtype, C.dtype) else torch.float32
    u_, delta, A, B, C = (tensor.to(dtype) for tensor in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)
    if delta_softplus:
        delta = softplus(delta)
    state = u_.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state.to(dtype)
    inputs = tuple(tensor.contiguous() for tensor in (u_, delta, A.mT, B, C, state.mT))
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        output, state = _Scan.apply(*inputs)  # pyright: ignore[reportGeneralTypeIssues]
    else:
        output, state, _ = _scan(*inputs, keep=False)
    if D is not None:
        output = torch.addcmul(output, D.to(dtype), u_)
    if z is not None:
        output = output * silu(z.to(dtype))
    return output.to(u.dtype), state.mT


def _pieces(u: Tensor, A: Tensor) -> Iterator[slice]:
    """Yield slices of the batch, each of about `_PIECE` elements."""
    size = max(1, _PIECE // max(1, u.shape[1] * A.numel()))
    for start in range(0, u.shape[0], size):
        yield slice(start, start + size)


def _states(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return decays exp(Δ_t A) and states h_t of a piece, `(b, T, N, E)` each."""
    decay = torch.exp_(delta[:, :, None, :] * A)
    states = (delta * u)[:, :, None, :] * B[..., None]
    for t in range(u.shape[1]):
        state = states[:, t].addcmul_(decay[:, t], state)
    return decay, states


def _rows_times(rows: Tensor, matrices: Tensor) -> Tensor:
    """Multiply each row vector `(b, T, i)` with its matrix `(b, T, i, j)`: `(b, T, j)`."""
    return torch.matmul(rows[:, :, None, :], matrices)[:, :, 0]


def _scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, keep: bool
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Return the output `(B, T, E)`, the last state `(B, N, E)` and, to keep, decays and states of the pieces."""
    output, last, kept = torch.empty_like(u), state.clone(), []
    for piece in _pieces(u, A):
        decay, states = _states(u[piece], delta[piece], A, B[piece], state[piece])
        output[piece] = _rows_times(C[piece], states)
        if u.shape[1]:
            last[piece] = states[:, -1]
        if keep:
            kept.append((decay, states))
    return output, last, kept


class _Scan(torch.autograd.Function):
    """y_t = C_t · h_t with h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t, and its gradients; A is `(N, E)`, states are `(B, N, E)`."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        small = u.shape[0] * u.shape[1] * A.numel() <= _KEPT
        output, last, kept = _scan(u, delta, A, B, C, state, keep=small)
        ctx.save_for_backward(u, delta, A, B, C, state, *(tensor for pair in kept for tensor in pair))
        return output, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        grad_output, grad_last = (gradient.contiguous() for gradient in gradients)
        u, delta, A, B, C, state, *kept = ctx.saved_tensors
        grads = tuple(torch.empty_like(tensor) for tensor in (u, delta, B, C, state))
        grad_A = torch.zeros_like(A)
        for number, piece in enumerate(_pieces(u, A)):
            u_, delta_, B_, C_, state_ = (tensor[piece] for tensor in (u, delta, B, C, state))
            decay, states = kept[2 * number : 2 * number + 2] or _states(u_, delta_, A, B_, state_)
            *parts, part_A = _piece_gradients(
                u_, delta_, A, B_, C_, state_, decay, states, grad_output[piece], grad_last[piece]
            )
            grad_A += part_A
            for grad, part in zip(grads, parts, strict=True):
                grad[piece] = part
        grad_u, grad_delta, grad_B, grad_C, grad_state = grads
        return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_state


def _piece_gradients(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
    decay: Tensor,
    states: Tensor,
    grad_output: Tensor,
    grad_last: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of u, Δ, B, C, the initial state and A for a piece; decay and states are left as they are."""
    tokens = u.shape[1]
    if not tokens:
        return *(torch.zeros_like(tensor) for tensor in (u, delta, B, C)), grad_last, torch.zeros_like(A)
    grad_states = grad_output[:, :, None, :] * C[..., None]  # (b, T, N, E), becomes ∂/∂h_t in place
    grad_states[:, -1] += grad_last
    for t in range(tokens - 2, -1, -1):
        grad_states[:, t].addcmul_(decay[:, t + 1], grad_states[:, t + 1])
    grad_driven = _rows_times(B, grad_states)  # (b, T, E), of Δ u
    grad_B = _rows_times(delta * u, grad_states.mT)  # (b, T, N)
    grad_C = _rows_times(grad_output, states.mT)  # (b, T, N)
    grad_states.mul_(decay)
    grad_state = grad_states[:, 0].clone()  # (b, N, E)
    grad_states[:, 0].mul_(state)
    grad_states[:, 1:].mul_(states[:, :-1])  # now of the exponent Δ A
    grad_delta = (grad_states * A).sum(2).addcmul_(grad_driven, u)
    grad_A = grad_states.mul_(delta[:, :, None, :]).sum((0, 1))  # (N, E)
    return grad_driven * delta, grad_delta, grad_B, grad_C, grad_state, grad_A
