from __future__ import annotations

import pickle
import sys

import h5py
import numpy as np
import pytest
from affine import Affine
from make_prisma import EPSG, NAME, TRANSFORM, make_prisma

from spectralmamba.errors import MissingPackageError, SceneError
from spectralmamba.scenes import open_scene, valid_mask


def test_values_are_scaled_after_fill_is_masked_and_bands_ascend(tmp_path):
    made = make_prisma(tmp_path)
    for path in (tmp_path, made.path):
        scene = open_scene(path)
        assert scene.shape == (66 - 3 + 173 - 2, 7, 9)
        np.testing.assert_allclose(scene["wavelength"].values, made.wavelength)
        assert (np.diff(scene["wavelength"]) > 0).all()
        np.testing.assert_allclose(scene.values, made.reflectance, rtol=2e-6, atol=1e-7)
        assert np.isnan(scene.values[:, :, 0]).all()  # not the -0.05 that a scaled 0 would be
        assert scene.attrs["sensor"] == "PRISMA"
        assert scene.attrs["product_level"] == "L2D"
        assert scene.attrs["acquisition_time"].startswith("2020-06-27T10:23:58")
    key = np.s_[[233, 0, 60, 64], 2:5, 3]
    np.testing.assert_array_equal(scene[key].values, scene.values[key])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(scene)).values, scene.values)


def test_a_file_of_another_name_is_told_by_its_content(tmp_path):
    made = make_prisma(tmp_path)
    other = made.path.rename(tmp_path / "download.h5")
    assert open_scene(other).attrs["sensor"] == "PRISMA"


def test_bands_that_were_not_measured_are_left_out_however_many(tmp_path):
    made = make_prisma(tmp_path)
    with h5py.File(made.path, "r+") as file:
        centres, flags = file.attrs["List_Cw_Swir"], file.attrs["List_Cw_Swir_Flags"]
        centres[10:14] = 0
        flags[20:22] = 0  # a flag alone is enough
        file.attrs["List_Cw_Swir"], file.attrs["List_Cw_Swir_Flags"] = centres, flags
    scene = open_scene(made.path)
    assert scene.sizes["band"] == 234 - 6
    assert scene["wavelength"].values.min() > 400


def test_each_detector_is_used_to_the_middle_of_the_overlap(tmp_path):
    made = make_prisma(tmp_path)
    scene, good = open_scene(tmp_path), None
    good = scene["good"].values
    middle = (made.wavelength[made.swir].min() + made.wavelength[~made.swir].max()) / 2
    assert not good[made.swir & (made.wavelength <= middle)].any()
    assert not good[~made.swir & (made.wavelength > middle)].any()
    assert good[(made.wavelength < 1300) & (made.swir == (made.wavelength > middle))].all()


def test_saturated_pixels_are_masked_invalid_ones_by_share_and_negative_ones_not(tmp_path):
    errors = {("Vnir", 30, 1, 2): 4, ("Swir", 100, 2, 3): 2, ("Swir", 101, 3, 4): 1, ("Vnir", 64, 4, 5): 4}
    errors |= {("Vnir", band, 5, 6): 1 for band in range(66)}
    made = make_prisma(tmp_path, errors=errors)
    scene = open_scene(tmp_path)
    valid = valid_mask(scene)
    assert not valid[1, 2]
    assert valid[2, 3]  # negative
    assert valid[3, 4]  # one dead element
    assert valid[4, 5]  # in a band that was not measured
    assert not valid[5, 6]
    assert scene.attrs["masks"] == {"saturated": 1, "defective": 1}
    kept = open_scene(made.path, keep=["saturated", "defective"])
    assert valid_mask(kept)[1, 2]
    assert valid_mask(kept)[5, 6]


ROTATED = Affine(28, 5, 500_000, 5, -28, 5_000_000)


@pytest.mark.parametrize(
    "transform", [TRANSFORM, ROTATED, Affine(30, 0, 4e5, 0, 30, 4.5e6)], ids=["north up", "rotated", "south up"]
)
def test_corners_lie_where_they_are(tmp_path, transform):
    make_prisma(tmp_path, transform=transform)
    scene = open_scene(tmp_path)
    found = scene.rio.transform()
    for column, row in ((0, 0), (9, 0), (0, 7), (9, 7)):
        x = transform.c + column * transform.a + row * transform.b
        y = transform.f + column * transform.d + row * transform.e
        assert abs(found.c + column * found.a + row * found.b - x) < 0.01 * 28
        assert abs(found.f + column * found.d + row * found.e - y) < 0.01 * 28
    assert scene.rio.crs.to_epsg() == EPSG
    assert "notes" not in scene.attrs


def test_corners_are_pixel_centres_where_nothing_else_tells(tmp_path):
    make_prisma(tmp_path, latitude=False)
    assert open_scene(tmp_path).rio.transform() == TRANSFORM


def test_latitude_and_longitude_correct_the_convention_or_are_spoken_of(tmp_path):
    make_prisma(tmp_path / "a", corners_are_centres=False)
    scene = open_scene(tmp_path / "a")
    assert abs(scene.rio.transform().c - TRANSFORM.c) < 0.3
    assert "outer edges" in scene.attrs["notes"][0]
    made = make_prisma(tmp_path / "b")
    with h5py.File(made.path, "r+") as file:
        file["HDFEOS/SWATHS/PRS_L2D_HCO/Geolocation Fields/Latitude"][...] += 0.001
    assert "pixels beside" in open_scene(tmp_path / "b").attrs["notes"][0]


SWATH = "HDFEOS/SWATHS/PRS_L2D_HCO"


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (f"{SWATH}/Data Fields/SWIR_Cube", "a part of the product is missing; found no .*SWIR_Cube, only SWIR_PIXEL"),
        (f"{SWATH}/Data Fields", "a part of the product is missing"),
        (f"{SWATH}/Data Fields/VNIR_PIXEL_L2_ERR_MATRIX", "VNIR_PIXEL_L2_ERR_MATRIX"),
        ("List_Cw_Vnir", "no attribute List_Cw_Vnir"),
        ("L2ScaleSwirMax", "no attribute L2ScaleSwirMax"),
        ("Epsg_Code", "no attribute Epsg_Code"),
        ("Product_ULcorner_easting", "Product_ULcorner_easting"),
    ],
)
def test_what_is_missing_is_named(tmp_path, without, message):
    make_prisma(tmp_path, without=(without,))
    with pytest.raises(SceneError, match=message):
        open_scene(tmp_path)


def test_other_levels_are_said(tmp_path):
    made = make_prisma(tmp_path / "a", name=NAME.replace("L2D", "L1"), level="1")
    with pytest.raises(SceneError, match="another product level; found L1"):
        open_scene(tmp_path / "a")
    renamed = made.path.rename(tmp_path / "any.he5")
    with pytest.raises(SceneError, match="another product level; found PRS_L1_HCO, level 1"):
        open_scene(renamed)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("Epsg_Code", 1, "the coordinate system is unknown"),
        ("Epsg_Code", np.nan, "is no number"),
        ("L2ScaleVnirMax", -1.0, "impossible scale"),
        ("List_Cw_Vnir", np.zeros(66), None),
        ("List_Cw_Vnir", np.zeros(5), "another length; found 5; expected 66"),
        ("List_Cw_Swir", np.full(173, 1000.0), "two good bands have the same wavelength"),
        ("List_Cw_Swir", np.full(173, -7.0), "impossible wavelengths"),
        ("List_Cw_Swir", "text", "holds no numbers"),
        ("Product_LRcorner_easting", 0.0, "not those of a grid"),
    ],
)
def test_attributes_that_make_no_sense_are_refused(tmp_path, attribute, value, message):
    made = make_prisma(tmp_path)
    with h5py.File(made.path, "r+") as file:
        file.attrs[attribute] = value
    if message is None:  # no VNIR band was measured
        assert open_scene(made.path).sizes["band"] == 171
        return
    with pytest.raises(SceneError, match=message):
        open_scene(made.path)


def test_other_types_and_shapes_are_refused(tmp_path):
    make_prisma(tmp_path / "a", cube_dtype="f4")
    with pytest.raises(SceneError, match="values of another type; found float32"):
        open_scene(tmp_path / "a")
    made = make_prisma(tmp_path / "b")
    with h5py.File(made.path, "r+") as file:
        del file[f"{SWATH}/Data Fields/SWIR_Cube"]
        file[f"{SWATH}/Data Fields/SWIR_Cube"] = np.ones((7, 173, 8), np.uint16)
    with pytest.raises(SceneError, match=r"another shape than the image; found 7 × 8; expected 7 × 9"):
        open_scene(made.path)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    make_prisma(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match=r"spectralmamba\[hdf5\]"):
        open_scene(tmp_path)
