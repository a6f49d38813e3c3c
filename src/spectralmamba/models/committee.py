"""A network and a companion that decide together: label propagation, a support vector machine, or logistic regression.

With a handful of labels they err in different places: the network where fields of a class differ from those it has seen, the
companion where pixels vary inside a field. Label propagation knows where spectra lie apart from all it has seen, and there the
network counts less.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from spectralmamba.models.patches import Patches, as_patches, takes_patches

# How steeply a pair's vote follows its decision value, ±1 at the margins, and how much a vote counts in the logits: with both, the
# probabilities of machines that learned five labels a class are right as often as they say.
_STEEPNESS = 3.0
_VOTE = 4.0
# How much the network counts beside the sharp view where a pixel is familiar. From a quarter to a third makes no difference.
_NETWORK = 0.25
# How much the blunt view steadies the sharp one of a few pixels. Without it 0.008 are lost on botswana/5, pixelwise.
_STEADYING = 1 / 3
NEAR = 3
"""Width of the middle of a patch that label propagation sees by itself, too, if the patch is wider."""


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distances `(B, S)` of spectra `(B, L)` and `(S, L)`."""
    return ((x * x).sum(1, keepdim=True) + (y * y).sum(1) - 2 * x @ y.mT).clamp_min(0)


class KernelSmoother(nn.Module):
    """The mean of what is known of S spectra, weighted by a Gaussian kernel of the distance to a patch's mean spectrum.

    Attributes:
        gamma: γ of the kernel exp(−γ d²).
        support: The spectra `(S, L)`.
        spacing: Distance of each to the nearest one that differs from it, `(S,)`.
        shares: What each knows of the classes, `(S, K)`.

    Shapes: `(B, L)`, or `(B, L, P, P)` → logarithm of probabilities `(B, K)`.
    """

    takes_patches = True
    gamma: Tensor
    support: Tensor
    spacing: Tensor
    shares: Tensor

    def __init__(self, bands: int, classes: int, size: int) -> None:
        super().__init__()
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("support", torch.zeros(size, bands))
        self.register_buffer("spacing", torch.ones(size))
        self.register_buffer("shares", torch.full((size, classes), 1 / classes))

    def forward(self, x: Tensor | Patches) -> Tensor:
        """Return logits."""
        return self.judge(x)[0]

    def judge(self, x: Tensor | Patches) -> tuple[Tensor, Tensor]:
        """Return logits `(B, K)`, and how remote each pixel is, `(B,)`.

        Remoteness is the distance to the nearest spectrum in units of that one's spacing: about 1 among
        spectra that have been seen, 2 and more in a field of a known class that differs from all those seen.
        """
        spectra = as_patches(x).mean()
        # Against the nearest, because far from all spectra every weight of the kernel would be 0; |x|² is the same for all and left
        # out. Written out, since torch's softmax takes four times as long on a CPU.
        nearness = torch.addmm(-(self.support * self.support).sum(1), spectra, self.support.mT, alpha=2)  # (B, S)
        top, nearest = nearness.max(1, keepdim=True)
        # Nothing below e⁻⁸⁰, because a processor takes a hundred times as long over numbers that are next to zero.
        weights = nearness.sub_(top).mul_(self.gamma).clamp_min_(-80).exp_()
        probabilities = weights @ self.shares / weights.sum(1, keepdim=True)
        nearest = nearest[:, 0]
        # Of the difference itself, since that of two large squares has no digits left.
        distance = torch.linalg.vector_norm(spectra - self.support[nearest], dim=1)
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log(), distance / self.spacing[nearest]


class LabelPropagation(nn.Module):
    """What labels spread to, over spectra seen in two ways: blunt, as they come, and sharp, where noise counts still less.

    Sharp eyes tell classes apart best among spectra that have been seen, blunt ones in fields that differ from those. So the sharp
    view counts by the familiarity f = 1 / max(1, r)³ of a pixel of remoteness r, seen bluntly. Of wide patches the sharp view is
    the mean of two: of the whole patch, and of its middle, where fields are narrow. Of a few pixels it sees noise, too, and is
    steadied by the blunt one, which counts a third of it.

    Attributes:
        sharpening: What turns spectra into the sharp view, `(L, L)`.
        blunt: Smoother of spectra as they come.
        sharp: Smoother of the sharp view.
        near: Smoother of the sharp view of a patch's middle; None where that is the patch.
        size: Number of the spectra that labels have spread to.

    Shapes: `(B, L)` for P = 1, else `(B, L, P, P)` → logarithm of probabilities `(B, K)`.
    """

    takes_patches = True
    sharpening: Tensor

    def __init__(self, bands: int, classes: int, size: int, patch: int = 1) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("sharpening", torch.eye(bands))
        self.blunt, self.sharp = KernelSmoother(bands, classes, size), KernelSmoother(bands, classes, size)
        self.near = KernelSmoother(bands, classes, size) if patch > NEAR else None

    def judge(self, x: Tensor | Patches) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of the blunt and of the sharp view, each `(B, K)`, and the familiarity, `(B, 1)`."""
        spectra = as_patches(x).mean()
        blunt, remoteness = self.blunt.judge(spectra)
        sharp = self.sharp(spectra @ self.sharpening)
        if self.near is not None:
            sharp = _mean((0.5, sharp), (0.5, self.near(as_patches(x).mean(NEAR) @ self.sharpening)))
        else:
            sharp = _mean((1 - _STEADYING, sharp), (_STEADYING, blunt))
        return blunt, sharp, remoteness.clamp_min(1)[:, None] ** -3

    def forward(self, x: Tensor | Patches) -> Tensor:
        """Return logits."""
        return self.decide(*self.judge(x))

    @staticmethod
    def decide(blunt: Tensor, sharp: Tensor, familiarity: Tensor) -> Tensor:
        """Return the logits `(B, K)` of both views together."""
        return _mean((familiarity, sharp), (1 - familiarity, blunt))


class SupportVectorMachine(nn.Module):
    """A support vector machine with Gaussian kernel that sees the mean spectrum of a patch.

    For each pair of classes a decision, as scikit-learn's SVC has it (one against one); logits count the votes that a class gets
    from its K − 1 pairs, each between 0 and 1 by how clear the decision is. S support vectors, J = K (K − 1) / 2 pairs.

    Shapes: `(B, L)`, or `(B, L, P, P)` → logits `(B, K)`.
    """

    takes_patches = True
    mean: Tensor
    inverse_sd: Tensor
    gamma: Tensor
    support: Tensor
    coefficients: Tensor
    intercepts: Tensor

    def __init__(self, bands: int, classes: int, size: int) -> None:
        super().__init__()
        self.classes, self.size = classes, size
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

    def forward(self, x: Tensor | Patches) -> Tensor:
        """Return logits."""
        first, second = torch.triu_indices(self.classes, self.classes, 1, device=self.support.device)  # each (J,)
        votes = torch.sigmoid(_STEEPNESS * self.decisions(as_patches(x).mean()))  # (B, J)
        to_first, to_second = (one_hot(index, self.classes).to(votes.dtype) for index in (first, second))  # each (J, K)
        return _VOTE * (votes @ to_first + (1 - votes) @ to_second)


class LogisticRegression(nn.Module):
    """Multinomial logistic regression that sees the mean spectrum of a patch.

    Shapes: `(B, L)`, or `(B, L, P, P)` → logits `(B, K)`.
    """

    takes_patches = True
    weight: Tensor
    bias: Tensor

    def __init__(self, bands: int, classes: int, size: int) -> None:
        super().__init__()
        if size != classes:
            raise ValueError("logistic regression has as many weight vectors as classes")
        self.size = size
        self.register_buffer("weight", torch.zeros(size, bands))
        self.register_buffer("bias", torch.zeros(size))

    def forward(self, x: Tensor | Patches) -> Tensor:
        """Return logits."""
        return torch.addmm(self.bias, as_patches(x).mean(), self.weight.mT)


Companion = LabelPropagation | SupportVectorMachine | LogisticRegression

COMPANIONS: dict[str, type[Companion]] = {
    "label propagation": LabelPropagation,
    "support vectors": SupportVectorMachine,
    "logistic regression": LogisticRegression,
}
"""What `Settings.companion` calls them."""


def build_companion(kind: str, bands: int, classes: int, size: int, patch: int) -> Companion:
    """Build one of `COMPANIONS` for patches of a width, with nothing learned."""
    if kind == "label propagation":
        return LabelPropagation(bands, classes, size, patch)
    return COMPANIONS[kind](bands, classes, size)


SIMPLE_MODELS = {kind.replace(" ", "_"): kind for kind in COMPANIONS}
"""What `Settings.model` calls them where they decide alone, and their kind."""


class Committee(nn.Module):
    """The mean of what a network and its companion give each class as probability.

    A support vector machine or logistic regression counts as much as the network. Of label propagation, the sharp view counts
    three times as much as the network where a pixel is familiar; with less familiarity both give way to the blunt view. Of fields
    that differ from all it has seen, a network is as sure as of any other, and often wrong.

    Shapes: what both take → the mean's logarithm `(B, K)`.
    """

    def __init__(self, network: nn.Module, companion: Companion) -> None:
        super().__init__()
        self.network, self.companion = network, companion

    @property
    def takes_patches(self) -> bool:
        """Whether its network takes more than tensors."""
        return takes_patches(self.network)

    def forward(self, x: Tensor | Patches) -> Tensor:
        """Return logits."""
        return self.judge(x)[0]

    def judge(self, x: Tensor | Patches) -> tuple[Tensor, Tensor]:
        """Return the logits of all together, and those of the companion alone, each `(B, K)`."""
        learned = log_softmax(self.network(x), 1)
        if not isinstance(self.companion, LabelPropagation):
            known = log_softmax(self.companion(x), 1)
            return _mean((0.5, learned), (0.5, known)), known
        blunt, sharp, familiarity = self.companion.judge(x)
        known = _mean((_NETWORK, learned), (1 - _NETWORK, sharp))
        return self.companion.decide(blunt, known, familiarity), self.companion.decide(blunt, sharp, familiarity)


def _mean(*members: tuple[Tensor | float, Tensor]) -> Tensor:
    """Return the logarithm of a mean of probabilities; of each its weight, and the logarithms `(B, K)`."""
    return torch.stack([torch.as_tensor(weight).log().to(found) + found for weight, found in members]).logsumexp(0)
