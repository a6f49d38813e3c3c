"""Raster files of any kind, also those without georeference, of which rasterio would warn."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning


@contextmanager
def opened_raster(path: str | os.PathLike[str], mode: str = "r", **profile: Any) -> Iterator[Any]:
    """Open a raster as rasterio does, be it without georeference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, mode, **profile) as raster:
            yield raster
