"""CasRNN (Hang, Liu, Hong, Ghamisi 2019, arXiv 1902.10858): one recurrent layer inside groups of bands, one across them."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import pad

from spectralmamba.errors import ModelError
from spectralmamba.models.baselines.layers import recurred_last
from spectralmamba.models.registry import register_model


class CascadedRecurrence(nn.Module):
    """Gated recurrent units read each of G groups of neighbouring bands, then others what the first say of each group.

    Zeros follow the last group where the bands do not divide. A patch first goes through two depthwise 3 × 3 convolutions, each
    with ReLU, and is averaged. With these it has the 353.25 K parameters that SpectralMamba's authors give for 145 bands and 14
    classes, and, in 5 groups of 29 bands, their multiply-accumulates; the ReLU and the mean are ours.

    Args:
        bands: L.
        classes: K.
        patch: P.
        groups: G; 4 in the authors' code, and never more than there are bands.
        first: Width of the layer inside groups.
        second: Width of the layer across them.

    Shapes: `(B, L)` for P = 1, else `(B, L, P, P)` → logits `(B, K)`.

    Raises:
        ModelError: There is to be no group.
    """

    def __init__(self, *, bands: int, classes: int, patch: int, groups: int, first: int, second: int) -> None:
        super().__init__()
        if groups < 1:
            raise ModelError("too few groups of bands", found=groups, expected="at least 1")
        self.groups = min(groups, bands)
        self.padding = self.groups * math.ceil(bands / self.groups) - bands
        self.spatial = None
        if patch > 1:
            convolutions = (nn.Conv2d(bands, bands, 3, padding=1, groups=bands) for _ in range(2))
            self.spatial = nn.Sequential(*(layer for each in convolutions for layer in (each, nn.ReLU())))
        self.inside = nn.GRU(1, first, batch_first=True)
        self.across = nn.GRU(first, second, batch_first=True)
        self.head = nn.Linear(second, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        spectra = x if self.spatial is None else self.spatial(x).mean((2, 3))  # (B, L)
        groups = pad(spectra, (0, self.padding)).unflatten(1, (self.groups, -1))  # (B, G, L / G)
        of_groups = recurred_last(self.inside, groups.flatten(0, 1).unsqueeze(2))  # (B G, first)
        return self.head(recurred_last(self.across, of_groups.unflatten(0, (-1, self.groups))))


@register_model(presets=("default",))
def cas_rnn(
    *,
    bands: int,
    classes: int,
    patch: int = 1,
    preset: str = "default",
    groups: int = 4,
    first: int = 128,
    second: int = 256,
) -> CascadedRecurrence:
    """CasRNN (Hang et al. 2019)."""
    return CascadedRecurrence(bands=bands, classes=classes, patch=patch, groups=groups, first=first, second=second)
