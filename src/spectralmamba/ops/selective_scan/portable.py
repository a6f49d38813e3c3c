"""The selective scan in plain torch: runs wherever torch runs.

All exponentials of a piece of the batch are taken at once and the recurrence is a loop of one in-place multiply-add a
token. The channels are the innermost dimension, so that every sum over states or channels is a row vector times a matrix,
which BLAS does at the speed of memory. The backward computes the states again, a piece at a time, so that a scan's memory
stays that of its inputs. On CPUs the recurrence is left to `native` where that was built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from spectralmamba.ops.selective_scan import native
from spectralmamba.ops.selective_scan.reference import computing_dtype

# Elements (sequences, tokens, states, channels) of a piece; on two cores measured best of 2^16 … 2^22. Elsewhere a piece has
# to be worth its launches.
_PIECE, _PIECE_OF_DEVICES = 1 << 20, 1 << 26


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return y and the last state; arguments as `operator.scan` has them."""
    inputs, _ = _core_inputs(u, delta, A, B, C, delta_bias, delta_softplus, initial_state)
    y, last = _core(inputs).scan_forward(*inputs)
    if D is not None:
        groups = len(A)
        y.unflatten(0, (groups, -1)).addcmul_(D[:, None, None], inputs[0].unflatten(0, (groups, -1)))
    return y.to(u.dtype), last.mT


def backward(
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
) -> tuple[Tensor, ...]:
    """Return the gradients of u, Δ, A, B, C, D, the bias and the initial state; arguments as `operator.scan` has them."""
    inputs, raw = _core_inputs(u, delta, A, B, C, delta_bias, delta_softplus, initial_state)
    grad_y = grad_y.to(inputs[0].dtype).contiguous()
    grad_last = torch.zeros_like(inputs[5]) if grad_last is None else grad_last.to(grad_y.dtype).mT.contiguous()
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_state = _core(inputs).scan_backward(*inputs, grad_y, grad_last)
    if delta_softplus:
        grad_delta = grad_delta * torch.sigmoid(raw)
    by_group = (len(A), -1)
    grad_bias = grad_delta.unflatten(0, by_group).sum((1, 2))
    grad_D = (grad_y * inputs[0]).unflatten(0, by_group).sum((1, 2))
    if D is not None:
        grad_u.unflatten(0, by_group).addcmul_(D[:, None, None], grad_y.unflatten(0, by_group))
    grads = grad_u.to(u.dtype), grad_delta.to(delta.dtype), grad_A.mT, grad_B.to(B.dtype), grad_C.to(C.dtype)
    return *grads, grad_D, grad_bias, grad_state.new_empty(0) if initial_state is None else grad_state.mT


def _core_inputs(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return u, Δ, A `(G, N, E)`, B, C and the state `(B, N, E)` as the recurrence takes them, and Δ before softplus."""
    dtype = computing_dtype(u, delta, A, B, C)
    groups, channels, states = A.shape
    raw = delta.to(dtype)
    if delta_bias is not None:
        raw = (raw.unflatten(0, (groups, -1)) + delta_bias[:, None, None]).flatten(0, 1)
    steps = softplus(raw) if delta_softplus else raw
    if initial_state is None:
        state = torch.zeros(len(u), states, channels, dtype=dtype, device=u.device)
    else:
        state = initial_state.to(dtype).mT
    inputs = u.to(dtype), steps, A.to(dtype).mT, B.to(dtype), C.to(dtype), state
    return tuple(tensor.contiguous() for tensor in inputs), raw


def _core(inputs: tuple[Tensor, ...]) -> Any:
    """Return what does the recurrence."""
    u = inputs[0]
    return native if u.device.type == "cpu" and u.dtype == torch.float32 and native.available() else _Portable


class _Portable:
    """What `native` does, for any device and float dtype."""

    @staticmethod
    def scan_forward(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, last = torch.empty_like(u), state.clone()
        for group, piece in _pieces(u, A):
            for chunk in _chunks(u, A):
                at = piece, chunk
                _, states = _states(u[at], delta[at], A[group], B[at], last[piece])
                y[at] = _rows_times(C[at], states)
                last[piece] = states[:, -1]
        return y, last

    @staticmethod
    def scan_backward(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        state: Tensor,
        grad_y: Tensor,
        grad_last: Tensor,
    ) -> tuple[Tensor, ...]:
        grad_u, grad_delta, grad_B, grad_C = (torch.empty_like(tensor) for tensor in (u, delta, B, C))
        grad_A, grad_state = torch.zeros_like(A), grad_last.clone()
        for group, piece in _pieces(u, A):
            starts, chunks = [state[piece]], _chunks(u, A)
            for chunk in chunks[:-1]:
                at = piece, chunk
                starts.append(_states(u[at], delta[at], A[group], B[at], starts[-1])[1][:, -1].clone())
            for start, chunk in zip(reversed(starts), reversed(chunks), strict=False):
                at = piece, chunk
                parts = _gradients(u[at], delta[at], A[group], B[at], C[at], start, grad_y[at], grad_state[piece])
                grad_u[at], grad_delta[at], grad_B[at], grad_C[at], grad_state[piece] = parts[:5]
                grad_A[group] += parts[5]
        return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_state


def _piece(u: Tensor) -> int:
    return _PIECE if u.device.type == "cpu" else _PIECE_OF_DEVICES


def _pieces(u: Tensor, A: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield slices of the batch, each of one group and about `_PIECE` elements, and that group."""
    size = max(1, _piece(u) // max(1, u.shape[1] * A[0].numel()))
    group_size = len(u) // len(A)
    for group in range(len(A)):
        for start in range(0, group_size, size):
            yield group, slice(group * group_size + start, group * group_size + min(start + size, group_size))


def _chunks(u: Tensor, A: Tensor) -> list[slice]:
    """Return slices of the tokens: all of them unless one sequence is more than a piece."""
    size = max(1, _piece(u) // max(1, A[0].numel()))
    return [slice(start, min(start + size, u.shape[1])) for start in range(0, u.shape[1], size)]


def _states(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return decays exp(Δ_t A) and states h_t of a piece, `(b, T, N, E)` each."""
    decay = torch.exp_(delta[:, :, None, :] * A)
    states = (delta * u)[:, :, None, :] * B[..., None]
    for t in range(u.shape[1]):
        state = states[:, t].addcmul_(decay[:, t], state)
    return decay, states


def _rows_times(rows: Tensor, matrices: Tensor) -> Tensor:
    """Multiply each row vector `(b, T, i)` with its matrix `(b, T, i, j)`: `(b, T, j)`."""
    if rows.device.type == "cpu":
        return torch.matmul(rows[:, :, None, :], matrices)[:, :, 0]
    return (rows[..., None] * matrices).sum(2)  # GPUs' libraries are slow at products with one row


def _gradients(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, grad_y: Tensor, grad_last: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of u, Δ, B, C, the initial state and A for a piece."""
    decay, states = _states(u, delta, A, B, state)
    grad_states = grad_y[:, :, None, :] * C[..., None]  # (b, T, N, E), becomes ∂/∂h_t in place
    grad_states[:, -1] += grad_last
    for t in range(u.shape[1] - 2, -1, -1):
        grad_states[:, t].addcmul_(decay[:, t + 1], grad_states[:, t + 1])
    grad_driven = _rows_times(B, grad_states)  # (b, T, E), of Δ u
    grad_B = _rows_times(delta * u, grad_states.mT)  # (b, T, N)
    grad_C = _rows_times(grad_y, states.mT)  # (b, T, N)
    grad_states.mul_(decay)
    grad_state = grad_states[:, 0].clone()  # (b, N, E)
    grad_states[:, 0].mul_(state)
    grad_states[:, 1:].mul_(states[:, :-1])  # now of the exponent Δ A
    grad_delta = (grad_states * A).sum(2).addcmul_(grad_driven, u)
    grad_A = grad_states.mul_(delta[:, :, None, :]).sum((0, 1))  # (N, E)
    return grad_driven * delta, grad_delta, grad_B, grad_C, grad_state, grad_A
