"""Points and polygons with a class, burned into the scene's grid."""

from __future__ import annotations

import math
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
from spectralmamba.scenes.class_tables import ClassTable
from spectralmamba.scenes.products.emit import map_grid, swath_pixels
from spectralmamba.scenes.scene import has_georeference

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb")
_SAMPLES_SHOWN = 4


@dataclass(frozen=True)
class BurnRule:
    """Which pixels a polygon or point labels; lengths are in pixels, whatever the scene's rotation.

    Attributes:
        all_touched: A polygon labels every pixel that it meets, not only those whose centre it holds.
        shrink: Polygons are first made smaller by so much on all sides, against mixed pixels at their edges.
        point_radius: A point labels the pixel it lies in, and every pixel whose centre lies within this distance.

    Raises:
        LabelError: A length is negative or not finite.
    """

    all_touched: bool = False
    shrink: float = 0.0
    point_radius: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shrink", "point_radius"):
            length = getattr(self, name)
            if not (math.isfinite(length) and length >= 0):
                raise LabelError(
                    f"{name} is a length in pixels", found=f"{name}={length}", expected="a number of at least 0"
                )


@dataclass(frozen=True)
class BurnedLabels:
    """Vector labels on the scene's grid.

    Attributes:
        ids: (H, W) int32, 0 unlabelled.
        names: Class names; empty for classes given by number.
        report: What was left out: `outside_scene` (features), `conflicting_pixels`, `without_class` and
            `without_geometry` (features), `too_small` (polygons that label no pixel), and with `shrink` also `shrunk_away`
            (polygons of which nothing is left).
        notes: What the user should know, sentences.
        fields: (H, W) int32, which polygon or point labels a pixel, from 1, 0 none; polygons of one class that share pixels are
            one field. None where nobody asks.
    """

    ids: np.ndarray
    names: dict[int, str]
    report: dict[str, int]
    notes: list[str] = field(default_factory=list)
    fields: np.ndarray | None = None


def is_vector(source: object) -> bool:
    """Whether `source` is a GeoDataFrame or a path with the suffix of a vector format."""
    return _is_geodataframe(source) or Path(str(source)).suffix.lower() in SUFFIXES


def burn_vectors(
    source: Path | GeoDataFrame,
    scene: xr.DataArray,
    *,
    column: str | None = None,
    layer: str | None = None,
    rule: BurnRule | None = None,
    table: ClassTable | None = None,
) -> BurnedLabels:
    """Burn labelled points and polygons into the scene's grid.

    A polygon labels the pixels whose centre it holds, a point the pixel it lies in, unless the rule says otherwise. A pixel that
    gets two classes is left out and counted. Numbers are the ids themselves; text classes get the ids of the table, and those
    that it does not hold follow its highest id in sorted order.

    For a scene in the geometry of a sensor, features are burned into its map grid and carried to the sensor's pixels by the
    look-up table, as its maps are carried the other way.

    Args:
        source: GeoPackage, GeoJSON, Shapefile or FlatGeobuf, or a GeoDataFrame.
        scene: (band, y, x), with georeference, or with a map grid in `attrs["ortho"]`.
        column: Column of the class; may be left out if only one can be meant.
        layer: Layer of the file; may be left out if only one has geometry.
        rule: Which pixels are labelled.
        table: Ids of text classes.

    Raises:
        LabelError: The features cannot be read or do not fit, or none lies in the scene.
        MissingPackageError: geopandas is not installed.
    """
    file = None if _is_geodataframe(source) else Path(str(source))
    rule, grid = rule or BurnRule(), _grid_of(scene, file)
    features: Any = source if file is None else _read(file, layer)
    notes: list[str] = []
    if column is None:
        column = _only_plausible_column(features, file)
        notes.append(f'The classes were taken from the column "{column}".')
    ids, names = _class_of_each(features, column, file, table or ClassTable())
    shapes = _in_scene_crs(features, grid, file)
    missing = shapes.is_empty.to_numpy() | shapes.isna().to_numpy()
    report = {"without_class": int((ids == 0).sum()), "without_geometry": int((missing & (ids > 0)).sum())}
    usable = (ids > 0) & ~missing
    if not usable.any():
        raise LabelError(f'no feature has both a geometry and a class in "{column}"', file=file, found=report)
    pixels = _in_pixels(shapes[usable], grid.rio.transform())
    found, counts = _pixels_of_each(pixels, ids[usable], (grid.sizes["y"], grid.sizes["x"]), rule)
    if grid is not scene:
        found, lost = _on_swath(found, swath_pixels(scene.attrs["ortho"], scene.shape[1:]))
        counts["outside_scene"] += lost
    burned, fields, counts["conflicting_pixels"] = _settle(found, scene.shape[1:])
    if not burned.any() and not (counts["conflicting_pixels"] or counts["too_small"] or counts.get("shrunk_away")):
        raise _nothing_inside(features[usable], shapes[usable], grid, file)
    return BurnedLabels(burned, names, report | counts, notes, fields)


def _grid_of(scene: xr.DataArray, file: Path | None) -> xr.DataArray:
    """What features are burned into: the scene, or the map grid of one in the geometry of a sensor."""
    if not has_georeference(scene) and "ortho" in scene.attrs:
        return map_grid(scene.attrs["ortho"])
    remedy = "Give the labels as a raster of the scene's shape, or the scene with its CRS and transform."
    check_georeference(scene, LabelError, file, remedy)
    return scene


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


def _class_of_each(
    features: GeoDataFrame, column: str, file: Path | None, table: ClassTable
) -> tuple[np.ndarray, dict[int, str]]:
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
    numbers = table.ids_of(set(texts) - {""})
    return np.array([numbers.get(text, 0) for text in texts]), {id_: text for text, id_ in numbers.items()}


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


@dataclass(frozen=True)
class _Found:
    """Pixels that polygons and points meet, each as often as something lies on it.

    Attributes:
        pixels: (n,) place in the flattened grid.
        owners: (n,) which polygon or point.
        ids: (m,) class of each polygon and point.
    """

    pixels: np.ndarray
    owners: np.ndarray
    ids: np.ndarray


def _pixels_of_each(
    shapes: np.ndarray, ids: np.ndarray, grid: tuple[int, int], rule: BurnRule
) -> tuple[_Found, dict[str, int]]:
    """The pixels of polygons and points (n,) in pixel coordinates, and counts of those that have none."""
    import shapely

    are_points = shapely.get_dimensions(shapes) == 0
    inside = ~are_points & np.isfinite(shapely.bounds(shapes)).all(axis=1)
    inside[inside] = shapely.intersects(shapes[inside], shapely.box(0, 0, grid[1], grid[0]))
    areas, area_ids, counts = shapes[inside], ids[inside], {}
    if rule.shrink:
        areas = shapely.buffer(shapely.make_valid(areas), -rule.shrink)
        left = ~shapely.is_empty(areas)
        areas, area_ids, counts = areas[left], area_ids[left], {"shrunk_away": int((~left).sum())}
    of_areas = [_pixels_of_polygon(area, grid, rule.all_touched) for area in areas]
    sizes = np.array([len(pixels) for pixels in of_areas], np.int64)
    points, owner = shapely.get_coordinates(shapes[are_points], return_index=True)
    of_points, point = _pixels_of_points(points, grid, rule.point_radius)
    counts["outside_scene"] = int((~are_points & ~inside).sum()) + len(points) - len(np.unique(point))
    counts["too_small"] = int((sizes == 0).sum())
    pixels = np.concatenate([*of_areas, of_points])
    owners = np.concatenate([np.repeat(np.arange(len(areas)), sizes), len(areas) + point])
    return _Found(pixels, owners, np.concatenate([area_ids, ids[are_points][owner]])), counts


def _in_pixels(shapes: Any, transform: Affine) -> np.ndarray:
    """Geometries in (column, row) coordinates, where a rotated scene is as straight as any other."""
    import shapely

    flat = shapely.force_2d(shapes.to_numpy())
    with np.errstate(invalid="ignore"):  # what the CRS cannot hold is infinite, and counted as outside
        return shapely.transform(flat, lambda xy: apply_affine(~transform, xy))


def _pixels_of_polygon(area: Any, grid: tuple[int, int], all_touched: bool) -> np.ndarray:
    """The pixels of a polygon, in pixel coordinates, on the flattened grid."""
    left, top, right, bottom = np.clip(area.bounds, 0, [grid[1], grid[0]] * 2)
    first, last = np.floor([top, left]).astype(int), np.ceil([bottom, right]).astype(int)
    if (last <= first).any():
        return np.empty(0, np.int64)
    window = Affine.translation(first[1], first[0])
    burned: Any = rasterize(
        [area], out_shape=tuple(last - first), transform=window, all_touched=all_touched, dtype=np.uint8
    )
    rows, columns = np.nonzero(burned)
    return (rows + first[0]) * grid[1] + columns + first[1]


def _pixels_of_points(points: np.ndarray, grid: tuple[int, int], radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of points (n, 2), on the flattened grid, and which point each is of; a point outside has none."""
    inside = np.flatnonzero(((points >= 0) & (points < [grid[1], grid[0]])).all(axis=1))
    own = np.floor(points[inside]).astype(np.int64)
    pixels, owners = [own[:, 1] * grid[1] + own[:, 0]], [inside]
    reach = math.ceil(radius)
    steps = np.indices((2 * reach + 1,) * 2).reshape(2, -1).T - reach
    for step in steps[(steps != 0).any(axis=1)]:
        there = own + step
        near = (np.linalg.norm(there + 0.5 - points[inside], axis=1) <= radius) & (there >= 0).all(axis=1)
        near &= (there < [grid[1], grid[0]]).all(axis=1)
        pixels.append(there[near, 1] * grid[1] + there[near, 0])
        owners.append(inside[near])
    return np.concatenate(pixels), np.concatenate(owners)


def _on_swath(found: _Found, places: np.ndarray) -> tuple[_Found, int]:
    """What was found on a map grid, on the sensor's pixels at `places`, and how many features lie beside the swath."""
    pixels = places.ravel()[found.pixels]
    seen = pixels >= 0
    lost = len(np.unique(found.owners)) - len(np.unique(found.owners[seen]))
    return _Found(pixels[seen], found.owners[seen], found.ids), lost


def _settle(found: _Found, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, int]:
    """Class ids and fields (H, W), and how many pixels have two classes, which get none.

    A field is a polygon or point, or several of one class that share pixels: no pixel is then of two fields.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    order = np.argsort(found.pixels, kind="stable")
    pixels, owners = found.pixels[order], found.owners[order]
    classes = found.ids[owners]
    shared = pixels[1:] == pixels[:-1]
    conflicting = np.zeros(math.prod(shape), bool)
    conflicting[pixels[1:][shared & (classes[1:] != classes[:-1])]] = True
    kept = ~conflicting[pixels]
    joined = shared & kept[1:]
    count = len(found.ids)
    pairs = coo_array((np.ones(int(joined.sum()), bool), (owners[1:][joined], owners[:-1][joined])), (count, count))
    _, groups = connected_components(pairs, directed=False)
    ids, fields = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    ids.flat[pixels[kept]] = classes[kept]
    _, number = np.unique(groups[owners[kept]], return_inverse=True)
    fields.flat[pixels[kept]] = number + 1
    return ids, fields, int(conflicting.sum())


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
