"""`spectralmamba polygons`: a map as polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectralmamba.cli.options import SmallestArea
from spectralmamba.cli.show import say_files
from spectralmamba.errors import OutputError


def polygons(
    map_file: Annotated[
        Path, typer.Argument(metavar="MAP", help="Map: a GeoTIFF of classes such as map.tif.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="GeoPackage (.gpkg) to write.", show_default=False)],
    smallest_area: SmallestArea = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file of that name.")] = False,
) -> None:
    """Write a map as polygons with class, area and mean confidence, coloured by class in QGIS."""
    from spectralmamba.gis import write_polygons

    if out.exists() and not overwrite:
        raise OutputError("this file exists", file=out, remedy="Choose another --out or add --overwrite.")
    say_files(Polygons=write_polygons(map_file, out, smallest_area=smallest_area))
