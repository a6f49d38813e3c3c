"""A network and a companion that decide together: a kernel smoother, or a support vector machine.

With a handful of labels they err in different places: the network where fields of a class differ from those it has seen, the
companion where pixels vary inside a field.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

# How steeply a pair's vote follows its decision value, ±1 at the margins, and how much a vote counts in the logits: with both, the
# probabilities of machines that learned five labels a class are right as often as they say.
_STEEPNESS = 3.0
_VOTE = 4.0


def mean_spectra(x: Tensor) -> Tensor:
    """Return the mean spectra `(B, L)` of patches `(B, L, P, P)`, or spectra `(B, L)` as they are."""
    return x if x.dim() == 2 else x.mean((2, 3))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distances `(B, S)` of spectra `(B, L)` and `(S, L)`."""
    return ((x * x).sum(1, keepdim=True) + (y * y).sum(1) - 2 * x @ y.mT).clamp_min(0)


class KernelSmoother(nn.Module):
    """The mean of what is known of S spectra, weighted by a Gaussian kernel of the distance to a patch's mean spectrum.

    Shapes: `(B, L)`, or `(B, L, P, P)` → logarithm of probabilities `(B, K)`.
    """

    gamma: Tensor
    support: Tensor
    shares: Tensor

    def __init__(self, bands: int, classes: int, size: int) -> None:
        super().__init__()
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("support", torch.zeros(size, bands))
        self.register_buffer("shares", torch.full((size, classes), 1 / classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        # A softmax, because far from all spectra every weight of the kernel would be 0; |x|² is the same for all and left out.
        nearness = 2 * mean_spectra(x) @ self.support.mT - (self.support * self.support).sum(1)  # (B, S)
        probabilities = torch.softmax(self.gamma * nearness, 1) @ self.shares
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


class SupportVectorMachine(nn.Module):
    """A support vector machine with Gaussian kernel that sees the mean spectrum of a patch.

    For each pair of classes a decision, as scikit-learn's SVC has it (one against one); logits count the votes that a class gets
    from its K − 1 pairs, each between 0 and 1 by how clear the decision is. S support vectors, J = K (K − 1) / 2 pairs.

    Shapes: `(B, L)`, or `(B, L, P, P)` → logits `(B, K)`.
    """

    mean: Tensor
    inverse_sd: Tensor
    gamma: Tensor
    support: Tensor
    coefficients: Tensor
    intercepts: Tensor

    def __init__(self, bands: int, classes: int, size: int) -> None:
        super().__init__()
        self.classes = classes
        pairs = classes * (classes - 1) // 2
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("inverse_sd", torch.ones(bands))
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("support", torch.zeros(size, bands))
        self.register_buffer("coefficients", torch.zeros(size, pairs))
        self.register_buffer("intercepts", torch.zeros(pairs))

    def decisions(self, spectra: Tensor) -> Tensor:
        """Return the decision of each pair of classes `(B, J)` on mean spectra `(B, L)`, positive for the pair's first class."""
        distances = squared_distances((spectra - self.mean) * self.inverse_sd, self.support)  # (B, S)
        return torch.exp(-self.gamma * distances) @ self.coefficients + self.intercepts

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        first, second = torch.triu_indices(self.classes, self.classes, offset=1, device=x.device)  # each (J,)
        votes = torch.sigmoid(_STEEPNESS * self.decisions(mean_spectra(x)))  # (B, J)
        to_first, to_second = (one_hot(index, self.classes).to(votes.dtype) for index in (first, second))  # each (J, K)
        return _VOTE * (votes @ to_first + (1 - votes) @ to_second)


COMPANIONS: dict[str, type[KernelSmoother] | type[SupportVectorMachine]] = {
    "label propagation": KernelSmoother,
    "support vectors": SupportVectorMachine,
}
"""What `Settings.companion` calls them."""


class Committee(nn.Module):
    """The mean of what a network and its companion give each class as probability.

    Shapes: what both take → the mean's logarithm `(B, K)`.
    """

    def __init__(self, network: nn.Module, companion: nn.Module) -> None:
        super().__init__()
        self.network, self.companion = network, companion

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        members = (log_softmax(member(x), 1) for member in (self.network, self.companion))
        return torch.logaddexp(*members) - math.log(2)
