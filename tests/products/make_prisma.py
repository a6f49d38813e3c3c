"""Small PRISMA L2D products in the layout in which they are delivered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from affine import Affine
from pyproj import Transformer

NAME = "PRS_L2D_STD_20200627102358_20200627102402_0001"
EPSG = 32632
TRANSFORM = Affine(30, 0, 500_000, 0, -30, 5_000_000)
ZERO_VNIR, ZERO_SWIR = (0, 64, 65), (171, 172)


@dataclass
class Prisma:
    """A product and what is in it: what was measured by ascending wavelength, VNIR first where equal."""

    path: Path
    wavelength: np.ndarray
    reflectance: np.ndarray
    swir: np.ndarray


def make_prisma(
    folder: Path,
    *,
    shape: tuple[int, int] = (7, 9),
    name: str = NAME,
    transform: Affine = TRANSFORM,
    corners_are_centres: bool = True,
    latitude: bool = True,
    latitude_as_centres: bool | None = None,
    errors: dict[tuple[str, int, int, int], int] | None = None,
    scale: tuple[float, float, float, float] = (0.0, 0.9, -0.05, 1.1),
    without: tuple[str, ...] = (),
    cube_dtype: str = "u2",
    level: str = "2D",
) -> Prisma:
    """Write a product; wavelengths descend, some bands were not measured, and the first column is fill."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.he5"
    rows, columns = shape
    rng = np.random.default_rng(3)
    centres = {"Vnir": np.linspace(977.4, 406.9, 66), "Swir": np.linspace(2497.1, 943.4, 173)}
    flags = {detector: np.ones(len(values), np.int32) for detector, values in centres.items()}
    for detector, zeros in (("Vnir", ZERO_VNIR), ("Swir", ZERO_SWIR)):
        centres[detector][list(zeros)] = 0
        flags[detector][list(zeros)] = 0
    low_high = {"Vnir": scale[:2], "Swir": scale[2:]}
    with h5py.File(path, "w") as file:
        swath = file.create_group(f"HDFEOS/SWATHS/PRS_L{level}_HCO")
        data, place = swath.create_group("Data Fields"), swath.create_group("Geolocation Fields")
        wavelengths, values = [], []
        for detector in ("Vnir", "Swir"):
            bands = len(centres[detector])
            cube = rng.integers(1, 65536, (rows, bands, columns)).astype(cube_dtype)
            cube[:, :, 0] = 0
            data.create_dataset(f"{detector.upper()}_Cube", data=cube)
            matrix = np.zeros((rows, bands, columns), np.uint8)
            for (which, band, row, column), value in (errors or {}).items():
                if which == detector:
                    matrix[row, band, column] = value
            data.create_dataset(f"{detector.upper()}_PIXEL_L2_ERR_MATRIX", data=matrix)
            file.attrs[f"List_Cw_{detector}"] = centres[detector].astype(np.float32)
            file.attrs[f"List_Fwhm_{detector}"] = np.where(centres[detector] > 0, 10.5, 0).astype(np.float32)
            file.attrs[f"List_Cw_{detector}_Flags"] = flags[detector]
            file.attrs[f"L2Scale{detector}Min"], file.attrs[f"L2Scale{detector}Max"] = np.float32(low_high[detector])
            low, high = (float(np.float32(value)) for value in low_high[detector])
            physical = np.where(cube == 0, np.nan, low + cube.astype(np.float64) * (high - low) / 65535)
            measured = flags[detector] == 1
            wavelengths.append(centres[detector][measured].astype(np.float32).astype(np.float64))
            values.append(physical[:, measured].transpose(1, 0, 2))
        _write_place(file, place, shape, transform, corners_are_centres, latitude, latitude_as_centres)
        file.attrs["Processing_Level"] = np.bytes_(level)
        file.attrs["Product_StartTime"] = np.bytes_("2020-06-27T10:23:58.123456")
        for part in without:
            if part in file.attrs:
                del file.attrs[part]
            else:
                del file[part]
    swir = np.concatenate([np.full(len(part), number) for number, part in enumerate(wavelengths)]) == 1
    wavelength = np.concatenate(wavelengths)
    order = np.argsort(wavelength, kind="stable")
    return Prisma(path, wavelength[order], np.concatenate(values)[order], swir[order])


def _write_place(
    file: h5py.File,
    place: h5py.Group,
    shape: tuple[int, int],
    transform: Affine,
    corners_are_centres: bool,
    latitude: bool,
    latitude_as_centres: bool | None,
) -> None:
    rows, columns = shape
    inset = 0.5 if corners_are_centres else 0.0
    corners = {
        "UL": (inset, inset),
        "UR": (columns - inset, inset),
        "LL": (inset, rows - inset),
        "LR": (columns - inset, rows - inset),
    }
    for corner, (column, row) in corners.items():
        file.attrs[f"Product_{corner}corner_easting"] = np.float64(
            transform.a * column + transform.b * row + transform.c
        )
        file.attrs[f"Product_{corner}corner_northing"] = np.float64(
            transform.d * column + transform.e * row + transform.f
        )
    file.attrs["Epsg_Code"] = np.int64(EPSG)
    if latitude:
        shift = 0.5 if latitude_as_centres is None or latitude_as_centres == corners_are_centres else 0.0
        column, row = np.meshgrid(np.arange(columns) + shift, np.arange(rows) + shift)
        to_degrees = Transformer.from_crs(EPSG, 4326, always_xy=True)
        x, y = (
            transform.a * column + transform.b * row + transform.c,
            transform.d * column + transform.e * row + transform.f,
        )
        longitude, latitudes = to_degrees.transform(x, y)
        place.create_dataset("Latitude", data=latitudes)
        place.create_dataset("Longitude", data=longitude)
