"""`spectralmamba resample`: a scene in the bands of another sensor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectralmamba.cli.options import (
    AllowMissingRange,
    BandAxis,
    Format,
    Keep,
    SceneFile,
    Variable,
    WaterBands,
    opening_options,
)
from spectralmamba.cli.show import adapted_aloud, console, pixel_bar, say_files, say_resampled
from spectralmamba.errors import OutputError, SettingsError

if TYPE_CHECKING:
    import xarray as xr


def resample(
    scene: SceneFile,
    like: Annotated[
        str,
        typer.Option(
            help="What has the bands: a classifier (.safetensors), another scene, or a sensor with its nominal bands: EnMAP, "
            "PRISMA, DESIS, EMIT, AVIRIS-NG, AVIRIS-3, AVIRIS-5.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="GeoTIFF of float32 to write.", show_default=False)],
    allow_missing_range: AllowMissingRange = False,
    variable: Variable = None,
    band_axis: BandAxis = None,
    format: Format = None,
    keep: Keep = None,
    water_bands: WaterBands = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file of that name.")] = False,
) -> None:
    """Write a scene in the bands of a classifier, a sensor or another scene, in memory that does not grow with it.

    Bands in whose range the scene does not measure are marked bad and hold no data; those that a classifier needs are an error.
    """
    options = locals()
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError("a resampled scene is a GeoTIFF", file=out, expected="a name that ends with .tif")
    if not out.parent.is_dir():
        raise OutputError("the output folder does not exist", file=out.parent, remedy="Create it first.")
    if out.exists() and not overwrite:
        raise OutputError("this file exists", file=out, remedy="Choose another --out or add --overwrite.")
    if Path(like).suffix != ".safetensors" and allow_missing_range:
        raise SettingsError("--allow-missing-range is for --like with a classifier", remedy="Leave it out.")
    from spectralmamba.scenes import has_georeference, open_scene
    from spectralmamba.scenes.writing import write_large_scene

    opened = open_scene(scene, **opening_options(options))
    for file in (Path(str(opened.attrs["source"])), Path(like)):
        if out.resolve() == file.resolve():
            raise OutputError("the result would replace what it is made from", file=out, remedy="Choose another --out.")
    resampled = _resampled(opened, like, allow_missing_range)
    with pixel_bar("resample") as advance:
        say_files(Scene=write_large_scene(resampled, out, advance))
    if not has_georeference(resampled):
        console.print("The scene has no georeference, so the result has none.")


def _resampled(scene: xr.DataArray, like: str, allow_missing_range: bool) -> xr.DataArray:
    """Return a scene in the bands of what is named, and say how."""
    if Path(like).suffix == ".safetensors":
        from spectralmamba.classifier import Classifier

        return adapted_aloud(Classifier.load(like, "cpu"), scene, allow_missing_range)
    from spectralmamba.scenes import open_scene, resample_scene

    resampled = resample_scene(scene, open_scene(like) if Path(like).exists() else like)
    say_resampled(resampled)
    return resampled
