"""`spectralmamba simulate`: a scene and labels to try things out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectralmamba.cli.show import say_files
from spectralmamba.errors import OutputError


def simulate(
    out: Annotated[Path, typer.Option(help="Folder for scene.tif and labels.tif.", show_default=False)],
    rows: Annotated[int, typer.Option(help="Rows of the scene.", min=8)] = 96,
    columns: Annotated[int, typer.Option(help="Columns of the scene.", min=8)] = 96,
    bands: Annotated[int, typer.Option(help="Bands, evenly spaced from 400 to 2500 nm.", min=2)] = 120,
    classes: Annotated[int, typer.Option(help="Classes of land cover.", min=2, max=12)] = 6,
    seed: Annotated[int, typer.Option(help="Seed; the same one gives the same scene.", min=0)] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over a scene and labels in the folder.")
    ] = False,
) -> None:
    """Write a simulated scene and its labels, to try things out."""
    from spectralmamba.scenes import simulate_scene
    from spectralmamba.scenes.writing import write_labels, write_scene

    scene_file, label_file = out / "scene.tif", out / "labels.tif"
    for file in (scene_file, label_file):
        if file.exists() and not overwrite:
            raise OutputError("this file exists", file=file, remedy="Choose another --out or add --overwrite.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "cannot make the output folder", file=out, found=error.strerror, remedy="Choose another --out."
        ) from error
    scene, labels = simulate_scene(rows=rows, columns=columns, bands=bands, classes=classes, seed=seed)
    say_files(Scene=write_scene(scene, scene_file), Labels=write_labels(labels, label_file))
