"""Transformers over bands, and over the pieces of SpectralMamba."""

from __future__ import annotations

from torch import Tensor, nn

from spectralmamba.errors import ModelError
from spectralmamba.models.baselines.layers import TransformerLayer
from spectralmamba.models.baselines.spectralformer import SpectralFormer
from spectralmamba.models.patches import Patches, as_patches
from spectralmamba.models.registry import register_model
from spectralmamba.models.spectral_mamba import GatedMerging, PieceEmbedding


class PieceTransformer(nn.Module):
    """SpectralMamba with attention where it has the selective scan.

    Patches are merged and spectra cut into tokens as there; then layers as ViT's, and the mean over tokens.

    Args:
        bands: L.
        classes: K.
        patch: P.
        piece: R, bands of a token, 1 … L.
        width: M.
        depth: Layers.
        heads: Heads of attention, of 16 channels each.
        hidden: Hidden units of a layer.
        dropout: Share of values that training drops.

    Shapes: `(B, L)` for P = 1, else `(B, L, P, P)` → logits `(B, K)`.

    Raises:
        ModelError: R is not in 1 … L.
    """

    takes_patches = True

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        patch: int,
        piece: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if not 1 <= piece <= bands:
            raise ModelError("the piece size R does not fit the spectrum", found=piece, expected=f"1 to {bands} bands")
        self.merging = GatedMerging(bands) if patch > 1 else None
        self.embedding = PieceEmbedding(bands, width, piece, "neighbours")
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(*(TransformerLayer(width, heads, 16, hidden, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor | Patches) -> Tensor:
        """Return logits."""
        patches = as_patches(x)
        spectrum = patches.centre() if self.merging is None else patches.merged(self.merging)  # (B, L)
        tokens = self.dropout(self.embedding(spectrum))  # (B, T, M)
        return self.head(self.norm(self.layers(tokens)).mean(1))


@register_model(presets=("default",))
def vit(
    *,
    bands: int,
    classes: int,
    patch: int = 1,
    preset: str = "default",
    width: int = 64,
    depth: int = 5,
    heads: int = 4,
    hidden: int = 8,
    dropout: float = 0.1,
) -> SpectralFormer:
    """ViT (Dosovitskiy et al. 2021, arXiv 2010.11929) with a token a band, as Hong et al. (2022) compare SpectralFormer with it."""
    return SpectralFormer(
        bands=bands,
        classes=classes,
        patch=patch,
        near_band=1,
        mode="ViT",
        width=width,
        depth=depth,
        heads=heads,
        hidden=hidden,
        dropout=dropout,
    )


@register_model(presets=("default",))
def vit_pieces(
    *,
    bands: int,
    classes: int,
    patch: int = 1,
    preset: str = "default",
    piece: int | None = None,
    width: int = 64,
    depth: int = 5,
    heads: int = 4,
    hidden: int = 8,
    dropout: float = 0.1,
) -> PieceTransformer:
    """ViT of the same sizes over SpectralMamba's pieces of 6 bands, or as many as there are."""
    piece = min(6, bands) if piece is None else piece
    return PieceTransformer(
        bands=bands,
        classes=classes,
        patch=patch,
        piece=piece,
        width=width,
        depth=depth,
        heads=heads,
        hidden=hidden,
        dropout=dropout,
    )
