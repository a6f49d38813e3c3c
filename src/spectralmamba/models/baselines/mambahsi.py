"""MambaHSI (Li, Luo, Zhang, Wang, Du 2024, doi 10.1109/TGRS.2024.3430985): Mamba over pixels, and over groups of channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from spectralmamba.models.baselines.layers import need_patch
from spectralmamba.models.registry import register_model
from spectralmamba.models.spectral_mamba import S6Block

_NORM_GROUPS = 4


class GroupNorm(nn.GroupNorm):
    """Group normalisation of channels that come last, written out, so that `torch.vmap` can take it.

    Shapes: `(B, H, W, M)` → `(B, H, W, M)`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over pixels and each group's channels."""
        groups = input.unflatten(3, (self.num_groups, -1))  # (B, H, W, groups, ·)
        centred = groups - groups.mean((1, 2, 4), keepdim=True)
        variance = centred.square().mean((1, 2, 4), keepdim=True)
        return (centred * (variance + self.eps).rsqrt()).flatten(3) * self.weight + self.bias


class SpatialMamba(nn.Module):
    """A Mamba block over a patch's pixels, row by row, and a skip connection.

    Shapes: `(B, H, W, M)` → `(B, H, W, M)`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = S6Block(width, expansion=2, states=16, convolution=4)
        self.norm = GroupNorm(_NORM_GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix pixels."""
        mixed = self.block(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
        return x + silu(self.norm(mixed))


class SpectralTokensMamba(nn.Module):
    """A Mamba block over groups of each pixel's channels, and a skip connection.

    Shapes: `(B, H, W, M)` → `(B, H, W, M)`.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.tokens, channels = tokens, math.ceil(width / tokens)
        self.padding = tokens * channels - width
        self.block = S6Block(channels, expansion=2, states=16, convolution=4)
        self.norm = GroupNorm(_NORM_GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix channels."""
        groups = pad(x, (0, self.padding)).unflatten(3, (self.tokens, -1)).flatten(0, 2)  # (B H W, T, M / T)
        mixed = self.block(groups).flatten(1).unflatten(0, x.shape[:3])[..., : x.shape[3]]
        return x + silu(self.norm(mixed))


class BothMambas(nn.Module):
    """Spatial and spectral mixing, in shares that are learned, and a skip connection.

    Shapes: `(B, H, W, M)` → `(B, H, W, M)`.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.shares = nn.Parameter(torch.full((2,), 0.5))
        self.spatial, self.spectral = SpatialMamba(width), SpectralTokensMamba(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Mix pixels and channels."""
        shares = self.shares.softmax(0)
        return x + shares[0] * self.spatial(x) + shares[1] * self.spectral(x)


class MambaHSI(nn.Module):
    """Three blocks of spatial and spectral mixing, between which the pixels are averaged two by two.

    The authors classify all pixels of a whole image at once. Here the image is a patch, and the mean of what is left of it says
    the class of its centre. Blocks are SpectralMamba's `S6Block`, of the widths of the authors'.

    Args:
        bands: L.
        classes: K.
        width: M, a multiple of 4.
        tokens: Groups of channels that the spectral mixing sees.

    Shapes: `(B, L, P, P)` → logits `(B, K)`.
    """

    def __init__(self, *, bands: int, classes: int, width: int, tokens: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(bands, width)
        self.norm = GroupNorm(_NORM_GROUPS, width)
        self.blocks = nn.ModuleList(BothMambas(width, tokens) for _ in range(3))
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.hidden = nn.Linear(width, 128)
        self.hidden_norm = GroupNorm(_NORM_GROUPS, 128)
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = silu(self.norm(self.embedding(x.permute(0, 2, 3, 1))))  # (B, P, P, M)
        for number, block in enumerate(self.blocks):
            x = block(x if number == 0 else self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        hidden = silu(self.hidden_norm(self.hidden(x)))
        return self.head(hidden.mean((1, 2)))


@register_model(presets=("default",))
def mamba_hsi(
    *, bands: int, classes: int, patch: int = 7, preset: str = "default", width: int = 128, tokens: int = 4
) -> MambaHSI:
    """MambaHSI (Li et al. 2024) over patches."""
    need_patch("mamba_hsi", patch)
    return MambaHSI(bands=bands, classes=classes, width=width, tokens=tokens)
