from __future__ import annotations

import numpy as np
import pytest

from spectralmamba.errors import SceneError
from spectralmamba.scenes import open_scene


@pytest.mark.parametrize("band_axis", [None, 0, 1, 2])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["i1", "<i2", ">i2", "u2", "i4", "f2", "f4", ">f8", "u8"])
def test_every_type_order_and_band_axis(tmp_path, cube, band_axis, order, dtype):
    raw = np.asarray(np.moveaxis(cube, 0, 2 if band_axis is None else band_axis), dtype=dtype, order=order)
    np.save(tmp_path / "scene.npy", raw)
    np.testing.assert_array_equal(open_scene(tmp_path / "scene.npy", band_axis=band_axis).values, cube)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.ones((6, 5)), r"an array of shape \(6, 5\)"),
        (np.ones((6, 5, 4, 3)), r"an array of shape \(6, 5, 4, 3\)"),
        (np.ones((6, 5, 0)), r"an array of shape \(6, 5, 0\)"),
        (np.ones((2, 2, 2), complex), "complex values"),
        (np.ones((2, 2, 2), bool), "values of type bool"),
        (np.full((2, 2, 2), None), "values of type object"),
        (np.zeros((2, 2, 2), [("a", "f4")]), "values of type"),
    ],
)
def test_what_is_not_a_cube_of_real_numbers_is_refused(tmp_path, array, found):
    np.save(tmp_path / "scene.npy", array)
    with pytest.raises(SceneError, match=rf"scene.npy: .*; found {found}.*; expected"):
        open_scene(tmp_path / "scene.npy")


def test_a_file_that_is_longer_than_its_header_says_is_refused(tmp_path, cube):
    path = tmp_path / "scene.npy"
    np.save(path, cube)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(SceneError, match="found 372 bytes; expected 368 bytes"):
        open_scene(path)
