"""Inputs, results and the comparison that the tests of the scan share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from spectralmamba.ops import selective_scan

OPTIONS = ("D", "z", "delta_bias", "initial_state")
# Both backends do the same sums in another order: float64's 1e-16 times some hundred summands.
EXACT = 1e-12


def make_inputs(
    batch: int = 2,
    tokens: int = 5,
    channels: int = 3,
    states: int = 4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed + batch + 10 * tokens + 1000 * channels + states)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    made = {
        "u": normal(batch, tokens, channels),
        "delta": normal(batch, tokens, channels).abs() / 2,
        "A": -normal(channels, states).exp(),
        "B": normal(batch, tokens, states),
        "C": normal(batch, tokens, states),
        "D": normal(channels),
        "z": normal(batch, tokens, channels),
        "delta_bias": normal(channels).abs() / 2,
        "initial_state": normal(batch, channels, states),
    }
    return {name: tensor.to(dtype).requires_grad_() for name, tensor in made.items()}


def results(inputs: dict[str, Tensor], backend: str, *, softplus: bool = True) -> dict[str, Tensor]:
    """Output, final state and the gradient of every input under a fixed random weighting of both."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    y, state = selective_scan(**leaves, delta_softplus=softplus, return_final_state=True, backend=backend)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in (y, state)]
    weights = [weight.to(y.device) for weight in weights]
    loss = (y.double() * weights[0]).sum() + (state.double() * weights[1]).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return {"y": y, "final state": state} | {f"∂{name}": g for name, g in zip(leaves, gradients, strict=True)}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape, name
        wanted = wanted.double()
        error = (found[name].double() - wanted).norm() / wanted.norm().clamp_min(1e-30)
        assert error <= tolerance, f"{name}: relative error {error:.2e}"


@contextmanager
def poisoned(kernels: ModuleType) -> Iterator[None]:
    """Fill the memory that a module's kernels write with NaN first, so that what they leave out shows."""
    allocate = torch.empty

    def filled(*arguments: Any, **options: Any) -> Tensor:
        tensor = allocate(*arguments, **options)
        return tensor.fill_(float("nan"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.torch, "empty", filled)
        yield
