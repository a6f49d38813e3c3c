"""Parameters and multiply-accumulates, counted by torch's own counter plus the scan's declared formula."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn

from spectralmamba.models.spectral_mamba import SelectiveScan


@dataclass(frozen=True)
class ModelSize:
    """What a model costs: learned parameters, and multiply-accumulates to classify one pixel."""

    parameters: int
    multiply_accumulates: int


def model_size(model: nn.Module, bands: int, patch: int) -> ModelSize:
    """Count a model's parameters and its multiply-accumulates a pixel.

    Matrix products and convolutions are counted by `torch.utils.flop_counter.FlopCounterMode` (two operations a
    multiply-accumulate); each selective scan by `SelectiveScan.multiply_accumulates`. Element-wise work is not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode  # it brings Triton, and a map does not count

    scans: list[int] = []

    def declare(_: nn.Module, arguments: tuple[Any, ...], __: Any) -> None:
        (u, _delta, A), tokens = arguments[:3], arguments[0].shape[1]
        scans.append(SelectiveScan.multiply_accumulates(tokens, u.shape[2], A.shape[1]))

    names = [name for name, module in model.named_modules() if isinstance(module, SelectiveScan)]
    hooks = [module.register_forward_hook(declare) for module in model.modules() if isinstance(module, SelectiveScan)]
    was_training, device = model.training, next(chain(model.parameters(), model.buffers())).device
    shape = (1, bands) if patch == 1 else (1, bands, patch, patch)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.zeros(shape, device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    by_module = counter.get_flop_counts()
    inside_scans = sum(sum(by_module.get(f"{type(model).__name__}.{name}", {}).values()) for name in names)
    counted = (counter.get_total_flops() - inside_scans) // 2
    return ModelSize(sum(parameter.numel() for parameter in model.parameters()), counted + sum(scans))
