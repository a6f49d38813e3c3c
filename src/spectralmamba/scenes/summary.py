"""What a report shows of a scene: a false-colour picture and the mean spectra of its classes."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import xarray as xr
from rasterio.transform import Affine

from spectralmamba.files import numbers_or_none
from spectralmamba.scenes.scene import has_georeference, row_blocks
from spectralmamba.scenes.writing import raster_output

# Red, green and blue light, and how far from it a band may lie to stand for it.
_RGB_NM, _NEAR_NM = (660.0, 560.0, 480.0), 60.0
_STRETCH = (2, 98)  # percentiles that become black and white
_LARGEST = 2000  # pixels on a side


def colour_bands(scene: xr.DataArray) -> list[int]:
    """Return the positions of three bands to show as red, green and blue.

    The good bands nearest 660, 560 and 480 nm; where wavelengths are unknown or lie elsewhere, the band that varies most in
    each third of the spectrum, the last third as red. A scene of fewer than three good bands repeats them.
    """
    good = np.flatnonzero(scene["good"].values)
    wavelength = scene["wavelength"].values[good]
    apart = np.abs(wavelength[:, None] - np.array(_RGB_NM))  # (good bands, 3)
    if np.isfinite(apart).any(0).all() and (np.nanmin(apart, 0) <= _NEAR_NM).all():
        return [int(good[index]) for index in np.nanargmin(apart, 0)]
    step = _decimation(scene)
    sample = scene.isel(band=good, y=slice(None, None, 4 * step), x=slice(None, None, 4 * step)).values
    variation = (
        np.nan_to_num(np.nanstd(sample.reshape(len(good), -1), axis=1)) if np.isfinite(sample).any() else good * 0
    )
    thirds = [third if len(third) else np.arange(len(good)) for third in np.array_split(np.arange(len(good)), 3)]
    return [int(good[third[np.argmax(variation[third])]]) for third in reversed(thirds)]


def false_colour(scene: xr.DataArray) -> np.ndarray:
    """Return a picture, `(4, h, w)` uint8: red, green, blue, each stretched over its 2nd to 98th percentile, and alpha."""
    step = _decimation(scene)
    values = scene.isel(band=colour_bands(scene), y=slice(None, None, step), x=slice(None, None, step)).values
    valid = np.isfinite(values).all(0)
    picture = np.zeros((4, *valid.shape), np.uint8)
    if valid.any():
        low, high = np.percentile(values[:, valid], _STRETCH, axis=1)
        scale = np.where(high > low, high - low, 1)
        stretched = (values - low[:, None, None]) / scale[:, None, None]
        picture[:3] = np.where(valid, np.clip(np.nan_to_num(stretched), 0, 1) * 255, 0).astype(np.uint8)
        picture[3] = np.where(valid, 255, 0)
    return picture


def write_overview(scene: xr.DataArray, path: str | os.PathLike[str]) -> None:
    """Write the false-colour picture as a GeoTIFF on the scene's grid, decimated to at most 2 000 pixels on a side."""
    picture, step = false_colour(scene), _decimation(scene)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": 4,
        "dtype": "uint8",
        "compress": "deflate",
        "photometric": "RGB",
    }
    profile |= {"height": picture.shape[1], "width": picture.shape[2]}
    if has_georeference(scene):
        a, b, left, d, e, top = scene.rio.transform()[:6]
        coarse = Affine(a * step, b * step, left, d * step, e * step, top)
        profile |= {"transform": coarse, "crs": scene.rio.crs}
    with raster_output(path, profile) as file:
        file.write(picture)


def class_spectra(scene: xr.DataArray, labels: xr.DataArray, mask: np.ndarray) -> dict[str, Any]:
    """Return mean and standard deviation of each class's spectra under a mask, ready for JSON.

    Args:
        scene: `(band, y, x)`.
        labels: `(y, x)` class ids with names and colours in `attrs`.
        mask: `(H, W)` bool, such as the training pixels.

    Returns:
        `wavelength` (nm or None a band), `good`, and for each class `id`, `name`, `color`, `pixels`, `mean`, `sd` (None in
        bands that are not good).
    """
    ids = np.where(mask, labels.values, 0)
    found: dict[int, list[np.ndarray]] = {int(id_): [] for id_ in np.unique(ids) if id_}
    for rows in row_blocks(scene):
        if ids[rows].any():
            block = scene.isel(y=rows).values  # (L, h, W)
            for id_, parts in found.items():
                parts.append(block[:, ids[rows] == id_])
    good = scene["good"].values
    classes = []
    for id_, parts in found.items():
        spectra = np.concatenate(parts, 1).astype(float)  # (L, n)
        mean, sd = np.full((2, len(good)), np.nan)
        mean[good], sd[good] = spectra[good].mean(1), spectra[good].std(1)
        entry = {"id": id_, "name": labels.attrs["class_names"][id_], "color": labels.attrs["class_colors"][id_]}
        classes.append(entry | {"pixels": spectra.shape[1], "mean": numbers_or_none(mean), "sd": numbers_or_none(sd)})
    return {"wavelength": numbers_or_none(scene["wavelength"].values), "good": good.tolist(), "classes": classes}


def _decimation(scene: xr.DataArray) -> int:
    return max(1, -(-max(scene.shape[1:]) // _LARGEST))
