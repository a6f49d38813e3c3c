from __future__ import annotations

from xml.etree import ElementTree

from map_example import COLORS, MakeMap

from spectralmamba.gis.finished_map import open_map
from spectralmamba.gis.style import class_style, polygon_style, set_size_style, share_style
from spectralmamba.scenes.palette import CIVIDIS, SET_COLORS, rgb


def test_a_map_has_each_class_in_its_colour_under_its_name(make_map: MakeMap) -> None:
    root = ElementTree.fromstring(class_style(open_map(make_map()).classes))
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    entries = {int(entry.attrib["value"]): entry.attrib for entry in renderer.iter("paletteEntry")}
    assert {id_: entry["color"] for id_, entry in entries.items()} == COLORS  # 0 has none: it is transparent
    assert entries[1]["label"] == 'wood & "heath" <x>'
    assert entries[7]["label"] == "lake é"  # a control character is none of XML's


def test_shares_go_from_dark_to_bright_on_every_map_alike() -> None:
    renderer = ElementTree.fromstring(share_style()).find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.get("type") == "singlebandpseudocolor"
    shader = renderer.find("rastershader/colorrampshader")
    assert shader is not None
    assert (shader.get("colorRampType"), shader.get("minimumValue"), shader.get("maximumValue")) == (
        "INTERPOLATED",
        "0",
        "1",
    )
    assert [item.attrib["color"] for item in shader] == list(CIVIDIS)
    assert [float(item.attrib["value"]) for item in shader] == [k / 8 for k in range(9)]


def test_set_sizes_have_four_colours() -> None:
    shader = ElementTree.fromstring(set_size_style()).find("pipe/rasterrenderer/rastershader/colorrampshader")
    assert shader is not None
    assert shader.get("colorRampType") == "DISCRETE"
    assert [(item.attrib["value"], item.attrib["color"]) for item in shader] == list(
        zip(("0", "1", "2", "254"), SET_COLORS, strict=True)
    )


def test_polygons_have_the_colour_of_their_class(make_map: MakeMap) -> None:
    root = ElementTree.fromstring(polygon_style(open_map(make_map()).classes, "class_id"))
    renderer = root.find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class_id")
    fills = {
        symbol.attrib["name"]: option.attrib["value"]
        for symbol in renderer.iter("symbol")
        for option in symbol.iter("Option")
        if option.get("name") == "color"
    }
    drawn = {int(each.attrib["value"]): fills[each.attrib["symbol"]] for each in renderer.iter("category")}
    assert drawn == {id_: ",".join(map(str, (*rgb(color), 255))) for id_, color in COLORS.items()}
