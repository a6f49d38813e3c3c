"""Classifier and scene → map: cloud-optimised GeoTIFFs on the scene's grid, written tile by tile."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from spectralmamba.classifier import Classifier, Tile
from spectralmamba.errors import OutputError
from spectralmamba.files import atomic_output
from spectralmamba.models.committee import SIMPLE_MODELS
from spectralmamba.scenes import has_georeference
from spectralmamba.scenes.palette import rgb
from spectralmamba.scenes.writing import class_sidecar_xml

_BLOCK = 512  # pixels on a side of a COG block, GDAL's default
_MOST_COUNTED = 254  # classes in a set
SET_SIZE_NODATA = 255


class _Layer(NamedTuple):
    """What lies beside a class map.

    Attributes:
        description: What its band holds.
        dtype: Of its values.
        nodata: The value where there is no class.
        overviews: How GDAL makes pixels of overviews from those of the layer.
        values: The values `(h, w)` of a tile; None if the classifier does not tell.
        tags: What its file says of the classifier, by the card, besides where the map comes from.
    """

    description: str
    dtype: type
    nodata: float
    overviews: str
    values: Callable[[Tile], np.ndarray | None]
    tags: Callable[[dict[str, Any]], dict[str, str]] = lambda _: {}


def _confidence(tile: Tile) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a pixel of nodata has no class: all NaN
        return np.nanmax(tile.probabilities, axis=0).astype(np.float32)


def _novelty(tile: Tile) -> np.ndarray | None:
    return tile.novelty


def _set_size(tile: Tile) -> np.ndarray | None:
    if tile.sets is None:
        return None
    return np.where(tile.ids > 0, np.minimum(tile.sets.sum(0), _MOST_COUNTED), SET_SIZE_NODATA).astype(np.uint8)


def _set_tags(card: dict[str, Any]) -> dict[str, str]:
    return {"SET_COVERAGE": str(card["prediction_sets"]["coverage"])}


_LAYERS = {
    "confidence": _Layer("probability of the mapped class", np.float32, np.nan, "average", _confidence),
    "novelty": _Layer(
        "share of the training side's pixels that are more like a class", np.float32, np.nan, "average", _novelty
    ),
    "set_size": _Layer(
        "number of classes in the prediction set", np.uint8, SET_SIZE_NODATA, "nearest", _set_size, _set_tags
    ),
}


@dataclass(frozen=True)
class MapFiles:
    """What `map_scene` wrote.

    Attributes:
        classes: GeoTIFF of class ids, 0 nodata, with colour table; names in its tags and in the `.aux.xml` beside it.
        confidence: GeoTIFF of the mapped class's probability, float32, NaN nodata.
        novelty: GeoTIFF of how unlike all classes each pixel is, float32, 0 to 1, NaN nodata; None if the classifier cannot tell.
        set_size: GeoTIFF of the number of classes in each pixel's prediction set, uint8, 0 where no class is likely enough, 254
            also for more, 255 nodata, the coverage in the tag SET_COVERAGE; None if the classifier has no sets.
        georeferenced: Whether the scene gave coordinates to the maps.
        pixels: Classified pixels.
    """

    classes: Path
    confidence: Path
    novelty: Path | None
    set_size: Path | None
    georeferenced: bool
    pixels: int


def map_scene(
    classifier: Classifier,
    scene: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    tile: int = 512,
    on_tile: Callable[[int, int], None] | None = None,
) -> MapFiles:
    """Classify a scene and write the map.

    The scene is read by tiles with a halo of the patch's reach, so memory does not grow with the scene. All files have the
    scene's transform and CRS; they appear whole under their final names, or not at all.

    Args:
        classifier: From `fit` or `Classifier.load`.
        scene: `(band, y, x)`, with the classifier's bands.
        path: The class map, "map.tif"; layers go to "map_confidence.tif", "map_novelty.tif" and "map_set_size.tif" beside it.
        tile: Rows and columns that are classified at a time.
        on_tile: Called after each tile with the number of pixels done and in all, nodata included.

    Raises:
        ClassifierError: The scene has other bands.
        OutputError: The files cannot be written.
    """
    if tile < 1:
        raise OutputError("the tile is too small", found=tile, expected="at least 1 pixel on a side")
    classifier.check_scene(scene)
    classes_path = Path(path)
    layers = layer_files(classes_path)
    _check_writable(classes_path)
    names = {entry["id"]: entry["name"] for entry in classifier.card["classes"]}
    colors = {entry["id"]: entry["color"] for entry in classifier.card["classes"]}
    profile = _profile(scene)
    id_type = np.uint8 if max(names) <= np.iinfo(np.uint8).max else np.uint16
    try:
        with ExitStack() as open_files:
            ids = open_files.enter_context(_working_raster(classes_path, profile | {"dtype": id_type, "nodata": 0}))
            rasters: dict[str, Any] = {}
            ids.write_colormap(1, {0: (0, 0, 0, 0)} | {id_: (*rgb(color), 255) for id_, color in colors.items()})
            ids.update_tags(
                CLASS_NAMES=json.dumps(names), CLASS_COLORS=json.dumps(colors), **_provenance(classifier, scene)
            )
            ids.set_band_description(1, "class")
            pixels = done = 0
            for result in classifier.tiles(scene, size=tile):
                window = _window(result)
                ids.write(result.ids.astype(id_type), 1, window=window)
                for name, layer in _LAYERS.items():
                    values = layer.values(result)
                    if values is None:
                        continue
                    if name not in rasters:
                        kind = {"dtype": layer.dtype, "nodata": layer.nodata}
                        raster = open_files.enter_context(_working_raster(layers[name], profile | kind))
                        raster.update_tags(**_provenance(classifier, scene), **layer.tags(classifier.card))
                        raster.set_band_description(1, layer.description)
                        rasters[name] = raster
                    rasters[name].write(values, 1, window=window)
                pixels += int((result.ids > 0).sum())
                done += result.ids.size
                if on_tile is not None:
                    on_tile(done, ids.width * ids.height)
            with ExitStack() as outputs:
                layer_outputs = {name: outputs.enter_context(atomic_output(layers[name])) for name in rasters}
                classes_file = outputs.enter_context(atomic_output(classes_path))
                sidecar = classes_path.with_name(classes_path.name + ".aux.xml")
                sidecar_file = outputs.enter_context(atomic_output(sidecar))
                for name, raster in rasters.items():
                    _write_cloud_optimised(raster, layer_outputs[name], _LAYERS[name].overviews, pixels)
                _write_cloud_optimised(ids, classes_file, "nearest", pixels)
                sidecar_file.write_text(class_sidecar_xml(names, colors), encoding="utf-8")
            for name, file in layers.items():
                if name not in rasters:  # left by the map that this one replaces
                    file.unlink(missing_ok=True)
    except (RasterioError, CPLE_BaseError) as error:  # rasterio lets some of GDAL's errors through as they are
        raise _write_error(classes_path, profile | {"dtype": id_type}, error) from error
    return MapFiles(
        classes_path,
        layers["confidence"],
        layers["novelty"] if "novelty" in rasters else None,
        layers["set_size"] if "set_size" in rasters else None,
        has_georeference(scene),
        pixels,
    )


def layer_files(path: Path) -> dict[str, Path]:
    """Return the files beside a class map, by what they hold; not all are always written."""
    return {name: path.with_name(f"{path.stem}_{name}{path.suffix}") for name in _LAYERS}


def _window(tile: Tile) -> Window:
    return Window.from_slices(tile.rows, tile.columns)


def _profile(scene: xr.DataArray) -> dict[str, Any]:
    profile = {
        "driver": "GTiff",
        "width": scene.sizes["x"],
        "height": scene.sizes["y"],
        "count": 1,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "bigtiff": "if_safer",
    }
    if has_georeference(scene):
        profile |= {"transform": scene.rio.transform(), "crs": scene.rio.crs}
    return profile


def _provenance(classifier: Classifier, scene: xr.DataArray) -> dict[str, str]:
    model = classifier.card["model"]
    preset = "" if model["name"] in SIMPLE_MODELS else f"preset {model['preset']}, "
    return {
        "SOFTWARE": f"spectralmamba {classifier.card['versions']['spectralmamba']}",
        "MODEL": f"{model['name']}, {preset}patch {model['patch']}",
        "SCENE": Path(str(scene.attrs.get("source", "in memory"))).name,
    }


@contextmanager
def _working_raster(path: Path, profile: dict[str, Any]) -> Iterator[Any]:
    """Yield a plain raster beside `path` to write windows to; it is removed at the end."""
    plain = path.with_name(f".{path.stem}.tiles-{os.getpid()}.tif")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(plain, "w", **profile) as raster:
                yield raster
    finally:
        for leftover in (plain, plain.with_name(plain.name + ".aux.xml")):
            with suppress(FileNotFoundError):
                leftover.unlink()


def _write_cloud_optimised(raster: Any, file: Path, overviews: str, pixels: int) -> None:
    """Finish a working raster that holds so many pixels other than nodata, and copy it to a cloud-optimised GeoTIFF."""
    raster.close()
    try:
        rasterio.shutil.copy(
            raster.name, file, driver="COG", compress="DEFLATE", blocksize=_BLOCK, overview_resampling=overviews
        )
    except SystemError as error:  # what rasterio makes of a failure that GDAL gives no reason for, such as a full disk
        raise RasterioError("GDAL could not write the file and gave no reason") from error
    file.with_name(file.name + ".aux.xml").unlink(missing_ok=True)
    _check_whole(file, Path(raster.name), pixels)


def _check_whole(file: Path, working: Path, pixels: int) -> None:
    """Read a copy back, because GDAL keeps silent about a write that fails while it closes a file.

    Raises:
        RasterioError: A part is missing or differs from the working raster.
    """
    found = 0
    with rasterio.open(working) as source, rasterio.open(file) as copy:
        for _, window in copy.block_windows(1):
            values = copy.read(1, window=window)
            found += np.count_nonzero(copy.read_masks(1, window=window))
            if not np.array_equal(values, source.read(1, window=window), equal_nan=True):
                raise RasterioError("a part of the written file differs from what was to be written")
        levels = len(copy.overviews(1))
    if found != pixels:
        raise RasterioError(f"the written file holds {found} of {pixels} classified pixels")
    for level in range(levels):
        with rasterio.open(file, overview_level=level) as overview:
            for _, window in overview.block_windows(1):
                overview.read(1, window=window)


def _write_error(path: Path, profile: dict[str, Any], error: Exception) -> OutputError:
    # Of the class and of all layers, in the working rasters and again in the maps.
    bytes_a_pixel = sum(
        np.dtype(kind).itemsize for kind in (profile["dtype"], *(layer.dtype for layer in _LAYERS.values()))
    )
    needed = 2 * bytes_a_pixel * profile["width"] * profile["height"]
    return OutputError(
        "cannot write the map",
        file=path,
        found=f"{error}; {shutil.disk_usage(path.parent).free} bytes free",
        expected=f"about {needed} bytes free while it is written",
        remedy="Free some space or choose another folder with --out; nothing was left under the final name.",
    )


def _check_writable(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError("the output folder does not exist", file=path.parent, remedy="Create it first.")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OutputError("cannot write this file", file=path, remedy="Choose another name or folder with --out.")
