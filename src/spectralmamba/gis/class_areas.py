"""How much of a map each class has, as a table and in the attribute table that GIS programs read."""

from __future__ import annotations

import csv
import io

from spectralmamba.gis.finished_map import FinishedMap
from spectralmamba.scenes.writing import class_sidecar_xml

DIGITS = 4  # of hectares: a square metre


def attribute_table(mapped: FinishedMap) -> str:
    """The text of the `.aux.xml` beside a map: names, colours, pixels and, where they are known, hectares of its classes."""
    classes = mapped.classes
    return class_sidecar_xml(
        {each.id: each.name for each in classes},
        {each.id: each.color for each in classes},
        {each.id: each.pixels for each in classes},
        {each.id: round(each.hectares, DIGITS) for each in classes if each.hectares is not None}
        if mapped.row_areas is not None
        else None,
    )


def area_table(mapped: FinishedMap) -> str:
    """The text of a CSV table: `id`, `class`, `mapped_pixels`, `mapped_hectares` (empty where not known) and `mapped_share`.

    These are counts of mapped pixels, which errors of the map make too large or too small; `spectralmamba.assess` estimates areas
    from a reference sample.
    """
    total = sum(each.pixels for each in mapped.classes)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "class", "mapped_pixels", "mapped_hectares", "mapped_share"])
    for each in mapped.classes:
        hectares = "" if each.hectares is None else round(each.hectares, DIGITS)
        share = f"{each.pixels / total:.6f}" if total else ""
        writer.writerow([each.id, each.name, each.pixels, hectares, share])
    return text.getvalue()
