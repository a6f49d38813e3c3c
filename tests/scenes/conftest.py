"""Tiny scenes in every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

UTM = "EPSG:32633"
NORTH_UP = Affine(30, 0, 364095, 0, -30, 5809965)
ROTATED = Affine.translation(364095.5, 5809965.25) @ Affine.rotation(31) @ Affine.scale(3.7, -3.7)


@pytest.fixture
def cube() -> np.ndarray:
    """Raw values (band, row, column), all different, none 0."""
    return np.arange(1, 4 * 6 * 5 + 1, dtype=np.int16).reshape(4, 6, 5)


@pytest.fixture
def write_tiff(tmp_path: Path) -> Callable[..., Path]:
    def write(
        cube: np.ndarray,
        name: str = "scene.tif",
        *,
        band_tags: dict[str, list[Any]] | None = None,
        tags: dict[str, Any] | None = None,
        scales: list[float] | None = None,
        offsets: list[float] | None = None,
        mask: np.ndarray | None = None,
        **profile: Any,
    ) -> Path:
        path = tmp_path / name
        profile = {"crs": UTM, "transform": NORTH_UP} | profile
        bands, height, width = cube.shape
        size = {"count": bands, "height": height, "width": width, "dtype": cube.dtype}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", driver="GTiff", **size, **profile) as dataset,
        ):
            dataset.write(cube)
            dataset.update_tags(**(tags or {}))
            for tag, values in (band_tags or {}).items():
                for band, value in enumerate(values, start=1):
                    dataset.update_tags(band, **{tag: value})
            if scales:
                dataset.scales = scales
            if offsets:
                dataset.offsets = offsets
            if mask is not None:
                dataset.write_mask(mask)
        return path

    return write


ENVI_ORDERS = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
ENVI_NUMBERS = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12, "u4": 13, "i8": 14, "u8": 15}


@pytest.fixture
def write_envi(tmp_path: Path) -> Callable[..., Path]:
    def write(
        cube: np.ndarray,
        name: str = "scene",
        *,
        suffix: str = ".img",
        interleave: str = "bsq",
        byte_order: int = 0,
        extra: str = "",
        offset: int = 0,
        without: str = "",
    ) -> Path:
        stored = cube.transpose(ENVI_ORDERS[interleave]).astype(cube.dtype.newbyteorder("<>"[byte_order]))
        (tmp_path / (name + suffix)).write_bytes(b"x" * offset + stored.tobytes())
        number = ENVI_NUMBERS[cube.dtype.str[1:]]
        bands, lines, samples = cube.shape
        text = (
            f"ENVI\nsamples = {samples}\nlines = {lines}\nbands = {bands}\nheader offset = {offset}\n"
            f"data type = {number}\ninterleave = {interleave}\nbyte order = {byte_order}\n{extra}\n"
        )
        kept = [line for line in text.splitlines() if not without or not line.startswith(without)]
        header = tmp_path / f"{name}.hdr"
        header.write_text("\n".join(kept) + "\n", encoding="utf-8")
        return header

    return write
