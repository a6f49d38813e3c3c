"""Names, colours and ids of classes from a table, or from the style that QGIS keeps of a layer."""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from spectralmamba.errors import LabelError, SceneError
from spectralmamba.scenes.class_rasters import HIGHEST_ID, ClassRaster
from spectralmamba.scenes.palette import hex_color
from spectralmamba.scenes.products.xml import read_xml

COLUMNS = {
    "id": ("id", "value", "class id", "class value", "code", "number", "dn"),
    "name": ("name", "class name", "class", "label", "category"),
    "color": ("colour", "color", "class colour", "class color", "rgb", "hex"),
}
"""What the columns of a table may be called, in any case, with spaces, hyphens or underscores."""

_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class ClassEntry:
    """What is said of a class; at least its id or its name.

    Attributes:
        id: Class id from 1, None if only the name is known.
        name: Its name.
        color: "#rrggbb".
    """

    id: int | None = None
    name: str | None = None
    color: str | None = None


@dataclass(frozen=True)
class ClassTable:
    """Classes by id or by name; no id and no name is there twice.

    Attributes:
        entries: The classes.
        source: Where they are from, in words.
    """

    entries: tuple[ClassEntry, ...] = ()
    source: str = "the class table"

    @classmethod
    def of_classes(cls, classes: Iterable[Mapping[str, Any]], source: str = "the class table") -> ClassTable:
        """Return the table of what `to_list` gave, or of the classes in a classifier's card."""
        entries = (ClassEntry(entry.get("id"), entry.get("name"), entry.get("color")) for entry in classes)
        return cls(tuple(entries), source)

    def to_list(self) -> list[dict[str, Any]]:
        """All of it, ready for JSON."""
        found = ({"id": entry.id, "name": entry.name, "color": entry.color} for entry in self.entries)
        return [{key: value for key, value in entry.items() if value is not None} for entry in found]

    def ids_of(self, names: Iterable[str]) -> dict[str, int]:
        """Return an id for each name: the table's; those that it does not hold follow its highest id, in sorted order."""
        known = {folded(entry.name): entry.id for entry in self.entries if entry.name and entry.id}
        highest = max((entry.id for entry in self.entries if entry.id), default=0)
        ids: dict[str, int] = {}
        for name in sorted(names):
            found = known.get(folded(name))
            if found is None:
                highest += 1
            ids[name] = found or highest
        return ids

    def of(self, raster: ClassRaster) -> dict[int, ClassEntry]:
        """Return the entry of each id; one without id is that of the class in the labels that is called so."""
        by_name = {folded(name): id_ for id_, name in raster.present().items()}
        found = (
            (by_name.get(folded(entry.name or "")) if entry.id is None else entry.id, entry) for entry in self.entries
        )
        return {id_: entry for id_, entry in found if id_ is not None}

    def applied_to(self, raster: ClassRaster) -> ClassRaster:
        """Return the same classes with the names and colours of the table."""
        entries = self.of(raster).items()
        names = {id_: entry.name for id_, entry in entries if entry.name}
        colors = {id_: entry.color for id_, entry in entries if entry.color}
        return replace(raster, names=raster.names | names, colors=raster.colors | colors)


def folded(name: str) -> str:
    """A name as names are compared: without case and outer spaces."""
    return name.strip().casefold()


def read_class_table(path: str | os.PathLike[str]) -> ClassTable:
    """Read names and colours of classes.

    Args:
        path: A table in UTF-8 (.csv, .tsv, .txt) with a line of column names and commas, semicolons or tabs between cells, or a
            style of QGIS (.qml): of a paletted raster, or of a vector layer in categories. `COLUMNS` says what columns may be
            called; id or name is needed. A colour is "#rrggbb" or "r,g,b" from 0 to 255.

    Raises:
        LabelError: The file cannot be read; a column is unknown or there twice; an id, a colour or a whole line cannot be
            understood; an id or a name is there twice. The line is named.
    """
    path = Path(path)
    if not path.is_file():
        raise LabelError("there is no such class table", file=path, remedy="Check the path.")
    rows = _rows_of_style(path) if path.suffix.lower() == ".qml" else _rows_of_table(path)
    entries, seen = [], {}
    for place, entry in rows:
        for key in (entry.id, folded(entry.name) if entry.name else None):
            if key is not None and key in seen:
                raise LabelError(
                    f"{'an id' if isinstance(key, int) else 'a name'} is there twice",
                    file=path,
                    found=f"{entry.id if isinstance(key, int) else entry.name!r} in {seen[key]} and {place}",
                    expected="one line for each class",
                    remedy="Give classes their own names, and make them one with --merge.",
                )
            seen[key] = place
        entries.append(entry)
    if not entries:
        raise LabelError("the class table is empty", file=path, expected="a line for each class")
    return ClassTable(tuple(entries), path.name)


def _rows_of_table(path: Path) -> Iterator[tuple[str, ClassEntry]]:
    """The place of each class, in words, and the class."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError("cannot read the class table", file=path, found=error, expected="text in UTF-8") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns: dict[str, int] | None = None
    try:
        for cells in reader:
            cells, line = [cell.strip() for cell in cells], f"line {reader.line_num}"
            if not any(cells):
                continue
            if columns is None:
                columns = _columns(path, cells, line)
            elif (entry := _entry(path, line, cells, columns)).id != 0:  # 0 is unlabelled
                yield line, entry
    except csv.Error as error:
        raise LabelError("not a CSV table", file=path, found=f"line {reader.line_num}: {error}") from error


def _columns(path: Path, titles: list[str], line: str) -> dict[str, int]:
    """Which column holds what."""
    expected = ", ".join(f"{'colour' if what == 'color' else what} ({' or '.join(COLUMNS[what])})" for what in COLUMNS)
    meaning = {title: what for what, titles_ in COLUMNS.items() for title in titles_}
    columns: dict[str, int] = {}
    for position, title in enumerate(titles):
        plain = re.sub(r"[\s_-]+", " ", title).casefold()
        if plain not in meaning:
            close = difflib.get_close_matches(plain, meaning, n=1)
            raise LabelError(
                "unknown column",
                file=path,
                found=f"{title!r} in {line}",
                expected=expected,
                remedy=f"Did you mean {close[0]!r}?" if close else "Leave the column out.",
            )
        if meaning[plain] in columns:
            raise LabelError("two columns mean the same", file=path, found=f"{title!r} and another in {line}")
        columns[meaning[plain]] = position
    if not {"id", "name"} & set(columns):
        raise LabelError("the table has neither ids nor names", file=path, found=", ".join(titles), expected=expected)
    return columns


def _entry(path: Path, line: str, cells: list[str], columns: Mapping[str, int]) -> ClassEntry:
    if len(cells) > len(columns):
        raise LabelError(
            "a line has too many cells",
            file=path,
            found=f"{len(cells)} in {line}",
            expected=f"{len(columns)}",
            remedy='Put a colour with commas in quotes: "255,0,0".',
        )
    given = {what: cells[at] for what, at in columns.items() if at < len(cells) and cells[at]}
    if "id" not in given and "name" not in given:
        raise LabelError("a line names no class", file=path, found=line, expected="an id or a name")
    return ClassEntry(
        _id(path, line, given["id"]) if "id" in given else None,
        given.get("name"),
        _color(path, line, given["color"]) if "color" in given else None,
    )


def _id(path: Path, place: str, text: str) -> int:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (0 <= number <= HIGHEST_ID and number == int(number)):
        raise LabelError(
            "a class id cannot be understood",
            file=path,
            found=f"{text!r} in {place}",
            expected=f"a whole number from 1 to {HIGHEST_ID}",
        )
    return int(number)


def _color(path: Path, place: str, text: str) -> str:
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return text.lower()
    parts = [int(part) for part in re.findall(r"[0-9]+", text)]
    if re.fullmatch(r"[0-9]{1,3}(\s*[,; ]\s*[0-9]{1,3}){2}", text) and max(parts) <= 255:
        return hex_color(*parts)
    raise LabelError(
        "a colour cannot be understood",
        file=path,
        found=f"{text!r} in {place}",
        expected='"#rrggbb", or "r,g,b" with numbers from 0 to 255',
    )


def _rows_of_style(path: Path) -> Iterator[tuple[str, ClassEntry]]:
    """Each class of a style of QGIS."""
    try:
        # QGIS names a document type in every style.
        root = read_xml(path, named_document_type=True).root
    except SceneError as error:
        raise LabelError(
            error.problem,
            file=path,
            found=error.found,
            expected=error.expected,
            remedy="Save the style in QGIS again: layer properties, Style, Save Style.",
        ) from error
    palette = root.findall(".//rasterrenderer[@type='paletted']/colorPalette/paletteEntry")
    categories = root.findall(".//renderer-v2[@type='categorizedSymbol']/categories/category")
    if not palette and not categories:
        kinds = [item.get("type", "?") for item in [*root.iter("rasterrenderer"), *root.iter("renderer-v2")]]
        raise LabelError(
            "the style has no classes",
            file=path,
            found=f"the renderer {' and '.join(kinds)}" if kinds else "no renderer",
            expected="paletted / unique values of a raster, or categorized symbols of a vector layer",
        )
    for number, item in enumerate(palette, start=1):
        entry = _entry_of_value(path, f"palette entry {number}", item, item.get("color"))
        if entry.id != 0:
            yield f"palette entry {number}", entry
    symbols = {item.get("name"): item for item in root.findall(".//renderer-v2/symbols/symbol")}
    for number, item in enumerate(categories, start=1):
        if item.get("value"):  # without value it stands for all others
            color = _color_of_symbol(symbols.get(item.get("symbol")))
            yield f"category {number}", _entry_of_value(path, f"category {number}", item, color)


def _entry_of_value(path: Path, place: str, item: Element, color: str | None) -> ClassEntry:
    """The class of a value that is a number, with its label as name; or of a text, which is the name as the layer has it."""
    value, label = item.get("value", "").strip(), item.get("label", "").strip()
    shown = None if color is None else _color(path, place, color)
    if item.tag == "category" and (item.get("type") == "string" or not re.fullmatch(r"\d+(\.0+)?", value)):
        return ClassEntry(None, value, shown)
    return ClassEntry(_id(path, place, value), label if label and label != value else None, shown)


def _color_of_symbol(symbol: Element | None) -> str | None:
    """The fill's "r,g,b", which QGIS writes before alpha and other models; as an option, in older versions as a property."""
    if symbol is None:
        return None
    options = (item.get("value", "") for item in symbol.iter("Option") if item.get("name") == "color")
    properties = (item.get("v", "") for item in symbol.iter("prop") if item.get("k") == "color")
    text = next(itertools.chain(options, properties), None)
    return None if text is None else ",".join(text.split(",")[:3])
