"""Labels of any format on the scene's grid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from rasterio.crs import CRS
from rasterio.transform import Affine

from spectralmamba.errors import LabelError
from spectralmamba.scenes.class_rasters import ClassRaster, read_class_raster
from spectralmamba.scenes.class_tables import ClassTable, read_class_table
from spectralmamba.scenes.merging import Merge, merge_and_drop
from spectralmamba.scenes.palette import default_colors
from spectralmamba.scenes.scene import has_georeference, valid_mask
from spectralmamba.scenes.vectors import BurnRule, apply_affine, burn_vectors, is_vector

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

_GRID_TOLERANCE = 0.01  # pixels; headers written as text round their coordinates


def open_labels(
    path: str | os.PathLike[str] | GeoDataFrame,
    scene: xr.DataArray | None = None,
    *,
    variable: str | None = None,
    column: str | None = None,
    layer: str | None = None,
    all_touched: bool = False,
    shrink: float = 0.0,
    point_radius: float = 0.0,
    classes: str | os.PathLike[str] | ClassTable | None = None,
    merge: Merge | None = None,
    drop: Sequence[str | int] = (),
) -> xr.DataArray:
    """Open labels and bring them onto the scene's grid.

    Rasters (.mat, .npy, GeoTIFF, ENVI classification, .png) must lie on that grid, or on one shifted by whole pixels if
    both have a georeference; without it they must have the scene's shape. Points and polygons (GeoPackage, GeoJSON,
    Shapefile, FlatGeobuf, GeoDataFrame) are burned into the grid; for a scene in the geometry of a sensor (EMIT), into its
    map grid, from which the look-up table leads to the sensor's pixels.

    A class table names classes first; then classes are merged, or left out.

    Args:
        path: The file, or a GeoDataFrame.
        scene: (band, y, x) as `open_scene` returns it; None takes a raster as it is.
        variable: Variable of a .mat file, needed if several could be meant.
        column: Column of points or polygons that holds the class, needed if several could be meant.
        layer: Layer of a vector file, needed if several have geometry.
        all_touched: Whether a polygon labels every pixel that it meets, not only those whose centre it holds.
        shrink: By how many pixels polygons are first made smaller on all sides, against mixed pixels at their edges.
        point_radius: In pixels: a point labels the pixel it lies in, and every pixel whose centre lies within this distance.
        classes: Names, colours and, for classes given as text, ids: a file as `read_class_table` takes it, or what it returned.
        merge: Names of new classes, and the names or ids of the classes that each is made of: `{"cereal": ["wheat", "barley"]}`.
        drop: Names or ids of classes to leave out.

    Returns:
        (y, x) int32 class ids, 0 unlabelled. `attrs`: `class_names` `{id: name}` and `class_colors` `{id: "#rrggbb"}`,
        complete for the ids present; `report`, counts of what was left out (`outside_scene`, `on_nodata`,
        `conflicting_pixels`; for vectors `too_small`, `without_class`, `without_geometry`, and with `shrink` `shrunk_away`; with
        `drop` `in_dropped_classes`); `source`; `notes`, sentences that the user should read; `opened_with`, the arguments that
        were not left at their default, ready for JSON. Labels from points and polygons have a coordinate `field` (y, x), int32:
        which polygon or point each pixel is of, from 1, 0 unlabelled. The parts of a multipart polygon are one field, and so are
        polygons or points of one class that share a pixel.

    Raises:
        LabelError: The labels cannot be read, do not fit the scene, or none is left.
        MissingPackageError: The format needs an optional package.
    """
    rule = BurnRule(all_touched, shrink, point_radius)
    table = classes if classes is None or isinstance(classes, ClassTable) else read_class_table(classes)
    if is_vector(path):
        source = "a GeoDataFrame" if hasattr(path, "to_crs") else str(path)
        found = _burn(path, source, scene, variable, column, layer, rule, table)
    else:
        source = os.fspath(cast("str | os.PathLike[str]", path))
        _refuse_rule(rule, source)
        found = _align(Path(source), scene, variable, column, layer)
    options = {"variable": variable, "column": column, "layer": layer, "all_touched": all_touched, "shrink": shrink}
    options |= {"point_radius": point_radius, "classes": None if table is None else table.to_list()}
    options |= {"merge": {name: list(listed) for name, listed in (merge or {}).items()}, "drop": list(drop)}
    found = _regrouped(found, table, merge or {}, drop, source)
    ids, report = found.raster.ids, {"outside_scene": 0, "on_nodata": 0, "conflicting_pixels": 0} | found.report
    if scene is not None:
        on_nodata = (ids > 0) & ~valid_mask(scene)
        report["on_nodata"] = int(on_nodata.sum())
        ids = np.where(on_nodata, 0, ids)
    if not ids.any():
        raise LabelError(
            "no labelled pixel is left",
            file=source,
            found=", ".join(f"{name} {count}" for name, count in report.items()),
            remedy=None if any(report.values()) else "All values are 0 or nodata: is this the class raster?",
        )
    present = [int(id_) for id_ in np.unique(ids) if id_ > 0]
    labels = xr.DataArray(ids, dims=("y", "x"), coords=_coordinates(scene, found.raster))
    labels.attrs = {
        "class_names": {id_: found.raster.names.get(id_) or f"class {id_}" for id_ in present},
        "class_colors": _complete_colors(present, found.raster.colors),
        "report": report,
        "source": source,
        "notes": found.raster.notes,
        "opened_with": {name: value for name, value in options.items() if value},
    }
    if found.fields is not None:
        labels = labels.assign_coords(field=(("y", "x"), np.where(ids > 0, found.fields, 0)))
    return _with_georeference(labels, found.raster)


@dataclass(frozen=True)
class _Found:
    raster: ClassRaster
    report: dict[str, int]
    fields: np.ndarray | None = None


def _regrouped(found: _Found, table: ClassTable | None, merge: Merge, drop: Sequence[str | int], source: str) -> _Found:
    """The labels with the table's names and colours, then merged and without what is left out."""
    raster, report = found.raster, found.report
    if table is not None:
        raster = table.applied_to(raster)
    if merge or drop:
        raster, dropped = merge_and_drop(raster, merge, drop, source)
        report = report | ({"in_dropped_classes": dropped} if drop else {})
    if table is not None:
        listed = table.of(found.raster)
        missing = [f"{name} ({id_})" for id_, name in raster.present().items() if id_ not in listed]
        note = [f"Not in {table.source}: {', '.join(missing)}."] if missing else []
        raster = replace(raster, notes=[*raster.notes, *note])
    return replace(found, raster=raster, report=report)


def _refuse_rule(rule: BurnRule, source: str) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in vars(rule).items() if value]
    if given:
        raise LabelError(
            "a class raster has neither polygons nor points",
            file=source,
            found=" and ".join(given),
            remedy="Leave it out, or give points or polygons.",
        )


def _burn(
    path: Any,
    source: str,
    scene: xr.DataArray | None,
    variable: str | None,
    column: str | None,
    layer: str | None,
    rule: BurnRule,
    table: ClassTable | None,
) -> _Found:
    if scene is None:
        raise LabelError("points and polygons need a scene to lie in", file=source, remedy="Give the scene, too.")
    if variable is not None:
        raise LabelError(
            "points and polygons have columns, not variables",
            file=source,
            found=f"--label-variable {variable}",
            remedy="Name the column that holds the class with --label-column.",
        )
    burned = burn_vectors(path, scene, column=column, layer=layer, rule=rule, table=table)
    transform = scene.rio.transform() if has_georeference(scene) else None
    raster = ClassRaster(burned.ids, burned.names, crs=scene.rio.crs, transform=transform, notes=burned.notes)
    return _Found(raster, burned.report, burned.fields)


def _align(
    path: Path, scene: xr.DataArray | None, variable: str | None, column: str | None, layer: str | None
) -> _Found:
    """Read a class raster and put it on the scene's grid; without scene it stays as it is."""
    if column is not None or layer is not None:
        raise LabelError(
            "a class raster has neither columns nor layers",
            file=path,
            found=f"--label-column {column}" if column is not None else f"--layer {layer}",
            remedy="Leave it out, or give points or polygons.",
        )
    raster = read_class_raster(path, variable)
    if scene is None:
        return _Found(raster, {})
    notes = list(raster.notes)
    if raster.transform is not None and has_georeference(scene):
        ids, outside = _onto_grid(raster, scene, path)
        if (raster.crs is None) != (scene.rio.crs is None):
            notes.append("Only one of scene and labels names its CRS; it was taken for both.")
    else:
        _check_shape(raster.ids.shape, scene, path)
        ids, outside = raster.ids, 0
        if raster.transform is not None or has_georeference(scene):
            notes.append("Only one of scene and labels has a georeference; pixels were matched by row and column.")
    transform = scene.rio.transform() if has_georeference(scene) else None
    return _Found(
        replace(raster, ids=ids, crs=scene.rio.crs, transform=transform, notes=notes), {"outside_scene": outside}
    )


def _onto_grid(raster: ClassRaster, scene: xr.DataArray, file: Path) -> tuple[np.ndarray, int]:
    """Class ids (H, W) and the count of labelled pixels outside; a shift by whole pixels only, nothing is resampled."""
    assert raster.transform is not None
    height, width = raster.ids.shape
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)])
    moved = apply_affine(~scene.rio.transform(), apply_affine(raster.transform, corners))
    shift = np.round(moved[0])
    same_crs = raster.crs is None or scene.rio.crs is None or _same_crs(raster.crs, scene.rio.crs)
    grids = {
        "found": "labels on " + _grid_in_words((height, width), raster.crs, raster.transform),
        "expected": "the scene's " + _grid_in_words(scene.shape[1:], scene.rio.crs, scene.rio.transform()),
    }
    if not same_crs or np.abs(moved - corners - shift).max() > _GRID_TOLERANCE:
        raise LabelError(
            "the labels do not lie on the scene's grid",
            file=file,
            **grids,
            remedy="Warp them onto it with nearest neighbour (gdalwarp -r near -t_srs -tr -te), or give polygons.",
        )
    left, top = int(shift[0]), int(shift[1])
    ids = np.zeros(scene.shape[1:], np.int32)
    rows, columns = (slice(max(0, at), max(0, at + size)) for at, size in ((top, height), (left, width)))
    inside = ids[rows, columns]
    row, column = max(0, -top), max(0, -left)
    inside[...] = raster.ids[row : row + inside.shape[0], column : column + inside.shape[1]]
    if not ids.any() and raster.ids.any():
        raise LabelError("no label lies in the scene", file=file, **grids, remedy="Choose the labels of this scene.")
    return ids, int((raster.ids > 0).sum() - (ids > 0).sum())


def _same_crs(one: CRS, other: CRS) -> bool:
    """Equal, or of one EPSG code: the same CRS is spelled in several ways (ENVI's WKT, GDAL's)."""
    return one == other or (one.to_epsg() is not None and one.to_epsg() == other.to_epsg())


def _grid_in_words(shape: tuple[int, ...], crs: CRS | None, transform: Affine) -> str:
    words = f"{shape[0]}×{shape[1]} pixels"
    if transform.b or transform.d:
        words += f", rotated: {tuple(round(value, 6) for value in transform[:6])}"
    else:
        words += (
            f" of {transform.a:.10g}×{-transform.e:.10g}, upper left corner ({transform.c:.10g}, {transform.f:.10g})"
        )
    return f"{words}, {'no CRS' if crs is None else f'CRS {crs.to_string()}'}"


def _check_shape(shape: tuple[int, ...], scene: xr.DataArray, file: Path) -> None:
    bands, *grid = scene.shape
    if list(shape) == grid:
        return
    remedy = "Give the labels of this scene, with georeference if they cover another part of it."
    if list(shape) == grid[::-1]:
        remedy = "Rows and columns are exchanged: transpose the labels, or choose the scene's axes with --band-axis."
    elif any(sorted(shape) == sorted((bands, side)) for side in grid):
        remedy = (
            f"The scene was read with {bands} bands, which fits no label; choose the axis of bands with --band-axis."
        )
    raise LabelError(
        "labels and scene have different shapes, and no georeference to align them by",
        file=file,
        found=f"{shape[0]} rows × {shape[1]} columns",
        expected=f"{grid[0]} rows × {grid[1]} columns ({scene.attrs.get('source', 'the scene')})",
        remedy=remedy,
    )


def _coordinates(scene: xr.DataArray | None, raster: ClassRaster) -> dict[str, Any]:
    if scene is not None:
        return {name: scene.coords[name] for name in ("y", "x") if name in scene.coords}
    transform = raster.transform
    if transform is None or transform.b or transform.d:
        return {}
    rows, columns = (np.arange(size) + 0.5 for size in raster.ids.shape)
    return {"y": transform.f + transform.e * rows, "x": transform.c + transform.a * columns}


def _with_georeference(labels: xr.DataArray, raster: ClassRaster) -> xr.DataArray:
    if raster.transform is not None:
        labels = labels.rio.write_transform(raster.transform)
    if raster.crs is not None:
        labels = labels.rio.write_crs(raster.crs)
    return labels


def _complete_colors(present: list[int], given: Mapping[int, str]) -> dict[int, str]:
    known = {id_: given[id_].lower() for id_ in present if id_ in given}
    filled = default_colors([id_ for id_ in present if id_ not in known], taken=known.values())
    return {id_: known.get(id_) or filled[id_] for id_ in present}
