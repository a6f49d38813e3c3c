"""GeoTIFF, through GDAL's driver for it and no other."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from spectralmamba.errors import SceneError
from spectralmamba.scenes.scene import Calibration, RawScene, check_dtype, to_nanometres
from spectralmamba.scenes.sources import RawSource, unreadable

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""TIFF and BigTIFF in both byte orders."""

TIFF_TYPE_FORMATS = {3: "u2", 4: "u4", 16: "u8"}
"""SHORT, LONG and LONG8 (TIFF 6.0, section 2; BigTIFF), the types in which positions are stored."""

TIFF_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a number of each type, where it is not 1."""

POSITION_TAGS = {273: 279, 324: 325}
"""StripOffsets with StripByteCounts, TileOffsets with TileByteCounts (TIFF 6.0, sections 3 and 15)."""

TIME_TAGS = ("acquisition_time", "acquisition time", "start_time", "acquisitiondatetime")


class GeoTiffSource(RawSource):
    """The raw values of a GeoTIFF; the dataset stays open, one for a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()
        dataset = self.dataset()
        self.dtype = np.dtype(dataset.dtypes[0])
        self.shape = dataset.count, dataset.height, dataset.width
        self.block_shape = dataset.block_shapes[0]
        flags = dataset.mask_flag_enums[0]
        self.has_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def _forget(self) -> None:
        self._handle: Any = None
        self._process = 0
        self._lock = threading.Lock()

    def dataset(self) -> Any:
        """Return the open dataset of this process."""
        if self._process != os.getpid():  # a dataset must not be shared with a forked process
            self._handle, self._process = open_raster(self.path, "GTiff"), os.getpid()
        return self._handle

    def read(self, bands: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return the raw values `(len(bands), h, w)` of a window."""
        with self._lock:
            try:
                return self.dataset().read((bands + 1).tolist(), window=Window.from_slices(rows, columns))
            except RasterioError as error:
                raise unreadable(self.path, error.__cause__ or error) from error  # type: ignore[arg-type]

    def missing(self, rows: slice, columns: slice) -> np.ndarray | None:
        """Return the pixels `(h, w)` that the file's mask leaves out, None if it has none."""
        if not self.has_mask:
            return None
        with self._lock:
            try:
                return self.dataset().read_masks(1, window=Window.from_slices(rows, columns)) == 0
            except RasterioError as error:
                raise unreadable(self.path, error) from error


def open_raster(path: Path, driver: str) -> Any:
    """Open a local file with one GDAL driver.

    Raises:
        SceneError: The driver cannot read the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path.resolve(), driver=driver)
    except RasterioError as error:
        raise SceneError(
            f"cannot be opened as {driver}",
            file=path,
            found=str(error),
            expected="a whole file of this format",
            remedy="The file is damaged or incomplete; copy or download it again.",
        ) from error


def read_geotiff(path: Path) -> RawScene:
    """Open a GeoTIFF.

    Wavelength, unit, fwhm and bbl are taken from the tags of each band, else from lists in the tags of the file (domain
    ENVI or none), else from GDAL's domain IMAGERY (µm).

    Args:
        path: The file.

    Raises:
        SceneError: The file is damaged, cut off, or holds complex values.
    """
    check_positions(path)
    source = GeoTiffSource(path)
    check_dtype(path, source.dtype)
    dataset = source.dataset()
    tags = _BandTags(path, dataset)
    wavelength, fwhm, notes = to_nanometres(tags.numbers("wavelength"), tags.numbers("fwhm"), tags.units())
    if np.isnan(wavelength).all():
        micrometres = tags.imagery("CENTRAL_WAVELENGTH_UM"), tags.imagery("FWHM_UM")
        wavelength, fwhm, _ = to_nanometres(*micrometres, "µm")
    bbl = tags.numbers("bbl")
    if dataset.gcps[0]:
        notes.append("ground control points ignored; warp the scene to a regular grid for a georeferenced map")
    georeferenced = dataset.transform != Affine.identity()
    return RawScene(
        source,
        Calibration(np.array(dataset.scales), np.array(dataset.offsets), dataset.nodata),
        wavelength,
        fwhm,
        np.isnan(bbl) | (bbl != 0),
        dataset.crs,
        dataset.transform if georeferenced else None,
        tags.attributes() | ({"notes": notes} if notes else {}),
    )


@dataclass
class _BandTags:
    """What the tags of a dataset say about its bands."""

    path: Path
    dataset: Any

    def __post_init__(self) -> None:
        self.bands = [_lower(self.dataset.tags(band)) for band in self.dataset.indexes]
        self.whole = _lower(self.dataset.tags(ns="ENVI")) | _lower(self.dataset.tags())

    def numbers(self, name: str) -> np.ndarray:
        """Return a number a band `(L,)`, NaN where no tag says it."""
        if any(name in band for band in self.bands):
            texts = [band.get(name, "nan") for band in self.bands]
        elif name in self.whole:
            texts = self.whole[name].strip("{} \n").split(",")
        else:
            return np.full(len(self.bands), np.nan)
        try:
            numbers = np.array([float(text) for text in texts])
        except ValueError as error:
            raise self._error(name, str(error)) from error
        if len(numbers) != len(self.bands):
            raise self._error(name, f"{len(numbers)} numbers")
        return numbers

    def imagery(self, name: str) -> np.ndarray:
        """Return a number a band `(L,)` of GDAL's domain IMAGERY."""
        texts = [self.dataset.tags(band, ns="IMAGERY").get(name, "nan") for band in self.dataset.indexes]
        return np.array([float(text) for text in texts])

    def units(self) -> str | None:
        """Return the unit of the wavelengths, None if no tag says it."""
        for tags in (*self.bands, self.whole):
            for name in ("wavelength_units", "wavelength units", "wavelength_unit"):
                if tags.get(name):
                    return tags[name]
        return None

    def attributes(self) -> dict[str, Any]:
        """Return the acquisition time, if a tag says it."""
        tags = self.whole | _lower(self.dataset.tags(ns="IMAGERY"))
        return next(({"acquisition_time": tags[name]} for name in TIME_TAGS if tags.get(name)), {})

    def _error(self, name: str, found: str) -> SceneError:
        return SceneError(
            f"the tag {name!r} cannot be understood",
            file=self.path,
            found=found,
            expected=f"a number for each of the {len(self.bands)} bands",
            remedy="Correct or remove the tag.",
        )


def _lower(tags: dict[str, str]) -> dict[str, str]:
    return {name.lower(): text for name, text in tags.items()}


def check_positions(path: Path) -> None:
    """Compare the file's length with the positions of its tags, strips and tiles, of all its images.

    GDAL drops tags beyond the end of a file with a warning (the CRS may be among them), and notices missing blocks only
    when it comes to them. A block at position 0 is not stored and means nodata.

    Raises:
        SceneError: A part lies beyond the end of the file, or the directory of the file cannot be read.
    """
    with path.open("rb") as file:
        check_parts(path, file, path.stat().st_size)


def check_parts(path: Path, file: BinaryIO, size: int) -> None:
    """Do what `check_positions` does for an open file of so many bytes; the path is for messages."""
    try:
        end = max(_ends(file), default=0)
    except (ValueError, KeyError, OverflowError) as error:
        raise _cut(path, size, "a readable image file directory") from error
    if end > size:
        raise _cut(path, size, f"at least {end} bytes, where its last part ends")


def _cut(path: Path, size: int, expected: str) -> SceneError:
    return SceneError(
        "the TIFF file is cut off or damaged",
        file=path,
        found=f"{size} bytes",
        expected=expected,
        remedy="Copy or download the file again.",
    )


@dataclass(frozen=True)
class _TiffLayout:
    """How numbers are laid out in a TIFF or BigTIFF file (TIFF 6.0, section 2)."""

    order: str
    word: str
    count: str
    entry_bytes: int

    @classmethod
    def of(cls, head: bytes) -> _TiffLayout:
        order = "<" if head[:2] == b"II" else ">"
        big = np.frombuffer(head[2:4], order + "u2")[0] == 43
        return cls(order, order + "u8", order + "u8", 20) if big else cls(order, order + "u4", order + "u2", 12)


@dataclass(frozen=True)
class _Entry:
    """An entry of an image file directory: tag, type, count, and the values or their position."""

    layout: _TiffLayout
    raw: np.ndarray

    @property
    def tag(self) -> int:
        return int(self.raw[:2].view(self.layout.order + "u2")[0])

    @property
    def type(self) -> int:
        return int(self.raw[2:4].view(self.layout.order + "u2")[0])

    @property
    def count(self) -> int:
        return int(self.raw[4 : -self.field.size].view(self.layout.word)[0])

    @property
    def field(self) -> np.ndarray:
        return self.raw[-np.dtype(self.layout.word).itemsize :]

    @property
    def size(self) -> int:
        return self.count * TIFF_TYPE_BYTES.get(self.type, 1)

    @property
    def end(self) -> int:
        """Where the values end that lie outside the entry, 0 if they lie in it."""
        return 0 if self.size <= self.field.size else int(self.field.view(self.layout.word)[0]) + self.size

    def numbers(self, file: BinaryIO) -> np.ndarray:
        number_type = np.dtype(self.layout.order + TIFF_TYPE_FORMATS[self.type])
        if not self.end:
            return self.field[: self.size].view(number_type).astype(np.uint64)
        return _numbers(file, self.end - self.size, number_type, self.count).astype(np.uint64)


def _ends(file: BinaryIO) -> Iterator[int]:
    """Yield where the parts end that the image file directories point to."""
    head = file.read(16)
    layout = _TiffLayout.of(head)
    word_bytes = np.dtype(layout.word).itemsize
    position = int(np.frombuffer(head[word_bytes : 2 * word_bytes], layout.word)[0])
    seen: set[int] = set()
    while position and position not in seen:
        seen.add(position)
        count = int(_numbers(file, position, layout.count, 1)[0])
        start = position + np.dtype(layout.count).itemsize
        rows = _numbers(file, start, "u1", count * layout.entry_bytes).reshape(count, layout.entry_bytes)
        entries = {entry.tag: entry for entry in (_Entry(layout, row) for row in rows)}
        yield from (entry.end for entry in entries.values())
        for offsets_tag, counts_tag in POSITION_TAGS.items():
            if offsets_tag in entries and counts_tag in entries:
                offsets = entries[offsets_tag].numbers(file)
                ends = offsets + entries[counts_tag].numbers(file)
                yield int(np.max(ends[offsets > 0], initial=0))
        position = int(_numbers(file, start + count * layout.entry_bytes, layout.word, 1)[0])


def _numbers(file: BinaryIO, position: int, number_type: np.dtype[Any] | str, count: int) -> np.ndarray:
    number_type = np.dtype(number_type)
    file.seek(position)
    return np.frombuffer(file.read(count * number_type.itemsize), number_type, count)
