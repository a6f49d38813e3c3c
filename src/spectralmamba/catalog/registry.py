"""Data sets by name."""

from __future__ import annotations

import difflib
import fnmatch

from spectralmamba.catalog.entries import ENTRIES
from spectralmamba.catalog.entry import Entry
from spectralmamba.errors import DataError


def list_datasets(pattern: str = "*") -> list[str]:
    """Return the names of the data sets that match a shell pattern, in alphabetical order."""
    return sorted(fnmatch.filter(ENTRIES, pattern))


def dataset(name: str) -> Entry:
    """Return what the catalogue says of a data set.

    Raises:
        DataError: There is none of this name.
    """
    if name not in ENTRIES:
        close = difflib.get_close_matches(name.lower().replace("_", "-").replace(" ", "-"), ENTRIES, n=1)
        raise DataError(
            "unknown data set",
            found=name,
            expected=" or ".join(list_datasets()),
            remedy=f"Did you mean {close[0]!r}?" if close else None,
        )
    return ENTRIES[name]
