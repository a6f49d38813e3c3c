"""ENVI: a text header and a file of plain values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from spectralmamba.errors import SceneError
from spectralmamba.scenes.geotiff import open_raster
from spectralmamba.scenes.scene import Calibration, RawScene, to_nanometres
from spectralmamba.scenes.sources import FileSource

DATA_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
"""ENVI's numbers for types of real values (ENVI header files, "data type")."""

COMPLEX_DATA_TYPES = (6, 9)

INTERLEAVES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (2, 0, 1)}
"""Which axis of the file holds the bands, the rows and the columns."""

REQUIRED_KEYS = ("samples", "lines", "bands", "data type", "interleave", "byte order")

GEOREFERENCE_KEYS = ("map info", "projection info", "coordinate system string")

DATA_SUFFIXES = ("", ".img", ".dat", ".bsq", ".bil", ".bip", ".raw", ".bin", ".rfl", ".envi")
"""Endings of data files, beside a header with the same stem."""


@dataclass(frozen=True)
class EnviHeader:
    """The keys of a header, each of which is read in its type.

    Attributes:
        path: The header file.
        entries: Text by key, the keys in lower case; keys without value are left out.
    """

    path: Path
    entries: Mapping[str, str]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, lines and samples."""
        return tuple(self._positive(key) for key in ("bands", "lines", "samples"))  # type: ignore[return-value]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values with their byte order."""
        number = self.integer("data type")
        if number in COMPLEX_DATA_TYPES:
            raise self.error(
                "complex data cannot be classified",
                f"data type = {number}",
                f"a real data type, one of {', '.join(map(str, DATA_TYPES))}",
                "Save the magnitude or another real quantity and open that.",
            )
        if number not in DATA_TYPES:
            raise self.error("unknown data type", f"data type = {number}", f"one of {', '.join(map(str, DATA_TYPES))}")
        byte_order = self.integer("byte order")
        if byte_order not in (0, 1):
            raise self.error("unknown byte order", f"byte order = {byte_order}", "0 (little-endian) or 1 (big-endian)")
        return np.dtype("<>"[byte_order] + DATA_TYPES[number])

    @property
    def axes(self) -> tuple[int, int, int]:
        """Which axis of the file holds the bands, the rows and the columns."""
        interleave = self.entries["interleave"].split(";")[0].strip().lower()
        if interleave not in INTERLEAVES:
            raise self.error("unknown interleave", f"interleave = {interleave}", "bsq, bil or bip")
        return INTERLEAVES[interleave]

    def source(self, data_path: Path) -> FileSource:
        """Return the values of the data file that belongs to this header."""
        stored_shape = [0, 0, 0]
        for axis, length in zip(self.axes, self.shape, strict=True):
            stored_shape[axis] = length
        offset = self.integer("header offset", 0)
        return FileSource(data_path, self.dtype, tuple(stored_shape), self.axes, offset)  # type: ignore[arg-type]

    def integer(self, key: str, default: int | None = None) -> int:
        """Return the integer under `key`."""
        if key not in self.entries and default is not None:
            return default
        return self._converted(key, self._scalar(key), int, "an integer")

    def number(self, key: str) -> float | None:
        """Return the number under `key`, None if there is none."""
        if key not in self.entries:
            return None
        return self._converted(key, self._scalar(key), float, "a number")

    def numbers(self, key: str) -> np.ndarray | None:
        """Return a number for each band `(L,)`, None if there are none."""
        texts = self.texts(key)
        if texts is None:
            return None
        numbers = [self._converted(key, text, float, "numbers") for text in texts]
        if len(numbers) != self.shape[0]:
            raise self.error(f"the list {key!r} has not one entry a band", f"{len(numbers)}", f"{self.shape[0]}")
        return np.array(numbers)

    def texts(self, key: str) -> list[str] | None:
        """Return the entries of a list, None if there are none."""
        text = self.entries.get(key, "").strip("{} \n\t")
        return [entry.strip() for entry in text.rstrip(",").split(",")] if text else None

    def error(self, problem: str, found: str, expected: str, remedy: str | None = None) -> SceneError:
        """Return the error for this header."""
        return SceneError(
            problem, file=self.path, found=found, expected=expected, remedy=remedy or "Correct the header."
        )

    def _positive(self, key: str) -> int:
        value = self.integer(key)
        if value < 1:
            raise self.error("an empty scene", f"{key} = {value}", "1 or more")
        return value

    def _scalar(self, key: str) -> str:
        return self.entries[key].split(";")[0].strip("{} \n\t")

    def _converted(self, key: str, text: str, kind: Callable[[str], Any], expected: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            raise self.error("a value of the header cannot be understood", f"{key} = {text!r}", expected) from error


def read_header(path: Path) -> EnviHeader:
    """Read an ENVI header.

    Keys are case-insensitive and may be empty; lines that begin with `;` are comments; a value in braces may go over
    several lines.

    Args:
        path: The .hdr file.

    Raises:
        SceneError: The file is not an ENVI header, lacks keys, or contradicts itself.
    """
    text = path.read_bytes().decode("utf-8", errors="replace").lstrip("\ufeff")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(";")]
    if not lines or lines[0].strip() != "ENVI":
        first = repr(lines[0][:20]) if lines else "an empty file"
        raise SceneError(
            "is not an ENVI header",
            file=path,
            found=first,
            expected="ENVI in the first line",
            remedy="Name the header or the data file of an ENVI scene.",
        )
    entries: dict[str, str] = {}
    header = EnviHeader(path, entries)
    remaining = iter(lines[1:])
    for line in remaining:
        key, equals, value = line.partition("=")
        key, value = " ".join(key.lower().split()), value.strip()
        while equals and value.startswith("{") and "}" not in value:
            more = next(remaining, None)
            if more is None:
                raise header.error("a brace is never closed", f"{key} = {value[:20]} …", "a closing brace }")
            value = f"{value}\n{more.strip()}"
        if not equals or not value.strip("{} \n\t"):
            continue
        if entries.setdefault(key, value) != value:
            raise header.error(f"the key {key!r} is given twice", f"{entries[key]} and {value}", "one value")
    missing = [key for key in REQUIRED_KEYS if key not in entries]
    if missing:
        raise header.error(
            "the header lacks keys", f"no {', no '.join(missing)}", ", ".join(REQUIRED_KEYS), "Add them to the header."
        )
    return header


def read_envi(path: Path) -> RawScene:
    """Open an ENVI scene.

    Args:
        path: The header or the data file.

    Raises:
        SceneError: The header cannot be understood, the data file is missing or has another size than the header says,
            or the values are complex or compressed.
    """
    header_path = path if path.suffix.lower() == ".hdr" else find_header(path)
    if header_path is None:
        raise SceneError(
            "has no ENVI header beside it",
            file=path,
            found="a data file alone",
            expected=f"{path.stem}.hdr or {path.name}.hdr",
            remedy="Put the header into the same folder.",
        )
    header = read_header(header_path)
    if header.integer("file compression", 0):
        raise header.error("compressed ENVI files are not read", "file compression = 1", "0", "Save it uncompressed.")
    source = header.source(path if path != header_path else _find_data(header))
    source.check_size()
    crs, transform = _georeference(header)
    calibration, notes = _calibration(header)
    bands = source.shape[0]
    unknown = np.full(bands, np.nan)
    wavelength, fwhm, bbl = (header.numbers(key) for key in ("wavelength", "fwhm", "bbl"))
    wavelength, fwhm, unit_notes = to_nanometres(
        unknown if wavelength is None else wavelength,
        unknown if fwhm is None else fwhm,
        header.entries.get("wavelength units"),
    )
    good = np.ones(bands, bool) if bbl is None else bbl != 0
    attributes = _attributes(header, notes + unit_notes)
    return RawScene(source, calibration, wavelength, fwhm, good, crs, transform, attributes)


def find_header(data_path: Path) -> Path | None:
    """Return the header beside a data file, None if there is none."""
    names = f"{data_path.name}.hdr".lower(), f"{data_path.stem}.hdr".lower()
    beside = {entry.name.lower(): entry for entry in sorted(data_path.parent.iterdir()) if entry != data_path}
    return next((beside[name] for name in names if name in beside), None)


def _find_data(header: EnviHeader) -> Path:
    """Return the data file beside a header; of several the one that has the right size."""
    stem = header.path.stem.lower()
    names = [stem + suffix for suffix in DATA_SUFFIXES]
    folder = [entry for entry in sorted(header.path.parent.iterdir()) if entry != header.path and entry.is_file()]
    found = sorted((e for e in folder if e.name.lower() in names), key=lambda e: names.index(e.name.lower()))
    fitting = [entry for entry in found if entry.stat().st_size == _expected_size(header, entry)]
    if len(fitting) > 1:
        raise header.error(
            "several data files belong to this header",
            ", ".join(entry.name for entry in fitting),
            "one of its size",
            "Name the data file instead of the header.",
        )
    if not found:
        others = [entry.name for entry in folder if entry.stem.lower() == stem]
        raise header.error(
            "has no data file beside it",
            ", ".join(others) or "the header alone",
            f"{header.path.stem} without suffix or with one of {', '.join(DATA_SUFFIXES[1:])}",
            f"Open {others[0]} itself." if others else "Put the data file into the same folder, or name it directly.",
        )
    return (fitting or found)[0]


def _expected_size(header: EnviHeader, data_path: Path) -> int:
    source = header.source(data_path)
    return source.offset + source.dtype.itemsize * int(np.prod(source.stored_shape, dtype=object))


def _calibration(header: EnviHeader) -> tuple[Calibration, list[str]]:
    """Return gain and offset a band, divided by the reflectance scale factor, and the nodata value."""
    bands = header.shape[0]
    gain, offset = header.numbers("data gain values"), header.numbers("data offset values")
    factor = header.number("reflectance scale factor")
    if factor is not None and not factor > 0:
        raise header.error("impossible scale", f"reflectance scale factor = {factor}", "a number above 0")
    notes = ["values are (raw · gain + offset) / reflectance scale factor"] if gain is not None and factor else []
    divisor = factor or 1.0
    scale = (np.ones(bands) if gain is None else gain) / divisor
    nodata = header.number("data ignore value")
    return Calibration(scale, (np.zeros(bands) if offset is None else offset) / divisor, nodata), notes


def _attributes(header: EnviHeader, notes: list[str]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if "acquisition time" in header.entries:
        attributes["acquisition_time"] = header.entries["acquisition time"].strip("{} ")
    names = header.texts("band names")
    if names is not None:
        attributes["band_names"] = names
    if notes:
        attributes["notes"] = notes
    return attributes


def _georeference(header: EnviHeader) -> tuple[CRS | None, Affine | None]:
    """Let GDAL read the georeference, from a header of four pixels with the same lines.

    So it is right for every pairing of file names and every data type, also those that GDAL does not know.
    """
    lines = [f"{key} = {header.entries[key]}" for key in GEOREFERENCE_KEYS if key in header.entries]
    if not lines:
        return None, None
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "pixels"
        pixels.write_bytes(bytes(4))  # GDAL knows no file of a single byte
        start = "ENVI\nsamples = 2\nlines = 2\nbands = 1\ndata type = 1\ninterleave = bsq\nbyte order = 0"
        pixels.with_suffix(".hdr").write_text("\n".join([start, *lines, ""]), encoding="utf-8")
        with open_raster(pixels, "ENVI") as dataset:
            transform = dataset.transform
            if transform.determinant == 0 or not np.isfinite(tuple(transform)).all():
                raise header.error("impossible map info", header.entries.get("map info", ""), "pixels with an area")
            return dataset.crs, None if transform == Affine.identity() else transform
