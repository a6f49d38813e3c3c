"""Recurrent networks that read a spectrum band by band (Mou, Ghamisi, Zhu 2017, doi 10.1109/TGRS.2016.2636241)."""

from __future__ import annotations

from torch import Tensor, nn

from spectralmamba.models.baselines.layers import band_sequence, recurred
from spectralmamba.models.registry import register_model


class SpectralRecurrence(nn.Module):
    """One recurrent layer over the bands, batch normalisation, tanh, and a linear layer of what it says of every band.

    The paper's activation PRetanh inside the unit is a plain tanh here, as in DeepHyperX. A patch's P² pixels, which the paper has
    not, are read together, a band after the other. Weights start between −0.1 and 0.1.

    Shapes: `(B, L)` for P = 1, else `(B, L, P, P)` → logits `(B, K)`.
    """

    def __init__(self, kind: type[nn.GRU | nn.LSTM], *, bands: int, classes: int, patch: int, width: int) -> None:
        super().__init__()
        self.recurrence = kind(patch**2, width, batch_first=True)
        self.norm = nn.BatchNorm1d(width * bands)
        self.head = nn.Linear(width * bands, classes)
        for parameter in (*self.recurrence.parameters(), *self.head.parameters()):
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        hidden = recurred(self.recurrence, band_sequence(x))  # (B, L, M)
        return self.head(self.norm(hidden.flatten(1)).tanh())


@register_model(presets=("default",))
def gru(*, bands: int, classes: int, patch: int = 1, preset: str = "default", width: int = 64) -> SpectralRecurrence:
    """Gated recurrent units over the bands (Mou et al. 2017)."""
    return SpectralRecurrence(nn.GRU, bands=bands, classes=classes, patch=patch, width=width)


@register_model(presets=("default",))
def lstm(*, bands: int, classes: int, patch: int = 1, preset: str = "default", width: int = 64) -> SpectralRecurrence:
    """Long short-term memory over the bands, with which Mou et al. (2017) compare their units."""
    return SpectralRecurrence(nn.LSTM, bands=bands, classes=classes, patch=patch, width=width)
