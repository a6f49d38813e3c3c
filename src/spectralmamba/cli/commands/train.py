"""`spectralmamba train`, and `spectralmamba run`, which goes on to the scores, the map and the report."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectralmamba.cli.options import (
    Acquired,
    AllTouched,
    BandAxis,
    Classes,
    Device,
    Drop,
    Format,
    Keep,
    LabelColumn,
    LabelFile,
    LabelLayer,
    LabelVariable,
    Merge,
    Overview,
    PointRadius,
    SceneFile,
    Shrink,
    SmallestArea,
    Stac,
    Variable,
    WaterBands,
)
from spectralmamba.cli.prepare import trained_runs
from spectralmamba.cli.show import console, pixel_bar, print_scores, print_summary, say_files, say_gis_files

if TYPE_CHECKING:
    from spectralmamba.evaluation import Scores


def train(
    scene: SceneFile,
    labels: LabelFile,
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    split: Annotated[
        str | None,
        typer.Option(
            help="How labels are divided into training and test pixels: random; or apart in space: fields (whole polygons), "
            "blocks, regions (connected pixels of a class), columns, rows; or masks (given); or none (all labels train, nothing "
            "is scored).",
            show_default="fields for polygons, else random",
        ),
    ] = None,
    per_class: Annotated[
        int | None,
        typer.Option(help="Training pixels of each class (not with masks).", show_default="10 for random, else all"),
    ] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Instead of --per-class, the share of each class that trains (random).")
    ] = None,
    train_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the labels (blocks, regions, fields) or of the width or height (columns, rows) that trains.",
            show_default="0.5",
        ),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(help="Width of a block in pixels (blocks).", show_default="by the scene's size, up to 16"),
    ] = None,
    boundary: Annotated[
        int | None,
        typer.Option(help="First column or row that tests (columns, rows).", show_default="by --train-fraction"),
    ] = None,
    buffer: Annotated[
        int | None,
        typer.Option(
            help="Pixels left out between training and test areas (blocks, regions, fields, columns, rows).",
            show_default="the patch's reach",
        ),
    ] = None,
    train_mask: Annotated[Path | None, typer.Option(help="Raster that is not 0 where labels train (masks).")] = None,
    test_mask: Annotated[Path | None, typer.Option(help="Raster that is not 0 where labels test (masks).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of split and training.", min=0, show_default="0")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Several seeds, such as 0,1,2: a folder for each, and their mean ± sd; on a GPU they train together."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="What classifies: a network (`spectralmamba models` lists them); without one label_propagation, "
            "support_vectors or logistic_regression; or auto, the best of spectral_mamba and the latter on training labels left "
            "out in turn.",
            show_default="spectral_mamba",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="The network's preset: default, paper.", show_default="default")
    ] = None,
    patch: Annotated[
        int | None,
        typer.Option(
            help="Odd width of the neighbourhood in pixels; 1 is pixelwise.", show_default="chosen for the scene"
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Training steps of each network.", show_default="chosen for the scene")
    ] = None,
    rare_classes: Annotated[
        str | None,
        typer.Option(
            help="What makes up for classes with few labels: as drawn (nothing), balanced batches (all classes drawn equally "
            "often), balanced loss (their pixels weigh more), logit adjustment or prior correction (map as if classes were "
            "equally likely; in training or after it).",
            show_default="as drawn",
        ),
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="TOML file of settings, as a run keeps in settings.toml; options go before it.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="One more setting of settings.toml, name=value, such as noise=0.3 or model_options.piece=4; may be given "
            "several times.",
        ),
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
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the results in the folder first; other files stay.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in the folder.")] = False,
) -> None:
    """Train a classifier and keep it with its split, settings and log in a folder."""
    for run, _ in trained_runs(locals()):
        say_files(Classifier=run.run.model)


def _with_training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `train` before its own; it takes those as keyword arguments."""
    of_train, own = (inspect.signature(each, eval_str=True).parameters.values() for each in (train, command))
    named = [option for option in own if option.kind is not inspect.Parameter.VAR_KEYWORD]
    signature = inspect.Signature([*of_train, *(option.replace(kind=option.POSITIONAL_OR_KEYWORD) for option in named)])
    command.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = train.__annotations__ | command.__annotations__
    return command


@_with_training_options
def run_all(
    *,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="Also write map_polygons.gpkg, the map's polygons as GeoPackage.")
    ] = False,
    smallest_area: SmallestArea = None,
    overview: Overview = False,
    stac: Stac = False,
    acquired: Acquired = None,
    **options: Any,
) -> None:
    """Do it all: train, evaluate, map and report, in one folder."""
    from spectralmamba.gis import GisFiles

    scores: dict[int, Scores] = {}
    folder, gis = options["out"], GisFiles(polygons, smallest_area, overview, stac, acquired)
    for run, classifier in trained_runs(options, scored=True, gis=gis):
        with pixel_bar("map") as advance:
            files = run.run.map(classifier, run.scene, advance, gis)
        if not files.georeferenced:
            console.print("The scene has no georeference, so the map has none.")
        run.explain(classifier)
        scores[run.settings.seed] = run.evaluate(classifier)
        print_scores(scores[run.settings.seed])
        report_file = run.run.report()
        say_files(Map=files.classes, Report=report_file, Viewer=report_file.with_name("viewer.html"))
        say_gis_files(files.gis)
    if options["seeds"] is not None:
        from spectralmamba.runs import write_summary

        summary_file = write_summary(folder, scores)
        console.rule("all seeds")
        print_summary(scores)
        say_files(Report=summary_file)
