from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import rasterio
from affine import Affine
from make_emit import GEOTRANSFORM, MASKS_V1, MASKS_V2, NAME, make_emit, make_mask

from spectralmamba import map_scene, open_labels
from spectralmamba.errors import LabelError, OutputError, SceneError
from spectralmamba.gis import GisFiles
from spectralmamba.scenes import has_georeference, open_scene, valid_mask
from spectralmamba.scenes.products.emit import orthorectify
from spectralmamba.splits import Split


def test_the_scene_is_in_the_geometry_of_the_sensor(tmp_path):
    made = make_emit(tmp_path)
    for path in (tmp_path, made.path):
        scene = open_scene(path)
        np.testing.assert_array_equal(scene.values, made.reflectance.astype(np.float32))
        np.testing.assert_allclose(scene["wavelength"].values, made.wavelength)
        assert not has_georeference(scene)
        assert scene.rio.crs is None
        assert scene.encoding["preferred_chunks"] == {"band": 285, "y": 4, "x": 4}
        assert scene.attrs["sensor"] == "EMIT"
        assert scene.attrs["acquisition_time"].startswith("2022-09-03T16:31:29")
        assert "clouds and cirrus are not masked" in scene.attrs["notes"][0]
    np.testing.assert_array_equal(scene[[200, 3], 4:6, 1].values, scene.values[[200, 3], 4:6, 1])


def test_the_products_own_flags_and_the_water_windows_are_not_good(tmp_path):
    made = make_emit(tmp_path / "a")
    good = open_scene(tmp_path / "a")["good"].values
    assert not good[~made.good].any()
    assert not good[(made.wavelength > 1436) & (made.wavelength < 1460)].any()
    kept = open_scene(tmp_path / "a", water_bands=True)["good"].values
    np.testing.assert_array_equal(kept, made.good)
    make_emit(tmp_path / "b", good_wavelengths=False)
    assert open_scene(tmp_path / "b", water_bands=True)["good"].values[made.good].all()


@pytest.mark.parametrize(("names", "version"), [(MASKS_V1, "001"), (MASKS_V2, "002")])
def test_masks_are_taken_by_name_and_not_by_place(tmp_path, names, version):
    make_emit(tmp_path)
    flags = {
        "Cloud flag": (2, 2),
        "Dilated Cloud Flag": (3, 3),
        "Cirrus flag": (4, 4),
        "Water flag": (5, 5),
        "Spacecraft Flag": (6, 6),
    }
    make_mask(tmp_path, flags, names=names, version=version)
    scene = open_scene(tmp_path)
    valid = valid_mask(scene)
    assert not valid[[2, 3, 4, 6], [2, 3, 4, 6]].any()
    assert valid.sum() == 8 * 7 - 4
    assert scene.attrs["masks"] == {"cloud": 2, "cirrus": 1, "defective": 1}
    assert valid_mask(open_scene(tmp_path, keep=["cirrus"]))[4, 4]


def test_pixels_with_many_interpolated_bands_are_defective(tmp_path):
    make_emit(tmp_path)
    interpolated = np.zeros((9, 7, 285), bool)
    interpolated[3, 4, :100] = True
    interpolated[4, 4, :3] = True
    make_mask(tmp_path, {}, interpolated=interpolated)
    valid = valid_mask(open_scene(tmp_path))
    assert not valid[3, 4]
    assert valid[4, 4]


def expected_ortho(made, layer, fill):
    result = np.full(made.glt_x.shape, fill, layer.dtype)
    for row, column in np.ndindex(*made.glt_x.shape):
        x, y = abs(int(made.glt_x[row, column])), abs(int(made.glt_y[row, column]))
        if x and y:
            result[row, column] = layer[y - 1, x - 1]
    return result


def test_layers_go_through_the_look_up_table(tmp_path):
    made = make_emit(tmp_path)
    ortho = open_scene(tmp_path).attrs["ortho"]
    layer = np.arange(1, 64, dtype=np.uint8).reshape(9, 7)
    found = orthorectify(layer, ortho, 0)
    np.testing.assert_array_equal(found, expected_ortho(made, layer, 0))
    assert found.dtype == np.uint8
    assert found[0].sum() == found[:, 0].sum() == 0  # 0 in the table is no data
    assert found[5, 3] == layer[4, 2]  # filled in: negative, from 1
    assert ortho["transform"] == list(Affine.from_gdal(*GEOTRANSFORM))[:6]


def test_strips_are_the_whole(tmp_path, monkeypatch):
    made = make_emit(tmp_path)
    ortho = open_scene(tmp_path).attrs["ortho"]
    layer = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)
    monkeypatch.setattr("spectralmamba.scenes.products.masks._STRIP_VALUES", 60)
    np.testing.assert_array_equal(orthorectify(layer, ortho, np.nan), expected_ortho(made, layer, np.nan))


def make_classifier(scene, quick):
    from spectralmamba import fit, split_random

    labels = scene[0].copy(data=np.zeros((9, 7), np.int32)).drop_vars("band")
    labels.values[1:5, :], labels.values[5:, :] = 1, 2
    labels.attrs = {"class_names": {1: "a", 2: "b"}, "class_colors": {1: "#ff0000", 2: "#00ff00"}, "report": {}}
    return fit(scene, labels, split_random(labels, per_class=4, patch=3), quick, device="cpu")


def test_a_map_is_written_on_the_map_grid(tmp_path, quick):
    made = make_emit(tmp_path / "product")
    scene = open_scene(tmp_path / "product")
    classifier = make_classifier(scene, quick)
    swath = map_scene(classifier, scene, tmp_path / "swath.tif", ortho=False)
    files = map_scene(classifier, scene, tmp_path / "map.tif")
    assert files.georeferenced
    assert not swath.georeferenced
    for kind in ("classes", "confidence", "novelty", "set_size"):
        there, here = getattr(files, kind), getattr(swath, kind)
        if there is None:
            continue
        with rasterio.open(there) as ortho, rasterio.open(here) as plain:
            fill = plain.nodata
            np.testing.assert_array_equal(ortho.read(1), expected_ortho(made, plain.read(1), fill))
            assert ortho.transform == Affine.from_gdal(*GEOTRANSFORM)
            assert ortho.crs.to_epsg() == 4326
            assert ortho.nodata == fill or np.isnan(fill)
            assert ortho.tags()["MODEL"] == plain.tags()["MODEL"]
    with rasterio.open(files.classes) as ortho:
        assert ortho.colormap(1)[1] == (255, 0, 0, 255)
    map_scene(classifier, scene, tmp_path / "map.zarr")
    import xarray as xr

    store = xr.open_zarr(tmp_path / "map.zarr", mask_and_scale=False)
    with rasterio.open(files.classes) as ortho:
        np.testing.assert_array_equal(store["class"].values, ortho.read(1))
    np.testing.assert_allclose(store["class"].rio.transform()[:6], Affine.from_gdal(*GEOTRANSFORM)[:6], rtol=1e-9)


def test_files_for_a_gis_are_those_of_the_map_grid(tmp_path, quick):
    geopandas = pytest.importorskip("geopandas")
    for package in ("PIL", "pystac"):
        pytest.importorskip(package)
    made = make_emit(tmp_path / "product")
    scene = open_scene(tmp_path / "product")
    classifier, wanted = make_classifier(scene, quick), GisFiles(polygons=True, overview=True, stac=True)
    files = map_scene(classifier, scene, tmp_path / "map.tif", gis=wanted)
    assert {"style", "areas", "google_earth"} < set(files.gis)
    item = json.loads(files.gis["stac_item"].read_text())
    assert item["properties"]["datetime"] == "2022-09-03T16:31:29Z"
    assert item["properties"]["proj:shape"] == list(made.glt_x.shape)
    assert item["bbox"][0] == pytest.approx(GEOTRANSFORM[0])
    polygons = geopandas.read_file(files.gis["polygons"], layer="map_polygons")
    with rasterio.open(files.classes) as raster:
        assert polygons["pixels"].sum() == np.count_nonzero(raster.read(1))
    # A pixel of 0.000542° is 46.8 m by 60.2 m at a latitude of 39.25°.
    assert polygons["hectares"].sum() / polygons["pixels"].sum() == pytest.approx(0.2817, abs=1e-3)
    with pytest.raises(OutputError, match=r"geometry of its sensor.*spectralmamba map"):
        map_scene(classifier, scene, tmp_path / "swath.tif", ortho=False, gis=wanted)


def test_corners_of_the_grid_are_those_of_the_geotransform_and_not_of_the_longitudes(tmp_path):
    make_emit(tmp_path)
    ortho = open_scene(tmp_path).attrs["ortho"]
    a, _, c, _, e, f = ortho["transform"]
    rows, columns = ortho["shape"]
    assert abs(c + columns * a - (GEOTRANSFORM[0] + columns * GEOTRANSFORM[1])) < 0.01 * a
    assert abs(f + rows * e - (GEOTRANSFORM[3] + rows * GEOTRANSFORM[5])) < 0.01 * a


@pytest.mark.parametrize(
    "part",
    [
        "sensor_band_parameters/wavelengths",
        "sensor_band_parameters/fwhm",
        "location/glt_x",
        "location",
        "geotransform",
        "reflectance",
    ],
)
def test_what_is_missing_is_named(tmp_path, part):
    make_emit(tmp_path, without=(part,))
    with pytest.raises(SceneError, match=f"a part of the product is missing; found no (attribute )?{part}"):
        open_scene(tmp_path)


def test_radiance_and_a_mask_alone_are_said(tmp_path):
    make_emit(tmp_path / "a", name=NAME.replace("L2A_RFL", "L1B_RAD"))
    with pytest.raises(SceneError, match="another product level; found L1B"):
        open_scene(tmp_path / "a")
    (tmp_path / "b").mkdir()
    make_mask(tmp_path / "b", {})
    with pytest.raises(SceneError, match="a file of the product is missing; found EMIT_L2A_MASK"):
        open_scene(tmp_path / "b")
    made = make_emit(tmp_path / "c")
    with h5py.File(made.path, "r+") as file:
        file.move("reflectance", "radiance")
    with pytest.raises(SceneError, match="another product level; found radiance"):
        open_scene(tmp_path / "c")


def test_uncertainty_and_radiance_beside_it_are_no_second_product(tmp_path):
    make_emit(tmp_path)
    for other in ("L2A_RFLUNCERT", "L1B_RAD", "L1B_OBS"):
        make_emit(tmp_path, name=NAME.replace("L2A_RFL", other))
    assert open_scene(tmp_path).attrs["product"] == NAME


def test_a_look_up_table_that_leads_out_of_the_scene_is_refused(tmp_path):
    made = make_emit(tmp_path)
    with h5py.File(made.path, "r+") as file:
        file["location/glt_x"][3, 3] = 400
    ortho = open_scene(tmp_path).attrs["ortho"]
    with pytest.raises(SceneError, match="leads out of the scene; found row or column 400; expected at most 7"):
        orthorectify(np.zeros((9, 7)), ortho, 0)


def test_masks_of_another_shape_or_without_names_are_refused(tmp_path):
    make_emit(tmp_path)
    make_mask(tmp_path, {}, shape=(5, 7))
    with pytest.raises(SceneError, match="mask has another shape than the image; found 5 × 7"):
        open_scene(tmp_path)
    make_mask(tmp_path, {}, names=("a", "b"))
    with pytest.raises(SceneError, match="no band of the mask flags clouds; found a, b"):
        open_scene(tmp_path)


# Labels ------------------------------------------------------------------------------------------


def located(shapes, **columns):
    """Features that are given in pixels (column, row) of the map grid."""
    geopandas = pytest.importorskip("geopandas")
    from shapely import affinity

    left, width, _, top, _, height = GEOTRANSFORM
    placed = [affinity.affine_transform(shape, [width, 0, 0, height, left, top]) for shape in shapes]
    return geopandas.GeoDataFrame(columns, geometry=placed, crs="EPSG:4326").to_crs("EPSG:32612")


def test_polygons_and_points_reach_the_sensors_pixels_through_the_look_up_table(tmp_path):
    from shapely.geometry import Point, box

    made = make_emit(tmp_path)
    scene = open_scene(tmp_path)
    shapes = [box(1.6, 3.6, 4.4, 6.4), Point(6.5, 2.5), box(20, 20, 22, 22), Point(0.5, 0.5)]
    labels = open_labels(located(shapes, crop=["beet", "wheat", "beet", "beet"]), scene)
    expected = np.zeros((9, 7), int)
    for row, column in [(row, column) for row in range(4, 6) for column in range(2, 4)]:
        expected[abs(made.glt_y[row, column]) - 1, abs(made.glt_x[row, column]) - 1] = 1
    expected[abs(made.glt_y[2, 6]) - 1, abs(made.glt_x[2, 6]) - 1] = 2
    np.testing.assert_array_equal(labels, expected)
    assert labels.attrs["report"]["outside_scene"] == 2  # one beside the map grid, one where nothing was measured
    fields = labels.coords["field"].values
    assert len(np.unique(fields)) == 3
    np.testing.assert_array_equal(fields > 0, expected > 0)
    assert labels.rio.crs is None


def test_a_pixel_of_the_sensor_that_gets_two_classes_is_left_out_and_counted(tmp_path):
    from shapely.geometry import Point

    made = make_emit(tmp_path)
    assert (made.glt_y[9:, 4] == 9).all()  # several rows of the map grid show the last line
    shapes = [Point(4.5, 9.5), Point(4.5, 10.5), Point(2.5, 5.5)]
    labels = open_labels(located(shapes, id=[1, 2, 1]), open_scene(tmp_path))
    assert labels.attrs["report"]["conflicting_pixels"] == 1
    assert labels.values[8, 3] == 0
    assert (labels.values > 0).sum() == 1


def test_features_beside_the_map_grid_are_refused_with_both_extents(tmp_path):
    from shapely.geometry import Point

    make_emit(tmp_path)
    with pytest.raises(LabelError, match=r"lies in the scene; found features in x .*expected the scene's x -110\.5"):
        open_labels(located([Point(400, 400)], id=[1]), open_scene(tmp_path))


def test_one_command_leads_from_polygons_to_a_map_in_the_geometry_of_the_sensor(tmp_path):
    from shapely.geometry import box

    from cli_example import command_line

    made = make_emit(tmp_path / "emit", shape=(16, 14), ortho_shape=(17, 15))
    shapes = [box(column, row, column + 3, row + 3) for row in (3, 8, 12) for column in (2, 6, 11)]
    fields = tmp_path / "fields.gpkg"
    located(shapes, crop=["beet", "wheat"] * 4 + ["beet"]).to_file(fields)
    words = ("--model", "label_propagation", "--patch", 1, "--out", tmp_path / "out")
    answer = command_line("run", made.path, fields, *words)
    assert answer.code == 0, answer
    split, ids = Split.load(tmp_path / "out" / "split.tif")
    assert ids.shape == (16, 14)
    assert split.record["method"] == "fields"
    assert sum(count["train"] + count["test"] for count in split.record["fields"].values()) == 9
    with rasterio.open(tmp_path / "out" / "map.tif") as file:
        assert file.shape == ids.shape
