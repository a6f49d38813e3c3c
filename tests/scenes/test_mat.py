from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from spectralmamba.errors import MissingPackageError, SceneError
from spectralmamba.scenes import has_georeference, open_scene


def save(path: Path, version: str, **variables: np.ndarray) -> Path:
    if version == "5":
        scipy.io.savemat(path, variables, do_compression=True)
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            options = {"chunks": True, "compression": "gzip"} if value.ndim == 3 else {}
            file.create_dataset(name, data=value.transpose(), **options)
    return path


both_versions = pytest.mark.parametrize("version", ["5", "7.3"])


@both_versions
@pytest.mark.parametrize("band_axis", [None, 0, 1, 2])
def test_band_axis_decides_and_the_last_is_the_habit(tmp_path, cube, version, band_axis):
    stored = np.moveaxis(cube, 0, 2 if band_axis is None else band_axis)
    scene = open_scene(save(tmp_path / "scene.mat", version, cube=stored), band_axis=band_axis)
    np.testing.assert_array_equal(scene.values, cube)
    np.testing.assert_array_equal(scene.isel(band=[0, 2], y=slice(2, 3)).values, cube[[0, 2], 2:3])
    assert scene.rio.crs is None
    assert not has_georeference(scene)
    assert "x" not in scene.coords


@both_versions
def test_the_only_cube_is_taken_and_of_several_one_must_be_named(tmp_path, cube, version):
    mask = np.ones((6, 5), np.uint8)
    path = save(tmp_path / "scene.mat", version, mask=mask, first=cube.transpose(1, 2, 0))
    np.testing.assert_array_equal(open_scene(path).values, cube)
    second = 2.5 * cube.transpose(1, 2, 0)
    path = save(tmp_path / "scene.mat", version, mask=mask, first=cube.transpose(1, 2, 0), second=second)
    with pytest.raises(
        SceneError, match=r"scene.mat: holds several cubes; found .*first \(6 × 5 × 4 int16\)"
    ) as caught:
        open_scene(path)
    assert "second (6 × 5 × 4 double)" in str(caught.value)
    assert "--variable" in str(caught.value)
    np.testing.assert_array_equal(open_scene(path, variable="second").values, 2.5 * cube)
    with pytest.raises(SceneError, match=r"has no variable 'third'; found .*first \(6"):
        open_scene(path, variable="third")
    with pytest.raises(SceneError, match=r"found mask \(6 × 5 uint8\); expected a numeric array with three axes"):
        open_scene(path, variable="mask")


@both_versions
def test_two_dimensional_arrays_and_empty_files_are_refused(tmp_path, version):
    path = save(tmp_path / "scene.mat", version, spectra=np.ones((30, 4)))
    with pytest.raises(SceneError, match=r"found spectra \(30 × 4 double\); expected a numeric array with three axes"):
        open_scene(path)
    with pytest.raises(SceneError, match=r"scene.mat"):
        open_scene(save(tmp_path / "scene.mat", version))


def test_structs_cells_and_complex_cubes_are_refused(tmp_path, cube):
    path = tmp_path / "scene.mat"
    cell = np.empty((2, 2, 2), object)
    cell[:] = [[["x"] * 2] * 2] * 2
    scipy.io.savemat(path, {"struct": {"cube": cube}, "cell": cell})
    with pytest.raises(SceneError, match=r"found struct \(1 × 1 struct\), cell \(2 × 2 × 2 cell\); expected a numeric"):
        open_scene(path)
    scipy.io.savemat(path, {"cube": cube * 1j})
    with pytest.raises(SceneError, match=r"scene.mat: these values are not .*; found complex values; expected integer"):
        open_scene(path)


def test_object_references_and_complex_values_of_version_73_are_refused(tmp_path, cube):
    path = tmp_path / "scene.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_group("#refs#")["a"] = cube
        references = file.create_dataset("cells", (2, 2, 2), dtype=h5py.ref_dtype)
        references[:] = file["#refs#/a"].ref
        file["complex"] = np.zeros((2, 2, 2), [("real", "f8"), ("imag", "f8")])
        file.create_group("structure")
    with pytest.raises(SceneError) as caught:
        open_scene(path)
    for part in (
        "cells (2 × 2 × 2 array of object references)",
        "complex (2 × 2 × 2 complex array)",
        "structure (struct)",
    ):
        assert part in str(caught.value)


def test_without_h5py_the_command_that_installs_it_is_given(tmp_path, cube, monkeypatch):
    path = save(tmp_path / "scene.mat", "7.3", cube=cube)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match=r'scene.mat.*pip install "spectralmamba\[hdf5\]"'):
        open_scene(path)


def test_a_file_of_version_4_is_refused(tmp_path):
    scipy.io.savemat(tmp_path / "scene.mat", {"a": np.ones((30, 40))}, format="4")
    with pytest.raises(SceneError, match="version 4 cannot hold a cube"):
        open_scene(tmp_path / "scene.mat")


def test_salinas_a_opens_as_it_is_stored(shared_data):
    path = shared_data / "salinas_a" / "salinasA.mat"
    scene = open_scene(path)
    assert scene.shape == (224, 83, 86)
    np.testing.assert_array_equal(scene.values, scipy.io.loadmat(path)["salinasA"].transpose(2, 0, 1))
