"""Metadata in XML from anywhere: no document types, no entities, bounded size and depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

import numpy as np

from spectralmamba.errors import SceneError

MOST_BYTES = 64 << 20
"""The metadata of products have some 4 MB."""

MOST_DEPTH = 64
"""Elements within elements; the metadata of products go to about 10."""

MOST_TAGS = 700_000
"""Tags in all, which begin and end elements; the metadata of products have some 200 000."""

_CHUNK = 1 << 16
_MOST_DIGITS = 6
_DAMAGED = (expat.ExpatError, ParseError, ValueError, LookupError, AssertionError)


class _RefusedError(Exception):
    """What a document holds that is not read: found, expected."""


@dataclass(frozen=True)
class XmlFile:
    """A document and where it is from.

    Attributes:
        path: The file.
        root: Its root element.
    """

    path: Path
    root: Element

    def text(self, place: str) -> str | None:
        """Return the text at a place below the root, None if there is none."""
        text = (self.root.findtext(place) or "").strip()
        return text or None

    def number(self, place: str) -> float | None:
        """Return the finite number at a place, None if nothing is there.

        Raises:
            SceneError: Something else is there.
        """
        text = self.text(place)
        return None if text is None else self._finite(text, place)

    def integers(self, place: str) -> list[int]:
        """Return the whole numbers, from 0, of a list with commas, none if it is not there.

        Raises:
            SceneError: It holds something else.
        """
        text = self.text(place) or ""
        parts = text.replace(",", " ").split()
        if not all(part.isascii() and part.isdigit() and len(part) <= _MOST_DIGITS for part in parts):
            raise self.error(f"{place} cannot be understood", repr(text[:40]), "whole numbers")
        return [int(part) for part in parts]

    def table(self, place: str, number: str, names: Sequence[str]) -> np.ndarray:
        """Return numbers of bands, sorted by the number of the band.

        Args:
            place: Where the bands are.
            number: The attribute, or the element in the band, that counts it from 1.
            names: The elements in a band that hold numbers.

        Returns:
            float64 `(L, len(names))`.

        Raises:
            SceneError: There is no band, one is missing or is there twice, or a value is no finite number.
        """
        rows: dict[int, list[float]] = {}
        for band in self.root.findall(place):
            counted = (band.get(number) or band.findtext(number) or "").strip()
            if not counted.isascii() or not counted.isdigit() or len(counted) > _MOST_DIGITS:
                raise self.error(f"a band in {place} has no number", repr(counted[:20]), f"{number} from 1")
            if int(counted) in rows:
                raise self.error("a band is there twice", f"band {counted} in {place}", "one element a band")
            rows[int(counted)] = [
                self._finite((band.findtext(name) or "").strip(), f"{name} of band {counted}") for name in names
            ]
        if not rows:
            raise self.error("describes no band", f"no {place}", "an element for each band of the image")
        missing = sorted(set(range(1, max(rows) + 1)) - set(rows)) if max(rows) <= MOST_TAGS else [1]
        if missing or min(rows) < 1:
            raise self.error(
                "a band is missing in the metadata",
                f"no band {', '.join(map(str, missing[:5]))} in {place}",
                f"bands 1 to {max(rows)}",
            )
        return np.array([rows[band] for band in sorted(rows)])

    def error(self, problem: str, found: object, expected: object) -> SceneError:
        """Return the error for this file."""
        return SceneError(
            problem,
            file=self.path,
            found=found,
            expected=expected,
            remedy="The metadata are damaged, or of another product; download the product again.",
        )

    def _finite(self, text: str, what: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise self.error(f"{what} is no number", repr(text[:40]), "a finite number")
        return value


def read_xml(path: Path, named_document_type: bool = False) -> XmlFile:
    """Read a document that may be hostile.

    Document types are refused, and with them all entities, so that nothing grows and no other file is opened.

    Args:
        path: The file.
        named_document_type: Whether a document type is passed over that is only named; its file is never opened, and one that
            declares something is refused all the same.

    Raises:
        SceneError: It cannot be read, is no well-formed XML, has a document type, or is too large or too deep.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise _RefusedError(f"{size} bytes", f"at most {MOST_BYTES}")
        return XmlFile(path, _parse(path, named_document_type))
    except _RefusedError as refused:
        found, expected = refused.args
        raise SceneError(
            "this XML is not read",
            file=path,
            found=found,
            expected=expected,
            remedy="It is not what the publisher writes; download the product again.",
        ) from refused
    except (*_DAMAGED, OSError) as error:
        raise SceneError(
            "cannot be read as XML",
            file=path,
            found=str(error) or type(error).__name__,
            expected="well-formed XML",
            remedy="The file is damaged or cut off; download the product again.",
        ) from error


def _parse(path: Path, named_document_type: bool) -> Element:
    builder, depth = TreeBuilder(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MOST_DEPTH:
            raise _RefusedError("elements within elements without end", f"a depth of at most {MOST_DEPTH}")
        builder.start(tag.rpartition(":")[2], attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag.rpartition(":")[2])

    def refuse(*_: Any) -> Any:
        raise _RefusedError("a document type or entity declaration", "elements and text alone")

    def document_type(name: str, system: str | None, public: str | None, declares: int) -> None:
        if declares or not named_document_type:
            refuse()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = document_type
    parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    with path.open("rb") as file:
        tags = sum(chunk.count(b"<") for chunk in iter(lambda: file.read(_CHUNK), b""))
        if tags > MOST_TAGS:
            raise _RefusedError(f"{tags} tags", f"at most {MOST_TAGS}")
        file.seek(0)
        while chunk := file.read(_CHUNK):
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    return builder.close()
