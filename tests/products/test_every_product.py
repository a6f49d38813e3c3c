"""What holds for every product alike."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from all_products import KNOWN, SEVEN, pack
from cut_files import check_refused_or_whole
from pyproj import Geod, Transformer

from cli_example import command_line
from spectralmamba.scenes import open_scene

GLOBE = Geod(ellps="WGS84")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRALMAMBA_CACHE", str(tmp_path / "cache"))


def write_labels(path, shape):
    """Two classes, one above the other, in the scene's own rows and columns."""
    ids = np.zeros(shape, np.uint8)
    ids[1 : shape[0] // 2, 1:], ids[shape[0] // 2 :, 1:] = 1, 2
    np.save(path, ids)
    return path


@pytest.mark.parametrize("name", SEVEN)
def test_the_same_commands_open_train_and_map_it_in_a_folder_and_in_a_zip(tmp_path, name):
    folder = tmp_path / "product"
    KNOWN[name].make(folder)
    scene = open_scene(folder)
    labels = write_labels(tmp_path / "labels.npy", scene.shape[1:])
    maps = []
    for place in (folder, pack(tmp_path / "product.zip", folder)):
        out = tmp_path / f"of {place.name}"
        told = command_line("info", place)
        assert told.code == 0, told
        assert KNOWN[name].sensor in told.out
        words = ("--model", "support_vectors", "--patch", 1, "--split", "random", "--per-class", 5)
        ran = command_line("run", place, labels, *words, "--out", out)
        assert ran.code == 0, ran
        mapped = command_line("map", out / "model.safetensors", place, "--out", tmp_path / f"{place.name}.tif")
        assert mapped.code == 0, mapped
        with rasterio.open(tmp_path / f"{place.name}.tif") as raster:
            maps.append(raster.read(1))
            np.testing.assert_allclose(raster.transform[:6], KNOWN[name].transform[:6], rtol=1e-9, atol=1e-9)
            assert raster.crs.to_epsg() == KNOWN[name].epsg
        if name != "emit":  # its map is on a grid of its own
            np.testing.assert_array_equal(maps[-1] > 0, np.isfinite(scene[scene["good"].values].values).all(axis=0))
    assert np.isin(maps[0], [0, 1, 2]).all()
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", KNOWN)
def test_corners_lie_within_a_hundredth_of_a_pixel_on_the_globe(tmp_path, name, zipped):
    product, folder = KNOWN[name], tmp_path / "product"
    product.make(folder)
    scene = open_scene(pack(tmp_path / "product.zip", folder) if zipped else folder)
    found, crs, (rows, columns) = scene.rio.transform(), scene.rio.crs, scene.shape[1:]
    if "ortho" in scene.attrs:  # where its maps lie
        ortho = scene.attrs["ortho"]
        found, crs, (rows, columns) = Affine(*ortho["transform"]), rasterio.CRS.from_wkt(ortho["crs"]), ortho["shape"]
    expected_to_globe = Transformer.from_crs(product.epsg, 4326, always_xy=True)
    found_to_globe = Transformer.from_crs(crs.to_wkt(), 4326, always_xy=True)

    def on_globe(transform, to_globe, column, row):
        a, b, c, d, e, f = transform[:6]
        return to_globe.transform(a * column + b * row + c, d * column + e * row + f)

    start, beside, below = (
        on_globe(product.transform, expected_to_globe, *pixel) for pixel in ((0, 0), (1, 0), (0, 1))
    )
    pixel_size = min(GLOBE.inv(*start, *beside)[2], GLOBE.inv(*start, *below)[2])
    for corner in ((0, 0), (columns, 0), (0, rows), (columns, rows)):
        wanted = on_globe(product.transform, expected_to_globe, *corner)
        *_, distance = GLOBE.inv(*wanted, *on_globe(found, found_to_globe, *corner))
        assert distance < 0.01 * pixel_size, f"{corner}: {distance} m"


CUT = [(name, ending) for name, product in KNOWN.items() for ending in product.files]


@pytest.mark.parametrize(("name", "ending"), CUT)
def test_a_file_cut_at_every_64th_is_refused_or_read_whole(tmp_path, name, ending):
    KNOWN[name].make(tmp_path)
    whole = open_scene(tmp_path)
    whole.load()
    for path in sorted(path for path in tmp_path.iterdir() if path.name.endswith(ending)):
        content = path.read_bytes()
        for part in range(64):
            path.write_bytes(content[: len(content) * part // 64])
            check_refused_or_whole(tmp_path, path, whole)
        path.write_bytes(content)
