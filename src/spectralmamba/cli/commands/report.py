"""`spectralmamba report`: a run's report, once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectralmamba.cli.show import say_files


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several seeds.", show_default=False)],
) -> None:
    """Write a run's report and viewer again, from what its folder holds."""
    from spectralmamba.report import write_report, write_summary_report

    if (folder / "summary.json").is_file():
        say_files(Report=write_summary_report(folder))
    else:
        say_files(Report=write_report(folder), Viewer=folder / "viewer.html")
