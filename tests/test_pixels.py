from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectralmamba import pixels as pixels_module
from spectralmamba.pixels import Pixels, as_input

MASKS = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(lambda shape: arrays(bool, shape))
AREA_OF = np.random.default_rng(0).random((7, 7)) < 0.7


def make_scene(valid: np.ndarray) -> xr.DataArray:
    """A scene (3, H, W) whose values are all different, NaN in one band where not valid."""
    values = np.arange(1, 3 * valid.size + 1, dtype=np.float32).reshape(3, *valid.shape)
    values[1][~valid] = np.nan
    return xr.DataArray(values, dims=("band", "y", "x"))


def make_pixels(valid: np.ndarray) -> Pixels:
    return Pixels.from_scene(make_scene(valid), np.arange(3))


@given(MASKS, st.sampled_from([1, 3, 5, 7]))
@hypothesis_settings(max_examples=80, deadline=None)
def test_a_missing_neighbour_is_replaced_by_the_centre(valid: np.ndarray, patch: int):
    scene, pixels = make_scene(valid).values, make_pixels(valid)
    positions = pixels.at(np.ones_like(valid))
    gathered = pixels.values[pixels.neighbourhoods(positions, patch)]  # (n, P², L)
    reach, (height, width) = patch // 2, valid.shape
    expected = []
    for row, column in np.argwhere(valid):
        for y in range(row - reach, row + reach + 1):
            for x in range(column - reach, column + reach + 1):
                there = 0 <= y < height and 0 <= x < width and valid[y, x]
                expected.append(scene[:, y, x] if there else scene[:, row, column])
    np.testing.assert_array_equal(gathered.numpy(), np.reshape(expected, (valid.sum(), patch * patch, 3)))


@given(MASKS)
@hypothesis_settings(max_examples=80, deadline=None)
def test_pairs_are_all_direct_neighbours_inside_the_area_once_each(valid: np.ndarray):
    pixels, area = make_pixels(valid), AREA_OF[: valid.shape[0], : valid.shape[1]]
    found = [
        tuple((int(pixels.rows[p]), int(pixels.columns[p])) for p in pair) for pair in pixels.neighbour_pairs(area)
    ]
    here = {tuple(map(int, place)) for place in np.argwhere(valid & area)}
    expected = {((y, x), other) for y, x in here for other in ((y, x + 1), (y + 1, x)) if other in here}
    assert len(found) == len(set(found))
    assert set(found) == expected
    whole = pixels.neighbour_pairs()
    assert torch.equal(whole, pixels.neighbour_pairs(np.ones_like(valid)))


def test_a_patch_keeps_rows_and_columns_where_they_were():
    scene = make_scene(np.ones((5, 5), bool))
    pixels = make_pixels(np.ones((5, 5), bool))
    centre = pixels.grid[2, 2].view(1)
    patch = as_input(pixels.values[pixels.neighbourhoods(centre, 3)])
    np.testing.assert_array_equal(patch[0].numpy(), scene.values[:, 1:4, 1:4])
    assert as_input(pixels.values[pixels.neighbourhoods(centre, 1)]).shape == (1, 3)


def test_networks_get_a_view_of_gathered_spectra_with_channels_last():
    pixels = make_pixels(np.ones((5, 5), bool))
    neighbourhoods = pixels.neighbourhoods(pixels.at(np.ones((5, 5), bool)), 3)
    spectra = pixels.gathered(neighbourhoods)
    assert torch.equal(spectra, pixels.values[neighbourhoods])
    taken = as_input(spectra)
    assert taken.shape == (25, 3, 3, 3)
    assert taken.data_ptr() == spectra.data_ptr()
    assert taken.is_contiguous(memory_format=torch.channels_last)


def test_only_valid_pixels_under_a_mask_are_found_row_by_row():
    valid = np.array([[True, False, True], [True, True, False]])
    mask = np.array([[True, True, False], [False, True, True]])
    pixels = make_pixels(valid)
    positions = pixels.at(mask)
    assert list(zip(pixels.rows[positions].tolist(), pixels.columns[positions].tolist(), strict=True)) == [
        (0, 0),
        (1, 1),
    ]
    assert len(pixels) == 4


@pytest.mark.parametrize("block", [1, 50, 100])
def test_reading_by_blocks_gives_what_reading_at_once_gives(
    small_scene: xr.DataArray, monkeypatch: pytest.MonkeyPatch, block: int
):
    bands = np.flatnonzero(small_scene["good"].values)
    whole = Pixels.from_scene(small_scene, bands)
    monkeypatch.setattr(pixels_module, "row_blocks", partial(pixels_module.row_blocks, values=block))
    in_blocks = Pixels.from_scene(small_scene, bands)
    assert in_blocks.checksum() == whole.checksum()
    assert torch.equal(in_blocks.grid, whole.grid)


def test_a_band_that_is_not_used_does_not_make_a_pixel_invalid():
    scene = make_scene(np.zeros((2, 2), bool))
    assert len(Pixels.from_scene(scene, np.array([0, 2]))) == 4
    assert len(Pixels.from_scene(scene, np.array([0, 1]))) == 0


def test_the_checksum_changes_with_any_value_place_or_shape():
    valid = np.array([[True, False, True], [True, True, False]])
    pixels = make_pixels(valid)
    seen = {pixels.checksum(), make_pixels(valid[::-1]).checksum(), make_pixels(valid[:, :2]).checksum()}
    for index in np.ndindex(*pixels.values.shape):
        values = pixels.values.clone()
        values[index] = torch.nextafter(values[index], torch.tensor(torch.inf))
        seen.add(pixels.with_values(values).checksum())
    assert len(seen) == 3 + pixels.values.numel()
    assert make_pixels(valid).checksum() == pixels.checksum()
    wider = np.pad(valid, ((0, 0), (0, 1)))
    assert Pixels(pixels.values, make_pixels(wider).grid, pixels.rows, pixels.columns).checksum() not in seen
