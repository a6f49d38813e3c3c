from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from make_desis import CRS, STEM, TRANSFORM, make_desis
from raster_files import write_tiff

from spectralmamba.errors import SceneError
from spectralmamba.scenes import open_scene, valid_mask


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("bands", [235, 118, 79, 60])
def test_each_band_has_its_gain_and_offset_whatever_the_binning(tmp_path, bands, header):
    made = make_desis(tmp_path, bands=bands, header=header)
    for path in (tmp_path, made.image, made.file("METADATA")):
        scene = open_scene(path)
        np.testing.assert_allclose(scene.values, made.reflectance, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(scene["wavelength"].values, made.wavelength)
        assert scene.attrs["sensor"] == "DESIS"
        assert scene.attrs["acquisition_time"] == "2020-08-04T23:45:20.123Z"
        assert scene.rio.crs == rasterio.CRS.from_string(CRS)
        assert scene["good"].values.all()


def test_the_header_beside_the_image_is_its_product_and_not_an_envi_file(tmp_path):
    made = make_desis(tmp_path)
    assert open_scene(made.file("SPECTRAL_IMAGE").with_suffix(".hdr")).attrs["sensor"] == "DESIS"


def test_bands_of_the_orientation_are_not_taken_for_spectral_ones(tmp_path):
    made = make_desis(tmp_path)
    assert made.file("METADATA").read_text().count("<band>") == 2 * 235
    assert open_scene(tmp_path).sizes["band"] == 235


def test_nodata_that_the_file_does_not_tell_is_known(tmp_path):
    make_desis(tmp_path, nodata=None)
    assert np.isnan(open_scene(tmp_path).values[:, :, -1]).all()


def test_flags_are_masked_and_counted_land_and_water_are_not(tmp_path):
    flags = {
        "shadow": (1, 1),
        "snow": (2, 2),
        "haze land": (3, 3),
        "haze water": (3, 4),
        "cloud land": (4, 4),
        "cloud water": (4, 5),
        "water": (5, 5),
    }
    make_desis(tmp_path, flags=flags)
    scene = open_scene(tmp_path)
    valid = valid_mask(scene)
    for name, place in flags.items():
        assert valid[place] == (name == "water")
    assert valid.sum() == 8 * 8 - 6
    assert scene.attrs["masks"] == {"shadow": 1, "snow": 1, "haze": 2, "cloud": 2, "defective": 0}
    assert valid_mask(open_scene(tmp_path, keep=["cloud"]))[4, 4]


def test_pixels_with_many_bad_bands_are_defective(tmp_path):
    quality = np.zeros((235, 8, 9), np.uint8)
    quality[:100, 2, 3] = 2
    quality[:5, 3, 3] = 1
    make_desis(tmp_path, quality=quality)
    valid = valid_mask(open_scene(tmp_path))
    assert not valid[2, 3]
    assert valid[3, 3]


@pytest.mark.parametrize("transform", [TRANSFORM, Affine(30, 0, 300015, 0, 30, 3750015)], ids=["north up", "south up"])
def test_corners_are_those_of_affine_arithmetic(tmp_path, transform):
    make_desis(tmp_path, transform=transform)
    found = open_scene(tmp_path).rio.transform()
    for column, row in ((0, 0), (9, 0), (0, 8), (9, 8)):
        assert abs(found.c + column * found.a - (transform.c + column * transform.a)) < 0.3
        assert abs(found.f + row * found.e - (transform.f + row * transform.e)) < 0.3


@pytest.mark.parametrize("part", ["SPECTRAL_IMAGE", "METADATA", "QL_QUALITY-2", "QL_QUALITY"])
def test_a_missing_file_is_named(tmp_path, part):
    made = make_desis(tmp_path, header=False)
    made.file(part).unlink()
    with pytest.raises(SceneError, match=f"a file of the product is missing; found no {STEM}-{part}"):
        open_scene(tmp_path)


def test_level_1_is_said(tmp_path):
    make_desis(tmp_path, stem=STEM.replace("L2A", "L1C"))
    with pytest.raises(SceneError, match="another product level; found L1C; expected L2A"):
        open_scene(tmp_path)


def test_files_that_contradict_each_other_are_refused(tmp_path):
    made = make_desis(tmp_path)
    write_tiff(made.file("QL_QUALITY-2"), np.zeros((3, 8, 9), np.uint8))
    with pytest.raises(SceneError, match="QL_QUALITY-2 has too few bands; found 3; expected at least 7"):
        open_scene(tmp_path)
    header = made.file("SPECTRAL_IMAGE").with_suffix(".hdr")
    header.write_text(header.read_text().replace("bands = 235", "bands = 79"))
    with pytest.raises(SceneError, match="header and metadata describe different bands"):
        open_scene(tmp_path)
    header.unlink()
    write_tiff(made.image, np.zeros((79, 8, 9), np.int16))
    with pytest.raises(SceneError, match="image and metadata describe different bands"):
        open_scene(tmp_path)
