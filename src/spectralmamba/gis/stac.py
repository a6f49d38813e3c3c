"""A map as a STAC item, so that catalogues find it: where, when, which classes, which files.

STAC 1.1.0, with the extensions projection 2.0.0, classification 2.0.0 and processing 1.2.0
(https://github.com/radiantearth/stac-spec, https://github.com/stac-extensions).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from spectralmamba.errors import MissingPackageError, OutputError, SettingsError
from spectralmamba.files import write_json
from spectralmamba.gis.finished_map import FinishedMap, open_map
from spectralmamba.scenes.vectors import apply_affine

_EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_STEPS = 16  # of each side of the footprint, which bends in degrees
_DEGREE_DIGITS = 7  # a centimetre


class Acquired(NamedTuple):
    """When a scene was acquired, in UTC: at one moment, where both are the same, or between two."""

    start: datetime
    end: datetime


class _Kind(NamedTuple):
    title: str
    media_type: str
    roles: tuple[str, ...]


# By the names of files beside a map; whose role is no common one of STAC has a plain word.
KINDS = {
    "map": _Kind("Classes", _COG, ("data",)),
    "confidence": _Kind("Probability of the mapped class", _COG, ("data", "confidence")),
    "novelty": _Kind("How unlike all classes each pixel is", _COG, ("data", "novelty")),
    "set_size": _Kind("How many classes each pixel may have", _COG, ("data", "prediction-sets")),
    "attribute_table": _Kind("Raster attribute table of GDAL", "application/xml", ("metadata",)),
    "style": _Kind("Style for QGIS", "application/xml", ("metadata", "style")),
    "areas": _Kind("Mapped area of each class", "text/csv", ("metadata",)),
    "polygons": _Kind("Polygons of classes", "application/geopackage+sqlite3", ("data",)),
    "overview": _Kind("Picture with a legend", "image/png", ("overview",)),
    "google_earth": _Kind("Overlay for Google Earth", "application/vnd.google-earth.kmz", ("overview",)),
}


def write_item(
    map_file: str | os.PathLike[str] | FinishedMap,
    path: str | os.PathLike[str],
    files: Mapping[str, Path] | None = None,
    *,
    acquired: str | None = None,
) -> Path:
    """Write the STAC item of a map.

    An item tells when the ground was seen. Without the scene's time there is therefore no item, and the time of the processing
    does not stand in for it.

    Args:
        map_file: The finished map, with a CRS, not across 180° of longitude.
        path: The `.json` to write; it appears whole or not at all. References to files are relative to it.
        files: The files beside the map by name: `attribute_table`, `style`, `areas`, `polygons`, `overview`, `google_earth`. The
            layers that lie beside the map need not be given.
        acquired: When the scene was acquired, if the map does not say so: a time, "2024-05-01T10:30:00Z"; a day, "2024-05-01"; or
            two of them with a slash between. Without a zone it is UTC. Of a day or of two times the item has no `datetime`, but
            `start_datetime` and `end_datetime`.

    Returns:
        The path.

    Raises:
        LabelError: The map cannot be read.
        MissingPackageError: pystac is not installed.
        OutputError: The map has no CRS, nothing says when the scene was acquired, or the file cannot be written.
        SettingsError: `acquired` is no time.
    """
    path = Path(path)
    pystac, mapped = import_pystac(path), open_map(map_file)
    if mapped.crs is None:
        raise OutputError("a STAC item needs a map with coordinates", file=mapped.path, found="no CRS in the map")
    seen = acquisition(mapped.tags.get("ACQUISITION_TIME"), acquired, path)
    outline = _footprint(mapped)
    between = seen.start != seen.end
    item: Any = pystac.Item(
        id=_identifier(mapped),
        geometry={"type": "Polygon", "coordinates": [outline]},
        bbox=[*np.min(outline, axis=0).tolist(), *np.max(outline, axis=0).tolist()],
        datetime=None if between else seen.start,
        start_datetime=seen.start if between else None,
        end_datetime=seen.end if between else None,
        properties={
            "created": _utc(datetime.now(UTC)),
            **_projection(mapped),
            **_processing(mapped),
        },
        stac_extensions=list(_EXTENSIONS),
    )
    for name, file in {"map": mapped.path, **mapped.layers, **(files or {})}.items():
        kind = KINDS[name]
        item.add_asset(
            name,
            pystac.Asset(
                href=_reference(file, path.parent),
                title=kind.title,
                media_type=kind.media_type,
                roles=list(kind.roles),
                extra_fields=_about_values(name, mapped),
            ),
        )
    write_json(path, item.to_dict(include_self_link=False, transform_hrefs=False))
    return path


def import_pystac(file: str | os.PathLike[str]) -> Any:
    """Return pystac; MissingPackageError if it is not installed."""
    try:
        import pystac
    except ImportError as error:
        raise MissingPackageError.of("STAC items need", "pystac", "1.12", "stac", file) from error
    return pystac


def acquisition(of_scene: str | None, given: str | None, file: str | os.PathLike[str]) -> Acquired:
    """Return when a scene was acquired: what is given goes before what its file says.

    Raises:
        OutputError: Neither says so, or the scene says something else than a time.
        SettingsError: What is given is no time.
    """
    expected = "2024-05-01T10:30:00Z, 2024-05-01, or two of them with a slash between"
    remedy = f"Say so with --acquired: {expected}."
    if given is not None:
        try:
            return _acquired(given)
        except ValueError as error:
            raise SettingsError("this is no time of acquisition", found=given, expected=expected) from error
    if of_scene is None:
        raise OutputError(
            "a STAC item tells when the scene was acquired, and the scene does not say so", file=file, remedy=remedy
        )
    try:
        return _acquired(of_scene)
    except ValueError as error:
        raise OutputError(
            "the scene's time of acquisition cannot be understood", file=file, found=of_scene, remedy=remedy
        ) from error


def _acquired(text: str) -> Acquired:
    first, slash, last = (part.strip() for part in text.partition("/"))
    start, end = _moments(first)
    if slash:
        end = _moments(last)[1]
    if end < start:
        raise ValueError("the end is before the start")
    return Acquired(start, end)


def _moments(text: str) -> tuple[datetime, datetime]:
    """Return start and end of a day, or a time twice."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        day = date.fromisoformat(text)
        return datetime.combine(day, time(), UTC), datetime.combine(day, time(23, 59, 59), UTC)
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment, moment


def _utc(moment: datetime) -> str:
    return moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _identifier(mapped: FinishedMap) -> str:
    """Return a name of the map that tells its scene, in the letters that STAC advises."""
    scene, stem = Path(mapped.tags.get("SCENE", "")).stem, mapped.path.stem
    whole = stem if stem.startswith(scene) else f"{scene}_{stem}"
    return re.sub(r"[^\w.-]+", "_", whole)


def _footprint(mapped: FinishedMap) -> list[list[float]]:
    """Return the outline of the map in WGS 84, counter-clockwise on the ground for a map with north up, first point again last."""
    height, width = mapped.shape
    along = np.linspace(0, 1, _STEPS, endpoint=False)
    zero, one = np.zeros(_STEPS), np.ones(_STEPS)
    # Down the left side, along the bottom, up the right side, back along the top.
    columns = np.concatenate([zero, along, one, 1 - along]) * width
    rows = np.concatenate([along, one, 1 - along, zero]) * height
    x, y = apply_affine(mapped.transform, np.column_stack([columns, rows])).T
    assert mapped.crs is not None
    degrees = transform_points(mapped.crs, CRS.from_epsg(4326), x.tolist(), y.tolist())
    points = np.round(np.column_stack(degrees[:2]), _DEGREE_DIGITS).tolist()
    return [*points, points[0]]


def _projection(mapped: FinishedMap) -> dict[str, Any]:
    """Return the fields of the projection extension: the code of the CRS, or its WKT where it has none."""
    assert mapped.crs is not None
    authority = mapped.crs.to_authority()
    named: dict[str, Any] = {"proj:code": None if authority is None else ":".join(authority)}
    if authority is None:
        named["proj:wkt2"] = mapped.crs.to_wkt(version="WKT2_2019")
    return named | {"proj:shape": list(mapped.shape), "proj:transform": list(mapped.transform)[:6]}


def _processing(mapped: FinishedMap) -> dict[str, Any]:
    """Return the fields of the processing extension: software with version, model and scene, as far as the map tells."""
    tags = mapped.tags
    fields: dict[str, Any] = {}
    if "SOFTWARE" in tags:
        name, _, version = tags["SOFTWARE"].partition(" ")
        fields["processing:software"] = {name: version}
    if "MODEL" in tags:
        of_scene = f" of {tags['SCENE']}" if "SCENE" in tags else ""
        fields["processing:lineage"] = f"Classification{of_scene} by {tags['MODEL']}"
    return fields


def _about_values(name: str, mapped: FinishedMap) -> dict[str, Any]:
    """Return the type and nodata of a raster's values, and of classes what they mean."""
    if name in ("confidence", "novelty"):
        return {"data_type": "float32", "nodata": "nan"}
    if name == "set_size":
        return {"data_type": "uint8", "nodata": 255}
    if name != "map":
        return {}
    nodata = 0 if mapped.nodata is None else int(mapped.nodata)
    return {"data_type": mapped.dtype, "nodata": nodata, "classification:classes": _classes(mapped, nodata)}


def _classes(mapped: FinishedMap, nodata: int) -> list[dict[str, Any]]:
    classes: list[dict[str, Any]] = [
        {"value": nodata, "name": "nodata", "title": "no class", "description": "no class", "nodata": True}
    ]
    taken = {"nodata"}
    for each in mapped.classes:
        name = _machine_name(each.name) or f"class_{each.id}"
        name = f"{name}_{each.id}" if name in taken else name
        taken.add(name)
        described = {"value": each.id, "name": name, "title": each.name, "description": each.name}
        classes.append({**described, "color_hint": each.color[1:].upper()})
    return classes


def _machine_name(name: str) -> str:
    """Return a name in the letters that the extension takes, `[0-9A-Za-z_-]`."""
    return re.sub(r"[^0-9A-Za-z_-]+", "_", name).strip("_")


def _reference(file: Path, folder: Path) -> str:
    relative = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
    return relative if relative.startswith("../") else f"./{relative}"
