from __future__ import annotations

import json
import math

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from scipy.spatial.distance import cdist

from spectralmamba.errors import LabelError, OutputError, SplitError
from spectralmamba.splits import Split, class_ids, split_disjoint, split_folds, split_masks, split_random

METHODS = ["blocks", "regions", "columns", "rows"]
ODD_PATCHES = st.sampled_from([1, 3, 5, 7])


@st.composite
def label_images(draw):
    """Fields of several classes with unlabelled gaps, ids not contiguous."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns, field = draw(st.integers(4, 7)), draw(st.integers(4, 7)), draw(st.integers(1, 6))
    ids = generator.choice([0, 2, 5, 9], (rows, columns))
    image = np.kron(ids, np.ones((field, field), int))
    image[generator.random(image.shape) < draw(st.floats(0, 0.5))] = 0
    assume(len(np.unique(image[image > 0])) >= 2)
    return image


@pytest.fixture
def fields():
    """Three classes in 4 × 6 fields of 8 × 8 pixels, a border of unlabelled pixels around each."""
    image = np.kron(np.random.default_rng(1).permutation(np.arange(24) % 3 + 1).reshape(4, 6), np.ones((8, 8), int))
    image[::8] = image[:, ::8] = 0
    return image


def chebyshev(first, second):
    return cdist(np.argwhere(first), np.argwhere(second), "chebyshev").min()


def try_split(function, *args, **kwargs):
    """A split, or nothing where the labels drawn cannot be divided; that is refused, and tested elsewhere."""
    try:
        return function(*args, **kwargs)
    except SplitError:
        assume(False)
        raise


@given(label_images(), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_random_split_uses_every_label_once_and_gives_each_class_its_number(image, per_class, seed):
    split = try_split(split_random, image, per_class=per_class, seed=seed)
    assert not (split.train & split.test).any()
    np.testing.assert_array_equal(split.train | split.test, image > 0)
    for class_id, count in zip(*np.unique(image[image > 0], return_counts=True), strict=True):
        expected = per_class if count >= 2 * per_class else max(count // 2, 1)
        assert (split.train & (image == class_id)).sum() == expected
        assert split.record["classes"][str(class_id)] == {"train": expected, "test": count - expected}


@given(label_images(), st.integers(2, 5), st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_folds_test_every_label_once_and_have_equal_shares_of_each_class(image, folds, deal):
    tested = np.zeros(image.shape, int)
    for seed in range(deal * folds, (deal + 1) * folds):
        split = try_split(split_folds, image, folds=folds, seed=seed)
        np.testing.assert_array_equal(split.train, (image > 0) & ~split.test)
        tested += split.test
        for class_id, count in zip(*np.unique(image[image > 0], return_counts=True), strict=True):
            assert count // folds <= (split.test & (image == class_id)).sum() <= -(-count // folds)
    np.testing.assert_array_equal(tested, image > 0)


def test_another_deal_of_folds_leaves_out_other_labels(fields):
    assert (split_folds(fields, folds=5, seed=0).test != split_folds(fields, folds=5, seed=5).test).any()
    assert split_folds(fields, folds=5, seed=7).record["parameters"] == {"folds": 5}


@pytest.mark.parametrize(
    ("image", "arguments", "message"),
    [
        ([[1, 1, 2, 2]], {"folds": 1}, "folds=1"),
        ([[1, 1, 2, 2]], {"folds": 5, "seed": 4}, "test side holds no labelled pixel.*fewer folds"),
    ],
)
def test_impossible_folds_are_refused(image, arguments, message):
    with pytest.raises(SplitError, match=message):
        split_folds(np.array(image), **arguments)


@given(label_images(), st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=30)
def test_fraction_leaves_every_class_with_two_labels_on_both_sides(image, fraction):
    split = try_split(split_random, image, fraction=fraction)
    for class_id, count in zip(*np.unique(image[image > 0], return_counts=True), strict=True):
        train = (split.train & (image == class_id)).sum()
        assert abs(train - fraction * count) <= 1
        assert 1 <= train <= max(count - 1, 1)


@given(label_images(), st.integers(0, 99), st.sampled_from(METHODS))
@settings(deadline=None, max_examples=40)
def test_same_seed_gives_the_same_split(image, seed, method):
    first, second = (try_split(split_disjoint, image, method=method, seed=seed, patch=3) for _ in range(2))
    np.testing.assert_array_equal(first.train, second.train)
    np.testing.assert_array_equal(first.test, second.test)
    assert first.record == second.record
    first, second = (try_split(split_random, image, per_class=2, seed=seed) for _ in range(2))
    np.testing.assert_array_equal(first.train, second.train)


def test_another_seed_gives_another_split(fields):
    for function in (
        lambda seed: split_random(fields, per_class=5, seed=seed),
        lambda s: split_disjoint(fields, seed=s),
    ):
        assert (function(0).train != function(1).train).any()


def test_adding_a_class_leaves_the_other_classes_draws_alone(fields):
    more = np.pad(fields, ((0, 0), (0, 8)))
    without = split_random(more, per_class=5, seed=3)
    more[:, -8:] = 7
    np.testing.assert_array_equal(split_random(more, per_class=5, seed=3).train[:, :-8], without.train[:, :-8])


def test_fewer_training_pixels_are_part_of_more(fields):
    few, many = (split_random(fields, per_class=n, seed=3).train for n in (5, 20))
    assert not (few & ~many).any()


def test_rare_class_gives_half_and_the_record_says_so(fields):
    fields[0, :3] = 8
    fields[0, 10] = 9
    split = split_random(fields, per_class=5)
    assert split.record["classes"]["8"] == {"train": 1, "test": 2}
    assert split.record["classes"]["9"] == {"train": 1, "test": 0}
    assert "class 8 has 3 labels: 1 for training, 2 for testing" in split.record["notes"]
    assert "class 9 has 1 label: 1 for training, none for testing" in split.record["notes"]
    assert split.training_side.all()


@given(label_images(), ODD_PATCHES, st.sampled_from(METHODS), st.integers(0, 9))
@settings(deadline=None, max_examples=100)
def test_default_buffer_lets_no_patch_see_the_other_side(image, patch, method, seed):
    split = try_split(split_disjoint, image, method=method, patch=patch, seed=seed)
    assert split.record["leaks"] == {"test_near_training": 0, "training_near_test": 0, "share_of_test": 0.0}
    assert chebyshev(split.train, split.test) > patch // 2
    assert chebyshev(split.training_side, split.test) > patch // 2
    assert not (split.train & ~split.training_side).any()
    assert not ((split.train | split.test) & (image == 0)).any()


@given(label_images(), st.sampled_from(METHODS))
@settings(deadline=None, max_examples=40)
def test_without_buffer_a_disjoint_split_keeps_every_label(image, method):
    split = try_split(split_disjoint, image, method=method, buffer=0)
    np.testing.assert_array_equal(split.train | split.test, image > 0)
    assert not (split.training_side & split.test).any()


def test_double_buffer_leaves_no_pixel_to_both_sides_patches(fields):
    split = split_disjoint(fields, method="columns", patch=5, buffer=4)
    assert chebyshev(split.train, split.test) > 4


@pytest.mark.parametrize("method", ["blocks", "regions"])
@pytest.mark.parametrize("seed", range(5))
def test_each_class_trains_and_tests_where_it_has_several_areas(fields, method, seed):
    split = split_disjoint(fields, method=method, patch=3, seed=seed)
    assert all(count["train"] and count["test"] for count in split.record["classes"].values())
    assert 0.35 < split.train.sum() / (fields > 0).sum() < 0.65  # a field is 4 % of the labels, a class has 8


def test_fields_stay_whole(fields):
    split = split_disjoint(fields, method="regions", buffer=0)
    for row in range(0, 32, 8):
        for column in range(0, 48, 8):
            field = np.s_[row + 1 : row + 8, column + 1 : column + 8]
            assert split.train[field].all() or split.test[field].all()


def test_diagonal_neighbours_are_one_field():
    image = np.zeros((6, 9), int)
    image[:3, :3], image[0, 6], image[4, 6] = np.eye(3), 2, 2
    split = split_disjoint(image, method="regions")
    assert split.record["classes"]["1"] == {"train": 3, "test": 0}


@pytest.mark.parametrize("method", ["blocks", "regions"])
def test_class_in_a_single_area_trains_and_is_reported_as_untested(fields, method):
    fields[:8, :8] = 0
    fields[3, 3] = 9
    split = split_disjoint(fields, method=method, block_size=8 if method == "blocks" else None)
    assert split.record["classes"]["9"] == {"train": 1, "test": 0}
    assert f"class 9 lies in a single {method[:-1]}, which trains" in split.record["notes"]
    assert "class 9 has no test pixels: it is learned but not tested" in split.record["notes"]


def test_columns_before_the_boundary_train_and_the_others_test():
    image = np.tile([[1, 2]], (3, 48))
    split = split_disjoint(image, method="columns", boundary=64, buffer=0, patch=3)
    assert split.train[:, :64].all()
    assert split.test[:, 64:].all()
    np.testing.assert_array_equal(split.training_side, split.train)
    assert split.record["leaks"]["test_near_training"] == 3
    assert split.record["distance"]["minimum"] == 1
    assert split.record["parameters"] == {"buffer": 0, "boundary": 64}


def test_rows_follow_the_share_of_the_height(fields):
    split = split_disjoint(fields, method="rows", train_fraction=0.25)
    assert split.training_side[:8].all()
    assert not split.training_side[8:].any()


def test_few_training_pixels_leave_the_disjoint_test_set_as_it_is(fields):
    whole, few = (split_disjoint(fields, per_class=n, patch=3) for n in (None, 4))
    np.testing.assert_array_equal(whole.test, few.test)
    np.testing.assert_array_equal(whole.training_side, few.training_side)
    assert [count["train"] for count in few.record["classes"].values()] == [4, 4, 4]
    assert not (few.train & ~whole.train).any()


def test_dropped_pixels_are_counted(fields):
    split = split_disjoint(fields, method="columns", patch=5)
    dropped = (fields > 0).sum() - split.train.sum() - split.test.sum()
    assert dropped == (fields[:, 24:26] > 0).sum()
    assert f"{dropped} test pixels within 2 pixels of the training area are left out" in split.record["notes"]


def test_class_without_training_pixels_stays_in_the_test_and_is_reported():
    image = np.tile([1, 2, 1, 2, 1, 3], (4, 1))
    split = split_disjoint(image, method="columns")
    assert split.record["classes"]["3"] == {"train": 0, "test": 4}
    assert "class 3 has no training pixels: its 4 test pixels will all be wrong" in split.record["notes"]


@given(label_images(), ODD_PATCHES, st.integers(1, 3), st.sampled_from(["random", "blocks"]))
@settings(deadline=None, max_examples=40)
def test_record_agrees_with_distances_measured_pair_by_pair(image, patch, per_class, method):
    if method == "random":
        split = try_split(split_random, image, per_class=per_class, patch=patch)
    else:
        split = try_split(split_disjoint, image, per_class=per_class, patch=patch, buffer=0)
    train, test = np.argwhere(split.train), np.argwhere(split.test)
    nearest, square = cdist(test, train).min(axis=1), cdist(test, train, "chebyshev")
    distance, leaks = split.record["distance"], split.record["leaks"]
    assert distance["minimum"] == pytest.approx(nearest.min())
    assert distance["median"] == pytest.approx(np.median(nearest))
    edges = [math.inf if edge is None else edge for edge in distance["bin_edges"]]
    assert distance["histogram"] == np.histogram(nearest, edges)[0].tolist()
    assert sum(distance["histogram"]) == split.record["test_pixels"] == len(test)
    assert split.record["train_pixels"] == len(train)
    assert leaks["test_near_training"] == (square.min(axis=1) <= patch // 2).sum()
    assert leaks["training_near_test"] == (square.min(axis=0) <= patch // 2).sum()
    assert leaks["share_of_test"] == leaks["test_near_training"] / len(test)
    assert json.loads(json.dumps(split.record, allow_nan=False)) == split.record


def test_larger_patch_counts_its_own_leaks(fields):
    split = split_disjoint(fields, method="columns", patch=3)
    larger = split.with_patch(7)
    assert split.record["leaks"]["test_near_training"] == 0
    assert larger.record["leaks"]["test_near_training"] > 0
    assert larger.record["patch"] == 7
    assert larger.record["distance"] == split.record["distance"]
    assert larger.with_patch(3).record == split.record


def test_masks_keep_only_labelled_pixels(fields):
    west = np.zeros(fields.shape, bool)
    west[:, :20] = True
    split = split_masks(west, ~west, labels=fields, patch=3)
    np.testing.assert_array_equal(split.train, west & (fields > 0))
    assert split.training_side.all()
    assert split.record["method"] == "masks"
    assert split.record["seed"] is None
    assert any("of the training mask have no label" in note for note in split.record["notes"])


def test_masks_of_class_ids_bring_their_classes(fields):
    train, test = fields.copy(), fields.copy()
    train[:, 20:], test[:, :20] = 0, 0
    assert split_masks(train, test).record["classes"] == split_masks(train, test, labels=fields).record["classes"]
    assert split_masks(train > 0, test > 0).record["classes"] == {}


def test_overlapping_masks_are_refused_with_the_count(fields):
    train, test = np.zeros(fields.shape, bool), np.zeros(fields.shape, bool)
    train[:, :5], test[:, 3:] = True, True
    with pytest.raises(SplitError, match="64 pixels in both"):
        split_masks(train, test, labels=fields)


def test_masks_of_another_shape_are_refused(fields):
    with pytest.raises(SplitError, match="differ in shape"):
        split_masks(fields[:, :-1] > 0, fields > 0)


def georeferenced(image, transform):
    labels = xr.DataArray(image.astype(np.int32), dims=("y", "x"))
    return labels.rio.write_crs("EPSG:32633").rio.write_transform(transform)


@given(image=label_images(), method=st.sampled_from(METHODS))
@settings(deadline=None, max_examples=10)
def test_saved_split_comes_back_whole(tmp_path_factory, image, method):
    split = try_split(split_disjoint, image, method=method, patch=3)
    path = tmp_path_factory.mktemp("split") / "split.tif"
    split.save(path, image)
    loaded, labels = Split.load(path)
    for name in ("train", "test", "training_side"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(split, name))
        assert getattr(loaded, name).dtype == bool
    np.testing.assert_array_equal(labels, image)
    assert labels.dtype == np.int32
    assert loaded.record == split.record
    assert loaded.summary() == split.summary()


@pytest.mark.parametrize("transform", [Affine(30, 0, 5e5, 0, -30, 6e6), Affine(20, 5, 5e5, 5, -20, 6e6)])
def test_saved_split_lies_where_the_labels_lie(tmp_path, fields, transform):
    labels = georeferenced(fields, transform)
    split_random(labels, per_class=5).save(tmp_path / "split.tif", labels)
    with rasterio.open(tmp_path / "split.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert file.transform.almost_equals(transform)
        assert file.dtypes == ("uint16",) * 3
        assert set(np.unique(file.read(1))) == {0, 1, 2}
        assert file.descriptions[1] == "reference class id"
        assert json.loads(file.tags()["SPLIT_RECORD"])["parameters"] == {"per_class": 5}


def test_failed_save_leaves_nothing(tmp_path, fields):
    split = split_random(fields, per_class=5)
    with pytest.raises(OutputError, match="folder does not exist"):
        split.save(tmp_path / "absent" / "split.tif", fields)
    with pytest.raises(SplitError, match="70000"):
        split.save(tmp_path / "split.tif", np.where(fields == 3, 70_000, fields))
    with pytest.raises(SplitError, match="differ in shape"):
        split.save(tmp_path / "split.tif", fields[:-1])
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_split_are_refused(tmp_path, fields):
    with pytest.raises(SplitError, match="cannot read the split"):
        Split.load(tmp_path / "absent.tif")
    path = tmp_path / "labels.tif"
    georeferenced(fields, Affine(30, 0, 5e5, 0, -30, 6e6)).rio.to_raster(path)
    with pytest.raises(SplitError, match="not a split"):
        Split.load(path)


def test_summary_tells_method_distance_and_leaks_in_words(fields):
    text = split_random(fields, per_class=5, patch=3).summary()
    assert "5 random pixels of each class, seed 0" in text
    assert "15 training and 1161 test pixels of 3 classes" in text
    assert "Leaks: " in text
    assert "3 × 3 patch" in text
    text = split_disjoint(fields, method="columns", patch=3).summary()
    assert "columns before 24 train" in text
    assert "Leaks: none" in text


def test_data_arrays_and_floats_with_nan_are_taken_like_integers(fields):
    wanted = split_random(fields, per_class=5).train
    as_float = np.where(fields == 0, np.nan, fields)
    for labels in (xr.DataArray(fields, dims=("y", "x")), as_float, fields.astype(np.uint8)):
        np.testing.assert_array_equal(split_random(labels, per_class=5).train, wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"per_class": 400}, "class 1: 392, class 2: 392, class 3: 392"),
        ({"per_class": 0}, "per_class=0"),
        ({"per_class": 2.5}, "per_class=2.5"),
        ({"fraction": 1.0}, "fraction=1.0"),
        ({"fraction": math.nan}, "fraction=nan"),
        ({}, "exactly one"),
        ({"per_class": 3, "fraction": 0.5}, "exactly one"),
        ({"per_class": 3, "patch": 4}, "odd number"),
        ({"per_class": 3, "seed": -1}, "seed=-1"),
    ],
)
def test_impossible_random_splits_are_refused(fields, arguments, message):
    with pytest.raises(SplitError, match=message):
        split_random(fields, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "stripes"}, "unknown method"),
        ({"method": "columns", "boundary": 48}, "1 to 47"),
        ({"method": "blocks", "boundary": 3}, "boundary belongs to"),
        ({"method": "rows", "block_size": 3}, "block_size belongs to"),
        ({"train_fraction": 0}, "train_fraction=0"),
        ({"buffer": -1}, "buffer=-1"),
        ({"method": "columns", "patch": 61}, "test side holds no labelled pixel.*Lower the buffer"),
    ],
)
def test_impossible_disjoint_splits_are_refused(fields, arguments, message):
    with pytest.raises(SplitError, match=message):
        split_disjoint(fields, **arguments)


def test_one_field_a_class_cannot_be_divided_by_regions_and_the_message_says_what_can():
    image = np.zeros((8, 8), int)
    image[:3], image[5:] = 1, 2
    with pytest.raises(SplitError, match=r"every class lies in a single region.*blocks, columns or rows"):
        split_disjoint(image, method="regions")
    with pytest.raises(SplitError, match=r"every class lies in a single block.*smaller blocks"):
        split_disjoint(image, block_size=8)


def test_a_single_class_in_training_is_refused():
    with pytest.raises(SplitError, match="class 1 alone"):
        split_disjoint(np.tile([1, 1, 2, 2], (4, 1)), method="columns")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 4), int), "no pixel is labelled"),
        (np.ones((4, 4), int), "all labels are of one class"),
        (np.array([[1, -1], [2, 1]]), "negative"),
        (np.array([[1, 1.5], [2, 1]]), "not whole numbers"),
        (np.array([1, 2, 1, 2]), "not an image"),
        (np.array([["a", "b"]]), "not numbers"),
    ],
)
def test_labels_that_cannot_be_divided_are_refused(labels, message):
    with pytest.raises(LabelError, match=message):
        split_random(labels, per_class=1)


def test_nan_is_unlabelled():
    np.testing.assert_array_equal(class_ids(np.array([np.nan, 3.0])), [0, 3])


# Fields --------------------------------------------------------------------------------------------


def drawn(image, numbers):
    """Labels that say which polygon each pixel is of."""
    return xr.DataArray(image, dims=("y", "x"), coords={"field": (("y", "x"), np.where(image > 0, numbers, 0))})


@st.composite
def drawn_labels(draw):
    """Labels whose pixels belong to a few polygons of one class each, apart or beside each other; numbers not contiguous."""
    image = draw(label_images())
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    numbers = np.zeros(image.shape, int)
    for class_id in np.unique(image[image > 0]):
        own = 10 * class_id + 3 * generator.integers(0, draw(st.integers(1, 5)), image.shape)
        numbers[image == class_id] = own[image == class_id]
    return drawn(image, numbers)


@given(drawn_labels(), ODD_PATCHES, st.integers(0, 9), st.sampled_from([None, 0, 1]))
@settings(deadline=None, max_examples=60)
def test_no_field_has_pixels_on_both_sides(labels, patch, seed, buffer):
    split = try_split(split_disjoint, labels, method="fields", patch=patch, seed=seed, buffer=buffer)
    fields = labels.coords["field"].values
    assert not set(fields[split.train]) & set(fields[split.test])
    assert not set(fields[split.training_side & (fields > 0)]) & set(fields[split.test])
    for class_id, count in split.record["fields"].items():
        own = labels.values == int(class_id)
        assert count["train"] == len(set(fields[split.train & own]))
        assert count["test"] == len(set(fields[split.test & own]))
    assert json.loads(json.dumps(split.record)) == split.record


def test_fields_beside_each_other_are_kept_whole_where_regions_would_be_one(fields):
    image = np.kron([[1, 2], [1, 2]], np.ones((6, 6), int))
    numbers = np.kron([[1, 2], [3, 4]], np.ones((6, 6), int))
    with pytest.raises(SplitError, match="single region"):
        split_disjoint(image, method="regions")
    split = split_disjoint(drawn(image, numbers), method="fields", buffer=0)
    assert split.record["method"] == "fields"
    assert split.record["fields"] == {"1": {"train": 1, "test": 1}, "2": {"train": 1, "test": 1}}
    assert "2 fields train and 2 test (class 1: 1 and 1, class 2: 1 and 1)" in split.summary()
    again = split_disjoint(image, method="fields", fields=numbers, buffer=0)
    np.testing.assert_array_equal(split.train, again.train)


def test_a_class_of_one_field_trains_and_is_said_to_be_untested(fields):
    numbers = np.kron(np.arange(1, 25).reshape(4, 6), np.ones((8, 8), int))
    fields[1:5, 1:5] = 9
    numbers[1:5, 1:5] = 99
    split = split_disjoint(drawn(fields, numbers), method="fields", buffer=0)
    assert split.record["fields"]["9"] == {"train": 1, "test": 0}
    assert "class 9 lies in a single field, which trains" in split.record["notes"]
    assert "class 9 has no test pixels: it is learned but not tested" in split.record["notes"]


def test_one_field_for_every_class_is_refused_with_what_can_be_done():
    image = np.kron([[1, 2]], np.ones((6, 6), int))
    with pytest.raises(SplitError, match=r"every class lies in a single field.*second polygon.*single parts"):
        split_disjoint(drawn(image, image), method="fields")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "fields"}, "do not say which pixels are one field.*regions"),
        ({"method": "fields", "fields": np.ones((3, 3), int)}, "differ in shape"),
        ({"method": "fields", "fields": np.zeros((32, 48), int)}, "of no field; found 1176"),
        ({"method": "regions", "fields": np.ones((32, 48), int)}, "belong to the method fields"),
    ],
)
def test_fields_that_cannot_be_are_refused(fields, arguments, said):
    with pytest.raises(SplitError, match=said):
        split_disjoint(fields, **arguments)


def test_a_random_split_says_how_many_polygons_are_on_both_sides(fields):
    numbers = np.kron(np.arange(1, 25).reshape(4, 6), np.ones((8, 8), int))
    note = split_random(drawn(fields, numbers), fraction=0.5).record["notes"][-1]
    assert note.startswith("pixels of one polygon train and test in 24 of 24 fields")
    alone = np.arange(1, fields.size + 1).reshape(fields.shape)
    assert split_random(drawn(fields, alone), fraction=0.5).record["notes"] == []
