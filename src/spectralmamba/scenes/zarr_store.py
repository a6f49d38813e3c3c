"""Zarr stores of format 2 and 3, as xarray and rioxarray write them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from rasterio.crs import CRS

from spectralmamba.errors import MissingPackageError, SceneError
from spectralmamba.scenes.mat import Variable, choose_variable
from spectralmamba.scenes.numpy_file import not_a_cube
from spectralmamba.scenes.scene import NANOMETRES_PER_UNIT, Calibration, RawScene, check_dtype, to_nanometres
from spectralmamba.scenes.sources import NUMERIC_KINDS, NamedSource, unreadable

METADATA_FILES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
"""Of which a store has one: format 3, then format 2 (Zarr specification)."""

CUBE_TYPES = frozenset(
    ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
)

ROW_NAMES = ("y", "northing", "lat", "latitude", "row", "rows", "line", "lines", "downtrack", "height")
COLUMN_NAMES = (
    *("x", "easting", "lon", "longitude", "column", "columns", "col", "cols"),
    *("sample", "samples", "crosstrack", "width"),
)
WAVELENGTH_NAMES = ("wavelength", "wavelengths", "center_wavelength", "central_wavelength", "wvl", "wl")
FWHM_NAMES = ("fwhm",)
GOOD_NAMES = ("good", "bbl", "good_wavelengths", "good_bands")

UNEVEN = 0.1
"""Pixels by which a coordinate may lie beside an even grid; coordinates are often kept as float32."""


BLOSC_HEADER_BYTES = 16
"""The last four are the length of the chunk with its header (c-blosc, README_CHUNK_FORMAT, "cbytes")."""


class ZarrSource(NamedSource):
    """An array of a store; a read decodes the chunks of its window alone."""

    def read_stored(self, window: tuple[slice, slice, slice]) -> np.ndarray:
        """Return a window of the array; a chunk that is not stored is the array's fill value."""
        zarr = zarr_package(self.path)
        try:
            array = zarr.open_array(self.path / self.name, mode="r")
            if array.shape != self.stored_shape:
                raise ValueError(f"an array of shape {array.shape} where it was {self.stored_shape}")
            check_chunks(self.path / self.name, array, list(window))
            return array[window]
        except Exception as error:  # every codec raises errors of its own
            raise unreadable(self.path, error) from error


def is_store(path: Path) -> bool:
    """Tell whether a path is a folder with the metadata of a Zarr store."""
    return any((path / name).is_file() for name in METADATA_FILES)


def zarr_package(path: Path) -> Any:
    """Return the package zarr, which is imported when it is needed.

    Args:
        path: The store, for the message.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise MissingPackageError.of("Zarr stores need", "zarr", "3.0", "zarr", path) from error
    return zarr


def read_zarr(path: Path, *, variable: str | None = None) -> RawScene:
    """Open a cube in a Zarr store.

    Its axes are told by the names of its dimensions: the one that is neither rows nor columns holds the bands. Wavelengths,
    fwhm and good bands are variables along that dimension. The grid is that of the grid mapping's GeoTransform, and where the
    coordinates of rows and columns say otherwise, theirs.

    Args:
        path: The store's folder.
        variable: The name of the cube; None takes the only numeric variable with three dimensions.

    Raises:
        SceneError: The store is damaged, or the cube is not there, not numeric, one of several, or has other dimensions.
        MissingPackageError: zarr is not installed.
    """
    opened = _open(path)
    stored_types = {
        str(name): np.dtype(array.encoding.get("dtype", array.dtype))
        for name, array in sorted(opened.data_vars.items())
    }
    variables = {name: Variable(opened[name].shape, dtype.name) for name, dtype in stored_types.items()}
    name = choose_variable(path, variables, variable, CUBE_TYPES)
    cube = opened[name]
    check_dtype(path, stored_types[name])
    if 0 in cube.shape:
        raise not_a_cube(path, f"{name} ({variables[name]})")
    axes = _axes(path, cube)
    chunks = cube.encoding["chunks"]
    block_shape = min(chunks[axes[1]], cube.shape[axes[1]]), min(chunks[axes[2]], cube.shape[axes[2]])
    source = ZarrSource(path, name, stored_types[name], cube.shape, axes, block_shape)  # type: ignore[arg-type]
    band_dim, row_dim, column_dim = (str(cube.dims[axis]) for axis in axes)
    wavelength, fwhm, good, notes = _band_metadata(path, cube, band_dim)
    transform, more_notes = _transform(path, cube, row_dim, column_dim)
    attributes = {}
    if acquired := {**opened.attrs, **cube.attrs}.get("acquisition_time"):
        attributes["acquisition_time"] = str(acquired)
    if notes + more_notes:
        attributes["notes"] = notes + more_notes
    calibration = _calibration(path, cube, source.shape[0])
    georeference = None if transform == Affine.identity() else transform
    return RawScene(source, calibration, wavelength, fwhm, good, _crs(path, cube), georeference, attributes)


def check_chunks(folder: Path, array: Any, window: Sequence[slice] | None = None) -> None:
    """Compare the lengths of chunks compressed by Blosc with what they say, because its decoder reads past the end of a short one.

    Chunks in shards have lengths and checksums in the shard's index.

    Args:
        folder: The array's folder.
        array: A `zarr.Array`.
        window: The part whose chunks count, a slice an axis; all of it if None.

    Raises:
        ValueError: A chunk is shorter or longer.
    """
    if array.shards is not None or not array.compressors or "Blosc" not in type(array.compressors[-1]).__name__:
        return
    window = [slice(0, size) for size in array.shape] if window is None else window
    chunks = [range(part.start // size, -(-part.stop // size)) for part, size in zip(window, array.chunks, strict=True)]
    for indices in product(*chunks):
        file = folder / array.metadata.encode_chunk_key(indices)
        if not file.exists():
            continue
        found = file.stat().st_size
        with file.open("rb") as opened:
            head = opened.read(BLOSC_HEADER_BYTES)
        told = int.from_bytes(head[12:16], "little")
        if found != told or len(head) < BLOSC_HEADER_BYTES:
            raise ValueError(f"{found} bytes in the chunk {file.relative_to(folder)}, whose header tells of {told}")


def _open(path: Path) -> xr.Dataset:
    """Open a store lazily, with all that has at most one dimension in memory and as coordinates."""
    zarr = zarr_package(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's stores
            opened = xr.open_zarr(
                path, chunks=None, consolidated=False, decode_coords="all", decode_times=False, decode_timedelta=False
            )
            small = [name for name, variable in opened.variables.items() if variable.ndim < 2]
            for name in small:
                check_chunks(path / str(name), zarr.open_array(path / str(name), mode="r"))
                opened.variables[name].load()
    except Exception as error:  # whatever damaged metadata lead to
        raise SceneError(
            "cannot be opened as a Zarr store",
            file=path,
            found=str(error) or type(error).__name__,
            expected="a group of arrays with named dimensions, as xarray's to_zarr writes it",
            remedy="Copy the store again if it is damaged or incomplete; else write it with xarray.",
        ) from error
    return opened.set_coords(small)


def _axes(path: Path, cube: xr.DataArray) -> tuple[int, int, int]:
    """Return the axes of bands, rows and columns, told by the names of the dimensions."""
    names = [str(name).lower() for name in cube.dims]
    rows = [axis for axis, name in enumerate(names) if name in ROW_NAMES]
    columns = [axis for axis, name in enumerate(names) if name in COLUMN_NAMES]
    if len(rows) != 1 or len(columns) != 1:
        raise SceneError(
            "the dimensions do not tell rows and columns",
            file=path,
            found=f"{cube.name} ({', '.join(map(str, cube.dims))})",
            expected="dimensions such as (band, y, x), in any order",
            remedy="Rename them with xarray: Dataset.rename.",
        )
    return 3 - rows[0] - columns[0], rows[0], columns[0]


def _along(cube: xr.DataArray, dim: str, names: Iterable[str]) -> xr.DataArray | None:
    """Return the coordinate of a dimension that has the first of these names, None if there is none."""
    there = {str(name).lower(): array for name, array in cube.coords.items() if array.dims == (dim,)}
    return next((there[name] for name in names if name in there), None)


def _numbers(path: Path, coordinate: xr.DataArray) -> np.ndarray:
    try:
        return coordinate.values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise _not_understood(path, str(coordinate.name), error, "numbers") from error


def _band_metadata(path: Path, cube: xr.DataArray, dim: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return wavelength and fwhm in nm, which bands are good, each `(L,)`, and notes on what was assumed."""
    unknown = np.full(cube.sizes[dim], np.nan)
    centres, widths, flags = (_along(cube, dim, names) for names in (WAVELENGTH_NAMES, FWHM_NAMES, GOOD_NAMES))
    bands = cube.coords.get(dim)
    if centres is None and bands is not None and _units(bands).lower() in NANOMETRES_PER_UNIT:
        centres = bands
    units = "" if centres is None else _units(centres)
    wavelength = unknown if centres is None else _numbers(path, centres)
    fwhm = unknown if widths is None else _numbers(path, widths)
    good = np.ones(len(unknown)) if flags is None else _numbers(path, flags)
    _, fwhm_nm, notes = to_nanometres(wavelength, fwhm, units if widths is None else _units(widths) or units)
    wavelength_nm, _, more_notes = to_nanometres(wavelength, fwhm, units)
    return wavelength_nm, fwhm_nm, np.isnan(good) | (good != 0), list(dict.fromkeys(more_notes + notes))


def _units(coordinate: xr.DataArray) -> str:
    return str(coordinate.attrs.get("units", "")).strip()


def _calibration(path: Path, cube: xr.DataArray, bands: int) -> Calibration:
    """Return what the CF attributes say; the nodata value is one of the raw values."""
    said = {**cube.attrs, **cube.encoding}
    numbers: dict[str, Any] = {}
    for name in ("scale_factor", "add_offset", "_FillValue", "missing_value", "nodata"):
        try:
            if said.get(name) is not None:
                value = np.asarray(said[name])
                numbers[name] = (value if value.dtype.kind in NUMERIC_KINDS else value.astype(np.float64)).item()
        except (TypeError, ValueError) as error:
            raise _not_understood(path, name, error, "a number") from error
    nodata = next((numbers[name] for name in ("_FillValue", "missing_value", "nodata") if name in numbers), None)
    scale, offset = numbers.get("scale_factor", 1.0), numbers.get("add_offset", 0.0)
    return Calibration(np.full(bands, scale), np.full(bands, offset), nodata)


def _grid_mapping(cube: xr.DataArray) -> xr.DataArray | None:
    import rioxarray  # noqa: F401  registers `.rio`

    return cube.coords.get(cube.rio.grid_mapping)


def _crs(path: Path, cube: xr.DataArray) -> CRS | None:
    import rioxarray  # noqa: F401  registers `.rio`
    from pyproj.exceptions import ProjError
    from rasterio.errors import CRSError

    try:
        return cube.rio.crs
    except (CRSError, ProjError) as error:
        raise _not_understood(path, cube.rio.grid_mapping, error, "a coordinate reference system") from error


def _transform(path: Path, cube: xr.DataArray, row_dim: str, column_dim: str) -> tuple[Affine | None, list[str]]:
    """Return the transform, None without georeference, and notes on what was left out."""
    mapping = _grid_mapping(cube)
    said = None if mapping is None else mapping.attrs.get("GeoTransform")
    stored = None
    if said is not None:
        try:
            stored = Affine.from_gdal(*np.array(said.split() if isinstance(said, str) else said, np.float64).tolist())
        except (TypeError, ValueError) as error:
            raise _not_understood(path, "GeoTransform", error, "six numbers") from error
    rows, columns = _along(cube, row_dim, ROW_NAMES), _along(cube, column_dim, COLUMN_NAMES)
    if rows is None or columns is None or (stored is not None and (stored.b != 0 or stored.d != 0)):
        return stored, []
    row_line = _line(_numbers(path, rows), None if stored is None else (stored.f, stored.e))
    column_line = _line(_numbers(path, columns), None if stored is None else (stored.c, stored.a))
    if row_line is None or column_line is None:
        return None, [
            f"georeference ignored: {rows.name} and {columns.name} are not the centres of evenly spaced pixels"
        ]
    (top, height), (left, width) = row_line, column_line
    transform = Affine(width, 0.0, left, 0.0, height, top)
    if stored is None or transform == stored:
        return transform, []
    return transform, [f"GeoTransform ignored: the coordinates {rows.name} and {columns.name} are of another grid"]


def _line(centres: np.ndarray, stored: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return edge and step of pixels with these centres: those stored if they fit, None if none fit."""
    count = len(centres)
    candidates = [] if stored is None else [stored]
    if count > 1:
        step = float(centres[-1] - centres[0]) / (count - 1)
        candidates.append((float(centres[0]) - step / 2, step))
    for edge, step in candidates:
        if np.abs(edge + step * (np.arange(count) + 0.5) - centres).max() < UNEVEN * abs(step):
            return edge, step
    return None


def _not_understood(path: Path, name: str, error: Exception, expected: str) -> SceneError:
    return SceneError(
        f"{name!r} cannot be understood",
        file=path,
        found=error,
        expected=expected,
        remedy="Correct or remove it in the store.",
    )
