from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectralmamba.errors import SceneError
from spectralmamba.scenes import good_values, open_scene, scene, statistics, valid_mask


@pytest.fixture
def opened(tmp_path):
    def open_cube(cube: np.ndarray):
        np.save(tmp_path / "scene.npy", cube)
        return open_scene(tmp_path / "scene.npy", band_axis=0)

    return open_cube


def test_bands_of_nodata_and_of_one_value_are_not_good(opened, cube):
    raw = cube.astype(float)
    raw[1] = np.nan
    raw[2] = 7.5
    raw[3, :3] = np.nan
    result = opened(raw)
    assert result["good"].values.tolist() == [True, False, False, True]
    assert result.attrs["bad_band_reasons"] == {2: "only nodata", 3: "one constant value, 7.5"}
    np.testing.assert_array_equal(valid_mask(result), np.isfinite(raw[3]))
    np.testing.assert_array_equal(good_values(result, slice(2, 5), slice(1, 3)), raw[[0, 3], 2:5, 1:3])


def test_a_band_that_varies_only_outside_the_valid_pixels_is_constant(opened, cube):
    raw = cube.astype(float)
    raw[1] = np.where(np.arange(5) < 2, raw[1], 3)
    raw[0, :, :2] = np.nan
    assert opened(raw).attrs["bad_band_reasons"] == {2: "one constant value, 3"}


def test_a_single_valid_pixel_makes_no_band_constant(opened, cube):
    raw = np.full(cube.shape, np.nan)
    raw[:, 3, 3] = 5
    result = opened(raw)
    assert result["good"].values.all()
    assert valid_mask(result).sum() == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_scene_without_any_finite_value_is_refused(opened, cube, value):
    with pytest.raises(SceneError, match=r"scene.npy: the scene holds no finite value; found nodata.*; expected measu"):
        opened(np.full(cube.shape, value))


def test_a_scene_of_one_constant_value_is_refused(opened, cube):
    with pytest.raises(
        SceneError, match=r"no band of the scene can be used; found 4 bad bands \(one constant value, 2"
    ):
        opened(np.full(cube.shape, 2))


def test_a_large_scene_is_judged_by_a_sample(opened, monkeypatch):
    monkeypatch.setattr(statistics, "SAMPLE_VALUES", 2000)
    raw = np.random.default_rng(0).normal(size=(5, 60, 70))
    raw[3] = 1
    result = opened(raw)
    assert result.attrs["bad_band_reasons"] == {4: "one constant value, 1 in an evenly spread sample"}
    assert result.attrs["statistics"]["exact"] is False
    assert result.attrs["statistics"]["values"] <= 2000


def test_the_few_valid_pixels_of_a_large_scene_are_found(opened, monkeypatch):
    monkeypatch.setattr(statistics, "SAMPLE_VALUES", 200)
    raw = np.full((5, 60, 70), np.nan)
    raw[:, 59, 68:] = np.arange(10).reshape(5, 2)
    assert opened(raw)["good"].values.all()
    with pytest.raises(SceneError, match="no finite value"):
        opened(np.full_like(raw, np.nan))


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 50), st.integers(1, 50)),
    block_shape=st.tuples(st.integers(1, 20), st.integers(1, 60)),
    budget=st.integers(30, 5000),
)
def test_sample_windows_never_overlap_and_keep_to_the_budget(shape, block_shape, budget):
    windows, exact = statistics.sample_windows(shape, block_shape, budget)
    times_covered = np.zeros(shape[1:], int)
    for window in windows:
        times_covered[window] += 1
    assert times_covered.max() == 1
    assert times_covered.sum() * shape[0] <= budget
    assert exact == (np.prod(shape) <= budget)
    assert not exact or times_covered.all()


@pytest.mark.parametrize("block_shape", [(1, 10_000), (512, 512)])
def test_sample_windows_reach_all_parts_of_a_wide_scene(block_shape):
    windows, _ = statistics.sample_windows((400, 9000, 10_000), block_shape)
    tops, lefts = ([window[axis].start for window in windows] for axis in (0, 1))
    assert min(tops) < 3000
    assert max(tops) > 6000
    assert min(lefts) < 3000
    assert max(lefts) > 6000


def test_the_valid_mask_is_found_by_blocks_of_rows(opened, cube, monkeypatch):
    raw = cube.astype(float)
    raw[2, 1::2, 3] = np.nan
    result = opened(raw)
    blocks = list(scene.row_blocks(result, values=50))
    assert blocks == [slice(0, 2), slice(2, 4), slice(4, 6)]
    monkeypatch.setattr(scene, "row_blocks", lambda _: blocks)
    np.testing.assert_array_equal(valid_mask(result), np.isfinite(raw).all(axis=0))
