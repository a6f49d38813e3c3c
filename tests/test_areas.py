from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from spectralmamba import assess, estimate_areas
from spectralmamba.areas import allocate, sample_size
from spectralmamba.errors import LabelError, OutputError, SpectralMambaError
from spectralmamba.scenes.pixel_areas import pixel_areas

# Olofsson et al. 2014, table 8: deforestation, forest gain, stable forest, stable non-forest; 30 m pixels.
COUNTS = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
PIXELS = [200_000, 150_000, 3_200_000, 6_450_000]
SHARES = [0.02, 0.015, 0.32, 0.645]
HECTARES = 0.09


# The published examples ----------------------------------------------------------------------------


def test_olofsson_s_accuracies_are_reproduced() -> None:
    found = estimate_areas(COUNTS, PIXELS)
    rounded = [[round(e.value, 2) for e in kind] for kind in (found.users_accuracy, found.producers_accuracy)]
    assert rounded == [[0.88, 0.73, 0.93, 0.96], [0.75, 0.85, 0.93, 0.96]]
    assert [round(e.half_width, 2) for e in found.users_accuracy] == [0.07, 0.10, 0.04, 0.02]
    assert round(found.producers_accuracy[0].half_width, 2) == 0.21
    assert round(found.producers_accuracy[2].half_width, 2) == 0.03
    assert (round(found.overall_accuracy.value, 2), round(found.overall_accuracy.half_width, 2)) == (0.95, 0.02)


def test_olofsson_s_areas_are_reproduced() -> None:
    found = estimate_areas(COUNTS, PIXELS)
    assert found.areas[0].value == pytest.approx(235_086, abs=0.5)
    hectares = estimate_areas(COUNTS, [pixels * HECTARES for pixels in PIXELS], unit="hectares").areas
    assert [round(e.value) for e in hectares] == [21_158, 11_686, 285_770, 581_386]
    # The article takes 1.96 standard errors, which makes its half widths larger by 2 in 100 000.
    widths = [1.96 * e.standard_error for e in hectares]
    assert [round(width) for width in widths] == [6_158, 3_756, 15_510, 16_282]
    assert [e.half_width for e in hectares] == pytest.approx(widths, rel=3e-5)


def test_olofsson_s_estimated_proportions_are_reproduced() -> None:
    found = estimate_areas(COUNTS, PIXELS).proportions
    assert found[0].round(4).tolist() == [0.0176, 0, 0.0013, 0.0011]
    assert found.sum(axis=1) == pytest.approx(SHARES)


def test_the_standard_errors_of_producer_s_accuracy_are_equation_7() -> None:
    """Olofsson et al. 2014, equation 7, written out."""
    n, areas = np.array(COUNTS, float), np.array(PIXELS, float)
    of_map, users = n.sum(axis=1), np.diag(n) / n.sum(axis=1)
    for j, found in enumerate(estimate_areas(COUNTS, PIXELS).producers_accuracy):
        total = (areas * n[:, j] / of_map).sum()
        producers = areas[j] * users[j] / total
        inside = areas[j] ** 2 * (1 - producers) ** 2 * users[j] * (1 - users[j]) / (of_map[j] - 1)
        share = n[:, j] / of_map
        outside = np.delete(areas**2 * share * (1 - share) / (of_map - 1), j).sum()
        assert found.value == pytest.approx(producers)
        assert found.standard_error == pytest.approx(math.sqrt(inside + producers**2 * outside) / total)


def test_the_example_of_olofsson_2013_is_reproduced() -> None:
    """Olofsson et al. 2013, Remote Sensing of Environment 129, table 4, in hectares; as the R package mapaccuracy has it."""
    found = estimate_areas([[97, 0, 3], [3, 279, 18], [2, 1, 97]], [22_353, 1_122_543, 610_228])
    assert [round(e.value, 2) for e in found.users_accuracy] == [0.97, 0.93, 0.97]
    assert [round(e.value, 2) for e in found.producers_accuracy] == [0.48, 0.99, 0.90]
    assert found.overall_accuracy.value == pytest.approx(0.944, abs=5e-4)


def test_stehman_s_example_of_other_strata_is_reproduced() -> None:
    """Stehman 2014, section 4; standard errors as the R package mapaccuracy computes them, with finite strata.

    Strata of 10 000 and more, sampled 10 times, make the correction for their size at most 5 in 10 000. The article is
    quoted with 0.114 for the standard error of producer's accuracy of class B, where mapaccuracy has 0.1165.
    """
    strata = "A" * 10 + "B" * 10 + "C" * 10 + "D" * 10
    mapped = "A" * 7 + "B" * 3 + "A" + "B" * 11 + "C" * 6 + "B" * 2 + "D" * 10
    reference = "AAAAACBABC" + "ABBBBBAABB" + "CCCCCDDBBA" + "DDDDDDDCCB"
    counts = np.zeros((4, 4, 4), int)
    for where in zip(strata, mapped, reference, strict=True):
        counts[tuple("ABCD".index(name) for name in where)] += 1
    found = estimate_areas(counts, [40_000, 30_000, 20_000, 10_000])
    estimates = (
        found.areas[0].times(1e-5),
        found.areas[2].times(1e-5),
        found.overall_accuracy,
        found.users_accuracy[1],
        found.producers_accuracy[1],
    )
    assert [e.value for e in estimates] == pytest.approx([0.35, 0.20, 0.63, 0.574468, 0.794118], abs=1e-6)
    errors = [0.0822478, 0.06427977, 0.08464219, 0.1247822, 0.1165479]
    assert [e.standard_error for e in estimates] == pytest.approx(errors, rel=5e-4)
    assert found.proportions[1, 2] == pytest.approx(0.08)


def test_the_published_sample_size_is_641() -> None:
    """Olofsson et al. 2014, section 5.1.1."""
    expected = [0.7, 0.6, 0.9, 0.95]
    assert sample_size(SHARES, expected, 0.01) == 641
    assert sample_size(PIXELS, expected, 0.01, units=10_000_000) == 641
    assert sample_size(SHARES, expected, 0.01, units=1_000) < 641


def test_the_published_allocations_are_met_but_for_rounding() -> None:
    """Olofsson et al. 2014, section 5.1.2: 100, 100, 149, 292 and 75, 75, 165, 325; by area alone 13, 10, 205, 413."""
    assert allocate(641, SHARES) == [13, 10, 205, 413]
    assert allocate(641, SHARES, minimum=100) == pytest.approx([100, 100, 149, 292], abs=3)
    assert allocate(641, SHARES, minimum=75) == pytest.approx([75, 75, 165, 325], abs=3)


# What always holds ---------------------------------------------------------------------------------


@given(
    st.integers(1, 5).flatmap(
        lambda k: st.tuples(
            st.lists(st.lists(st.integers(0, 30), min_size=k, max_size=k), min_size=k, max_size=k),
            st.lists(st.floats(1, 1e6), min_size=k, max_size=k),
        )
    )
)
@settings(deadline=None, max_examples=60)
def test_areas_sum_to_the_map_and_strata_of_map_classes_are_the_plain_case(example: tuple) -> None:
    counts, areas = np.array(example[0]) + 2 * np.eye(len(example[0]), dtype=int), example[1]
    found = estimate_areas(counts, areas)
    assert sum(e.value for e in found.areas) == pytest.approx(sum(areas))
    assert found.mapped == pytest.approx(areas)
    assert found.proportions.sum() == pytest.approx(1)
    per_stratum = np.zeros((len(counts), *counts.shape), int)
    for k, row in enumerate(counts):
        per_stratum[k, k] = row
    assert estimate_areas(per_stratum, areas).to_dict() == found.to_dict()
    json.dumps(found.to_dict(), allow_nan=False)


@given(st.integers(0, 500), st.lists(st.floats(1, 1e6), min_size=1, max_size=8), st.integers(0, 60))
@settings(deadline=None)
def test_an_allocation_sums_to_the_total_and_keeps_the_minimum(extra: int, areas: list[float], minimum: int) -> None:
    total = extra + minimum * len(areas)
    numbers = allocate(total, areas, minimum=minimum)
    assert sum(numbers) == total
    assert min(numbers) >= minimum


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    truth = np.array([[0.9, 0.1], [0.05, 0.95]])
    areas, generator = np.array([20.0, 80.0]), np.random.default_rng(0)
    area, accuracy, covered = float(areas @ truth[:, 0]), 0.2 * 0.9 + 0.8 * 0.95, np.zeros(2)
    for _ in range(400):
        found = estimate_areas([generator.multinomial(200, row) for row in truth], areas)
        estimates = (found.areas[0], found.overall_accuracy)
        covered += [abs(e.value - true) <= e.half_width for e, true in zip(estimates, (area, accuracy), strict=True)]
    assert covered / 400 == pytest.approx(0.95, abs=0.035)  # three standard errors of 400 draws


def test_a_class_that_is_not_mapped_has_an_area_but_no_user_s_accuracy() -> None:
    found = estimate_areas([[8, 2], [0, 0]], [100, 0], classes=[{"id": 3, "name": "corn"}, 7])
    assert found.areas[1].value == pytest.approx(20)
    assert found.users_accuracy[1].value is found.users_accuracy[1].interval is None
    assert found.producers_accuracy[1].value == 0
    assert found.classes[0]["name"] == "corn"


@pytest.mark.parametrize(
    ("counts", "areas", "message"),
    [
        ([[5, 5], [0, 0]], [60, 40], r"class 2 \(0\)"),
        ([[5, 5], [1, 0]], [60, 40], r"class 2 \(1\)"),
        ([[5, 5], [1, 4]], [60, 0], "without area; found class 2"),
        ([[5, 5], [1, 4]], [60], "do not fit"),
        ([[5, 5, 1], [1, 4, 1]], [60, 40], "do not fit"),
        ([[5, 5], [1, -4]], [60, 40], "counts"),
        ([[5, 5], [1, 4]], [60, -40], "out of range"),
        ([[5, 5], [1, 4]], [math.nan, 40], "out of range"),
        (5, [60], "do not fit"),
    ],
)
def test_samples_that_estimate_nothing_are_refused(counts: object, areas: list[float], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        estimate_areas(counts, areas)


def test_plans_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SpectralMambaError, match="planned"):
        sample_size([1, 2], [0.9], 0.01)
    with pytest.raises(SpectralMambaError, match="planned"):
        sample_size([1, 2], [0.9, 1.2], 0.01)
    with pytest.raises(SpectralMambaError, match="at least 50 each"):
        allocate(90, [1, 2], minimum=50)


# Pixels on the ground ------------------------------------------------------------------------------


@pytest.mark.parametrize("latitude", [0.0, 50.0, -80.0])
def test_pixels_in_degrees_have_their_area_on_the_ellipsoid(latitude: float) -> None:
    found = pixel_areas(from_origin(10, latitude, 0.05, 0.05), CRS.from_epsg(4326), 1)
    along = np.linspace(10, 10.05, 2000)  # parallels are no geodesics, so that the polygon follows them in many steps
    longitude = np.concatenate([along, along[::-1]])
    latitudes = np.repeat([latitude, latitude - 0.05], len(along))
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(longitude, latitudes)
    assert found[0] == pytest.approx(abs(area), rel=1e-9)


def test_all_pixels_of_the_world_are_its_surface() -> None:
    found = pixel_areas(from_origin(-180, 90, 0.5, 0.5), CRS.from_epsg(4326), 360)
    assert 720 * found.sum() == pytest.approx(5.10065622e14, rel=1e-8)  # m², Snyder 1987 by WGS 84's axes


def test_projected_pixels_are_metres_whatever_the_unit_and_rotation() -> None:
    assert pixel_areas(from_origin(0, 0, 30, 30), CRS.from_epsg(32632), 2).tolist() == [900, 900]
    feet = pixel_areas(from_origin(0, 0, 100, 100), CRS.from_epsg(2263), 1)[0]
    assert feet == pytest.approx((100 * 1200 / 3937) ** 2, rel=1e-9)
    assert pixel_areas(Affine.rotation(30) @ Affine.scale(30, -30), CRS.from_epsg(32632), 1)[0] == pytest.approx(900)
    with pytest.raises(LabelError, match="rotated map in degrees"):
        pixel_areas(Affine.rotation(30) @ Affine.scale(0.1, -0.1), CRS.from_epsg(4326), 1)


# From files ----------------------------------------------------------------------------------------

NAMES = {1: "wood", 2: "field"}
MAP = np.array([[1] * 6 + [2] * 6, [1] * 6 + [0] * 6, [2] * 12], np.uint8)
UTM, NORTH_UP = "EPSG:32632", from_origin(500_000, 5_000_000, 100, 100)  # a pixel is a hectare


def write_map(path: Path, ids: np.ndarray = MAP, **changes: object) -> Path:
    size = {"count": 1, "height": ids.shape[0], "width": ids.shape[1], "dtype": ids.dtype, "nodata": 0}
    names = changes.pop("names", NAMES)
    with rasterio.open(path, "w", driver="GTiff", **({"crs": UTM, "transform": NORTH_UP} | size | changes)) as file:
        file.write(ids, 1)
        if names:
            file.update_tags(CLASS_NAMES=json.dumps(names))
    return path


def write_table(path: Path, head: str, rows: list[tuple]) -> Path:
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


SAMPLES = [(0, 0, "Wood"), (1, 0, "wood"), (2, 0, "field"), (3, 1, "wood"), (6, 0, "field"), (7, 0, "field"), (0, 2, "wood"),
           (1, 2, "field")]  # fmt: skip
EXPECTED = [[3, 1], [1, 3]]


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write_table(tmp_path / "reference.csv", "column,row,class", SAMPLES)


def test_a_table_of_samples_gives_areas_in_hectares(tmp_path: Path, reference: Path) -> None:
    found = assess(write_map(tmp_path / "map.tif"), reference)
    assert found.estimates.counts.tolist() == EXPECTED
    assert found.estimates.unit == "hectares"
    assert found.estimates.mapped == pytest.approx([12, 18])
    assert found.estimates.areas[0].value == pytest.approx(12 * 3 / 4 + 18 / 4)
    assert [entry["name"] for entry in found.estimates.classes] == ["wood", "field"]
    assert any("random sample" in note for note in found.notes)
    assert any(UTM in note for note in found.notes)


def test_rasters_points_and_tables_are_the_same_sample(tmp_path: Path, reference: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    map_file = write_map(tmp_path / "map.tif")
    wanted = assess(map_file, reference).estimates.to_dict()
    x, y = (
        [NORTH_UP.c + 100 * (c + 0.5) for c, _, _ in SAMPLES],
        [NORTH_UP.f - 100 * (r + 0.5) for _, r, _ in SAMPLES],
    )
    classes = [name for _, _, name in SAMPLES]
    table = write_table(tmp_path / "xy.csv", "x,y,label", list(zip(x, y, classes, strict=True)))
    points = geopandas.GeoDataFrame(
        {"cover": [name.lower() for name in classes]}, geometry=geopandas.points_from_xy(x, y), crs=UTM
    )
    points.to_file(tmp_path / "points.gpkg")
    degrees = points.to_crs("EPSG:4326").geometry
    rows = list(zip(degrees.x, degrees.y, classes, strict=True))
    by_degrees = write_table(tmp_path / "degrees.csv", "longitude,latitude,class", rows)
    ids = np.zeros(MAP.shape, np.uint8)
    for column, row, name in SAMPLES:
        ids[row, column] = 1 if name.lower() == "wood" else 2
    raster = write_map(tmp_path / "reference.tif", ids, names=None)
    for other in (table, tmp_path / "points.gpkg", by_degrees, raster):
        assert assess(map_file, other).estimates.to_dict() == wanted, other.name


def test_samples_that_are_not_used_are_counted(tmp_path: Path) -> None:
    extra = [(9, 1, "wood"), (50, 0, "wood"), (8, 0, "wood"), (8, 0, "field"), (9, 0, "")]
    table = write_table(tmp_path / "t.csv", "column,row,class", SAMPLES + extra)
    found = assess(write_map(tmp_path / "map.tif"), table)
    assert found.estimates.counts.tolist() == EXPECTED
    assert found.left_out == {
        "outside_scene": 1,
        "without_class": 1,
        "conflicting_pixels": 1,
        "where_nothing_is_mapped": 1,
    }


def test_a_reference_class_that_the_map_lacks_is_an_error_of_the_map(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", "column,row,class", [*SAMPLES, (5, 2, "lake")])
    found = assess(write_map(tmp_path / "map.tif"), table).estimates
    assert found.classes[2]["name"] == "lake"
    assert found.counts.tolist() == [[3, 1, 0], [1, 3, 1], [0, 0, 0]]
    assert found.areas[2].value == pytest.approx(18 / 5)


def test_numbers_are_the_map_s_ids_and_a_map_without_crs_has_pixels(tmp_path: Path) -> None:
    rows = [(c, r, 1 if name.lower() == "wood" else 2) for c, r, name in SAMPLES]
    table = write_table(tmp_path / "t.csv", "column,row,class", rows)
    found = assess(write_map(tmp_path / "map.tif", crs=None, names=None), table)
    assert found.estimates.unit == "pixels"
    assert found.estimates.counts.tolist() == EXPECTED
    assert any("no CRS" in note for note in found.notes)


def test_a_map_in_degrees_says_how_its_pixels_are_measured(tmp_path: Path, reference: Path) -> None:
    degrees = {"crs": "EPSG:4326", "transform": from_origin(10, 60, 1, 1)}
    found = assess(write_map(tmp_path / "map.tif", **degrees), reference)
    assert any("row by row on the ellipsoid" in note for note in found.notes)
    assert any("larger than the smallest" in note for note in found.notes)
    of_rows = pixel_areas(degrees["transform"], CRS.from_epsg(4326), 3) / 10_000
    assert found.estimates.mapped == pytest.approx([6 * of_rows[0] + 6 * of_rows[1], 6 * of_rows[0] + 12 * of_rows[2]])


def test_the_result_is_kept_as_json_and_as_a_table(tmp_path: Path, reference: Path) -> None:
    found = assess(write_map(tmp_path / "map.tif"), reference)
    kept = json.loads(found.write(tmp_path / "areas.json").read_text())
    assert kept["per_class"][0]["area"]["interval"] == found.estimates.areas[0].interval
    assert kept["notes"] == found.notes
    with found.write(tmp_path / "areas.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["area_hectares"]) == found.estimates.areas[0].value
    assert rows[-1]["class"] == "overall accuracy"
    with pytest.raises(OutputError, match=r"\.json or \.csv"):
        found.write(tmp_path / "areas.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("column,row,class\n0,0,wood\n1,0,wood\n", r"field \(0\)"),
        ("a,b,class\n0,0,wood\n", "which columns"),
        ("column,row,cover\n0,0,wood\n", "which columns"),
        ("column,row,class\n", "empty"),
        ("column,row,class\nleft,0,wood\n", "no number"),
        ("column,row,class\n0,0,-3\n", "found -3"),
        ("column,row,class\n99,0,wood\n", "no labelled point"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(LabelError, match=message):
        assess(write_map(tmp_path / "map.tif"), tmp_path / "t.csv")


def test_what_does_not_fit_the_map_is_refused(tmp_path: Path, reference: Path) -> None:
    with pytest.raises(LabelError, match="the map does not"):
        assess(write_map(tmp_path / "nameless.tif", names=None), reference)
    with pytest.raises(LabelError, match="map is empty"):
        assess(write_map(tmp_path / "empty.tif", np.zeros_like(MAP)), reference)
    with pytest.raises(LabelError, match="neither variables nor layers"):
        assess(write_map(tmp_path / "map.tif"), reference, layer="points")
    with pytest.raises(LabelError, match="no such label file"):
        assess(tmp_path / "map.tif", tmp_path / "nowhere.csv")
    other = write_map(tmp_path / "other.tif", transform=from_origin(500_033, 5_000_000, 100, 100))
    with pytest.raises(LabelError, match="grid"):
        assess(tmp_path / "map.tif", other)
