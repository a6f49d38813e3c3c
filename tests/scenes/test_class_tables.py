"""Names, colours and ids of classes from tables and styles; classes that become one or are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Point
from vector_example import COLUMNS, ROWS, features, make_scene

from spectralmamba.errors import LabelError
from spectralmamba.scenes.class_tables import COLUMNS as TITLES
from spectralmamba.scenes.class_tables import ClassEntry, ClassTable, read_class_table
from spectralmamba.scenes.labels import open_labels
from spectralmamba.scenes.merging import parse_merges

WHEAT, BEET = ClassEntry(3, "wheat", "#e6c850"), ClassEntry(7, "beet", "#ff00ff")
RASTER_STYLE = """<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.34.4-Prizren" styleCategories="AllStyleCategories">
 <pipe><rasterrenderer type="paletted" band="1" opacity="1">
  <rasterTransparency/>
  <colorPalette>
   <paletteEntry color="#000000" alpha="0" value="0" label="unlabelled"/>
   <paletteEntry color="#e6c850" alpha="255" value="3" label="wheat"/>
   <paletteEntry label="beet" value="7" alpha="255" color="#FF00FF"/>
  </colorPalette>
 </rasterrenderer></pipe>
</qgis>"""
SYMBOLS = """<symbols>
 <symbol type="fill" name="0"><layer class="SimpleFill"><Option type="Map">
  <Option type="QString" name="border_width_map_unit_scale" value="3x:0,0,0"/>
  <Option type="QString" name="color" value="230,200,80,255,rgb:0.9,0.78,0.31,1"/></Option></layer></symbol>
 <symbol type="fill" name="1"><layer class="SimpleFill"><prop k="color" v="255,0,255,255"/></layer></symbol>
</symbols>"""


def vector_style(first: str, second: str) -> str:
    return f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.10"><renderer-v2 type="categorizedSymbol" attr="crop"><categories>
 <category symbol="0" {first} render="true"/><category symbol="1" {second} render="true"/>
 <category symbol="1" value="" label="all other values" render="true"/>
</categories>{SYMBOLS}</renderer-v2></qgis>"""


def write(folder: Path, text: str, name: str = "classes.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def make_labels(folder: Path, ids: list[int]) -> Path:
    image = np.zeros((ROWS, COLUMNS), int)
    image[1, 1 : 1 + len(ids)] = ids
    np.save(folder / "l.npy", image)
    return folder / "l.npy"


def points(*names: str | None) -> Any:
    return features([Point(column + 0.5, 3.5) for column in range(len(names))], crop=list(names))


# Reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "id,name,colour\n3,wheat,#e6c850\n7,beet,#FF00FF\n",
        'Value;Class-Name;Color\r\n3;wheat;"230,200,80"\r\n7;beet;255 0 255\r\n',
        "\ufeffclass_id\tLabel\tRGB\n3.0\twheat\t230,200,80\n\n7\t beet \t#ff00ff\n0\tunlabelled\t\n",
    ],
    ids=["commas", "semicolons", "tabs, byte order mark, empty line, unlabelled"],
)
def test_tables_are_read_whatever_they_call_their_columns(tmp_path: Path, text: str):
    assert read_class_table(write(tmp_path, text)).entries == (WHEAT, BEET)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (RASTER_STYLE, (WHEAT, BEET)),
        (vector_style('value="3" label="wheat"', 'value="7" label="beet"'), (WHEAT, BEET)),
        (
            vector_style('value="W" label="wheat" type="string"', 'value="12" label="12" type="string"'),
            (ClassEntry(None, "W", "#e6c850"), ClassEntry(None, "12", "#ff00ff")),
        ),
    ],
    ids=["raster", "numbers", "texts"],
)
def test_styles_of_qgis_are_read(tmp_path: Path, style: str, expected: tuple[ClassEntry, ...]):
    assert read_class_table(write(tmp_path, style, "style.qml")).entries == expected


def test_all_titles_that_are_documented_are_understood(tmp_path: Path):
    documented = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    for what, titles in TITLES.items():
        for title in titles:
            assert f"`{title}`" in documented
            key = "" if what == "id" else "id,"
            cells = {"id": "1", "name": "1,a", "color": "1,#010203"}[what]
            assert read_class_table(write(tmp_path, f"{key}{title.upper()}\n{cells}\n")).entries[0].id == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,name,colr\n1,a,#000000\n", r"unknown column; found 'colr' in line 1; .*Did you mean 'color'"),
        ("id,name,area\n1,a,3\n", r"unknown column; found 'area' in line 1; expected id \(id or value"),
        ("id,value\n1,1\n", "two columns mean the same; found 'value'"),
        ("colour\n#000000\n", "neither ids nor names"),
        ("id,name\n1,a\n\n1,b\n", "an id is there twice; found 1 in line 2 and line 4"),
        ("id,name\n1,a\n2,A\n", "a name is there twice; found 'A' in line 2 and line 3.*--merge"),
        ("id,colour\n1,red\n", "colour cannot be understood; found 'red' in line 2"),
        ("id;colour\n1;256,0,0\n", "colour cannot be understood; found '256,0,0' in line 2"),
        ("id,colour\n1,255,0,0\n", "too many cells; found 4 in line 2; expected 2.*in quotes"),
        ("id,name\n1.5,a\n", "class id cannot be understood; found '1.5' in line 2"),
        ("id,name\n70000,a\n", "class id cannot be understood"),
        ("id,name\nnan,a\n", "class id cannot be understood"),
        ("id,name,colour\n,,#000000\n", "names no class; found line 2"),
        ("id,name\n", "the class table is empty"),
        ("", "the class table is empty"),
    ],
)
def test_tables_with_mistakes_are_refused_with_their_line(tmp_path: Path, text: str, said: str):
    with pytest.raises(LabelError, match=rf"classes\.csv: .*{said}"):
        read_class_table(write(tmp_path, text))


@pytest.mark.parametrize(
    ("style", "said"),
    [
        (
            '<!DOCTYPE qgis [<!ENTITY a "b">]><qgis/>',
            "not read; found a document type or entity declaration.*Save the style",
        ),
        ("<qgis><pipe>", "cannot be read as XML"),
        ('<qgis><renderer-v2 type="singleSymbol"/></qgis>', "no classes; found the renderer singleSymbol"),
        (RASTER_STYLE.replace("#e6c850", "gold"), "colour cannot be understood; found 'gold' in palette entry 2"),
        (RASTER_STYLE.replace('value="3"', 'value="7"'), "an id is there twice; found 7 in palette entry 2 and"),
        (RASTER_STYLE.replace('value="3"', 'value="3.5"'), "class id cannot be understood; found '3.5'"),
    ],
)
def test_styles_with_mistakes_are_refused(tmp_path: Path, style: str, said: str):
    with pytest.raises(LabelError, match=rf"style\.qml: .*{said}"):
        read_class_table(write(tmp_path, style, "style.qml"))


def test_a_missing_table_and_one_in_another_encoding_are_refused(tmp_path: Path):
    with pytest.raises(LabelError, match="no such class table"):
        read_class_table(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("id,name\n1,Rübe\n".encode("latin-1"))
    with pytest.raises(LabelError, match=r"latin\.csv: cannot read the class table.*UTF-8"):
        read_class_table(tmp_path / "latin.csv")


# Naming ------------------------------------------------------------------------------------------


def test_a_table_names_and_colours_the_classes_of_a_raster(tmp_path: Path):
    table = write(tmp_path, "id,name,colour\n3,wheat,#e6c850\n7,beet,#ff00ff\n9,oats,#000001\n")
    labels = open_labels(make_labels(tmp_path, [3, 7, 5]), make_scene(), classes=table)
    assert labels.attrs["class_names"] == {3: "wheat", 5: "class 5", 7: "beet"}
    assert [labels.attrs["class_colors"][id_] for id_ in (3, 7)] == ["#e6c850", "#ff00ff"]
    assert "Not in classes.csv: class 5 (5)." in labels.attrs["notes"]
    again = ClassTable.of_classes(labels.attrs["opened_with"]["classes"])
    assert again.entries == read_class_table(table).entries


def test_text_classes_get_the_tables_ids_and_others_follow_them(tmp_path: Path):
    table = write(tmp_path, "id,name,colour\n3,wheat,#e6c850\n7,beet,#ff00ff\n")
    labels = open_labels(points("wheat", "rye", "beet", "oats", " Wheat"), make_scene(), classes=table)
    assert labels.values[3, :5].tolist() == [3, 9, 7, 8, 3]
    assert labels.attrs["class_names"] == {3: "wheat", 7: "beet", 8: "oats", 9: "rye"}
    assert labels.attrs["class_colors"][7] == "#ff00ff"
    assert "Not in classes.csv: oats (8), rye (9)." in labels.attrs["notes"]


def test_a_table_without_ids_colours_classes_by_name(tmp_path: Path):
    table = write(tmp_path, "name,colour\nwheat,#e6c850\nbeet,#ff00ff\n")
    labels = open_labels(points("wheat", "beet"), make_scene(), classes=table)
    assert labels.values[3, :2].tolist() == [2, 1]
    assert labels.attrs["class_colors"] == {1: "#ff00ff", 2: "#e6c850"}
    assert not any("Not in" in note for note in labels.attrs["notes"])


# Merging -----------------------------------------------------------------------------------------

CROPS = ("wheat", "barley", "beet", "wheat", "clouds")  # ids in sorted order: barley 1, beet 2, clouds 3, wheat 4


def opened(**options: Any) -> xr.DataArray:
    return open_labels(points(*CROPS), make_scene(), **options)


def test_merged_classes_have_the_lowest_of_their_ids_and_the_note_says_so():
    labels = opened(merge={"cereal": ["wheat", "Barley"]})
    assert labels.values[3, :5].tolist() == [1, 1, 2, 1, 3]
    assert labels.attrs["class_names"] == {1: "cereal", 2: "beet", 3: "clouds"}
    assert "Merged as cereal (1): wheat (4) and barley (1)." in labels.attrs["notes"]
    assert labels.attrs["opened_with"] == {"merge": {"cereal": ["wheat", "Barley"]}}


def test_a_class_of_the_new_name_takes_the_others_in():
    labels = opened(merge={"wheat": ["barley", 2]})
    assert labels.values[3, :5].tolist() == [4, 4, 4, 4, 3]
    assert labels.attrs["class_names"] == {3: "clouds", 4: "wheat"}


def test_the_table_colours_merged_classes_else_the_first_of_them_does(tmp_path: Path):
    table = write(tmp_path, "name,colour\nwheat,#e6c850\nbarley,#010203\nbeet,#ff00ff\nclouds,#fefefe\n")
    colors = opened(classes=table, merge={"cereal": ["wheat", "barley"]}).attrs["class_colors"]
    assert colors == {1: "#e6c850", 2: "#ff00ff", 3: "#fefefe"}
    table = write(tmp_path, "id,name,colour\n1,wheat,#e6c850\n2,barley,#010203\n9,cereal,#aabbcc\n")
    labels = opened(classes=table, merge={"cereal": ["wheat", "barley"]})
    assert labels.values[3, :2].tolist() == [9, 9]
    assert labels.attrs["class_colors"][9] == "#aabbcc"


def test_dropped_classes_are_left_out_and_counted():
    labels = opened(drop=["clouds", 2])
    assert labels.values[3, :5].tolist() == [4, 1, 0, 4, 0]
    assert labels.coords["field"].values[3, [2, 4]].tolist() == [0, 0]
    assert labels.attrs["report"]["in_dropped_classes"] == 2
    assert labels.attrs["notes"][-2:] == ["Left out: clouds (3).", "Left out: beet (2)."]


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_merging_and_dropping_moves_every_pixel_as_asked(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    ids = np.array(data.draw(st.lists(st.integers(1, 9), min_size=3, max_size=9)))
    present = sorted(set(ids.tolist()))
    goal = {id_: data.draw(st.sampled_from(["stay", "one", "two", "drop"])) for id_ in present}
    if set(goal.values()) == {"drop"}:
        goal[present[0]] = "stay"
    of_goal = {name: [id_ for id_ in present if goal[id_] == name] for name in ("one", "two", "drop")}
    drop = of_goal.pop("drop")
    file = make_labels(tmp_path_factory.mktemp("merged"), ids.tolist())
    merge = {name: listed for name, listed in of_goal.items() if listed}
    labels = open_labels(file, make_scene(), merge=merge, drop=drop)
    names = labels.attrs["class_names"]
    for id_, found in zip(ids.tolist(), labels.values[1, 1:].tolist(), strict=False):
        expected = {"stay": f"class {id_}", "drop": None}.get(goal[id_], goal[id_])
        assert names.get(found) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"merge": {"cereal": ["weat", "barley"]}}, r"no class 'weat'.*wheat \(4\).*Did you mean 'wheat'"),
        ({"drop": ["77"]}, "no class '77' to merge or drop"),
        ({"merge": {"a": ["wheat"], "b": ["barley", "wheat"]}}, r"merged or dropped twice; found wheat \(4\)"),
        ({"merge": {"a": ["wheat"]}, "drop": [4]}, r"merged or dropped twice; found wheat \(4\)"),
        ({"drop": ["wheat", "barley", "beet", "clouds"]}, "no labelled pixel is left; found .*in_dropped_classes 5"),
    ],
)
def test_what_cannot_be_merged_or_dropped_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(LabelError, match=said):
        opened(**options)


def test_the_words_of_the_command_line_are_understood():
    assert parse_merges(["wheat, barley=cereal", "oats=cereal", "3,4=a=b"]) == {
        "cereal": ["wheat", "barley", "oats"],
        "b": ["3", "4=a"],
    }
    for wrong in ("wheat,barley", "=cereal", "wheat=", ","):
        with pytest.raises(LabelError, match=r'--merge takes classes and their new name.*"wheat,barley=cereal"'):
            parse_merges([wrong])
