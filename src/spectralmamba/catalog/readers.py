"""What is neither a cube nor a class raster: lists of pixels, spectra, shares of materials, masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  (registers .rio)
import scipy.io
import xarray as xr

from spectralmamba.errors import DataError
from spectralmamba.scenes.class_rasters import read_class_raster
from spectralmamba.scenes.palette import default_colors
from spectralmamba.scenes.scene import has_georeference, valid_mask

NO_NEIGHBOURS = "Pixels stand in no order: neighbours mean nothing, use single pixels (patch 1)."


def read_pixels(path: Path) -> tuple[xr.DataArray, xr.DataArray]:
    """Open labelled pixels with their positions: `spectra` (n, L), `row`, `col` (from 0), `label`, `shape`; the rest is nodata."""
    content = _load(path, "spectra", "row", "col", "label", "shape")
    height, width = content["shape"][0]
    rows, columns = content["row"][0].astype(int), content["col"][0].astype(int)
    cube = np.full((content["spectra"].shape[1], height, width), np.nan, np.float32)
    cube[:, rows, columns] = content["spectra"].T
    ids = np.zeros((height, width), np.int32)
    ids[rows, columns] = content["label"][0]
    return _scene(cube, path), _labels(ids, path)


def read_spectra(path: Path) -> tuple[xr.DataArray, xr.DataArray]:
    """Open labelled spectra without positions, `spectra` (n, L) and `label`, as a scene of one row."""
    content = _load(path, "spectra", "label")
    scene = _scene(np.ascontiguousarray(content["spectra"].T[:, None, :], np.float32), path)
    scene.attrs["notes"] = [NO_NEIGHBOURS]
    labels = _labels(content["label"].reshape(1, -1).astype(np.int32), path)
    labels.attrs["notes"] = [NO_NEIGHBOURS]
    return scene, labels


def read_abundances(path: Path) -> tuple[xr.DataArray, xr.DataArray]:
    """Open a scene for unmixing, `Y` (L, pixels column by column) and `S_GT` (H, W, materials): the largest share is the label."""
    content = _load(path, "Y", "S_GT")
    height, width, _ = content["S_GT"].shape
    cube = content["Y"].reshape(-1, width, height).transpose(0, 2, 1)
    labels = _labels(content["S_GT"].argmax(axis=2).astype(np.int32) + 1, path)
    labels.attrs["notes"] = ["Labels are the materials of the largest abundance; pixels are mixed."]
    return _scene(np.ascontiguousarray(cube, np.float32), path), labels


READERS: dict[str, Callable[[Path], tuple[xr.DataArray, xr.DataArray]]] = {
    "pixels": read_pixels,
    "spectra": read_spectra,
    "abundances": read_abundances,
}


def read_mask(path: Path, variable: str | None, shape: tuple[int, ...], positions: bool) -> np.ndarray:
    """Return a mask of training or test pixels `(H, W)`, int32; of positions (n, 2), row and column from 0, one with 1.

    Raises:
        DataError: It has another shape than the scene.
    """
    if not positions:
        mask = read_class_raster(path, variable if path.suffix.lower() == ".mat" else None).ids
        if mask.shape != shape:
            raise _wrong(path, f"a mask of {mask.shape[0]} × {mask.shape[1]} pixels", shape)
        return mask
    assert variable is not None  # positions are always one of several variables
    rows, columns = _load(path, variable)[variable].astype(int).T
    if min(rows.min(), columns.min()) < 0 or rows.max() >= shape[0] or columns.max() >= shape[1]:
        raise _wrong(path, f"positions up to row {rows.max()} and column {columns.max()}, from 0", shape)
    mask = np.zeros(shape, np.int32)
    mask[rows, columns] = 1
    return mask


def where_agreed(fine: np.ndarray, factor: int) -> np.ndarray:
    """Return class ids on a grid that is coarser by `factor`, 0 where those of a pixel differ."""
    height, width = (size // factor for size in fine.shape)
    blocks = fine[: height * factor, : width * factor].reshape(height, factor, width, factor).swapaxes(1, 2)
    first = blocks[:, :, 0, 0]
    return np.where((blocks == first[:, :, None, None]).all(axis=(2, 3)), first, 0).astype(np.int32)


def labels_on(scene: xr.DataArray, ids: np.ndarray, path: Path) -> xr.DataArray:
    """Return labels on the scene's grid, without those on nodata.

    Raises:
        DataError: They have another shape.
    """
    if ids.shape != scene.shape[1:]:
        raise _wrong(path, f"labels for {ids.shape[0]} × {ids.shape[1]} pixels", scene.shape[1:])
    on_nodata = (ids > 0) & ~valid_mask(scene)
    labels = _labels(np.where(on_nodata, 0, ids).astype(np.int32), path)
    labels.attrs["report"]["on_nodata"] = int(on_nodata.sum())
    labels = labels.assign_coords({name: scene.coords[name] for name in ("y", "x") if name in scene.coords})
    if has_georeference(scene):
        labels = labels.rio.write_transform(scene.rio.transform())
    return labels if scene.rio.crs is None else labels.rio.write_crs(scene.rio.crs)


def _load(path: Path, *variables: str) -> dict[str, Any]:
    try:
        content = scipy.io.loadmat(path, variable_names=list(variables))
    except Exception as error:  # scipy raises a different kind for every way in which a file can be damaged
        raise DataError(
            "not a MATLAB file, or a damaged one", file=path, found=f"{type(error).__name__}: {error}"
        ) from error
    missing = [name for name in variables if name not in content]
    if missing:
        raise DataError("variables are missing", file=path, found=", ".join(content), expected=", ".join(missing))
    return content


def _scene(cube: np.ndarray, path: Path) -> xr.DataArray:
    unknown = np.full(len(cube), np.nan)
    coordinates = {
        "band": np.arange(1, len(cube) + 1),
        "wavelength": ("band", unknown),
        "fwhm": ("band", unknown.copy()),
        "good": ("band", np.ones(len(cube), bool)),
    }
    return xr.DataArray(cube, dims=("band", "y", "x"), coords=coordinates, attrs={"source": str(path)})


def _labels(ids: np.ndarray, path: Path) -> xr.DataArray:
    present = [int(id_) for id_ in np.unique(ids) if id_ > 0]
    attributes = {
        "class_names": {id_: f"class {id_}" for id_ in present},
        "class_colors": default_colors(present),
        "report": {"outside_scene": 0, "on_nodata": 0, "conflicting_pixels": 0},
        "source": str(path),
        "notes": [],
    }
    return xr.DataArray(ids, dims=("y", "x"), attrs=attributes)


def _wrong(path: Path, found: str, shape: tuple[int, ...]) -> DataError:
    return DataError(
        "this file does not belong to the scene", file=path, found=found, expected=f"{shape[0]} × {shape[1]} pixels"
    )
