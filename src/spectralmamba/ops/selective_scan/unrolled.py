"""The selective scan as a fixed row of elementary operations, a few a token, for graphs that leave torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def selective_scan_unrolled(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """Return y `(B, T, E)`; arguments as `selective_scan` has them, with the step softplus(delta + delta_bias).

    Nothing is changed in place, and T is that of the example a graph is made with, so it becomes three operations a token, after
    all exponentials are taken at once.
    """
    step = softplus(delta + delta_bias)  # (B, T, E)
    decay = torch.exp(step[:, :, None, :] * A.mT)  # (B, T, N, E)
    driven = (step * u)[:, :, None, :] * B[..., None]  # (B, T, N, E)
    states = [driven[:, 0]]
    for t in range(1, u.shape[1]):
        states.append(driven[:, t] + decay[:, t] * states[-1])
    y = torch.matmul(C[:, :, None, :], torch.stack(states, 1))[:, :, 0]
    return y + D * u
