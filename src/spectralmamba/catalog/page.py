"""The table in docs/data.md: `python -m spectralmamba.catalog.page docs/data.md` writes it anew."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from spectralmamba.catalog.entry import Entry
from spectralmamba.catalog.registry import dataset, list_datasets
from spectralmamba.files import write_text

BEGIN, END = "<!-- begin table -->", "<!-- end table -->"


def table() -> str:
    """Return a Markdown table of all data sets."""
    lines = [
        "| name | data set | sensor | rows × columns × bands | classes | fixed split | how to get it |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join(lines + [_row(dataset(name)) for name in list_datasets()])


def with_table(page: str) -> str:
    """Return the page with the table of now between its two marks."""
    pattern = re.compile(f"{BEGIN}.*{END}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{table()}\n{END}", page)


def way(entry: Entry) -> str:
    """Say in a word or two how a data set is had."""
    if entry.form:
        return "form"
    return "download" if any(all(map(entry.downloadable, layout.required)) for layout in entry.layouts) else "by hand"


def _row(entry: Entry) -> str:
    rows, columns = entry.shape
    cells = (
        f"`{entry.name}`",
        f"[{entry.title}]({entry.page})",
        entry.sensor,
        f"{rows} × {columns} × {entry.bands}",
        str(len(entry.classes)) if entry.classes else "numbers only",
        "yes" if entry.split else "no",
        way(entry),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    write_text(file, with_table(file.read_text(encoding="utf-8")))
