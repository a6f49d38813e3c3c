"""What holds for scenes of every format."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from spectralmamba.errors import SceneError
from spectralmamba.scenes import open_scene
from spectralmamba.scenes.sources import FileSource

FORMATS = ("mat", "mat73", "envi", "tif", "npy")


@pytest.fixture(params=FORMATS)
def any_file(request, tmp_path, cube, write_tiff, write_envi) -> Path:
    """The same cube in every format; of ENVI the data file."""
    rows_columns_bands = cube.transpose(1, 2, 0)
    path = tmp_path / f"scene.{request.param}"
    match request.param:
        case "mat":
            path = tmp_path / "scene.mat"
            scipy.io.savemat(path, {"cube": rows_columns_bands}, do_compression=True)
        case "mat73":
            path = tmp_path / "scene.mat"
            write_mat73(path, cube=rows_columns_bands)
        case "envi":
            path = write_envi(cube).with_suffix(".img")
        case "tif":
            path = write_tiff(cube)
        case "npy":
            np.save(path, rows_columns_bands)
    return path


def write_mat73(path: Path, **variables: np.ndarray) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            file.create_dataset(name, data=value.transpose())
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def test_every_format_gives_the_same_values(any_file, cube):
    scene = open_scene(any_file)
    assert scene.dims == ("band", "y", "x")
    assert scene.dtype == np.float32
    np.testing.assert_array_equal(scene.values, cube.astype(np.float32))
    assert scene["band"].values.tolist() == [1, 2, 3, 4]
    assert set(scene.coords) >= {"band", "wavelength", "fwhm", "good"}
    assert scene["good"].values.all()
    assert scene.attrs["source"] == str(any_file)
    assert scene.attrs["raw_dtype"] == "int16"


@pytest.mark.parametrize(
    "window",
    [
        {"y": slice(2, 5), "x": slice(1, 3)},
        {"y": slice(None, None, -2), "x": [4, 0, 0]},
        {"band": [3, 0], "y": 2},
        {"band": 1, "y": 0, "x": -1},
        {"y": slice(0, 0)},
        {"band": slice(None, None, 2), "x": slice(4, None)},
    ],
)
def test_a_window_of_every_format_equals_the_window_of_the_cube(any_file, cube, window):
    key = tuple(window.get(dim, slice(None)) for dim in ("band", "y", "x"))
    expected = cube
    for axis in (2, 1, 0):
        expected = expected[(slice(None),) * axis + (key[axis],)]
    np.testing.assert_array_equal(open_scene(any_file).isel(window).values, expected)


def test_copies_and_pickled_scenes_hold_the_same_values(any_file, cube):
    scene = open_scene(any_file)
    scene.isel(y=0).load()
    for twin in (pickle.loads(pickle.dumps(scene)), copy.deepcopy(scene), scene.copy(), scene.copy(deep=True)):
        np.testing.assert_array_equal(twin.values, cube)
        assert twin.rio.crs == scene.rio.crs


def test_a_file_cut_at_every_sixteenth_of_its_length_is_refused(any_file):
    whole = any_file.read_bytes()
    for sixteenth in range(16):
        length = len(whole) * sixteenth // 16
        any_file.write_bytes(whole[:length])
        with pytest.raises(SceneError, match=any_file.name) as caught:
            open_scene(any_file).load()
        assert caught.value.found
        assert caught.value.expected


@pytest.mark.parametrize("bands", [1, 2000])
def test_scenes_of_one_and_of_two_thousand_bands_open(bands, tmp_path, write_envi, write_tiff):
    cube = np.random.default_rng(0).integers(1, 999, (bands, 3, 2)).astype(np.int16)
    np.save(tmp_path / "scene.npy", cube)
    for path, options in ((write_envi(cube), {}), (write_tiff(cube), {}), (tmp_path / "scene.npy", {"band_axis": 0})):
        np.testing.assert_array_equal(open_scene(path, **options).values, cube)


def message(path: Path | str, **options: object) -> str:
    with pytest.raises(SceneError) as caught:
        open_scene(path, **options)  # type: ignore[arg-type]
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file_is_named_with_what_resembles_it(tmp_path, write_tiff, cube):
    write_tiff(cube)
    assert "Did you mean scene.tif?" in message(tmp_path / "scnee.tif")
    assert "no folder" in message(tmp_path / "nowhere" / "scene.tif")


def test_a_folder_an_empty_file_and_an_unknown_format_are_refused(tmp_path):
    assert "found a folder" in message(tmp_path)
    (tmp_path / "empty.tif").touch()
    assert "0 bytes" in message(tmp_path / "empty.tif")
    (tmp_path / "scene.nc").write_bytes(b"CDF\1 whatever follows")
    assert "found the first bytes" in message(tmp_path / "scene.nc")


@pytest.mark.parametrize("path", ["/vsimem/scene.tif", "/vsicurl/http://x/y.tif", "https://x/y.tif", "zip://a.zip!b"])
def test_network_and_virtual_paths_are_refused(path):
    assert "a network or virtual path" in message(path)


def test_only_the_drivers_of_known_formats_are_used(tmp_path):
    path = tmp_path / "scene.vrt"
    path.write_text("<VRTDataset rasterXSize='2' rasterYSize='2'></VRTDataset>")
    assert "unknown format" in message(path)


def test_options_without_meaning_are_refused(write_tiff, cube, tmp_path):
    assert "--variable" in message(write_tiff(cube), variable="cube")
    assert "--band-axis" in message(write_tiff(cube), band_axis=0)
    np.save(tmp_path / "scene.npy", cube)
    assert "0, 1 or 2" in message(tmp_path / "scene.npy", band_axis=3)


def test_a_file_is_told_by_its_content_rather_than_its_suffix(write_tiff, cube):
    path = write_tiff(cube)
    renamed = path.rename(path.with_name("scene.dat"))
    np.testing.assert_array_equal(open_scene(renamed).values, cube)


def test_a_file_that_vanishes_after_opening_is_an_error_of_the_scene(tmp_path, cube):
    path = tmp_path / "scene.npy"
    np.save(path, cube)
    scene = open_scene(path)
    path.unlink()
    with pytest.raises(SceneError, match="copy or download it again"):
        scene.load()


def test_opening_a_scene_does_not_import_torch(shared_data):
    program = (
        "import sys; from spectralmamba.scenes import open_scene; from spectralmamba.scenes.describe import *;"
        f"describe_scene(open_scene({str(shared_data / 'enmap_potsdam' / 'enmap_potsdam_west.tif')!r}));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_opening_and_reading_a_window_of_a_huge_scene_reads_little(tmp_path, monkeypatch):
    bands, lines, samples = 200, 1000, 8000
    with (tmp_path / "scene.bsq").open("wb") as file:
        file.truncate(bands * lines * samples * 4)  # 6.4 GB, stored as a hole
    (tmp_path / "scene.hdr").write_text(
        f"ENVI\nsamples={samples}\nlines={lines}\nbands={bands}\ndata type=3\ninterleave=bsq\nbyte order=0\n"
    )
    values_read = []
    read_run = FileSource._read_run

    def counted(self, file, start, values):
        values_read.append(values.size)
        return read_run(self, file, start, values)

    monkeypatch.setattr(FileSource, "_read_run", counted)
    scene = open_scene(tmp_path / "scene.hdr")
    assert scene.shape == (bands, lines, samples)
    assert sum(values_read) <= 2 * 8_000_000
    values_read.clear()
    assert scene.isel(y=slice(500, 503), x=slice(7, 9)).values.shape == (200, 3, 2)
    assert sum(values_read) == 200 * 3 * 2
    values_read.clear()
    assert scene.isel(band=[0, 199], y=0).values.shape == (2, 8000)
    assert sum(values_read) == 2 * 8000
