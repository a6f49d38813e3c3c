"""One door for all formats: files told apart by their first bytes, and Zarr stores."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import rasterio
import xarray as xr

import spectralmamba.accessor  # noqa: F401  registers .spectralmamba
from spectralmamba.errors import SceneError
from spectralmamba.scenes.products.finding import find_product
from spectralmamba.scenes.scene import RawScene, build_scene
from spectralmamba.scenes.sources import GDAL_CACHE
from spectralmamba.scenes.zarr_store import is_store, read_zarr

KNOWN_FORMATS = (
    "MATLAB (.mat), ENVI (.hdr beside its data file), GeoTIFF (.tif), NumPy (.npy), a Zarr store (a folder with zarr.json"
    " or .zgroup), or a folder, file or zip of a product of EnMAP, PRISMA, EMIT, DESIS or AVIRIS"
)

PLAIN_FORMATS = ("matlab", "envi", "geotiff", "numpy", "zarr")
FORMATS = (*PLAIN_FORMATS, "enmap", "prisma", "emit", "desis", "aviris")
"""What `format=` and `--format` take."""

MAT_ENDIAN_MARKS = (b"IM", b"MI")
"""Bytes 126 and 127 of a MATLAB file of version 5 or 7.3 (MAT-File Format, 1-4)."""


def open_scene(
    path: str | os.PathLike[str],
    *,
    variable: str | None = None,
    band_axis: int | None = None,
    format: str | None = None,
    keep: Iterable[str] = (),
    water_bands: bool = False,
) -> xr.DataArray:
    """Open a hyperspectral scene.

    Nothing but the window asked for is read later; opening looks at up to 8 million values for bands without
    information, and of a product at all of its quality layers.

    Args:
        path: A local MATLAB file (version 5 or 7.3), ENVI header or data file, GeoTIFF, .npy file or Zarr store; or the
            folder, any file or a zip of a product of EnMAP L2A, PRISMA L2D, EMIT L2A, DESIS L2A, AVIRIS-NG, AVIRIS-3 or -5.
        variable: The name of the cube in a MATLAB file or Zarr store that holds several.
        band_axis: The axis of the bands (0, 1 or 2) of a MATLAB or NumPy cube; None is the last, (row, column, band).
        format: What it is, one of `FORMATS`; None lets names and content tell.
        keep: What is not masked of a product: "cloud", "shadow", "cirrus", "haze", "snow", "saturated", "defective".
        water_bands: Keep bands of a product in which water vapour absorbs.

    Returns:
        float32 `(band, y, x)`, physical values (raw · scale + offset), NaN where nothing was measured or a product's masks leave
        a pixel out. Coordinates of `band`: `band` from 1, `wavelength` and `fwhm` in nm (NaN where the file does not say) and
        `good`. The georeference is in `.rio`; `attrs` holds `source`, `raw_dtype`, `bad_band_reasons`, `statistics` and what
        else the file says, of products `sensor`, `product_level`, `product` and `masks` (pixels by kind).

    Raises:
        SceneError: The file is missing, damaged, cut off, of an unknown format, or holds no usable cube.
        MissingPackageError: The file is HDF5 or netCDF-4 and h5py is not installed, or is a Zarr store and zarr is not.
    """
    from spectralmamba.scenes.products.masks import Choices

    text = os.fspath(path)
    if is_remote(text):
        raise SceneError(
            "only local files are opened",
            file=text,
            found="a network or virtual path",
            expected="a file on this machine",
            remedy="Download or unpack it first.",
        )
    if format is not None and format not in FORMATS:
        raise SceneError(
            "there is no such format", file=text, found=repr(format), expected=", ".join(FORMATS), remedy="Give one."
        )
    file, choices = Path(text), Choices.of(keep, water_bands)
    if not file.is_dir():
        _check_file(file)
    product = None if format in PLAIN_FORMATS or is_store(file) else find_product(file, format)
    if product is not None:
        _refuse(file, "variable", variable)
        _refuse(file, "band axis", band_axis)
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            return build_scene(product.read(choices))
    _check_file(file)
    if choices != Choices():
        raise SceneError(
            "masks and water bands are those of products",
            file=file,
            found="keep or water bands",
            expected="these options with EnMAP, PRISMA, EMIT, DESIS and AVIRIS only",
            remedy="Leave out --keep and --water-bands.",
        )
    return build_scene(_reader(file, variable, band_axis, format)())


def is_one_scene(folder: Path) -> bool:
    """Tell whether a folder is opened as one scene: a Zarr store, or a product."""
    return is_store(folder) or is_product_folder(folder)


def is_product_folder(folder: Path) -> bool:
    """Tell by the names of its files whether a folder is that of one product."""
    try:
        return find_product(folder) is not None
    except SceneError:
        return False


def is_remote(path: str) -> bool:
    """Tell whether a path is a network address or one of GDAL's virtual files."""
    return path.startswith("/vsi") or "://" in path


def _check_file(path: Path) -> None:
    if is_store(path):
        return
    if path.is_dir():
        raise SceneError(
            "is a folder", file=path, found="a folder", expected=KNOWN_FORMATS, remedy="Name the file inside it."
        )
    if not path.exists():
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, names)
        raise SceneError(
            "no such file",
            file=path,
            found="nothing" if path.parent.is_dir() else f"no folder {path.parent}",
            expected=KNOWN_FORMATS,
            remedy=f"Did you mean {' or '.join(close)}?" if close else "Check the path.",
        )
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise SceneError("cannot be read", file=path, found=error.strerror, remedy="Check its permissions.") from error
    if size == 0:
        raise SceneError("is empty", file=path, found="0 bytes", expected=KNOWN_FORMATS, remedy="Copy the file again.")


def _reader(path: Path, variable: str | None, band_axis: int | None, format_: str | None) -> Callable[[], RawScene]:
    """Return the reader for the file, its arguments bound; each format is imported when it is needed."""
    if path.is_dir():
        _refuse(path, "band axis", band_axis)
        return lambda: read_zarr(path, variable=variable)
    with path.open("rb") as file:
        head = file.read(128)
    told = format_ or _told(path, head)
    if told == "matlab":
        from spectralmamba.scenes import mat

        if head[126:128] in MAT_ENDIAN_MARKS or mat.is_hdf5(path):
            return lambda: mat.read_mat(path, variable=variable, band_axis=band_axis)
        raise _unknown(path, head, "a MATLAB file of version 5 or 7.3 (version 4 cannot hold a cube)")
    _refuse(path, "variable", variable)
    if told == "numpy":
        from spectralmamba.scenes import numpy_file

        return lambda: numpy_file.read_numpy(path, band_axis=band_axis)
    _refuse(path, "band axis", band_axis)
    if told == "geotiff":
        from spectralmamba.scenes import geotiff

        return lambda: geotiff.read_geotiff(path)
    if told == "envi":
        from spectralmamba.scenes import envi

        return lambda: envi.read_envi(path)
    raise _unknown(path, head, KNOWN_FORMATS if format_ is None else f"a store of the format {format_}")


def _told(path: Path, head: bytes) -> str | None:
    """Return which of the plain formats a file has, by its first bytes or its name."""
    from spectralmamba.scenes import envi
    from spectralmamba.scenes.geotiff import TIFF_STARTS

    suffix = path.suffix.lower()
    if (head.startswith(b"MATLAB") and head[126:128] in MAT_ENDIAN_MARKS) or suffix == ".mat":
        return "matlab"
    if head.startswith(b"\x93NUMPY"):
        return "numpy"
    if head.startswith(TIFF_STARTS):
        return "geotiff"
    return "envi" if suffix == ".hdr" or suffix in envi.DATA_SUFFIXES or envi.find_header(path) else None


def _refuse(path: Path, name: str, value: object) -> None:
    if value is not None:
        raise SceneError(
            f"a {name} means nothing for this file",
            file=path,
            found=f"{name} {value!r}",
            expected=f"this option with MATLAB files and {'Zarr stores' if name == 'variable' else '.npy files'} only",
            remedy=f"Leave out --{name.replace(' ', '-')}.",
        )


def _unknown(path: Path, head: bytes, expected: str) -> SceneError:
    return SceneError(
        "unknown format",
        file=path,
        found=f"the first bytes {head[:8]!r}",
        expected=expected,
        remedy="Convert the scene to one of these, for instance with gdal_translate -of GTiff.",
    )
