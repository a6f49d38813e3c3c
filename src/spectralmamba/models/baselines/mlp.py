"""A multilayer perceptron of all values of a spectrum or patch."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from spectralmamba.models.registry import register_model


class Perceptron(nn.Module):
    """Three hidden layers of M, 2 M and M units (Audebert, Le Saux, Lefèvre 2019, arXiv 1904.10674, and their DeepHyperX).

    Shapes: `(B, L)` for P = 1, else `(B, L, P, P)` → logits `(B, K)`.
    """

    def __init__(self, *, bands: int, classes: int, patch: int, width: int, dropout: float) -> None:
        super().__init__()
        widths = bands * patch**2, width, 2 * width, width
        layers = [
            layer
            for inputs, outputs in itertools.pairwise(widths)
            for layer in (nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout))
        ]
        self.layers = nn.Sequential(*layers, nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.layers(x.flatten(1))


WIDTHS = {"default": 128, "deephyperx": 2048}


@register_model(presets=WIDTHS)
def mlp(
    *,
    bands: int,
    classes: int,
    patch: int = 1,
    preset: str = "default",
    width: int | None = None,
    dropout: float = 0.1,
) -> Perceptron:
    """Multilayer perceptron; preset "deephyperx" has the 17 million parameters of the public code, "default" a tenth of its width.

    Nobody has published the sizes of SpectralMamba's own MLP. Every value of a patch is an input.
    """
    width = WIDTHS[preset] if width is None else width
    return Perceptron(bands=bands, classes=classes, patch=patch, width=width, dropout=dropout)
