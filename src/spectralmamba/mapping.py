"""Classifier and scene → map: cloud-optimised GeoTIFFs or a Zarr store on the scene's grid, written tile by tile."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from spectralmamba import cluster
from spectralmamba.classifier import Classifier
from spectralmamba.cluster import Part
from spectralmamba.errors import ClusterError, OutputError, SceneError
from spectralmamba.files import atomic_folder, atomic_output
from spectralmamba.gis.beside import GisFiles, check_gis_files, gis_files, texts_of_every_map, write_gis_files
from spectralmamba.gis.finished_map import beside
from spectralmamba.inference import Precision, Tile, check_precision
from spectralmamba.models.committee import SIMPLE_MODELS
from spectralmamba.ortho_maps import put_on_map_grid
from spectralmamba.scenes import has_georeference
from spectralmamba.scenes.palette import rgb
from spectralmamba.scenes.raster_files import opened_raster
from spectralmamba.scenes.resampling import resampled_in_words
from spectralmamba.scenes.scene import file_state
from spectralmamba.scenes.sources import GDAL_CACHE
from spectralmamba.scenes.zarr_store import is_store, zarr_package
from spectralmamba.tiling import choose_tile
from spectralmamba.unfinished import UnfinishedMap
from spectralmamba.zarr_maps import ZarrLayer, class_flags, is_zarr, write_zarr

if TYPE_CHECKING:
    from distributed import Client

_BLOCK = 512  # pixels on a side of a COG block, GDAL's default
_THREADS_PAY = 4  # cores from which on GDAL's threads take less time than they cost
_MOST_COUNTED = 254  # classes in a set
SET_SIZE_NODATA = 255


class _Layer(NamedTuple):
    """A raster of a map.

    Attributes:
        description: What its band holds.
        dtype: Of its values.
        nodata: The value where there is no class.
        overviews: How GDAL makes pixels of overviews from those of the layer.
        values: The values `(h, w)` of a tile; None if the classifier does not tell.
        tags: What its file says of the classifier, besides where the map comes from.
    """

    description: str
    dtype: type
    nodata: float
    overviews: str
    values: Callable[[Tile], np.ndarray | None]
    tags: Callable[[Classifier], dict[str, str]] = lambda _: {}


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


def _set_tags(classifier: Classifier) -> dict[str, str]:
    return {"SET_COVERAGE": str(classifier.card["prediction_sets"]["coverage"])}


def _classes(tile: Tile) -> np.ndarray:
    return tile.ids


def _class_tags(classifier: Classifier) -> dict[str, str]:
    return {"CLASS_NAMES": json.dumps(classifier.class_names), "CLASS_COLORS": json.dumps(classifier.class_colors)}


_LAYERS = {
    "classes": _Layer("class", np.uint16, 0, "nearest", _classes, _class_tags),
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
    """What `map_scene` wrote: a GeoTIFF a layer, or one Zarr store, which is then the file of each layer that is there.

    Of a store the variables are `class`, `confidence`, `novelty` and `set_size`, with the same values and nodata as the GeoTIFFs.

    Attributes:
        classes: GeoTIFF of class ids, 0 nodata, with colour table; names in its tags and in the `.aux.xml` beside it.
        confidence: GeoTIFF of the mapped class's probability, float32, NaN nodata.
        novelty: GeoTIFF of how unlike all classes each pixel is, float32, 0 to 1, NaN nodata; None if the classifier cannot tell.
        set_size: GeoTIFF of the number of classes in each pixel's prediction set, uint8, 0 where no class is likely enough, 254
            also for more, 255 nodata, the coverage in the tag SET_COVERAGE; None if the classifier has no sets.
        georeferenced: Whether the scene gave coordinates to the maps.
        pixels: Classified pixels.
        gis: What lies beside a GeoTIFF map for a GIS (docs/gis.md), by name: `attribute_table`, `style`, `areas`, a style a layer,
            and `polygons`, `overview`, `google_earth` and `stac_item` as far as they were asked for.
    """

    classes: Path
    confidence: Path
    novelty: Path | None
    set_size: Path | None
    georeferenced: bool
    pixels: int
    gis: Mapping[str, Path] = field(default_factory=dict)


def _layers_of(names: Iterable[str], tile: Tile) -> dict[str, np.ndarray | None]:
    """Return the values of the layers of those names."""
    return {name: _LAYERS[name].values(tile) for name in names}


@cluster.takes_address
def map_scene(
    classifier: Classifier,
    scene: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    tile: int | None = None,
    memory: int | None = None,
    workers: int | None = None,
    resume: bool = False,
    keep_unfinished: bool = False,
    on_tile: Callable[[int, int], None] | None = None,
    dask: str | Client | None = None,
    precision: Precision = "float32",
    ortho: bool = True,
    allow_missing_range: bool = False,
    gis: GisFiles | None = None,
) -> MapFiles:
    """Classify a scene and write the map, over one that is there.

    The scene is read by tiles with a halo of the patch's reach, so memory does not grow with the scene. All files have the
    scene's transform and CRS; they appear whole under their final names, or not at all. They have the same bytes whatever the
    tiles, the workers, the cluster and the interruptions.

    Args:
        classifier: From `fit` or `Classifier.load`.
        scene: `(band, y, x)`, as `Classifier.adapt_scene` takes it. If it is resampled to the classifier's bands, the map says so
            in its tag RESAMPLED.
        path: The class map, "map.tif"; layers go to "map_confidence.tif", "map_novelty.tif" and "map_set_size.tif" beside it. Or a
            Zarr store for all of them, "map.zarr".
        tile: Rows and columns that are read at a time; None follows the blocks of the scene's file and the memory.
        memory: Bytes that the process may take altogether, on a cluster that of each worker's thread; None keeps to about 1 GB
            beside what it has now, with a GPU to a quarter of what is free.
        workers: Threads that compute on a CPU; as many as torch has if None, on a cluster one for each tile.
        resume: Go on from an unfinished map that is there.
        keep_unfinished: Leave what is classified so far when Ctrl-C, the scene's file or the cluster ends the run, for `resume`.
            After a kill it is there in any case: a folder ".map.tif.unfinished" beside the map.
        on_tile: Called after each tile with the number of pixels done and in all, nodata included.
        dask: A `distributed.Client`, or the address of a scheduler, such as "tcp://host:8786": workers of that cluster compute the
            tiles. They see the scene's file and the map's folder under the same paths.
        precision: Of matrix products in the network, on a GPU: "float16" is faster and changes a label in some thousands. The map
            says so in its tag MODEL.
        ortho: Put the map of a scene in the geometry of a sensor on the product's map grid (EMIT); else it keeps the scene's.
        allow_missing_range: As `Classifier.adapt_scene` has it.
        gis: What to make of the map besides, when it is finished: polygons, overview, STAC item. What interrupts that leaves the
            map, and all of it for `resume`, if `keep_unfinished`.

    Raises:
        ClassifierError: As `Classifier.adapt_scene` has it.
        ClusterError: The cluster does not answer, has another version of this package, or does not see the map's folder.
        SettingsError: The device does not have the precision.
        MissingPackageError: `dask` is given, and distributed is not installed.
        SceneError: The scene's file cannot be read any more, or has changed meanwhile.
        OutputError: The files cannot be written, the memory is too little, or the unfinished map is of something else.
        MissingPackageError: A Zarr store is to be written and zarr is not installed; or a package that `gis` needs.
        SettingsError: What `gis` says of areas or times cannot be understood.
    """
    if tile is not None and tile < 1:
        raise OutputError("the tile is too small", found=tile, expected="at least 1 pixel on a side")
    client: Any = dask  # an address has become a client
    scene = classifier.adapt_scene(scene, allow_missing_range=allow_missing_range)
    check_precision(precision, classifier)
    classes_path, beside_it = Path(path), {}
    _check_writable(classes_path, scene)
    if gis is not None:
        check_gis_files(gis, classes_path, scene, ortho=ortho)
    size = (
        (tile, tile) if tile is not None else choose_tile(classifier, scene, memory, workers or (1 if client else None))
    )
    if client is not None and tile is None:
        size = cluster.smaller_tiles(client, classifier, scene.shape[1:], size)
    profile, kinds = _profile(scene), _kinds(classifier)
    unfinished = UnfinishedMap(classes_path, profile)
    before = file_state(scene)
    record = {
        "classifier": classifier.fingerprint(),
        "scene": before | {"shape": list(scene.shape)},
        "version": metadata.version("spectralmamba"),
        "kind of device": classifier.device.type,
        "precision": precision,
    }
    cells = scene.sizes["y"] * scene.sizes["x"]

    def describe(name: str, raster: Any) -> None:
        if name == "classes":
            raster.write_colormap(
                1, {0: (0, 0, 0, 0)} | {id_: (*rgb(color), 255) for id_, color in classifier.class_colors.items()}
            )
        raster.update_tags(**_provenance(classifier, scene, precision), **_LAYERS[name].tags(classifier))
        raster.set_band_description(1, _LAYERS[name].description)

    try:
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE), unfinished.opened(record, size, kinds, resume, describe) as size:
            keep = False
            try:
                if unfinished.cells and on_tile is not None:
                    on_tile(unfinished.cells, cells)
                layers = partial(_layers_of, tuple(kinds))
                if client is None:
                    tiles = classifier.tiles(
                        scene, size=size, workers=workers, skip=unfinished.holds, precision=precision
                    )
                    parts = (Part(each.rows, each.columns, layers(each), int((each.ids > 0).sum())) for each in tiles)
                else:
                    parts = cluster.parts(
                        client, classifier, scene, size, workers, unfinished.folder, unfinished.holds, layers, precision
                    )
                with closing(parts):
                    for part in parts:
                        unfinished.write(*part)
                        if on_tile is not None:
                            on_tile(unfinished.cells, cells)
                if file_state(scene) != before:
                    raise SceneError(
                        "the scene's file has changed while it was mapped",
                        file=scene.attrs["source"],
                        remedy="Map it again when it no longer changes.",
                    )
                _finish(classifier, scene, classes_path, unfinished, kinds, precision, ortho)
                if not is_zarr(classes_path):
                    keep = keep_unfinished  # all tiles are there: what goes on needs no classifier
                    beside_it = write_gis_files(gis or GisFiles(), classes_path)
                    keep = False
            except (KeyboardInterrupt, SceneError, ClusterError):
                keep = keep_unfinished and file_state(scene) == before
                raise
            finally:
                if not keep:
                    unfinished.discard()
    except (RasterioError, CPLE_BaseError) as error:  # rasterio lets some of GDAL's errors through as they are
        raise _write_error(classes_path, profile, kinds, error) from error
    files = layer_files(classes_path)
    return MapFiles(
        classes_path,
        files["confidence"],
        files["novelty"] if "novelty" in kinds else None,
        files["set_size"] if "set_size" in kinds else None,
        has_georeference(scene) or (ortho and "ortho" in scene.attrs),
        unfinished.pixels,
        beside_it,
    )


def _kinds(classifier: Classifier) -> dict[str, dict[str, Any]]:
    """Return what the raster of each layer that a classifier tells has besides the profile, by name, the classes first."""
    told = {"novelty": classifier.novelty, "set_size": classifier.sets}
    id_type = np.uint8 if classifier.classes.max() <= np.iinfo(np.uint8).max else np.uint16
    kinds = {"classes": {"dtype": np.dtype(id_type).name, "nodata": 0}}
    for name, layer in _LAYERS.items():
        if name != "classes" and told.get(name, True) is not None:
            kinds[name] = {"dtype": np.dtype(layer.dtype).name, "nodata": layer.nodata}
    return kinds


def _finish(
    classifier: Classifier,
    scene: xr.DataArray,
    path: Path,
    unfinished: UnfinishedMap,
    kinds: dict[str, dict[str, Any]],
    precision: str,
    ortho: bool,
) -> None:
    """Make the map's files from the working rasters; all of them appear, or none."""
    rasters, grid, pixels = {name: unfinished.raster(name) for name in kinds}, scene, unfinished.pixels
    if ortho and "ortho" in scene.attrs:
        on_map = put_on_map_grid(rasters, scene.attrs["ortho"])
        rasters, grid, pixels = on_map.rasters, on_map.grid, on_map.pixels
    if is_zarr(path):
        layers = {
            name: ZarrLayer(rasters[name], {"long_name": _LAYERS[name].description, **_LAYERS[name].tags(classifier)})
            for name in kinds
        }
        classes = layers.pop("classes")
        classes.attributes.update(class_flags(classifier.class_names, classifier.class_colors))
        with atomic_folder(path, unfinished.folder) as store:
            write_zarr(store, {"class": classes, **layers}, grid, _provenance(classifier, scene, precision), pixels)
        return
    files = layer_files(path) | {"classes": path}
    with ExitStack() as outputs:
        copies = {
            name: outputs.enter_context(atomic_output(files[name], unfinished.folder)) for name in reversed(kinds)
        }
        texts = texts_of_every_map(rasters["classes"], path, kinds.keys() - {"classes"})
        written = {file: outputs.enter_context(atomic_output(file, unfinished.folder)) for file in reversed(texts)}
        for name, copy in copies.items():
            _write_cloud_optimised(rasters[name], copy, _LAYERS[name].overviews, pixels)
        for file, text in texts.items():
            written[file].write_text(text, encoding="utf-8")
    left = [files[name] for name in files.keys() - kinds.keys()]  # by the map that this one replaces
    for file in (*left, *(file for file in gis_files(path).values() if file not in texts)):
        file.unlink(missing_ok=True)


def layer_files(path: Path) -> dict[str, Path]:
    """Return the files of a class map's layers, by what they hold; not all are always written. A Zarr store holds all of them."""
    if is_zarr(path):
        return {name: path for name in _LAYERS if name != "classes"}
    return {name: beside(path, name) for name in _LAYERS if name != "classes"}


def _profile(scene: xr.DataArray) -> dict[str, Any]:
    profile = {
        "width": scene.sizes["x"],
        "height": scene.sizes["y"],
        "count": 1,
        "bigtiff": "if_safer",
    }
    if has_georeference(scene):
        profile |= {"transform": scene.rio.transform(), "crs": scene.rio.crs}
    return profile


def _provenance(classifier: Classifier, scene: xr.DataArray, precision: str) -> dict[str, str]:
    model = classifier.card["model"]
    preset = "" if model["name"] in SIMPLE_MODELS else f"preset {model['preset']}, "
    resampled = resampled_in_words(scene)
    acquired = {"ACQUISITION_TIME": str(scene.attrs["acquisition_time"])} if "acquisition_time" in scene.attrs else {}
    return {
        "SOFTWARE": f"spectralmamba {classifier.card['versions']['spectralmamba']}",
        "MODEL": f"{model['name']}, {preset}patch {model['patch']}{', float16' if precision == 'float16' else ''}",
        "SCENE": Path(str(scene.attrs.get("source", "in memory"))).name,
        **({"RESAMPLED": resampled} if resampled else {}),
        **acquired,
    }


def _write_cloud_optimised(raster: Path, file: Path, overviews: str, pixels: int) -> None:
    """Copy a working raster that holds so many pixels other than nodata to a cloud-optimised GeoTIFF."""
    cores = os.cpu_count() or 1
    options = {"num_threads": str(cores)} if cores >= _THREADS_PAY else {}  # the bytes are the same
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            rasterio.shutil.copy(
                raster,
                file,
                driver="COG",
                compress="DEFLATE",
                blocksize=_BLOCK,
                overview_resampling=overviews,
                **options,
            )
    except SystemError as error:  # what rasterio makes of a failure that GDAL gives no reason for, such as a full disk
        raise RasterioError("GDAL could not write the file and gave no reason") from error
    file.with_name(file.name + ".aux.xml").unlink(missing_ok=True)
    _check_whole(file, raster, pixels)


def _check_whole(file: Path, working: Path, pixels: int) -> None:
    """Read a copy back, because GDAL keeps silent about a write that fails while it closes a file.

    Raises:
        RasterioError: A part is missing or differs from the working raster.
    """
    found = 0
    with opened_raster(working) as source, opened_raster(file) as copy:
        for _, window in copy.block_windows(1):
            values = copy.read(1, window=window)
            found += np.count_nonzero(copy.read_masks(1, window=window))
            if not np.array_equal(values, source.read(1, window=window), equal_nan=True):
                raise RasterioError("a part of the written file differs from what was to be written")
        levels = len(copy.overviews(1))
    if found != pixels:
        raise RasterioError(f"the written file holds {found} of {pixels} classified pixels")
    for level in range(levels):
        with opened_raster(file, overview_level=level) as overview:
            for _, window in overview.block_windows(1):
                overview.read(1, window=window)


def _write_error(
    path: Path, profile: dict[str, Any], kinds: dict[str, dict[str, Any]], error: Exception
) -> OutputError:
    # Of the class and of all layers, in the working rasters and again in the maps.
    bytes_a_pixel = sum(np.dtype(kind["dtype"]).itemsize for kind in kinds.values())
    needed = 2 * bytes_a_pixel * profile["width"] * profile["height"]
    return OutputError(
        "cannot write the map",
        file=path,
        found=f"{error}; {shutil.disk_usage(path.parent).free} bytes free",
        expected=f"about {needed} bytes free while it is written",
        remedy="Free some space or choose another folder with --out; nothing was left under the final name.",
    )


def _check_writable(path: Path, scene: xr.DataArray) -> None:
    if is_zarr(path):
        zarr_package(path)
    if path.resolve() == Path(str(scene.attrs.get("source", "in memory"))).resolve():
        raise OutputError("the map would replace its scene", file=path, remedy="Choose another name with --out.")
    if not path.parent.is_dir():
        raise OutputError("the output folder does not exist", file=path.parent, remedy="Create it first.")
    in_the_way = path.exists() and not is_store(path) if is_zarr(path) else path.is_dir()
    if in_the_way or not os.access(path.parent, os.W_OK):
        raise OutputError("cannot write this file", file=path, remedy="Choose another name or folder with --out.")
