"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

SceneFile = Annotated[
    Path,
    typer.Argument(
        help="Scene: MATLAB, ENVI (.hdr or data file), GeoTIFF, .npy or Zarr store; or folder, file or zip of a product of "
        "EnMAP, PRISMA, EMIT, DESIS or AVIRIS.",
        show_default=False,
    ),
]
LabelFile = Annotated[
    Path,
    typer.Argument(
        help="Labels: class raster (MATLAB, GeoTIFF, ENVI, .npy, .png) or vectors (GeoPackage, GeoJSON, Shapefile).",
        show_default=False,
    ),
]
ModelFile = Annotated[
    Path, typer.Argument(help="Classifier: the model.safetensors that training wrote.", show_default=False)
]
MappingModel = Annotated[
    Path,
    typer.Argument(
        help="Classifier: the model.safetensors that training wrote, an ONNX model that `spectralmamba export` wrote, or a "
        "repository of the Hugging Face Hub, hub:owner/name.",
        show_default=False,
    ),
]
Variable = Annotated[
    str | None, typer.Option(help="The scene's variable in a MATLAB file or Zarr store that holds several.")
]
BandAxis = Annotated[
    int | None, typer.Option(help="Axis of the bands in a MATLAB or .npy cube: 0, 1 or 2.", min=0, max=2)
]
Format = Annotated[
    Literal["matlab", "envi", "geotiff", "numpy", "zarr", "enmap", "prisma", "emit", "desis", "aviris"] | None,
    typer.Option("--format", help="What the scene is, if its name and content do not tell.", show_default=False),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        help="Do not mask these pixels of a product: cloud, shadow, cirrus, haze, snow, saturated or defective; may be given "
        "several times.",
        show_default=False,
    ),
]
WaterBands = Annotated[
    bool, typer.Option("--water-bands", help="Use also the bands of a product in which water vapour absorbs.")
]
AllowMissingRange = Annotated[
    bool,
    typer.Option(
        "--allow-missing-range",
        help="Take also a scene of another sensor that does not measure in a range that the classifier uses: its bands there are "
        "filled from the others.",
    ),
]
LabelVariable = Annotated[str | None, typer.Option(help="The labels' variable in a MATLAB file that holds several.")]
LabelColumn = Annotated[str | None, typer.Option(help="The column of a vector file that holds the class.")]
LabelLayer = Annotated[str | None, typer.Option(help="The labels' layer in a vector file that has several.")]
AllTouched = Annotated[
    bool,
    typer.Option(
        "--all-touched", help="Polygons label every pixel that they meet, not only those whose centre they hold."
    ),
]
Shrink = Annotated[
    float,
    typer.Option(
        help="Make polygons smaller by so many pixels on all sides before, against mixed pixels at their edges.", min=0
    ),
]
PointRadius = Annotated[
    float,
    typer.Option(
        help="Points label also every pixel whose centre lies within so many pixels; 0 is the one pixel they lie in.",
        min=0,
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option(
        help="Names and colours of the labels' classes: a table (.csv) with the columns id, name and colour, or a QGIS style "
        "(.qml).",
        show_default=False,
    ),
]
Merge = Annotated[
    list[str] | None,
    typer.Option(
        "--merge",
        help='Classes of the labels, by name or id, that become one: "wheat,barley=cereal"; may be given several times.',
        show_default=False,
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        "--drop",
        help="A class of the labels, by name or id, that is left out; may be given several times.",
        show_default=False,
    ),
]
SmallestArea = Annotated[
    str | None,
    typer.Option(
        help="Least area of a polygon, such as 0.5ha or 9px; what is smaller goes to the largest polygon beside it.",
        show_default=False,
    ),
]
Overview = Annotated[
    bool,
    typer.Option(
        "--overview",
        help="Also draw the map for people without a GIS: map_overview.png, with a legend, and map_overview.kmz for Google Earth.",
    ),
]
Stac = Annotated[
    bool, typer.Option("--stac", help="Also write map_stac.json, a STAC item of the map and the files beside it.")
]
Acquired = Annotated[
    str | None,
    typer.Option(
        help="When the scene was acquired, for --stac, if its file does not say so: 2024-05-01T10:30:00Z, a day, or two of them "
        "with a slash between.",
        metavar="TIME",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.")]


def opening_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return of a command's options those that `open_scene` takes."""
    return {
        "variable": options["variable"],
        "band_axis": options["band_axis"],
        "format": options["format"],
        "keep": options["keep"] or (),
        "water_bands": options["water_bands"],
    }


_OF_LABELS = {"variable": "label_variable", "column": "label_column"} | {
    name: name for name in ("layer", "all_touched", "shrink", "point_radius", "classes", "merge", "drop")
}


def label_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return of a command's options those that `open_labels` takes."""
    from spectralmamba.scenes.merging import parse_merges

    found = {name: options[option] for name, option in _OF_LABELS.items()}
    return found | {"merge": parse_merges(options["merge"] or []), "drop": options["drop"] or []}


def given_label_options(options: dict[str, Any]) -> list[str]:
    """Return the names of a command's options for labels that were given, as the user writes them."""
    return [f"--{option.replace('_', '-')}" for option in _OF_LABELS.values() if options[option]]
