"""EMIT L2A reflectance: a cube in the sensor's own geometry, and a look-up table that leads to a map grid."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from spectralmamba.errors import SceneError
from spectralmamba.scenes.products.bands import BandTable
from spectralmamba.scenes.products.cube import check_cube, check_grid, product_scene
from spectralmamba.scenes.products.files import ProductFiles
from spectralmamba.scenes.products.hdf5 import Hdf5File, opened_hdf5, text_of
from spectralmamba.scenes.products.masks import Choices, PixelMask, strips
from spectralmamba.scenes.scene import Place, RawScene, placed

AXES = (2, 0, 1)
"""Which axis of a cube holds the bands, the rows (downtrack) and the columns (crosstrack)."""

FILL = -9999.0

FLAGS = {
    "cloud": ("cloud flag", "dilated cloud flag", "spectf-cloud flag"),
    "cirrus": ("cirrus flag",),
    "defective": ("spacecraft flag",),
}
"""Names of mask bands, in lower case, by what they flag; their order differs between versions. Water is not masked."""

GLT = {"columns": "location/glt_x", "rows": "location/glt_y"}
"""Column and row in the swath of each pixel of the map grid, from 1; 0 is no data, negative ones were filled in."""

_STRIP_VALUES = 1 << 22

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
"""How many bits of each byte are set."""


def read_emit(files: ProductFiles, main: str, choices: Choices) -> RawScene:
    """Open an EMIT L2A reflectance product, with the mask file beside it.

    The scene is in the geometry of the sensor and has no coordinates; `attrs["ortho"]` says how its maps get them, which
    `orthorectify` does.

    Args:
        files: Its folder or zip.
        main: The reflectance file.
        choices: What is masked.

    Raises:
        SceneError: A file is damaged, or lacks a part.
        MissingPackageError: h5py is not installed.
    """
    path = files.path(main)
    with opened_hdf5(path) as product:
        if "reflectance" not in product and "radiance" in product:
            raise product.error(
                "this is another product level",
                "radiance",
                "L2A reflectance (EMIT_L2A_RFL)",
                "Download the reflectance of the scene.",
            )
        cube = product.cube("reflectance", AXES)
        check_cube(path, "reflectance", cube, "f", cube.shape[0], "floating-point reflectance")
        bands = _bands(product, cube.shape[0]).arranged(path, choices.water_bands)
        fill = product.file["reflectance"].attrs.get("_FillValue", FILL)
        attributes: dict[str, Any] = {
            "sensor": "EMIT",
            "product_level": "L2A",
            "product": main.rpartition(".")[0],
            "ortho": _ortho(product, path),
        }
        if time := product.attribute_text("time_coverage_start"):
            attributes["acquisition_time"] = time
    mask = PixelMask(cube.shape[1:], choices)
    if choices.masks(*FLAGS):
        beside = _mask_file(files, main)
        if beside is None:
            attributes["notes"] = ["no EMIT_L2A_MASK file beside the reflectance: clouds and cirrus are not masked"]
        else:
            _add_masks(files.path(beside), mask, bands)
    nodata = float(np.asarray(fill).ravel()[0]) if np.asarray(fill).size else FILL
    return product_scene(files, main, (cube,), bands, mask, Place(), nodata, attributes)


def _bands(product: Hdf5File, count: int) -> BandTable:
    group = "sensor_band_parameters"
    bands = BandTable.of_one_cube(
        product.numbers(f"{group}/wavelengths", count), product.numbers(f"{group}/fwhm", count)
    )
    if f"{group}/good_wavelengths" not in product:
        return bands
    return bands.marked(product.numbers(f"{group}/good_wavelengths", count) == 0, "the product calls it bad")


def _ortho(product: Hdf5File, path: Path) -> dict[str, Any]:
    """Return how a map in the geometry of the sensor gets coordinates."""
    tables = [product.dataset(name, 2) for name in GLT.values()]
    check_grid(path, GLT["rows"], tables[1].shape, tables[0].shape)
    if tables[0].dtype.kind not in "iuf" or tables[1].dtype.kind not in "iuf":
        raise product.error("the look-up table holds no numbers", tables[0].dtype, "whole numbers")
    transform = Affine.from_gdal(*product.attribute_numbers("geotransform", 6).tolist())
    if not np.isfinite(tuple(transform)).all() or transform.determinant == 0:
        raise product.error("impossible geotransform", list(transform)[:6], "six numbers that make a grid")
    text = product.attribute_text("spatial_ref") or "EPSG:4326"
    try:
        crs = CRS.from_user_input(text)
    except CRSError as error:
        raise product.error("spatial_ref cannot be understood", text[:40], "a coordinate system as WKT") from error
    return {
        "file": str(path.absolute()),
        "shape": [int(size) for size in tables[0].shape],
        "transform": list(transform)[:6],
        "crs": crs.to_wkt(),
    }


def _mask_file(files: ProductFiles, main: str) -> str | None:
    """Return the mask of the same acquisition, whatever its version."""
    scene = re.search(r"\d{8}T\d{6}.*", main)
    names = [name for name in files.names if re.match(r"EMIT_L2A_MASK_.*\.nc$", name, re.IGNORECASE)]
    found = [name for name in names if scene and name.lower().endswith(scene[0].lower())]
    return found[-1] if found else None


def _add_masks(path: Path, mask: PixelMask, bands: BandTable) -> None:
    """Leave out what the mask file flags by the names of its bands, and where too many bands were interpolated."""
    with opened_hdf5(path) as product:
        layers = product.dataset("mask", 3)
        check_grid(path, "mask", layers.shape[:2], mask.shape)
        names = [" ".join((text_of(name) or "").lower().split()) for name in _names(product, layers.shape[2])]
        if not any(name in names for name in FLAGS["cloud"]):
            raise product.error("no band of the mask flags clouds", ", ".join(names), FLAGS["cloud"][0])
        for kind, wanted in FLAGS.items():
            flagged = np.zeros(mask.shape, bool)
            for band in (names.index(name) for name in wanted if name in names):
                values = layers[:, :, band]
                flagged |= ~(np.asarray(values) == 0)  # NaN and the fill value are not clear either
            mask.add(kind, flagged)
        if "band_mask" in product and mask.choices.masks("defective"):
            _add_interpolated(product, mask, bands)


def _names(product: Hdf5File, count: int) -> list[Any]:
    names = product.dataset("sensor_band_parameters/mask_bands", 1)[()]
    if len(names) != count:
        raise product.error("the mask has not one name a band", len(names), count)
    return list(names)


def _add_interpolated(product: Hdf5File, mask: PixelMask, bands: BandTable) -> None:
    packed = product.dataset("band_mask", 3)
    count = len(bands.index)
    check_grid(product.path, "band_mask", packed.shape, (*mask.shape, -(-count // 8)))  # type: ignore[arg-type]
    good = np.zeros(count, bool)
    good[bands.index[bands.good]] = True
    wanted = np.packbits(good)

    def interpolated(rows: slice) -> np.ndarray:
        return _BITS[np.asarray(packed[rows]).astype(np.uint8) & wanted].sum(axis=2, dtype=np.uint16)

    mask.add_defective(interpolated, int(good.sum()), packed.chunks[0] if packed.chunks else 1)


def orthorectify(array: np.ndarray, ortho: Mapping[str, Any], fill: float) -> np.ndarray:
    """Put a layer in the geometry of the sensor on the map grid, by the nearest pixel.

    Args:
        array: The layer `(h, w)`, a map of a scene's classes for instance.
        ortho: The scene's `attrs["ortho"]`.
        fill: The value where nothing was measured.

    Returns:
        The layer `(H, W)` on the grid whose shape, transform and CRS `ortho` tells, in the type of `array`.

    Raises:
        SceneError: The file with the look-up table has gone or is damaged, or is of another scene.
        MissingPackageError: h5py is not installed.
    """
    result = np.full(tuple(ortho["shape"]), fill, array.dtype)
    for rows, strip in orthorectified_strips(array, ortho, fill):
        result[rows] = strip
    return result


def map_grid(ortho: Mapping[str, Any]) -> xr.DataArray:
    """Return a scene of the map grid that `attrs["ortho"]` tells of, without values: it takes no memory."""
    empty = np.broadcast_to(np.float32(np.nan), (1, *ortho["shape"]))
    place = Place(CRS.from_wkt(ortho["crs"]), Affine(*ortho["transform"]))
    return placed(xr.DataArray(empty, dims=("band", "y", "x")), place)


def swath_pixels(ortho: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixel of the sensor, of `shape` rows and columns, at each pixel of the map grid.

    Returns:
        int64 `(H, W)`, a place in the flattened layer; −1 where nothing was measured.

    Raises:
        SceneError: As `orthorectify`.
        MissingPackageError: h5py is not installed.
    """
    return orthorectify(np.arange(shape[0] * shape[1]).reshape(shape), ortho, -1)


def orthorectified_strips(
    array: np.ndarray, ortho: Mapping[str, Any], fill: float
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of what `orthorectify` returns, and their values, in bounded memory."""
    path, shape = Path(ortho["file"]), tuple(ortho["shape"])
    with opened_hdf5(path) as product:
        tables = [product.dataset(GLT[axis], 2) for axis in ("rows", "columns")]
        for table in tables:
            check_grid(path, table.name.strip("/"), table.shape, shape)  # type: ignore[arg-type]
        for rows in strips(shape, max(1, (1 << 24) // _STRIP_VALUES)):  # type: ignore[arg-type]
            places = [np.nan_to_num(np.abs(table[rows].astype(np.float64))).astype(np.int64) for table in tables]
            known = (places[0] > 0) & (places[1] > 0)
            for found, size in zip(places, array.shape, strict=True):
                if known.any() and found[known].max() > size:
                    raise SceneError(
                        "the look-up table leads out of the scene",
                        file=path,
                        found=f"row or column {found[known].max()}",
                        expected=f"at most {size}",
                        remedy="The file is damaged, or the layer is of another scene.",
                    )
            strip = np.full(known.shape, fill, array.dtype)
            strip[known] = array[places[0][known] - 1, places[1][known] - 1]
            yield rows, strip
