"""Dropout whose masks are given rather than drawn, so that they can follow from seed and step alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout
from torch.overrides import TorchFunctionMode


class GivenDropout(TorchFunctionMode):
    """Within it `torch.nn.functional.dropout`, and so `torch.nn.Dropout`, takes uniform numbers from a function.

    Args:
        uniform: Returns numbers in [0, 1) for a call, counted from 0, and a shape.
    """

    def __init__(self, uniform: Callable[[int, torch.Size], Tensor]) -> None:
        super().__init__()
        self._uniform, self._calls = uniform, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or drop values as it would."""
        if func is not dropout:
            return func(*args, **(kwargs or {}))
        return self._dropped(*args, **(kwargs or {}))

    def _dropped(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return input
        kept = self._uniform(self._calls, input.shape) >= p
        self._calls += 1
        scaled = kept.to(input.dtype) * (1 / (1 - p) if p < 1 else 0.0)
        return input.mul_(scaled) if inplace else input * scaled
