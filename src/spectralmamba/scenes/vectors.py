"""Points and polygons with a class, burned into the scene's grid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from rasterio.features import rasterize
from rasterio.transform import Affine

from spectralmamba.errors import LabelError, MissingPackageError, SpectralMambaError
from spectralmamba.scenes.class_rasters import HIGHEST_ID
from spectralmamba.scenes.scene import has_georeference

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb")
_SAMPLES_SHOWN = 4
_NO_CLASS = HIGHEST_ID + 1


@dataclass(frozen=True)
class BurnedLabels:
    """Vector labels on the scene's grid.

    Attributes:
        ids: (H, W) int32, 0 unlabelled.
        names: Class names; empty for classes given by number.
        report: What was left out: `outside_scene` (features), `conflicting_pixels`, `without_class` and
            `without_geometry` (features), `too_small` (polygons that hold no pixel centre).
        notes: What the user should know, sentences.
    """

    ids: np.ndarray
    names: dict[int, str]
    report: dict[str, int]
    notes: list[str] = field(default_factory=list)


def is_vector(source: object) -> bool:
    """Whether `source` is a GeoDataFrame or a path with the suffix of a vector format."""
    return _is_geodataframe(source) or Path(str(source)).suffix.lower() in SUFFIXES


def burn_vectors(
    source: Path | GeoDataFrame, scene: xr.DataArray, *, column: str | None = None, layer: str | None = None
) -> BurnedLabels:
    """Burn labelled points and polygons into the scene's grid.

    A polygon labels the pixels whose centre it holds, a point the pixel it lies in. A pixel that gets two classes is
    left out and counted. Text classes get ids 1 … K in sorted order, numbers are the ids themselves.

    Args:
        source: GeoPackage, GeoJSON, Shapefile or FlatGeobuf, or a GeoDataFrame.
        scene: (band, y, x), with georeference.
        column: Column of the class; may be left out if only one can be meant.
        layer: Layer of the file; may be left out if only one has geometry.

    Raises:
        LabelError: The features cannot be read or do not fit, or none lies in the scene.
        MissingPackageError: geopandas is not installed.
    """
    file = None if _is_geodataframe(source) else Path(str(source))
    remedy = "Give the labels as a raster of the scene's shape, or the scene with its CRS and transform."
    check_georeference(scene, LabelError, file, remedy)
    features: Any = source if file is None else _read(file, layer)
    notes: list[str] = []
    if column is None:
        column = _only_plausible_column(features, file)
        notes.append(f'The classes were taken from the column "{column}".')
    ids, names = _class_of_each(features, column, file)
    shapes = _in_scene_crs(features, scene, file)
    missing = shapes.is_empty.to_numpy() | shapes.isna().to_numpy()
    report = {"without_class": int((ids == 0).sum()), "without_geometry": int((missing & (ids > 0)).sum())}
    usable = (ids > 0) & ~missing
    if not usable.any():
        raise LabelError(f'no feature has both a geometry and a class in "{column}"', file=file, found=report)
    burned, counts = _burn(shapes[usable], ids[usable], scene)
    if not burned.any() and counts["conflicting_pixels"] == counts["too_small"] == 0:
        raise _nothing_inside(features[usable], shapes[usable], scene, file)
    return BurnedLabels(burned, names, report | counts, notes)


def check_georeference(
    scene: xr.DataArray, error: type[SpectralMambaError], file: str | os.PathLike[str] | None, remedy: str
) -> None:
    """Raise the error unless the scene has coordinates and a CRS, which points and polygons need."""
    if not has_georeference(scene) or scene.rio.crs is None:
        raise error(
            "points and polygons need a scene with georeference",
            file=file,
            found=f"{'no CRS' if has_georeference(scene) else 'neither CRS nor transform'} in the scene",
            remedy=remedy,
        )


def import_geopandas(file: str | os.PathLike[str], otherwise: str = "") -> Any:
    """Return geopandas.

    Args:
        file: What it is needed for.
        otherwise: What to do instead of installing it, the end of a sentence.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import geopandas
    except ImportError as error:
        raise MissingPackageError(
            "points and polygons need the package geopandas",
            file=file,
            remedy=f'Install it: pip install "spectralmamba[vector]"{otherwise}.',
        ) from error
    return geopandas


def _is_geodataframe(source: object) -> bool:
    return hasattr(source, "geometry") and hasattr(source, "to_crs")


def _read(file: Path, layer: str | None) -> GeoDataFrame:
    if not file.is_file():
        raise LabelError("there is no such label file", file=file, remedy="Check the path.")
    geopandas = import_geopandas(file)
    try:
        layers = geopandas.list_layers(file)
        spatial = layers.loc[layers["geometry_type"].notna(), "name"].tolist()
        return geopandas.read_file(file, layer=_choose_layer(spatial, layer, file))
    except LabelError:
        raise
    except Exception as error:  # each of GDAL's drivers has its own kinds
        raise LabelError("the file cannot be read as points or polygons", file=file, found=str(error)) from error


def _choose_layer(spatial: Sequence[str], layer: str | None, file: Path) -> str:
    if layer in spatial:
        return str(layer)
    if layer is None and len(spatial) == 1:
        return spatial[0]
    raise LabelError(
        "cannot tell which layer holds the labels" if layer is None else f"there is no layer {layer!r} with geometry",
        file=file,
        found=", ".join(spatial) or "no layer with geometry",
        remedy="Choose one of them with --layer." if spatial else None,
    )


def _only_plausible_column(features: GeoDataFrame, file: Path | None) -> str:
    plausible = [name for name in _attribute_columns(features) if _may_hold_classes(features[name])]
    if len(plausible) > 1:  # a column in which no value repeats is a number or a name of the feature
        plausible = [name for name in plausible if features[name].dropna().duplicated().any()]
    if len(plausible) != 1:
        raise LabelError(
            "cannot tell which column holds the class",
            file=file,
            found=_columns_in_words(features),
            remedy="Name it with --label-column.",
        )
    return plausible[0]


def _attribute_columns(features: GeoDataFrame) -> list[str]:
    return [str(name) for name in features.columns if name != features.geometry.name]


def _may_hold_classes(values: Any) -> bool:
    values = values.dropna()
    if values.empty:
        return False
    if values.dtype.kind in "iu":
        return bool((values > 0).all())
    if values.dtype.kind == "f":
        return bool(((values > 0) & (values % 1 == 0)).all())
    return all(isinstance(value, str) for value in values)


def _columns_in_words(features: GeoDataFrame) -> str:
    def samples(name: str) -> str:
        values = features[name].dropna().unique()
        return ", ".join(str(value) for value in values[:_SAMPLES_SHOWN]) + (
            " …" if len(values) > _SAMPLES_SHOWN else ""
        )

    return "; ".join(f"{name} ({samples(name)})" for name in _attribute_columns(features)) or "no column"


def _class_of_each(features: GeoDataFrame, column: str, file: Path | None) -> tuple[np.ndarray, dict[int, str]]:
    """Class id of every feature (n,), 0 where it has none, and the names of classes given as text."""
    if column not in _attribute_columns(features):
        raise LabelError(
            f'there is no column "{column}"',
            file=file,
            found=_columns_in_words(features),
            remedy="Name one of them with --label-column.",
        )
    values = features[column]
    given = values.notna().to_numpy()
    if values.dtype.kind in "iuf":
        return _numbers_as_ids(values.to_numpy(dtype=np.float64, na_value=np.nan), given, column, file), {}
    texts = [str(value).strip() if known else "" for value, known in zip(values, given, strict=True)]
    ranks = {text: rank for rank, text in enumerate(sorted(set(texts) - {""}), start=1)}
    return np.array([ranks.get(text, 0) for text in texts]), {rank: text for text, rank in ranks.items()}


def _numbers_as_ids(values: np.ndarray, given: np.ndarray, column: str, file: Path | None) -> np.ndarray:
    wrong = given & ~((values >= 1) & (values <= HIGHEST_ID) & (values % 1 == 0))
    if wrong.any():
        raise LabelError(
            f'the column "{column}" holds values that cannot be class ids',
            file=file,
            found=", ".join(f"{value:g}" for value in np.unique(values[wrong])[:_SAMPLES_SHOWN]),
            expected=f"whole numbers from 1 to {HIGHEST_ID}, or nothing where there is no class",
            remedy="0 means unlabelled: leave the field empty, or number the classes from 1.",
        )
    return np.where(given, values, 0).astype(np.int64)


def _in_scene_crs(features: GeoDataFrame, scene: xr.DataArray, file: Path | None) -> Any:
    """The geometries, a GeoSeries, in the scene's CRS."""
    wrong = set(features.geometry.geom_type.dropna()) - {"Point", "MultiPoint", "Polygon", "MultiPolygon"}
    if wrong:
        raise LabelError(
            "labels are points or polygons",
            file=file,
            found=", ".join(sorted(wrong)),
            remedy="Buffer lines to polygons, or leave them out.",
        )
    if features.crs is None:
        raise LabelError(
            "the features have no coordinate reference system",
            file=file,
            remedy="Assign it in a GIS and save again (a Shapefile needs its .prj file).",
        )
    return features.geometry.to_crs(scene.rio.crs.to_wkt())


def _burn(shapes: Any, ids: np.ndarray, scene: xr.DataArray) -> tuple[np.ndarray, dict[str, int]]:
    """Class ids (H, W) and counts of what did not make it there."""
    import shapely

    grid = (scene.sizes["y"], scene.sizes["x"])
    pixels = _in_pixels(shapes, scene.rio.transform())
    are_points = shapely.get_dimensions(pixels) == 0
    inside = ~are_points & np.isfinite(shapely.bounds(pixels)).all(axis=1)
    inside[inside] = shapely.intersects(pixels[inside], shapely.box(0, 0, grid[1], grid[0]))
    areas, order = pixels[inside], np.argsort(ids[inside], kind="stable")
    # What is burned last wins: a pixel has one class if the highest id and the lowest are the same.
    highest = _fill(areas[order], ids[inside][order], grid, empty=0)
    lowest = _fill(areas[order[::-1]], ids[inside][order[::-1]], grid, empty=_NO_CLASS)
    rows, columns, point_ids, points_outside = _locate_points(pixels[are_points], ids[are_points], grid)
    np.maximum.at(highest, (rows, columns), point_ids)
    np.minimum.at(lowest, (rows, columns), point_ids)
    conflicting = (highest > 0) & (lowest != highest)
    counts = {
        "outside_scene": points_outside + int((~are_points & ~inside).sum()),
        "conflicting_pixels": int(conflicting.sum()),
        "too_small": sum(_holds_no_centre(area, grid) for area in areas),
    }
    return np.where(conflicting, 0, highest).astype(np.int32), counts


def _in_pixels(shapes: Any, transform: Affine) -> np.ndarray:
    """Geometries in (column, row) coordinates, where a rotated scene is as straight as any other."""
    import shapely

    flat = shapely.force_2d(shapes.to_numpy())
    with np.errstate(invalid="ignore"):  # what the CRS cannot hold is infinite, and counted as outside
        return shapely.transform(flat, lambda xy: apply_affine(~transform, xy))


def _fill(areas: np.ndarray, ids: np.ndarray, grid: tuple[int, int], empty: int) -> np.ndarray:
    if len(areas) == 0:
        return np.full(grid, empty, np.int32)
    pairs = zip(areas, ids.tolist(), strict=True)
    return rasterize(pairs, out_shape=grid, fill=empty, dtype=np.int32)


def _locate_points(
    points: np.ndarray, ids: np.ndarray, grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Row, column and class of every point in the scene, and how many lie outside; multipoints count point by point."""
    import shapely

    xy, owner = shapely.get_coordinates(points, return_index=True)
    inside = ((xy >= 0) & (xy < [grid[1], grid[0]])).all(axis=1)
    columns, rows = np.floor(xy[inside]).astype(np.int64).T
    return rows, columns, ids[owner][inside], int((~inside).sum())


def _holds_no_centre(area: Any, grid: tuple[int, int]) -> bool:
    """Whether a polygon that meets the scene labels no pixel of it."""
    left, top, right, bottom = np.clip(area.bounds, 0, [grid[1], grid[0]] * 2)
    first, last = np.floor([top, left]).astype(int), np.ceil([bottom, right]).astype(int)
    if (last <= first).any():
        return True
    height, width = last - first
    window = Affine.translation(first[1], first[0])
    burned: Any = rasterize([area], out_shape=(height, width), transform=window, dtype=np.uint8)
    return not burned.any()


def _nothing_inside(features: GeoDataFrame, shapes: Any, scene: xr.DataArray, file: Path | None) -> LabelError:
    return LabelError(
        "no labelled point or polygon lies in the scene",
        file=file,
        found=f"features in {_box_in_words(shapes.total_bounds)}",
        expected=f"the scene's {_box_in_words(scene_bounds(scene))} of {scene.rio.crs}",
        remedy=_guess_at_coordinates(features, scene),
    )


def scene_bounds(scene: xr.DataArray) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of the box around the scene, rotated or not, in its CRS."""
    height, width = scene.sizes["y"], scene.sizes["x"]
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)])
    x, y = apply_affine(scene.rio.transform(), corners).T
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def apply_affine(transform: Affine, xy: np.ndarray) -> np.ndarray:
    """Move points (n, 2); written out, because Affine's own operator changed between its versions 2 and 3."""
    a, b, c, d, e, f = transform[:6]
    return xy @ np.array([[a, d], [b, e]]) + [c, f]


def _box_in_words(bounds: Sequence[float]) -> str:
    left, bottom, right, top = bounds
    return f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"


def _guess_at_coordinates(features: Any, scene: xr.DataArray) -> str:
    import shapely

    crs = scene.rio.crs.to_wkt()
    swapped = features.geometry.force_2d().transform(lambda xy: xy[:, ::-1])
    scene_box = shapely.box(*scene_bounds(scene))
    if swapped.to_crs(crs).intersects(scene_box).any():
        return "With x and y swapped they would lie in it: the file holds its coordinates in the wrong order."
    if features.geometry.intersects(scene_box).any():
        return "Their coordinates fit the scene's CRS as they are: the file names the wrong CRS."
    return "Check the CRS of both files, or choose the labels of this scene."
