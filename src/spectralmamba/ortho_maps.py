"""Maps of scenes in the geometry of a sensor, put on the map grid that the product's look-up table leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rasterio.windows import Window

from spectralmamba.scenes.products.emit import map_grid, orthorectified_strips
from spectralmamba.scenes.raster_files import opened_raster


@dataclass(frozen=True)
class OrthoMap:
    """The working rasters of a map on its map grid.

    Attributes:
        rasters: The raster of each layer.
        grid: A scene of that grid, without values.
        pixels: How many pixels of each raster are not nodata.
    """

    rasters: dict[str, Path]
    grid: xr.DataArray
    pixels: int


def put_on_map_grid(rasters: Mapping[str, Path], ortho: Mapping[str, Any]) -> OrthoMap:
    """Send working rasters through a scene's look-up table, by the nearest pixel, into new rasters beside them.

    Args:
        rasters: The raster of each layer, in the geometry of the sensor; each is read whole.
        ortho: The scene's `attrs["ortho"]`.

    Raises:
        SceneError: The file with the look-up table has gone or is damaged.
    """
    grid = map_grid(ortho)
    height, width = ortho["shape"]
    profile = {"height": height, "width": width, "crs": grid.rio.crs, "transform": grid.rio.transform()}
    made, pixels = {}, 0
    for name, raster in rasters.items():
        made[name] = raster.with_name(f"ortho_{raster.name}")
        pixels = _send(raster, made[name], ortho, profile)
    return OrthoMap(made, grid, pixels)


def _send(raster: Path, target: Path, ortho: Mapping[str, Any], grid: dict[str, Any]) -> int:
    """Write one layer, and return how many of its pixels are not nodata."""
    with opened_raster(raster) as source:
        values, nodata = source.read(1), source.nodata
        profile = source.profile | grid
        colors: dict[int, tuple[int, ...]] = source.colormap(1) if _has_colors(source) else {}
        tags, description = source.tags(), source.descriptions[0]
    tags.pop("AREA_OR_POINT", None)
    pixels = 0
    with opened_raster(target, "w", **profile) as output:
        if colors:
            output.write_colormap(1, colors)
        output.update_tags(**tags)
        output.set_band_description(1, description)
        for rows, strip in orthorectified_strips(values, ortho, nodata):
            output.write(strip, 1, window=Window.from_slices(rows, slice(0, grid["width"])))
            pixels += _known(strip, nodata)
    return pixels


def _has_colors(source: Any) -> bool:
    try:
        source.colormap(1)
    except ValueError:
        return False
    return True


def _known(strip: np.ndarray, nodata: float) -> int:
    return int(np.count_nonzero(~np.isnan(strip) if np.isnan(nodata) else strip != nodata))
