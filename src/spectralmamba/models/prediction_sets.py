"""Prediction sets: the classes that a pixel may have, the true one among them in a stated share of cases."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectralmamba.models.committee import LabelPropagation


class PredictionSets(nn.Module):
    """The classes to which label propagation gives a probability that is high enough; none, one or several.

    Attributes:
        threshold: Least probability of a class in a set.
        propagation: What gives the probabilities; None where that decides, alone or in a committee.

    Shapes: logits of label propagation `(B, K)` → bool `(B, K)`.
    """

    threshold: Tensor

    def __init__(self, propagation: LabelPropagation | None = None) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.zeros(()))
        self.propagation = propagation

    def forward(self, logits: Tensor) -> Tensor:
        """Return which classes are in each set."""
        return logits.softmax(1) >= self.threshold
