"""A map as polygons in a GeoPackage: class, area and mean confidence of each, coloured by class."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import shapes, sieve
from rasterio.windows import Window

from spectralmamba.errors import OutputError, SettingsError
from spectralmamba.files import atomic_output
from spectralmamba.gis.class_areas import DIGITS
from spectralmamba.gis.finished_map import FinishedMap, open_map
from spectralmamba.gis.style import polygon_style
from spectralmamba.memory import memory_free
from spectralmamba.scenes.raster_files import opened_raster
from spectralmamba.scenes.vectors import import_geopandas

ID_COLUMN = "class_id"
_BYTES_A_PIXEL = 20  # of memory: ids, numbers of polygons, and what finds them
_CONFIDENCE_DIGITS = 4


def write_polygons(
    map_file: str | os.PathLike[str] | FinishedMap, path: str | os.PathLike[str], *, smallest_area: str | None = None
) -> Path:
    """Write the polygons of a map of classes as GeoPackage, in the map's CRS, with colours that QGIS shows at once.

    A polygon is what hangs together of a class by the sides of pixels. Its columns: `class_id`; `class`, the name; `pixels`;
    `hectares`, the sum of its pixels' areas, which are those of the projection, or in degrees those on the CRS's ellipsoid (closed
    form of Snyder 1987, equation 3-12), so that polygons sum to the map's areas; `mean_confidence`, where "map_confidence.tif" lies
    beside "map.tif".

    All of the map is in memory, 20 bytes a pixel and about 2 kB a polygon; of a noisy map, `smallest_area` keeps polygons few.

    Args:
        map_file: The finished map.
        path: The `.gpkg` to write; it appears whole or not at all.
        smallest_area: Such as "0.5ha" or "9px". What is smaller goes to the largest polygon beside it (GDAL's sieve); what has none
            beside it that is large enough is left out. Hectares are pixels of the map's middle row.

    Returns:
        The path.

    Raises:
        LabelError: The map cannot be read.
        OutputError: The map has no CRS or is larger than the memory, or the file cannot be written.
        SettingsError: `smallest_area` is no area.
        MissingPackageError: geopandas is not installed.
    """
    path, mapped = check_polygon_file(path), open_map(map_file)
    areas = mapped.row_areas
    if areas is None:
        raise OutputError(
            "polygons need a map with coordinates",
            file=mapped.path,
            found="no CRS" if mapped.crs is None else "a rotated map in degrees",
            remedy="Give the scene its CRS and transform, or warp the map with gdalwarp -r near.",
        )
    least = 1 if smallest_area is None else smallest_pixels(smallest_area, float(areas[len(areas) // 2]))
    _check_memory(mapped)
    ids = np.concatenate([strip for _, strip in mapped.strips()])
    if least > 1:
        ids = sieve(ids, least, mask=ids > 0)
    numbers, classes = _number(ids, mapped)
    pixels = np.bincount(numbers.ravel(), minlength=len(classes))
    columns = {"hectares": np.round(_sums(numbers, areas, len(classes)), DIGITS)}
    if "confidence" in mapped.layers:
        total = _confidence_sums(mapped, numbers, len(classes))
        columns["mean_confidence"] = np.round(total / np.maximum(pixels, 1), _CONFIDENCE_DIGITS)
    numbers[(pixels < least)[numbers]] = 0
    _write(path, mapped, numbers, {ID_COLUMN: classes, "pixels": pixels, **columns})
    return path


def check_polygon_file(path: str | os.PathLike[str]) -> Path:
    """Return the path if polygons can be written there.

    Raises:
        MissingPackageError: geopandas is not installed.
        OutputError: The suffix is another than `.gpkg`.
    """
    path = Path(path)
    if path.suffix.lower() != ".gpkg":
        raise OutputError(
            "polygons are written as GeoPackage",
            file=path,
            found=path.suffix or "no suffix",
            expected="a name that ends with .gpkg",
        )
    import_geopandas(path)
    return path


def smallest_pixels(text: str, hectares: float) -> int:
    """Return how many pixels of so many hectares make an area such as "0.5ha" or "9px".

    Raises:
        SettingsError: It is no area.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ha|px)", text.strip().lower())
    if found is None or float(found[1]) == 0:
        raise SettingsError("this is no smallest area", found=text, expected="a number and a unit: 0.5ha, 9px")
    # The quotient of 0.09 ha and pixels of 0.01 ha is a hair above 9.
    pixels = float(found[1]) if found[2] == "px" else round(float(found[1]) / hectares, 6)
    return math.ceil(pixels)


def _check_memory(mapped: FinishedMap) -> None:
    needed, free = _BYTES_A_PIXEL * math.prod(mapped.shape), memory_free()
    if free is not None and needed > free:
        raise OutputError(
            "the map is too large to make polygons of all of it",
            file=mapped.path,
            found=f"{free / 1e9:.1f} GB of memory free",
            expected=f"{needed / 1e9:.1f} GB for {mapped.shape[0]} × {mapped.shape[1]} pixels",
            remedy="Cut the map into parts with gdal_translate -srcwin.",
        )


def _number(ids: NDArray[Any], mapped: FinishedMap) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the number of each pixel's polygon `(H, W)`, 0 nodata, and the class id by that number."""
    from scipy import ndimage

    numbers, classes = np.zeros(ids.shape, np.int32), [0]
    for each in mapped.classes:
        found: Any = ndimage.label(ids == each.id)
        part, count = found
        np.add(part, len(classes) - 1, out=numbers, where=part > 0)
        classes += [each.id] * count
    return numbers, np.array(classes)


def _sums(numbers: NDArray[np.int32], of_rows: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the sum of what each row's pixels have, by polygon."""
    sums = np.zeros(count)
    for row, each in zip(numbers, of_rows, strict=True):
        there, pixels = np.unique(row, return_counts=True)
        sums[there] += each * pixels
    return sums


def _confidence_sums(mapped: FinishedMap, numbers: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    sums, file = np.zeros(count), mapped.layers["confidence"]
    with opened_raster(file) as raster:
        if raster.shape != mapped.shape:
            raise OutputError(
                "the confidence beside the map is of another map",
                file=file,
                found=raster.shape,
                expected=mapped.shape,
                remedy="Move one of the two away.",
            )
        for rows, _ in mapped.strips():
            values = raster.read(1, window=Window.from_slices(rows, slice(0, mapped.shape[1])))
            sums += np.bincount(numbers[rows].ravel(), np.nan_to_num(values).ravel(), minlength=count)
    return sums


def _write(path: Path, mapped: FinishedMap, numbers: NDArray[np.int32], columns: dict[str, NDArray[Any]]) -> None:
    import geopandas
    import pandas as pd
    import pyogrio
    from pyogrio.errors import DataSourceError

    found = sorted(_shapes(numbers, mapped), key=lambda pair: pair[0])
    there = np.array([number for number, _ in found], dtype=np.int64)
    names = {each.id: each.name for each in mapped.classes}
    table: dict[str, Any] = {name: values[there] for name, values in columns.items()}
    table = {
        ID_COLUMN: table.pop(ID_COLUMN),
        "class": [names[id_] for id_ in columns[ID_COLUMN][there].tolist()],
        **table,
    }
    assert mapped.crs is not None
    features = geopandas.GeoDataFrame(table, geometry=[shape for _, shape in found], crs=mapped.crs.to_wkt())
    style = pd.DataFrame([_default_style(path.stem, polygon_style(mapped.classes, ID_COLUMN))])
    with atomic_output(path) as temporary:
        try:
            features.to_file(temporary, layer=path.stem, driver="GPKG", engine="pyogrio", geometry_type="Polygon")
            pyogrio.write_dataframe(style, temporary, layer="layer_styles", driver="GPKG")
        except (RuntimeError, DataSourceError) as error:  # GDAL's own, whatever went wrong
            raise OSError(str(error)) from error


def _shapes(numbers: NDArray[np.int32], mapped: FinishedMap) -> Iterator[tuple[int, Any]]:
    """Yield the number and shape of each polygon."""
    import shapely.geometry

    for shape, number in shapes(numbers, mask=numbers > 0, connectivity=4, transform=mapped.transform):
        yield int(number), shapely.geometry.shape(shape)


def _default_style(layer: str, qml: str) -> dict[str, Any]:
    """Return the row that QGIS keeps of a layer's style in a GeoPackage (`QgsOgrProviderMetadata::saveStyle`)."""
    return {
        "f_table_catalog": "",
        "f_table_schema": "",
        "f_table_name": layer,
        "f_geometry_column": "geom",
        "styleName": layer,
        "styleQML": qml,
        "styleSLD": "",
        "useAsDefault": True,
        "description": "the map's classes",
        "owner": "",
        "ui": None,
        "update_time": datetime.now(UTC),
    }
