"""What `spectralmamba info` says about a scene and its labels."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from spectralmamba.scenes.scene import good_values, has_georeference
from spectralmamba.scenes.statistics import sample_windows

PERCENTILES = (2, 50, 98)


@dataclass(frozen=True)
class ClassDescription:
    """A class of the labels.

    Attributes:
        id: Its number in the label file.
        name: Its name.
        color: Its colour, "#rrggbb".
        pixels: How many pixels are labelled so.
    """

    id: int
    name: str
    color: str | None
    pixels: int


@dataclass(frozen=True)
class SceneDescription:
    """A scene in numbers; what is unknown is None.

    Attributes:
        file: The file.
        rows: Pixels from top to bottom.
        columns: Pixels from left to right.
        bands: Bands, good and bad.
        raw_dtype: The type of the values in the file.
        crs: The name of the coordinate reference system.
        epsg: Its EPSG code.
        pixel_size: Width and height of a pixel in units of the CRS.
        rotated: True if rows do not run along an axis of the CRS.
        bounds: Left, bottom, right and top of the scene in units of the CRS.
        wavelength_range: Shortest and longest band centre in nm.
        mean_fwhm: Mean width of the bands in nm.
        bad_bands: Reason by band number.
        exact: True if all values were looked at, False if a sample was.
        pixels_examined: How many pixels were looked at.
        nodata_share: Share of them that are not valid, from 0 to 1.
        nan_values: NaN among the raw values looked at.
        infinite_values: Infinity among the raw values looked at.
        minimum: The least value of the good bands.
        maximum: The greatest value of the good bands.
        percentiles: Values of the good bands by percentile, 2, 50 and 98.
        notes: What was assumed when the files were opened.
        sensor: Of a product, its sensor.
        product_level: Of a product, its level.
        masks: Pixels that are masked, by what the product calls them.
        masks_kept: What is not masked because the user wants to keep it.
        ortho: Whether maps of the scene get the georeference that it lacks itself.
        classes: The classes of the labels, if there are labels.
        label_report: What the labels lost on the way to the scene's grid, if there are labels.
    """

    file: str
    rows: int
    columns: int
    bands: int
    raw_dtype: str
    crs: str | None
    epsg: int | None
    pixel_size: tuple[float, float] | None
    rotated: bool
    bounds: tuple[float, float, float, float] | None
    wavelength_range: tuple[float, float] | None
    mean_fwhm: float | None
    bad_bands: dict[int, str]
    exact: bool
    pixels_examined: int
    nodata_share: float
    nan_values: int
    infinite_values: int
    minimum: float | None
    maximum: float | None
    percentiles: dict[int, float]
    notes: list[str] = field(default_factory=list)
    sensor: str | None = None
    product_level: str | None = None
    masks: dict[str, int] = field(default_factory=dict)
    masks_kept: list[str] = field(default_factory=list)
    ortho: bool = False
    classes: list[ClassDescription] | None = None
    label_report: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the description as JSON can hold it."""
        plain = asdict(self)
        for name in ("bad_bands", "percentiles"):
            plain[name] = {str(key): value for key, value in plain[name].items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def describe_scene(scene: xr.DataArray, labels: xr.DataArray | None = None) -> SceneDescription:
    """Describe a scene, from all its values if they are at most 8 million, else from an evenly spread sample.

    Args:
        scene: A scene `(band, y, x)`.
        labels: Class ids `(y, x)` on its grid.

    Returns:
        The description.

    Raises:
        SceneError: The file cannot be read any more.
    """
    bands, rows, columns = scene.shape
    wavelength, fwhm = scene["wavelength"].values, scene["fwhm"].values
    known = np.isfinite(wavelength).any()
    return SceneDescription(
        file=scene.attrs.get("source", ""),
        rows=rows,
        columns=columns,
        bands=bands,
        raw_dtype=scene.attrs.get("raw_dtype", scene.dtype.name),
        **_place(scene),
        wavelength_range=(float(np.nanmin(wavelength)), float(np.nanmax(wavelength))) if known else None,
        mean_fwhm=float(np.nanmean(fwhm)) if np.isfinite(fwhm).any() else None,
        bad_bands=dict(scene.attrs.get("bad_band_reasons", {})),
        **_values(scene),
        notes=[*scene.attrs.get("notes", []), *({} if labels is None else labels.attrs).get("notes", [])],
        sensor=scene.attrs.get("sensor"),
        product_level=scene.attrs.get("product_level"),
        masks=dict(scene.attrs.get("masks", {})),
        masks_kept=list(scene.attrs.get("masks_kept", [])),
        ortho="ortho" in scene.attrs,
        classes=None if labels is None else _classes(labels),
        label_report=None if labels is None else dict(labels.attrs.get("report", {})),
    )


def _place(scene: xr.DataArray) -> dict[str, Any]:
    """Describe where the scene lies, None throughout without georeference."""
    place: dict[str, Any] = dict.fromkeys(("crs", "epsg", "pixel_size", "bounds"))
    place["rotated"] = False
    if not has_georeference(scene):
        return place
    transform = scene.rio.transform()
    rows, columns = scene.shape[1:]
    a, b, left, d, e, top = transform[:6]  # written out, because Affine's operator differs between its versions 2 and 3
    corners = ((0, 0), (columns, 0), (0, rows), (columns, rows))
    xs = [a * column + b * row + left for column, row in corners]
    ys = [d * column + e * row + top for column, row in corners]
    place["bounds"] = min(xs), min(ys), max(xs), max(ys)
    place["pixel_size"] = float(np.hypot(transform.a, transform.d)), float(np.hypot(transform.b, transform.e))
    place["rotated"] = bool(transform.b or transform.d)
    crs = scene.rio.crs
    if crs is not None:
        name = re.match(r'\w+\["([^"]*)"', crs.to_wkt())
        place["crs"], place["epsg"] = (name[1] if name else None), crs.to_epsg()
    return place


def _values(scene: xr.DataArray) -> dict[str, Any]:
    """Describe the values of the good bands."""
    block = scene.encoding.get("preferred_chunks", {"y": 1, "x": scene.shape[2]})
    windows, exact = sample_windows(scene.shape, (block["y"], block["x"]))  # type: ignore[arg-type]
    good = int(scene["good"].values.sum())
    values = np.concatenate([good_values(scene, *window).reshape(good, -1) for window in windows], axis=1)
    finite = np.isfinite(values)
    kept = values[finite]
    counts = scene.attrs.get("statistics", {})
    percentiles = np.percentile(kept, PERCENTILES).tolist() if kept.size else []
    return {
        "exact": exact,
        "pixels_examined": values.shape[1],
        "nodata_share": 1 - float(finite.all(axis=0).mean()),
        "nan_values": int(counts.get("nan", np.isnan(values).sum())),
        "infinite_values": int(counts.get("infinite", np.isinf(values).sum())),
        "minimum": float(kept.min()) if kept.size else None,
        "maximum": float(kept.max()) if kept.size else None,
        "percentiles": dict(zip(PERCENTILES, percentiles, strict=bool(percentiles))),
    }


def _classes(labels: xr.DataArray) -> list[ClassDescription]:
    """Count the pixels of each class."""
    ids, counts = np.unique(labels.values, return_counts=True)
    names, colors = labels.attrs.get("class_names", {}), labels.attrs.get("class_colors", {})
    return [
        ClassDescription(number, names.get(number, f"class {number}"), colors.get(number), count)
        for number, count in zip(ids.tolist(), counts.tolist(), strict=True)
        if number != 0
    ]
