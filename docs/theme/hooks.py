"""What the site adds to the pages as they lie in docs/: the cells of the notebook, in place of the comment that names it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_NOTEBOOK = re.compile(r"<!-- notebook: (\S+\.ipynb) -->")


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Put the cells of notebooks where a page asks for them."""
    return _NOTEBOOK.sub(lambda named: cells_as_markdown(Path(config.docs_dir) / named[1]), markdown)


def cells_as_markdown(notebook: Path) -> str:
    """Return a notebook's text, its headings one level lower, and its code as blocks."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(
            re.sub(r"^#", "##", source, flags=re.M) if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        )
    return "\n\n".join(parts)
