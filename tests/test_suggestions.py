"""Suggestions of what to label next, and the files that take them into the field and back."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine

from spectralmamba import Classifier, Settings, open_labels, open_scene, simulate_scene, split_random, suggest
from spectralmamba.errors import (
    ClassifierError,
    LabelError,
    MissingPackageError,
    OutputError,
    SceneError,
    SettingsError,
)
from spectralmamba.pixels import Pixels
from spectralmamba.scenes.writing import write_scene
from spectralmamba.suggestion_files import write_suggestions
from spectralmamba.suggestions import Suggestions
from spectralmamba.training.discriminant import discriminate
from spectralmamba.training.task import prepare

ROTATED = Affine(8, 6, 390_000, 6, -8, 5_820_000)
Scenes = tuple[xr.DataArray, xr.DataArray]


@pytest.fixture(scope="module")
def _fields() -> Scenes:
    return simulate_scene(rows=48, columns=48, bands=24, classes=5, seed=1)


@pytest.fixture
def scene(_fields: Scenes) -> xr.DataArray:
    """A scene of five classes, a corner of which is nodata."""
    return _fields[0].copy()


@pytest.fixture
def truth(_fields: Scenes) -> xr.DataArray:
    """The class of every pixel inside a field."""
    return _fields[1].copy()


@pytest.fixture
def labels(truth: xr.DataArray) -> xr.DataArray:
    """Two labels a class."""
    return only(truth, split_random(truth, per_class=2, seed=0).train)


def only(labels: xr.DataArray, mask: np.ndarray) -> xr.DataArray:
    return labels.copy(data=np.where(mask, labels.values, 0))


def positions(found: Suggestions) -> list[tuple[int, int]]:
    return list(zip(found.rows.tolist(), found.columns.tolist(), strict=True))


def mask_of(found: Suggestions, like: xr.DataArray) -> np.ndarray:
    mask = np.zeros(like.shape[-2:], bool)
    mask[found.rows, found.columns] = True
    return mask


def distances(found: Suggestions) -> np.ndarray:
    """Chebyshev distances of all pairs."""
    apart = np.maximum(*(abs(np.subtract.outer(index, index)) for index in (found.rows, found.columns)))
    return apart[np.triu_indices(len(found), 1)]


def accuracy(scene: xr.DataArray, truth: xr.DataArray, given: np.ndarray) -> float:
    """Accuracy of the discriminant of 7 × 7 means on the labels that it is not given."""
    pixels = Pixels.from_scene(scene, np.flatnonzero(scene["good"].values))
    task = prepare(pixels, only(truth, given), {0: None}, Settings())[0]
    others = pixels.at((truth.values > 0) & ~given)
    found = task.classes[discriminate(task, task.positions, task.targets, others, 7).argmax(1)]
    return float((found == truth.values[pixels.rows[others], pixels.columns[others]]).mean())


# Which pixels ------------------------------------------------------------------------------------


def test_suggestions_teach_more_than_random_pixels(scene: xr.DataArray, truth: xr.DataArray) -> None:
    count, asked, at_random = 10, [], []
    for seed in range(3):
        given = split_random(truth, per_class=2, seed=seed).train
        pool = (truth.values > 0) & ~given
        found = suggest(scene, only(truth, given), count=count, seed=seed, patch=7, area=pool)
        asked.append(accuracy(scene, truth, given | mask_of(found, truth)))
        for draw in range(4):
            random = np.random.default_rng(10 * seed + draw)
            drawn = np.zeros(truth.size, bool)
            drawn[random.choice(np.flatnonzero(pool), count, replace=False)] = True
            at_random.append(accuracy(scene, truth, given | drawn.reshape(truth.shape)))
    assert np.mean(asked) >= np.mean(at_random)


def test_without_labels_suggestions_cover_the_classes_better_than_chance(
    scene: xr.DataArray, truth: xr.DataArray
) -> None:
    pool = truth.values > 0
    random = np.random.default_rng(0)
    drawn = [len(np.unique(random.choice(truth.values[pool], 5, replace=False))) for _ in range(500)]
    covered = [
        len(np.unique(truth.values[mask_of(suggest(scene, count=5, seed=s, area=pool), truth)])) for s in range(4)
    ]
    assert np.mean(covered) > np.mean(drawn)


def test_suggestions_differ_and_are_neither_labelled_nor_nodata(
    scene: xr.DataArray, truth: xr.DataArray, labels: xr.DataArray
) -> None:
    found = suggest(scene, labels, count=40)
    assert len(set(positions(found))) == len(found) == 40
    assert not (labels.values[found.rows, found.columns] > 0).any()
    assert np.isfinite(scene.values[:, found.rows, found.columns]).all()
    assert set(found.likely_class.tolist()) <= set(np.unique(truth.values)) - {0}
    assert ((found.margin >= 0) & (found.margin <= 1)).all()
    assert found.guided_by == "labels"
    assert found.candidates == int(np.isfinite(scene.values).all(0).sum() - (labels.values > 0).sum())


def test_the_same_seed_gives_the_same_suggestions(scene: xr.DataArray, labels: xr.DataArray) -> None:
    first, again, other = (suggest(scene, labels, count=10, seed=seed) for seed in (0, 0, 1))
    assert positions(first) == positions(again)
    assert np.array_equal(first.margin, again.margin)
    assert positions(first) != positions(other)


def test_a_drawn_part_of_a_large_scene_is_looked_at(
    scene: xr.DataArray, labels: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectralmamba.suggestions._MOST_CANDIDATES", 50)
    first, again, other = (suggest(scene, labels, count=10, seed=seed) for seed in (0, 0, 1))
    assert first.candidates == 50
    assert positions(first) == positions(again)
    assert not set(positions(first)) & set(positions(other))


def test_squares_lie_apart_on_valid_unlabelled_pixels(scene: xr.DataArray, labels: xr.DataArray) -> None:
    found = suggest(scene, labels, count=30, width=3)
    assert len(found) == 30
    assert distances(found).min() >= 3
    free = np.isfinite(scene.values).all(0) & (labels.values == 0)
    for row, column in positions(found):
        assert free[row - 1 : row + 2, column - 1 : column + 2].sum() == 9


def test_where_no_more_squares_fit_there_are_fewer(scene: xr.DataArray) -> None:
    found = suggest(scene.isel(x=slice(30, 38), y=slice(20, 28)), count=30, width=3)
    assert found.candidates == 36
    assert 2 <= len(found) <= 4
    assert distances(found).min() >= 3


def test_suggestions_stay_in_the_area(scene: xr.DataArray, labels: xr.DataArray) -> None:
    road = np.zeros(labels.shape, bool)
    road[30] = True
    found = suggest(scene, labels, count=6, width=3, area=road)
    assert set(found.rows.tolist()) == {30}
    assert distances(found).min() >= 3


def test_a_classifier_guides_in_place_of_the_labels(
    small_scene: xr.DataArray, small_labels: xr.DataArray, classifier: Classifier
) -> None:
    given = only(small_labels, split_random(small_labels, per_class=4, patch=3).train)
    found = suggest(small_scene, given, count=6, classifier=classifier)
    assert found.guided_by == "classifier"
    assert not (given.values[found.rows, found.columns] > 0).any()
    probabilities = classifier.predict_proba(small_scene).values[:, found.rows, found.columns]
    assert np.array_equal(classifier.classes[probabilities.argmax(0)], found.likely_class)
    second, first = np.sort(probabilities, axis=0)[-2:]
    np.testing.assert_allclose(found.margin, first - second, atol=1e-6)  # float32
    assert len(suggest(small_scene, count=6, classifier=classifier)) == 6


def test_a_classifier_of_another_scene_is_refused(scene: xr.DataArray, classifier: Classifier) -> None:
    with pytest.raises(ClassifierError, match="another number of bands"):
        suggest(scene, count=5, classifier=classifier)


@pytest.mark.parametrize("classes", [0, 1])
def test_without_two_classes_the_spectra_alone_guide(
    classes: int, scene: xr.DataArray, truth: xr.DataArray, labels: xr.DataArray
) -> None:
    given = only(labels, labels.values == 1) if classes else None
    found = suggest(scene, given, count=8)
    assert found.guided_by == "spectra"
    assert np.isnan(found.margin).all()
    assert (found.likely_class == 0).all()
    assert given is None or not (given.values[found.rows, found.columns] > 0).any()


def test_one_label_a_class_is_enough(scene: xr.DataArray, truth: xr.DataArray) -> None:
    found = suggest(scene, only(truth, split_random(truth, per_class=1, seed=0).train), count=10)
    assert found.guided_by == "labels"
    assert len(found) == 10
    assert np.isfinite(found.margin).all()


@pytest.mark.parametrize("patch", [None, 7])
def test_a_scene_smaller_than_a_patch_can_be_asked(
    patch: int | None, scene: xr.DataArray, labels: xr.DataArray
) -> None:
    part: Any = {"x": slice(0, 30), "y": slice(20, 24)}
    for given in (None, labels.isel(**part)):
        assert len(suggest(scene.isel(**part), given, count=5, patch=patch)) == 5


def test_spectra_that_are_all_the_same_give_suggestions_all_the_same(scene: xr.DataArray) -> None:
    flat = scene.copy(data=np.ones(scene.shape, np.float32))
    assert len(set(positions(suggest(flat, count=7)))) == 7


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"count": 5000}, SettingsError, r"found \d+ valid pixels.*at least 5000.*--count"),
        ({"count": 0}, SettingsError, "count of 0"),
        ({"width": 2}, SettingsError, "no centre pixel; found 2"),
        ({"patch": 4}, SettingsError, "no centre pixel; found 4"),
        ({"seed": -1}, SettingsError, "seed"),
        ({"area": np.ones((3, 3), bool)}, LabelError, "the area and scene have different shapes"),
        ({"labels": xr.DataArray(np.ones((3, 3), int))}, LabelError, "labels and scene have different shapes"),
    ],
)
def test_what_cannot_be_is_refused(
    changes: dict[str, Any], error: type[Exception], said: str, scene: xr.DataArray
) -> None:
    options: dict[str, Any] = {"count": 5} | changes
    with pytest.raises(error, match=said):
        suggest(scene, **options)


def test_a_scene_of_nodata_is_refused(scene: xr.DataArray) -> None:
    with pytest.raises(SceneError, match="no pixel can be used"):
        suggest(scene.copy(data=np.full(scene.shape, np.nan, np.float32)), count=5)


# Files -------------------------------------------------------------------------------------------


def fill_in(path: Path, crops: dict[int, str | None]) -> None:
    """Write into the column `class` of a vector file, as a GIS does."""
    geopandas = pytest.importorskip("geopandas")
    features = geopandas.read_file(path)
    assert features["class"][features["suggestion"].notna()].isna().all()
    features["class"] = features["class"].astype(object)
    for number, crop in crops.items():
        features.loc[features["suggestion"] == number, "class"] = crop
    features.to_file(path)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("rotated", [False, True], ids=["upright", "rotated"])
def test_a_file_that_is_filled_in_labels_exactly_the_suggested_pixels(
    suffix: str, width: int, rotated: bool, tmp_path: Path, scene: xr.DataArray, labels: xr.DataArray
) -> None:
    if rotated:
        scene = scene.drop_vars(["x", "y"]).rio.write_transform(ROTATED)
    found = suggest(scene, labels, count=4, width=width)
    path = write_suggestions(found, scene, tmp_path / f"s{suffix}", class_names=labels.attrs["class_names"])
    fill_in(path, {1: "maize", 2: "beet", 4: "maize"})
    opened = open_labels(path, scene, column="class")
    expected = np.zeros(labels.shape, int)
    reach = width // 2
    for number, id_ in ((0, 2), (1, 1), (3, 2)):
        row, column = positions(found)[number]
        expected[row - reach : row + reach + 1, column - reach : column + reach + 1] = id_
    np.testing.assert_array_equal(opened, expected)
    assert opened.attrs["class_names"] == {1: "beet", 2: "maize"}
    assert opened.attrs["report"] == {
        **{"outside_scene": 0, "on_nodata": 0, "conflicting_pixels": 0},
        **{"too_small": 0, "without_class": 1, "without_geometry": 0},
    }


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
@pytest.mark.parametrize("width", [1, 3])
def test_with_labels_the_file_holds_all_labels(
    suffix: str, width: int, tmp_path: Path, scene: xr.DataArray, labels: xr.DataArray
) -> None:
    found = suggest(scene, labels, count=2, width=width)
    path = write_suggestions(found, scene, tmp_path / f"s{suffix}", labels=labels)
    fill_in(path, {1: "vineyard"})
    opened = open_labels(path, scene, column="class")
    ids = {name: id_ for id_, name in opened.attrs["class_names"].items()}
    for id_, name in labels.attrs["class_names"].items():
        assert np.array_equal(opened.values == ids.get(name, -1), labels.values == id_), name
    assert (opened.values == ids["vineyard"]).sum() == width**2
    assert opened.attrs["report"]["conflicting_pixels"] == 0
    assert opened.attrs["report"]["without_class"] == 1


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_features_say_what_was_found(suffix: str, tmp_path: Path, scene: xr.DataArray, labels: xr.DataArray) -> None:
    geopandas = pytest.importorskip("geopandas")
    found = suggest(scene, labels, count=5)
    names = {id_: f"crop {id_}" for id_ in range(2, 99)}  # class 1 has no name
    path = write_suggestions(found, scene, tmp_path / f"s{suffix}", class_names=names)
    features = geopandas.read_file(path)
    assert list(features.columns[:-1]) == ["suggestion", "class", "likely_class", "margin", "row", "column"]
    assert features.crs.to_epsg() == (4326 if suffix == ".geojson" else 32633)
    assert features["suggestion"].tolist() == [1, 2, 3, 4, 5]
    assert features["row"].tolist() == found.rows.tolist()
    assert features["column"].tolist() == found.columns.tolist()
    expected = [names.get(id_, f"class {id_}") for id_ in found.likely_class.tolist()]
    assert features["likely_class"].tolist() == expected
    np.testing.assert_allclose(features["margin"], found.margin, atol=5e-5)  # four digits
    unknown = geopandas.read_file(write_suggestions(suggest(scene, count=3), scene, path))
    assert unknown["likely_class"].isna().all()
    assert unknown["margin"].isna().all()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_nothing_filled_in_is_refused_as_labels_without_class(tmp_path: Path, scene: xr.DataArray) -> None:
    pytest.importorskip("geopandas")
    path = write_suggestions(suggest(scene, count=3), scene, tmp_path / "s.gpkg")
    with pytest.raises(LabelError, match='no feature has both a geometry and a class in "class"'):
        open_labels(path, scene, column="class")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("rotated", [False, True], ids=["upright", "rotated"])
def test_a_table_says_row_column_and_where_that_is(
    rotated: bool, tmp_path: Path, scene: xr.DataArray, labels: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "geopandas", None)
    if rotated:
        scene = scene.drop_vars(["x", "y"]).rio.write_transform(ROTATED)
    found = suggest(scene, labels, count=4)
    labels.attrs["class_names"] = {1: 'wheat, "winter"'}
    lines = read_csv(write_suggestions(found, scene, tmp_path / "s.csv", labels=labels))
    assert [(int(line["row"]), int(line["column"])) for line in lines[:4]] == positions(found)
    given = np.zeros(labels.shape, int)
    for line in lines[4:]:
        given[int(line["row"]), int(line["column"])] = 1 if "wheat" in line["class"] else int(line["class"][-1])
        assert line["suggestion"] == line["likely_class"] == line["margin"] == ""
    np.testing.assert_array_equal(given, labels)
    for line in lines:
        x, y = scene.rio.transform() * (int(line["column"]) + 0.5, int(line["row"]) + 0.5)
        assert (float(line["x"]), float(line["y"])) == pytest.approx((x, y), abs=1e-4)


@pytest.mark.parametrize("transform", [None, Affine(10, 0, 390_000, 0, -10, 5_820_000)])
def test_a_scene_without_crs_gets_a_table_but_no_geometries(
    transform: Affine | None, tmp_path: Path, scene: xr.DataArray
) -> None:
    bare = xr.DataArray(scene.values, dims=scene.dims, coords={name: scene[name] for name in ("band", "good")})
    if transform is not None:
        bare = bare.rio.write_transform(transform)
    found = suggest(bare, count=3)
    for name in ("s.gpkg", "s.geojson"):
        with pytest.raises(OutputError, match=r"georeference; found n.* CRS.*\.csv"):
            write_suggestions(found, bare, tmp_path / name)
    lines = read_csv(write_suggestions(found, bare, tmp_path / "s.csv"))
    assert [(int(line["row"]), int(line["column"])) for line in lines] == positions(found)
    assert ("x" in lines[0]) == (transform is not None)
    assert all(line["class"] == line["likely_class"] == line["margin"] == "" for line in lines)


def test_without_geopandas_the_extra_and_the_table_are_named(
    tmp_path: Path, scene: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(MissingPackageError, match=r'pip install "spectralmamba\[vector\]".*\.csv'):
        write_suggestions(suggest(scene, count=3), scene, tmp_path / "s.gpkg")


def test_what_cannot_be_written_is_said(tmp_path: Path, scene: xr.DataArray) -> None:
    pytest.importorskip("geopandas")
    found = suggest(scene, count=3)
    for name in ("s.shp", "s"):
        with pytest.raises(OutputError, match=r"expected \.gpkg, \.geojson or \.csv"):
            write_suggestions(found, scene, tmp_path / name)
    for suffix in (".gpkg", ".geojson", ".csv"):
        with pytest.raises(OutputError, match="folder does not exist"):
            write_suggestions(found, scene, tmp_path / "none" / f"s{suffix}")


def test_a_scene_from_a_file_is_asked_like_one_in_memory(tmp_path: Path, scene: xr.DataArray) -> None:
    opened = open_scene(write_scene(scene, tmp_path / "scene.tif", as_integer=False))
    assert positions(suggest(opened, count=6)) == positions(suggest(scene, count=6))
