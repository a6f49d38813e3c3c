"""The selective scan as it is defined: slow, any dtype, differentiated by autograd."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus


def computing_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype of state and sums: float64 if any tensor is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def selective_scan_reference(
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
    """Loop over the tokens; arguments and returns as `selective_scan` has them."""
    dtype = computing_dtype(u, delta, A, B, C)
    u_, delta, A, B, C = (tensor.to(dtype) for tensor in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)
    if delta_softplus:
        delta = softplus(delta)
    batch, tokens, channels = u.shape
    state = u_.new_zeros(batch, channels, A.shape[1]) if initial_state is None else initial_state.to(dtype)  # (B, E, N)
    outputs = []
    for t in range(tokens):
        decay = torch.exp(delta[:, t, :, None] * A)  # (B, E, N)
        state = decay * state + (delta[:, t] * u_[:, t])[..., None] * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1))  # (B, E)
    output = torch.stack(outputs, 1) if outputs else torch.zeros_like(u_)  # (B, T, E)
    if D is not None:
        output = output + D.to(dtype) * u_
    if z is not None:
        output = output * silu(z.to(dtype))
    return output.to(u.dtype), state
