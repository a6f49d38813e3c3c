"""Does QGIS show a map as its style says? Loads maps and polygons of a folder with PyQGIS, without a window, and draws them.

    QT_QPA_PLATFORM=offscreen python3 tests/qgis_check.py FOLDER

Needs QGIS and its own Python (Debian: apt install python3-qgis), and no package of this project. FOLDER is that of a run with
`--polygons`, whose labels and areas are read back from `map_areas.csv`. Pictures go to FOLDER/qgis_*.png. Not collected by pytest.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from qgis.core import QgsApplication, QgsMapRendererParallelJob, QgsMapSettings, QgsRasterLayer, QgsVectorLayer
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

_SIDE = 480  # pixels of a picture
_PAPER = "#ff00ff"  # no colour of a class


def draw(layer: object, file: Path) -> Counter[str]:
    """Draw a layer and return how many pixels have each colour, paper left out."""
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setExtent(layer.extent())
    settings.setDestinationCrs(layer.crs())
    settings.setOutputSize(QSize(_SIDE, _SIDE))
    settings.setBackgroundColor(QColor(_PAPER))
    settings.setFlag(QgsMapSettings.Antialiasing, False)
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    image = job.renderedImage()
    assert image.save(str(file)), f"cannot write {file}"
    colors = Counter(image.pixelColor(x, y).name() for y in range(_SIDE) for x in range(_SIDE))
    return Counter({color: count for color, count in colors.items() if color != _PAPER})


def opened(layer: object) -> object:
    """Return a layer if QGIS takes it."""
    assert layer.isValid(), f"QGIS cannot open {layer.source()}: {layer.error().message()}"
    return layer


def styled_classes(folder: Path) -> dict[int, tuple[str, str]]:
    """Return name and colour of each class, as the style says."""
    entries = ElementTree.parse(folder / "map.qml").getroot().iter("paletteEntry")
    return {int(each.attrib["value"]): (each.attrib["label"], each.attrib["color"]) for each in entries}


def check_classes(folder: Path) -> None:
    """Check the map of classes: names, colours, transparent nodata, and the attribute table."""
    classes = styled_classes(folder)
    layer = opened(QgsRasterLayer(str(folder / "map.tif"), "map"))
    assert layer.renderer().type() == "paletted", layer.renderer().type()
    found = {int(each.value): (each.label, each.color.name()) for each in layer.renderer().classes()}
    assert found == classes, found
    with (folder / "map_areas.csv").open(newline="", encoding="utf-8") as file:
        mapped = {classes[int(row["id"])][1] for row in csv.DictReader(file) if float(row["mapped_share"]) > 0.01}
    drawn = draw(layer, folder / "qgis_map.png")
    assert mapped <= set(drawn) <= {color for _, color in classes.values()}, drawn
    if hasattr(layer, "attributeTable"):  # QGIS 3.30 and newer
        table = layer.attributeTable(1)
        assert table is not None, "no raster attribute table"
        assert table.isValid()[0], f"a raster attribute table that QGIS does not take: {table.isValid()[1]}"


def check_layers(folder: Path) -> None:
    """Check the layers: a ramp of their own, and several colours."""
    for name in ("confidence", "novelty", "set_size"):
        file = folder / f"map_{name}.tif"
        if file.is_file():
            layer = opened(QgsRasterLayer(str(file), name))
            assert layer.renderer().type() == "singlebandpseudocolor", (name, layer.renderer().type())
            assert draw(layer, folder / f"qgis_{name}.png"), f"nothing of {name} is drawn"


def check_polygons(folder: Path) -> None:
    """Check the polygons: the style that the GeoPackage holds."""
    layer = opened(QgsVectorLayer(f"{folder / 'map_polygons.gpkg'}|layername=map_polygons", "polygons", "ogr"))
    assert layer.renderer().type() == "categorizedSymbol", layer.renderer().type()
    found = {int(each.value()): (each.label(), each.symbol().color().name()) for each in layer.renderer().categories()}
    assert found == styled_classes(folder), found
    drawn = draw(layer, folder / "qgis_polygons.png")
    there = {feature["class_id"] for feature in layer.getFeatures()}
    assert {found[id_][1] for id_ in there} <= set(drawn), drawn


def main() -> None:
    """Check a folder; the first thing that is wrong ends it."""
    folder = Path(sys.argv[1]).resolve()
    application = QgsApplication([], False)
    application.initQgis()
    try:
        check_classes(folder)
        check_layers(folder)
        check_polygons(folder)
    finally:
        application.exitQgis()
    print(f"QGIS shows all of {folder} as it should.")


if __name__ == "__main__":
    main()
