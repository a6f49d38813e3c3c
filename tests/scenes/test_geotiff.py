from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import rasterio
from affine import Affine

from spectralmamba.errors import SceneError
from spectralmamba.scenes import has_georeference, open_scene, valid_mask
from spectralmamba.scenes.geotiff import check_positions

ROTATED = Affine.translation(364095.5, 5809965.25) @ Affine.rotation(31) @ Affine.scale(3.7, -3.7)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(30, 0, 364095, 0, -30, 5809965),
        Affine(0.1, 0, 0.3, 0, -0.7, 1 / 3),
        Affine(1e-4 / 3, 0, 13.0123456789, 0, -1e-4 / 7, 52.987654321),
        Affine(2, 0, 5, 0, 3, 7),
        ROTATED,
    ],
)
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", None])
def test_crs_and_transform_are_those_of_the_file_to_the_last_bit(write_tiff, cube, transform, crs):
    path = write_tiff(cube, transform=transform, crs=crs)
    scene = open_scene(path)
    with rasterio.open(path) as dataset:
        assert scene.rio.transform() == dataset.transform
        assert scene.rio.crs == dataset.crs
        if transform != ROTATED:
            np.testing.assert_allclose(scene["x"].values, dataset.xy([0] * 5, range(5))[0], rtol=1e-15)
            np.testing.assert_allclose(scene["y"].values, dataset.xy(range(6), [0] * 6)[1], rtol=1e-15)
        else:
            assert "x" not in scene.coords
            assert "y" not in scene.coords
    assert has_georeference(scene)


def test_a_file_without_georeference_says_so_quietly(write_tiff, cube, recwarn):
    scene = open_scene(write_tiff(cube, crs=None, transform=None))
    recwarn.clear()
    scene = open_scene(scene.attrs["source"])
    assert scene.rio.crs is None
    assert not has_georeference(scene)
    assert "x" not in scene.coords
    assert "y" not in scene.coords
    assert not recwarn.list


def test_nodata_nan_and_infinity_become_nan_and_are_counted(write_tiff, cube):
    raw = cube.astype(np.float32)
    raw[0, 0, 0], raw[1, 0, 1], raw[2, 0, 2] = -32768, np.nan, -np.inf
    scene = open_scene(write_tiff(raw, nodata=-32768))
    expected = np.where(np.isfinite(raw) & (raw != -32768), raw, np.nan)
    np.testing.assert_array_equal(scene.values, expected)
    np.testing.assert_array_equal(valid_mask(scene), np.isfinite(expected).all(axis=0))
    assert scene.rio.encoded_nodata == -32768
    assert scene["good"].values.all()
    assert scene.attrs["statistics"] == {"values": 120, "nan": 1, "infinite": 1, "nodata": 1, "exact": True}


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("float64", -1.7976931348623157e308), ("float32", -3.4028234663852886e38), ("uint8", 1)]
)
def test_nodata_values_at_the_edge_of_their_type_are_found(write_tiff, cube, dtype, nodata):
    raw = cube.astype(dtype)
    raw[0, 0, 0] = nodata
    scene = open_scene(write_tiff(raw, nodata=nodata))
    assert np.argwhere(np.isnan(scene.values)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", np.nan), ("float32", np.inf), ("uint8", None)])
def test_nodata_values_that_no_finite_value_equals_leave_the_scene_whole(write_tiff, cube, dtype, nodata):
    np.testing.assert_array_equal(open_scene(write_tiff(cube.astype(dtype), nodata=nodata)).values, cube)


def test_scale_and_offset_of_each_band_give_physical_values(write_tiff, cube):
    scales, offsets = [1e-4, 2e-4, 1.0, 1e-4], [0.0, 0.5, 0.0, -0.1]
    path = write_tiff(cube, scales=scales, offsets=offsets, nodata=7)
    expected = (cube * np.array(scales)[:, None, None] + np.array(offsets)[:, None, None]).astype(np.float32)
    expected[cube == 7] = np.nan
    np.testing.assert_array_equal(open_scene(path).values, expected)


def test_an_internal_mask_is_nodata(write_tiff, cube):
    mask = np.ones(cube.shape[1:], bool)
    mask[2, 1:3] = False
    scene = open_scene(write_tiff(cube, mask=mask))
    np.testing.assert_array_equal(scene.values, np.where(mask, cube, np.nan))
    np.testing.assert_array_equal(valid_mask(scene), mask)


def test_wavelength_fwhm_and_bbl_of_band_tags(write_tiff, cube):
    tags = {
        "wavelength": [0.4, 0.5, 0.6, 2.5],
        "wavelength_units": ["Micrometers"] * 4,
        "fwhm": [0.01, 0.01, 0.02, 0.03],
        "bbl": [1, "0.0", "1.0", 1],
    }
    scene = open_scene(write_tiff(cube, band_tags=tags, tags={"start_time": "2022-07-24T10:45:26"}))
    np.testing.assert_allclose(scene["wavelength"].values, [400, 500, 600, 2500], rtol=1e-15)
    np.testing.assert_allclose(scene["fwhm"].values, [10, 10, 20, 30], rtol=1e-15)
    assert scene["good"].values.tolist() == [True, False, True, True]
    assert scene.attrs["acquisition_time"] == "2022-07-24T10:45:26"


def test_wavelengths_of_the_tags_of_the_whole_file(write_tiff, cube):
    tags = {"wavelength": "{400, 500, 600, 700}", "wavelength_units": "nm", "fwhm": "{1, 2, 3, 4}", "bbl": "{1,1,0,1}"}
    scene = open_scene(write_tiff(cube, tags=tags))
    assert scene["wavelength"].values.tolist() == [400, 500, 600, 700]
    assert scene["fwhm"].values.tolist() == [1, 2, 3, 4]
    assert scene["good"].values.tolist() == [True, True, False, True]
    with pytest.raises(SceneError, match=r"scene.tif: the tag 'fwhm' .* found 2 numbers; expected a number for each"):
        open_scene(write_tiff(cube, tags=tags | {"fwhm": "{1, 2}"}))


def test_complex_values_are_refused(write_tiff, cube):
    with pytest.raises(SceneError, match="found complex values; expected integer or floating-point"):
        open_scene(write_tiff(cube.astype(np.complex64)))


LAYOUTS = [
    {},
    {"interleave": "band", "compress": "deflate"},
    {"interleave": "pixel", "tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
    {"BIGTIFF": "YES", "tiled": True, "blockxsize": 16, "blockysize": 16},
    {"ENDIANNESS": "BIG"},
    {"BIGTIFF": "YES", "ENDIANNESS": "BIG", "blockysize": 1},
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_every_layout_are_read_and_refused_when_cut(write_tiff, layout):
    cube = np.random.default_rng(1).integers(1, 999, (3, 40, 50)).astype(np.int16)
    path = write_tiff(cube, **layout)
    np.testing.assert_array_equal(open_scene(path).values, cube)
    whole = path.read_bytes()
    for length in (len(whole) - 1, *(len(whole) * sixteenth // 16 for sixteenth in range(16))):
        path.write_bytes(whole[:length])
        with pytest.raises(SceneError, match=r"scene.tif.*found .*bytes.*expected"):
            open_scene(path)


def test_blocks_that_are_not_stored_are_nodata(write_tiff, cube, tmp_path):
    path = tmp_path / "sparse.tif"
    profile = {"count": 2, "height": 64, "width": 32, "dtype": "int16", "nodata": -1, "SPARSE_OK": True}
    with rasterio.open(
        path, "w", driver="GTiff", tiled=True, blockxsize=16, blockysize=16, transform=ROTATED, **profile
    ) as dataset:
        dataset.write(np.arange(512, dtype=np.int16).reshape(2, 16, 16), window=rasterio.windows.Window(16, 16, 16, 16))
    valid = valid_mask(open_scene(path))
    assert valid[16:32, 16:].all()
    assert valid.sum() == 256


def test_a_damaged_block_is_an_error_when_it_is_read(write_tiff):
    cube = np.random.default_rng(1).integers(1, 999, (3, 40, 50)).astype(np.int16)
    path = write_tiff(cube, compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    with rasterio.open(path) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[start : start + 50] = bytes(50)
    path.write_bytes(content)
    check_positions(path)
    with pytest.raises(SceneError, match=r"scene.tif: the values cannot be read; found .*; expected a whole file"):
        open_scene(path)


def test_a_forked_process_reads_the_same_values(write_tiff, cube):
    scene = open_scene(write_tiff(cube, compress="deflate"))
    source = scene.variable._data.array.source  # type: ignore[attr-defined]
    source._process = os.getpid() + 1
    np.testing.assert_array_equal(scene.values, cube)
    assert source._process == os.getpid()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(scene)).values, cube)


def test_enmap_opens_with_its_wavelengths_bad_bands_and_grid(shared_data):
    path = shared_data / "enmap_potsdam" / "enmap_potsdam_west.tif"
    scene = open_scene(path)
    with rasterio.open(path) as dataset:
        raw = dataset.read()
        assert scene.rio.transform() == dataset.transform
        assert scene.rio.crs == dataset.crs
    np.testing.assert_array_equal(scene.values, np.where(raw == -32768, np.nan, raw))
    assert scene["band"].values[~scene["good"].values].tolist() == [130, 131, 132, 133, 134, 135]
    assert scene["wavelength"].values[0] == 418.24
    np.testing.assert_array_equal(valid_mask(scene), (raw[0] != -32768))
