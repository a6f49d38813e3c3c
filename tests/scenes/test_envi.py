from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine

from spectralmamba.errors import SceneError
from spectralmamba.scenes import has_georeference, open_scene
from spectralmamba.scenes.envi import DATA_TYPES

UTM_INFO = "map info = {UTM, 1.0, 1.0, 364095.0, 5809965.0, 3.7, 3.7, 33, North, WGS-84, units=Meters, rotation=-31.5}"


@pytest.mark.parametrize("byte_order", [0, 1])
@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("dtype", DATA_TYPES.values())
def test_every_data_type_interleave_and_byte_order(write_envi, cube, dtype, interleave, byte_order):
    raw = cube.astype(dtype)
    header = write_envi(raw, interleave=interleave, byte_order=byte_order, offset=7)
    scene = open_scene(header)
    np.testing.assert_array_equal(scene.values, raw.astype(np.float32))
    assert scene.attrs["raw_dtype"] == np.dtype(dtype).name


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_windows_of_files_with_long_and_short_lines(write_envi, interleave):
    cube = np.random.default_rng(0).normal(size=(600, 3, 700))  # lines above a page of memory
    scene = open_scene(write_envi(cube, interleave=interleave))
    cube = cube.astype(np.float32)
    for key in (np.s_[5:9, 1:, 3:50], np.s_[:, :2, 600:], np.s_[[9, 2, 500], 1, :], np.s_[7, :, 5:]):
        np.testing.assert_array_equal(scene[key].values, cube[key])


def test_an_ignore_value_that_the_type_cannot_hold_is_harmless(write_envi, cube):
    for value in ("-9999", "0.5", "nan", "-inf"):
        header = write_envi(cube.astype(np.uint8), extra=f"data ignore value = {value}")
        np.testing.assert_array_equal(open_scene(header).values, cube)


@pytest.mark.parametrize("suffix", ["", ".dat", ".IMG", ".BSQ", ".bil", ".Bip", ".raw"])
def test_the_data_file_is_found_by_any_usual_suffix_and_leads_to_its_header(write_envi, cube, suffix):
    header = write_envi(cube, suffix=suffix)
    data = header.with_name("scene" + suffix)
    for path in (header, data):
        np.testing.assert_array_equal(open_scene(path).values, cube)
    header.rename(data.with_name(data.name + ".HDR"))
    np.testing.assert_array_equal(open_scene(data).values, cube)


@pytest.mark.parametrize("info", [UTM_INFO, UTM_INFO.replace(", rotation=-31.5", "")])
def test_georeference_is_the_one_that_gdal_reads(write_envi, cube, info):
    header = write_envi(cube, extra=info)
    scene = open_scene(header)
    with rasterio.open(header.with_suffix(".img"), driver="ENVI") as dataset:
        assert scene.rio.transform() == dataset.transform
        assert scene.rio.crs == dataset.crs
        assert scene.rio.crs.to_epsg() == 32633
    assert has_georeference(scene)
    assert ("x" in scene.coords) == ("rotation" not in info)


def test_the_coordinate_system_string_gives_the_crs(write_envi, cube):
    wkt = rasterio.CRS.from_epsg(25832).to_wkt()
    info = "map info = {Arbitrary, 1, 1, 10, 20, 2, 3}\n"
    scene = open_scene(write_envi(cube, extra=f"{info}coordinate system string = {{{wkt}}}"))
    assert scene.rio.crs.to_epsg() == 25832
    assert scene.rio.transform() == Affine(2, 0, 10, 0, -3, 20)


def test_a_header_without_map_info_gives_a_scene_without_georeference(write_envi, cube, recwarn):
    scene = open_scene(write_envi(cube, extra="map info =\n"))
    assert scene.rio.crs is None
    assert not has_georeference(scene)
    assert "x" not in scene.coords
    assert "y" not in scene.coords
    assert not recwarn.list


@pytest.mark.parametrize(
    ("units", "values", "expected", "note"),
    [
        ("Nanometers", "400, 500.5, 600, 2500", [400, 500.5, 600, 2500], None),
        ("Micrometers", "0.4, 0.5, 0.6, 2.5", [400, 500, 600, 2500], None),
        ("µm", "0.4, 0.5, 0.6, 2.5", [400, 500, 600, 2500], None),
        (None, "0.4, 0.5, 0.6, 2.5", [400, 500, 600, 2500], "taken as µm"),
        ("Unknown", "400, 500, 600, 2500", [400, 500, 600, 2500], "taken as nm"),
        ("Wavenumber", "1, 2, 3, 4", [np.nan] * 4, "not a length"),
    ],
)
def test_wavelengths_come_in_nanometres_and_assumptions_are_noted(write_envi, cube, units, values, expected, note):
    lines = [f"Wavelength = {{\n {values} }}", "FWHM = {1, 2, 3, 4}"]
    if units:
        lines.append(f"wavelength units = {units}")
    scene = open_scene(write_envi(cube, extra="\n".join(lines)))
    np.testing.assert_allclose(scene["wavelength"].values, expected, rtol=1e-15)  # one multiplication
    assert np.isnan(scene["fwhm"].values).any() == np.isnan(expected).any()
    assert [note in text for text in scene.attrs.get("notes", [])] == ([True] if note else [])


def test_bbl_ignore_value_gains_and_scale_factor(write_envi, cube):
    cube[1:, 2, 3] = -9999
    extra = (
        "; a comment = {\nBBL = {1.0, 0.0, 1, 1}\ndata ignore value = -9999.0 ; as in the raster\n"
        "data gain values = {1, 2, 3, 4}\ndata offset values = {0, 1, 0, 1}\nreflectance scale factor = 10000\n"
        "band names = {a, b, c, d}\ndescription = {\n several = lines\n ; comment\n}\nempty =\nsensor type = {}\n"
    )
    scene = open_scene(write_envi(cube, extra=extra))
    gain, offset = np.array([1, 2, 3, 4]) / 1e4, np.array([0, 1, 0, 1]) / 1e4
    expected = (cube * gain[:, None, None] + offset[:, None, None]).astype(np.float32)
    expected[cube == -9999] = np.nan
    np.testing.assert_array_equal(scene.values, expected)
    assert scene["good"].values.tolist() == [True, False, True, True]
    assert scene.attrs["bad_band_reasons"] == {2: "marked bad in the file (bbl 0)"}
    assert scene.attrs["band_names"] == ["a", "b", "c", "d"]
    assert scene.rio.encoded_nodata == -9999


@pytest.mark.parametrize("change", [-1, 1, -60, 60])
def test_a_data_file_of_another_size_is_refused_with_both_sizes(write_envi, cube, change):
    header = write_envi(cube)
    data = header.with_suffix(".img")
    content = data.read_bytes()
    data.write_bytes(content[:change] if change < 0 else content + b"x" * change)
    with pytest.raises(SceneError, match=rf"scene.img.*found {240 + change} bytes; expected 240 bytes"):
        open_scene(header)


@pytest.mark.parametrize("key", ["samples", "lines", "bands", "data type", "interleave", "byte order"])
def test_missing_keys_are_named(write_envi, cube, key):
    with pytest.raises(SceneError, match=rf"scene.hdr: the header lacks keys; found no {key}; expected samples"):
        open_scene(write_envi(cube, without=key))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("data type = 2", "data type = 6", "complex data cannot be classified; found data type = 6; expected a real"),
        ("data type = 2", "data type = 9", "complex data"),
        ("data type = 2", "data type = 7", "unknown data type; found data type = 7; expected one of 1, 2"),
        ("data type = 2", "data type = two", "found data type = 'two'; expected an integer"),
        ("byte order = 0", "byte order = 2", "unknown byte order"),
        ("interleave = bsq", "interleave = tiled", "unknown interleave; found interleave = tiled; expected bsq, bil"),
        ("lines = 6", "lines = 0", "found lines = 0"),
        ("lines = 6", "lines = 6\nlines = 7", "given twice"),
        ("ENVI", "ENVY", "is not an ENVI header; found 'ENVY'; expected ENVI"),
        ("byte order", "wavelength = {1, 2}\nbyte order", "found 2; expected 4"),
        ("byte order", "wavelength = {1, b, 3, 4}\nbyte order", "wavelength = 'b'"),
        ("byte order = 0", "byte order = 0\nwavelength = {1, 2", "a brace is never closed"),
        ("byte order", "file compression = 1\nbyte order", "compressed"),
        ("byte order", "reflectance scale factor = 0\nbyte order", "a number above 0"),
    ],
)
def test_headers_that_make_no_sense_are_refused(write_envi, cube, old, new, text):
    header = write_envi(cube)
    header.write_text(header.read_text().replace(old, new))
    with pytest.raises(SceneError) as caught:
        open_scene(header)
    assert text in str(caught.value)
    assert "scene.hdr" in str(caught.value)


def test_a_header_without_data_and_data_without_header_are_refused(write_envi, cube):
    header = write_envi(cube)
    data = header.with_suffix(".img")
    moved = data.rename(data.with_name("other.img"))
    with pytest.raises(SceneError, match="has no data file beside it; found the header alone; expected scene without"):
        open_scene(header)
    with pytest.raises(SceneError, match=r"other.img: has no ENVI header beside it.*expected other.hdr or other.img.h"):
        open_scene(moved)
    moved.rename(data.with_suffix(".tif"))
    with pytest.raises(SceneError, match=r"Open scene.tif itself"):
        open_scene(header)


def test_of_several_data_files_the_one_of_the_right_size_is_taken(write_envi, cube):
    header = write_envi(cube, suffix=".dat")
    header.with_suffix(".img").write_bytes(b"a quicklook")
    np.testing.assert_array_equal(open_scene(header).values, cube)
    header.with_suffix(".img").write_bytes(header.with_suffix(".dat").read_bytes())
    with pytest.raises(SceneError, match=r"several data files belong to this header; found scene.img, scene.dat"):
        open_scene(header)
