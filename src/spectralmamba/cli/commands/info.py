"""`spectralmamba info`: what a scene and its labels hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from spectralmamba.cli.options import (
    AllTouched,
    BandAxis,
    Classes,
    Drop,
    Format,
    Keep,
    LabelColumn,
    LabelLayer,
    LabelVariable,
    Merge,
    PointRadius,
    SceneFile,
    Shrink,
    Variable,
    WaterBands,
    given_label_options,
    label_options,
    opening_options,
)
from spectralmamba.cli.show import console
from spectralmamba.errors import LabelError


def info(
    scene: SceneFile,
    labels: Annotated[
        Path | None, typer.Argument(help="Labels to count: class raster or vectors.", show_default=False)
    ] = None,
    variable: Variable = None,
    band_axis: BandAxis = None,
    format: Format = None,
    keep: Keep = None,
    water_bands: WaterBands = False,
    label_variable: LabelVariable = None,
    label_column: LabelColumn = None,
    layer: LabelLayer = None,
    all_touched: AllTouched = False,
    shrink: Shrink = 0.0,
    point_radius: PointRadius = 0.0,
    classes: Classes = None,
    merge: Merge = None,
    drop: Drop = None,
    json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show what a scene and its labels hold: size, bands, wavelengths, bad bands, nodata, values, classes."""
    options = locals()
    if labels is None:
        _refuse_label_options(options)
    from spectralmamba.scenes import open_scene
    from spectralmamba.scenes.describe import describe_scene

    opened = open_scene(scene, **opening_options(options))
    ids = None
    if labels is not None:
        from spectralmamba.scenes import open_labels

        ids = open_labels(labels, opened, **label_options(options))
    description = describe_scene(opened, ids)
    if json:
        import json as json_module

        print(json_module.dumps(description.to_dict(), indent=1))
        return
    facts = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _facts(description.to_dict()):
        facts.add_row(f"[bold]{name}[/bold]", escape(value))
    console.print(facts)
    if description.classes is not None:
        _print_classes(description.classes)


def _refuse_label_options(options: dict[str, Any]) -> None:
    if given := given_label_options(options):
        raise LabelError(
            f"{' and '.join(given)} without labels", expected="the label file after the scene", remedy="Name the file."
        )


def _facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "file", found["file"]
    yield "size", f"{found['rows']} rows × {found['columns']} columns × {found['bands']} bands, {found['raw_dtype']}"
    if found["sensor"]:
        yield "sensor", " ".join(filter(None, (found["sensor"], found["product_level"])))
        counts = ", ".join(f"{kind} {count}" for kind, count in found["masks"].items())
        kept = f"; kept: {', '.join(found['masks_kept'])}" if found["masks_kept"] else ""
        yield "masked pixels", (counts or "none, the product has no masks") + kept
    if found["pixel_size"] is None and found["ortho"]:
        yield "georeference", "that of the sensor; maps are put on the product's map grid"
    elif found["pixel_size"] is None:
        yield "georeference", "none; a map of it will have none either"
    else:
        code = f" (EPSG:{found['epsg']})" if found["epsg"] else ""
        yield "CRS", f"{found['crs'] or 'unknown'}{code}"
        width, height = found["pixel_size"]
        yield "pixel", f"{width:g} × {height:g} units of the CRS" + (", rotated" if found["rotated"] else "")
        yield "bounds", ", ".join(f"{value:.10g}" for value in found["bounds"]) + " (left, bottom, right, top)"
    if found["wavelength_range"] is None:
        yield "wavelengths", "unknown"
    else:
        low, high = found["wavelength_range"]
        width = f", mean FWHM {found['mean_fwhm']:.1f} nm" if found["mean_fwhm"] else ""
        yield "wavelengths", f"{low:.1f} to {high:.1f} nm{width}"
    yield "bad bands", _ranges_by_reason(found["bad_bands"]) or "none"
    looked_at = "all pixels" if found["exact"] else f"a sample of {found['pixels_examined']} pixels"
    yield (
        "nodata",
        f"{found['nodata_share']:.1%} of {looked_at}; {found['nan_values']} NaN, {found['infinite_values']} infinite values",
    )
    if found["minimum"] is not None:
        low, middle, high = (found["percentiles"][key] for key in ("2", "50", "98"))
        yield "values", f"{found['minimum']:g} to {found['maximum']:g}; 2 %, 50 %, 98 %: {low:g}, {middle:g}, {high:g}"
    for note in found["notes"]:
        yield "note", note
    for name, count in (found["label_report"] or {}).items():
        if count:
            yield "labels", f"{name.replace('_', ' ')}: {count}"


def _ranges_by_reason(bad_bands: dict[str, str]) -> str:
    """Say "4-6, 9: reason; 12: another reason"."""
    by_reason: dict[str, list[list[int]]] = {}
    for band, reason in sorted((int(band), reason) for band, reason in bad_bands.items()):
        ranges = by_reason.setdefault(reason, [])
        if ranges and ranges[-1][1] == band - 1:
            ranges[-1][1] = band
        else:
            ranges.append([band, band])
    return "; ".join(
        ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges) + f": {reason}"
        for reason, ranges in by_reason.items()
    )


def _print_classes(classes: list[Any]) -> None:
    table = Table("class", "name", "labelled pixels")
    table.columns[2].justify = "right"
    for entry in classes:
        table.add_row(f"[{entry.color}]■[/] {entry.id}", escape(entry.name), str(entry.pixels))
    console.print(table)
