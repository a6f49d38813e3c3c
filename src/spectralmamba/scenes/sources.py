"""Raw values, exactly as a file stores them, read window by window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, cast

import numpy as np

from spectralmamba.errors import SceneError

NUMERIC_KINDS = "iuf"

GDAL_CACHE = 32
"""MB that GDAL keeps of rasters that are read once and in order: more only costs memory and the time to fill it."""

AHEAD_BYTES = 16384
"""What an operating system reads ahead at least, so that lines no longer than this are read whole."""


class RawSource(ABC):
    """A cube of raw values in a file, as `(L, H, W)` whatever the order in the file.

    A source is immutable: copies share it, and pickling carries its description rather than its values where the
    file can be read again.

    Attributes:
        path: The file.
        dtype: The type of the raw values.
        shape: Bands, rows and columns.
        block_shape: Rows and columns that are cheap to read together.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, int, int]
    block_shape: tuple[int, int]

    @abstractmethod
    def read(self, bands: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return the raw values `(len(bands), h, w)` of a window.

        Args:
            bands: Band indices counted from 0, in any order.
            rows: Start and stop row, without a step.
            columns: Start and stop column, without a step.

        Raises:
            SceneError: The file has gone, shrunk or is damaged.
        """

    def missing(self, rows: slice, columns: slice) -> np.ndarray | None:
        """Return the pixels `(h, w)` that the file masks out beside its nodata value, None if it has no mask."""
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> RawSource:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        make, arguments, state, *rest = cast("tuple[Any, ...]", super().__reduce_ex__(protocol))
        # Where it is read again may be another working directory.
        return make, arguments, state | {"path": self.path.absolute()}, *rest


@dataclass(frozen=True, eq=False)
class ArraySource(RawSource):
    """A cube that its format can only give whole (MATLAB v5), kept in memory in its raw type.

    Attributes:
        path: The file.
        cube: Raw values `(L, H, W)`.
    """

    path: Path
    cube: np.ndarray

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        """The type of the raw values."""
        return self.cube.dtype

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """Bands, rows and columns."""
        return self.cube.shape  # type: ignore[return-value]

    @property
    def block_shape(self) -> tuple[int, int]:  # type: ignore[override]
        """One row."""
        return 1, self.cube.shape[2]

    def read(self, bands: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return the raw values `(len(bands), h, w)` of a window."""
        return self.cube[:, rows, columns][contiguous(bands)]


@dataclass(frozen=True, eq=False)
class NamedSource(RawSource):
    """An array in a file that holds several by name, of which a library reads windows.

    Attributes:
        path: The file.
        name: The array.
        dtype: The type of the raw values.
        stored_shape: The lengths in the order of the array.
        axes: Which axis of the array holds the bands, the rows and the columns.
        block_shape: Rows and columns of a chunk.
    """

    path: Path
    name: str
    dtype: np.dtype[Any]
    stored_shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    block_shape: tuple[int, int]
    shape: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        bands, rows, columns = (self.stored_shape[axis] for axis in self.axes)
        object.__setattr__(self, "shape", (bands, rows, columns))

    def read(self, bands: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return the raw values `(len(bands), h, w)` of a window."""
        first = int(bands.min())
        window = dict(zip(self.axes, (slice(first, int(bands.max()) + 1), rows, columns), strict=True))
        stored = self.read_stored((window[0], window[1], window[2]))
        return stored.transpose(self.axes)[contiguous(bands - first)]

    @abstractmethod
    def read_stored(self, window: tuple[slice, slice, slice]) -> np.ndarray:
        """Return a window of the array, in its own order.

        Raises:
            SceneError: The file has gone or is damaged.
        """


@dataclass(frozen=True, eq=False)
class FileSource(RawSource):
    """An uncompressed cube in a file, of which each read takes the lines of its window.

    The file is not mapped into memory: that reads far ahead of small windows, and kills the process if the file shrinks.

    Attributes:
        path: The file.
        dtype: The type of the raw values, with their byte order.
        stored_shape: The three lengths in the order of the file, of which the last runs fastest.
        axes: Which axis of the file holds the bands, the rows and the columns.
        offset: Bytes before the first value.
    """

    path: Path
    dtype: np.dtype[Any]
    stored_shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    offset: int = 0
    shape: tuple[int, int, int] = field(init=False)
    block_shape: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        bands, rows, columns = (self.stored_shape[axis] for axis in self.axes)
        object.__setattr__(self, "shape", (bands, rows, columns))
        object.__setattr__(self, "block_shape", (1, columns))

    def read(self, bands: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return the raw values `(len(bands), h, w)` of a window."""
        planes, lines, samples = self.stored_window(bands, rows, columns)
        stored = np.empty((len(planes), lines.stop - lines.start, samples.stop - samples.start), self.dtype)
        self.read_planes(planes, lines, samples, stored)
        return stored.transpose(self.axes)[self.bands_in_window(bands)]

    def stored_window(self, bands: np.ndarray, rows: slice, columns: slice) -> tuple[list[int], slice, slice]:
        """Return what of the file's three axes is read for a window."""
        spans = slice(int(bands.min()), int(bands.max()) + 1), rows, columns
        planes, lines, samples = (spans[self.axes.index(axis)] for axis in range(3))
        return bands.tolist() if self.axes[0] == 0 else list(range(planes.start, planes.stop)), lines, samples

    def bands_in_window(self, bands: np.ndarray) -> np.ndarray | slice:
        """Return where the bands are among those that are read for a window."""
        return slice(None) if self.axes[0] == 0 else contiguous(bands - bands.min())

    def read_planes(self, planes: list[int], lines: slice, samples: slice, to: np.ndarray) -> None:
        """Fill an array with a part of the file, in its own order.

        Raises:
            SceneError: The file has gone, shrunk or is damaged.
        """
        in_one = to.shape[1:] == self.stored_shape[1:] and isinstance(contiguous(np.array(planes)), slice)
        try:
            with self.path.open("rb", buffering=0) as file:
                if in_one:
                    self._read_run(file, (planes[0], 0, 0), to.reshape(-1))
                else:
                    for plane, values in zip(planes, to, strict=True):
                        self._read_plane(file, plane, lines, samples, values)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _read_plane(self, file: FileIO, plane: int, lines: slice, samples: slice, to: np.ndarray) -> None:
        """Read a window of two axes, whole lines at once where leaving parts out would not spare the disk anything."""
        height, width = to.shape
        length = self.stored_shape[2]
        if width == length:
            self._read_run(file, (plane, lines.start, 0), to.reshape(-1))
        elif 2 * width >= length or length * self.dtype.itemsize <= AHEAD_BYTES:
            run = np.empty(height * length, self.dtype)
            self._read_run(file, (plane, lines.start, 0), run)
            to[...] = run.reshape(height, length)[:, samples]
        else:
            for line, values in zip(range(lines.start, lines.stop), to, strict=True):
                self._read_run(file, (plane, line, samples.start), values)

    def _read_run(self, file: FileIO, start: tuple[int, int, int], values: np.ndarray) -> None:
        """Fill a contiguous array with values that follow each other in the file."""
        _, lines, samples = self.stored_shape
        file.seek(self.offset + self.dtype.itemsize * ((start[0] * lines + start[1]) * samples + start[2]))
        unread = memoryview(values.view(np.uint8).data)
        while unread:
            count = file.readinto(unread)
            if not count:
                raise OSError("the file ends too early")
            unread = unread[count:]

    def check_size(self) -> None:
        """Compare the file's length with what its header promises.

        Raises:
            SceneError: The file is shorter or longer.
        """
        expected = self.offset + self.dtype.itemsize * int(np.prod(self.stored_shape, dtype=object))
        found = self.path.stat().st_size
        if found != expected:
            raise SceneError(
                "the data file does not have the size that its header promises",
                file=self.path,
                found=f"{found} bytes",
                expected=f"{expected} bytes ({' × '.join(map(str, self.stored_shape))} values of type {self.dtype.name}"
                f" after {self.offset} bytes of header)",
                remedy="Copy or download the file again if it is shorter; else correct the header.",
            )


def contiguous(indices: np.ndarray) -> np.ndarray | slice:
    """Return `indices` as a slice if they are consecutive, because slices are read without a copy."""
    indices = np.asarray(indices)
    if indices.size and np.array_equal(indices, np.arange(indices[0], indices[0] + indices.size)):
        return slice(int(indices[0]), int(indices[0]) + indices.size)
    return indices


def cube_axes(path: Path, band_axis: int | None) -> tuple[int, int, int]:
    """Return the axes of bands, rows and columns of an array that does not tell them itself.

    Args:
        path: The file, for the message.
        band_axis: The axis of the bands (0, 1 or 2); None is the habit of MATLAB files, (row, column, band).

    Raises:
        SceneError: `band_axis` is none of these.
    """
    if band_axis not in (None, 0, 1, 2):
        raise SceneError(
            "no such axis", file=path, found=f"band axis {band_axis}", expected="0, 1 or 2", remedy="Give --band-axis."
        )
    bands = 2 if band_axis is None else band_axis
    rows, columns = (axis for axis in range(3) if axis != bands)
    return bands, rows, columns


def unreadable(path: Path, error: Exception) -> SceneError:
    """Return the error for a file that opened but whose values cannot be read."""
    return SceneError(
        "the values cannot be read",
        file=path,
        found=str(error) or type(error).__name__,
        expected="a whole file",
        remedy="The file is damaged, incomplete or was changed while in use; copy or download it again.",
    )
