from __future__ import annotations

import pickle

import numpy as np
import pytest
import rasterio
from affine import Affine
from make_enmap import CRS, TRANSFORM, make_enmap
from raster_files import write_tiff

from spectralmamba.errors import SceneError
from spectralmamba.scenes import open_scene, valid_mask
from spectralmamba.scenes.products.bands import OVERLAP_REASON, WATER_ABSORPTION, WATER_REASON
from spectralmamba.scenes.products.masks import DEFECTIVE_SHARE


def spot(*places: tuple[int, int]) -> np.ndarray:
    layer = np.zeros((8, 10), np.uint8)
    for place in places:
        layer[place] = 1
    return layer


def reflectance(dn: np.ndarray) -> np.ndarray:
    return np.where(dn == -32768, np.nan, dn * 1e-4).astype(np.float32)


@pytest.mark.parametrize(
    ("image_format", "xml_suffix"),
    [
        ("TIF", ".XML"),
        ("tif", ".xml"),
        ("GEOTIFF", ".XML"),
        ("_COG.tiff", ".xml"),
        ("BSQ", ".XML"),
        ("BIL", ".XML"),
        ("BIP", ".xml"),
    ],
)
def test_every_delivered_format_gives_the_same_scene(tmp_path, image_format, xml_suffix):
    made = make_enmap(tmp_path / "product", image_format=image_format, xml_suffix=xml_suffix)
    for path in (made.folder, made.image, made.file("METADATA")):
        scene = open_scene(path)
        np.testing.assert_allclose(scene.values, reflectance(made.dn), rtol=1e-6)
        np.testing.assert_allclose(scene["wavelength"].values, made.wavelength, atol=1e-4)
        assert scene.rio.transform() == TRANSFORM
        assert scene.rio.crs == rasterio.CRS.from_string(CRS)
        assert scene.rio.encoded_nodata == -32768
        assert scene.attrs["sensor"] == "EnMAP"
        assert scene.attrs["product_level"] == "L2A"
        assert scene.attrs["acquisition_time"] == "2022-06-11T07:23:05.123Z"
        assert scene.attrs["source"] == str(made.image)


def test_windows_and_single_bands_are_those_of_the_whole(tmp_path):
    made = make_enmap(
        tmp_path, layers={"CLOUD": spot((2, 3))}, tiled=True, blockxsize=16, blockysize=16, compress="deflate"
    )
    scene = open_scene(tmp_path)
    assert scene.encoding["preferred_chunks"] == {"band": 224, "y": 16, "x": 16}
    whole = scene.values
    for key in (np.s_[3:5, 1:4, 2:], np.s_[[200, 3, 90], 2, 3], np.s_[7, :, -1]):
        np.testing.assert_array_equal(scene[key].values, whole[key])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(scene)).values, whole)
    assert np.isnan(whole[:, 2, 3]).all()
    del made


def test_wavelengths_are_of_the_file_and_not_of_a_table_by_detector(tmp_path):
    made = make_enmap(tmp_path)
    scene = open_scene(tmp_path)
    assert (np.diff(scene["wavelength"]) > 0).all()
    assert made.swir[:91].any()  # the detectors interleave
    assert not made.swir[91:].all()
    np.testing.assert_allclose(scene["fwhm"].values, 7 + np.arange(224) / 100, atol=1e-3)


def test_bands_out_of_order_in_the_file_are_put_in_order(tmp_path):
    made = make_enmap(tmp_path)
    order = np.random.default_rng(1).permutation(224)
    with rasterio.open(made.image) as dataset:
        profile = dataset.profile
    from make_enmap import metadata_xml

    write_tiff(made.image, made.dn[order], **{k: profile[k] for k in ("crs", "transform", "nodata")})
    made.file("METADATA").write_text(metadata_xml(made.wavelength[order], made.swir[order], made.empty[order]))
    scene = open_scene(tmp_path)
    np.testing.assert_allclose(scene["wavelength"].values, made.wavelength, atol=1e-4)
    np.testing.assert_allclose(scene.values, reflectance(made.dn), rtol=1e-6)
    np.testing.assert_array_equal(scene[[5, 200], 1:3].values, reflectance(made.dn)[[5, 200], 1:3])


def test_band_numbers_beside_the_characterisation_are_not_taken(tmp_path):
    made = make_enmap(tmp_path)
    assert made.file("METADATA").read_text().count("<bandID") == 3 * 224
    assert open_scene(tmp_path).sizes["band"] == 224


def test_empty_water_and_overlapping_bands_are_not_good(tmp_path):
    made = make_enmap(tmp_path)
    reasons = open_scene(tmp_path).attrs["bad_band_reasons"]
    for band in np.flatnonzero(made.empty) + 1:
        assert "standard deviation 0" in reasons[int(band)]
    (low, high), _ = WATER_ABSORPTION
    water = (made.wavelength >= low) & (made.wavelength <= high) & ~made.empty
    assert {reasons[int(band)] for band in np.flatnonzero(water) + 1} == {WATER_REASON}
    kept = open_scene(tmp_path, water_bands=True).attrs["bad_band_reasons"]
    assert not [band for band in np.flatnonzero(water) + 1 if int(band) in kept]


def test_each_detector_is_used_to_the_middle_of_the_overlap(tmp_path):
    made = make_enmap(tmp_path)
    scene = open_scene(tmp_path)
    good, middle = scene["good"].values, (902.7 + 993.3) / 2
    assert not good[made.swir & (made.wavelength <= middle)].any()
    assert not good[~made.swir & (made.wavelength > middle)].any()
    assert good[~made.swir & (made.wavelength <= middle)].all()
    assert good[made.swir & (made.wavelength > middle) & (made.wavelength < 1300)].all()
    assert OVERLAP_REASON in scene.attrs["bad_band_reasons"].values()


def test_what_the_product_calls_cloud_and_so_on_is_masked_and_counted(tmp_path):
    places = {"CLOUD": (1, 1), "CLOUDSHADOW": (2, 2), "CIRRUS": (3, 3), "HAZE": (4, 4), "SNOW": (5, 5)}
    make_enmap(tmp_path, layers={name: spot(place, (0, 9)) for name, place in places.items()})
    scene = open_scene(tmp_path)
    valid = valid_mask(scene)
    expected = np.ones((8, 10), bool)
    expected[:, 0] = False
    for place in (*places.values(), (0, 9)):
        expected[place] = False
    np.testing.assert_array_equal(valid, expected)
    assert scene.attrs["masks"] == {
        "background": 8, "cloud": 2, "shadow": 2, "cirrus": 2, "haze": 2, "snow": 2, "defective": 0,
    }  # fmt: skip
    scene = open_scene(tmp_path, keep=["cloud", "haze"])
    assert valid_mask(scene)[1, 1]
    assert valid_mask(scene)[4, 4]
    assert not valid_mask(scene)[0, 9]
    assert "cloud" not in scene.attrs["masks"]
    assert scene.attrs["masks_kept"] == ["cloud", "haze"]


def test_background_of_the_quality_layers_is_no_cloud(tmp_path):
    make_enmap(tmp_path)  # 255 in its first column
    assert open_scene(tmp_path).attrs["masks"]["cloud"] == 0


def test_zero_is_good_in_the_pixel_mask_and_a_few_dead_elements_do_not_leave_out_a_pixel(tmp_path):
    defects = np.zeros((224, 8, 10), np.uint8)
    defects[:5, 3, 4] = 1  # a few of 170 good bands
    defects[:60, 5, 6] = 1
    made = make_enmap(tmp_path, pixelmask=defects)
    scene = open_scene(tmp_path)
    good = scene["good"].values
    assert defects[good, 3, 4].mean() < DEFECTIVE_SHARE < defects[good, 5, 6].mean()
    assert scene.attrs["masks"]["defective"] == 1
    assert valid_mask(scene)[3, 4]
    assert not valid_mask(scene)[5, 6]
    assert valid_mask(open_scene(tmp_path, keep="defective"))[5, 6]
    del made


def test_a_pixel_mask_of_the_other_polarity_is_spoken_of(tmp_path):
    defects = np.ones((224, 8, 10), np.uint8)
    defects[:, 0] = 0
    make_enmap(tmp_path, pixelmask=defects)
    scene = open_scene(tmp_path)
    assert any("--keep defective" in note for note in scene.attrs["notes"])


@pytest.mark.parametrize("transform", [TRANSFORM, Affine(30, 0, 283455, 0, 30, 2000000)], ids=["north up", "south up"])
def test_corners_are_those_of_affine_arithmetic(tmp_path, transform):
    make_enmap(tmp_path, transform=transform)
    scene = open_scene(tmp_path)
    a, b, c, d, e, f = scene.rio.transform()[:6]
    for column, row in ((0, 0), (10, 0), (0, 8), (10, 8)):
        x, y = transform.c + column * transform.a, transform.f + row * transform.e
        assert abs(a * column + b * row + c - x) < 0.01 * 30
        assert abs(d * column + e * row + f - y) < 0.01 * 30
    assert scene["x"].values[0] == transform.c + 15
    assert scene["y"].values[0] == transform.f + transform.e / 2


@pytest.mark.parametrize(
    ("part", "remedy"),
    [
        ("SPECTRAL_IMAGE", "download"),
        ("METADATA", "download"),
        ("QL_QUALITY_CLOUD", "--keep cloud"),
        ("QL_PIXELMASK", "--keep defective"),
    ],
)
def test_a_missing_file_is_named(tmp_path, part, remedy):
    made = make_enmap(tmp_path)
    made.file(part).unlink()
    with pytest.raises(SceneError, match=f"a file of the product is missing; found no {made.stem}-{part}") as caught:
        open_scene(tmp_path)
    assert remedy in str(caught.value)


def test_a_layer_that_is_kept_need_not_be_there(tmp_path):
    made = make_enmap(tmp_path)
    made.file("QL_QUALITY_HAZE").unlink()
    assert open_scene(tmp_path, keep=["haze"]).attrs["masks_kept"] == ["haze"]


def test_two_products_in_one_folder_are_refused_and_one_can_be_named(tmp_path):
    first = make_enmap(tmp_path)
    second = make_enmap(tmp_path, stem=first.stem.replace("_002_", "_003_"))
    with pytest.raises(SceneError, match="holds several products") as caught:
        open_scene(tmp_path)
    assert first.stem in str(caught.value)
    assert second.stem in str(caught.value)
    assert open_scene(second.image).attrs["product"] == second.stem


def test_level_1_is_said_by_name_and_by_metadata(tmp_path):
    make_enmap(tmp_path / "a", stem="ENMAP01-____L1C-DT0000001053_20220611T072305Z_002_V010400_20231221T134421Z")
    with pytest.raises(SceneError, match=r"another product level; found L1C; expected L2A"):
        open_scene(tmp_path / "a")
    make_enmap(tmp_path / "b", level="L1C")
    with pytest.raises(SceneError, match=r"another product level; found L1C; expected L2A"):
        open_scene(tmp_path / "b")


def test_jpeg_2000_is_said(tmp_path):
    made = make_enmap(tmp_path)
    made.image.rename(made.image.with_suffix(".JP2"))
    with pytest.raises(SceneError, match="JPEG 2000 is not read"):
        open_scene(tmp_path)


def change(made, old: str, new: str, count: int = -1) -> None:
    text = made.file("METADATA").read_text()
    assert old in text
    made.file("METADATA").write_text(text.replace(old, new, count))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('<bandID number="17"><wavelength', '<bandID number="300"><wavelength', "a band is missing in the metadata"),
        ('<bandID number="17"><wavelength', '<bandID number="16"><wavelength', "a band is there twice"),
        ('<bandID number="17"><wavelength', "<bandID><wavelength", "has no number"),
        ("<GainOfBand>0.0001", "<GainOfBand>NaN", "GainOfBand of band 1 is no number"),
        ("<bandCharacterisation>", "<bandCharacterisations>", "cannot be read as XML"),
        ("wavelengthCenterOfBand>", "wavelength>", "wavelengthCenterOfBand of band 1 is no number"),
        ("<wavelengthCenterOfBand>418.2000<", "<wavelengthCenterOfBand>0.4182<", "impossible wavelengths"),
        ("<expectedChannelsList>1,", "<expectedChannelsList>999,", "a channel is listed that is not there"),
        ("<expectedChannelsList>1,", "<expectedChannelsList>one,", "cannot be understood"),
        ("<stdDeviation>800.5<", "<stdDeviation>0.0<", "no band of the scene can be used"),
    ],
)  # fmt: skip
def test_metadata_that_make_no_sense_are_refused(tmp_path, old, new, message):
    made = make_enmap(tmp_path)
    change(made, old, new)
    with pytest.raises(SceneError, match=message):
        open_scene(tmp_path)


def test_two_good_bands_of_one_wavelength_are_refused(tmp_path):
    made = make_enmap(tmp_path)
    change(made, f">{made.wavelength[1]:.4f}<", f">{made.wavelength[0]:.4f}<")
    with pytest.raises(SceneError, match=r"two good bands have the same wavelength; found 418\.2 nm"):
        open_scene(tmp_path)


def test_images_of_another_shape_or_type_are_refused(tmp_path):
    made = make_enmap(tmp_path / "a")
    write_tiff(made.image, made.dn[:100])
    with pytest.raises(SceneError, match=r"100 bands .*; expected 224 bands"):
        open_scene(made.folder)
    write_tiff(made.image, made.dn.astype(np.float32))
    with pytest.raises(SceneError, match="values of another type; found float32"):
        open_scene(made.folder)
    write_tiff(made.image, made.dn[:, :5])
    with pytest.raises(SceneError, match="another shape than the image; found 8 × 10; expected 5 × 10"):
        open_scene(made.folder)


def test_format_forces_the_reader(tmp_path):
    made = make_enmap(tmp_path)
    plain = open_scene(made.image, format="geotiff")
    assert "sensor" not in plain.attrs
    for path in tmp_path.iterdir():
        path.rename(path.with_name(path.name.replace(made.stem, "mine")))
    assert open_scene(tmp_path, format="enmap").attrs["sensor"] == "EnMAP"
    with pytest.raises(SceneError, match="there is no such format"):
        open_scene(made.folder, format="landsat")
