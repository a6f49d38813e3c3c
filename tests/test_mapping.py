from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rio_cogeo import cog_validate
from xarray.backends import BackendArray
from xarray.core import indexing

from spectralmamba import Classifier, Settings, fit, map_scene, mapping, simulate_scene
from spectralmamba.errors import ClassifierError, OutputError
from spectralmamba.inference import Tile
from spectralmamba.mapping import MapFiles

MAP_FILES = [
    *("map.qml", "map.tif", "map.tif.aux.xml", "map_areas.csv", "map_confidence.qml", "map_confidence.tif"),
    *("map_novelty.qml", "map_novelty.tif", "map_set_size.qml", "map_set_size.tif"),
]
ROTATED = Affine.translation(364095.5, 5809965.25) @ Affine.rotation(31) @ Affine.scale(3.7, -3.7)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as raster:
            return raster.read(1)


def written(files: MapFiles) -> tuple[Path, Path, Path, Path]:
    """The four rasters of a map."""
    assert files.novelty is not None
    assert files.set_size is not None
    return files.classes, files.confidence, files.novelty, files.set_size


def renumbered(labels: xr.DataArray, ids: dict[int, int]) -> xr.DataArray:
    """The same labels under other ids, with a name and colour of each."""
    values = np.zeros_like(labels.values)
    for old, new in ids.items():
        values[labels.values == old] = new
    attributes = {
        "class_names": {new: f"crop no. {old}" for old, new in ids.items()},
        "class_colors": {new: f"#{old:02x}80ff" for old, new in ids.items()},
    }
    return xr.DataArray(values, dims=("y", "x"), attrs=attributes)


pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.mark.parametrize("tile", [1, 5, 16, 512])
def test_tiles_of_any_size_give_the_same_map(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path, tile: int
):
    done: list[tuple[int, int]] = []
    files = map_scene(classifier, small_scene, tmp_path / "map.tif", tile=tile, on_tile=lambda *at: done.append(at))
    whole, probabilities = classifier.predict(small_scene), classifier.predict_proba(small_scene)
    np.testing.assert_array_equal(read(files.classes), whole)
    np.testing.assert_array_equal(read(files.confidence), probabilities.values.max(0))
    (at_once,) = classifier.tiles(small_scene)
    assert at_once.novelty is not None
    np.testing.assert_array_equal(read(written(files)[2]), at_once.novelty)
    sizes = np.where(whole.values > 0, classifier.predict_sets(small_scene).values.sum(0), mapping.SET_SIZE_NODATA)
    np.testing.assert_array_equal(read(written(files)[3]), sizes)
    assert files.pixels == (whole.values > 0).sum()
    assert done[-1] == (144, 144)
    assert np.all(np.diff([now for now, _ in done]) > 0)
    assert names(tmp_path) == MAP_FILES


def test_nodata_of_the_scene_is_nodata_of_all_maps(classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path):
    files = map_scene(classifier, small_scene, tmp_path / "map.tif")
    valid = np.isfinite(small_scene.values).all(0)
    with rasterio.open(files.classes) as classes, rasterio.open(files.confidence) as confidence:
        assert (classes.nodata, classes.dtypes) == (0, ("uint8",))
        assert np.isnan(confidence.nodata)
        assert confidence.dtypes == ("float32",)
        np.testing.assert_array_equal(classes.read(1) > 0, valid)
        found = confidence.read(1)
        np.testing.assert_array_equal(np.isfinite(found), valid)
        assert found[valid].min() > 1 / 3
        assert found[valid].max() <= 1
    with rasterio.open(written(files)[2]) as novelty:
        assert np.isnan(novelty.nodata)
        assert novelty.dtypes == ("float32",)
        found = novelty.read(1)
        np.testing.assert_array_equal(np.isfinite(found), valid)
        assert found[valid].min() >= 0
        assert found[valid].max() <= 1


def test_an_empty_set_is_no_nodata(classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path):
    assert classifier.sets is not None
    classifier.sets.threshold.fill_(1.1)
    files = map_scene(classifier, small_scene, tmp_path / "map.tif")
    valid = np.isfinite(small_scene.values).all(0)
    with rasterio.open(written(files)[3]) as sizes:
        assert (sizes.nodata, sizes.dtypes) == (255, ("uint8",))
        np.testing.assert_array_equal(sizes.read(1), np.where(valid, 0, 255))
        np.testing.assert_array_equal(sizes.read_masks(1) > 0, valid)


@pytest.mark.parametrize(("classes", "counted"), [(1, 1), (254, 254), (255, 254), (300, 254)])
def test_a_set_of_as_many_classes_as_nodata_is_not_taken_for_it(classes: int, counted: int):
    everything, square = np.ones((classes, 1, 2), bool), slice(0, 1)
    tile = Tile(square, slice(0, 2), np.array([[7, 0]], np.uint16), np.zeros((classes, 1, 2)), None, everything)
    sizes = mapping._set_size(tile)
    assert sizes is not None
    assert (sizes.dtype, sizes.tolist()) == (np.uint8, [[counted, 255]])


def test_set_sizes_tell_the_coverage_that_they_are_meant_for(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
):
    classifier.card["prediction_sets"]["coverage"] = 0.75
    told = []
    for path in written(map_scene(classifier, small_scene, tmp_path / "map.tif")):
        with rasterio.open(path) as raster:
            told.append(raster.tags().get("SET_COVERAGE"))
    assert told == [None, None, None, "0.75"]


def test_each_raster_says_what_its_band_holds(classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path):
    said = []
    for path in written(map_scene(classifier, small_scene, tmp_path / "map.tif")):
        with rasterio.open(path) as raster:
            said += raster.descriptions
    assert said == [
        "class",
        "probability of the mapped class",
        "share of the training side's pixels that are more like a class",
        "number of classes in the prediction set",
    ]


@pytest.mark.parametrize(("part", "layer"), [("novelty", "novelty"), ("sets", "set_size")])
def test_a_classifier_without_novelty_or_sets_maps_all_but_that(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path, part: str, layer: str
):
    map_scene(classifier, small_scene, tmp_path / "map.tif")
    (tmp_path / "older").mkdir()
    setattr(classifier, part, None)
    files = map_scene(classifier, small_scene, tmp_path / "older" / "map.tif")
    assert getattr(files, layer) is None
    assert names(tmp_path / "older") == [name for name in MAP_FILES if layer not in name]
    for name in names(tmp_path / "older"):
        assert (tmp_path / "older" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(("part", "layer"), [("novelty", "novelty"), ("sets", "set_size")])
def test_a_layer_that_a_new_map_lacks_is_not_left_from_the_old_one(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path, part: str, layer: str
):
    map_scene(classifier, small_scene, tmp_path / "map.tif")
    map_scene(classifier, small_scene, tmp_path / "other.tif")
    setattr(classifier, part, None)
    map_scene(classifier, small_scene, tmp_path / "map.tif")
    kept = [name for name in MAP_FILES if layer not in name]
    assert names(tmp_path) == [*kept, *(name.replace("map", "other") for name in MAP_FILES)]


def test_without_its_novelty_no_other_file_of_a_map_appears(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = mapping._write_cloud_optimised

    def fail(raster: Any, file: Path, *rest: Any) -> None:
        write(raster, file, *rest)
        if "novelty" in file.name:
            raise RasterioError("no space left")

    map_scene(classifier, small_scene, tmp_path / "map.tif")
    before = {name: (tmp_path / name).read_bytes() for name in MAP_FILES}
    (tmp_path / "new").mkdir()
    monkeypatch.setattr(mapping, "_write_cloud_optimised", fail)
    for folder, left in ((tmp_path / "new", []), (tmp_path, [*MAP_FILES, "new"])):
        with pytest.raises(OutputError, match="cannot write the map"):
            map_scene(classifier, small_scene, folder / "map.tif")
        assert names(folder) == left
    assert {name: (tmp_path / name).read_bytes() for name in MAP_FILES} == before


def test_a_scene_of_nodata_alone_gives_an_empty_map(classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path):
    small_scene.values[:] = np.nan
    files = map_scene(classifier, small_scene, tmp_path / "map.tif")
    assert files.pixels == 0
    assert not read(files.classes).any()


@pytest.mark.parametrize("transform", [None, ROTATED], ids=["north up", "rotated"])
def test_maps_lie_exactly_on_the_scenes_grid(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path, transform: Affine | None
):
    scene = small_scene if transform is None else small_scene.drop_vars(["x", "y"]).rio.write_transform(transform)
    files = map_scene(classifier, scene, tmp_path / "map.tif")
    assert files.georeferenced
    for path in written(files):
        with rasterio.open(path) as raster:
            assert raster.transform == scene.rio.transform()
            assert raster.crs == scene.rio.crs
            assert raster.shape == scene.shape[1:]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_georeference_gives_maps_without_one(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
):
    bare = small_scene.drop_vars(["x", "y", "spatial_ref"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = map_scene(classifier, bare, tmp_path / "map.tif")
    assert not files.georeferenced
    for path in written(files):
        with rasterio.open(path) as raster:
            assert raster.crs is None
            assert raster.transform == Affine.identity()
    np.testing.assert_array_equal(read(files.classes), classifier.predict(small_scene))


@pytest.mark.parametrize(
    ("ids", "dtype"), [({1: 2, 2: 7, 3: 255}, "uint8"), ({1: 10, 2: 300, 3: 65535}, "uint16")], ids=["byte", "more"]
)
def test_class_ids_colours_and_names_are_the_users(
    small_scene: xr.DataArray,
    small_labels: xr.DataArray,
    quick: Settings,
    tmp_path: Path,
    ids: dict[int, int],
    dtype: str,
):
    labels = renumbered(small_labels, ids)
    classifier = fit(small_scene, labels, None, quick, rare_classes="balanced batches", device="cpu")
    files = map_scene(classifier, small_scene, tmp_path / "map.tif")
    with rasterio.open(files.classes) as raster:
        assert raster.dtypes == (dtype,)
        assert set(np.unique(raster.read(1))) <= {0, *ids.values()}
        colours, tags = raster.colormap(1), raster.tags()
        assert {int(id_): name for id_, name in json.loads(tags["CLASS_NAMES"]).items()} == labels.attrs["class_names"]
        assert {int(id_): c for id_, c in json.loads(tags["CLASS_COLORS"]).items()} == labels.attrs["class_colors"]
        assert colours[0][3] == 0
    for old, new in ids.items():
        assert colours[new] == (old, 0x80, 0xFF, 255)
    table = ElementTree.parse(tmp_path / "map.tif.aux.xml").getroot().iter("Row")
    rows = [[cell.text for cell in row][:5] for row in table]
    assert rows == [[str(new), f"crop no. {old}", str(old), "128", "255"] for old, new in sorted(ids.items())]


def assert_cloud_optimised(path: Path) -> None:
    valid, errors, remarks = cog_validate(str(path), strict=True)
    assert valid, (path.name, errors, remarks)
    assert not errors + remarks


def test_maps_smaller_than_a_block_are_cloud_optimised(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
):
    files = map_scene(classifier, small_scene, tmp_path / "map.tif")
    for path in written(files):
        assert_cloud_optimised(path)


def test_maps_of_several_blocks_are_cloud_optimised_have_overviews_and_the_same_bytes_by_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mapping.os, "cpu_count", lambda: 1)
    scene, labels = simulate_scene(rows=12, columns=1100, bands=4, classes=2)
    classifier = fit(scene, labels, None, steps=2, patch=1, model_options={"blocks": 0}, device="cpu")
    files = map_scene(classifier, scene, tmp_path / "map.tif")
    for path in written(files):
        assert_cloud_optimised(path)
        with rasterio.open(path) as raster:
            assert raster.overviews(1) == [2, 4]
    with rasterio.open(files.classes, overview_level=0) as overview:
        assert set(np.unique(overview.read(1))) <= {0, 1, 2}  # no class in between
    alone = [path.read_bytes() for path in written(files)]
    monkeypatch.setattr(mapping.os, "cpu_count", lambda: mapping._THREADS_PAY)
    assert [path.read_bytes() for path in written(map_scene(classifier, scene, tmp_path / "map.tif"))] == alone
    sizes = set(np.unique(read(written(files)[3])))
    with rasterio.open(written(files)[3], overview_level=0) as overview:
        assert set(np.unique(overview.read(1))) <= sizes


def test_the_map_tells_where_it_comes_from(classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path):
    files = map_scene(classifier, small_scene, tmp_path / "map.tif")
    for path in written(files):
        with rasterio.open(path) as raster:
            tags = raster.tags()
            assert tags["SOFTWARE"].startswith("spectralmamba ")
            assert tags["MODEL"] == "spectral_mamba, preset default, patch 3"
            assert tags["SCENE"] == "simulated, seed 0"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_half_way_leaves_the_old_map_and_nothing_else(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path, failure: type[BaseException]
):
    def fail(done: int, of: int) -> None:
        if done > of // 2:
            raise failure

    with pytest.raises(failure):
        map_scene(classifier, small_scene, tmp_path / "map.tif", tile=5, on_tile=fail)
    assert names(tmp_path) == []
    map_scene(classifier, small_scene, tmp_path / "map.tif")
    before = {name: (tmp_path / name).read_bytes() for name in MAP_FILES}
    with pytest.raises(failure):
        map_scene(classifier, small_scene, tmp_path / "map.tif", tile=5, on_tile=fail)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_the_old_map_stays_if_the_new_one_cannot_be_finished(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
):
    (tmp_path / "map.tif.aux.xml").mkdir()  # in the way of the last file
    with pytest.raises(OutputError):
        map_scene(classifier, small_scene, tmp_path / "map.tif")
    assert names(tmp_path) == ["map.tif.aux.xml"]


def test_a_folder_that_is_missing_or_a_file_is_refused_before_anything_is_classified(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
):
    def never(*_: int) -> None:
        raise AssertionError

    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(OutputError, match="folder does not exist"):
            map_scene(classifier, small_scene, folder / "map.tif", on_tile=never)
    (tmp_path / "map.tif").mkdir()
    with pytest.raises(OutputError, match="cannot write this file"):
        map_scene(classifier, small_scene, tmp_path / "map.tif", on_tile=never)
    assert names(tmp_path) == ["file", "map.tif"]


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot write this file"):
            map_scene(classifier, small_scene, tmp_path / "map.tif")
    finally:
        tmp_path.chmod(0o700)


def test_another_scene_or_no_tile_is_refused(classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path):
    with pytest.raises(ClassifierError, match="does not measure"):
        map_scene(classifier, small_scene[1:], tmp_path / "map.tif")
    unknown = small_scene.assign_coords(wavelength=("band", np.full(20, np.nan)))
    with pytest.raises(ClassifierError, match="number of bands"):
        map_scene(classifier, unknown[1:], tmp_path / "map.tif")
    with pytest.raises(OutputError, match="at least 1 pixel"):
        map_scene(classifier, small_scene, tmp_path / "map.tif", tile=0)
    assert names(tmp_path) == []


FILLING_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
import xarray as xr
from spectralmamba import Classifier, map_scene, simulate_scene
from spectralmamba.inference import Tile
from spectralmamba.errors import OutputError


class Incompressible(Classifier):
    def check_scene(self, scene):
        pass

    def tiles(self, scene, **_):
        confidence = np.random.default_rng(0).random((1, 1024, 1024), np.float32)
        yield Tile(slice(0, 1024), slice(0, 1024), np.ones((1024, 1024), np.uint16), confidence, confidence[0], confidence > 0.5)


classifier = Classifier.load(sys.argv[1], "cpu")
scene, _ = simulate_scene(rows=12, columns=12, bands=20, classes=3)
if sys.argv[3] == "large":
    classifier = Incompressible(classifier.network, classifier.transform, classifier.card, classifier.novelty, classifier.sets)
    scene = xr.DataArray(np.broadcast_to(np.float32(0), (20, 1024, 1024)), dims=("band", "y", "x"))
enough = Path(sys.argv[2]) / "enough"
enough.mkdir()
size = map_scene(classifier, scene, enough / "map.tif").confidence.stat().st_size
for limit in map(int, sys.argv[4:]):
    folder = Path(sys.argv[2]) / str(limit)
    folder.mkdir()
    limit = limit if limit >= 0 else size + limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        map_scene(classifier, scene, folder / "map.tif")
        outcome = "written"
    except OutputError as error:
        outcome = str(error)
    except BaseException as error:
        outcome = repr(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(outcome)
"""
FULL_AT = {
    # The working raster of confidences holds one block of 64 × 64 float32, 16 KiB, and its header and directory.
    "small": [0, 100, 1000, 3000, 4096, 10_000, 16_000, 16_384],
    # Four blocks of random values, 4 MiB; with overviews their compressed copy is larger, and its end, here a negative number
    # of bytes, is written while GDAL closes the file.
    "large": [4_000_000, 4_300_000, -300_000, -100_000, -5000, -500, -1],
}


@pytest.mark.parametrize("scene", ["small", "large"])
def test_a_disk_that_fills_up_is_told_and_nothing_is_left(classifier_file: Path, tmp_path: Path, scene: str):
    pytest.importorskip("resource")
    limits = list(map(str, FULL_AT[scene]))
    arguments = [sys.executable, "-c", FILLING_DISK, str(classifier_file), str(tmp_path), scene, *limits]
    outcomes = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()
    for limit, outcome in zip(limits, outcomes, strict=True):
        assert str(tmp_path / limit) in outcome, (limit, outcome)
        assert "cannot write" in outcome or "no space left" in outcome
        assert names(tmp_path / limit) == [], limit
    assert names(tmp_path / "enough") == MAP_FILES


class CountingArray(BackendArray):
    """An array that notes how many values each access reads."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.reads: list[tuple[int, ...]] = []

    def __deepcopy__(self, _: dict[int, Any]) -> CountingArray:
        return self

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        found = self.values
        for axis, part in enumerate(key):
            found = np.take(found, np.arange(self.shape[axis])[part], axis)
        self.reads.append(found.shape)
        return found


def test_a_scene_is_read_by_tiles_with_a_halo_and_only_in_the_bands_needed(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path, small_blocks: int
):
    counting = CountingArray(small_scene.values)
    lazy = small_scene.copy(data=indexing.LazilyIndexedArray(counting))
    files = map_scene(classifier, lazy, tmp_path / "map.tif", tile=5)
    np.testing.assert_array_equal(read(files.classes), classifier.predict(small_scene))
    assert len(counting.reads) == 4
    for shape in counting.reads:
        assert shape[0] == len(classifier.bands) < 20
        # Two whole blocks, and the patch of 3 reaches one pixel to each side.
        assert max(shape[1:]) <= 2 * small_blocks + 2
