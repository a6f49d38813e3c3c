from __future__ import annotations

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from map_example import COLORS, IDS, NAMES, MakeMap

from spectralmamba.errors import LabelError
from spectralmamba.gis import finished_map
from spectralmamba.gis.class_areas import area_table, attribute_table
from spectralmamba.gis.finished_map import open_map
from spectralmamba.scenes import open_labels

DEGREES = {"crs": "EPSG:4326", "transform": Affine(0.001, 0, 13, 0, -0.001, 52)}


def rows_of(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table)))


@pytest.mark.parametrize("strip", [1, 3, 512])
def test_classes_have_the_pixels_and_hectares_that_are_mapped(
    make_map: MakeMap, monkeypatch: pytest.MonkeyPatch, strip: int
) -> None:
    monkeypatch.setattr(finished_map, "STRIP_ROWS", strip)
    found = open_map(make_map()).classes
    assert [(each.id, each.pixels) for each in found] == [(1, 5), (2, 16), (7, 1)]
    assert [each.hectares for each in found] == pytest.approx([0.05, 0.16, 0.01])
    assert {each.id: each.name for each in found} == NAMES
    assert {each.id: each.color for each in found} == COLORS


def test_pixels_in_degrees_have_their_area_on_the_ellipsoid(make_map: MakeMap) -> None:
    import pyproj

    found = open_map(make_map(np.ones((3, 4), np.uint8), **DEGREES)).classes[0]
    outline = ([13, 13.004, 13.004, 13], [52, 52, 51.997, 51.997])
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*outline)
    assert found.hectares == pytest.approx(abs(area) / 10_000, rel=1e-6)


def test_another_nodata_value_is_no_class(make_map: MakeMap) -> None:
    assert [each.id for each in open_map(make_map(nodata=2)).classes if each.pixels] == [1, 7]


def test_what_a_raster_does_not_say_is_filled_in(make_map: MakeMap) -> None:
    found = open_map(make_map(tags={"CLASS_NAMES": "{}", "CLASS_COLORS": '{"1": "#e69f00"}'})).classes
    assert [each.name for each in found] == ["class 1", "class 2", "class 7"]
    assert len({each.color for each in found}) == 3


def test_the_table_says_that_it_counts_mapped_pixels(make_map: MakeMap) -> None:
    rows = rows_of(area_table(open_map(make_map())))
    assert list(rows[0]) == ["id", "class", "mapped_pixels", "mapped_hectares", "mapped_share"]
    assert [row["class"] for row in rows] == list(NAMES.values())
    assert [float(row["mapped_hectares"]) for row in rows] == [0.05, 0.16, 0.01]
    assert sum(float(row["mapped_share"]) for row in rows) == pytest.approx(1, abs=1e-5)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "place",
    [
        {"crs": None},
        {"transform": Affine.identity()},
        {"crs": "EPSG:4326", "transform": Affine(0.1, 0.05, 1, 0.05, -0.1, 9)},
    ],
    ids=["no CRS", "no transform", "rotated in degrees"],
)
def test_where_pixels_have_no_area_there_are_no_hectares(make_map: MakeMap, place: dict) -> None:
    mapped = open_map(make_map(**place))
    assert [row["mapped_hectares"] for row in rows_of(area_table(mapped))] == [""] * 3
    assert "Hectares" not in attribute_table(mapped)
    assert "Count" in attribute_table(mapped)


def test_gdal_and_we_read_the_attribute_table(make_map: MakeMap) -> None:
    path = make_map()
    (path.parent / "map.tif.aux.xml").write_text(attribute_table(open_map(path)), encoding="utf-8")
    root = ElementTree.parse(path.parent / "map.tif.aux.xml").getroot()
    fields = {definition.findtext("Name"): definition.findtext("Usage") for definition in root.iter("FieldDefn")}
    # GDALRATFieldUsage: GFU_MinMax, GFU_Name, GFU_Red … GFU_Blue, GFU_PixelCount, GFU_Generic.
    assert fields == {"Value": "5", "Class": "2", "Red": "6", "Green": "7", "Blue": "8", "Count": "1", "Hectares": "0"}
    rows = [[cell.text for cell in row] for row in root.iter("Row")]
    assert rows[0] == ["1", NAMES[1], "17", "119", "51", "5", "0.05"]
    with rasterio.open(path) as raster:
        assert raster.files == [str(path), f"{path}.aux.xml"]
        raster.read()
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(CLASS_NAMES="{}", CLASS_COLORS="{}")
    labels = open_labels(path)
    assert labels.attrs["class_names"] == {**NAMES, 7: "lake é"}
    assert labels.attrs["class_colors"] == COLORS


def test_an_empty_map_has_a_table_of_no_share(make_map: MakeMap) -> None:
    rows = rows_of(area_table(open_map(make_map(np.zeros_like(IDS)))))
    assert [(row["mapped_pixels"], row["mapped_share"]) for row in rows] == [("0", "")] * 3


def test_what_is_no_map_is_refused(make_map: MakeMap, tmp_path: Path) -> None:
    make_map(confidence=np.ones(IDS.shape))
    with pytest.raises(LabelError, match=r"1 bands of type float32.*not one of its layers"):
        open_map(tmp_path / "map_confidence.tif")
    with pytest.raises(LabelError, match="no such map"):
        open_map(tmp_path / "absent.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(LabelError, match="no map that can be read"):
        open_map(tmp_path / "text.tif")
