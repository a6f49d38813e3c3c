"""Every product that is read, as its maker has it, and where it lies."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import make_desis
import make_enmap
import make_prisma
import numpy as np
from affine import Affine
from make_aviris import AV3_ENVI, AV5, TRANSFORM, make_aviris_envi, make_aviris_netcdf
from make_emit import GEOTRANSFORM, make_emit, make_mask

ROTATION = -31.5
_ANGLE = np.radians(ROTATION)
# ENVI turns the image counter-clockwise about its tie point: along a row the map runs at `rotation` to the east.
ROTATED = Affine(
    4.9 * np.cos(_ANGLE), 4.9 * np.sin(_ANGLE), 588000.5, 4.9 * np.sin(_ANGLE), -4.9 * np.cos(_ANGLE), 3760000.25
)


@dataclass(frozen=True)
class Known:
    """A product.

    Attributes:
        make: Writes it into a folder.
        sensor: What it says of itself.
        epsg: The coordinate system of its map grid.
        transform: From column and row of its map grid to coordinates.
        files: Of which files, by the ends of their names, the scene is read.
    """

    make: Callable[[Path], Any]
    sensor: str
    epsg: int
    transform: Affine
    files: tuple[str, ...]


def _emit(folder: Path) -> None:
    make_emit(folder)
    make_mask(folder, {"Cloud flag": (2, 2)})


def _enmap(image: str) -> Known:
    files = (image, "-METADATA.XML", "-QL_QUALITY_CLOUD.TIF", "-QL_QUALITY_CLASSES.TIF", "-QL_PIXELMASK.TIF")
    if "TIF" not in image:
        files = (image, "-SPECTRAL_IMAGE.HDR")
    image_format = image.removeprefix("-SPECTRAL_IMAGE.")
    return Known(
        lambda folder: make_enmap.make_enmap(folder, image_format=image_format),
        "EnMAP",
        32640,
        make_enmap.TRANSFORM,
        files,
    )


def _aviris_envi(name: str, sensor: str) -> Known:
    return Known(
        lambda folder: make_aviris_envi(folder, name, rotation=ROTATION), sensor, 32611, ROTATED, (name, ".hdr")
    )


KNOWN = {
    "enmap": _enmap("-SPECTRAL_IMAGE.TIF"),
    "enmap-bsq": _enmap("-SPECTRAL_IMAGE.BSQ"),
    "enmap-bil": _enmap("-SPECTRAL_IMAGE.BIL"),
    "enmap-bip": _enmap("-SPECTRAL_IMAGE.BIP"),
    "prisma": Known(make_prisma.make_prisma, "PRISMA", make_prisma.EPSG, make_prisma.TRANSFORM, (".he5",)),
    "emit": Known(_emit, "EMIT", 4326, Affine.from_gdal(*GEOTRANSFORM), (".nc",)),
    "desis": Known(
        make_desis.make_desis,
        "DESIS",
        32611,
        make_desis.TRANSFORM,
        ("-SPECTRAL_IMAGE.tif", "-SPECTRAL_IMAGE.hdr", "-METADATA.xml", "-QL_QUALITY.tif", "-QL_QUALITY-2.tif"),
    ),
    "aviris-ng": _aviris_envi("ang20190624t230039_rfl_v2x1_img", "AVIRIS-NG"),
    "aviris-3-envi": _aviris_envi(AV3_ENVI, "AVIRIS-3"),
    "aviris-3": Known(make_aviris_netcdf, "AVIRIS-3", 32611, TRANSFORM, (".nc",)),
    "aviris-5": Known(lambda folder: make_aviris_netcdf(folder, AV5), "AVIRIS-5", 32611, TRANSFORM, (".nc",)),
}
SEVEN = ("enmap", "prisma", "emit", "desis", "aviris-ng", "aviris-3", "aviris-5")
"""One of each sensor."""


def pack(target: Path, folder: Path, compression: int = zipfile.ZIP_DEFLATED, inside: str = "product/") -> Path:
    """Write a folder's files into a zip."""
    with zipfile.ZipFile(target, "w", compression) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, inside + path.name)
    return target
