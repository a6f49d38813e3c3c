"""What a scene's file stores, for a device that makes physical values of it faster than a CPU does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from xarray.core.indexing import LazilyIndexedArray

from spectralmamba.scenes.scene import Calibration, PhysicalArray
from spectralmamba.scenes.sources import FileSource

_TYPES = {np.dtype(name): getattr(torch, name) for name in ("uint8", "int8", "int16", "int32", "float32", "float64")}
_CONVERTED = 1 << 26  # values at a time, in float64


@dataclass(frozen=True)
class StoredScene:
    """An uncompressed scene that was opened and not yet read.

    Attributes:
        source: Its file.
        calibration: What its values mean.
        bands: Which of the file's bands, from 0, it consists of.
        top: The file's row that is its first.
        left: The file's column that is its first.
    """

    source: FileSource
    calibration: Calibration
    bands: np.ndarray
    top: int
    left: int

    @classmethod
    def of(cls, scene: xr.DataArray) -> StoredScene | None:
        """Return what a scene `(band, y, x)` is stored as; None if that must be left to a CPU."""
        lazy: Any = scene.variable._data
        values = getattr(lazy, "array", None)
        if not isinstance(lazy, LazilyIndexedArray) or not isinstance(values, PhysicalArray):
            return None
        source, key = values.source, lazy.key.tuple
        if type(source) is not FileSource or source.dtype not in _TYPES:  # others may mask pixels
            return None
        if not all(isinstance(part, slice) and part.step in (None, 1) for part in key[1:]):
            return None
        bands = np.atleast_1d(np.arange(source.shape[0])[key[0]])
        return cls(source, values.calibration, bands, key[1].start or 0, key[2].start or 0)

    def read(
        self, rows: slice, columns: slice, memory: Callable[[int], Tensor], threads: ThreadPoolExecutor, parts: int
    ) -> Tensor:
        """Read a window of the scene, in the file's order and type.

        Args:
            rows: From where to where.
            columns: From where to where.
            memory: Returns so many bytes.
            threads: What reads the parts.
            parts: So many at once.

        Raises:
            SceneError: The file has gone, shrunk or is damaged.
        """
        window = _moved(rows, self.top), _moved(columns, self.left)
        planes, lines, samples = self.source.stored_window(self.bands, *window)
        shape = len(planes), lines.stop - lines.start, samples.stop - samples.start
        dtype = self.source.dtype
        stored = memory(int(np.prod(shape)) * dtype.itemsize).view(_TYPES[dtype]).view(shape)
        values = stored.numpy()

        def fill(part: slice) -> None:
            self.source.read_planes(planes[part], lines, samples, values[part])

        list(threads.map(fill, _parts(len(planes), parts)))
        return stored

    def physical(self, stored: Tensor) -> Tensor:
        """Return what `read` returned, on any device, as physical values `(L, h, w)`: the same to the last bit as on a CPU."""
        chosen = self.source.bands_in_window(self.bands)
        raw = stored.permute(self.source.axes)
        raw = raw[chosen] if isinstance(chosen, slice) else raw[torch.from_numpy(chosen).to(raw.device)]
        scale, offset = (
            torch.from_numpy(values[self.bands]).to(raw.device)[:, None, None]
            for values in (self.calibration.scale, self.calibration.offset)
        )
        nodata = self.calibration.raw_nodata(self.source.dtype)
        finite = self.calibration.finite(self.source.dtype, self.bands)
        plain, shifted = bool((scale == 1).all() and not offset.any()), bool(offset.any())
        physical = torch.empty(raw.shape, device=raw.device)
        for rows in _parts(raw.shape[1], -(-raw.numel() // _CONVERTED)):
            some, values = raw[:, rows], physical[:, rows]
            exact = some if plain else some * scale
            values.copy_(exact + offset if shifted else exact)
            if not finite:
                values.masked_fill_(~values.isfinite(), torch.nan)
            if nodata is not None:
                values.masked_fill_(some == nodata.item(), torch.nan)
        return physical


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _parts(length: int, count: int) -> Iterator[slice]:
    count = max(1, min(count, length))
    for number in range(count):
        yield slice(number * length // count, (number + 1) * length // count)
