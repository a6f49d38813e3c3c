"""AVIRIS-NG, AVIRIS-3 and AVIRIS-5 surface reflectance on a map grid: ENVI or netCDF-4."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from spectralmamba.errors import SceneError
from spectralmamba.scenes.envi import read_envi
from spectralmamba.scenes.products.bands import BandTable
from spectralmamba.scenes.products.cube import check_cube, product_scene
from spectralmamba.scenes.products.files import ProductFiles, time_in_name
from spectralmamba.scenes.products.hdf5 import Hdf5File, opened_hdf5, text_of
from spectralmamba.scenes.products.masks import Choices, PixelMask
from spectralmamba.scenes.scene import Place, RawScene

SENSORS = {"ang": "AVIRIS-NG", "av3": "AVIRIS-3", "av5": "AVIRIS-5"}

FILL = -9999.0
"""What stands for nothing measured where the file does not say."""

AXES = (0, 1, 2)
CUBE = "reflectance/reflectance"
GRID_MAPPING = "transverse_mercator"
_GOOD = ("reflectance/good_wavelengths", "reflectance/bbl")


def read_aviris(files: ProductFiles, main: str, choices: Choices) -> RawScene:
    """Open an AVIRIS reflectance product.

    Args:
        files: Its folder or zip.
        main: The .nc file, or the data file or header of an ENVI product.
        choices: Whether water bands are kept; the products mask no pixels.

    Raises:
        SceneError: A file is missing or damaged, or holds radiance.
        MissingPackageError: The file is netCDF-4, and h5py is not installed.
    """
    name = main.lower()
    if "rdn" in name or "_rad" in name:
        raise SceneError(
            "this is another product level",
            file=files.place / main,
            found="radiance",
            expected="L2A, surface reflectance (rfl, corr)",
            remedy="Download the reflectance of the flight line.",
        )
    if name.endswith((".nc", ".h5")):
        return _read_netcdf(files, main, choices)
    return _read_envi(files, main, choices)


def _read_envi(files: ProductFiles, main: str, choices: Choices) -> RawScene:
    stem = main[:-4] if main.lower().endswith(".hdr") else main
    header = files.find(stem, ("",), (".hdr",)) or files.need(Path(stem).stem, ("",), (".hdr",))
    if main == header:
        bare = re.sub(r"\.hdr$", "", main, flags=re.IGNORECASE)
        main = files.need(bare, ("",), ("", ".img", ".dat", ".bil", ".bip", ".bsq"))
    files.path(header)
    raw = read_envi(files.path(main))
    if not np.isfinite(raw.wavelength).all():
        raise SceneError(
            "the header has no wavelengths",
            file=files.place / header,
            found="no wavelength a band",
            expected="wavelength and fwhm",
            remedy="Download the header of the product again.",
        )
    check_cube(files.path(main), main, raw.source, "f", len(raw.wavelength), "floating-point reflectance")
    table = BandTable.of_one_cube(raw.wavelength, raw.fwhm, raw.calibration.scale, raw.calibration.offset)
    bands = table.marked(~raw.good, "marked bad in the file (bbl 0)").arranged(files.path(header), choices.water_bands)
    nodata = FILL if raw.calibration.nodata is None else raw.calibration.nodata
    attributes = _attributes(main) | raw.attributes
    attributes.pop("band_names", None)
    mask = PixelMask(raw.source.shape[1:], choices)
    return product_scene(files, main, (raw.source,), bands, mask, Place(raw.crs, raw.transform), nodata, attributes)


def _read_netcdf(files: ProductFiles, main: str, choices: Choices) -> RawScene:
    path = files.path(main)
    with opened_hdf5(path) as product:
        if CUBE not in product and "radiance" in product:
            raise product.error(
                "this is another product level",
                "radiance",
                "L2A, surface reflectance (RFL_ORT)",
                "Download the reflectance of the flight line.",
            )
        cube = product.cube(CUBE, AXES)
        check_cube(path, CUBE, cube, "f", cube.shape[0], "floating-point reflectance")
        count = cube.shape[0]
        bands = BandTable.of_one_cube(
            product.numbers("reflectance/wavelength", count), product.numbers("reflectance/fwhm", count)
        )
        for name in _GOOD:
            if name in product:
                bands = bands.marked(product.numbers(name, count) == 0, "the product calls it bad")
        bands = bands.arranged(path, choices.water_bands)
        fill = np.asarray(product.file[CUBE].attrs.get("_FillValue", FILL), np.float64).ravel()
        place = _place(product)
        attributes = _attributes(main)
        if time := product.attribute_text("time_coverage_start"):
            attributes["acquisition_time"] = time
    mask = PixelMask(cube.shape[1:], choices)
    nodata = float(fill[0]) if fill.size else FILL
    return product_scene(files, main, (cube,), bands, mask, place, nodata, attributes)


def _place(product: Hdf5File) -> Place:
    """Return what the grid mapping says."""
    name = text_of(product.file[CUBE].attrs.get("grid_mapping")) or GRID_MAPPING
    mapping = product.file.get(name) or product.file.get(GRID_MAPPING)
    if mapping is None:
        raise product.error("a part of the product is missing", f"no {name}", f"the variable {GRID_MAPPING}")
    text = text_of(mapping.attrs.get("crs_wkt")) or text_of(mapping.attrs.get("spatial_ref"))
    numbers = text_of(mapping.attrs.get("GeoTransform"))
    try:
        transform = Affine.from_gdal(*(float(part) for part in (numbers or "").replace(",", " ").split()))
        crs = CRS.from_user_input(text or "")
    except (CRSError, TypeError, ValueError) as error:
        found = f"crs_wkt {(text or 'missing')[:30]!r}, GeoTransform {(numbers or 'missing')[:60]!r}"
        raise product.error(f"{name} cannot be understood", found, "a coordinate system and six numbers") from error
    if not np.isfinite(tuple(transform)).all() or transform.determinant == 0:
        raise product.error("impossible GeoTransform", repr(numbers), "six numbers that make a grid")
    return Place(crs, transform)


def _attributes(main: str) -> dict[str, Any]:
    attributes = {
        "sensor": SENSORS.get(main[:3].lower(), "AVIRIS"),
        "product_level": "L2A",
        "product": main.rpartition(".")[0] or main,
    }
    if time := time_in_name(main):
        attributes["acquisition_time"] = time
    return attributes
