"""A map as one Zarr store of format 3: a variable a layer on (y, x), with the scene's grid, as xarray and rioxarray read it."""

from __future__ import annotations

import base64
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from rasterio.errors import RasterioError
from rasterio.windows import Window

from spectralmamba.scenes import has_georeference
from spectralmamba.scenes.raster_files import opened_raster
from spectralmamba.scenes.zarr_store import zarr_package

_CHUNK = 512  # pixels on a side
_GRID = "spatial_ref"


class ZarrLayer(NamedTuple):
    """A variable of a store.

    Attributes:
        raster: The file of its values, type and nodata.
        attributes: What the variable says of itself.
    """

    raster: Path
    attributes: dict[str, Any]


def is_zarr(path: Path) -> bool:
    """Tell whether a map of this name is a Zarr store."""
    return path.suffix.lower() == ".zarr"


def class_flags(class_names: Mapping[int, str], class_colors: Mapping[int, str]) -> dict[str, Any]:
    """Return classes as attributes of flags (CF conventions, 3.5); meanings are words, so other characters become `_`."""
    ids = sorted(class_names)
    return {
        "flag_values": ids,
        "flag_meanings": " ".join(re.sub(r"[^\w.+@-]+", "_", class_names[id_]) for id_ in ids),
        "flag_colors": " ".join(class_colors[id_] for id_ in ids),
    }


def write_zarr(
    store: Path, layers: Mapping[str, ZarrLayer], scene: xr.DataArray, attributes: Mapping[str, str], pixels: int
) -> None:
    """Copy working rasters to a new store, chunk by chunk.

    The store has consolidated metadata, without which xarray warns; nothing in it depends on when or in which order it was made.

    Args:
        store: The folder to make.
        layers: Its variables by name.
        scene: The scene, which gives the grid.
        attributes: What the store says of itself.
        pixels: How many pixels of each raster are not nodata.

    Raises:
        RasterioError: A working raster cannot be read or lacks pixels.
        OSError: The store cannot be written.
    """
    zarr = zarr_package(store)
    group = zarr.create_group(store, zarr_format=3, attributes={"Conventions": "CF-1.11", **attributes})
    grid = _grid(scene)
    for name, coordinate in grid.coords.items():
        array = _array(group, str(name), coordinate.shape, coordinate.dtype, coordinate.dims, coordinate.attrs)
        array[...] = coordinate.values
    mapping = {"grid_mapping": _GRID} if _GRID in grid.coords else {}
    for name, layer in layers.items():
        with opened_raster(layer.raster) as raster:
            dtype = np.dtype(raster.dtypes[0])
            nodata = dtype.type(raster.nodata)
            said = {"_FillValue": _encoded(nodata), **mapping, **layer.attributes}
            array = _array(group, name, raster.shape, dtype, ("y", "x"), said, nodata)
            if _copy(raster, array) != pixels:
                raise RasterioError(f"the working raster of {name} does not hold {pixels} classified pixels")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata", UserWarning)
        zarr.consolidate_metadata(store)


def _array(
    group: Any,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    dims: tuple[Any, ...],
    attributes: Mapping[Any, Any],
    fill_value: Any = 0,
) -> Any:
    from zarr.codecs import ZstdCodec

    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=tuple(min(_CHUNK, size) for size in shape) if len(shape) == 2 else shape,
        compressors=ZstdCodec(level=3, checksum=True),  # so that a damaged chunk is noticed
        fill_value=fill_value,
        dimension_names=dims,
        attributes=dict(attributes),
    )


def _copy(raster: Any, array: Any) -> int:
    """Copy a raster chunk by chunk, and return how many of its pixels are not nodata."""
    found = 0
    height, width = raster.shape
    for top in range(0, height, _CHUNK):
        for left in range(0, width, _CHUNK):
            rows, columns = slice(top, min(top + _CHUNK, height)), slice(left, min(left + _CHUNK, width))
            window = Window.from_slices(rows, columns)
            array[rows, columns] = raster.read(1, window=window)
            found += int(np.count_nonzero(raster.read_masks(1, window=window)))
    return found


def _encoded(nodata: np.number) -> int | str:
    """Return a nodata value as xarray keeps `_FillValue` in a store of format 3, where JSON has no NaN."""
    if nodata.dtype.kind == "f":
        return base64.standard_b64encode(struct.pack("<d", float(nodata))).decode()
    return int(nodata)


def _grid(scene: xr.DataArray) -> xr.Dataset:
    """Return the grid mapping of a scene and its coordinates x and y, as far as it has them."""
    if not has_georeference(scene):
        return xr.Dataset()
    transform, crs = scene.rio.transform(), scene.rio.crs
    rotated = transform.b != 0 or transform.d != 0
    centres = {} if rotated else {dim: (dim, scene[dim].values) for dim in ("y", "x") if dim in scene.coords}
    grid = xr.Dataset(coords=centres).rio.write_transform(transform, grid_mapping_name=_GRID)
    if crs is not None:
        grid = grid.rio.write_crs(crs, grid_mapping_name=_GRID)
    return grid.rio.write_coordinate_system() if len(centres) == 2 else grid
