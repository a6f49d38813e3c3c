"""Labels as people draw them: what a polygon or point labels, and which pixels are of one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from shapely.geometry import MultiPoint, MultiPolygon, Point, Polygon, box
from vector_example import COLUMNS, ROTATED, ROWS, TRANSFORM, features, make_scene

from spectralmamba.errors import LabelError
from spectralmamba.scenes.labels import open_labels
from spectralmamba.scenes.opening import open_scene
from spectralmamba.scenes.writing import write_labels
from spectralmamba.splits import split_random

PIXELS = [[box(column, row, column + 1, row + 1) for column in range(COLUMNS)] for row in range(ROWS)]
BOTH = pytest.mark.parametrize("transform", [TRANSFORM, ROTATED], ids=["upright", "rotated"])
# A pixel of another class, so that a polygon that labels nothing is no error; (0, 0) is nodata.
ANCHOR = Point(9.5, 7.5)


@st.composite
def polygons(draw: Any) -> Polygon:
    """A convex polygon that meets the scene, in pixels."""
    number = st.floats(-1, 11, allow_subnormal=False)
    corners = draw(st.lists(st.tuples(number, number), min_size=4, max_size=8, unique=True))
    hull = MultiPoint(corners).convex_hull.buffer(0.3)
    return hull if hull.intersects(box(0, 0, COLUMNS, ROWS)) else hull.union(box(1, 1, 4, 4)).convex_hull


def labelled(shape: Any, transform: Affine = TRANSFORM, **options: Any) -> np.ndarray:
    """Where a shape labels pixels, but for the pixel of the other class."""
    labels = open_labels(features([shape, ANCHOR], transform, id=[1, 2]), make_scene(transform), **options)
    return (labels.values == 1) | (
        (labels.values == 0) & (labels.attrs["report"]["conflicting_pixels"] > 0) & _ANCHOR_PIXEL
    )


_ANCHOR_PIXEL = np.zeros((ROWS, COLUMNS), bool)
_ANCHOR_PIXEL[7, 9] = True


@given(polygons(), st.floats(0.05, 2), st.sampled_from([TRANSFORM, ROTATED]))
@settings(deadline=None, max_examples=60)
def test_every_pixel_met_holds_those_whose_centre_is_held_and_these_the_shrunk_ones(
    shape: Polygon, shrink: float, transform: Affine
):
    met = labelled(shape, transform, all_touched=True)
    held = labelled(shape, transform)
    shrunk = labelled(shape, transform, shrink=shrink)
    assert not (held & ~met).any()
    assert not (shrunk & ~held).any()
    np.testing.assert_array_equal(labelled(shape, transform, shrink=0), held)


@given(polygons(), st.sampled_from([TRANSFORM, ROTATED]))
@settings(deadline=None, max_examples=60)
def test_all_touched_labels_the_pixels_that_the_polygon_overlaps(shape: Polygon, transform: Affine):
    met = labelled(shape, transform, all_touched=True)
    for row, column in np.ndindex(ROWS, COLUMNS):
        if (row, column) == (0, 0):
            continue
        overlap = shape.intersection(PIXELS[row][column]).area
        if overlap > 1e-4:  # coordinates of 6·10⁶ m are true to about 10⁻⁹ pixels
            assert met[row, column], (row, column, overlap)
        elif not shape.buffer(1e-6).intersects(PIXELS[row][column]):
            assert not met[row, column], (row, column)


@BOTH
def test_shrinking_takes_the_width_off_every_side(transform: Affine):
    given_ = features([box(1, 1, 7, 6), Point(9.5, 0.5)], transform, id=[1, 2])
    labels = open_labels(given_, make_scene(transform), shrink=1)
    expected = np.zeros((ROWS, COLUMNS), int)
    expected[2:5, 2:6], expected[0, 9] = 1, 2
    np.testing.assert_array_equal(labels, expected)


def test_polygons_of_which_nothing_is_left_are_counted():
    given_ = features([box(1, 1, 2.5, 6), box(5, 1, 9, 6), box(30, 1, 31, 2)], id=[1, 2, 1])
    report = open_labels(given_, make_scene(), shrink=0.8).attrs["report"]
    assert (report["shrunk_away"], report["outside_scene"], report["too_small"]) == (1, 1, 0)
    with pytest.raises(LabelError, match=r"no labelled pixel is left; found .*shrunk_away 2"):
        open_labels(given_, make_scene(), shrink=3)


def test_a_bow_tie_keeps_both_halves_when_it_shrinks():
    tie = Polygon([(0.5, 1), (9.5, 7), (9.5, 1), (0.5, 7)])
    found = labelled(tie, shrink=0.2)
    assert found[:, 0:4].any()
    assert found[:, 6:].any()


@given(st.floats(0, COLUMNS - 1e-6), st.floats(0, ROWS - 1e-6), st.floats(0, 4), st.sampled_from([TRANSFORM, ROTATED]))
@settings(deadline=None, max_examples=60)
def test_a_wide_point_labels_its_pixel_and_those_whose_centre_is_near(
    x: float, y: float, radius: float, transform: Affine
):
    shape = Point(x, y)
    met = labelled(shape, transform, point_radius=radius)
    for row, column in np.ndindex(ROWS, COLUMNS):
        distance = np.hypot(column + 0.5 - x, row + 0.5 - y)
        inner = abs(x - round(x)) > 1e-6 and abs(y - round(y)) > 1e-6
        if (row, column) == (0, 0) or abs(distance - radius) < 1e-6 or not inner or (row, column) == (7, 9):
            continue
        own = (int(y), int(x)) == (row, column)
        # The other class's point is as wide and takes pixels away.
        if np.hypot(column + 0.5 - 9.5, row + 0.5 - 7.5) > radius:
            assert met[row, column] == (distance <= radius or own)


def test_a_radius_of_0_is_the_one_pixel_and_a_point_outside_labels_nothing():
    given_ = features([Point(4.9, 3.2), Point(-0.2, 3.5)], id=[1, 1])
    labels = open_labels(given_, make_scene(), point_radius=0)
    assert np.argwhere(labels.values).tolist() == [[3, 4]]
    wide = open_labels(given_, make_scene(), point_radius=1)
    assert wide.attrs["report"]["outside_scene"] == 1
    assert not wide.values[:, 0].any()


@pytest.mark.parametrize("options", [{"shrink": -1}, {"point_radius": float("nan")}, {"shrink": float("inf")}])
def test_lengths_that_are_none_are_refused(options: dict[str, Any]):
    with pytest.raises(LabelError, match="is a length in pixels"):
        open_labels(features([Point(1, 1)], id=[1]), make_scene(), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"all_touched": True}, "--all-touched"),
        ({"shrink": 1.0}, "--shrink"),
        ({"point_radius": 1.0}, "--point-radius"),
    ],
)
def test_a_raster_has_nothing_to_burn(tmp_path: Path, options: dict[str, Any], said: str):
    np.save(tmp_path / "l.npy", np.ones((ROWS, COLUMNS), int))
    with pytest.raises(LabelError, match=f"neither polygons nor points; found {said}"):
        open_labels(tmp_path / "l.npy", make_scene(), **options)


# Fields ------------------------------------------------------------------------------------------


def test_each_polygon_and_each_point_is_a_field_and_the_parts_of_one_belong_together():
    shapes = [
        MultiPolygon([box(1, 1, 2, 2), box(6, 1, 7, 2)]),
        box(1, 4, 3, 5),
        MultiPoint([(4.5, 6.5), (8.5, 6.5)]),
        box(3.6, 3.6, 3.9, 4.4),
    ]
    labels = open_labels(features(shapes, id=[1, 1, 2, 1]), make_scene())
    fields = labels.coords["field"]
    assert fields.dims == ("y", "x")
    assert fields.dtype == np.int32
    assert fields.values[1, 1] == fields.values[1, 6]
    assert fields.values[4, 1] == fields.values[4, 2]
    assert len(set(fields.values[[1, 4, 6, 6], [1, 1, 4, 8]])) == 4
    np.testing.assert_array_equal(np.unique(fields.values), np.arange(5))
    np.testing.assert_array_equal(fields.values > 0, labels.values > 0)


def test_polygons_of_one_class_that_share_pixels_are_one_field_but_neighbours_are_not():
    chain = [box(1, 1, 4, 3), box(3, 1, 6, 3), box(5, 1, 8, 3)]
    labels = open_labels(features([*chain, box(1, 3, 4, 5), box(1, 6, 3, 7)], id=[1, 1, 1, 1, 2]), make_scene())
    fields = labels.coords["field"].values
    assert len(np.unique(fields[1:3, 1:8])) == 1
    assert fields[3, 1] != fields[1, 1]


def test_polygons_that_share_only_pixels_of_two_classes_stay_apart():
    shapes = [box(1, 1, 4, 3), box(3, 1, 6, 3), box(3, 1, 4, 3)]
    labels = open_labels(features(shapes, id=[1, 1, 2]), make_scene(), merge={"one": [1]})
    assert labels.attrs["report"]["conflicting_pixels"] == 2
    assert labels.coords["field"].values[1, 1] != labels.coords["field"].values[1, 5]


@given(st.lists(st.tuples(polygons(), st.integers(1, 2)), min_size=2, max_size=6), st.booleans())
@settings(deadline=None, max_examples=40)
def test_no_polygon_has_pixels_of_two_fields(drawn: list[tuple[Polygon, int]], all_touched: bool):
    shapes, ids = [shape for shape, _ in drawn], [id_ for _, id_ in drawn]
    try:
        labels = open_labels(features(shapes, id=ids), make_scene(), all_touched=all_touched)
    except LabelError:  # all pixels are of two classes
        return
    fields = labels.coords["field"].values
    for shape, id_ in drawn:
        alone = open_labels(features([shape, ANCHOR], id=[id_, 3]), make_scene(), all_touched=all_touched)
        own = fields[(alone.values == id_) & (labels.values == id_)]
        assert len(np.unique(own)) <= 1


def test_rasters_have_no_fields_and_labels_with_fields_are_written_like_others(tmp_path: Path):
    labels = open_labels(features([box(1, 1, 4, 3), Point(7, 7)], id=[1, 2]), make_scene())
    again = open_labels(write_labels(labels, tmp_path / "l.tif"), make_scene())
    np.testing.assert_array_equal(again.values, labels.values)
    assert "field" not in again.coords


def test_how_labels_were_opened_is_kept():
    given_ = features([box(1, 1, 4, 3), Point(7, 7)], crop=["a", "b"])
    assert open_labels(given_, make_scene()).attrs["opened_with"] == {}
    options = {"column": "crop", "all_touched": True, "shrink": 0.1, "point_radius": 1.0, "merge": {"c": ["a", "b"]}}
    assert open_labels(given_, make_scene(), **options).attrs["opened_with"] == options


def test_wide_points_of_the_potsdam_scene_are_discs(shared_data: Path):
    folder = shared_data / "enmap_potsdam"
    scene = open_scene(folder / "enmap_potsdam_west.tif")
    file = folder / "landcover_potsdam_point.gpkg"
    one = open_labels(file, scene, column="level_1")
    wide = open_labels(file, scene, column="level_1", point_radius=1.5)
    assert one.attrs["report"]["outside_scene"] == wide.attrs["report"]["outside_scene"] > 0
    shared = (one.values > 0) & (wide.values > 0)
    np.testing.assert_array_equal(one.values[shared], wide.values[shared])
    assert 5 * (one.values > 0).sum() < (wide.values > 0).sum() + 9 * wide.attrs["report"]["conflicting_pixels"]
    split = split_random(wide, per_class=5)
    assert any("flatters the scores" in note for note in split.record["notes"])
