"""The selective scan in C for float32 on the CPU: native.c, built by setup.py where there is a compiler, by ctypes.

Only the recurrence and its gradients; steps, skip and gate stay with the caller. Channels are the innermost dimension, so
A comes transposed, `(G, N, E)`: each of G equal consecutive parts of the batch has its own. Every result has the same bits
for any number of threads. The environment variable `SPECTRALMAMBA_NATIVE=0` turns the library off.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from spectralmamba.ops.libraries import load

_SIZES = 6


@cache
def _library() -> ctypes.CDLL | None:
    """Load the library; None if it was not built, does not load or is turned off."""
    return load(__file__, {"scan_forward": (8, _SIZES), "scan_backward": (14, _SIZES)})


def available() -> bool:
    """Return whether the library is there and not turned off."""
    return _library() is not None


def scan_forward(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Scan sequences; all tensors are contiguous float32 on the CPU.

    Args:
        u: Input, `(B, T, E)`.
        delta: Step sizes, `(B, T, E)`.
        A: State matrices of the parts of the batch, transposed, `(G, N, E)`.
        B: Input matrix of each token, `(B, T, N)`.
        C: Output matrix of each token, `(B, T, N)`.
        state: State before the first token, `(B, N, E)`.

    Returns:
        The output `(B, T, E)` and the state after the last token `(B, N, E)`.

    Raises:
        MemoryError: The work space could not be allocated.
    """
    results = torch.empty_like(u), torch.empty_like(state)
    _call("scan_forward", (u, delta, A, B, C, state, *results))
    return results


def scan_backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of all inputs of `scan_forward`, given those of its two results.

    The states are computed again, a few tokens at a time, so that nothing of the forward need be kept but its inputs.

    Args:
        u: Input, `(B, T, E)`.
        delta: Step sizes, `(B, T, E)`.
        A: State matrices of the parts of the batch, transposed, `(G, N, E)`.
        B: Input matrix of each token, `(B, T, N)`.
        C: Output matrix of each token, `(B, T, N)`.
        state: State before the first token, `(B, N, E)`.
        grad_y: Gradient of the output, `(B, T, E)`.
        grad_last: Gradient of the state after the last token, `(B, N, E)`.

    Returns:
        The gradients of u, delta, A, B, C and state.

    Raises:
        MemoryError: The work space could not be allocated.
    """
    inputs = u, delta, A, B, C, state
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_state = (torch.empty_like(tensor) for tensor in inputs)
    gradients = grad_u, grad_delta, grad_A, grad_B, grad_C, grad_state
    _call("scan_backward", (*inputs, grad_y, grad_last, *gradients))
    return gradients


def _call(name: str, tensors: tuple[Tensor, ...]) -> None:
    """Call a function of the library.

    Args:
        name: Of the function.
        tensors: u, delta, A, B, C, state, then two more that are like u and state, then the rest.
    """
    library = _library()
    assert library is not None, "the native library is not available"
    u, A = tensors[0], tensors[2]
    (batch, tokens, channels), (groups, states, _) = u.shape, A.shape
    assert all(t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in tensors)
    inner, outer, ends = (batch, tokens, states), (batch, tokens, channels), (batch, states, channels)
    expected = [outer, outer, (groups, states, channels), inner, inner, ends, outer, ends]
    assert [tuple(tensor.shape) for tensor in tensors[:8]] == expected
    assert groups > 0
    assert batch % groups == 0
    sizes = batch, tokens, channels, states, groups, torch.get_num_threads()
    if getattr(library, name)(*(tensor.data_ptr() for tensor in tensors), *sizes):
        raise MemoryError(f"no memory for the work space of {name}")
