"""The valid pixels of a scene on the device, and neighbourhoods gathered from them.

A scene is small next to the patches it would become, so no patch is ever stored: a batch is pixel positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from spectralmamba.scenes.scene import row_blocks

_PATCHES = 4096  # gathered at a time


@dataclass(frozen=True)
class Pixels:
    """Spectra of the valid pixels of a scene or a part of it.

    Attributes:
        values: Spectra `(n, L)`, float32.
        grid: Position of each pixel's spectrum in `values`, −1 where there is none, `(H, W)` int64.
        rows: Row of each spectrum, `(n,)` int64.
        columns: Column of each spectrum, `(n,)` int64.
    """

    values: Tensor
    grid: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def from_scene(cls, scene: xr.DataArray, bands: np.ndarray, device: torch.device | str = "cpu") -> Pixels:
        """Read the pixels whose `bands` are all finite, a block of rows at a time.

        Args:
            scene: `(band, y, x)`.
            bands: Positions of the bands to take, counted from 0.
            device: Where the spectra go.
        """
        spectra, valid = [], np.zeros(scene.shape[1:], bool)
        for rows in row_blocks(scene):
            found, valid[rows] = _valid_spectra(scene.isel(band=bands, y=rows).values)
            spectra.append(torch.from_numpy(found).to(device))
        return cls._of(torch.cat(spectra) if spectra else torch.zeros(0, len(bands), device=device), valid)

    @classmethod
    def of_image(cls, image: Tensor, valid: Tensor) -> Pixels:
        """Return all pixels of an image `(H, W, L)`, in its memory; what a mask `(H, W)` leaves out is nobody's neighbour."""
        height, width = valid.shape
        everything = torch.arange(height * width, device=image.device)
        grid = everything.where(valid.flatten(), -1).view(height, width)
        return cls(image.flatten(0, 1), grid, everything // width, everything % width)

    @classmethod
    def _of(cls, values: Tensor, valid: np.ndarray) -> Pixels:
        rows, columns = (torch.from_numpy(index).to(values.device) for index in np.nonzero(valid))
        grid = torch.full(valid.shape, -1, dtype=torch.int64, device=values.device)
        grid[rows, columns] = torch.arange(len(rows), device=values.device)
        return cls(values, grid, rows, columns)

    def __len__(self) -> int:
        return len(self.values)

    def with_values(self, values: Tensor) -> Pixels:
        """Return the same pixels with other spectra `(n, L')`."""
        return Pixels(values, self.grid, self.rows, self.columns)

    def at(self, mask: np.ndarray) -> Tensor:
        """Return the positions in `values` of the valid pixels under a mask `(H, W)`, row by row."""
        under = self.grid[torch.from_numpy(np.ascontiguousarray(mask)).to(self.grid.device)]
        return under[under >= 0]

    def neighbourhoods(self, positions: Tensor, patch: int) -> Tensor:
        """Return the positions `(m, P²)` of the pixels around each of `positions` `(m,)`, row by row.

        A neighbour that is missing, by nodata or beyond the border, is replaced by the centre.
        """
        reach = patch // 2
        offsets = torch.arange(-reach, reach + 1, device=self.grid.device)
        rows = self.rows[positions, None, None] + offsets[:, None]  # (m, P, 1)
        columns = self.columns[positions, None, None] + offsets  # (m, 1, P)
        height, width = self.grid.shape
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # (m, P, P)
        neighbours = self.grid[rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
        centres = positions[:, None, None].expand_as(neighbours)
        return torch.where(inside & (neighbours >= 0), neighbours, centres).flatten(1)

    def gathered(self, neighbourhoods: Tensor) -> Tensor:
        """Return the spectra `(m, P², L)` at the positions `(m, P²)`."""
        return self.values.index_select(0, neighbourhoods.flatten()).unflatten(0, neighbourhoods.shape)

    def patches(self, positions: Tensor, patch: int, batch_size: int) -> Iterator[Tensor]:
        """Yield the spectra `(b, P², L)` of the patches around `positions` `(m,)`, so many at a time; nothing without positions."""
        for batch in positions.split(batch_size):
            if len(batch):
                yield self.gathered(self.neighbourhoods(batch, patch))

    def neighbour_pairs(self, area: np.ndarray | None = None) -> Tensor:
        """Return the positions `(m, 2)` of all pairs of a pixel and its right or lower neighbour.

        Args:
            area: Mask `(H, W)` that both pixels must lie in; the whole scene if None.
        """
        grid = self.grid
        if area is not None:
            grid = torch.where(torch.from_numpy(np.ascontiguousarray(area)).to(grid.device), grid, -1)
        right = torch.stack([grid[:, :-1], grid[:, 1:]], -1).flatten(0, 1)
        lower = torch.stack([grid[:-1], grid[1:]], -1).flatten(0, 1)
        pairs = torch.cat([right, lower])
        return pairs[(pairs >= 0).all(1)]

    def checksum(self) -> str:
        """Return the SHA-256 of the spectra and where they lie."""
        digest = hashlib.sha256(str(tuple(self.grid.shape)).encode())
        for tensor in (self.rows, self.columns, self.values):
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        return digest.hexdigest()


def _valid_spectra(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the spectra `(n, L)` of those pixels of `(L, H, W)` that are finite in all bands, and which they are, `(H, W)`."""
    valid = np.asarray(np.isfinite(values).all(0))
    return np.ascontiguousarray(values[:, valid].T, np.float32), valid


def patch_means(pixels: Pixels, positions: Tensor, patch: int) -> Tensor:
    """Return the mean spectra `(m, L)` of the patches around the positions `(m,)`."""
    parts = [spectra.mean(1) for spectra in pixels.patches(positions, patch, _PATCHES)]
    return torch.cat(parts) if parts else pixels.values[:0]


def as_input(spectra: Tensor) -> Tensor:
    """View gathered spectra `(B, P², L)` as networks take them: `(B, L)` for P = 1, else `(B, L, P, P)`, channels last."""
    if spectra.shape[1] == 1:
        return spectra[:, 0]
    patch = round(spectra.shape[1] ** 0.5)
    return spectra.unflatten(1, (patch, patch)).permute(0, 3, 1, 2)
