"""SSFTT (Sun, Zhao, Zheng, Wu 2022, doi 10.1109/TGRS.2022.3144158): convolutions, then a transformer over semantic tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectralmamba.models.baselines.layers import Components, TransformerLayer, need_patch, paddings
from spectralmamba.models.registry import register_model


class SSFTT(nn.Module):
    """A 3-D and a 2-D convolution, tokens that gather pixels by what they show, one transformer layer, and the class token.

    The authors give it 30 principal components of 13 × 13 pixels; here a learned projection stands for them. At P = 3 the first
    convolution keeps a patch's width by zero padding.

    Args:
        bands: L.
        classes: K.
        patch: P, at least 3.
        components: C, what the bands are projected to if there are more.
        tokens: T.
        width: M.
        dropout: Share of values that training drops.

    Shapes: `(B, L, P, P)` → logits `(B, K)`.
    """

    def __init__(
        self, *, bands: int, classes: int, patch: int, components: int, tokens: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.components = Components(bands, components, least=3)
        padding = paddings(patch, convolutions=2)
        self.volume = nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=(0, padding[0], padding[0])), nn.BatchNorm3d(8), nn.ReLU()
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(8 * (self.components.count - 2), 64, 3, padding=padding[1]), nn.BatchNorm2d(64), nn.ReLU()
        )
        self.gathering, self.values = nn.Linear(64, tokens, bias=False), nn.Linear(64, width, bias=False)
        nn.init.xavier_normal_(self.gathering.weight)
        nn.init.xavier_normal_(self.values.weight)
        self.class_token = nn.Parameter(torch.zeros(1, width))
        self.position = nn.Parameter(torch.randn(tokens + 1, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.layer = TransformerLayer(width, 8, width // 8, 8, dropout, bias=True, scale=width**-0.5)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.volume(self.components(x).unsqueeze(1))  # (B, 8, C − 2, ·, ·)
        pixels = self.spatial(x.flatten(1, 2)).flatten(2).mT  # (B, pixels, 64)
        tokens = self.gathering(pixels).softmax(1).mT @ self.values(pixels)  # (B, T, M)
        tokens = torch.cat([self.class_token.expand(len(x), 1, -1), tokens], 1) + self.position
        return self.head(self.layer(self.dropout(tokens))[:, 0])


@register_model(presets=("default",))
def ssftt(
    *,
    bands: int,
    classes: int,
    patch: int = 13,
    preset: str = "default",
    components: int = 30,
    tokens: int = 4,
    width: int = 64,
    dropout: float = 0.1,
) -> SSFTT:
    """SSFTT (Sun et al. 2022)."""
    need_patch("ssftt", patch)
    return SSFTT(
        bands=bands,
        classes=classes,
        patch=patch,
        components=components,
        tokens=tokens,
        width=width,
        dropout=dropout,
    )
