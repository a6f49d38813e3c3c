from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from map_example import IDS, NAMES, NORTH_UP, UTM, MakeMap
from rasterio.features import rasterize

from spectralmamba.errors import LabelError, MissingPackageError, OutputError, SettingsError
from spectralmamba.gis import polygons, write_polygons
from spectralmamba.gis.finished_map import open_map
from spectralmamba.gis.polygons import smallest_pixels
from spectralmamba.scenes import vectors

geopandas = pytest.importorskip("geopandas")


def read(path: Path) -> Any:
    return geopandas.read_file(path, layer=path.stem)


def test_polygons_are_the_map(make_map: MakeMap, tmp_path: Path) -> None:
    found = read(write_polygons(make_map(), tmp_path / "fields.gpkg"))
    assert found.crs == UTM
    assert list(found.columns) == ["class_id", "class", "pixels", "hectares", "geometry"]
    assert sorted(zip(found["class_id"], found["pixels"], strict=True)) == [(1, 1), (1, 4), (2, 16), (7, 1)]
    assert found["hectares"].to_numpy() == pytest.approx(found.area / 10_000)
    assert set(found["class"]) == set(NAMES.values())
    assert found.is_valid.all()
    burned = rasterize(
        zip(found.geometry, found["class_id"], strict=True), IDS.shape, transform=NORTH_UP, dtype="uint8"
    )
    np.testing.assert_array_equal(burned, IDS)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 3)))
def test_polygons_of_any_map_are_valid_and_sum_to_its_areas(make_map: MakeMap, tmp_path: Path, ids: np.ndarray) -> None:
    degrees = {"crs": "EPSG:4326", "transform": Affine(0.5, 0, 13, 0, -0.5, 52)}
    path = make_map(ids, **degrees)
    found = read(write_polygons(path, tmp_path / "fields.gpkg"))
    assert found.is_valid.all()
    sums = found.groupby("class_id")["hectares"].sum().to_dict()
    expected = {each.id: each.hectares for each in open_map(path).classes if each.pixels}
    assert sums == pytest.approx(expected, abs=1e-2)
    if len(found):
        shapes = zip(found.geometry, found["class_id"], strict=True)
        burned = rasterize(shapes, ids.shape, transform=degrees["transform"], dtype="uint8")
        np.testing.assert_array_equal(burned, ids)


def test_confidence_is_the_mean_of_each_polygon(make_map: MakeMap, tmp_path: Path) -> None:
    confidence = np.where(IDS > 0, np.arange(IDS.size).reshape(IDS.shape) / IDS.size, np.nan)
    found = read(write_polygons(make_map(confidence=confidence), tmp_path / "fields.gpkg"))
    wood = found[(found["class_id"] == 1) & (found["pixels"] == 4)]
    assert wood["mean_confidence"].item() == pytest.approx(np.mean([0, 1, 6, 7]) / IDS.size, abs=1e-4)
    assert np.isfinite(found["mean_confidence"]).all()


def test_small_polygons_go_to_the_largest_beside_them(make_map: MakeMap, tmp_path: Path) -> None:
    path = make_map()
    found = read(write_polygons(path, tmp_path / "fields.gpkg", smallest_area="2px"))
    assert sorted(zip(found["class_id"], found["pixels"], strict=True)) == [(1, 4), (2, 18)]
    assert found["hectares"].sum() == pytest.approx(0.22)
    same = read(write_polygons(path, tmp_path / "hectares.gpkg", smallest_area="0.02 ha"))
    assert same.drop(columns="geometry").equals(found.drop(columns="geometry"))


def test_a_small_polygon_with_none_large_enough_beside_it_is_left_out(make_map: MakeMap, tmp_path: Path) -> None:
    ids = np.array([[1, 0, 2, 2], [0, 0, 2, 2]], np.uint8)
    found = read(write_polygons(make_map(ids), tmp_path / "fields.gpkg", smallest_area="3px"))
    assert list(zip(found["class_id"], found["pixels"], strict=True)) == [(2, 4)]


@pytest.mark.parametrize(
    ("text", "pixels"), [("9px", 9), ("0.09ha", 9), ("0.091 ha", 10), ("0.001HA", 1), ("2.5px", 3)]
)
def test_an_area_is_so_many_pixels(text: str, pixels: int) -> None:
    assert smallest_pixels(text, 0.01) == pixels


@pytest.mark.parametrize("text", ["9", "ha", "0px", "-1ha", "1 acre", "nanha"])
def test_what_is_no_area_is_refused(make_map: MakeMap, tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"no smallest area.*0\.5ha, 9px"):
        write_polygons(make_map(), tmp_path / "fields.gpkg", smallest_area=text)


def test_qgis_finds_a_style_in_the_file(make_map: MakeMap, tmp_path: Path) -> None:
    path = write_polygons(make_map(), tmp_path / "fields.gpkg")
    with sqlite3.connect(path) as file:
        columns = "f_table_name, f_geometry_column, useAsDefault, styleQML"
        ((layer, geometry, default, style),) = file.execute(f"SELECT {columns} FROM layer_styles").fetchall()
        kinds = dict(file.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall())
        (named,) = file.execute("SELECT column_name FROM gpkg_geometry_columns").fetchone()
    assert (layer, geometry, default) == ("fields", named, 1)
    assert kinds == {"fields": "features", "layer_styles": "attributes"}
    assert [each.attrib["value"] for each in ElementTree.fromstring(style).iter("category")] == ["1", "2", "7"]


def test_a_rotated_map_has_rotated_polygons(make_map: MakeMap, tmp_path: Path) -> None:
    turned = NORTH_UP @ Affine.rotation(30)
    found = read(write_polygons(make_map(transform=turned), tmp_path / "fields.gpkg"))
    burned = rasterize(zip(found.geometry, found["class_id"], strict=True), IDS.shape, transform=turned, dtype="uint8")
    np.testing.assert_array_equal(burned, IDS)


def test_an_empty_map_has_no_polygon(make_map: MakeMap, tmp_path: Path) -> None:
    assert len(read(write_polygons(make_map(np.zeros_like(IDS)), tmp_path / "fields.gpkg"))) == 0


def test_what_cannot_be_made_polygons_is_refused_and_leaves_no_file(
    make_map: MakeMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match=r"GeoPackage.*\.shp.*\.gpkg"):
        write_polygons(make_map(), tmp_path / "fields.shp")
    with pytest.raises(OutputError, match="no CRS"):
        write_polygons(make_map(crs=None), tmp_path / "fields.gpkg")
    with pytest.raises(OutputError, match="rotated map in degrees"):
        write_polygons(make_map(crs="EPSG:4326", transform=Affine(0.1, 0.05, 1, 0.05, -0.1, 9)), tmp_path / "f.gpkg")
    with pytest.raises(OutputError, match="folder does not exist"):
        write_polygons(make_map(), tmp_path / "absent" / "fields.gpkg")
    with pytest.raises(LabelError, match="no such map"):
        write_polygons(tmp_path / "absent.tif", tmp_path / "fields.gpkg")
    make_map(np.ones((2, 2), np.uint8), confidence=np.ones((2, 2)))
    with pytest.raises(OutputError, match="of another map"):
        write_polygons(make_map(), tmp_path / "fields.gpkg")
    (tmp_path / "map_confidence.tif").unlink()
    with monkeypatch.context() as patches:
        patches.setattr(polygons, "memory_free", lambda: 300)
        with pytest.raises(OutputError, match=r"too large.*4 × 6 pixels.*gdal_translate"):
            write_polygons(make_map(), tmp_path / "fields.gpkg")
    with monkeypatch.context() as patches:
        patches.setattr(polygons, "polygon_style", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_polygons(make_map(), tmp_path / "fields.gpkg")
    with monkeypatch.context() as patches:
        patches.setitem(__import__("sys").modules, "geopandas", None)
        with pytest.raises(MissingPackageError, match=r"spectralmamba\[vector\]"):
            write_polygons(make_map(), tmp_path / "fields.gpkg")
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif"]


def test_polygons_are_labels_of_the_same_map(make_map: MakeMap, tmp_path: Path, small_scene: Any) -> None:
    path = write_polygons(make_map(), tmp_path / "fields.gpkg")
    scene = small_scene[:, :4, :6].drop_vars(["x", "y"]).rio.write_transform(NORTH_UP).rio.write_crs(UTM)
    burned = vectors.burn_vectors(path, scene, column="class_id")
    np.testing.assert_array_equal(burned.ids, IDS)
