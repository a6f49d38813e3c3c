"""What `Settings.rare_classes` does to the loss, and to the network that it has trained.

Logit adjustment and its post-hoc variant, here prior correction, are those of Menon et al. 2021 (arXiv 2007.07314), with τ = 1.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spectralmamba.errors import SettingsError
from spectralmamba.settings import Settings

_ROUNDING = 1e-4  # by which logits, of some tens at most, may be off in float32


class Loss:
    """The cross-entropy of a batch, or of several trainings' batches at once.

    Args:
        counts: Training pixels of each class, `(K,)`, or of V trainings `(V, 1, K)`.
        settings: Label smoothing, and what is done for rare classes.
    """

    def __init__(self, counts: Tensor, settings: Settings) -> None:
        shares = counts / counts.sum(-1, keepdim=True)
        self._smoothing = settings.label_smoothing
        self._log_prior = shares.log() if settings.rare_classes == "logit adjustment" else None
        self._weights = 1 / (counts.shape[-1] * shares) if settings.rare_classes == "balanced loss" else None

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean over a batch, `()` or `(V,)`, of the loss of logits and targets `(B, K)` or `(V, B, K)`.

        Args:
            logits: Of the batch.
            targets: Shares of the classes.
            weights: How much each sample counts, `(B,)` or `(V, B)`; all alike if None.
        """
        if self._log_prior is not None:
            logits = logits + self._log_prior
        if (
            self._weights is None and weights is None and logits.dim() == 2
        ):  # in one sum, whose last digits differ from those of a mean of sums
            return cross_entropy(logits, targets, label_smoothing=self._smoothing)
        logits, flat = logits.flatten(0, -2), targets.flatten(0, -2)
        losses = cross_entropy(logits, flat, label_smoothing=self._smoothing, reduction="none").view(targets.shape[:-1])
        if self._weights is not None:
            losses = losses * (targets * self._weights).sum(-1)
        if weights is not None:
            losses = losses * weights
        return losses.mean(-1)


def batch_weights(weights: Tensor, one_hot: Tensor, settings: Settings) -> Tensor:
    """Return how much training pixels `(n,)` count in the batches that `Settings.rare_classes` makes.

    Where every class is drawn equally often, weights tell pixels of one class apart but not classes: their mean is 1 in each.

    Args:
        weights: Of the training pixels, `(n,)`.
        one_hot: Their classes, `(n, K)`.
        settings: `rare_classes`.
    """
    if settings.rare_classes != "balanced batches":
        return weights
    return weights / (one_hot @ (weights @ one_hot / one_hot.sum(0)))


@torch.no_grad()
def without_prior(network: nn.Module, shares: Tensor, examples: Tensor) -> nn.Module:
    """Return a copy of a network that answers as if classes were equally likely: its logits less the logarithm of their shares.

    The bias of the logits takes that up, so the classifier's file and its readers know nothing of it. Networks are of any make:
    the bias is the last parameter that moves the logits of the examples as it should.

    Args:
        network: Trained with classes as likely as `shares` says.
        shares: Of the training pixels, `(K,)`.
        examples: What the network takes.

    Raises:
        SettingsError: The network's logits have no bias.
    """
    corrected, log_prior = copy.deepcopy(network).eval(), shares.log()
    expected = (corrected(examples) - log_prior).log_softmax(1)
    for parameter in reversed(list(corrected.parameters())):
        if parameter.shape != shares.shape:
            continue
        before = parameter.clone()
        parameter -= log_prior
        if torch.allclose(corrected(examples).log_softmax(1), expected, atol=_ROUNDING):
            return corrected
        parameter.copy_(before)
    raise SettingsError(
        "the setting 'rare_classes' does not fit the network",
        found="'prior correction', and logits without a bias that could take it up",
        expected="'logit adjustment', which also answers as if classes were equally likely",
    )
