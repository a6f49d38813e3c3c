"""One door for all formats: files told apart by their first bytes, and Zarr stores."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from spectralmamba.errors import SceneError
from spectralmamba.scenes.scene import RawScene, build_scene
from spectralmamba.scenes.zarr_store import is_store, read_zarr

KNOWN_FORMATS = (
    "MATLAB (.mat), ENVI (.hdr beside its data file), GeoTIFF (.tif), NumPy (.npy) or a Zarr store (a folder with zarr.json"
    " or .zgroup)"
)

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""TIFF and BigTIFF in both byte orders."""

MAT_ENDIAN_MARKS = (b"IM", b"MI")
"""Bytes 126 and 127 of a MATLAB file of version 5 or 7.3 (MAT-File Format, 1-4)."""


def open_scene(
    path: str | os.PathLike[str], *, variable: str | None = None, band_axis: int | None = None
) -> xr.DataArray:
    """Open a hyperspectral scene.

    Nothing but the window asked for is read later; opening looks at up to 8 million values for bands without
    information.

    Args:
        path: A local MATLAB file (version 5 or 7.3), ENVI header or data file, GeoTIFF, .npy file or Zarr store.
        variable: The name of the cube in a MATLAB file or Zarr store that holds several.
        band_axis: The axis of the bands (0, 1 or 2) of a MATLAB or NumPy cube; None is the last, (row, column, band).

    Returns:
        float32 `(band, y, x)`, physical values (raw · scale + offset), NaN where nothing was measured. Coordinates of
        `band`: `band` from 1, `wavelength` and `fwhm` in nm (NaN where the file does not say) and `good`. The
        georeference is in `.rio`; `attrs` holds `source`, `raw_dtype`, `bad_band_reasons`, `statistics` and what else
        the file says.

    Raises:
        SceneError: The file is missing, damaged, cut off, of an unknown format, or holds no usable cube.
        MissingPackageError: The file has MATLAB version 7.3 and h5py is not installed, or is a Zarr store and zarr is not.
    """
    text = os.fspath(path)
    if is_remote(text):
        raise SceneError(
            "only local files are opened",
            file=text,
            found="a network or virtual path",
            expected="a file on this machine",
            remedy="Download or unpack it first.",
        )
    file = Path(text)
    _check_file(file)
    return build_scene(_reader(file, variable, band_axis)())


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


def _reader(path: Path, variable: str | None, band_axis: int | None) -> Callable[[], RawScene]:
    """Return the reader for the file, its arguments bound; each format is imported when it is needed."""
    if path.is_dir():
        _refuse(path, "band axis", band_axis)
        return lambda: read_zarr(path, variable=variable)
    with path.open("rb") as file:
        head = file.read(128)
    suffix = path.suffix.lower()
    version_5_or_7 = head.startswith(b"MATLAB") and head[126:128] in MAT_ENDIAN_MARKS
    if version_5_or_7 or suffix == ".mat":
        from spectralmamba.scenes import mat

        if head[126:128] in MAT_ENDIAN_MARKS or mat.is_hdf5(path):
            return lambda: mat.read_mat(path, variable=variable, band_axis=band_axis)
        raise _unknown(path, head, "a MATLAB file of version 5 or 7.3 (version 4 cannot hold a cube)")
    _refuse(path, "variable", variable)
    if head.startswith(b"\x93NUMPY"):
        from spectralmamba.scenes import numpy_file

        return lambda: numpy_file.read_numpy(path, band_axis=band_axis)
    _refuse(path, "band axis", band_axis)
    if head.startswith(TIFF_STARTS):
        from spectralmamba.scenes import geotiff

        return lambda: geotiff.read_geotiff(path)
    from spectralmamba.scenes import envi

    if suffix == ".hdr" or suffix in envi.DATA_SUFFIXES or envi.find_header(path):
        return lambda: envi.read_envi(path)
    raise _unknown(path, head, KNOWN_FORMATS)


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
