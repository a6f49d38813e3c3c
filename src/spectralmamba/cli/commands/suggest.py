"""`spectralmamba suggest`: which pixels to label next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectralmamba.cli.options import (
    AllTouched,
    BandAxis,
    Classes,
    Device,
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
    opening_options,
)
from spectralmamba.cli.prepare import open_labels_aloud
from spectralmamba.cli.show import console, say_files
from spectralmamba.errors import LabelError, OutputError

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

_GUIDES = {
    "classifier": "where the classifier doubts most",
    "labels": "where a linear discriminant of the labels doubts most",
    "spectra": "by the spectra alone, without a classifier or labels of two classes",
}


def suggest(
    scene: SceneFile,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: GeoPackage (.gpkg), GeoJSON (.geojson) or a table (.csv; rows and columns from 0).",
            show_default=False,
        ),
    ],
    count: Annotated[int, typer.Option(help="How many to suggest.", min=1)] = 20,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Labels so far, raster or vectors; suggests what they leave in doubt, and no labelled pixel."
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Classifier (model.safetensors) whose doubts to follow instead of the labels'.")
    ] = None,
    area: Annotated[
        Path | None, typer.Option(help="Raster on the scene's grid; only pixels where it is not 0 are suggested.")
    ] = None,
    width: Annotated[
        int, typer.Option(help="Pixels along each side of the squares to label, odd; 1 is single pixels.", min=1)
    ] = 1,
    with_labels: Annotated[
        bool, typer.Option("--with-labels", help="Write the labels so far into the same file, pixel by pixel.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed; the same one gives the same suggestions.", min=0)] = 0,
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
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file of that name.")] = False,
) -> None:
    """Suggest which pixels to label next, as a file to fill in and give back as labels."""
    options = locals()
    _check(options)
    from spectralmamba.scenes import open_scene
    from spectralmamba.suggestion_files import check_suggestion_file, write_suggestions

    opened = open_scene(scene, **opening_options(options))
    check_suggestion_file(out, opened)
    ids = None if labels is None else open_labels_aloud(options, opened)
    asked = None if area is None else _open_area(area, opened)
    from spectralmamba.classifier import Classifier
    from spectralmamba.suggestions import suggest as choose

    classifier = None if model is None else Classifier.load(model, device)
    found = choose(opened, ids, count=count, classifier=classifier, seed=seed, width=width, area=asked, device=device)
    names = {} if ids is None else ids.attrs["class_names"]
    if classifier is not None:
        names = classifier.class_names
    write_suggestions(found, opened, out, class_names=names, labels=ids if with_labels else None)
    if len(found) < count:
        console.print(f"Note: room was found for {len(found)} of {count} squares beside each other.")
    what = "pixels" if width == 1 else f"squares of {width} × {width} pixels"
    console.print(f"{len(found)} {what} from {found.candidates} candidates, {_GUIDES[found.guided_by]}.")
    say_files(Suggestions=out)
    console.print(_what_to_do(options))


def _check(options: dict[str, Any]) -> None:
    """Refuse what can be refused before anything is read."""
    out, labels = options["out"], options["labels"]
    given = given_label_options(options) + (["--with-labels"] if options["with_labels"] else [])
    if labels is None and given:
        raise LabelError(f"{' and '.join(given)} without labels", remedy="Name the file with --labels.")
    if not out.parent.is_dir():
        raise OutputError("the output folder does not exist", file=out.parent, remedy="Create it first.")
    if not out.exists():
        return
    if labels is not None and labels.exists() and out.samefile(labels):
        raise OutputError("this file holds the labels", file=out, remedy="Choose another --out, to keep them.")
    if not options["overwrite"] or out.is_dir():
        raise OutputError("this file exists", file=out, remedy="Choose another --out or add --overwrite.")


def _open_area(file: Path, scene: xr.DataArray) -> np.ndarray:
    from spectralmamba.scenes import open_labels
    from spectralmamba.scenes.vectors import is_vector

    if is_vector(file):
        raise LabelError(
            "the area is a raster on the scene's grid",
            file=file,
            found="points or polygons",
            remedy="Burn them into a raster of that grid (gdal_rasterize -burn 1 -ot Byte -tr -te).",
        )
    return open_labels(file, scene).values > 0


def _what_to_do(options: dict[str, Any]) -> str:
    """Say what comes next."""
    if options["out"].suffix.lower() == ".csv":
        return 'Next: fill in the column "class", and enter it at row and column, counted from 0, into a raster of class ids.'
    next_ = 'Next: fill in the column "class" in a GIS, and give the file as LABELS with --label-column class.'
    if options["labels"] is not None and not options["with_labels"]:
        next_ += " It holds the new pixels alone; with --with-labels it holds the labels so far, too."
    return next_
