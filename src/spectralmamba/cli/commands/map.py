"""`spectralmamba map`: a whole scene classified."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectralmamba.cli.options import BandAxis, Device, ModelFile, SceneFile, Variable
from spectralmamba.cli.show import console, errors, pixel_bar, say_files
from spectralmamba.errors import OutputError, SceneError
from spectralmamba.memory import bytes_of


def map_command(
    model: ModelFile,
    scene: SceneFile,
    out: Annotated[
        Path,
        typer.Option(
            help="GeoTIFF of classes to write. Beside it go its layers: confidence, novelty, and set size, "
            "which is how many classes a pixel may have.",
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
            help="Memory that all of it may take, such as 512MB or 2GB; else about 1 GB for what is read.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads that compute on a CPU; else all cores.", min=1, show_default=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a stopped run of the same command was, if one was stopped.")
    ] = False,
    variable: Variable = None,
    band_axis: BandAxis = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over files of that name.")] = False,
) -> None:
    """Classify a whole scene and write the map as a cloud-optimised GeoTIFF.

    A run that was stopped or killed goes on with --resume, and ends in the same bytes.
    """
    from spectralmamba.classifier import Classifier
    from spectralmamba.mapping import layer_files, map_scene
    from spectralmamba.scenes import open_scene
    from spectralmamba.unfinished import is_unfinished

    for file in (out, *layer_files(out).values()):
        if file.exists() and not overwrite and not (resume and is_unfinished(out)):
            raise OutputError("this file exists", file=file, remedy="Choose another --out or add --overwrite.")
    classifier = Classifier.load(model, device)
    opened = open_scene(scene, variable=variable, band_axis=band_axis)
    allowed = None if memory is None else bytes_of(memory)
    try:
        with pixel_bar("map") as advance:
            files = map_scene(
                classifier,
                opened,
                out,
                tile=tile,
                memory=allowed,
                workers=workers,
                resume=resume,
                keep_unfinished=True,
                on_tile=advance,
            )
    except (KeyboardInterrupt, SceneError):
        if is_unfinished(out):
            errors.print("What is classified so far is kept: the same command with --resume goes on.")
        raise
    say_files(Map=files.classes, Confidence=files.confidence)
    if files.novelty is not None:
        say_files(Novelty=files.novelty)
    if files.set_size is not None:
        say_files(**{"Set size": files.set_size})
    if not files.georeferenced:
        console.print("The scene has no georeference, so the map has none.")
