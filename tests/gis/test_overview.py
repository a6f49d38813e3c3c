from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from map_example import COLORS, IDS, MakeMap

from spectralmamba.errors import MissingPackageError, OutputError
from spectralmamba.gis import overview, write_overlay, write_picture
from spectralmamba.gis.finished_map import open_map
from spectralmamba.scenes.palette import rgb

Image = pytest.importorskip("PIL.Image")
KML = "{http://www.opengis.net/kml/2.2}"
WOOD, FIELD, LAKE = (rgb(COLORS[id_]) for id_ in (1, 2, 7))


def colors_of(path: Path) -> dict[tuple[int, int, int], int]:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(color): int(count) for color, count in zip(found.tolist(), counts, strict=True)}


def test_a_small_map_is_enlarged_and_has_a_legend(make_map: MakeMap, tmp_path: Path) -> None:
    found = colors_of(write_picture(make_map(), tmp_path / "map.png"))
    in_map, swatch = overview.LARGEST_ZOOM**2, (overview._SWATCH - 1) ** 2
    for color, pixels in ((WOOD, 5), (FIELD, 16), (LAKE, 1)):
        assert found[color] == pixels * in_map + swatch
    assert found[rgb(overview._NO_CLASS)] >= 2 * in_map + swatch  # and edges of letters
    assert found[overview._TEXT] > 200  # letters


def test_a_large_map_is_made_smaller(make_map: MakeMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "LONGEST_SIDE", 3)
    picture, scale = overview._enlarged(open_map(make_map()))
    assert picture.size == (3, 2)
    assert scale == 2


@pytest.mark.parametrize(
    ("place", "metres"),
    [
        ({}, 10),
        ({"crs": "EPSG:2263"}, 10 * 1200 / 3937),  # US survey feet
        ({"crs": "EPSG:4326", "transform": Affine(0.001, 0, 13, 0, -0.001, 60)}, 55.7),
        ({"crs": None}, None),
    ],
    ids=["metres", "feet", "degrees", "no CRS"],
)
def test_the_scale_is_that_of_the_ground(make_map: MakeMap, place: dict, metres: float | None) -> None:
    mapped = open_map(make_map(**place))
    assert overview._pixel_width(mapped) == (None if metres is None else pytest.approx(metres, rel=2e-3))
    assert (overview._scale_bar(mapped, 1) is None) == (metres is None)


@pytest.mark.parametrize(("most", "length"), [(1999, 1000), (2000, 2000), (4.9, 2), (0.07, 0.05)])
def test_a_scale_has_a_round_length(most: float, length: float) -> None:
    assert overview._round_length(most) == pytest.approx(length)


def test_names_that_are_long_or_of_another_script_are_written(make_map: MakeMap, tmp_path: Path) -> None:
    names = '{"1": "' + "long " * 60 + '", "2": "森林", "7": "öl"}'
    size = Image.open(write_picture(make_map(tags={"CLASS_NAMES": names}), tmp_path / "map.png")).size
    assert size[0] > 1500


def test_an_empty_map_has_a_picture(make_map: MakeMap, tmp_path: Path) -> None:
    assert rgb(overview._NO_CLASS) in colors_of(write_picture(make_map(np.zeros_like(IDS)), tmp_path / "map.png"))


def test_the_overlay_lies_where_the_map_does(make_map: MakeMap, tmp_path: Path) -> None:
    path = make_map()
    with zipfile.ZipFile(write_overlay(path, tmp_path / "map.kmz")) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["doc.kml", "map.png", "legend.png"]  # the first .kml is what is opened
        root = ElementTree.fromstring(archive.read("doc.kml"))
        picture = np.asarray(Image.open(io.BytesIO(archive.read("map.png"))))
        legend = Image.open(io.BytesIO(archive.read("legend.png")))
    box = root.find(f"{KML}Document/{KML}GroundOverlay/{KML}LatLonBox")
    assert box is not None
    west, south, east, north = (float(box.findtext(f"{KML}{side}", "")) for side in ("west", "south", "east", "north"))
    with rasterio.open(path) as raster:
        whole = rasterio.warp.transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)
        # The middle of the map's first pixel is wood, that of its last nodata.
        spots = [raster.xy(0, 0), raster.xy(1, 3), raster.xy(3, 5)]
        x, y = rasterio.warp.transform(raster.crs, "EPSG:4326", *zip(*spots, strict=True))[:2]
    assert (west, south, east, north) == pytest.approx(whole, abs=2e-4)
    height, width, _ = picture.shape
    at = [
        picture[int((north - latitude) / (north - south) * height), int((longitude - west) / (east - west) * width)]
        for longitude, latitude in zip(x, y, strict=True)
    ]
    assert [tuple(color) for color in at] == [(*WOOD, 255), (*LAKE, 255), (0, 0, 0, 0)]
    assert {tuple(color) for color in picture.reshape(-1, 4).tolist()} == {
        (*WOOD, 255), (*FIELD, 255), (*LAKE, 255), (0, 0, 0, 0),
    }  # fmt: skip
    assert legend.width > 100


def test_an_overlay_is_no_larger_than_its_limit(
    make_map: MakeMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_map(np.kron(IDS, np.ones((10, 10), np.uint8)))
    fine = overview._in_degrees(open_map(path))
    assert max(fine[0].shape) == overview.SHORTEST_OVERLAY
    monkeypatch.setattr(overview, "LONGEST_OVERLAY", 12)
    coarse = overview._in_degrees(open_map(path))
    assert max(coarse[0].shape) == 12
    assert coarse[1:] == pytest.approx(fine[1:])
    assert set(np.unique(coarse[0])) <= set(np.unique(IDS))


def test_the_same_map_gives_the_same_bytes(make_map: MakeMap, tmp_path: Path) -> None:
    path = make_map()
    for write, name in ((write_picture, "png"), (write_overlay, "kmz")):
        first, second = (write(path, tmp_path / f"{number}.{name}").read_bytes() for number in (1, 2))
        assert first == second


def test_what_cannot_be_drawn_is_refused_and_leaves_no_file(
    make_map: MakeMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_map(crs=None)
    with pytest.raises(OutputError, match="no CRS"):
        write_overlay(path, tmp_path / "map.kmz")
    monkeypatch.setitem(sys.modules, "PIL.ImageDraw", None)
    with pytest.raises(MissingPackageError, match=r"pillow.*spectralmamba\[pictures\]"):
        write_picture(path, tmp_path / "map.png")
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif"]
