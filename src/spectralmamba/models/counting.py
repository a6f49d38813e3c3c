"""Parameters and multiply-accumulates, counted by torch's own counter plus declared formulas of what it does not see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spectralmamba.models.spectral_mamba import SelectiveScan


@dataclass(frozen=True)
class ModelSize:
    """What a model costs: learned parameters, and multiply-accumulates to classify one pixel."""

    parameters: int
    multiply_accumulates: int


def model_size(model: nn.Module, bands: int, patch: int) -> ModelSize:
    """Count a model's parameters and its multiply-accumulates a pixel.

    Matrix products and convolutions, those of attention among them, are counted by
    `torch.utils.flop_counter.FlopCounterMode` (two operations a multiply-accumulate); each selective scan by
    `SelectiveScan.multiply_accumulates`, recurrent layers by their matrices. Element-wise work is not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode  # it brings Triton, and a map does not count

    declared: list[int] = []

    def declare(module: nn.Module, arguments: tuple[Any, ...], _: Any) -> None:
        declared.append(
            _of_scan(*arguments) if isinstance(module, SelectiveScan) else _of_recurrence(module, *arguments)
        )

    modules = {name: module for name, module in model.named_modules() if isinstance(module, SelectiveScan | nn.RNNBase)}
    hooks = [module.register_forward_hook(declare) for module in modules.values()]
    was_training, device = model.training, next(chain(model.parameters(), model.buffers())).device
    shape = (1, bands) if patch == 1 else (1, bands, patch, patch)
    try:
        with torch.no_grad(), _plain_attention(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.zeros(shape, device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    by_module = counter.get_flop_counts()
    inside = sum(sum(by_module.get(f"{type(model).__name__}.{name}", {}).values()) for name in modules)
    counted = (counter.get_total_flops() - inside) // 2
    return ModelSize(sum(parameter.numel() for parameter in model.parameters()), counted + sum(declared))


def _of_scan(u: Tensor, delta: Tensor, A: Tensor, *_: Tensor) -> int:
    return SelectiveScan.multiply_accumulates(u.shape[1], u.shape[2], A.shape[1]) * u.shape[0]


def _of_recurrence(module: nn.Module, x: Tensor, *_: Any) -> int:
    """Count each matrix once a token, which is what torch's kernels of recurrent layers do unseen."""
    matrices = sum(parameter.numel() for parameter in module.parameters() if parameter.dim() == 2)
    return x.shape[:-1].numel() * matrices


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Let attention be computed by matrix products, which are seen, and give the caller's choice back afterwards."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
