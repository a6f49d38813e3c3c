"""Convolutional networks over the spectrum, over the patch, and over both."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import pad, relu

from spectralmamba.models.baselines.layers import band_sequence, need_patch
from spectralmamba.models.registry import register_model


class SpectralConvolution(nn.Module):
    """A convolution along the spectrum, pooling and two linear layers (Hu et al. 2015, doi 10.1155/2015/258619).

    Kernels of ⌈L / 9⌉ bands, pooling over a fifth of that, and all weights between −0.05 and 0.05 at first, as DeepHyperX reads the
    paper. A patch's P² pixels, which the paper has not, are channels of the input.

    Shapes: `(B, L)` for P = 1, else `(B, L, P, P)` → logits `(B, K)`.
    """

    def __init__(self, *, bands: int, classes: int, patch: int, kernels: int, hidden: int) -> None:
        super().__init__()
        kernel = math.ceil(bands / 9)
        pool = math.ceil(kernel / 5)
        self.convolution = nn.Conv1d(patch**2, kernels, kernel)
        self.pool = nn.MaxPool1d(pool)
        self.hidden = nn.Linear(kernels * ((bands - kernel + 1) // pool), hidden)
        self.head = nn.Linear(hidden, classes)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.05, 0.05)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.pool(self.convolution(band_sequence(x).mT).tanh())  # (B, kernels, ·)
        return self.head(self.hidden(x.flatten(1)).tanh())


class SpatialConvolutions(nn.Module):
    """Three blocks of convolution, batch normalisation, pooling and ReLU (the 2-D CNN of Hong et al. 2022, arXiv 2107.02988).

    Kernels of 3 × 3, 3 × 3 and 1 × 1 pixels, 32, 64 and 128 of them, without bias, which normalisation takes away. Convolutions
    keep a patch's width, pooling halves it, and what is left in the end is averaged: patches of 3 to 7 pixels are one by then.

    Shapes: `(B, L, P, P)` → logits `(B, K)`.
    """

    def __init__(self, *, bands: int, classes: int) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            return [convolution, nn.BatchNorm2d(outputs), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()]

        self.blocks = nn.Sequential(*block(bands, 32, 3), *block(32, 64, 3), *block(64, 128, 1))
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = x.contiguous()  # vmap cannot tell what other memory layouts mean to the normalisation
        return self.head(self.blocks(x).mean((2, 3)))


class VolumeConvolutions(nn.Module):
    """Two convolutions over bands and pixels and a linear layer (Li, Zhang, Shen 2017, doi 10.3390/rs9010067).

    Kernels of 7 × 3 × 3 and 3 × 3 × 3, twice as many of the second. Both convolutions see a zero before and one after the
    spectrum, and weights start as Glorot and Bengio have them, as in DeepHyperX. A patch of 3 pixels is one pixel after the first
    convolution, and the second's kernels are 3 × 1 × 1 then. Zeros follow a spectrum of less than 5 bands.

    Shapes: `(B, L, P, P)` → logits `(B, K)`.
    """

    _LEAST = 5

    def __init__(self, *, bands: int, classes: int, patch: int, kernels: int) -> None:
        super().__init__()
        bands, kernel = max(bands, self._LEAST), min(3, patch - 2)
        self.first = nn.Conv3d(1, kernels, (7, 3, 3), padding=(1, 0, 0))
        self.second = nn.Conv3d(kernels, 2 * kernels, (3, kernel, kernel), padding=(1, 0, 0))
        self.head = nn.Linear(2 * kernels * (bands - 4) * (patch - 1 - kernel) ** 2, classes)
        for layer in (self.first, self.second, self.head):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = pad(x, (0, 0, 0, 0, 0, max(0, self._LEAST - x.shape[1])))
        x = relu(self.second(relu(self.first(x.unsqueeze(1)))))  # (B, kernels, L − 4, ·, ·)
        return self.head(x.flatten(1))


@register_model(presets=("default",))
def cnn1d(
    *, bands: int, classes: int, patch: int = 1, preset: str = "default", kernels: int = 20, hidden: int = 100
) -> SpectralConvolution:
    """Convolution along the spectrum (Hu et al. 2015)."""
    return SpectralConvolution(bands=bands, classes=classes, patch=patch, kernels=kernels, hidden=hidden)


@register_model(presets=("default",))
def cnn2d(*, bands: int, classes: int, patch: int = 3, preset: str = "default") -> SpatialConvolutions:
    """Convolutions over the patch, all bands at once (Hong et al. 2022)."""
    need_patch("cnn2d", patch)
    return SpatialConvolutions(bands=bands, classes=classes)


@register_model(presets=("default",))
def cnn3d(
    *, bands: int, classes: int, patch: int = 5, preset: str = "default", kernels: int = 16
) -> VolumeConvolutions:
    """Convolutions over bands and pixels (Li, Zhang, Shen 2017), with the 16 kernels of DeepHyperX in the first."""
    need_patch("cnn3d", patch)
    return VolumeConvolutions(bands=bands, classes=classes, patch=patch, kernels=kernels)
