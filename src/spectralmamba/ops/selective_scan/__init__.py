"""The selective scan of S6 (Gu and Dao 2023, "Mamba", arXiv 2312.00752, section 3.2).

Per sequence and channel d, with a state h of size N:

    h_t = exp(Δ_t A_d) h_{t-1} + Δ_t B_t u_t,    y_t = C_t · h_t + D_d u_t

Three implementations: `reference` is the definition, a loop over t that autograd differentiates; everything else is tested
against it. `torch` runs anywhere, and on CPUs leaves the recurrence to a small C library where that was built. `triton` are
kernels for GPUs. `operator` makes an operator of torch of the last two, so that `torch.compile` and `torch.vmap` know it.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.nn.functional import silu

from spectralmamba.errors import ModelError
from spectralmamba.ops.selective_scan.operator import selective_scan_in_groups
from spectralmamba.ops.selective_scan.reference import computing_dtype, selective_scan_reference

Backend = Literal["auto", "reference", "torch", "triton"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_BACKENDS = ("auto", "reference", "torch", "triton")


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_final_state: Literal[False] = False,
    *,
    backend: Backend = "auto",
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    *,
    return_final_state: Literal[True],
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    *,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan sequences with a state-space model whose step and matrices depend on the input.

    The state is kept in float32 for float32, float16 and bfloat16 inputs, in float64 if u, delta, A, B or C is.

    Args:
        u: Input, `(B, T, E)`.
        delta: Step sizes, `(B, T, E)`.
        A: State matrix, diagonal per channel, negative, `(E, N)`.
        B: Input matrix of each token, `(B, T, N)`.
        C: Output matrix of each token, `(B, T, N)`.
        D: Skip weight, `(E,)`.
        z: Gate, `(B, T, E)`: the output is multiplied by SiLU(z).
        delta_bias: Added to `delta` first, `(E,)`.
        delta_softplus: Whether the step is softplus(delta + delta_bias).
        initial_state: State before the first token, `(B, E, N)`; zero if None.
        return_final_state: Whether to return the state after the last token too.
        backend: Which implementation; "auto" takes the fastest that runs on u's device.

    Returns:
        The output `(B, T, E)` in u's dtype; with `return_final_state` also the state `(B, E, N)`.

    Raises:
        ModelError: A tensor's shape does not fit, or the backend is unknown.
    """
    if backend not in _BACKENDS:
        raise ModelError("unknown selective scan backend", found=backend, expected=", ".join(_BACKENDS))
    _check(u, delta, A, B, C, D, z, delta_bias, initial_state)
    if backend == "reference":
        y, last = selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state)
        return (y, last) if return_final_state else y
    dtype = computing_dtype(u, delta, A, B, C)
    # The operator's batch is in groups with an A, D and bias each; here it is one group.
    D, delta_bias = (None if tensor is None else tensor.to(dtype)[None] for tensor in (D, delta_bias))
    initial_state = None if initial_state is None else initial_state.to(dtype)
    y, last = selective_scan_in_groups(
        u, delta, A.to(dtype)[None], B, C, D, delta_bias, delta_softplus, initial_state, return_final_state, backend
    )
    if z is not None:
        y = (y.to(dtype) * silu(z.to(dtype))).to(u.dtype)
    return (y, last) if return_final_state else y


def from_mamba_ssm(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> dict[str, Any]:
    """Turn arguments of mamba-ssm's `selective_scan_fn` into those of `selective_scan`, as views.

    Args:
        u: `(B, E, T)`, as delta and z; so is the output there.
        delta: `(B, E, T)`.
        A: `(E, N)`, real.
        B: `(B, N, T)` or, of one group, `(B, 1, N, T)`, as C.
        C: `(B, N, T)` or `(B, 1, N, T)`.
        D: `(E,)`.
        z: `(B, E, T)`.
        delta_bias: `(E,)`.
        delta_softplus: As it is.

    Raises:
        ModelError: B or C is the same for all tokens or in several groups, or something is complex.
    """
    turned: dict[str, Any] = {"A": A, "D": D, "delta_bias": delta_bias, "delta_softplus": delta_softplus}
    for name, tensor in {"u": u, "delta": delta, "z": z, "B": B, "C": C}.items():
        if tensor is not None and name in "BC" and tensor.dim() == 4 and tensor.shape[1] == 1:
            tensor = tensor[:, 0]
        if tensor is not None and (tensor.dim() != 3 or tensor.is_complex()):
            expected = "real (B, N, T) or (B, 1, N, T)" if name in "BC" else "real (B, E, T)"
            found = f"{tensor.dtype} {tuple(tensor.shape)}"
            raise ModelError(f"{name} is not of a kind that the scan takes", found=found, expected=expected)
        turned[name] = None if tensor is None else tensor.mT
    return turned


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
) -> None:
    if u.dim() != 3 or A.dim() != 2:
        raise ModelError(
            "the selective scan takes u (B, T, E) and A (E, N)", found=f"u {tuple(u.shape)}, A {tuple(A.shape)}"
        )
    batch, tokens, channels = u.shape
    states = A.shape[1]
    expected = {
        "u": (u, (batch, tokens, channels)),
        "delta": (delta, (batch, tokens, channels)),
        "A": (A, (channels, states)),
        "B": (B, (batch, tokens, states)),
        "C": (C, (batch, tokens, states)),
        "D": (D, (channels,)),
        "z": (z, (batch, tokens, channels)),
        "delta_bias": (delta_bias, (channels,)),
        "initial_state": (initial_state, (batch, channels, states)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ModelError(f"{name} does not fit u {tuple(u.shape)}", found=tuple(tensor.shape), expected=shape)
        if tensor.device != u.device:
            raise ModelError(f"{name} is on another device than u", found=tensor.device, expected=u.device)
        if tensor.dtype not in _DTYPES:
            raise ModelError(f"{name} has a dtype that the scan does not take", found=tensor.dtype, expected=_DTYPES)
