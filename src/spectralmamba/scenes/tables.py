"""Labelled points of a CSV table, burned into a raster's grid."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectralmamba.errors import LabelError
from spectralmamba.scenes.class_rasters import HIGHEST_ID, ClassRaster
from spectralmamba.scenes.vectors import BurnedLabels, apply_affine

_CLASS_COLUMNS = ("class", "reference", "reference_class", "label")
_PLACES = (("x", "y"), ("longitude", "latitude"), ("lon", "lat"), ("column", "row"))


def burn_table(path: Path, raster: ClassRaster, column: str | None = None) -> BurnedLabels:
    """Burn the labelled points of a CSV table into the grid of a raster.

    A pixel that gets two classes is left out and counted. If all classes are numbers, they are the ids themselves; if not, ids
    are 1 … K in sorted order of the names.

    Args:
        path: A table in UTF-8, with a line of names: the class, and `x` and `y` (the raster's CRS), `longitude` and `latitude`
            (or `lon` and `lat`, WGS 84), or `column` and `row` (counted from 0).
        raster: It gives the grid.
        column: Column of the class; if not given, `class`, `reference`, `reference_class` or `label`.

    Raises:
        LabelError: The table cannot be read or understood, or no point lies in the grid.
    """
    rows = _rows(path)
    head = list(rows[0])
    chosen = column if column is not None else next((name for name in _CLASS_COLUMNS if name in head), None)
    places = [names for names in _PLACES if set(names) <= set(head)]
    if raster.transform is None:
        places = [names for names in places if names == _PLACES[-1]]
    elif raster.crs is None:
        places = [names for names in places if names in (_PLACES[0], _PLACES[-1])]
    if chosen not in head or not places:
        raise LabelError(
            "cannot tell which columns hold class and place",
            file=path,
            found=", ".join(head),
            expected="class, and x and y, longitude and latitude, or column and row",
            remedy="Name the column of the class with --label-column.",
        )
    given = [row for row in rows if row[chosen].strip()]
    at = _pixel_of_each(path, given, places[0], raster)
    ids, names = _classes(path, [row[chosen].strip() for row in given])
    height, width = raster.ids.shape
    inside = (at >= 0).all(axis=1) & (at[:, 0] < width) & (at[:, 1] < height)
    burned, conflicting = _burn(at[inside], ids[inside], raster.ids.shape)
    if not burned.any() and not conflicting:
        raise LabelError("no labelled point lies in the grid", file=path, found=f"{len(given)} points with a class")
    report = {"outside_scene": int((~inside).sum()), "without_class": len(rows) - len(given)}
    return BurnedLabels(burned, names, report | {"conflicting_pixels": conflicting})


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise LabelError("there is no such label file", file=path, remedy="Check the path.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{name: value or "" for name, value in row.items() if name} for row in csv.DictReader(file)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise LabelError("not a CSV table", file=path, found=str(error), expected="UTF-8, commas") from error
    if not rows:
        raise LabelError("the table is empty", file=path, expected="a line of names, and one for each sample")
    return rows


def _pixel_of_each(
    path: Path, rows: list[dict[str, str]], names: tuple[str, str], raster: ClassRaster
) -> NDArray[np.int64]:
    """Column and row `(n, 2)` of each sample."""
    try:
        xy = np.array([[float(row[name]) for name in names] for row in rows]).reshape(-1, 2)
    except ValueError as error:
        raise LabelError("a place is no number", file=path, found=str(error), expected="numbers") from error
    if names == _PLACES[-1]:
        return np.floor(xy).astype(np.int64)
    assert raster.transform is not None
    if names != _PLACES[0]:
        assert raster.crs is not None
        import pyproj

        change = pyproj.Transformer.from_crs("EPSG:4326", raster.crs.to_wkt(), always_xy=True)
        xy = np.column_stack(change.transform(xy[:, 0], xy[:, 1]))
    with np.errstate(invalid="ignore"):
        pixels = np.floor(apply_affine(~raster.transform, xy))
    return np.where(np.isfinite(pixels), pixels, -1).astype(np.int64)


def _classes(path: Path, texts: list[str]) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Ids of classes given as numbers; or, if any is text, of sorted names."""
    try:
        ids = np.array([int(text) for text in texts], np.int64)
    except ValueError:
        ranks = {text: rank for rank, text in enumerate(sorted(set(texts)), start=1)}
        return np.array([ranks[text] for text in texts], np.int64), {rank: text for text, rank in ranks.items()}
    if len(ids) and not 1 <= ids.min() <= ids.max() <= HIGHEST_ID:
        found = ids.min() if ids.min() < 1 else ids.max()
        raise LabelError("a class id is out of range", file=path, found=found, expected=f"1 to {HIGHEST_ID}")
    return ids, {}


def _burn(at: NDArray[np.int64], ids: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[NDArray[np.int64], int]:
    """Class ids `(H, W)`, and how many pixels were given two classes, which have none."""
    highest, lowest = np.zeros(shape, np.int64), np.full(shape, HIGHEST_ID + 1, np.int64)
    np.maximum.at(highest, (at[:, 1], at[:, 0]), ids)
    np.minimum.at(lowest, (at[:, 1], at[:, 0]), ids)
    conflicting = (highest > 0) & (highest != lowest)
    return np.where(conflicting, 0, highest), int(conflicting.sum())
