"""Classes that become one, and classes that are left out."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from spectralmamba.errors import LabelError
from spectralmamba.scenes.class_rasters import ClassRaster
from spectralmamba.scenes.class_tables import folded

Merge = Mapping[str, Sequence[str | int]]
"""Names of new classes, and the names or ids of the classes that each of them is made of."""


def parse_merges(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return what `--merge "wheat,barley=cereal"` asks for; several texts with one new name are added up.

    Raises:
        LabelError: A text has no new name, or no class before it.
    """
    merge: dict[str, list[str]] = {}
    for text in texts:
        classes, _, name = (part.strip() for part in text.rpartition("="))
        listed = [part.strip() for part in classes.split(",") if part.strip()]
        if not name or not listed:
            raise LabelError(
                "--merge takes classes and their new name", found=repr(text), expected='"wheat,barley=cereal"'
            )
        merge.setdefault(name, []).extend(listed)
    return merge


def merge_and_drop(
    raster: ClassRaster, merge: Merge, drop: Sequence[str | int], file: str | os.PathLike[str]
) -> tuple[ClassRaster, int]:
    """Make classes one, and leave classes out.

    A merged class has the id and colour of the class that is called so already, and else the lowest id of its classes and the
    first of their colours, in the order given.

    Args:
        raster: Labels with the names that classes are called by; without name it is "class 3".
        merge: New names, and the classes of each.
        drop: Names or ids of classes to leave out.
        file: What errors are about.

    Returns:
        The labels, and how many pixels were of dropped classes.

    Raises:
        LabelError: There is no such class, or one is asked for twice.
    """
    known = {id_: name for id_, name in raster.names.items() if id_ > 0 and name} | raster.present()
    named = {folded(name): id_ for id_, name in known.items()} | {name: id_ for id_, name in known.items()}
    names, colors, notes = dict(raster.names), dict(raster.colors), list(raster.notes)
    becomes = np.arange(max(int(raster.ids.max()), *known, 0) + 1)
    used: set[int] = set()

    def take(asked: Sequence[str | int]) -> list[int]:
        found = list(dict.fromkeys(_find(each, known, named, file) for each in asked))
        for id_ in found:
            if id_ in used:
                raise LabelError("a class is merged or dropped twice", file=file, found=f"{known[id_]} ({id_})")
        used.update(found)
        return found

    dropped = take(drop)
    becomes[dropped] = 0
    for name, asked in merge.items():
        called_so = named.get(name, named.get(folded(name)))
        merged = take(asked if called_so is None else [called_so, *asked])
        id_ = min(merged) if called_so is None else called_so
        becomes[merged] = id_
        names[id_] = name
        if color := next((colors[each] for each in merged if each in colors), None):
            colors[id_] = color
        listed = " and ".join(f"{known[each]} ({each})" for each in merged)
        notes.append(f"Merged as {name} ({id_}): {listed}.")
    for id_ in dropped:
        notes.append(f"Left out: {known[id_]} ({id_}).")
    count = int(np.isin(raster.ids, dropped).sum()) if dropped else 0
    ids = becomes[raster.ids].astype(np.int32)
    gone = {id_ for id_ in used if becomes[id_] != id_}
    names = {id_: name for id_, name in names.items() if id_ not in gone}
    return replace(raster, ids=ids, names=names, colors=colors, notes=notes), count


def _find(asked: str | int, known: Mapping[int, str], named: Mapping[str, int], file: str | os.PathLike[str]) -> int:
    """The id of a class that is asked for by name or id."""
    text = str(asked)
    found = named.get(text, named.get(folded(text))) if isinstance(asked, str) else asked
    if found is None and text.strip().isdecimal():
        found = int(text)
    if found is None or found not in known:
        close = difflib.get_close_matches(folded(text), named, n=1)
        raise LabelError(
            f"there is no class {text!r} to merge or drop",
            file=file,
            found=", ".join(f"{name} ({id_})" for id_, name in sorted(known.items())) or "no class",
            remedy=f"Did you mean {known[named[close[0]]]!r}?" if close else "Choose one of these, by name or id.",
        )
    return found
