"""The facts, one module a publisher."""

from spectralmamba.catalog.entries import gic, houston, others, whu_hi
from spectralmamba.catalog.entry import Entry

ENTRIES: dict[str, Entry] = {
    entry.name: entry for entry in (*gic.ENTRIES, *houston.ENTRIES, *whu_hi.ENTRIES, *others.ENTRIES)
}
"""All data sets by name."""
