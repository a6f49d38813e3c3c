"""Scenes and labels written as GeoTIFF, so that GDAL, QGIS and this package read them alike."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zlib import crc32

import numpy as np
import rasterio
import xarray as xr
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from spectralmamba.errors import OutputError
from spectralmamba.files import atomic_output, write_text
from spectralmamba.scenes.palette import rgb
from spectralmamba.scenes.resampling import resampled_in_words
from spectralmamba.scenes.scene import BLOCK_VALUES

_REFLECTANCE_SCALE = 10_000  # the usual one of 16-bit reflectance products
_TILE = 256  # pixels on a side
# Column of the attribute table, GDALRATFieldType and GDALRATFieldUsage.
_TABLE_COLUMNS = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
_COUNT_COLUMN, _AREA_COLUMN = ("Count", 1, 1), ("Hectares", 1, 0)  # real: GDAL's integers end at 2³¹


def write_scene(scene: xr.DataArray, path: str | os.PathLike[str], *, as_integer: bool = True) -> Path:
    """Write a scene as tiled GeoTIFF, with wavelength, fwhm (nm) and bbl as tags of every band.

    Args:
        scene: (band, y, x), physical values, NaN where nodata.
        path: The file to write; it appears whole or not at all.
        as_integer: int16, values × 10 000 with the scale in the tags (fit for reflectance); otherwise float32.

    Returns:
        The path.

    Raises:
        OutputError: The file cannot be written, or a value does not fit int16.
    """
    path = Path(path)
    nodata = _nodata(scene)
    profile = _profile(scene, np.int16 if as_integer else np.float32, nodata)
    with raster_output(path, profile) as target:
        if as_integer:
            target.scales = (1 / _REFLECTANCE_SCALE,) * target.count
        for number in range(1, target.count + 1):
            band = scene.isel(band=number - 1)
            values = np.asarray(band.values, np.float32)
            target.write(_to_int16(values, nodata, path) if as_integer else _fill_nodata(values, nodata), number)
            target.update_tags(number, **_band_tags(band))
    return path


def write_large_scene(
    scene: xr.DataArray, path: str | os.PathLike[str], on_window: Callable[[int, int], None] | None = None
) -> Path:
    """Write a scene as GeoTIFF of float32, like `write_scene` but window by window, in memory that does not grow with the scene.

    Args:
        scene: (band, y, x), physical values, NaN where nodata.
        path: The file to write; it appears whole or not at all.
        on_window: Called after each window with the number of pixels done and in all.

    Returns:
        The path.

    Raises:
        OutputError: The file cannot be written.
        SceneError: The scene's file cannot be read any more.
    """
    path, windows = Path(path), _windows(scene.shape)
    with atomic_output(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            sums = _write_windows(scene, temporary, windows, on_window)
            # GDAL keeps silent about a write that fails while it closes a file.
            with rasterio.open(temporary) as written:
                for (rows, columns), expected in zip(windows, sums, strict=True):
                    if crc32(written.read(window=Window.from_slices(rows, columns)).data) != expected:
                        raise RasterioError("a part of the written file differs from what was to be written")
        except (RasterioError, CPLE_BaseError, SystemError) as error:
            raise OutputError(
                "cannot write the scene",
                file=path,
                found=f"{error}; {shutil.disk_usage(path.parent).free} bytes free",
                expected=f"up to {scene.dtype.itemsize * scene.size} bytes free",
                remedy="Free some space or choose another folder; nothing was left under the final name.",
            ) from error
    return path


def _write_windows(
    scene: xr.DataArray,
    file: Path,
    windows: list[tuple[slice, slice]],
    on_window: Callable[[int, int], None] | None,
) -> list[int]:
    """Write a scene and what it says of its bands; return the checksum of each window."""
    nodata, sums, done = _nodata(scene), [], 0
    with rasterio.open(file, "w", **_profile(scene, np.float32, nodata)) as target:
        for number in range(1, target.count + 1):
            target.update_tags(number, **_band_tags(scene.isel(band=number - 1)))
        if resampled := resampled_in_words(scene):
            target.update_tags(RESAMPLED=resampled)
        if "acquisition_time" in scene.attrs:
            target.update_tags(acquisition_time=scene.attrs["acquisition_time"])
        for rows, columns in windows:
            values = _fill_nodata(np.asarray(scene[:, rows, columns].values, np.float32), nodata)
            target.write(values, window=Window.from_slices(rows, columns))
            sums.append(crc32(np.ascontiguousarray(values).data))
            done += values[0].size
            if on_window is not None:
                on_window(done, scene[0].size)
    return sums


def _windows(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Return windows that cover a scene: the file's tiles, or of smaller ones, which are in strips, some rows."""
    bands, height, width = shape
    rows, columns = (_TILE, _TILE) if min(height, width) >= _TILE else (max(1, BLOCK_VALUES // (bands * width)), width)
    return [
        (slice(top, min(top + rows, height)), slice(left, min(left + columns, width)))
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]


def write_labels(labels: xr.DataArray, path: str | os.PathLike[str]) -> Path:
    """Write labels as GeoTIFF with colour table, class names and colours (tags and `.aux.xml` beside it).

    Args:
        labels: (y, x) class ids, 0 unlabelled, with `class_names` and `class_colors` in `attrs`.
        path: The file to write, uint8 or uint16 as the ids need; it appears whole or not at all.

    Returns:
        The path.

    Raises:
        OutputError: The file cannot be written.
    """
    path = Path(path)
    names, colors = labels.attrs["class_names"], labels.attrs["class_colors"]
    dtype = np.uint8 if int(labels.max()) <= np.iinfo(np.uint8).max else np.uint16
    with raster_output(path, _profile(labels, dtype, 0)) as target:
        target.write(labels.values.astype(dtype), 1)
        target.write_colormap(1, {0: (0, 0, 0, 0)} | {id_: (*rgb(color), 255) for id_, color in colors.items()})
        target.update_tags(CLASS_NAMES=_as_json(names), CLASS_COLORS=_as_json(colors))
    write_text(path.with_name(path.name + ".aux.xml"), class_sidecar_xml(names, colors))
    return path


@contextmanager
def raster_output(path: str | os.PathLike[str], profile: dict[str, Any]) -> Iterator[Any]:
    """Yield a raster in memory that becomes the file `path` at the end, whole or not at all.

    GDAL, when it writes to the disk itself, does not say that the disk is full but that something is wrong.

    Args:
        path: The file.
        profile: What rasterio makes the raster from.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_output(path) as temporary, MemoryFile() as memory:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(**profile) as raster:
                yield raster
        temporary.write_bytes(memory.getbuffer())


def class_sidecar_xml(
    class_names: Mapping[int, str],
    class_colors: Mapping[int, str],
    pixels: Mapping[int, int] | None = None,
    hectares: Mapping[int, float] | None = None,
) -> str:
    """Class names and colours of band 1 as GDAL's persistent auxiliary metadata (PAM), the text of an `.aux.xml` file.

    GDAL, QGIS and ArcGIS read the raster attribute table (Value, Class, Red, Green, Blue, and Count and Hectares as far as they
    are given). Category names, which GDAL counts from 0 without gaps, are there too as long as the ids fit a byte.

    Args:
        class_names: `{id: name}`.
        class_colors: `{id: "#rrggbb"}` of the same ids.
        pixels: Pixels of each of these classes.
        hectares: Area of each of these classes.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    highest = max(class_names, default=0)
    if highest <= np.iinfo(np.uint8).max:
        categories = ElementTree.SubElement(band, "CategoryNames")
        for id_ in range(highest + 1):
            ElementTree.SubElement(categories, "Category").text = one_line(class_names.get(id_, ""))
    measured = [
        (column, values) for column, values in ((_COUNT_COLUMN, pixels), (_AREA_COLUMN, hectares)) if values is not None
    ]
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, type_, usage) in enumerate((*_TABLE_COLUMNS, *(column for column, _ in measured))):
        definition = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        for tag, value in (("Name", name), ("Type", type_), ("Usage", usage)):
            ElementTree.SubElement(definition, tag).text = str(value)
    for index, (id_, name) in enumerate(sorted(class_names.items())):
        row = ElementTree.SubElement(table, "Row", index=str(index))
        for value in (id_, one_line(name), *rgb(class_colors[id_]), *(values[id_] for _, values in measured)):
            ElementTree.SubElement(row, "F").text = str(value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _nodata(scene: xr.DataArray) -> float:
    return float(scene.rio.encoded_nodata if scene.rio.encoded_nodata is not None else -9999)


def one_line(name: str) -> str:
    """Return a name without control characters, which XML has no way to write."""
    return "".join(letter if letter.isprintable() else " " for letter in name)


def _profile(array: xr.DataArray, dtype: type, nodata: float) -> dict[str, Any]:
    height, width = array.sizes["y"], array.sizes["x"]
    # GDAL wants tiles in multiples of 16; a raster smaller than a tile is better off in strips.
    tiling = {"tiled": True, "blockxsize": _TILE, "blockysize": _TILE} if min(height, width) >= _TILE else {}
    return {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": array.sizes.get("band", 1),
        "dtype": np.dtype(dtype).name,
        "crs": array.rio.crs,
        "transform": array.rio.transform(),
        "nodata": nodata,
        "compress": "deflate",
        "predictor": 3 if np.dtype(dtype).kind == "f" else 2,
        "interleave": "band",
        "bigtiff": "if_safer",
        **tiling,
    }


def _to_int16(values: np.ndarray, nodata: float, path: Path) -> np.ndarray:
    scaled = np.round(values.astype(np.float64) * _REFLECTANCE_SCALE)
    limits = np.iinfo(np.int16)
    finite = scaled[np.isfinite(scaled)]
    if finite.size and (finite.min() < limits.min or finite.max() > limits.max or (finite == nodata).any()):
        raise OutputError(
            f"a value does not fit int16 scaled by {_REFLECTANCE_SCALE} with nodata {nodata:g}",
            file=path,
            found=f"values from {finite.min() / _REFLECTANCE_SCALE:g} to {finite.max() / _REFLECTANCE_SCALE:g}",
            remedy="Write it as float32.",
        )
    return _fill_nodata(scaled, nodata).astype(np.int16)


def _fill_nodata(values: np.ndarray, nodata: float) -> np.ndarray:
    return np.where(np.isfinite(values), values, nodata).astype(values.dtype)


def _band_tags(band: xr.DataArray) -> dict[str, str]:
    tags = {"bbl": str(int(band["good"]))}
    if np.isfinite(band["wavelength"]):
        tags |= {"wavelength": repr(float(band["wavelength"])), "wavelength_units": "Nanometers"}
    if np.isfinite(band["fwhm"]):
        tags["fwhm"] = repr(float(band["fwhm"]))
    return tags


def _as_json(by_class: Mapping[int, str]) -> str:
    return json.dumps({str(id_): text for id_, text in by_class.items()}, ensure_ascii=False)
