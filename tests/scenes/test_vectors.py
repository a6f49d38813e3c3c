from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import Affine
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box
from vector_example import COLUMNS, ROTATED, ROWS, TRANSFORM, features, make_scene

from spectralmamba.errors import LabelError, MissingPackageError
from spectralmamba.scenes.labels import open_labels
from spectralmamba.scenes.opening import open_scene
from spectralmamba.scenes.vectors import apply_affine

pytest.importorskip("geopandas")


def test_a_polygon_labels_the_pixels_whose_centre_it_holds():
    labels = open_labels(features([box(2.4, 1.6, 5.6, 4.4)], id=[7]), make_scene())
    expected = np.zeros((ROWS, COLUMNS), int)
    expected[2:4, 2:6] = 7
    np.testing.assert_array_equal(labels, expected)


def test_a_point_labels_the_pixel_it_lies_in():
    labels = open_labels(features([Point(9.99, 0.01), Point(3, 5)], id=[2, 1]), make_scene())
    assert labels[0, 9] == 2
    assert labels[5, 3] == 1
    assert (labels > 0).sum() == 2


@pytest.mark.parametrize("transform", [TRANSFORM, ROTATED], ids=["upright", "rotated"])
def test_burning_agrees_with_looking_up_every_pixel_centre(transform: Affine):
    triangle, star = Polygon([(0.2, 0.3), (9.1, 1.2), (4.4, 7.7)]), Point(7.3, 6.1).buffer(1.8)
    labels = open_labels(features([triangle, star], transform, id=[4, 9]), make_scene(transform))
    for row, column in np.ndindex(ROWS, COLUMNS):
        centre = Point(column + 0.5, row + 0.5)
        held = [id_ for id_, shape in ((4, triangle), (9, star)) if shape.contains(centre)]
        assert labels[row, column] == (held[0] if len(held) == 1 and (row, column) != (0, 0) else 0)


def test_text_classes_are_numbered_in_sorted_order():
    shapes = [Point(column + 0.5, 3) for column in range(5)]
    labels = open_labels(features(shapes, crop=["wheat", " beet", "wheat ", None, ""]), make_scene())
    assert labels.attrs["class_names"] == {1: "beet", 2: "wheat"}
    assert labels.values[3, :5].tolist() == [2, 1, 2, 0, 0]
    assert labels.attrs["report"]["without_class"] == 2
    assert labels.attrs["notes"] == ['The classes were taken from the column "crop".']


def test_number_classes_keep_their_ids():
    shapes = [Point(column + 0.5, 3) for column in range(3)]
    labels = open_labels(features(shapes, code=[30.0, None, 7.0]), make_scene())
    assert labels.attrs["class_names"] == {7: "class 7", 30: "class 30"}
    assert labels.attrs["report"]["without_class"] == 1


@pytest.mark.parametrize("wrong", [0, -3, 2.5, 70_000])
def test_numbers_that_are_no_class_ids_are_refused(wrong: float):
    with pytest.raises(LabelError, match=f'"code" holds values.*found {wrong:g}.*1 to 65535'):
        open_labels(features([Point(1, 1), Point(2, 2)], code=[1, wrong]), make_scene(), column="code")


def test_pixels_of_two_classes_are_left_out_and_counted():
    shapes = [box(1, 1, 5, 5), box(4, 4, 7, 7), Point(1.5, 1.5), Point(2.5, 1.5)]
    labels = open_labels(features(shapes, id=[1, 2, 3, 1]), make_scene())
    assert labels.attrs["report"]["conflicting_pixels"] == 2
    assert labels[4, 4] == labels[1, 1] == 0
    assert (labels == 1).sum() == 14
    assert (labels == 2).sum() == 8


def test_what_is_outside_on_nodata_or_too_small_is_counted():
    shapes = [Point(-1, 3), box(20, 1, 22, 3), Point(0.5, 0.5), box(3.6, 3.6, 3.9, 4.4), box(5, 5, 6, 6), None]
    report = open_labels(features(shapes, id=[1] * 6), make_scene()).attrs["report"]
    assert report == {
        **{"outside_scene": 2, "on_nodata": 1, "conflicting_pixels": 0},
        **{"too_small": 1, "without_class": 0, "without_geometry": 1},
    }


def test_multipart_features_are_taken_part_by_part():
    shapes = [MultiPoint([(1.5, 1.5), (3.5, 1.5), (-5, 0)]), MultiPolygon([box(5, 5, 6, 6), box(7, 7, 8, 8)])]
    labels = open_labels(features(shapes, id=[1, 2]), make_scene())
    assert np.argwhere(labels.values == 1).tolist() == [[1, 1], [1, 3]]
    assert np.argwhere(labels.values == 2).tolist() == [[5, 5], [7, 7]]
    assert labels.attrs["report"]["outside_scene"] == 1


def test_lines_are_refused():
    with pytest.raises(LabelError, match="found LineString"):
        open_labels(features([LineString([(0, 0), (3, 3)])], id=[1]), make_scene())


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
def test_all_formats_are_read_and_reprojected(tmp_path: Path, suffix: str):
    given = features([box(2, 2, 4, 4), box(6, 6, 8, 8)], crop=["maize", "beet"])
    expected = open_labels(given, make_scene())
    given.to_crs("EPSG:4326").to_file(tmp_path / f"l{suffix}")
    labels = open_labels(tmp_path / f"l{suffix}", make_scene(), column="crop")
    np.testing.assert_array_equal(labels, expected)
    assert labels.attrs["class_names"] == {1: "beet", 2: "maize"}


def test_a_column_must_be_named_if_several_could_be_meant():
    given = features([Point(1, 1), Point(2, 2), Point(3, 3)], fine=["a", "b", "a"], coarse=["x", "x", "y"])
    with pytest.raises(LabelError, match=r"fine \(a, b\); coarse \(x, y\).*--label-column"):
        open_labels(given, make_scene())
    with pytest.raises(LabelError, match='no column "crop"'):
        open_labels(given, make_scene(), column="crop")


def test_a_column_of_different_values_beside_a_class_is_not_taken_for_one():
    given = features([Point(1, 1), Point(2, 2), Point(3, 3)], number=[1, 2, 3], crop=["a", "b", "a"])
    assert open_labels(given, make_scene()).attrs["class_names"] == {1: "a", 2: "b"}


def test_a_layer_must_be_named_if_several_have_geometry(tmp_path: Path):
    for layer, id_ in (("train", 1), ("test", 2)):
        features([Point(1, 1)], id=[id_]).to_file(tmp_path / "l.gpkg", layer=layer)
    with pytest.raises(LabelError, match=r"train, test.*--layer"):
        open_labels(tmp_path / "l.gpkg", make_scene())
    assert open_labels(tmp_path / "l.gpkg", make_scene(), layer="test").max() == 2
    with pytest.raises(LabelError, match="no layer 'x'"):
        open_labels(tmp_path / "l.gpkg", make_scene(), layer="x")


def test_features_without_crs_are_refused():
    with pytest.raises(LabelError, match="no coordinate reference system"):
        open_labels(features([Point(1, 1)], crs=None, id=[1]), make_scene())


@pytest.mark.parametrize(("transform", "crs"), [(None, None), (TRANSFORM, None)])
def test_a_scene_without_georeference_is_refused(transform: Affine | None, crs: str | None):
    with pytest.raises(LabelError, match="need a scene with georeference"):
        open_labels(features([Point(1, 1)], id=[1]), make_scene(transform, crs))


def test_vectors_need_a_scene():
    with pytest.raises(LabelError, match="need a scene"):
        open_labels(features([Point(1, 1)], id=[1]))


def test_features_elsewhere_are_refused_with_both_extents():
    with pytest.raises(
        LabelError, match=r"found features in x 391000 to 391010.*expected the scene's x 390000 to 390100"
    ):
        open_labels(features([box(100, 1, 101, 2)], id=[1]), make_scene())


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
@pytest.mark.parametrize("shape", [Point(1, 1), box(1, 1, 4, 3)], ids=["point", "polygon"])
def test_longitude_and_latitude_that_are_exchanged_are_recognised(tmp_path: Path, suffix: str, shape: Any):
    given = features([shape], id=[1]).to_crs("EPSG:4326")
    swapped = given.set_geometry(given.geometry.transform(lambda xy: xy[:, ::-1]))
    swapped.to_file(tmp_path / f"l{suffix}")
    with pytest.raises(LabelError, match=r"lies in the scene.*With x and y swapped they would lie in it"):
        open_labels(tmp_path / f"l{suffix}", make_scene())


def test_projected_coordinates_under_a_geographic_name_are_recognised(tmp_path: Path):
    with pytest.raises(LabelError, match="names the wrong CRS"):
        open_labels(features([Point(1, 1)], crs="EPSG:4326", id=[1]), make_scene())


def test_a_damaged_or_missing_file_is_refused(tmp_path: Path):
    (tmp_path / "l.gpkg").write_bytes(b"nothing")
    for name in ("l.gpkg", "missing.shp"):
        with pytest.raises(LabelError, match=name):
            open_labels(tmp_path / name, make_scene())


def test_without_geopandas_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "l.gpkg").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(MissingPackageError, match=r'pip install "spectralmamba\[vector\]"'):
        open_labels(tmp_path / "l.gpkg", make_scene())


def test_a_transform_and_its_inverse_cancel():
    points = np.array([[0.0, 0], [3, 4]])
    # Coordinates of 6·10⁶ m leave about 10⁻⁹ of double precision.
    np.testing.assert_allclose(apply_affine(~ROTATED, apply_affine(ROTATED, points)), points, atol=1e-6)


def test_the_potsdam_points_fall_into_the_scene_or_are_counted(shared_data: Path):
    folder = shared_data / "enmap_potsdam"
    scene = open_scene(folder / "enmap_potsdam_west.tif")
    labels = open_labels(folder / "landcover_potsdam_point.gpkg", scene, column="level_1")
    report = labels.attrs["report"]
    assert sorted(labels.attrs["class_names"].values()) == ["impervious", "soil", "vegetation", "water"]
    assert (labels > 0).sum() + report["outside_scene"] + report["on_nodata"] == 120
