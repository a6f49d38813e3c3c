"""SpectralFormer (Hong et al. 2022, arXiv 2107.02988): a transformer whose tokens are groups of neighbouring bands."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from spectralmamba.errors import ModelError
from spectralmamba.models.baselines.layers import TransformerLayer, band_sequence
from spectralmamba.models.registry import register_model

Mode = Literal["ViT", "CAF"]


class CrossLayerFusion(nn.Module):
    """What two layers say of each token, weighed by learned numbers of all tokens of both, T (2 T + 1) parameters.

    Shapes: twice `(B, T, M)` → `(B, T, M)`.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.mixing = nn.Linear(2 * tokens, tokens)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Fuse a layer's input with that of the one before the last."""
        return self.mixing(torch.cat([x, before], 1).mT).mT


class SpectralFormer(nn.Module):
    """A token a band, of the band and its neighbours (GSE), and fusion across layers (CAF).

    Spectra are joined at their ends, so the first band's neighbours are the second and the last, as in the authors' code.
    SpectralMamba's authors give 74.03 K parameters at 145 bands, 14 classes and P = 3. That is 4 layers without fusion, not 5 with
    it, and positions and class token left out: `depth=4, mode="ViT"` has 74 030 without these and 83 438 with them.

    Args:
        bands: L.
        classes: K.
        patch: P; all P² pixels of the bands are a token's values.
        near_band: Bands of a token, odd.
        mode: "CAF": fusion across layers; "ViT": none.
        width: M.
        depth: Layers.
        heads: Heads of attention, of 16 channels each.
        hidden: Hidden units of a layer.
        dropout: Share of values that training drops.

    Shapes: `(B, L)` for P = 1, else `(B, L, P, P)` → logits `(B, K)`.

    Raises:
        ModelError: A band has not as many neighbours before as after it, or there is no such mode.
    """

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        patch: int,
        near_band: int,
        mode: Mode,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if near_band < 1 or near_band % 2 == 0:
            raise ModelError("the group of bands has no middle", found=near_band, expected="an odd number")
        if mode not in ("ViT", "CAF"):
            raise ModelError("unknown mode", found=mode, expected="ViT or CAF")
        self.near = near_band // 2
        self.embedding = nn.Linear(near_band * patch**2, width)
        self.class_token = nn.Parameter(torch.randn(1, width))
        self.position = nn.Parameter(torch.randn(bands + 1, width))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(TransformerLayer(width, heads, 16, hidden, dropout) for _ in range(depth))
        fusions = range(depth - 2) if mode == "CAF" else range(0)
        self.fusions = nn.ModuleList(CrossLayerFusion(bands + 1) for _ in fusions)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        bands = band_sequence(x)  # (B, L, P²)
        groups = torch.cat([bands.roll(-shift, 1) for shift in range(-self.near, self.near + 1)], 2)
        embedded = self.embedding(groups)  # (B, L, M)
        tokens = torch.cat([self.class_token.expand(len(x), 1, -1), embedded], 1) + self.position  # (B, L + 1, M)
        tokens = self.dropout(tokens)
        inputs: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            inputs.append(tokens)
            if 2 <= number < 2 + len(self.fusions):
                tokens = self.fusions[number - 2](tokens, inputs[number - 2])
            tokens = layer(tokens)
        return self.head(self.norm(tokens[:, 0]))


@register_model(presets=("default",))
def spectralformer(
    *,
    bands: int,
    classes: int,
    patch: int = 1,
    preset: str = "default",
    near_band: int = 3,
    mode: Mode = "CAF",
    width: int = 64,
    depth: int = 5,
    heads: int = 4,
    hidden: int = 8,
    dropout: float = 0.1,
) -> SpectralFormer:
    """SpectralFormer (Hong et al. 2022), pixelwise or patchwise."""
    return SpectralFormer(
        bands=bands,
        classes=classes,
        patch=patch,
        near_band=near_band,
        mode=mode,
        width=width,
        depth=depth,
        heads=heads,
        hidden=hidden,
        dropout=dropout,
    )
