"""Classifier and scene → map: cloud-optimised GeoTIFFs on the scene's grid, written tile by tile."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from spectralmamba.classifier import Classifier, Tile
from spectralmamba.errors import OutputError
from spectralmamba.files import atomic_output, write_text
from spectralmamba.scenes import has_georeference
from spectralmamba.scenes.palette import rgb
from spectralmamba.scenes.writing import class_sidecar_xml

_BLOCK = 512  # pixels on a side of a COG block, GDAL's default


@dataclass(frozen=True)
class MapFiles:
    """What `map_scene` wrote.

    Attributes:
        classes: GeoTIFF of class ids, 0 nodata, with colour table; names in its tags and in the `.aux.xml` beside it.
        confidence: GeoTIFF of the mapped class's probability, float32, NaN nodata.
        georeferenced: Whether the scene gave coordinates to the maps.
        pixels: Classified pixels.
    """

    classes: Path
    confidence: Path
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

    The scene is read by tiles with a halo of the patch's reach, so memory does not grow with the scene. Both files have the
    scene's transform and CRS; they appear whole under their final names, or not at all.

    Args:
        classifier: From `fit` or `Classifier.load`.
        scene: `(band, y, x)`, with the classifier's bands.
        path: The class map, "map.tif"; the confidence goes to "map_confidence.tif" beside it.
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
    confidence_path = classes_path.with_name(f"{classes_path.stem}_confidence{classes_path.suffix}")
    _check_writable(classes_path)
    names = {entry["id"]: entry["name"] for entry in classifier.card["classes"]}
    colors = {entry["id"]: entry["color"] for entry in classifier.card["classes"]}
    profile = _profile(scene)
    id_type = np.uint8 if max(names) <= np.iinfo(np.uint8).max else np.uint16
    with (
        _cloud_optimised(classes_path, "nearest", profile | {"dtype": id_type, "nodata": 0}) as ids,
        _cloud_optimised(confidence_path, "average", profile | {"dtype": np.float32, "nodata": np.nan}) as confidence,
    ):
        ids.write_colormap(1, {0: (0, 0, 0, 0)} | {id_: (*rgb(color), 255) for id_, color in colors.items()})
        ids.update_tags(
            CLASS_NAMES=json.dumps(names), CLASS_COLORS=json.dumps(colors), **_provenance(classifier, scene)
        )
        ids.set_band_description(1, "class")
        confidence.update_tags(**_provenance(classifier, scene))
        confidence.set_band_description(1, "probability of the mapped class")
        pixels = done = 0
        for result in classifier.tiles(scene, size=tile):
            window = _window(result)
            ids.write(result.ids.astype(id_type), 1, window=window)
            confidence.write(_confidence(result), 1, window=window)
            pixels += int((result.ids > 0).sum())
            done += result.ids.size
            if on_tile is not None:
                on_tile(done, ids.width * ids.height)
    write_text(classes_path.with_name(classes_path.name + ".aux.xml"), class_sidecar_xml(names, colors))
    return MapFiles(classes_path, confidence_path, has_georeference(scene), pixels)


def _window(tile: Tile) -> Window:
    return Window.from_slices(tile.rows, tile.columns)


def _confidence(tile: Tile) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a pixel of nodata has no class: all NaN
        return np.nanmax(tile.probabilities, axis=0).astype(np.float32)


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
    return {
        "SOFTWARE": f"spectralmamba {classifier.card['versions']['spectralmamba']}",
        "MODEL": f"{model['name']}, preset {model['preset']}, patch {model['patch']}",
        "SCENE": Path(str(scene.attrs.get("source", "in memory"))).name,
    }


@contextmanager
def _cloud_optimised(path: Path, overviews: str, profile: dict[str, Any]) -> Iterator[Any]:
    """Yield a raster to write windows to; at the end it becomes a cloud-optimised GeoTIFF under its final name."""
    plain = path.with_name(f".{path.stem}.tiles-{os.getpid()}.tif")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(plain, "w", **profile) as raster:
                yield raster
            with atomic_output(path) as temporary:
                rasterio.shutil.copy(
                    plain,
                    temporary,
                    driver="COG",
                    compress="DEFLATE",
                    blocksize=_BLOCK,
                    overview_resampling=overviews,
                )
                temporary.with_name(temporary.name + ".aux.xml").unlink(missing_ok=True)
    except (RasterioError, RasterioIOError) as error:
        raise _write_error(path, profile, error) from error
    finally:
        for leftover in (plain, plain.with_name(plain.name + ".aux.xml")):
            with suppress(FileNotFoundError):
                leftover.unlink()


def _write_error(path: Path, profile: dict[str, Any], error: Exception) -> OutputError:
    size = profile["width"] * profile["height"] * np.dtype(profile["dtype"]).itemsize
    return OutputError(
        "cannot write the map",
        file=path,
        found=f"{error}; {shutil.disk_usage(path.parent).free} bytes free",
        expected=f"up to {2 * size} bytes free while it is written",
        remedy="Free some space or choose another folder with --out; nothing was left under the final name.",
    )


def _check_writable(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError("the output folder does not exist", file=path.parent, remedy="Create it first.")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OutputError("cannot write this file", file=path, remedy="Choose another name or folder with --out.")
