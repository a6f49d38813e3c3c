"""GeoTIFF and ENVI files as the makers of products need them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

ENVI_ORDERS = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
ENVI_NUMBERS = {"u1": 1, "i2": 2, "f4": 4, "u2": 12}


def write_tiff(path: Path, cube: np.ndarray, **profile: Any) -> Path:
    bands, height, width = cube.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=bands, height=height, width=width, dtype=cube.dtype, **profile
        ) as dataset:
            dataset.write(cube)
    return path


def map_info(transform: Affine, zone: int, north: bool = True) -> str:
    """ENVI's line for a grid whose rows run at an angle; `rotation` in degrees turns it as ENVI does."""
    width, height = float(np.hypot(transform.a, transform.d)), float(np.hypot(transform.b, transform.e))
    return (
        f"map info = {{UTM, 1, 1, {transform.c!r}, {transform.f!r}, {width!r}, {height!r}, {zone}, "
        f"{'North' if north else 'South'}, WGS-84, units=Meters}}"
    )


def write_envi(
    path: Path,
    cube: np.ndarray,
    interleave: str,
    crs: str,
    transform: Affine,
    *,
    header_suffix: str = ".hdr",
    extra: str = "",
) -> Path:
    """Write a data file and its header, whose stem is that of the data file."""
    stored = cube.transpose(ENVI_ORDERS[interleave])
    path.write_bytes(np.ascontiguousarray(stored).astype(cube.dtype.newbyteorder("<")).tobytes())
    bands, lines, samples = cube.shape
    header = (
        f"ENVI\ndescription = {{synthetic}}\nsamples = {samples}\nlines = {lines}\nbands = {bands}\nheader offset = 0\n"
        f"file type = ENVI Standard\ndata type = {ENVI_NUMBERS[cube.dtype.str[1:]]}\ninterleave = {interleave}\n"
        f"byte order = 0\n{map_info(transform, int(crs[-2:]), crs[5:8] == '326')}\n{extra}\n"
    )
    path.with_suffix(header_suffix).write_text(header, encoding="utf-8")
    return path
