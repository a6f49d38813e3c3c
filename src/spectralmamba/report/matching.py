"""Runs brought together for a comparison: one grid, the same labels, and the pixels that all of them test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from spectralmamba.errors import OutputError
from spectralmamba.evaluation import evaluate
from spectralmamba.report.folder import RunFolder, mapped_class, open_raster, read_run
from spectralmamba.splits import TEST

GRID_TOLERANCE = 1e-6  # of a pixel


@dataclass(frozen=True)
class Compared:
    """A run, what it says of the pixels that all runs test, and what its own test was.

    Args:
        name: What it is called.
        run: Its folder.
        link: The way to its report, empty if it has none.
        right: Whether its map is right on each pixel that all test `(n,)`.
        scores: `Scores.to_dict` of these pixels.
        own: Number of its own test pixels.
    """

    name: str
    run: RunFolder
    link: str
    right: NDArray[np.bool_]
    scores: Mapping[str, Any]
    own: int


def compared_runs(folders: list[Path], page: Path) -> tuple[list[Compared], NDArray[np.int64]]:
    """The runs, and the positions `(n,)` of the pixels that all of them test: row · columns + column.

    Args:
        folders: Their folders.
        page: The page that will link to their reports.

    Raises:
        OutputError: A folder lacks a file or it is damaged, or the runs do not fit together.
    """
    names = _names(folders)
    runs = [_read(folder) for folder in folders]
    _check_grids(runs)
    tests = [_tested(run) for run in runs]
    common = reduce(np.intersect1d, (positions for positions, _, _ in tests))
    if not len(common):
        raise OutputError(
            "the runs have no test pixel in common",
            file=folders[1],
            found=", ".join(
                f"{len(positions)} in {name}" for (positions, _, _), name in zip(tests, names, strict=True)
            ),
            remedy="Compare runs that were split alike, with the same seed.",
        )
    references, maps = zip(*(_at(common, test) for test in tests), strict=True)
    for folder, reference in zip(folders[1:], references[1:], strict=True):
        differing = int(np.count_nonzero(reference != references[0]))
        if differing:
            raise OutputError(
                "the runs have different labels",
                file=folder / "split.tif",
                found=f"{differing} of {len(common)} common test pixels with another class than in {folders[0]}",
                remedy="Compare runs of the same labels.",
            )
    described = {entry["id"]: entry for run in reversed(runs) for entry in run.scores["classes"]}
    options = {
        "class_names": {id_: entry.get("name") for id_, entry in described.items()},
        "class_colors": {id_: mapped_class(entry).color for id_, entry in described.items()},
    }
    return [
        Compared(
            name,
            run,
            _link(run.path, page),
            predicted == references[0],
            evaluate(predicted, references[0], **options).to_dict(),
            len(positions),
        )
        for name, run, predicted, (positions, _, _) in zip(names, runs, maps, tests, strict=True)
    ], common


def _names(folders: list[Path]) -> list[str]:
    """The folders' names, with as many of the folders above as tell them apart."""
    resolved = [folder.resolve() for folder in folders]
    if len(folders) < 2 or len(set(resolved)) < len(folders):
        raise OutputError(
            "a comparison needs two or more runs",
            found=", ".join(map(str, folders)) or "none",
            expected="the folders of different runs",
        )
    for length in range(1, max(len(path.parts) for path in resolved) + 1):
        names = [str(PurePath(*path.parts[-length:])) for path in resolved]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in resolved]


def _read(folder: Path) -> RunFolder:
    if (folder / "summary.json").is_file() and not (folder / "scores.json").is_file():
        raise OutputError(
            "this is a folder of several seeds, not of one run",
            file=folder,
            remedy="Give the folders of single seeds, such as seed-0.",
        )
    return read_run(folder)


def _check_grids(runs: list[RunFolder]) -> None:
    grids = []
    for run in runs:
        with open_raster(run.path / "map.tif") as dataset:
            grids.append((dataset.shape, dataset.crs, np.array(dataset.transform[:6])))
    shape, crs, transform = grids[0]
    tolerance = GRID_TOLERANCE * max(abs(transform[0]), abs(transform[1]))
    for run, (other_shape, other_crs, other_transform) in zip(runs[1:], grids[1:], strict=True):
        if other_shape != shape or other_crs != crs or np.abs(other_transform - transform).max() > tolerance:
            raise OutputError(
                "the runs are not of one scene: their maps lie on different grids",
                file=run.path / "map.tif",
                found=_grid_in_words(other_shape, other_crs, other_transform),
                expected=f"{_grid_in_words(shape, crs, transform)} as in {runs[0].path}",
                remedy="Compare runs of the same scene.",
            )


def _grid_in_words(shape: tuple[int, int], crs: Any, transform: NDArray[np.float64]) -> str:
    corner = f"upper left corner ({transform[2]:.10g}, {transform[5]:.10g})"
    return f"{shape[0]} × {shape[1]} pixels, {corner}, {'no CRS' if crs is None else crs.to_string()}"


Test = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _tested(run: RunFolder) -> Test:
    """Positions of the run's test pixels, ascending, their reference and their mapped class, `(n,)` each."""
    survey = run.survey
    tested = survey.role == TEST
    positions = survey.rows[tested] * run.shape[1] + survey.columns[tested]
    return positions, survey.reference[tested], survey.predicted[tested]


def _at(common: NDArray[np.int64], test: Test) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    positions, reference, predicted = test
    chosen = np.searchsorted(positions, common)
    return reference[chosen], predicted[chosen]


def _link(folder: Path, page: Path) -> str:
    report = folder / "report.html"
    if not report.is_file():
        return ""
    try:
        return quote(Path(os.path.relpath(report.resolve(), page.resolve().parent)).as_posix())
    except ValueError:  # on another drive
        return ""
