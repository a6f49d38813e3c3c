"""One pass over a scene at opening: bands without information, and counts of what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from spectralmamba.errors import SceneError
from spectralmamba.scenes.scene import RawScene

SAMPLE_VALUES = 8_000_000
"""Scenes up to this size are read whole; of larger ones a sample of this size."""

SAMPLE_WINDOWS = 32
"""At most this many places of a larger scene are looked at, because each may cost the decoding of a whole block."""

FEWEST_SAMPLE_WINDOWS = 4
"""Places that are looked at even where their blocks are very large."""

DECODED_PER_VALUE = 4
"""Values that may be decoded for each value looked at, because a window needs the whole of its block."""

Window = tuple[slice, slice]


def sample_windows(
    shape: tuple[int, int, int], block_shape: tuple[int, int], values: int | None = None
) -> tuple[list[Window], bool]:
    """Choose windows of rows and columns, evenly spread and always the same for the same shape.

    Args:
        shape: Bands, rows and columns.
        block_shape: Rows and columns of a block of the file, with which the windows are aligned.
        values: About how many values the windows hold together; None is `SAMPLE_VALUES`.

    Returns:
        The windows, and True if they cover the scene.
    """
    budget = SAMPLE_VALUES if values is None else values
    bands, height, width = shape
    if bands * height * width <= budget:
        return [(slice(0, height), slice(0, width))], True
    unit = _unit(shape, block_shape, budget)
    affordable = DECODED_PER_VALUE * budget // (bands * unit[0] * unit[1])
    count = min(int(np.clip(affordable, FEWEST_SAMPLE_WINDOWS, SAMPLE_WINDOWS)), budget // bands)
    rows, columns = _lattice((-(-height // unit[0]), -(-width // unit[1])), count)
    places = [(row, column) for row in rows.tolist() for column in columns.tolist()]
    pixels = max(1, budget // (bands * len(places)))
    shares = np.linspace(0, 1, len(places)).tolist()
    return [_part(place, unit, shape, pixels, share) for place, share in zip(places, shares, strict=True)], False


def _unit(shape: tuple[int, int, int], block_shape: tuple[int, int], budget: int) -> tuple[int, int]:
    """Join blocks below each other until `SAMPLE_WINDOWS` of them make up the budget."""
    bands, height, width = shape
    rows, columns = min(block_shape[0], height), min(block_shape[1], width)
    joined = budget // (SAMPLE_WINDOWS * bands * rows * columns)
    return min(height, rows * max(1, joined)), columns


def _lattice(grid: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of `grid` that cross in at most `count` places."""
    count = max(1, count)
    rows = int(np.clip(round(np.sqrt(count * grid[0] / grid[1])), 1, min(count, grid[0])))
    columns = int(np.clip(count // rows, 1, grid[1]))
    rows = int(np.clip(count // columns, 1, grid[0]))
    row_places, column_places = (
        ((np.arange(number) + 0.5) * size / number).astype(int)
        for number, size in zip((rows, columns), grid, strict=True)
    )
    return row_places, column_places


def _part(
    place: tuple[int, int], unit: tuple[int, int], shape: tuple[int, int, int], pixels: int, share: float
) -> Window:
    """Return at most `pixels` of a unit: its first ones for share 0, its last ones for share 1."""
    top, left = place[0] * unit[0], place[1] * unit[1]
    rows, columns = min(unit[0], shape[1] - top), min(unit[1], shape[2] - left)
    kept_columns = min(columns, pixels)
    kept_rows = min(rows, pixels // kept_columns)
    top += int(share * (rows - kept_rows))
    left += int(share * (columns - kept_columns))
    return slice(top, top + kept_rows), slice(left, left + kept_columns)


def find_bad_bands(raw: RawScene) -> tuple[dict[int, str], dict[str, Any]]:
    """Find the bands that say nothing about any pixel.

    Args:
        raw: What the reader took from the file.

    Returns:
        `{band number: reason}`, and counts of the values looked at: `values`, `nan`, `infinite`, `nodata` and `exact`,
        which is False if a sample was looked at.

    Raises:
        SceneError: The scene is nodata throughout, or no band is usable.
    """
    windows, exact = sample_windows(raw.source.shape, raw.source.block_shape)
    values, counts = _read(raw, windows)
    if not exact and np.isnan(values).all():
        values, counts = _read(raw, _windows_with_values(raw))
    if np.isnan(values).all():
        raise SceneError(
            "the scene holds no finite value",
            file=raw.source.path,
            found="nodata, NaN or infinity in every pixel of every band",
            expected="measured values",
            remedy="Check the nodata value of the file, and that this is the right file.",
        )
    reasons = _reasons(raw.good, values, exact, raw.reasons)
    if len(reasons) == len(raw.good):
        summary = ", ".join(sorted(set(reasons.values())))
        raise SceneError(
            "no band of the scene can be used",
            file=raw.source.path,
            found=f"{len(reasons)} bad bands ({summary})",
            expected="at least one band that varies and is not marked bad",
            remedy="Check the file's list of bad bands (bbl) and its values.",
        )
    return reasons, {**counts, "exact": exact}


def _read(raw: RawScene, windows: list[Window]) -> tuple[np.ndarray, dict[str, int]]:
    """Return the physical values `(L, pixels)` of the windows, and counts of raw values without meaning."""
    bands = np.arange(raw.source.shape[0])
    counts: dict[str, int] = {"values": 0, "nan": 0, "infinite": 0, "nodata": 0}
    parts = []
    for window in windows:
        stored = raw.source.read(bands, *window)
        missing = raw.source.missing(*window)
        counts["values"] += stored.size
        if stored.dtype.kind == "f" and not np.isfinite(stored).all():
            counts["nan"] += int(np.isnan(stored).sum())
            counts["infinite"] += int(np.isinf(stored).sum())
        nodata = raw.calibration.is_nodata(stored)
        if missing is not None:
            nodata = missing if nodata is None else nodata | missing
            nodata = np.broadcast_to(nodata, stored.shape)
        counts["nodata"] += 0 if nodata is None else int(nodata.sum())
        parts.append(raw.calibration.physical(stored, bands, missing).reshape(len(bands), -1))
    return np.concatenate(parts, axis=1), counts


def _windows_with_values(raw: RawScene) -> list[Window]:
    """Search the whole scene for up to `SAMPLE_WINDOWS` windows that are not empty; the last one searched if none."""
    found, window = [], (slice(0, 1), slice(0, 1))
    for window in _all_windows(raw):
        if not np.isnan(_read(raw, [window])[0]).all():
            found.append(window)
        if len(found) == SAMPLE_WINDOWS:
            break
    return found or [window]


def _all_windows(raw: RawScene) -> Iterator[Window]:
    """Yield windows that cover the scene, of a size of which `SAMPLE_WINDOWS` keep to the budget."""
    bands, height, width = raw.source.shape
    pixels = max(1, SAMPLE_VALUES // (SAMPLE_WINDOWS * bands))
    columns = min(width, pixels)
    rows = pixels // columns
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))


def _reasons(
    good_in_file: np.ndarray, values: np.ndarray, exact: bool, known: Mapping[int, str] = MappingProxyType({})
) -> dict[int, str]:
    """Judge the bands by the values `(L, n)`; of some that are not good in the file it is known why.

    A band is constant if it is so over all pixels where it is finite, or over the pixels that are finite in all
    bands still good. One pixel says nothing about that, nor does a sample in which no band varies.
    """
    where = "" if exact else " in an evenly spread sample"
    bad = (np.flatnonzero(~good_in_file) + 1).tolist()
    reasons = {band: known.get(band, "marked bad in the file (bbl 0)") for band in bad}
    finite = np.isfinite(values)
    for band in bad:
        if band not in known and not finite[band - 1].any():
            reasons[band] += f", only nodata{where}"
    for band in np.flatnonzero(good_in_file & ~finite.any(axis=1)).tolist():
        reasons[band + 1] = f"only nodata{where}"
    candidates = [band for band in range(len(values)) if band + 1 not in reasons]
    constant = _constant(candidates, values, finite)
    rest = [band for band in candidates if band not in constant]
    among_valid = _constant(rest, values, np.broadcast_to(finite[rest].all(axis=0), finite.shape))
    if len(among_valid) < len(rest):
        constant |= among_valid
    if exact or len(constant) < len(candidates):
        reasons |= {band + 1: f"one constant value, {value:g}{where}" for band, value in constant.items()}
    return dict(sorted(reasons.items()))


def _constant(bands: list[int], values: np.ndarray, where: np.ndarray) -> dict[int, float]:
    """Return those of `bands` that hold one value in all of several pixels, and the value."""
    constant = {}
    for band in bands:
        kept = values[band, where[band]]
        if kept.size > 1 and kept.min() == kept.max():
            constant[band] = float(kept[0])
    return constant
