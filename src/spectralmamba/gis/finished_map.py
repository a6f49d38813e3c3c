"""A finished map, as all files beside it need it: its grid, its classes, how much of it each has, and where its layers are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from spectralmamba.errors import LabelError
from spectralmamba.scenes.class_rasters import HIGHEST_ID, names_and_colors
from spectralmamba.scenes.palette import default_colors
from spectralmamba.scenes.pixel_areas import pixel_areas
from spectralmamba.scenes.raster_files import opened_raster

HECTARE = 10_000.0  # m²
STRIP_ROWS = 512  # read at a time: the rows of a block of our maps
LAYERS = ("confidence", "novelty", "set_size")


class MappedClass(NamedTuple):
    """A class and how much of the map it has.

    Attributes:
        id: Its value in the map.
        name: Its name.
        color: Its colour, "#rrggbb".
        pixels: How many pixels are mapped so.
        hectares: Their area; None where the map has no CRS, or is in degrees and rotated.
    """

    id: int
    name: str
    color: str
    pixels: int
    hectares: float | None


@dataclass(frozen=True)
class FinishedMap:
    """What a GeoTIFF of classes says of itself.

    Attributes:
        path: The file.
        shape: Rows and columns.
        dtype: Of its values.
        nodata: The value that means no class, as 0 does.
        transform: From pixel to map coordinates.
        crs: None if pixels have no place.
        tags: What the file says of itself, by name.
        classes: By id, those that the file names and those that are mapped.
        row_areas: Hectares of a pixel of each row `(rows,)`; None where `MappedClass.hectares` is.
    """

    path: Path
    shape: tuple[int, int]
    dtype: str
    nodata: float | None
    transform: Affine
    crs: CRS | None
    tags: dict[str, str]
    classes: tuple[MappedClass, ...]
    row_areas: NDArray[np.float64] | None

    @property
    def layers(self) -> dict[str, Path]:
        """The layers that lie beside it, by what they hold."""
        files = {name: beside(self.path, name) for name in LAYERS}
        return {name: file for name, file in files.items() if file.is_file()}

    def strips(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield rows and their class ids `(h, W)`, 0 nodata, from top to bottom."""
        with opened_raster(self.path) as raster:
            yield from _strips(raster)


def beside(path: Path, name: str, suffix: str | None = None) -> Path:
    """Return the file of such a name beside a map: its layers have the map's suffix."""
    return path.with_name(f"{path.stem}_{name}{path.suffix if suffix is None else suffix}")


def open_map(path: str | os.PathLike[str] | FinishedMap) -> FinishedMap:
    """Read a map once from top to bottom, some rows at a time, and return what there is to say of it.

    Any class raster of GDAL will do, with names and colours from its tags, colour table or `.aux.xml`; what they do not say is
    filled in. One that is open already is returned as it is.

    Raises:
        LabelError: The file is missing, or no raster of class ids.
    """
    if isinstance(path, FinishedMap):
        return path
    path = Path(path)
    if not path.is_file():
        raise LabelError("there is no such map", file=path, remedy="Check the path.")
    try:
        with opened_raster(path) as raster:
            _check(raster, path)
            names, colors = names_and_colors(raster, path)
            located = raster.transform != Affine.identity() and raster.crs is not None
            crs = raster.crs if located else None
            areas = _row_areas(raster.transform, crs, raster.height)
            pixels, hectares = _count(raster, areas)
            return FinishedMap(
                path,
                raster.shape,
                raster.dtypes[0],
                raster.nodata,
                raster.transform,
                crs,
                raster.tags(),
                _classes(names, colors, pixels, None if areas is None else hectares),
                areas,
            )
    except RasterioError as error:
        raise LabelError(
            "this is no map that can be read", file=path, found=str(error), expected="a GeoTIFF of class ids"
        ) from error


def _check(raster: Any, path: Path) -> None:
    if raster.count != 1 or raster.dtypes[0] not in ("uint8", "uint16"):
        raise LabelError(
            "a map is one band of class ids",
            file=path,
            found=f"{raster.count} bands of type {', '.join(sorted(set(raster.dtypes)))}",
            expected="1 band of type uint8 or uint16",
            remedy="Give the map of classes, such as map.tif, not one of its layers.",
        )


def _row_areas(transform: Affine, crs: CRS | None, rows: int) -> NDArray[np.float64] | None:
    if crs is None or (crs.is_geographic and (transform.b or transform.d)):
        return None
    return pixel_areas(transform, crs, rows) / HECTARE


def _strips(raster: Any) -> Iterator[tuple[slice, NDArray[Any]]]:
    for top in range(0, raster.height, STRIP_ROWS):
        rows = slice(top, min(top + STRIP_ROWS, raster.height))
        ids = raster.read(1, window=Window.from_slices(rows, slice(0, raster.width)))
        if raster.nodata:
            ids[ids == raster.nodata] = 0
        yield rows, ids


def _count(raster: Any, areas: NDArray[np.float64] | None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pixels and hectares of each id, `(65536,)`; 0 is nodata and has neither."""
    pixels, hectares = np.zeros(HIGHEST_ID + 1, np.int64), np.zeros(HIGHEST_ID + 1)
    for rows, ids in _strips(raster):
        for row, area in zip(ids, np.zeros(len(ids)) if areas is None else areas[rows], strict=True):
            found = np.bincount(row)
            pixels[: len(found)] += found
            hectares[: len(found)] += area * found
    pixels[0] = 0
    return pixels, hectares


def _classes(
    names: dict[int, str],
    colors: dict[int, str],
    pixels: NDArray[np.int64],
    hectares: NDArray[np.float64] | None,
) -> tuple[MappedClass, ...]:
    ids = sorted({id_ for id_ in names if 0 < id_ <= HIGHEST_ID} | set(np.flatnonzero(pixels).tolist()))
    colors = default_colors((id_ for id_ in ids if id_ not in colors), taken=list(colors.values())) | colors
    return tuple(
        MappedClass(
            id_,
            names.get(id_) or f"class {id_}",
            colors[id_],
            int(pixels[id_]),
            None if hectares is None else float(hectares[id_]),
        )
        for id_ in ids
    )
