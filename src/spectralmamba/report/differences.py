"""Where the maps of two runs differ, as a picture."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from spectralmamba.report import words
from spectralmamba.report.folder import STRIP_ROWS, RunFolder, open_raster
from spectralmamba.report.pictures import (
    CORRECT,
    WRONG,
    Picture,
    mix,
    png_uri,
    read_map,
    reduction,
    rgba,
    spots,
)

BOTH, NEITHER = "#8f8f8f", "#cc79a7"  # with CORRECT and WRONG, of Okabe & Ito (2008)
DIFFERENT, ALIKE = "#80808098", "#80808028"  # untested pixels: greys that let a light and a dark page through


def difference_picture(
    runs: tuple[RunFolder, RunFolder],
    names: tuple[str, str],
    pixels: NDArray[np.int64],
    right: tuple[NDArray[np.bool_], NDArray[np.bool_]],
) -> Picture:
    """Which of two maps is right on the test pixels, and where they differ elsewhere.

    Args:
        runs: The two runs, on one grid.
        names: What they are called.
        pixels: Positions `(n,)` of the test pixels, row · columns + column.
        right: Whether each map has them right, `(n,)` each.
    """
    shape, factor = runs[0].shape, reduction(runs[0].shape)
    maps = [read_map(run) for run in runs]
    picture = np.where((maps[0] != maps[1])[..., None], *(np.array(rgba(c), np.uint8) for c in (DIFFERENT, ALIKE)))
    picture[(maps[0] == 0) & (maps[1] == 0)] = 0
    rows, columns = np.divmod(pixels, shape[1])
    at = np.ravel_multi_index((rows // factor, columns // factor), picture.shape[:2])
    first, second = right
    cases = (first & second, first & ~second, ~first & second, ~first & ~second)
    counts = np.stack([np.bincount(at[case], minlength=maps[0].size) for case in cases], axis=1)
    colors = (BOTH, CORRECT, WRONG, NEITHER)
    mix(picture.reshape(-1, 4), counts, colors)
    numbers = [words.count(int(np.count_nonzero(case))) for case in cases]
    said = _disagreement(runs)
    return Picture(
        f"{names[0]} and {names[1]}",
        png_uri(picture),
        picture.shape[1],
        picture.shape[0],
        alt=f"Of {words.counted(len(pixels), 'test pixel')} both maps have {numbers[0]} right, {names[0]} alone {numbers[1]}, "
        f"{names[1]} alone {numbers[2]}, neither {numbers[3]}. {said}",
        caption=said + spots(factor, "mixes their colours"),
        key=(
            *zip(colors, ("both right", f"only {names[0]} right", f"only {names[1]} right", "both wrong"), strict=True),
            (DIFFERENT, "untested, maps differ"),
            (ALIKE, "untested, maps agree"),
        ),
    )


def pairs_of(number: int) -> list[tuple[int, int]]:
    """All pairs of so many runs, in order."""
    return list(combinations(range(number), 2))


def _disagreement(runs: tuple[RunFolder, RunFolder]) -> str:
    """On how many pixels of the whole scene the maps differ, at full resolution."""
    differing = mapped = 0
    height, width = runs[0].shape
    with open_raster(runs[0].path / "map.tif") as first, open_raster(runs[1].path / "map.tif") as second:
        for top in range(0, height, STRIP_ROWS):
            window = Window(0, top, width, min(STRIP_ROWS, height - top))  # pyright: ignore[reportCallIssue]
            one, other = first.read(1, window=window), second.read(1, window=window)
            differing += int(np.count_nonzero(one != other))
            mapped += int(np.count_nonzero((one != 0) | (other != 0)))
    share = f" ({words.percent(differing / mapped, 1)})" if mapped else ""
    return f"The maps differ on {words.count(differing)} of {words.counted(mapped, 'mapped pixel')}{share}."
