"""`spectralmamba areas`: how large the classes are, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from spectralmamba.cli.options import (
    AllTouched,
    Classes,
    Drop,
    LabelColumn,
    LabelLayer,
    LabelVariable,
    Merge,
    PointRadius,
    Shrink,
    label_options,
)
from spectralmamba.cli.show import console, say_files

if TYPE_CHECKING:
    from spectralmamba.areas import AreaEstimates, Estimate


def areas(
    map_file: Annotated[
        Path, typer.Argument(metavar="MAP", help="Map: a class raster such as map.tif.", show_default=False)
    ],
    reference: Annotated[
        Path,
        typer.Argument(
            help="Reference sample, drawn at random within each mapped class: class raster, points, or a CSV table with the "
            "class and x and y, longitude and latitude, or column and row.",
            show_default=False,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Write the result to this .json or .csv file, too.")] = None,
    label_variable: LabelVariable = None,
    label_column: LabelColumn = None,
    layer: LabelLayer = None,
    all_touched: AllTouched = False,
    shrink: Shrink = 0.0,
    point_radius: PointRadius = 0.0,
    classes: Classes = None,
    merge: Merge = None,
    drop: Drop = None,
) -> None:
    """Estimate class areas and accuracies of a map, with intervals, from a stratified random reference sample."""
    options = locals()
    from spectralmamba.assessment import assess, check_assessment_file

    if out is not None:
        check_assessment_file(out)
    found = assess(map_file, reference, **label_options(options))
    for name, count in found.left_out.items():
        if count:
            console.print(f"Samples left out, {name.replace('_', ' ')}: {count}")
    for note in found.notes:
        console.print(f"Note: {escape(note)}")
    _print_estimates(found.estimates)
    if out is not None:
        say_files(Areas=found.write(out))


def _print_estimates(found: AreaEstimates) -> None:
    digits = 0 if found.unit == "pixels" or found.mapped.sum() > 10_000 else 2
    console.print(
        f"overall accuracy {_accuracy(found.overall_accuracy)}  ({int(found.counts.sum())} samples; ± is {found.level:.0%})"
    )
    table = Table("class", "name", "samples", f"mapped {found.unit}", f"area in {found.unit}", "user's", "producer's")
    for k, entry in enumerate(found.classes):
        area = found.areas[k]
        table.add_row(
            f"[{entry['color']}]■[/] {entry['id']}",
            entry["name"].replace("[", r"\["),
            str(int(found.counts[k].sum())),
            f"{found.mapped[k]:,.{digits}f}",
            f"{area.value or 0:,.{digits}f} ± {area.half_width or 0:,.{digits}f}",
            _accuracy(found.users_accuracy[k]),
            _accuracy(found.producers_accuracy[k]),
        )
    console.print(table)


def _accuracy(estimate: Estimate) -> str:
    if estimate.value is None:
        return "n/a"
    return f"{estimate.value:.4f} ± {estimate.half_width:.4f}"
