from __future__ import annotations

import h5py
import numpy as np
import pytest
from affine import Affine
from make_aviris import AV3, AV3_ENVI, AV5, NG, NG_CORR, make_aviris_envi, make_aviris_netcdf
from pyproj import Geod, Transformer

from spectralmamba.errors import SceneError
from spectralmamba.scenes import open_scene
from spectralmamba.scenes.products.bands import WATER_ABSORPTION


def nan_of(cube: np.ndarray) -> np.ndarray:
    return np.where(cube == -9999, np.nan, cube)


@pytest.mark.parametrize("name", [NG, NG_CORR, AV3_ENVI])
def test_envi_products(tmp_path, name):
    data, cube, wavelength = make_aviris_envi(tmp_path, name)
    for path in (tmp_path, data, tmp_path / f"{name}.hdr"):
        scene = open_scene(path)
        np.testing.assert_array_equal(scene.values, nan_of(cube).astype(np.float32))
        np.testing.assert_allclose(scene["wavelength"].values, wavelength, atol=1e-4)
        assert scene.attrs["sensor"] == ("AVIRIS-3" if name == AV3_ENVI else "AVIRIS-NG")
        assert scene.attrs["acquisition_time"].startswith("20")
        assert scene.attrs["product"] == name
        assert scene.attrs["source"] == str(data)


def test_fill_is_known_where_the_header_does_not_tell_it(tmp_path):
    make_aviris_envi(tmp_path, ignore=False)
    assert np.isnan(open_scene(tmp_path).values[:, 0, 0]).all()


@pytest.mark.parametrize("rotation", [0.0, -31.5, 17.25, 90.0, -135.0])
def test_rotated_corners_are_those_of_the_header(tmp_path, rotation):
    make_aviris_envi(tmp_path, rotation=rotation)
    found = open_scene(tmp_path).rio.transform()
    angle = np.radians(rotation)
    # ENVI turns the image counter-clockwise about its tie point: along a row the map runs at `rotation` to the east.
    along = np.array([np.cos(angle), np.sin(angle)]) * 4.9
    down = np.array([np.sin(angle), -np.cos(angle)]) * 4.9
    for column, row in ((0, 0), (6, 0), (0, 7), (6, 7)):
        expected = np.array([588000.5, 3760000.25]) + column * along + row * down
        assert abs(found.c + column * found.a + row * found.b - expected[0]) < 0.01 * 4.9
        assert abs(found.f + column * found.d + row * found.e - expected[1]) < 0.01 * 4.9


def test_a_row_of_a_rotated_line_runs_where_the_globe_says(tmp_path):
    make_aviris_envi(tmp_path, rotation=-31.5)
    scene = open_scene(tmp_path)
    found = scene.rio.transform()
    to_degrees = Transformer.from_crs(scene.rio.crs.to_wkt(), 4326, always_xy=True)
    start, end = (to_degrees.transform(found.c + n * found.a, found.f + n * found.d) for n in (0, 6))
    azimuth, _, length = Geod(ellps="WGS84").inv(*start, *end)
    assert length == pytest.approx(6 * 4.9, rel=1e-3)
    assert azimuth == pytest.approx(90 + 31.5, abs=1.5)  # and the convergence of the meridians


@pytest.mark.parametrize(
    ("name", "bands"), [(AV3, 284), (AV5, 425), ("ang20231022t092801_000_L2A_OE_0b4f48b4_RFL_ORT", 425)]
)
def test_netcdf_products(tmp_path, name, bands):
    path, cube, wavelength = make_aviris_netcdf(tmp_path, name, bands=bands)
    for place in (tmp_path, path):
        scene = open_scene(place)
        np.testing.assert_array_equal(scene.values, nan_of(cube).astype(np.float32))
        np.testing.assert_allclose(scene["wavelength"].values, wavelength)
        assert scene.rio.crs.to_epsg() == 32611
        assert scene.attrs["sensor"] == {"AV3": "AVIRIS-3", "AV5": "AVIRIS-5"}.get(name[:3], "AVIRIS-NG")
        assert scene.encoding["preferred_chunks"] == {"band": bands, "y": 4, "x": 4}
    part = scene.values[3:9, 2:, 1]
    np.testing.assert_array_equal(scene[3:9, 2:, 1].values, part)
    np.testing.assert_array_equal(open_scene(path.rename(tmp_path / "line.nc"))[3:9, 2:, 1].values, part)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(4.9, 0, 360000, 0, -4.9, 3800000),
        Affine(3, 1, 360000, 1, -3, 3800000),
        Affine(4, 0, 360000, 0, 4, 3800000),
    ],
    ids=["north up", "rotated", "south up"],
)
def test_netcdf_corners(tmp_path, transform):
    make_aviris_netcdf(tmp_path, transform=transform)
    found = open_scene(tmp_path).rio.transform()
    for column, row in ((0, 0), (6, 0), (0, 7), (6, 7)):
        x = transform.c + column * transform.a + row * transform.b
        y = transform.f + column * transform.d + row * transform.e
        assert abs(found.c + column * found.a + row * found.b - x) < 0.01
        assert abs(found.f + column * found.d + row * found.e - y) < 0.01


def test_water_windows_and_the_bands_that_the_header_calls_bad(tmp_path):
    _, _, wavelength = make_aviris_envi(tmp_path, bbl=True)
    scene = open_scene(tmp_path)
    water = np.any([(wavelength >= low) & (wavelength <= high) for low, high in WATER_ABSORPTION], axis=0)
    np.testing.assert_array_equal(scene["good"].values, ~water & (wavelength < 2400))
    np.testing.assert_array_equal(open_scene(tmp_path, water_bands=True)["good"].values, wavelength < 2400)


def test_radiance_is_said(tmp_path):
    make_aviris_envi(tmp_path / "a", "ang20190624t230039_rdn_v2u1_img")
    with pytest.raises(SceneError, match="another product level; found radiance"):
        open_scene(tmp_path / "a")
    path, *_ = make_aviris_netcdf(tmp_path / "b")
    with h5py.File(path, "r+") as file:
        file.move("reflectance", "radiance")
        file.move("radiance/reflectance", "radiance/radiance")
    with pytest.raises(SceneError, match="another product level; found radiance"):
        open_scene(path.rename(tmp_path / "b" / "line.nc"))


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("reflectance/wavelength", "found no reflectance/wavelength"),
        ("reflectance/fwhm", "found no reflectance/fwhm"),
        ("reflectance", "found no reflectance/reflectance"),
        ("transverse_mercator", "found no transverse_mercator"),
        ("crs_wkt", "crs_wkt 'missing'"),
        ("GeoTransform", "GeoTransform 'missing'"),
    ],
)
def test_what_is_missing_is_named(tmp_path, without, message):
    make_aviris_netcdf(tmp_path, without=(without,))
    with pytest.raises(SceneError, match=message):
        open_scene(tmp_path)


def test_an_envi_product_lacks_header_data_or_wavelengths(tmp_path):
    data, *_ = make_aviris_envi(tmp_path / "a")
    (tmp_path / "a" / f"{NG}.hdr").unlink()
    with pytest.raises(SceneError, match="a file of the product is missing"):
        open_scene(data)
    data, *_ = make_aviris_envi(tmp_path / "b")
    data.unlink()
    with pytest.raises(SceneError, match=f"a file of the product is missing; found no {NG}"):
        open_scene(tmp_path / "b")
    make_aviris_envi(tmp_path / "c", units="wavelength units = furlongs\n")
    with pytest.raises(SceneError, match="the header has no wavelengths"):
        open_scene(tmp_path / "c")
