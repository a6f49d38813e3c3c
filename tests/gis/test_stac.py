from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from map_example import COLORS, IDS, NAMES, MakeMap

from spectralmamba.archive import find_scenes
from spectralmamba.errors import MissingPackageError, OutputError, SettingsError
from spectralmamba.gis import write_item
from spectralmamba.gis.stac import acquisition

shapely = pytest.importorskip("shapely.geometry")
pystac = pytest.importorskip("pystac")
TIME = {"ACQUISITION_TIME": "2022-09-03T16:31:29+0000"}


def written(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def errors_of(item: dict[str, Any]) -> list[str]:
    """What is wrong by the core's schemas, which pystac brings; those of the extensions lie in the network."""
    jsonschema = pytest.importorskip("jsonschema")
    from pystac.validation.local_validator import get_local_schema_cache
    from referencing import Registry, Resource

    schemas = get_local_schema_cache()
    registry = Registry().with_resources([(uri, Resource.from_contents(schema)) for uri, schema in schemas.items()])
    of_items = schemas[f"https://schemas.stacspec.org/v{item['stac_version']}/item-spec/json-schema/item.json"]
    return [error.message for error in jsonschema.Draft7Validator(of_items, registry=registry).iter_errors(item)]


@pytest.mark.parametrize("acquired", [None, "2024-05-01/2024-05-31"], ids=["a moment", "a month"])
def test_an_item_is_valid_stac(make_map: MakeMap, tmp_path: Path, acquired: str | None) -> None:
    make_map(confidence=np.ones(IDS.shape), tags=TIME)
    item = written(write_item(tmp_path / "map.tif", tmp_path / "map_stac.json", acquired=acquired))
    assert errors_of(item) == []
    assert errors_of({**item, "bbox": None}) != []
    assert errors_of({**item, "properties": {**item["properties"], "datetime": "yesterday"}}) != []
    assert pystac.Item.from_dict(item).to_dict(transform_hrefs=False) == item


def test_an_item_tells_where_the_map_lies(make_map: MakeMap, tmp_path: Path) -> None:
    item = written(write_item(make_map(tags=TIME), tmp_path / "map_stac.json"))
    with rasterio.open(tmp_path / "map.tif") as raster:
        whole = rasterio.warp.transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)
    assert item["bbox"] == pytest.approx(whole, abs=1e-6)
    outline = shapely.shape(item["geometry"])
    assert outline.is_valid
    assert outline.exterior.is_ccw  # RFC 7946, 3.1.6
    assert outline.bounds == pytest.approx(whole, abs=1e-6)
    properties = item["properties"]
    # projection 2.0.0: proj:code, proj:shape (rows, columns), proj:transform as affine has it.
    assert (properties["proj:code"], properties["proj:shape"]) == ("EPSG:32633", [4, 6])
    assert properties["proj:transform"] == [10, 0, 390_000, 0, -10, 5_820_000]


def test_a_crs_without_code_is_told_by_its_text(make_map: MakeMap, tmp_path: Path) -> None:
    own = "+proj=laea +lat_0=50 +lon_0=13 +ellps=bessel +units=m"
    properties = written(write_item(make_map(crs=own, tags=TIME), tmp_path / "map_stac.json"))["properties"]
    assert properties["proj:code"] is None
    assert rasterio.CRS.from_wkt(properties["proj:wkt2"]) == rasterio.CRS.from_string(own)


def test_an_item_tells_the_classes_and_the_model(make_map: MakeMap, tmp_path: Path) -> None:
    item = written(write_item(make_map(tags=TIME), tmp_path / "map_stac.json"))
    found = item["assets"]["map"]["classification:classes"]
    assert found[0] == {
        "value": 0, "name": "nodata", "title": "no class", "description": "no class", "nodata": True,
    }  # fmt: skip
    # classification 2.0.0: value and name are needed, a name has no other letters, a hint is RRGGBB.
    assert [(each["value"], each["title"]) for each in found[1:]] == list(NAMES.items())
    assert all(re.fullmatch("[0-9A-Za-z_-]+", each["name"]) for each in found)
    assert len({each["name"] for each in found}) == len(found)
    assert [each["color_hint"] for each in found[1:]] == [color[1:].upper() for color in COLORS.values()]
    properties = item["properties"]
    assert properties["processing:software"] == {"spectralmamba": "0.1.0"}
    assert properties["processing:lineage"] == "Classification of field day.hdr by spectral_mamba, patch 3"
    assert item["id"] == "field_day_map"


def test_names_that_no_machine_takes_stay_apart(make_map: MakeMap, tmp_path: Path) -> None:
    names = json.dumps({1: "森林", 2: "水 1", 7: "地 1"})
    item = written(write_item(make_map(tags=TIME | {"CLASS_NAMES": names}), tmp_path / "map_stac.json"))
    found = [each["name"] for each in item["assets"]["map"]["classification:classes"]]
    assert found == ["nodata", "class_1", "1", "1_7"]


def test_files_are_named_from_where_the_item_lies(make_map: MakeMap, tmp_path: Path) -> None:
    path = make_map(confidence=np.ones(IDS.shape), tags=TIME)
    (tmp_path / "items").mkdir()
    files = {"polygons": tmp_path / "map_polygons.gpkg", "style": tmp_path / "map.qml"}
    item = written(write_item(path, tmp_path / "items" / "map.json", files))
    assets = item["assets"]
    assert {name: asset["href"] for name, asset in assets.items()} == {
        "map": "../map.tif",
        "confidence": "../map_confidence.tif",
        "polygons": "../map_polygons.gpkg",
        "style": "../map.qml",
    }
    assert assets["map"]["type"] == assets["confidence"]["type"] == pystac.MediaType.COG
    assert assets["polygons"]["type"] == pystac.MediaType.GEOPACKAGE
    assert (assets["map"]["roles"], assets["style"]["roles"]) == (["data"], ["metadata", "style"])
    assert find_scenes([tmp_path / "items" / "map.json"]) == [str(tmp_path / "items" / ".." / "map.tif")]


@pytest.mark.parametrize(
    ("of_scene", "given", "start", "end"),
    [
        ("2022-09-03T16:31:29+0000", None, "2022-09-03T16:31:29+00:00", None),
        ("2022-09-03T16:31:29.123456789Z", None, "2022-09-03T16:31:29.123456+00:00", None),
        ("2022-09-03T18:31:29+02:00", None, "2022-09-03T16:31:29+00:00", None),
        ("2022-09-03T16:31:29", None, "2022-09-03T16:31:29+00:00", None),
        ("2022-09-03T16:31:29", "2024-05-01", "2024-05-01T00:00:00+00:00", "2024-05-01T23:59:59+00:00"),
        (None, "2024-05-01 / 2024-05-03T10:00Z", "2024-05-01T00:00:00+00:00", "2024-05-03T10:00:00+00:00"),
    ],
)
def test_times_of_acquisition(of_scene: str | None, given: str | None, start: str, end: str | None) -> None:
    found = acquisition(of_scene, given, "map_stac.json")
    assert found.start.isoformat() == start
    assert found.end.isoformat() == (end or start)


def test_without_a_time_there_is_no_item(make_map: MakeMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "map_stac.json"
    with pytest.raises(OutputError, match=r"does not say so.*--acquired"):
        write_item(make_map(), out)
    with pytest.raises(OutputError, match=r"cannot be understood; found summer\..*--acquired"):
        write_item(make_map(tags={"ACQUISITION_TIME": "summer"}), out)
    for text in ("summer", "2024-05-03/2024-05-01", "2024-13-01"):
        with pytest.raises(SettingsError, match=f"no time of acquisition; found {text}"):
            write_item(make_map(), out, acquired=text)
    with pytest.raises(OutputError, match="no CRS"):
        write_item(make_map(tags=TIME, crs=None), out)
    monkeypatch.setitem(sys.modules, "pystac", None)
    with pytest.raises(MissingPackageError, match=r"spectralmamba\[stac\]"):
        write_item(make_map(tags=TIME), out)
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif"]
