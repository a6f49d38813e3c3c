"""The selective scan in plain torch: runs wherever torch runs, with a backward of its own.

All exponentials are taken at once and the recurrence is a loop of one in-place multiply-add a token; autograd would
instead record several small operations a token. Without gradients the batch is worked off in pieces whose states stay in
the processor's cache, so memory does not grow with the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu, softplus

# Elements of (batch, channels, states) that are scanned at a time without gradients: 1 MiB of float32, a core's L2 cache.
_PIECE = 1 << 18


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
    inputs = (u_, delta, A, B, C, state)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        output, state = _Scan.apply(*inputs)  # pyright: ignore[reportGeneralTypeIssues]
    else:
        output, state = _scan_in_pieces(*inputs)
    if D is not None:
        output = torch.addcmul(output, D.to(dtype), u_)
    if z is not None:
        output = output * silu(z.to(dtype))
    return output.to(u.dtype), state


def _scan_in_pieces(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    output, final_state = torch.empty_like(u), torch.empty_like(state)
    size = max(1, _PIECE // max(1, A.numel()))
    for start in range(0, u.shape[0], size):
        piece = slice(start, start + size)
        h = state[piece].clone()
        driven = delta[piece] * u[piece]
        for t in range(u.shape[1]):
            h.mul_(torch.exp(delta[piece, t, :, None] * A))
            h.addcmul_(driven[:, t, :, None], B[piece, t, None, :])
            output[piece, t] = torch.matmul(h, C[piece, t, :, None]).squeeze(-1)
        final_state[piece] = h
    return output, final_state


class _Scan(torch.autograd.Function):
    """y_t = C_t · h_t with h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        decay = torch.exp(delta[..., None] * A)  # (B, T, E, N)
        states = (delta * u)[..., None] * B[:, :, None, :]  # (B, T, E, N), becomes h_t in place
        previous = state
        for t in range(u.shape[1]):
            previous = states[:, t].addcmul_(decay[:, t], previous)
        output = torch.matmul(states, C[..., None]).squeeze(-1)  # (B, T, E)
        ctx.save_for_backward(u, delta, A, B, C, state, decay, states)
        return output, previous.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        grad_output, grad_final = gradients
        u, delta, A, B, C, state, decay, states = ctx.saved_tensors
        tokens = u.shape[1]
        grad_states = grad_output[..., None] * C[:, :, None, :]  # (B, T, E, N), becomes ∂/∂h_t in place
        if tokens:
            grad_states[:, -1] += grad_final
        for t in range(tokens - 2, -1, -1):
            grad_states[:, t].addcmul_(decay[:, t + 1], grad_states[:, t + 1])
        grad_state = decay[:, 0] * grad_states[:, 0] if tokens else grad_final
        grad_C = torch.matmul(grad_output[:, :, None, :], states).squeeze(-2)  # (B, T, N)
        grad_B = torch.matmul((delta * u)[:, :, None, :], grad_states).squeeze(-2)  # (B, T, N)
        grad_driven = torch.matmul(grad_states, B[..., None]).squeeze(-1)  # (B, T, E), of Δ u
        grad_exponent = decay * grad_states  # (B, T, E, N), of Δ A; decay stays whole for a second backward
        if tokens:
            grad_exponent[:, 0].mul_(state)
            grad_exponent[:, 1:].mul_(states[:, :-1])
        grad_delta = torch.einsum("bten,en->bte", grad_exponent, A) + grad_driven * u
        grad_A = torch.einsum("bten,bte->en", grad_exponent, delta)
        return grad_driven * delta, grad_delta, grad_A, grad_B, grad_C, grad_state
