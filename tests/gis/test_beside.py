"""Files for a GIS beside maps, as `map_scene`, `map_scenes` and the command line write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

import cli_example
from cli_example import QUICK, Example, assert_refused, command_line, temporary_files
from spectralmamba import Classifier, map_scene
from spectralmamba.archive import FAILED, MAPPED, SKIPPED, map_scenes
from spectralmamba.errors import MissingPackageError, OutputError, SettingsError
from spectralmamba.gis import GisFiles, beside
from spectralmamba.scenes.writing import write_scene

example, trained, one_thread = cli_example.example, cli_example.trained, cli_example.one_thread

geopandas, _, _ = (pytest.importorskip(package) for package in ("geopandas", "pystac", "PIL"))
ALL = GisFiles(polygons=True, overview=True, stac=True, acquired="2024-05-01")
OPTIONAL = {"map_overview.kmz", "map_overview.png", "map_polygons.gpkg", "map_stac.json"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def bare(scene: xr.DataArray) -> xr.DataArray:
    return scene.drop_vars(["x", "y", "spatial_ref"])


def test_every_map_has_style_attribute_table_and_areas(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
) -> None:
    files = map_scene(classifier, small_scene, tmp_path / "map.tif")
    layers = {"confidence_style", "novelty_style", "set_size_style"}
    assert set(files.gis) == {"attribute_table", "style", "areas"} | layers
    assert all(file.is_file() for file in files.gis.values())
    with files.gis["areas"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["mapped_pixels"]) for row in rows) == files.pixels
    assert {int(row["id"]): row["class"] for row in rows} == classifier.class_names
    assert not OPTIONAL & names(tmp_path)


def test_what_is_asked_for_lies_beside_the_map(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
) -> None:
    files = map_scene(classifier, small_scene, tmp_path / "map.tif", gis=ALL)
    assert names(tmp_path) >= OPTIONAL
    assert {files.gis[name].name for name in ("polygons", "overview", "google_earth", "stac_item")} == OPTIONAL
    item = json.loads(files.gis["stac_item"].read_text())
    assert set(item["assets"]) == {
        *("map", "confidence", "novelty", "set_size", "attribute_table", "style", "areas"),
        *("polygons", "overview", "google_earth"),
    }
    for asset in item["assets"].values():
        assert (tmp_path / asset["href"]).is_file()
    polygons = geopandas.read_file(files.gis["polygons"], layer="map_polygons")
    assert polygons["pixels"].sum() == files.pixels
    assert polygons["mean_confidence"].between(0, 1).all()


def test_a_new_map_does_not_keep_files_of_the_old_one(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
) -> None:
    map_scene(classifier, small_scene, tmp_path / "map.tif", gis=ALL)
    files = map_scene(classifier, small_scene, tmp_path / "map.tif", gis=replace(ALL, overview=False))
    assert names(tmp_path) & OPTIONAL == {"map_polygons.gpkg", "map_stac.json"}
    assert "overview" not in json.loads(files.gis["stac_item"].read_text())["assets"]


def test_the_scene_s_time_goes_through_the_map_to_the_item(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
) -> None:
    small_scene.attrs["acquisition_time"] = "2022-09-03T16:31:29Z"
    files = map_scene(classifier, small_scene, tmp_path / "map.tif", gis=GisFiles(stac=True))
    with rasterio.open(files.classes) as raster:
        assert raster.tags()["ACQUISITION_TIME"] == "2022-09-03T16:31:29Z"
    properties = json.loads(files.gis["stac_item"].read_text())["properties"]
    assert properties["datetime"] == "2022-09-03T16:31:29Z"
    assert "start_datetime" not in properties


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_map_without_coordinates_has_a_picture_and_nothing_for_google_earth(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
) -> None:
    files = map_scene(classifier, bare(small_scene), tmp_path / "map.tif", gis=GisFiles(overview=True))
    assert "overview" in files.gis
    assert "google_earth" not in files.gis


@pytest.mark.parametrize(
    ("change", "wanted", "name", "error", "message"),
    [
        (None, ALL, "map.zarr", OutputError, r"GeoTIFF.*Zarr store.*\.tif"),
        (bare, GisFiles(polygons=True), "map.tif", OutputError, "polygons cannot be made of a map without CRS"),
        (bare, GisFiles(stac=True), "map.tif", OutputError, "a STAC item cannot be made of a map without CRS"),
        (None, GisFiles(stac=True), "map.tif", OutputError, "does not say so.*--acquired"),
        (None, GisFiles(stac=True, acquired="soon"), "map.tif", SettingsError, "no time of acquisition"),
        (None, GisFiles(polygons="p.shp"), "map.tif", OutputError, r"\.gpkg"),
        (None, GisFiles(polygons="absent/p.gpkg"), "map.tif", OutputError, "folder does not exist"),
        (None, GisFiles(polygons=True, smallest_area="big"), "map.tif", SettingsError, "no smallest area"),
        (None, GisFiles(smallest_area="9px"), "map.tif", SettingsError, "--smallest-area without --polygons"),
        (None, GisFiles(acquired="2024-05-01"), "map.tif", SettingsError, "--acquired without --stac"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_mapped(
    classifier: Classifier,
    small_scene: xr.DataArray,
    tmp_path: Path,
    change: Callable[[xr.DataArray], xr.DataArray] | None,
    wanted: GisFiles,
    name: str,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        map_scene(classifier, change(small_scene) if change else small_scene, tmp_path / name, gis=wanted)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("package", "wanted"),
    [
        ("geopandas", GisFiles(polygons=True)),
        ("PIL.ImageDraw", GisFiles(overview=True)),
        ("pystac", GisFiles(stac=True, acquired="2024-05-01")),
    ],
)
def test_a_package_that_is_missing_is_named_before_anything_is_mapped(
    classifier: Classifier,
    small_scene: xr.DataArray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    wanted: GisFiles,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingPackageError, match="pip install"):
        map_scene(classifier, small_scene, tmp_path / "map.tif", gis=wanted)
    assert names(tmp_path) == set()


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def fail(*_: Any, **__: Any) -> None:
    raise OutputError("no space left")


@pytest.mark.parametrize("failure", [stop, fail])
def test_what_is_stopped_after_the_map_keeps_it_and_goes_on_without_classifying(
    classifier: Classifier,
    small_scene: xr.DataArray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Callable[..., None],
) -> None:
    map_scene(classifier, small_scene, tmp_path / "map.tif", gis=ALL)
    unbroken = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        path.unlink()
    with monkeypatch.context() as patches:
        patches.setattr(beside.overview, "write_overlay", failure)
        with pytest.raises((KeyboardInterrupt, OutputError)):
            map_scene(classifier, small_scene, tmp_path / "map.tif", gis=ALL, keep_unfinished=True)
    left = {"map_overview.kmz", "map_stac.json"}
    assert names(tmp_path) == unbroken.keys() - left | {".map.tif.unfinished"}
    assert (tmp_path / "map.tif").read_bytes() == unbroken["map.tif"]
    done: list[int] = []
    map_scene(
        classifier, small_scene, tmp_path / "map.tif", gis=ALL, resume=True, on_tile=lambda *at: done.append(at[0])
    )
    assert done == [144]  # all of it was there
    assert names(tmp_path) == unbroken.keys()
    changing = {"map_polygons.gpkg", "map_stac.json"}  # they hold the time
    for name in unbroken.keys() - changing:
        assert (tmp_path / name).read_bytes() == unbroken[name], name


@pytest.mark.parametrize("failure", [stop, fail])
def test_without_keeping_nothing_but_whole_files_is_left(
    classifier: Classifier,
    small_scene: xr.DataArray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Callable[..., None],
) -> None:
    monkeypatch.setattr(beside.polygons, "write_polygons", failure)
    with pytest.raises((KeyboardInterrupt, OutputError)):
        map_scene(classifier, small_scene, tmp_path / "map.tif", gis=ALL)
    assert temporary_files(tmp_path) == []
    assert "map.tif" in names(tmp_path)


@pytest.fixture
def scenes(small_scene: xr.DataArray, tmp_path: Path) -> list[Path]:
    (tmp_path / "scenes").mkdir()
    return [write_scene(small_scene, tmp_path / "scenes" / f"{name}.tif", as_integer=False) for name in "ab"]


def test_of_several_maps_each_has_its_own(
    classifier: Classifier, scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, folder = tmp_path / "maps", tmp_path / "polygons"
    assert [each.outcome for each in map_scenes(classifier, scenes, maps)] == [MAPPED, MAPPED]
    wanted = replace(ALL, polygons=folder)
    with monkeypatch.context() as patches:
        patches.setattr(beside.overview, "write_picture", fail)
        outcomes = map_scenes(classifier, scenes, maps, resume=True, gis=wanted)
    assert [(each.outcome, each.reason) for each in outcomes] == [(FAILED, "no space left.")] * 2
    monkeypatch.setattr(beside.polygons, "write_polygons", stop)  # they are there
    outcomes = map_scenes(classifier, scenes, maps, resume=True, gis=wanted)
    assert [each.outcome for each in outcomes] == [SKIPPED, SKIPPED]
    assert names(folder) == {"a_map_polygons.gpkg", "b_map_polygons.gpkg"}
    assert names(maps) >= {
        f"{name}_map_{what}" for name in "ab" for what in ("overview.png", "overview.kmz", "stac.json")
    }
    item = json.loads((maps / "b_map_stac.json").read_text())
    assert item["id"] == "b_map"
    assert item["assets"]["polygons"]["href"] == "../polygons/b_map_polygons.gpkg"


def test_polygons_of_several_maps_are_no_single_file(
    classifier: Classifier, scenes: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"fields\.gpkg: of several scenes polygons go to a folder"):
        map_scenes(classifier, scenes, tmp_path / "maps", gis=GisFiles(polygons=tmp_path / "fields.gpkg"))
    assert names(tmp_path) == {"scenes"}


def test_map_prints_its_files_and_writes_over_none(tmp_path: Path, trained: Path, example: Example) -> None:
    words = ("map", trained / "model.safetensors", example.scene, "--out", tmp_path / "m.tif")
    asked = ("--polygons", tmp_path / "fields.gpkg", "--smallest-area", "3px", "--overview", "--stac")
    assert_refused(command_line(*words, *asked), "--acquired", out=tmp_path)
    answer = command_line(*words, *asked, "--acquired", "2024-05-01T10:30:00Z")
    assert answer.code == 0, answer
    for title, file in (
        ("Style", "m.qml"),
        ("Areas", "m_areas.csv"),
        ("Polygons", "fields.gpkg"),
        ("Overview", "m_overview.png"),
        ("Google Earth", "m_overview.kmz"),
        ("STAC item", "m_stac.json"),
    ):
        assert f"{title}: {tmp_path / file}\n" in answer.out
        assert (tmp_path / file).is_file()
    polygons = geopandas.read_file(tmp_path / "fields.gpkg", layer="fields")
    assert polygons["pixels"].min() >= 3
    for file in (
        tmp_path / "m.tif",
        tmp_path / "m_confidence.tif",
        tmp_path / "m_novelty.tif",
        tmp_path / "m_set_size.tif",
    ):
        file.unlink()
    assert_refused(command_line(*words), "m_overview.png: this file exists")
    for file in tmp_path.glob("m_*"):
        file.unlink()
    assert_refused(command_line(*words, "--polygons", tmp_path / "fields.gpkg"), "fields.gpkg: this file exists")


def test_a_full_disk_after_the_map_is_told_with_what_to_do(
    tmp_path: Path, trained: Path, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("map", trained / "model.safetensors", example.scene, "--out", tmp_path / "m.tif", "--overview")
    with monkeypatch.context() as patches:
        patches.setattr(beside.overview, "write_picture", fail)
        answer = command_line(*words)
    assert (answer.code, "The map is finished: the same command with --resume" in answer.err) == (2, True)
    assert command_line(*words, "--resume").code == 0
    assert temporary_files(tmp_path) == []


def test_a_run_makes_what_is_asked_for_and_refuses_it_before_it_trains(tmp_path: Path, example: Example) -> None:
    words = ("run", example.scene, example.labels, "--out", tmp_path / "out", *QUICK)
    asked = ("--polygons", "--overview", "--stac")
    assert_refused(command_line(*words, *asked), "--acquired", out=tmp_path / "out")
    assert_refused(command_line(*words, "--smallest-area", "1ha"), "--polygons", out=tmp_path / "out")
    answer = command_line(*words, *asked, "--acquired", "2024-05-01")
    assert answer.code == 0, answer
    assert names(tmp_path / "out") >= OPTIONAL
    assert f"STAC item: {tmp_path / 'out' / 'map_stac.json'}" in answer.out
    assert temporary_files(tmp_path) == []
    assert command_line(*words, "--overwrite").code == 0
    assert not names(tmp_path / "out") & OPTIONAL


def test_a_map_that_is_there_becomes_polygons(tmp_path: Path, example: Example) -> None:
    words = ("polygons", example.labels, "--out", tmp_path / "labels.gpkg")
    answer = command_line(*words)
    assert answer == cli_example.Answer(0, f"Polygons: {tmp_path / 'labels.gpkg'}\n", "")
    polygons = geopandas.read_file(tmp_path / "labels.gpkg", layer="labels")
    assert polygons["pixels"].sum() == np.count_nonzero(example.ids)
    assert "mean_confidence" not in polygons
    assert_refused(command_line(*words), "this file exists", "--overwrite")
    assert command_line(*words, "--overwrite", "--smallest-area", "5px").code == 0
    assert_refused(command_line("polygons", example.scene, "--out", tmp_path / "s.gpkg"), "one band of class ids")
