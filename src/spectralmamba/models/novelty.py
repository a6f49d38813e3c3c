"""How unlike all classes a pixel is: a score for what the labels do not know."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectralmamba.models.committee import squared_distances
from spectralmamba.models.patches import Patches, as_patches

LEVELS = 1001


class NoveltyScore(nn.Module):
    """The share of the training side's pixels that are nearer to a class than a patch's mean spectrum is.

    Shapes: `(B, L)`, or `(B, L, P, P)` → `(B,)`, 0 to 1.
    """

    takes_patches = True
    projection: Tensor
    means: Tensor
    levels: Tensor

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("projection", torch.eye(bands))
        self.register_buffer("means", torch.zeros(classes, bands))
        self.register_buffer("levels", torch.zeros(LEVELS))

    def distances(self, spectra: Tensor) -> Tensor:
        """Return the squared distance `(B,)` of mean spectra `(B, L)` to the nearest class."""
        return squared_distances(spectra @ self.projection, self.means).amin(1)

    def forward(self, x: Tensor | Patches) -> Tensor:
        """Return scores."""
        found = torch.searchsorted(self.levels, self.distances(as_patches(x).mean()))
        return found.clamp_max(LEVELS - 1) / (LEVELS - 1)
