"""Which files lie beside a map for a GIS: those that every map has, and those that are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from rasterio.crs import CRS

from spectralmamba.errors import OutputError, SettingsError
from spectralmamba.gis import overview, polygons, stac
from spectralmamba.gis.class_areas import area_table, attribute_table
from spectralmamba.gis.finished_map import FinishedMap, beside, open_map
from spectralmamba.gis.style import LAYER_STYLES, class_style, style_file
from spectralmamba.scenes import has_georeference

_OPTIONAL = {  # name: what the map's name is followed by
    "polygons": ("polygons", ".gpkg"),
    "overview": ("overview", ".png"),
    "google_earth": ("overview", ".kmz"),
    "stac_item": ("stac", ".json"),
}
TITLES = {
    "style": "Style",
    "areas": "Areas",
    "polygons": "Polygons",
    "overview": "Overview",
    "google_earth": "Google Earth",
    "stac_item": "STAC item",
}


@dataclass(frozen=True)
class GisFiles:
    """What to make of a map beside what every map has.

    Attributes:
        polygons: Write the map's polygons (`write_polygons`): True to "map_polygons.gpkg" beside the map, or the GeoPackage's path.
        smallest_area: Least area of a polygon, such as "0.5ha" or "9px".
        overview: Write "map_overview.png", a picture with a legend, and "map_overview.kmz" for Google Earth; the latter only if the
            map has a CRS.
        stac: Write "map_stac.json", a STAC item of the map and all files beside it.
        acquired: When the scene was acquired, for the item, if its file does not say so (`write_item`).
    """

    polygons: str | os.PathLike[str] | bool = False
    smallest_area: str | None = None
    overview: bool = False
    stac: bool = False
    acquired: str | None = None

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.polygons) or self.overview or self.stac


def gis_files(path: Path) -> dict[str, Path]:
    """Return the files that may lie beside a map under names of their own, by name."""
    layers = {f"{name}_style": style_file(beside(path, name)) for name in LAYER_STYLES}
    optional = {name: beside(path, *ending) for name, ending in _OPTIONAL.items()}
    return {
        "attribute_table": path.with_name(path.name + ".aux.xml"),
        "style": style_file(path),
        "areas": beside(path, "areas", ".csv"),
        **layers,
        **optional,
    }


def optional_files(path: Path) -> list[Path]:
    """Return of these files those that are made only if asked for."""
    return [beside(path, *ending) for ending in _OPTIONAL.values()]


def texts_of_every_map(raster: Path, path: Path, layers: Iterable[str]) -> dict[Path, str]:
    """Return the text of each file that every map has: attribute table, areas, and styles of the map and its layers.

    Args:
        raster: The map, which need not have its final name yet.
        path: That name.
        layers: The layers that the map has.
    """
    mapped, files = open_map(raster), gis_files(path)
    texts = {
        "attribute_table": attribute_table(mapped),
        "areas": area_table(mapped),
        "style": class_style(mapped.classes),
    }
    texts |= {f"{name}_style": LAYER_STYLES[name]() for name in layers}
    return {files[name]: text for name, text in texts.items()}


def check_gis_files(wanted: GisFiles, path: Path, scene: xr.DataArray, *, ortho: bool) -> None:
    """Refuse what cannot be made of the map of a scene, before it is mapped.

    Args:
        wanted: What is asked for.
        path: The map.
        scene: `(band, y, x)`.
        ortho: Whether a scene in the geometry of a sensor is put on the product's map grid.

    Raises:
        OutputError: The map is a Zarr store, has no CRS where one is needed, or nothing tells when the scene was acquired.
        SettingsError: An area or a time is none, or nothing is asked for that it is of.
        MissingPackageError: A package is not installed.
    """
    for given, of, option, needs in (
        (wanted.smallest_area, wanted.polygons, "--smallest-area", "--polygons"),
        (wanted.acquired, wanted.stac, "--acquired", "--stac"),
    ):
        if given is not None and not of:
            raise SettingsError(f"{option} without {needs}", found=given, remedy=f"Add {needs}.")
    if not wanted:
        return
    if path.suffix.lower() == ".zarr":
        raise OutputError(
            "polygons, overviews and STAC items are made of maps as GeoTIFF",
            file=path,
            found="a Zarr store",
            remedy="Choose an --out that ends with .tif.",
        )
    crs = _crs(scene, ortho)
    if crs is None and (wanted.polygons or wanted.stac):
        raise OutputError(
            f"{'polygons' if wanted.polygons else 'a STAC item'} cannot be made of a map without CRS",
            file=scene.attrs.get("source"),
            found="a scene in the geometry of its sensor" if "ortho" in scene.attrs else "a scene without CRS",
            remedy="Map it with `spectralmamba map`, which puts it on a map grid."
            if "ortho" in scene.attrs
            else "Give the scene its CRS and transform.",
        )
    if wanted.polygons:
        file = polygons.check_polygon_file(_polygon_file(wanted, path))
        if file.parent != path.parent and not file.parent.is_dir():
            raise OutputError("the output folder does not exist", file=file.parent, remedy="Create it first.")
        if wanted.smallest_area is not None:
            polygons.smallest_pixels(wanted.smallest_area, 1)
    if wanted.overview:
        overview.check_picture_file(path)
    if wanted.stac:
        stac.import_pystac(path)
        stac.acquisition(scene.attrs.get("acquisition_time"), wanted.acquired, scene.attrs.get("source", path))


def write_gis_files(wanted: GisFiles, path: Path, *, missing_only: bool = False) -> dict[str, Path]:
    """Make what is asked for of a finished map, and return the files, by name, of all that is beside it.

    Args:
        wanted: What is asked for.
        path: The map.
        missing_only: Leave files that are there as they are.

    Raises:
        SpectralMambaError: As `write_polygons`, `write_picture`, `write_overlay` and `write_item` do.
    """
    files = gis_files(path) | {"polygons": _polygon_file(wanted, path)}
    if wanted:
        _write(wanted, open_map(path), files, missing_only)
    return {name: file for name, file in files.items() if file.is_file()}


def _write(wanted: GisFiles, mapped: FinishedMap, files: dict[str, Path], missing_only: bool) -> None:
    def is_to_be_made(name: str) -> bool:
        return not (missing_only and files[name].is_file())

    if wanted.polygons and is_to_be_made("polygons"):
        polygons.write_polygons(mapped, files["polygons"], smallest_area=wanted.smallest_area)
    if wanted.overview and is_to_be_made("overview"):
        overview.write_picture(mapped, files["overview"])
    if wanted.overview and mapped.crs is not None and is_to_be_made("google_earth"):
        overview.write_overlay(mapped, files["google_earth"])
    if wanted.stac and is_to_be_made("stac_item"):  # the last, for it names the others
        known = {name: file for name, file in files.items() if name in stac.KINDS and file.is_file()}
        stac.write_item(mapped, files["stac_item"], known, acquired=wanted.acquired)


def _polygon_file(wanted: GisFiles, path: Path) -> Path:
    """Return the file of a map's polygons."""
    return gis_files(path)["polygons"] if isinstance(wanted.polygons, bool) else Path(wanted.polygons)


def _crs(scene: xr.DataArray, ortho: bool) -> Any:
    """Return the CRS of a scene's map."""
    if ortho and "ortho" in scene.attrs:
        return CRS.from_wkt(scene.attrs["ortho"]["crs"])
    return scene.rio.crs if has_georeference(scene) else None
