"""A map on its way: what has been classified so far, kept beside the map so that a stopped run can go on.

A folder holds one plain raster a layer, a record of what is being mapped by what, and a journal with a line for each tile, written
after the tile's values. Whatever moment a run is killed at, a line stands for values that are there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window

from spectralmamba.errors import OutputError
from spectralmamba.files import locked, write_json
from spectralmamba.scenes.raster_files import opened_raster

_RECORD, _JOURNAL, _LOCK = "job.json", "done.txt", "lock"
_BLOCK = 64  # of the rasters: tiles begin at multiples of it, so each is written as whole blocks


class UnfinishedMap:
    """The working rasters of a map, and which tiles they hold.

    Attributes:
        folder: Where they are.
        cells: How many pixels have been written, nodata included.
        pixels: How many others than nodata.
    """

    def __init__(self, path: Path, profile: dict[str, Any]) -> None:
        self.folder = unfinished_folder(path)
        self.cells = self.pixels = 0
        self._profile = profile | {"driver": "GTiff", "tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK}
        self._final = path
        self._done: set[tuple[int, int]] = set()  # first rows and columns of the tiles

    @contextmanager
    def opened(
        self,
        record: dict[str, Any],
        tile: tuple[int, int],
        layers: dict[str, dict[str, Any]],
        resume: bool,
        describe: Callable[[str, Any], None] | None = None,
    ) -> Iterator[tuple[int, int]]:
        """Hold the folder for this run alone: with what is there, if asked to resume, else empty.

        Args:
            record: What is mapped by what; a run goes on from no other.
            tile: Rows and columns of the tiles, if it is empty.
            layers: What the profile of each raster has besides, by name.
            resume: Go on from what is there, if anything is.
            describe: Gives a new raster of a layer what it holds beside values, so that nothing else is written to it later.

        Yields:
            Rows and columns of the tiles: those that what is there was begun with.

        Raises:
            OutputError: Another run holds the folder, or what is there is of another map.
        """
        self.folder.mkdir(exist_ok=True)
        with (self.folder / _LOCK).open("w") as lock:
            if not locked(lock):
                raise OutputError(
                    "another run is writing this map", file=self._final, remedy="Wait for it, or choose another --out."
                )
            if resume and is_unfinished(self._final):
                tile = self._take_up(json.loads(json.dumps(record)))
            else:
                try:
                    self._create(record | {"tile": tile}, layers, describe)
                except BaseException:
                    self.discard()
                    raise
            yield tile

    def raster(self, name: str) -> Path:
        """Return the file of a layer."""
        return self.folder / f"{name}.tif"

    def holds(self, rows: slice, columns: slice) -> bool:
        """Tell whether a tile has been written."""
        return (rows.start, columns.start) in self._done

    def write(self, rows: slice, columns: slice, layers: Mapping[str, np.ndarray | None], pixels: int) -> None:
        """Write a tile: its values `(h, w)` by layer, of which so many pixels are not nodata."""
        window = Window.from_slices(rows, columns)
        for name, values in layers.items():
            assert values is not None, f"the classifier does not tell {name}"
            with opened_raster(self.raster(name), "r+") as raster:
                raster.write(values, 1, window=window)
        with (self.folder / _JOURNAL).open("a", encoding="ascii") as journal:
            # A line of its own even after one that a kill cut short.
            journal.write(f"\n{rows.start} {rows.stop} {columns.start} {columns.stop} {pixels} .")
        self._note(rows, columns, pixels)

    def discard(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _note(self, rows: slice, columns: slice, pixels: int) -> None:
        self._done.add((rows.start, columns.start))
        self.cells += (rows.stop - rows.start) * (columns.stop - columns.start)
        self.pixels += pixels

    def _take_up(self, record: dict[str, Any]) -> tuple[int, int]:
        """Check that what is there is of this map, and read the journal; return rows and columns of its tiles."""
        kept = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        for key, expected in record.items():
            if kept.get(key) != expected:
                raise OutputError(
                    f"the unfinished map is of another {key}",
                    file=self._final,
                    found=kept.get(key),
                    expected=expected,
                    remedy="Leave --resume away to map from the beginning.",
                )
        with suppress(FileNotFoundError):
            for line in (self.folder / _JOURNAL).read_text(encoding="ascii", errors="replace").splitlines():
                numbers, _, end = line.rpartition(" ")
                if end == ".":  # a line that was cut short has none
                    top, bottom, left, right, pixels = map(int, numbers.split())
                    self._note(slice(top, bottom), slice(left, right), pixels)
        rows, columns = kept["tile"]
        return rows, columns

    def _create(
        self,
        record: dict[str, Any],
        layers: dict[str, dict[str, Any]],
        describe: Callable[[str, Any], None] | None,
    ) -> None:
        for name in (_RECORD, _JOURNAL):
            (self.folder / name).unlink(missing_ok=True)
        cells = self._profile["width"] * self._profile["height"]
        for name, changes in layers.items():
            # Whole, of nodata, so that tiles are written in place and a kill damages nothing else.
            with opened_raster(self.raster(name), "w", **self._profile | changes) as raster:
                if describe is not None:
                    describe(name, raster)
            if self.raster(name).stat().st_size < cells * np.dtype(changes["dtype"]).itemsize:
                raise RasterioError("GDAL could not write a working raster")  # it keeps silent while it closes a file
        write_json(self.folder / _RECORD, record)


def unfinished_folder(path: Path) -> Path:
    """Return the folder beside a map that holds what is classified so far."""
    return path.with_name(f".{path.name}.unfinished")


def is_unfinished(path: Path) -> bool:
    """Tell whether there is something to go on from to that map."""
    return (unfinished_folder(path) / _RECORD).is_file()
