"""Small AVIRIS products in the layouts in which they are delivered."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import rasterio
from affine import Affine
from raster_files import ENVI_NUMBERS, ENVI_ORDERS

NG = "ang20190624t230039_rfl_v2x1_img"
NG_CORR = "ang20150420t182050_corr_v1e_img"
AV3_ENVI = "AV320231008t173943_L2A_OE_main_98b13fff_RFL_ORT"
AV3 = "AV320250111t195928_000_L2A_OE_f576f24d_RFL_ORT"
TRANSFORM = Affine(4.9, 0, 360000, 0, -4.9, 3800000)
AV5 = "AV520250601t171200_003_L2A_OE_0b4f48b4_RFL_ORT"


def cube_of(bands: int, shape: tuple[int, int]) -> np.ndarray:
    cube = np.random.default_rng(13).uniform(0.01, 0.7, (bands, *shape)).astype(np.float32)
    cube[:, 0, :2] = -9999
    return cube


def make_aviris_envi(
    folder: Path,
    name: str = NG,
    *,
    bands: int = 425,
    shape: tuple[int, int] = (7, 6),
    rotation: float = -31.5,
    ignore: bool = True,
    units: str = "wavelength units = Nanometers\n",
    bbl: bool = False,
) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write an ENVI product, BIL; return data file, cube and wavelengths."""
    folder.mkdir(parents=True, exist_ok=True)
    cube, wavelength = cube_of(bands, shape), np.linspace(377.1, 2500.2, bands)
    data = folder / name
    data.write_bytes(np.ascontiguousarray(cube.transpose(ENVI_ORDERS["bil"])).tobytes())
    numbers = {"wavelength": wavelength, "fwhm": np.full(bands, 5.6)}
    if bbl:
        numbers["bbl"] = (wavelength < 2400).astype(float)
    lists = "\n".join(f"{key} = {{{', '.join(f'{value:.4f}' for value in values)}}}" for key, values in numbers.items())
    folder.joinpath(f"{name}.hdr").write_text(
        f"ENVI\ndescription = {{AVIRIS}}\nsamples = {shape[1]}\nlines = {shape[0]}\nbands = {bands}\nheader offset = 0\n"
        f"file type = ENVI\ndata type = {ENVI_NUMBERS['f4']}\ninterleave = bil\nbyte order = 0\n"
        f"map info = {{UTM, 1, 1, 588000.5, 3760000.25, 4.9, 4.9, 11, North, WGS-84, units=Meters, rotation={rotation}}}\n"
        f"{units}{'data ignore value = -9999' if ignore else ''}\n{lists}\n"
    )
    return data, cube, wavelength


def make_aviris_netcdf(
    folder: Path,
    name: str = AV3,
    *,
    bands: int = 284,
    shape: tuple[int, int] = (7, 6),
    transform: Affine = TRANSFORM,
    without: tuple[str, ...] = (),
) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write a netCDF product; return its file, cube and wavelengths."""
    folder.mkdir(parents=True, exist_ok=True)
    cube, wavelength = cube_of(bands, shape), np.linspace(380.0, 2500.0, bands).astype(np.float32)
    path = folder / f"{name}.nc"
    with h5py.File(path, "w") as file:
        group = file.create_group("reflectance")
        data = group.create_dataset("reflectance", data=cube, chunks=(64, 4, 4), compression="gzip")
        data.attrs["_FillValue"] = np.float32(-9999)
        data.attrs["grid_mapping"] = "transverse_mercator"
        group["wavelength"], group["fwhm"] = wavelength, np.full(bands, 7.4, np.float32)
        mapping = file.create_dataset("transverse_mercator", data=np.int8(0))
        mapping.attrs["crs_wkt"] = rasterio.CRS.from_epsg(32611).to_wkt()
        mapping.attrs["GeoTransform"] = " ".join(f"{value!r}" for value in transform.to_gdal())
        file["easting"] = transform.c + transform.a * (np.arange(shape[1]) + 0.5)
        file["northing"] = transform.f + transform.e * (np.arange(shape[0]) + 0.5)
        file.attrs["time_coverage_start"] = "2025-01-11T19:59:28Z"
        for part in without:
            if part in mapping.attrs:
                del mapping.attrs[part]
            else:
                del file[part]
    return path, cube, wavelength.astype(np.float64)
