"""Maps as Zarr stores: what is in them, and that they appear whole, or not at all, and always with the same bytes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from cli_example import QUICK, command_line
from interrupted import after, contents, stop
from spectralmamba import Classifier, files, map_scene, mapping, open_scene, zarr_maps
from spectralmamba.errors import MissingPackageError, OutputError, SceneError
from spectralmamba.mapping import MapFiles
from spectralmamba.scenes.writing import write_labels, write_scene

VARIABLES = ("class", "confidence", "novelty", "set_size")
ROTATED = Affine.translation(364095.5, 5809965.25) @ Affine.rotation(31) @ Affine.scale(3.7, -3.7)

pytestmark = pytest.mark.usefixtures("small_blocks")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def opened(path: Path, **options: Any) -> xr.Dataset:
    """A store as xarray opens it, which is to warn of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xr.open_zarr(path, decode_coords="all", **options).load()


@pytest.fixture
def scene_file(small_scene: xr.DataArray, tmp_path: Path) -> Path:
    """A scene of 24 × 12 pixels in a Zarr store."""
    large = small_scene.isel(y=np.arange(24) % 12).drop_vars(["x", "y", "spatial_ref"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        large.to_dataset(name="cube").to_zarr(tmp_path / "scene.zarr", encoding={"cube": {"chunks": (20, 8, 6)}})
    return tmp_path / "scene.zarr"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def unbroken(classifier: Classifier, scene_file: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files of a store that nobody stopped."""
    (tmp_path / "unbroken").mkdir()
    map_scene(classifier, open_scene(scene_file), tmp_path / "unbroken" / "map.zarr")
    return contents(tmp_path / "unbroken")


def test_a_store_holds_what_the_geotiffs_hold(classifier: Classifier, small_scene: xr.DataArray, out: Path) -> None:
    stored = map_scene(classifier, small_scene, out / "map.zarr")
    tiffs = map_scene(classifier, small_scene, out / "map.tif")
    store = out / "map.zarr"
    assert stored == MapFiles(store, store, store, store, True, tiffs.pixels)
    raw, decoded = opened(store, mask_and_scale=False), opened(store)
    for name, file in zip(VARIABLES, (tiffs.classes, tiffs.confidence, tiffs.novelty, tiffs.set_size), strict=True):
        assert file is not None
        with rasterio.open(file) as raster:
            values = raster.read(1)
            assert raw[name].dims == ("y", "x")
            assert raw[name].dtype == raster.dtypes[0]
            np.testing.assert_array_equal(raw[name], values)
            np.testing.assert_array_equal(decoded[name].isnull(), raster.read_masks(1) == 0)
            np.testing.assert_equal(decoded[name].rio.encoded_nodata, raster.nodata)
            assert raw[name].rio.crs == raster.crs
            assert raw[name].rio.transform() == raster.transform
            assert raw[name].attrs["long_name"] == raster.descriptions[0]
    assert [name for name in names(out) if not name.endswith((".qml", ".csv"))] == [
        "map.tif",
        "map.tif.aux.xml",
        "map.zarr",
        "map_confidence.tif",
        "map_novelty.tif",
        "map_set_size.tif",
    ]


def test_coordinates_are_the_scenes(classifier: Classifier, small_scene: xr.DataArray, out: Path) -> None:
    map_scene(classifier, small_scene, out / "map.zarr")
    store = opened(out / "map.zarr")
    assert set(store.data_vars) == set(VARIABLES)
    for dim in ("x", "y"):
        np.testing.assert_array_equal(store[dim], small_scene[dim])
        assert store[dim].attrs["standard_name"] == f"projection_{dim}_coordinate"
    assert store.rio.crs == small_scene.rio.crs
    assert store.rio.transform() == small_scene.rio.transform()


def test_a_rotated_scene_gives_a_rotated_map(classifier: Classifier, small_scene: xr.DataArray, out: Path) -> None:
    scene = small_scene.drop_vars(["x", "y"]).rio.write_transform(ROTATED)
    map_scene(classifier, scene, out / "map.zarr")
    store = opened(out / "map.zarr")
    assert store["class"].rio.transform() == ROTATED
    assert store["class"].rio.crs == small_scene.rio.crs
    assert "x" not in store.coords


def test_a_scene_without_georeference_gives_a_map_without_one(
    classifier: Classifier, small_scene: xr.DataArray, out: Path
) -> None:
    files = map_scene(classifier, small_scene.drop_vars(["x", "y", "spatial_ref"]), out / "map.zarr")
    assert not files.georeferenced
    store = opened(out / "map.zarr")
    assert set(store.variables) == set(VARIABLES)
    assert store["class"].rio.crs is None


def test_classes_have_names_and_colours_and_the_store_tells_where_it_comes_from(
    classifier: Classifier, small_scene: xr.DataArray, out: Path
) -> None:
    classifier.card["prediction_sets"]["coverage"] = 0.75
    map_scene(classifier, small_scene, out / "map.zarr")
    store = opened(out / "map.zarr")
    said = store["class"].attrs
    assert list(said["flag_values"]) == sorted(classifier.class_names)
    assert len(said["flag_meanings"].split()) == len(said["flag_colors"].split()) == len(classifier.class_names)
    assert json.loads(said["CLASS_NAMES"]) == {str(id_): name for id_, name in classifier.class_names.items()}
    assert json.loads(said["CLASS_COLORS"]) == {str(id_): color for id_, color in classifier.class_colors.items()}
    assert store["set_size"].attrs["SET_COVERAGE"] == "0.75"
    assert store.attrs["SOFTWARE"].startswith("spectralmamba ")
    assert store.attrs["MODEL"] == "spectral_mamba, preset default, patch 3"
    assert store.attrs["SCENE"] == "simulated, seed 0"


def test_flag_meanings_are_one_word_a_class() -> None:
    flags = zarr_maps.class_flags({7: "water (deep)", 2: "Äcker, brach"}, {7: "#0000ff", 2: "#e69f00"})
    assert flags == {
        "flag_values": [2, 7],
        "flag_meanings": "Äcker_brach water_deep_",
        "flag_colors": "#e69f00 #0000ff",
    }


@pytest.mark.parametrize(("part", "layer"), [("novelty", "novelty"), ("sets", "set_size")])
def test_a_layer_that_the_classifier_does_not_tell_is_not_there_nor_left_from_the_map_before(
    classifier: Classifier, small_scene: xr.DataArray, out: Path, part: str, layer: str
) -> None:
    map_scene(classifier, small_scene, out / "map.zarr")
    setattr(classifier, part, None)
    files = map_scene(classifier, small_scene, out / "map.zarr")
    assert getattr(files, layer) is None
    assert set(opened(out / "map.zarr").data_vars) == set(VARIABLES) - {layer}
    assert names(out) == ["map.zarr"]


def test_large_maps_have_chunks_and_are_compressed(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4, (1030, 700)).astype(np.uint8)
    profile = {"width": 700, "height": 1030, "count": 1, "dtype": "uint8", "nodata": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "classes.tif", "w", driver="GTiff", **profile) as raster:
            raster.write(values, 1)
    layers = {"class": zarr_maps.ZarrLayer(tmp_path / "classes.tif", {})}
    scene = xr.DataArray(np.zeros((1, 1030, 700), np.float32), dims=("band", "y", "x"))
    zarr_maps.write_zarr(tmp_path / "map.zarr", layers, scene, {}, np.count_nonzero(values))
    np.testing.assert_array_equal(opened(tmp_path / "map.zarr")["class"].fillna(0), values)
    assert zarr.open_array(tmp_path / "map.zarr" / "class").chunks == (512, 512)
    size = sum(len(content) for name, content in contents(tmp_path / "map.zarr").items() if "/c/" in name)
    assert size < values.nbytes / 2
    with pytest.raises(rasterio.errors.RasterioError, match="does not hold"):
        zarr_maps.write_zarr(tmp_path / "other.zarr", layers, scene, {}, values.size)


@pytest.mark.parametrize("tile", [1, 5, 16, 512])
def test_tiles_of_any_size_give_the_same_bytes(
    classifier: Classifier, scene_file: Path, out: Path, unbroken: dict[str, bytes], tile: int
) -> None:
    map_scene(classifier, open_scene(scene_file), out / "map.zarr", tile=tile)
    assert contents(out) == unbroken


def test_a_stopped_map_goes_on_to_the_same_bytes(
    classifier: Classifier, scene_file: Path, out: Path, unbroken: dict[str, bytes]
) -> None:
    scene = open_scene(scene_file)
    with pytest.raises(KeyboardInterrupt):
        map_scene(classifier, scene, out / "map.zarr", tile=4, keep_unfinished=True, on_tile=after(5, stop))
    assert names(out) == [".map.zarr.unfinished"]
    seen: list[int] = []
    map_scene(classifier, scene, out / "map.zarr", resume=True, on_tile=lambda done, _: seen.append(done))
    assert seen[0] == 5 * 16
    assert contents(out) == unbroken


KILLED = """
import os, signal, sys
from spectralmamba import Classifier, files, inference, map_scene, open_scene

inference.BLOCK = 4
classifier, scene = Classifier.load(sys.argv[1], "cpu"), open_scene(sys.argv[2])
flush, calls = files._flush_to_disk, []

def kill(when):
    if when:
        os.kill(os.getpid(), signal.SIGKILL)

def count(*_):
    calls.append(1)
    kill(sys.argv[4] == "among tiles" and len(calls) == 7)

def flushed(path):
    kill(sys.argv[4] == "with the store written" and path.name == "zarr.json")
    flush(path)

def replace(source, target):
    rename(source, target)
    kill(sys.argv[4] == "with the old store moved" and str(source) == sys.argv[3])

rename, os.replace, files._flush_to_disk = os.replace, replace, flushed
map_scene(classifier, scene, sys.argv[3], tile=4, resume=True, on_tile=count)
"""


@pytest.mark.parametrize("when", ["among tiles", "with the store written", "with the old store moved"])
def test_a_killed_map_goes_on_to_the_same_bytes(
    classifier: Classifier, classifier_file: Path, scene_file: Path, out: Path, unbroken: dict[str, bytes], when: str
) -> None:
    zarr.open_group(out / "map.zarr", mode="w")  # an older map
    program = [sys.executable, "-c", KILLED, str(classifier_file), str(scene_file), str(out / "map.zarr"), when]
    assert subprocess.run(program).returncode == -signal.SIGKILL
    assert (out / "map.zarr").exists() == (when != "with the old store moved")
    map_scene(classifier, open_scene(scene_file), out / "map.zarr", resume=True)
    assert contents(out) == unbroken


@pytest.mark.parametrize("failing", ["write_zarr", "_flush_to_disk", "replace"])
def test_a_failure_at_the_end_leaves_the_old_map_and_nothing_else(
    classifier: Classifier, scene_file: Path, out: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    scene, write, replace = open_scene(scene_file), mapping.write_zarr, files.os.replace

    def fail(*arguments: Any) -> None:
        if failing == "write_zarr":
            write(*arguments)
        if failing != "replace" or (".part" in Path(arguments[0]).name and Path(arguments[1]) == out / "map.zarr"):
            raise OSError(28, "No space left on device")
        replace(*arguments)

    where = {"write_zarr": mapping, "_flush_to_disk": files, "replace": files.os}[failing]
    map_scene(classifier, scene, out / "map.zarr")
    before = contents(out)
    (out / "new").mkdir()
    with monkeypatch.context() as patch:
        if failing == "_flush_to_disk":  # also of the journal's files, before
            patch.setattr(mapping, "write_zarr", lambda *words: (write(*words), patch.setattr(files, failing, fail)))
        else:
            patch.setattr(where, failing, fail)
        with pytest.raises(OutputError, match="no space left"):
            map_scene(classifier, scene, out / "map.zarr")
    assert contents(out) == before
    assert names(out) == ["map.zarr", "new"]


def test_a_chunk_that_changes_half_way_gives_no_map(classifier: Classifier, scene_file: Path, out: Path) -> None:
    chunk = scene_file / "cube" / "c" / "0" / "0" / "0"

    def change() -> None:
        chunk.write_bytes(chunk.read_bytes())

    with pytest.raises(SceneError, match="has changed while it was mapped"):
        map_scene(classifier, open_scene(scene_file), out / "map.zarr", tile=4, on_tile=after(5, change))
    assert names(out) == []


def test_only_a_store_is_replaced_and_never_the_scene(classifier: Classifier, scene_file: Path, out: Path) -> None:
    def never(*_: int) -> None:
        raise AssertionError

    scene, before = open_scene(scene_file), contents(scene_file)
    (out / "file.zarr").write_text("x")
    (out / "folder.zarr").mkdir()
    (out / "folder.zarr" / "mine.txt").write_text("x")
    for name in ("file.zarr", "folder.zarr"):
        with pytest.raises(OutputError, match="cannot write this file"):
            map_scene(classifier, scene, out / name, on_tile=never)
    with pytest.raises(OutputError, match="folder does not exist"):
        map_scene(classifier, scene, out / "none" / "map.zarr", on_tile=never)
    with pytest.raises(OutputError, match="would replace its scene"):
        map_scene(classifier, scene, scene_file, on_tile=never)
    assert contents(scene_file) == before
    assert contents(out) == {"file.zarr": b"x", "folder.zarr/mine.txt": b"x"}


def test_a_folder_without_permission_is_refused(
    classifier: Classifier, scene_file: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping.os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(OutputError, match="cannot write this file"):
        map_scene(classifier, open_scene(scene_file), out / "map.zarr")
    assert names(out) == []


def test_without_zarr_nothing_is_classified(
    classifier: Classifier, small_scene: xr.DataArray, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingPackageError, match=r'map.zarr.*pip install "spectralmamba\[zarr\]"'):
        map_scene(classifier, small_scene, out / "map.zarr", on_tile=lambda *_: pytest.fail("classified"))
    assert names(out) == []


def test_the_command_line_maps_a_store_to_a_store(
    classifier: Classifier, classifier_file: Path, scene_file: Path, out: Path, unbroken: dict[str, bytes]
) -> None:
    words = ("map", classifier_file, scene_file, "--out", out / "map.zarr", "--device", "cpu")
    answer = command_line(*words)
    assert answer.code == 0, answer
    assert answer.out.count("map.zarr") == 1
    assert contents(out) == unbroken
    refused = command_line(*words)
    assert refused.code == 2
    assert "this file exists" in refused.err
    assert command_line(*words, "--overwrite").code == 0
    assert contents(out) == unbroken


def test_info_and_run_take_a_store(small_scene: xr.DataArray, small_labels: xr.DataArray, out: Path) -> None:
    bare = small_scene.copy()
    bare.attrs.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare.to_dataset(name="cube").to_zarr(out / "scene.zarr")
    labels, tiff = (
        write_labels(small_labels, out / "labels.tif"),
        write_scene(small_scene, out / "scene.tif", as_integer=False),
    )
    answers = [command_line("info", file, labels) for file in (out / "scene.zarr", tiff)]
    assert [answer.code for answer in answers] == [0, 0]
    assert "12 rows × 12 columns × 20 bands, float32" in answers[0].out
    assert "EPSG" in answers[0].out
    maps = []
    for number, file in enumerate((out / "scene.zarr", tiff)):
        answer = command_line("run", file, labels, "--out", out / str(number), "--per-class", "4", *QUICK)
        assert answer.code == 0, answer
        with rasterio.open(out / str(number) / "map.tif") as raster:
            maps.append((raster.crs, raster.transform, raster.read(1)))
    assert maps[0][:2] == maps[1][:2]
    np.testing.assert_array_equal(maps[0][2], maps[1][2])
