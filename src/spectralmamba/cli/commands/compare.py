"""`spectralmamba compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectralmamba.cli.show import say_files


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of two or more runs of the same scene and labels.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The page to write, such as compare.html.", show_default=False)],
) -> None:
    """Compare runs: scores, where their maps differ, and whether one is better (McNemar's test), as one page."""
    from spectralmamba.report import write_comparison

    say_files(Comparison=write_comparison(runs, out))
