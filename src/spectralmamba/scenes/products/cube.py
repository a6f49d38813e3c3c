"""From the parts of a product to a scene: cubes, bands in order, masked pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectralmamba.errors import SceneError
from spectralmamba.scenes.products.bands import BandTable
from spectralmamba.scenes.products.files import ProductFiles
from spectralmamba.scenes.products.masks import PixelMask
from spectralmamba.scenes.scene import Calibration, Place, RawScene
from spectralmamba.scenes.sources import NUMERIC_KINDS, RawSource


@dataclass(frozen=True, eq=False)
class ProductSource(RawSource):
    """Bands out of one or several cubes on the same grid, in the order of their wavelengths.

    Attributes:
        path: The file that stands for the product.
        cubes: The raw values.
        cube: Which cube holds each band `(L,)`.
        index: Where it is there `(L,)`.
        mask: Pixels that are left out, bool `(H, W)`.
        owner: What keeps unpacked files; it stays with the process that unpacked them.
    """

    path: Path
    cubes: tuple[RawSource, ...]
    cube: np.ndarray
    index: np.ndarray
    mask: np.ndarray
    owner: object = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "owner"}

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        """The type of the raw values."""
        return self.cubes[0].dtype

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """Bands, rows and columns."""
        return len(self.index), *self.cubes[0].shape[1:]

    @property
    def block_shape(self) -> tuple[int, int]:  # type: ignore[override]
        """Rows and columns that are cheap to read together in all cubes."""
        return max((cube.block_shape for cube in self.cubes), key=lambda block: block[0] * block[1])

    def read(self, bands: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return the raw values `(len(bands), h, w)` of a window."""
        if len(self.cubes) == 1:
            return self.cubes[0].read(self.index[bands], rows, columns)
        values = np.empty((len(bands), rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        for number, cube in enumerate(self.cubes):
            here = np.flatnonzero(self.cube[bands] == number)
            if here.size:
                values[here] = cube.read(self.index[bands[here]], rows, columns)
        return values

    def missing(self, rows: slice, columns: slice) -> np.ndarray:
        """Return the pixels `(h, w)` that are left out."""
        left_out = self.mask[rows, columns]
        for cube in self.cubes:
            more = cube.missing(rows, columns)
            left_out = left_out if more is None else left_out | more
        return left_out


def product_scene(
    files: ProductFiles,
    main: str,
    cubes: tuple[RawSource, ...],
    bands: BandTable,
    mask: PixelMask,
    place: Place,
    nodata: float | None,
    attributes: dict[str, Any],
) -> RawScene:
    """Return the scene of a product.

    Args:
        files: Its files.
        main: The name of the one that stands for it.
        cubes: Its raw values.
        bands: Its bands by ascending wavelength.
        mask: The pixels that are left out.
        place: Where it lies.
        nodata: The raw value that stands for nothing measured.
        attributes: What it says of itself; `notes` may be among them.
    """
    path = files.source(main)
    source = ProductSource(path, cubes, bands.cube, bands.index, mask.left_out, files)
    attributes = dict(attributes)
    notes = [*attributes.pop("notes", []), *mask.notes]
    return RawScene(
        source,
        Calibration(bands.scale, bands.offset, nodata),
        bands.wavelength,
        bands.fwhm,
        bands.good,
        place.crs,
        place.transform,
        attributes | mask.attributes() | ({"notes": notes} if notes else {}),
        {band + 1: reason for band, reason in bands.reasons.items()},
    )


def check_cube(path: Path, name: str, source: RawSource, kinds: str, bands: int, what: str) -> None:
    """Compare a cube with what the product's metadata promise.

    Args:
        path: Its file.
        name: What it is called there.
        source: The cube.
        kinds: Kinds of numpy types that it may have.
        bands: How many bands are described.
        what: Which values are expected, in words.

    Raises:
        SceneError: Its values have another type, or it has another number of bands.
    """
    if source.dtype.kind not in kinds or source.dtype.kind not in NUMERIC_KINDS:
        raise SceneError(
            "the cube has values of another type",
            file=path,
            found=f"{source.dtype} in {name}",
            expected=what,
            remedy="Open the product as it was delivered.",
        )
    if source.shape[0] != bands:
        raise SceneError(
            "image and metadata describe different bands",
            file=path,
            found=f"{source.shape[0]} bands in {name}",
            expected=f"{bands} bands, as in the metadata",
            remedy="Are both of the same product? Download it again.",
        )


def check_grid(path: Path, name: str, found: tuple[int, ...], expected: tuple[int, int]) -> None:
    """Compare rows and columns of a layer with those of the cube.

    Raises:
        SceneError: They differ.
    """
    if tuple(found) != tuple(expected):
        raise SceneError(
            f"{name} has another shape than the image",
            file=path,
            found=" × ".join(map(str, found)),
            expected=" × ".join(map(str, expected)),
            remedy="Are both of the same product? Download it again.",
        )
