"""`spectralmamba map`: a whole scene classified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from spectralmamba.cli.options import (
    Acquired,
    AllowMissingRange,
    BandAxis,
    Device,
    Format,
    Keep,
    MappingModel,
    Overview,
    SmallestArea,
    Stac,
    Variable,
    WaterBands,
    opening_options,
)
from spectralmamba.cli.show import adapted_aloud, console, errors, pixel_bar, say_files, say_gis_files
from spectralmamba.errors import ClusterError, OutputError, SceneError, SpectralMambaError
from spectralmamba.memory import bytes_of

if TYPE_CHECKING:
    from spectralmamba.classifier import Classifier


def map_command(
    model: MappingModel,
    scenes: Annotated[
        list[Path],
        typer.Argument(
            help="Scenes: files, products or Zarr stores, a folder of them, a .txt that lists them, or a .json of STAC items.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="GeoTIFF of classes to write. Beside it go its layers: confidence, novelty, and set size, "
            "which is how many classes a pixel may have. Or a Zarr store for all of them, map.zarr. Of several scenes the "
            "folder for maps and the table maps.csv.",
            show_default=False,
        ),
    ],
    tile: Annotated[
        int | None,
        typer.Option(
            help="Rows and columns that are read at a time; else whole blocks of the scene's file.",
            min=1,
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory that all of it may take, such as 512MB or 2GB; else about 1 GB, with a GPU a quarter of what is free.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Threads that compute on a CPU; else all cores, with --dask one for each tile.",
            min=1,
            show_default=False,
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler, such as tcp://host:8786: its workers compute the tiles. "
            "They see the scenes and the folder of --out under the same paths.",
            metavar="ADDRESS",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        Literal["float32", "float16"],
        typer.Option(help="Of matrix products on a GPU; float16 is faster and changes a label in some thousands."),
    ] = "float32",
    polygons: Annotated[
        Path | None,
        typer.Option(
            help="Also write the map's polygons to this GeoPackage (.gpkg); of several scenes the folder for them.",
            show_default=False,
        ),
    ] = None,
    smallest_area: SmallestArea = None,
    overview: Overview = False,
    stac: Stac = False,
    acquired: Acquired = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a stopped run of the same command was, if one was stopped.")
    ] = False,
    variable: Variable = None,
    band_axis: BandAxis = None,
    format: Format = None,
    keep: Keep = None,
    water_bands: WaterBands = False,
    allow_missing_range: AllowMissingRange = False,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over files of that name.")] = False,
) -> None:
    """Classify whole scenes and write maps as cloud-optimised GeoTIFFs, or one as a Zarr store.

    Beside a GeoTIFF go its style for QGIS, its attribute table and the areas of its classes.

    A run that was stopped or killed goes on with --resume, and ends in the same bytes.

    A scene of other wavelengths than the classifier's is resampled to its bands.

    Of several scenes one that fails does not stop the others, and --resume skips those that are mapped.
    """
    opening = opening_options(locals())
    from spectralmamba.archive import names_several
    from spectralmamba.gis import GisFiles
    from spectralmamba.zarr_maps import is_zarr

    allowed = None if memory is None else bytes_of(memory)
    options = {
        "tile": tile,
        "memory": allowed,
        "workers": workers,
        "resume": resume,
        "dask": dask,
        "precision": precision,
        "allow_missing_range": allow_missing_range,
        "gis": GisFiles(polygons or False, smallest_area, overview, stac, acquired),
    }
    out_is_folder = not out.suffix or (out.is_dir() and not is_zarr(out))
    if len(scenes) > 1 or names_several(scenes[0]) or out_is_folder:
        _map_many(lambda: _load_aloud(model, device), scenes, out, {**options, **opening, "overwrite": overwrite})
    else:
        _map_one(lambda: _load_aloud(model, device), scenes[0], out, opening, options, overwrite)


def _load_aloud(model: Path, device: str) -> Classifier:
    """Load what maps, and say what it does not tell."""
    from spectralmamba.sharing import OnnxClassifier, load_classifier

    classifier = load_classifier(model, device)
    if isinstance(classifier, OnnxClassifier):
        console.print(f"Note: an ONNX model has no {' and no '.join(classifier.left_out)}; the map has none either.")
    return classifier


def _map_many(load: Callable[[], Classifier], places: list[Path], folder: Path, options: dict[str, Any]) -> None:
    from spectralmamba.archive import FAILED, MAPPED, SKIPPED, TABLE, Outcome, find_scenes, map_scenes

    scenes = find_scenes(places)
    if folder.is_file():
        raise OutputError("this is a file, not a folder for maps", file=folder, remedy="Choose another --out.")

    def say(outcome: Outcome) -> None:
        resampled = f" ({outcome.resampled})" if outcome.resampled else ""
        console.print(f"{outcome.outcome}: {escape(outcome.scene + resampled)}")

    try:
        with pixel_bar("map") as advance:
            outcomes = map_scenes(load(), scenes, folder, on_scene=say, on_tile=advance, **options)
    except KeyboardInterrupt:
        errors.print("The same command with --resume goes on.")
        raise
    numbers = {what: sum(each.outcome == what for each in outcomes) for what in (MAPPED, SKIPPED, FAILED)}
    console.print(", ".join(f"{number} {what}" for what, number in numbers.items()))
    say_files(Table=folder / TABLE)
    failed = [f"{each.scene}: {each.reason}" for each in outcomes if each.outcome == FAILED]
    if failed:
        for line in failed:
            errors.print(f"[red]Error:[/red] {escape(line)}")
        raise typer.Exit(2)


def _map_one(
    load: Callable[[], Classifier],
    scene: Path,
    out: Path,
    opening: dict[str, Any],
    options: dict[str, Any],
    overwrite: bool,
) -> None:
    from spectralmamba.gis.beside import optional_files
    from spectralmamba.mapping import layer_files, map_scene
    from spectralmamba.scenes import open_scene
    from spectralmamba.unfinished import is_unfinished

    polygons = options["gis"].polygons
    for file in (out, *layer_files(out).values(), *optional_files(out), *([polygons] if polygons else [])):
        if file.exists() and not overwrite and not (options["resume"] and is_unfinished(out)):
            raise OutputError("this file exists", file=file, remedy="Choose another --out or add --overwrite.")
    classifier = load()
    opened = adapted_aloud(classifier, open_scene(scene, **opening), allow_missing_range=options["allow_missing_range"])
    try:
        with pixel_bar("map") as advance:
            files = map_scene(classifier, opened, out, keep_unfinished=True, on_tile=advance, **options)
    except (KeyboardInterrupt, SceneError, ClusterError):
        if is_unfinished(out):
            errors.print("What is classified so far is kept: the same command with --resume goes on.")
        raise
    except SpectralMambaError:
        if out.is_file() and is_unfinished(out):
            errors.print("The map is finished: the same command with --resume makes the files beside it.")
        raise
    say_files(Map=files.classes)
    for name, file in {"Confidence": files.confidence, "Novelty": files.novelty, "Set size": files.set_size}.items():
        if file not in (None, files.classes):  # a Zarr store holds all layers
            say_files(**{name: file})
    say_gis_files(files.gis)
    if not files.georeferenced:
        console.print("The scene has no georeference, so the map has none.")
