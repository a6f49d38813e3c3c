"""A tiny scene, and features that are given in its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from rasterio.transform import Affine
from shapely import affinity

ROWS, COLUMNS = 8, 10
TRANSFORM = Affine(10, 0, 390_000, 0, -10, 5_820_000)
ROTATED = Affine(8, 6, 390_000, 6, -8, 5_820_000)
UTM = "EPSG:32633"


def make_scene(transform: Affine | None = TRANSFORM, crs: str | None = UTM) -> xr.DataArray:
    """A scene of one band whose pixel (0, 0) is nodata."""
    values = np.ones((1, ROWS, COLUMNS), np.float32)
    values[0, 0, 0] = np.nan
    scene = xr.DataArray(values, dims=("band", "y", "x"), coords={"band": [1], "good": ("band", [True])})
    if transform is not None:
        scene = scene.rio.write_transform(transform)
    return scene if crs is None else scene.rio.write_crs(crs)


def features(shapes: list[Any], transform: Affine = TRANSFORM, crs: str | None = UTM, **columns: list[Any]) -> Any:
    """A GeoDataFrame of shapes that are given in pixels (column, row)."""
    geopandas = pytest.importorskip("geopandas")
    a, b, c, d, e, f = transform[:6]
    located = [None if shape is None else affinity.affine_transform(shape, [a, b, d, e, c, f]) for shape in shapes]
    return geopandas.GeoDataFrame(columns, geometry=located, crs=crs)
