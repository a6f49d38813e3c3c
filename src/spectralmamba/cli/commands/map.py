"""`spectralmamba map`: a whole scene classified."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectralmamba.cli.options import BandAxis, Device, ModelFile, SceneFile, Variable
from spectralmamba.cli.show import console, pixel_bar, say_files
from spectralmamba.errors import OutputError


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
    tile: Annotated[int, typer.Option(help="Rows and columns that are classified at a time.", min=1)] = 512,
    variable: Variable = None,
    band_axis: BandAxis = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over files of that name.")] = False,
) -> None:
    """Classify a whole scene and write the map as a cloud-optimised GeoTIFF."""
    from spectralmamba.classifier import Classifier
    from spectralmamba.mapping import layer_files, map_scene
    from spectralmamba.scenes import open_scene

    for file in (out, *layer_files(out).values()):
        if file.exists() and not overwrite:
            raise OutputError("this file exists", file=file, remedy="Choose another --out or add --overwrite.")
    classifier = Classifier.load(model, device)
    opened = open_scene(scene, variable=variable, band_axis=band_axis)
    with pixel_bar("map") as advance:
        files = map_scene(classifier, opened, out, tile=tile, on_tile=advance)
    say_files(Map=files.classes, Confidence=files.confidence)
    if files.novelty is not None:
        say_files(Novelty=files.novelty)
    if files.set_size is not None:
        say_files(**{"Set size": files.set_size})
    if not files.georeferenced:
        console.print("The scene has no georeference, so the map has none.")
