from __future__ import annotations

import copy
import os
import pickle
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401  registers `.rio`
import xarray as xr
import zarr
from affine import Affine

from spectralmamba import archive
from spectralmamba.errors import MissingPackageError, SceneError
from spectralmamba.scenes import has_georeference, open_scene
from spectralmamba.scenes.scene import file_state
from spectralmamba.scenes.zarr_store import ZarrSource

UTM = "EPSG:32633"
NORTH_UP = Affine(30, 0, 364095, 0, -30, 5809965)
ROTATED = Affine.translation(364095.5, 5809965.25) @ Affine.rotation(31) @ Affine.scale(3.7, -3.7)
CENTRES = {"y": 5809965 - 30 * (np.arange(6) + 0.5), "x": 364095 + 30 * (np.arange(5) + 0.5)}

both_formats = pytest.mark.parametrize("zarr_format", [2, 3])


def write(path: Path, data: xr.DataArray | xr.Dataset, zarr_format: int = 3, **encoding: dict[str, Any]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of consolidated metadata
        data.to_zarr(path, mode="w", zarr_format=zarr_format, encoding=encoding or None)  # type: ignore[call-overload]
    return path


def named(cube: np.ndarray, dims: tuple[str, ...] = ("band", "y", "x"), **coordinates: Any) -> xr.DataArray:
    """The cube as an array of the name "cube", its axes in the order of `dims` by name."""
    array = xr.DataArray(cube, dims=("band", "y", "x"), name="cube").transpose(*dims)
    return array.assign_coords(coordinates)


def on_grid(array: xr.DataArray, transform: Affine = NORTH_UP) -> xr.Dataset:
    return array.rio.write_crs(UTM).rio.write_transform(transform).to_dataset(name="cube")


def message(path: Path, **options: Any) -> str:
    with pytest.raises(SceneError) as caught:
        open_scene(path, **options).load()
    assert str(path) in str(caught.value)
    assert caught.value.found is not None
    assert caught.value.expected is not None
    return str(caught.value)


def chunk_files(store: Path, name: str = "cube") -> list[Path]:
    return sorted(file for file in (store / name).rglob("*") if file.is_file() and "z" not in file.name)


@both_formats
@pytest.mark.parametrize("dims", [("band", "y", "x"), ("y", "x", "band"), ("x", "band", "y")])
def test_a_cube_with_axes_in_any_order_has_the_values_and_windows_of_the_cube(tmp_path, cube, zarr_format, dims):
    store = write(tmp_path / "scene.zarr", named(cube, dims), zarr_format, cube={"chunks": (2, 3, 2)})
    scene = open_scene(store)
    assert scene.dims == ("band", "y", "x")
    assert scene.dtype == np.float32
    assert (scene.attrs["source"], scene.attrs["raw_dtype"]) == (str(store), "int16")
    np.testing.assert_array_equal(scene.values, cube)
    np.testing.assert_array_equal(
        scene.isel(band=[3, 0], y=slice(2, 5), x=[4, 1]).values, cube[[3, 0], 2:5][..., [4, 1]]
    )
    for twin in (pickle.loads(pickle.dumps(scene)), copy.deepcopy(scene), scene.copy()):
        np.testing.assert_array_equal(twin.values, cube)


@pytest.mark.parametrize(
    "dims",
    [("bands", "row", "column"), ("wavelength", "lat", "lon"), ("Spectral", "Y", "X"), ("b", "northing", "easting")],
)
def test_dimensions_may_have_other_names(tmp_path, cube, dims):
    names = dict(zip(("band", "y", "x"), dims, strict=True))
    scene = open_scene(write(tmp_path / "scene.zarr", named(cube).rename(names)))
    assert scene.dims == ("band", "y", "x")
    np.testing.assert_array_equal(scene.values, cube)


def test_dimensions_that_tell_no_rows_and_columns_are_refused(tmp_path, cube):
    store = write(tmp_path / "scene.zarr", named(cube).rename(y="a", x="b"))
    assert "found cube (band, a, b)" in message(store)


@both_formats
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["i2", "u2", "f4", "f8"])
def test_values_are_right_in_either_byte_order_and_any_type(tmp_path, cube, zarr_format, order, kind):
    group = zarr.open_group(tmp_path / "scene.zarr", mode="w", zarr_format=zarr_format)
    serializer = {"serializer": zarr.codecs.BytesCodec(endian="little" if order == "<" else "big")}
    attributes = {"attributes": {"_ARRAY_DIMENSIONS": ["band", "y", "x"]}} if zarr_format == 2 else {}
    array = group.create_array(
        "cube",
        shape=cube.shape,
        chunks=(4, 2, 5),
        dtype=np.dtype((order if zarr_format == 2 else "<") + kind),
        fill_value=None if zarr_format == 2 else 0,
        **({"dimension_names": ("band", "y", "x")} | serializer if zarr_format == 3 else attributes),
    )
    array[...] = cube
    np.testing.assert_array_equal(open_scene(tmp_path / "scene.zarr").values, cube)


@both_formats
def test_crs_and_transform_are_those_of_the_grid_mapping_to_the_last_bit(tmp_path, cube, zarr_format):
    transform = Affine(29.97, 0, 364095.1, 0, -29.97, 5809965.3)
    scene = open_scene(write(tmp_path / "scene.zarr", on_grid(named(cube), transform), zarr_format))
    assert scene.rio.crs == UTM
    assert scene.rio.transform() == transform
    assert {"x", "y"} <= set(scene.coords)


def test_a_rotated_grid_stays_rotated(tmp_path, cube):
    scene = open_scene(write(tmp_path / "scene.zarr", on_grid(named(cube), ROTATED)))
    assert scene.rio.crs == UTM
    assert scene.rio.transform() == ROTATED
    assert "x" not in scene.coords


def test_a_grid_mapping_of_another_name_counts(tmp_path, cube):
    array = named(cube, **CENTRES).rio.write_crs(UTM, grid_mapping_name="utm")
    scene = open_scene(write(tmp_path / "scene.zarr", array.to_dataset(name="cube")))
    assert scene.rio.crs == UTM
    assert scene.rio.transform() == NORTH_UP


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_coordinates_alone_give_the_transform(tmp_path, cube, dtype):
    centres = {name: values.astype(dtype) for name, values in CENTRES.items()}
    scene = open_scene(write(tmp_path / "scene.zarr", named(cube, **centres)))
    assert scene.rio.crs is None
    np.testing.assert_allclose(scene.rio.transform(), NORTH_UP, atol=1)  # float32 has steps of half a metre there
    assert has_georeference(scene)


def test_a_part_of_a_scene_lies_where_its_coordinates_say(tmp_path, cube):
    whole = on_grid(named(cube, **CENTRES))
    shifted = open_scene(write(tmp_path / "part.zarr", whole.isel(y=slice(2, None), x=slice(1, None))))
    assert shifted.rio.transform() == Affine(30, 0, 364125, 0, -30, 5809905)
    coarse = open_scene(write(tmp_path / "coarse.zarr", whole.isel(y=slice(None, None, 2), x=slice(None, None, 2))))
    assert coarse.rio.transform() == Affine(60, 0, 364080, 0, -60, 5809980)
    assert "GeoTransform ignored" in coarse.attrs["notes"][0]


def test_uneven_coordinates_give_no_georeference_and_say_so(tmp_path, cube):
    centres = CENTRES | {"x": 364095 + 30 * np.array([0.0, 1, 2, 4, 5])}
    scene = open_scene(write(tmp_path / "scene.zarr", named(cube, **centres)))
    assert not has_georeference(scene)
    assert "not the centres of evenly spaced pixels" in scene.attrs["notes"][0]


def test_without_coordinates_and_grid_mapping_there_is_no_georeference(tmp_path, cube):
    scene = open_scene(write(tmp_path / "scene.zarr", named(cube)))
    assert scene.rio.crs is None
    assert not has_georeference(scene)
    assert "notes" not in scene.attrs


def test_a_damaged_crs_or_transform_is_refused(tmp_path, cube):
    broken = on_grid(named(cube))
    broken["spatial_ref"].attrs["GeoTransform"] = "1 2 three"
    assert "'GeoTransform' cannot be understood" in message(write(tmp_path / "transform.zarr", broken))
    broken = on_grid(named(cube))
    broken["spatial_ref"].attrs = {"spatial_ref": "PROJCS[nothing", "crs_wkt": "PROJCS[nothing"}
    assert "'spatial_ref' cannot be understood" in message(write(tmp_path / "crs.zarr", broken))


@both_formats
@pytest.mark.parametrize("as_coordinates", [True, False])
def test_wavelengths_widths_and_good_bands_are_read_with_their_units(tmp_path, cube, zarr_format, as_coordinates):
    values = {
        "wavelength": ("band", [0.4, 0.5, 0.6, 0.7], {"units": "um"}),
        "fwhm": ("band", [10.0, 11, 12, 13], {"units": "nm"}),
        "good": ("band", [True, False, True, True]),
    }
    scene = named(cube).to_dataset()
    scene = scene.assign_coords(values) if as_coordinates else scene.assign(values)
    opened = open_scene(write(tmp_path / "scene.zarr", scene, zarr_format))
    np.testing.assert_allclose(opened["wavelength"], [400, 500, 600, 700])
    np.testing.assert_allclose(opened["fwhm"], [10, 11, 12, 13])
    assert opened["good"].values.tolist() == [True, False, True, True]


def test_the_bands_own_coordinate_is_the_wavelength_if_it_says_so(tmp_path, cube):
    by_unit = named(cube, band=("band", [400.0, 500, 600, 700], {"units": "nm"}))
    assert open_scene(write(tmp_path / "a.zarr", by_unit))["wavelength"].values.tolist() == [400, 500, 600, 700]
    by_name = named(cube, band=[0.4, 0.5, 0.6, 0.7]).rename(band="wavelength")
    opened = open_scene(write(tmp_path / "b.zarr", by_name))
    np.testing.assert_allclose(opened["wavelength"], [400, 500, 600, 700])
    assert "taken as µm" in opened.attrs["notes"][0]
    numbered = open_scene(write(tmp_path / "c.zarr", named(cube, band=[1, 2, 3, 4])))
    assert numbered["wavelength"].isnull().all()


@both_formats
def test_nodata_scale_and_offset_give_physical_values(tmp_path, cube, zarr_format):
    physical = cube * 0.5 - 3.0
    physical[1, 2, 3] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.5, "add_offset": -3.0, "_FillValue": -9}
    scene = open_scene(write(tmp_path / "scene.zarr", named(physical), zarr_format, cube=packing))
    assert scene.attrs["raw_dtype"] == "int16"
    assert scene.rio.encoded_nodata == -9
    np.testing.assert_array_equal(scene.values, physical.astype(np.float32))
    assert scene.attrs["statistics"]["nodata"] == 1


def test_nodata_that_rioxarray_notes_counts(tmp_path, cube):
    scene = open_scene(write(tmp_path / "scene.zarr", named(cube).rio.write_nodata(7)))
    assert np.isnan(scene.values).sum() == 1
    assert np.isnan(scene.values[cube == 7]).all()


def test_a_scale_that_is_no_number_is_refused(tmp_path, cube):
    array = named(cube)
    array.attrs["scale_factor"] = "ten"
    assert "scene.zarr" in message(write(tmp_path / "scene.zarr", array))


def test_blocks_follow_chunks_and_a_window_reads_only_its_chunks(tmp_path):
    cube = np.random.default_rng(0).integers(1, 99, (3, 64, 48)).astype(np.int16)
    store = write(tmp_path / "scene.zarr", named(cube), cube={"chunks": (3, 16, 24)})
    scene = open_scene(store)
    assert scene.encoding["preferred_chunks"] == {"band": 3, "y": 16, "x": 24}
    for file in chunk_files(store):
        if file.relative_to(store / "cube").as_posix() != "c/0/1/1":
            file.write_bytes(b"damaged")
    np.testing.assert_array_equal(scene[:, 16:32, 24:].values, cube[:, 16:32, 24:])
    with pytest.raises(SceneError, match="the values cannot be read"):
        scene[:, 15:32, 24:].load()


def test_tiles_of_a_map_are_whole_chunks(tmp_path, classifier, small_scene, monkeypatch):
    from spectralmamba import tiling

    monkeypatch.setattr(tiling, "_USUAL", 20_000_000)
    large = small_scene.isel(y=np.arange(600) % 12, x=np.arange(500) % 12).drop_vars(["x", "y", "spatial_ref"])
    store = write(tmp_path / "scene.zarr", large.to_dataset(name="cube"), cube={"chunks": (20, 192, 128)})
    rows, columns = tiling.choose_tile(classifier, open_scene(store))
    assert rows == 192
    assert columns in (128, 256)


def test_a_chunk_that_is_not_stored_is_the_fill_value(tmp_path, cube):
    store = write(tmp_path / "scene.zarr", named(cube), cube={"chunks": (4, 3, 5), "fill_value": 5})
    chunk_files(store)[1].unlink()
    np.testing.assert_array_equal(open_scene(store).values[:, :3], cube[:, :3])
    assert (open_scene(store).values[:, 3:] == 5).all()


@both_formats
@pytest.mark.parametrize("codec", ["plain", "Zstd", "Blosc"])
def test_a_chunk_that_is_cut_short_is_refused(tmp_path, cube, zarr_format, codec):
    from numcodecs import Blosc, Zstd

    codecs = {"plain": None, "Zstd": Zstd(), "Blosc": Blosc()}
    if zarr_format == 3:
        codecs |= {"Zstd": zarr.codecs.ZstdCodec(), "Blosc": zarr.codecs.BloscCodec()}
    encoding = {"chunks": (4, 3, 5), "compressors": codecs[codec]}
    store = write(tmp_path / "scene.zarr", named(cube), zarr_format, cube=encoding)
    scene, file = open_scene(store), chunk_files(store)[-1]
    np.testing.assert_array_equal(scene.values, cube)
    whole = file.read_bytes()
    for length in (0, 10, 20, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert "the values cannot be read" in message(store)
        np.testing.assert_array_equal(scene[:, :3].values, cube[:, :3])


def test_a_short_chunk_of_wavelengths_is_refused(tmp_path, cube):
    store = write(tmp_path / "scene.zarr", named(cube, wavelength=("band", [400.0, 500, 600, 700])), 2)
    file = store / "wavelength" / "0"
    file.write_bytes(file.read_bytes()[:-9])
    assert "bytes in the chunk 0" in message(store)


@both_formats
def test_damaged_or_missing_metadata_are_refused(tmp_path, cube, zarr_format):
    scene = named(cube, wavelength=("band", [1.0, 2, 3, 4]))
    of_array, of_group = ("zarr.json", "zarr.json") if zarr_format == 3 else (".zarray", ".zgroup")
    for file, content in (
        (f"cube/{of_array}", None),
        (f"cube/{of_array}", b"{"),
        (of_group, b"not json"),
        (f"wavelength/{of_array}", b"{"),
    ):
        store = write(tmp_path / "scene.zarr", scene, zarr_format)
        (store / file).unlink()
        if content is not None:
            (store / file).write_bytes(content)
        message(store)
    store = write(tmp_path / "scene.zarr", scene, zarr_format)
    for file in chunk_files(store, "wavelength"):
        file.write_bytes(b"x")
    message(store)


def test_a_store_that_vanishes_after_opening_is_an_error_of_the_scene(tmp_path, cube):
    scene = open_scene(write(tmp_path / "scene.zarr", named(cube)))
    shutil.rmtree(tmp_path / "scene.zarr")
    with pytest.raises(SceneError, match="copy or download it again"):
        scene.load()
    write(tmp_path / "scene.zarr", named(cube[:, :4]))
    with pytest.raises(SceneError, match="copy or download it again"):
        scene.load()


def test_of_several_variables_one_must_be_named(tmp_path, cube):
    both = xr.Dataset({"first": named(cube), "second": named(cube * 2.5), "mask": named(cube)[0] > 0})
    store = write(tmp_path / "scene.zarr", both)
    said = message(store)
    assert "holds several cubes" in said
    assert "first (4 × 6 × 5 int16)" in said
    assert "second (4 × 6 × 5 float64)" in said
    assert "--variable" in said
    np.testing.assert_array_equal(open_scene(store, variable="second").values, cube * np.float32(2.5))
    with pytest.raises(SceneError, match="has no variable 'third'; found first"):
        open_scene(store, variable="third")
    assert "found mask (6 × 5 bool)" in message(store, variable="mask")


def test_what_is_no_cube_of_real_numbers_is_refused(tmp_path, cube):
    assert "found image (6 × 5 int16)" in message(
        write(tmp_path / "flat.zarr", xr.Dataset({"image": named(cube)[0].drop_vars("band", errors="ignore")}))
    )
    assert "complex64" in message(write(tmp_path / "complex.zarr", named(cube.astype(np.complex64))))
    assert "bool" in message(write(tmp_path / "bool.zarr", named(cube > 5)))
    assert "0 × 6 × 5" in message(write(tmp_path / "empty.zarr", named(cube[:0])))
    zarr.open_group(tmp_path / "nothing.zarr", mode="w")
    assert "no variables" in message(tmp_path / "nothing.zarr")


def test_arrays_without_names_of_dimensions_are_refused(tmp_path, cube):
    zarr.save_array(tmp_path / "array.zarr", cube)
    assert "named dimensions" in message(tmp_path / "array.zarr")
    zarr.save_group(tmp_path / "group.zarr", cube=cube)
    assert "named dimensions" in message(tmp_path / "group.zarr")


def test_a_band_axis_means_nothing_and_a_plain_folder_is_no_store(tmp_path, cube):
    store = write(tmp_path / "scene.zarr", named(cube))
    assert "--band-axis" in message(store, band_axis=0)
    (tmp_path / "folder.zarr").mkdir()
    assert "found a folder" in message(tmp_path / "folder.zarr")


def test_without_zarr_the_command_that_installs_it_is_given(tmp_path, cube, monkeypatch):
    store = write(tmp_path / "scene.zarr", named(cube))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingPackageError, match=r'scene.zarr.*pip install "spectralmamba\[zarr\]"'):
        open_scene(store)


def test_opening_a_store_warns_of_nothing(tmp_path, cube):
    store = write(tmp_path / "scene.zarr", on_grid(named(cube)), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Use `@` matmul")  # rioxarray with affine 3
        open_scene(store).load()


def test_the_state_of_a_store_tells_every_change_of_a_chunk(tmp_path, cube):
    store = write(tmp_path / "scene.zarr", named(cube), cube={"chunks": (4, 3, 5), "compressors": None})
    scene, (first, second) = open_scene(store), chunk_files(store)
    before = file_state(scene)
    assert before == file_state(scene)
    assert before["bytes"] == sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    content, times = first.read_bytes(), first.stat()
    os.utime(first, ns=(1, 1))  # older than all others
    assert file_state(scene) != before
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file_state(scene) == before
    os.utime(second, ns=(5, 5))
    older = file_state(scene)
    first.rename(store / "aside")
    second.rename(first)
    (store / "aside").rename(second)  # the same files with their names exchanged
    assert file_state(scene) != older
    second.unlink()
    first.write_bytes(content)
    assert file_state(scene) not in (before, older)


def test_a_store_is_one_scene_alone_and_in_a_folder(tmp_path, cube):
    folder = tmp_path / "scenes"
    folder.mkdir()
    store = write(folder / "a.zarr", named(cube))
    (folder / "b.tif").touch()
    (folder / "notes").mkdir()
    assert not archive.names_several(store)
    assert archive.names_several(folder)
    assert archive.find_scenes([store]) == [str(store)]
    assert archive.find_scenes([folder]) == [str(store), str(folder / "b.tif")]


def test_a_store_that_has_been_mapped_is_skipped_until_a_chunk_changes(tmp_path, classifier, small_scene):
    store = write(tmp_path / "scene.zarr", small_scene.to_dataset(name="cube"))
    out = tmp_path / "maps"
    assert [each.outcome for each in archive.map_scenes(classifier, [store], out)] == [archive.MAPPED]
    again = archive.map_scenes(classifier, [store], out, resume=True)
    assert [each.outcome for each in again] == [archive.SKIPPED]
    os.utime(chunk_files(store)[0], ns=(1, 1))
    again = archive.map_scenes(classifier, [store], out, resume=True)
    assert [each.outcome for each in again] == [archive.MAPPED]


def test_a_source_says_what_its_window_needs(tmp_path, cube):
    store = write(tmp_path / "scene.zarr", named(cube, ("y", "x", "band")))
    source = ZarrSource(store, "cube", np.dtype("i2"), (6, 5, 4), (2, 0, 1), (6, 5))
    assert source.shape == (4, 6, 5)
    np.testing.assert_array_equal(source.read(np.array([2, 1, 2]), slice(1, 3), slice(0, 4)), cube[[2, 1, 2], 1:3, :4])
