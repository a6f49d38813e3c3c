"""What a network asks of patches, whether they were gathered one by one or lie in an image.

Neighbouring pixels' patches share nearly all their values. What networks here ask of a patch, its centre, means and gated
merging, can be had for every pixel of an image at once, without a patch ever being cut out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn


class Merging(Protocol):
    """A module that merges each patch into one spectrum."""

    def __call__(self, patches: Tensor) -> Tensor:
        """Merge patches `(B, L, P, P)` into spectra `(B, L)`."""
        ...

    def of_image(self, image: Tensor, patch: int) -> Tensor:
        """Return what the patches around all pixels of an image `(H, W, L)` merge into, `(H − P + 1, W − P + 1, L)`."""
        ...


class Patches(Protocol):
    """B patches of P × P pixels."""

    def centre(self) -> Tensor:
        """Return the spectra `(B, L)` of their centres."""
        ...

    def mean(self, width: int | None = None) -> Tensor:
        """Return the mean spectra `(B, L)` of the middle `width` × `width` pixels, of all pixels if None."""
        ...

    def merged(self, merging: Merging) -> Tensor:
        """Return what they merge into, `(B, L)`."""
        ...

    def mapped(self, matrix: Tensor) -> Patches:
        """Return the patches of what a matrix `(K, L)` makes of each pixel's spectrum."""
        ...


class GatheredPatches:
    """Patches `(B, L, P, P)`, or single pixels `(B, L)`."""

    def __init__(self, x: Tensor) -> None:
        self._x = x

    def centre(self) -> Tensor:
        """Return the spectra `(B, L)` of their centres."""
        x = self._x
        return x if x.dim() == 2 else x[:, :, x.shape[2] // 2, x.shape[3] // 2]

    def mean(self, width: int | None = None) -> Tensor:
        """Return the mean spectra `(B, L)` of the middle `width` × `width` pixels, of all pixels if None."""
        x = self._x
        if x.dim() == 2:
            return x
        border = 0 if width is None else (x.shape[-1] - width) // 2
        return x[:, :, border : x.shape[2] - border, border : x.shape[3] - border].mean((2, 3))

    def merged(self, merging: Merging) -> Tensor:
        """Return what they merge into, `(B, L)`."""
        return merging(self._x)

    def mapped(self, matrix: Tensor) -> GatheredPatches:
        """Return the patches of what a matrix `(K, L)` makes of each pixel's spectrum."""
        return GatheredPatches(torch.einsum("kl,bl...->bk...", matrix, self._x))


class ImagePatches:
    """The patches around some pixels of an image.

    Every pixel asked for has all of its patch inside the image, and nothing in it is missing. What is asked is computed for the
    whole image once, and kept for the other parts that `split` makes.

    Args:
        image: `(H, W, L)`.
        rows: Rows of the patches' centres, `(B,)`; with `columns` None, all pixels that have their patch in the image, row by row.
        columns: Columns of the patches' centres, `(B,)`.
        patch: P, odd.
    """

    def __init__(self, image: Tensor, rows: Tensor | None, columns: Tensor | None, patch: int) -> None:
        self.patch = patch
        self._image, self._rows, self._columns = image, rows, columns
        self._part = slice(None)  # of all pixels
        self._known: dict[int | Merging, Tensor] = {}  # by what was asked: a width, or a merging
        self._mapped: dict[int, tuple[Tensor, ImagePatches]] = {}  # by the matrix, and the matrix

    def split(self, size: int) -> Iterator[ImagePatches]:
        """Yield them so many at a time."""
        count = len(self._rows) if self._rows is not None else self._inner(1).numel() // self._image.shape[2]
        for first in range(0, count, size):
            piece = slice(first, first + size)
            rows, columns = (None if index is None else index[piece] for index in (self._rows, self._columns))
            part = ImagePatches(self._image, rows, columns, self.patch)
            part._part, part._known, part._mapped = piece, self._known, self._mapped
            yield part

    def centre(self) -> Tensor:
        """Return the spectra `(B, L)` of their centres."""
        return self._at(self._image, 1)

    def mean(self, width: int | None = None) -> Tensor:
        """Return the mean spectra `(B, L)` of the middle `width` × `width` pixels, of all pixels if None."""
        width = self.patch if width is None else width
        if width == 1:
            return self.centre()
        if width not in self._known:
            self._known[width] = box_sums(self._image, width) * (1 / width**2)
        return self._at(self._known[width], width)

    def merged(self, merging: Merging) -> Tensor:
        """Return what they merge into, `(B, L)`."""
        if merging not in self._known:
            self._known[merging] = merging.of_image(self._image, self.patch)
        return self._at(self._known[merging], self.patch)

    def mapped(self, matrix: Tensor) -> ImagePatches:
        """Return the patches of what a matrix `(K, L)` makes of each pixel's spectrum."""
        if id(matrix) not in self._mapped:
            self._mapped[id(matrix)] = matrix, ImagePatches(self._image @ matrix.mT, None, None, self.patch)
        whole = self._mapped[id(matrix)][1]
        part = ImagePatches(whole._image, self._rows, self._columns, self.patch)
        part._part, part._known = self._part, whole._known
        return part

    def _at(self, values: Tensor, width: int) -> Tensor:
        """Return what windows of a width have, of those around the patches' centres."""
        if self._rows is None or self._columns is None:
            return self._inner(width, values).flatten(0, 1)[self._part]
        return values[self._rows - width // 2, self._columns - width // 2]

    def _inner(self, width: int, values: Tensor | None = None) -> Tensor:
        """Return the windows around pixels that have their patch in the image."""
        values, border = self._image if values is None else values, (self.patch - width) // 2
        return values[border : values.shape[0] - border, border : values.shape[1] - border]


def as_patches(x: Tensor | Patches) -> Patches:
    """Return patches as they are, and a tensor of them, or of spectra, as patches."""
    return GatheredPatches(x) if isinstance(x, Tensor) else x


def takes_patches(module: nn.Module) -> bool:
    """Tell whether a module takes `Patches`, not only tensors: it says so by an attribute `takes_patches`."""
    return getattr(module, "takes_patches", False) is True


def box_sums(image: Tensor, height: int, width: int | None = None) -> Tensor:
    """Return the sums over all windows of an image `(H, W, L)`, `(H − height + 1, W − width + 1, L)`; square if width is None.

    Each is summed along its row first, then over its rows, so it has the same bits wherever the image begins.
    """
    width = height if width is None else width
    rows, columns = image.shape[0] - height + 1, image.shape[1] - width + 1
    along = _shifted_sum([image[:, shift : shift + columns] for shift in range(width)])
    return _shifted_sum([along[shift : shift + rows] for shift in range(height)])


def _shifted_sum(parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    total = torch.add(parts[0], parts[1])
    for part in parts[2:]:
        total += part
    return total
