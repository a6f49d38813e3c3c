"""Suggestions as a file to take into the field, fill in, and give back as labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr

from spectralmamba.errors import OutputError
from spectralmamba.files import atomic_output
from spectralmamba.scenes.scene import has_georeference
from spectralmamba.scenes.vectors import apply_affine, check_georeference, import_geopandas

if TYPE_CHECKING:
    from spectralmamba.suggestions import Suggestions

# GeoJSON is longitude and latitude (RFC 7946); nine digits are 0.1 mm, far less than any pixel.
_DRIVERS: dict[str, dict[str, Any]] = {
    ".gpkg": {"driver": "GPKG"},
    ".geojson": {"driver": "GeoJSON", "RFC7946": "YES", "COORDINATE_PRECISION": 9},
}
_MARGIN_DIGITS = 4


def write_suggestions(
    suggestions: Suggestions,
    scene: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    class_names: Mapping[int, str] | None = None,
    labels: xr.DataArray | None = None,
) -> Path:
    """Write suggestions as GeoPackage, GeoJSON (in WGS 84) or CSV, by the file's suffix.

    The columns are `suggestion` (1 to k, the most useful first), `class` (empty, to be filled in), `likely_class` (a name, empty
    where unknown), `margin` (0 to 1, empty where unknown), `row` and `column` (of the centre pixel, counted from 0); CSV also has
    `x` and `y` if the scene is georeferenced. Geometries are points at pixel centres, or the squares of the suggestions' width.

    Args:
        suggestions: From `suggest`.
        scene: `(band, y, x)`, the scene they are of.
        path: The file to write; it appears whole or not at all.
        class_names: `{id: name}` for `likely_class`; "class 3" for what it does not hold.
        labels: `(y, x)` class ids with `class_names` in `attrs`. If given, every labelled pixel is a feature after the suggestions,
            with its name in `class` and no number, so that the file, filled in, holds all labels.

    Returns:
        The path.

    Raises:
        MissingPackageError: geopandas is not installed.
        OutputError: The suffix is another, the scene has no georeference or CRS for geometries, or the file cannot be written.
    """
    path = check_suggestion_file(path, scene)
    table = _table(suggestions, class_names or {}, labels)
    if path.suffix.lower() == ".csv":
        _write_csv(path, table, scene)
    else:
        _write_features(path, table, scene, suggestions.width, len(suggestions))
    return path


def check_suggestion_file(path: str | os.PathLike[str], scene: xr.DataArray) -> Path:
    """Return the path if suggestions of the scene can be written in the format of its suffix.

    Raises:
        MissingPackageError: geopandas is not installed.
        OutputError: The suffix is another, or the scene has no georeference or CRS for geometries.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return path
    if suffix not in _DRIVERS:
        raise OutputError(
            "suggestions are not written in this format",
            file=path,
            found=path.suffix or "no suffix",
            expected=".gpkg, .geojson or .csv",
            remedy="Choose one of these suffixes.",
        )
    remedy = "Write a table of rows and columns instead: choose a file name that ends with .csv."
    check_georeference(scene, OutputError, path, remedy)
    import_geopandas(path, "; or choose a file name that ends with .csv")
    return path


def _table(
    suggestions: Suggestions, class_names: Mapping[int, str], labels: xr.DataArray | None
) -> dict[str, list[Any]]:
    """Return the columns; None is an empty cell."""
    count = len(suggestions)
    table: dict[str, list[Any]] = {
        "suggestion": list(range(1, count + 1)),
        "class": [None] * count,
        "likely_class": [_name(id_, class_names) if id_ else None for id_ in suggestions.likely_class.tolist()],
        "margin": [None if np.isnan(value) else round(value, _MARGIN_DIGITS) for value in suggestions.margin.tolist()],
        "row": suggestions.rows.tolist(),
        "column": suggestions.columns.tolist(),
    }
    if labels is not None:
        ids, names = np.asarray(labels.values), labels.attrs.get("class_names", {})
        rows, columns = np.nonzero(ids > 0)
        added = {"class": [_name(id_, names) for id_ in ids[rows, columns].tolist()]}
        added |= {"row": rows.tolist(), "column": columns.tolist()}
        for name, cells in table.items():
            cells += added.get(name, [None] * len(rows))
    return table


def _name(id_: int, names: Mapping[int, str]) -> str:
    return names.get(id_, f"class {id_}")


def _write_csv(path: Path, table: dict[str, list[Any]], scene: xr.DataArray) -> None:
    if has_georeference(scene):
        centres = np.column_stack([table["column"], table["row"]]) + 0.5
        x, y = apply_affine(scene.rio.transform(), centres).T
        table |= {"x": [f"{value:.12g}" for value in x], "y": [f"{value:.12g}" for value in y]}
    with atomic_output(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def _write_features(path: Path, table: dict[str, list[Any]], scene: xr.DataArray, width: int, count: int) -> None:
    """Write features; those after the first `count` are labelled pixels."""
    import geopandas
    import pandas as pd

    types = {"suggestion": "Int64", "class": "string", "likely_class": "string", "margin": "Float64"}
    columns = {name: pd.array(cells, dtype=types.get(name, "int64")) for name, cells in table.items()}
    widths = np.where(np.arange(len(table["row"])) < count, width, 1)
    shapes = _shapes(np.array(table["row"]), np.array(table["column"]), widths, scene)
    features = geopandas.GeoDataFrame(columns, geometry=shapes, crs=scene.rio.crs.to_wkt())
    options = _DRIVERS[path.suffix.lower()]
    if options["driver"] == "GeoJSON":
        features = features.to_crs("EPSG:4326")
    with atomic_output(path) as temporary:
        try:
            features.to_file(temporary, layer=path.stem, **options)
        except RuntimeError as error:  # GDAL's own, whatever went wrong
            raise OSError(str(error)) from error


def _shapes(rows: np.ndarray, columns: np.ndarray, widths: np.ndarray, scene: xr.DataArray) -> Any:
    """Return a point at the centre of each pixel, or squares if there are any wider than a pixel, in the scene's CRS."""
    import shapely

    x, y, reach = columns + 0.5, rows + 0.5, widths / 2
    # Layers of points and polygons together cannot be edited in every GIS, so single pixels beside squares are squares, too.
    squares = (widths > 1).any()
    shapes = shapely.box(x - reach, y - reach, x + reach, y + reach) if squares else shapely.points(x, y)
    transform = scene.rio.transform()
    return shapely.transform(shapes, lambda xy: apply_affine(transform, xy))
