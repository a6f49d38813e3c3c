"""Small EMIT L2A products in the layout in which they are delivered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import rasterio

SCENE = "20220903T163129_2224611_012"
NAME = f"EMIT_L2A_RFL_001_{SCENE}"
GEOTRANSFORM = (-110.5, 0.000542232520256367, 0.0, 39.25, 0.0, -0.000542232520256367)
MASKS_V1 = (
    *("Cloud flag", "Cirrus flag", "Water flag", "Spacecraft Flag", "Dilated Cloud Flag"),
    *("AOD550", "H2O (g cm-2)", "Aggregate Flag"),
)
MASKS_V2 = (*MASKS_V1[::-1], "SpecTf-Cloud probability", "SpecTf-Cloud Flag", "SpecTf-Buffer Distance")


@dataclass
class Emit:
    """A product and what is in it."""

    path: Path
    reflectance: np.ndarray
    wavelength: np.ndarray
    good: np.ndarray
    glt_x: np.ndarray
    glt_y: np.ndarray


def make_emit(
    folder: Path,
    *,
    shape: tuple[int, int] = (9, 7),
    ortho_shape: tuple[int, int] = (12, 11),
    good_wavelengths: bool = True,
    name: str = NAME,
    chunks: tuple[int, int, int] = (4, 4, 64),
    without: tuple[str, ...] = (),
) -> Emit:
    """Write a reflectance file; its first line is fill."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.nc"
    lines, samples = shape
    rng = np.random.default_rng(5)
    wavelength = np.linspace(381.0, 2493.0, 285).astype(np.float32)
    good = ~(((wavelength > 1325) & (wavelength < 1435)) | ((wavelength > 1770) & (wavelength < 1962)))
    cube = np.empty((lines, samples, 285), np.float32)
    for line in cube:  # whole products are made with this, too
        line[...] = rng.uniform(0.01, 0.6, line.shape)
    cube[:, :, ~good] = -0.01
    cube[0] = -9999
    row, column = np.indices(ortho_shape)
    glt_y, glt_x = np.minimum(row, lines).astype(np.int32), np.minimum(column, samples).astype(np.int32)
    glt_y[glt_x == 0] = 0
    glt_x[glt_y == 0] = 0
    glt_x[5, 3], glt_y[5, 3] = -glt_x[5, 3], -glt_y[5, 3]
    with h5py.File(path, "w") as file:
        reflectance = file.create_dataset("reflectance", data=cube, chunks=chunks, compression="gzip")
        reflectance.attrs["_FillValue"] = np.array([-9999], np.float32)
        bands = file.create_group("sensor_band_parameters")
        bands["wavelengths"], bands["fwhm"] = wavelength, np.full(285, 8.5, np.float32)
        if good_wavelengths:
            bands["good_wavelengths"] = good.astype(np.float32)
        place = file.create_group("location")
        place["glt_x"], place["glt_y"] = glt_x, glt_y
        for layer in ("lat", "lon", "elev"):
            place[layer] = np.zeros(shape)
        file.attrs["geotransform"] = np.array(GEOTRANSFORM)
        file.attrs["spatial_ref"] = rasterio.CRS.from_epsg(4326).to_wkt()
        file.attrs["easternmost_longitude"] = GEOTRANSFORM[0]  # the west corner, as in products
        file.attrs["time_coverage_start"] = "2022-09-03T16:31:29+0000"
        for part in without:
            if part in file.attrs:
                del file.attrs[part]
            else:
                del file[part]
    physical = np.where(cube == -9999, np.float32(np.nan), cube).transpose(2, 0, 1)
    return Emit(path, physical, wavelength.astype(np.float64), good, glt_x, glt_y)


def make_mask(
    folder: Path,
    flags: dict[str, tuple[int, int]],
    *,
    names: tuple[str, ...] = MASKS_V1,
    shape: tuple[int, int] = (9, 7),
    version: str = "001",
    interpolated: np.ndarray | None = None,
) -> Path:
    """Write the mask file beside it: continuous layers hold values that are no flags."""
    path = folder / f"EMIT_L2A_MASK_{version}_{SCENE}.nc"
    layers = np.zeros((*shape, len(names)), np.float32)
    for band, name in enumerate(names):
        if "flag" not in name.lower():
            layers[:, :, band] = 1.7
    for name, place in flags.items():
        layers[(*place, names.index(name))] = 1
    with h5py.File(path, "w") as file:
        file["mask"] = layers
        file["band_mask"] = np.packbits(np.zeros((*shape, 285), bool) if interpolated is None else interpolated, axis=2)
        group = file.create_group("sensor_band_parameters")
        group.create_dataset("mask_bands", data=list(names), dtype=h5py.string_dtype())
    return path
