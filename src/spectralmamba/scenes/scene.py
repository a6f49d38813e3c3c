"""What all formats share: raw values and their meaning become a lazy `xarray.DataArray`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from rasterio.crs import CRS
from xarray.backends import BackendArray
from xarray.core import indexing

from spectralmamba.errors import SceneError
from spectralmamba.scenes.sources import NUMERIC_KINDS, RawSource, contiguous

BLOCK_VALUES = 4_000_000
"""Values in memory at once while a whole scene is scanned (16 MB of float32)."""

MICROMETRES_BELOW = 100.0
"""Wavelengths without unit are µm if all are below this: no optical sensor measures below 100 nm or beyond 100 µm."""

_CACHED_VALUES = 1 << 18

_SAFE = 1e18
"""Scales and offsets below this keep 64-bit integers finite in float32."""

NANOMETRES_PER_UNIT = {
    **dict.fromkeys(("nanometers", "nanometres", "nanometer", "nanometre", "nm"), 1.0),
    **dict.fromkeys(("micrometers", "micrometres", "micrometer", "micrometre", "microns", "micron", "um"), 1000.0),
    **dict.fromkeys(("µm", "μm"), 1000.0),
    **dict.fromkeys(("angstroms", "angstrom"), 0.1),
    **dict.fromkeys(("meters", "metres", "m"), 1e9),
}


@dataclass(frozen=True)
class Calibration:
    """How raw values become physical ones: NaN for nodata, else raw · scale + offset.

    Attributes:
        scale: A factor a band `(L,)`.
        offset: A summand a band `(L,)`.
        nodata: The raw value that stands for nothing measured, if any.
    """

    scale: np.ndarray
    offset: np.ndarray
    nodata: float | int | None = None

    def physical(self, raw: np.ndarray, bands: np.ndarray, missing: np.ndarray | None = None) -> np.ndarray:
        """Return float32 values of the shape of `raw` `(len(bands), h, w)`, NaN where nothing was measured."""
        values = np.empty(raw.shape, np.float32)
        self.convert(raw, bands, missing, values)
        return values

    def convert(self, raw: np.ndarray, bands: np.ndarray, missing: np.ndarray | None, physical: np.ndarray) -> None:
        """Write what `physical` returns into an array."""
        scale, offset = self.scale[bands, None, None], self.offset[bands, None, None]
        with np.errstate(over="ignore", invalid="ignore"):
            if offset.any():
                physical[...] = raw * scale + offset
            elif (scale != 1).any():
                np.multiply(raw, scale, out=physical, casting="same_kind")
            else:
                physical[...] = raw
            if not self.finite(raw.dtype, bands):
                np.copyto(physical, np.nan, where=~np.isfinite(physical))
            nothing = self.is_nodata(raw)
            if nothing is not None:
                np.copyto(physical, np.nan, where=nothing)
        if missing is not None:
            physical[:, missing] = np.nan

    def is_nodata(self, raw: np.ndarray) -> np.ndarray | None:
        """Return where `raw` holds the nodata value, None if it cannot hold a finite one."""
        nodata = self.raw_nodata(raw.dtype)
        return None if nodata is None else raw == nodata

    def raw_nodata(self, dtype: np.dtype[Any]) -> Any:
        """Return the nodata value as a number of a raw type, None if it cannot be a finite one."""
        if self.nodata is None or not np.isfinite(self.nodata):
            return None
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                return dtype.type(self.nodata)
        limits = np.iinfo(dtype)
        if self.nodata != int(self.nodata) or not limits.min <= self.nodata <= limits.max:
            return None
        return dtype.type(int(self.nodata))

    def finite(self, dtype: np.dtype[Any], bands: np.ndarray) -> bool:
        """Tell whether raw values of a type become finite ones, whatever they are."""
        return (
            dtype.kind != "f"
            and bool((np.abs(self.scale[bands]) < _SAFE).all())
            and bool((np.abs(self.offset[bands]) < _SAFE).all())
        )


@dataclass(frozen=True)
class RawScene:
    """What a reader takes from a file.

    Attributes:
        source: The raw values.
        calibration: Their meaning.
        wavelength: Band centres in nm `(L,)`, NaN where unknown.
        fwhm: Full widths at half maximum in nm `(L,)`, NaN where unknown.
        good: False where the file calls a band bad `(L,)`.
        crs: The coordinate reference system, if any.
        transform: From column and row to coordinates; None without georeference.
        attributes: What else the file says; `notes` lists what was assumed.
        reasons: Why bands are not good, by band number, where more is known than that the file says so.
    """

    source: RawSource
    calibration: Calibration
    wavelength: np.ndarray
    fwhm: np.ndarray
    good: np.ndarray
    crs: CRS | None = None
    transform: Affine | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    @classmethod
    def without_metadata(cls, source: RawSource) -> RawScene:
        """Return the scene of a file that holds nothing but values."""
        bands = source.shape[0]
        unknown = np.full(bands, np.nan)
        calibration = Calibration(np.ones(bands), np.zeros(bands))
        return cls(source, calibration, unknown, unknown.copy(), np.ones(bands, bool))


@dataclass(frozen=True)
class Place:
    """Where a scene lies.

    Attributes:
        crs: Its coordinate reference system, if any.
        transform: From column and row to coordinates; None without georeference.
    """

    crs: CRS | None = None
    transform: Affine | None = None


class PhysicalArray(BackendArray):
    """The lazy values `(L, H, W)` of a scene: each access reads its window and no more."""

    def __init__(self, source: RawSource, calibration: Calibration) -> None:
        self.source, self.calibration = source, calibration
        self.shape, self.dtype = source.shape, np.dtype(np.float32)

    def __deepcopy__(self, memo: dict[int, Any]) -> PhysicalArray:
        return self

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        indices = [np.arange(size)[part] for part, size in zip(key, self.shape, strict=True)]
        without_scalars = tuple(0 if np.ndim(part) == 0 else slice(None) for part in indices)
        bands, rows, columns = (np.atleast_1d(part) for part in indices)
        if not (bands.size and rows.size and columns.size):
            return np.empty((bands.size, rows.size, columns.size), np.float32)[without_scalars]
        window = slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)
        values = np.empty((bands.size, *(part.stop - part.start for part in window)), np.float32)
        for lines in self._pieces(bands, *window):
            raw, missing = self.source.read(bands, lines, window[1]), self.source.missing(lines, window[1])
            within = slice(lines.start - window[0].start, lines.stop - window[0].start)
            self.calibration.convert(raw, bands, missing, values[:, within])
        values = values[:, contiguous(rows - rows.min())][:, :, contiguous(columns - columns.min())]
        return values[without_scalars]

    def _pieces(self, bands: np.ndarray, rows: slice, columns: slice) -> Iterator[slice]:
        """Yield rows that are converted while they are in a processor's cache, whole blocks of the file at least."""
        block = self.source.block_shape[0]
        lines = max(1, _CACHED_VALUES // (bands.size * (columns.stop - columns.start)) // block) * block
        for first in range(rows.start - rows.start % block, rows.stop, lines):
            yield slice(max(first, rows.start), min(first + lines, rows.stop))


def build_scene(raw: RawScene) -> xr.DataArray:
    """Return the scene as the contract in `docs/architecture.md` describes it.

    Raises:
        SceneError: No band of the scene can be used.
    """
    from spectralmamba.scenes.statistics import find_bad_bands

    check_dtype(raw.source.path, raw.source.dtype)
    reasons, statistics = find_bad_bands(raw)
    bands = np.arange(1, raw.source.shape[0] + 1)
    lazy = indexing.LazilyIndexedArray(PhysicalArray(raw.source, raw.calibration))
    coordinates = {
        "band": bands,
        "wavelength": ("band", raw.wavelength.astype(np.float64)),
        "fwhm": ("band", raw.fwhm.astype(np.float64)),
        "good": ("band", np.array([band not in reasons for band in bands.tolist()])),
    }
    attributes = {
        "source": str(raw.source.path),
        "raw_dtype": raw.source.dtype.name,
        "bad_band_reasons": reasons,
        **raw.attributes,
        "statistics": statistics,
    }
    scene = xr.DataArray(xr.Variable(("band", "y", "x"), lazy), coords=coordinates, attrs=attributes)
    block_rows, block_columns = raw.source.block_shape
    scene.encoding["preferred_chunks"] = {"band": len(bands), "y": block_rows, "x": block_columns}
    scene = placed(scene, Place(raw.crs, raw.transform))
    nodata = raw.calibration.nodata
    if nodata is not None and not abs(nodata) > float(np.finfo(np.float32).max):
        scene = scene.rio.write_nodata(nodata, encoded=True)
    return scene


def placed(scene: xr.DataArray, place: Place) -> xr.DataArray:
    """Return a scene `(band, y, x)` with transform, CRS and, if it is not rotated, the coordinates of pixel centres."""
    import rioxarray  # noqa: F401  registers `.rio`

    if place.transform is not None:
        if place.transform.b == 0 and place.transform.d == 0:
            columns, rows = scene.sizes["x"], scene.sizes["y"]
            scene = scene.assign_coords(
                x=_pixel_centres(place.transform.c, place.transform.a, columns),
                y=_pixel_centres(place.transform.f, place.transform.e, rows),
            )
        scene = scene.rio.write_transform(place.transform)
    if place.crs is not None:
        scene = scene.rio.write_crs(place.crs)
    return scene


def _pixel_centres(edge: float, step: float, count: int) -> np.ndarray:
    """Return pixel centres of which the first leads back to `edge` exactly, because rioxarray subtracts half a step."""
    centres = edge + step * (np.arange(count) + 0.5)
    first = centres[0]
    for candidate in (first, np.nextafter(first, -np.inf), np.nextafter(first, np.inf)):
        if candidate - step / 2 == edge:
            centres[0] = candidate
            break
    return centres


def check_dtype(path: Path, dtype: np.dtype[Any]) -> None:
    """Refuse values that are not real numbers.

    Raises:
        SceneError: Complex, logical, text, struct or object values.
    """
    if dtype.kind not in NUMERIC_KINDS:
        kind = "complex values" if dtype.kind == "c" else f"values of type {dtype}"
        raise SceneError(
            "these values are not measurements of a scene",
            file=path,
            found=kind,
            expected="integer or floating-point values",
            remedy="Save the cube as real numbers (of complex data the magnitude, for instance) and open that.",
        )


def to_nanometres(
    wavelength: np.ndarray, fwhm: np.ndarray, units: str | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Convert band centres and widths to nm.

    Args:
        wavelength: Band centres `(L,)`, NaN where unknown.
        fwhm: Widths `(L,)` in the same unit.
        units: What the file says; None or "Unknown" lets the values decide.

    Returns:
        Centres and widths in nm, and notes on what was assumed.
    """
    named = (units or "").strip().lower()
    if np.isnan(wavelength).all() and np.isnan(fwhm).all():
        return wavelength, fwhm, []
    if named in NANOMETRES_PER_UNIT:
        factor = NANOMETRES_PER_UNIT[named]
        return wavelength * factor, fwhm * factor, []
    unknown = np.full_like(wavelength, np.nan)
    if named not in ("", "unknown"):
        return unknown, unknown.copy(), [f"wavelengths ignored: their unit is {units!r}, not a length"]
    if np.isnan(wavelength).all():
        return unknown, unknown.copy(), ["fwhm ignored: there is neither a unit nor a wavelength to tell it"]
    if np.nanmax(wavelength) < MICROMETRES_BELOW:
        return wavelength * 1000, fwhm * 1000, ["wavelengths have no unit; taken as µm, because all are below 100"]
    return wavelength, fwhm, ["wavelengths have no unit; taken as nm, because they reach 100 or more"]


def has_georeference(scene: xr.DataArray) -> bool:
    """Tell whether a map of `scene` can carry coordinates.

    Args:
        scene: A scene `(band, y, x)`.

    Returns:
        True if pixels have coordinates (a transform other than column and row), with or without a CRS.
    """
    import rioxarray  # noqa: F401  registers `.rio`

    return scene.rio.transform() != Affine.identity()


def file_state(scene: xr.DataArray) -> dict[str, Any]:
    """Return what tells a scene's file from others and from itself after a change: path, and what `path_state` says of it.

    Args:
        scene: A scene; in memory if its source is no file.
    """
    source = Path(str(scene.attrs.get("source", "in memory")))
    try:
        return {"source": str(source.resolve()), **path_state(source)}
    except OSError:
        return {"source": str(source)}


def path_state(path: Path) -> dict[str, int]:
    """Return what changes with a file or folder: its bytes, and when it changed.

    Args:
        path: A file or a folder.

    Returns:
        `bytes` and, as `changed`, the time of a file's last change in ns. Of a folder, which a Zarr store is, the bytes of all
        files inside, and a number made of their names, bytes and times, which no newer or older chunk leaves as it is.

    Raises:
        OSError: It is not there.
    """
    found = path.stat()
    if not path.is_dir():
        return {"bytes": found.st_size, "changed": found.st_mtime_ns}
    files = {}
    for file in path.rglob("*"):
        found = file.stat()
        if S_ISREG(found.st_mode):
            files[file.relative_to(path).as_posix()] = found.st_size, found.st_mtime_ns
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).digest()
    return {"bytes": sum(size for size, _ in files.values()), "changed": int.from_bytes(digest[:7])}


def good_values(scene: xr.DataArray, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
    """Read the good bands of a window.

    Args:
        scene: A scene `(band, y, x)`.
        rows: Rows of the window.
        columns: Columns of the window.

    Returns:
        float32 `(good bands, h, w)`, NaN where nothing was measured.
    """
    return scene.isel(band=np.flatnonzero(scene["good"].values), y=rows, x=columns).values


def row_blocks(scene: xr.DataArray, values: int = BLOCK_VALUES) -> Iterator[slice]:
    """Yield slices of rows that cover the scene, each of about `values` values, whole file blocks where they fit."""
    bands, height, width = scene.shape
    step = max(1, values // max(1, bands * width))
    block = int(scene.encoding.get("preferred_chunks", {}).get("y", 1))
    if step > block:
        step -= step % block
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def valid_mask(scene: xr.DataArray) -> np.ndarray:
    """Tell which pixels can be used.

    Args:
        scene: A scene `(band, y, x)`; it is read by blocks of rows, in bounded memory.

    Returns:
        bool `(H, W)`, True where all good bands are finite.

    Raises:
        SceneError: The file cannot be read any more.
    """
    valid = np.zeros(scene.shape[1:], bool)
    if scene["good"].values.any():
        for rows in row_blocks(scene):
            valid[rows] = np.isfinite(good_values(scene, rows)).all(axis=0)
    return valid
