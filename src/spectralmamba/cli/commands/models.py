"""`spectralmamba models`: the networks and their sizes."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from spectralmamba.cli.show import console


def models(
    bands: Annotated[int, typer.Option(help="Bands of a spectrum to count for.", min=1)] = 145,
    classes: Annotated[int, typer.Option(help="Classes to count for.", min=2)] = 14,
) -> None:
    """List the networks with their parameters and multiply-accumulates a pixel."""
    from spectralmamba.errors import ModelError
    from spectralmamba.models import create_model, list_models, list_presets, model_size
    from spectralmamba.models.committee import SIMPLE_MODELS

    table = Table("model", "preset", "patch", "parameters", "MACs a pixel")
    for column in table.columns[2:]:
        column.justify = "right"
    for name in list_models():
        for preset in list_presets(name):
            for patch in (1, 3, 7):
                try:
                    network = create_model(name, bands=bands, classes=classes, patch=patch, preset=preset)
                except ModelError:  # it has nothing to convolve in a single pixel
                    continue
                size = model_size(network, bands, patch)
                table.add_row(name, preset, str(patch), f"{size.parameters:,}", f"{size.multiply_accumulates:,}")
    console.print(table)
    console.print(
        f"At {bands} bands and {classes} classes. Matrix products and convolutions are counted by torch's FlopCounterMode, the "
        "selective scan as tokens × channels × (4 × states + 2), recurrent layers by their matrices."
    )
    console.print(
        f"Without a network: {', '.join(SIMPLE_MODELS)}. With --model auto, training chooses among these and spectral_mamba."
    )
