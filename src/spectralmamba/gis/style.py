"""How QGIS draws maps, their layers and their polygons: `.qml` styles with the names and colours of the classes.

The elements are those that QGIS 3 writes itself (`QgsRasterRenderer::writeXml`, `QgsFeatureRenderer::save`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from spectralmamba.gis.finished_map import MappedClass
from spectralmamba.scenes.palette import CIVIDIS, SET_COLORS, SET_MEANINGS, rgb
from spectralmamba.scenes.writing import one_line

_VERSION = "3.28.0"  # of QGIS, whose elements these are; newer ones read them
_DOCUMENT_TYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_MOST_COUNTED = 254  # classes in a set, as the layer of set sizes has them
_OUTLINE = "35,35,35,120"  # of polygons: red, green, blue, alpha


def style_file(path: Path) -> Path:
    """Return the file of a raster's style, which QGIS reads with the raster."""
    return path.with_suffix(".qml")


def class_style(classes: Iterable[MappedClass]) -> str:
    """A map of classes: a colour and a name each; what has no class is transparent."""
    renderer = Element("rasterrenderer", _RENDERER, type="paletted")
    SubElement(renderer, "rasterTransparency")
    palette = SubElement(renderer, "colorPalette")
    for each in classes:
        SubElement(
            palette, "paletteEntry", value=str(each.id), color=each.color, alpha="255", label=one_line(each.name)
        )
    return _raster_document(renderer)


def share_style() -> str:
    """A layer from 0 to 1, confidence or novelty: the same colours on every map, dark to bright."""
    last = len(CIVIDIS) - 1
    steps = [(position / last, color, f"{position / last:.2f}") for position, color in enumerate(CIVIDIS)]
    return _raster_document(_ramp(steps, "INTERPOLATED"))


def set_size_style() -> str:
    """A layer of how many classes a pixel may have: none, one, two, more."""
    highest = (*range(len(SET_COLORS) - 1), _MOST_COUNTED)
    return _raster_document(_ramp(list(zip(highest, SET_COLORS, SET_MEANINGS, strict=True)), "DISCRETE"))


LAYER_STYLES: dict[str, Callable[[], str]] = {
    "confidence": share_style,
    "novelty": share_style,
    "set_size": set_size_style,
}


def polygon_style(classes: Iterable[MappedClass], column: str) -> str:
    """Polygons: a colour and a name for each value of a column."""
    root = Element("qgis", version=_VERSION, styleCategories="Symbology")
    renderer = SubElement(root, "renderer-v2", type="categorizedSymbol", attr=column, symbollevels="0", forceraster="0")
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for number, each in enumerate(classes):
        named = {"value": str(each.id), "type": "integer", "label": one_line(each.name)}
        SubElement(categories, "category", named, symbol=str(number), render="true")
        symbol = SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1", clip_to_extent="1")
        layer = SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
        options = SubElement(layer, "Option", type="Map")
        color = ",".join(map(str, rgb(each.color)))
        for name, value in (
            ("color", f"{color},255"),
            ("style", "solid"),
            ("outline_color", _OUTLINE),
            ("outline_style", "solid"),
            ("outline_width", "0.1"),
            ("outline_width_unit", "MM"),
        ):
            SubElement(options, "Option", name=name, type="QString", value=value)
    return _text(root)


_RENDERER = {"band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""}


def _ramp(steps: Sequence[tuple[float, str, str]], kind: str) -> Element:
    """Return a renderer of colours by value: those in between of two steps, or of the first step that is not below."""
    low, high = (f"{steps[end][0]:g}" for end in (0, -1))
    limits = {"classificationMin": low, "classificationMax": high}
    renderer = Element("rasterrenderer", {**_RENDERER, **limits}, type="singlebandpseudocolor")
    SubElement(renderer, "rasterTransparency")
    origin = SubElement(renderer, "minMaxOrigin")
    SubElement(origin, "limits").text = "None"  # the ends are given, not of what is in view
    shader = SubElement(
        SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType=kind,
        classificationMode="1",
        clip="0",
        minimumValue=low,
        maximumValue=high,
    )
    for value, color, label in steps:
        SubElement(shader, "item", value=f"{value:g}", color=color, alpha="255", label=label)
    return renderer


def _raster_document(renderer: Element) -> str:
    root = Element("qgis", version=_VERSION, styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    pipe.append(renderer)
    SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    SubElement(pipe, "rasterresampler", maxOversampling="2")
    SubElement(root, "blendMode").text = "0"
    return _text(root)


def _text(root: Element) -> str:
    indent(root, space=" ")
    return _DOCUMENT_TYPE + tostring(root, encoding="unicode") + "\n"
