"""Opening a data set: scene, labels with their classes, and the fixed split."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spectralmamba.catalog import checksums, readers
from spectralmamba.catalog.downloads import fetch, how_to_get
from spectralmamba.catalog.entry import Entry, Layout, Masks
from spectralmamba.catalog.places import Found, find, searched
from spectralmamba.catalog.registry import dataset
from spectralmamba.errors import DataError
from spectralmamba.scenes.class_rasters import read_class_raster
from spectralmamba.scenes.labels import open_labels
from spectralmamba.scenes.opening import open_scene
from spectralmamba.scenes.palette import default_colors
from spectralmamba.splits import Split, split_masks


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set that is open.

    Attributes:
        scene: `(band, y, x)` as `open_scene` returns it, with the catalogue's wavelengths where the file has none.
        labels: `(y, x)` as `open_labels` returns it, with the catalogue's class names and colours.
        split: The fixed split, None if there is none or its masks are not here.
        entry: What the catalogue says of it.
    """

    scene: xr.DataArray
    labels: xr.DataArray
    split: Split | None
    entry: Entry


def load_dataset(
    name: str | Entry,
    *,
    root: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Dataset:
    """Open a public data set.

    Args:
        name: One of `list_datasets()`, or an entry of your own.
        root: A folder of reference data, looked into first; None takes that of `SPECTRALMAMBA_DATA`. Its files are taken as they
            are.
        cache: The folder of downloads; None takes that of `SPECTRALMAMBA_CACHE`, or the system's for caches.
        download: Whether to download it if it is not here.

    Raises:
        DataError: The data set is unknown, not here, changed since its download, or not what the catalogue describes.
        SceneError: Its scene cannot be opened.
        LabelError: Its labels cannot be opened.
    """
    entry = name if isinstance(name, Entry) else dataset(name)
    found = find(entry, root=root, cache=cache)
    if found is None and download:
        fetch(entry, cache=cache)
        found = find(entry, root=root, cache=cache)
    if found is None:
        raise DataError(
            f"the data set {entry.name} is not here",
            found="; ".join(f"nothing in {folder}" for folder in searched(entry, root=root, cache=cache)) or None,
            expected=" or ".join(" and ".join(layout.required) for layout in entry.layouts),
            remedy=how_to_get(entry),
        )
    if found.cached:
        for path in found.files.values():
            checksums.check_unchanged(path)
    return _open(entry, found)


def _open(entry: Entry, found: Found) -> Dataset:
    layout, files = found.layout, found.files
    if layout.reader == "cube":
        scene = _open_cube(entry, layout, files)
        labels = _open_labels(layout, files, scene)
    else:
        scene, labels = readers.READERS[layout.reader](files[layout.scene])
    masks = layout.masks if layout.masks is not None and all(name in files for name in layout.masks.files) else None
    given = None if masks is None else _read_masks(masks, files, labels.shape)
    if given is not None and masks is not None and masks.add_labels:
        labels = labels.copy(data=np.where(labels.values > 0, labels.values, given[0]))
    if given is not None and masks is not None and masks.test is None:
        given = given[0], (labels.values > 0) & (given[0] == 0)
    _name_classes(entry, layout, labels)
    if layout.masks is not None and masks is None:
        missing = ", ".join(name for name in layout.masks.files if name not in files)
        labels.attrs["notes"] = [*labels.attrs["notes"], f"The fixed split is not here: {missing} is missing."]
    scene = _with_wavelengths(entry, scene)
    return Dataset(scene, labels, None if given is None else split_masks(*given, labels=labels), entry)


def _open_cube(entry: Entry, layout: Layout, files: dict[str, Path]) -> xr.DataArray:
    scene = open_scene(files[layout.scene], variable=layout.scene_variable)
    if layout.bands is not None:
        scene = scene.isel(band=slice(layout.bands))
    if scene.shape[1:] != entry.shape:
        raise DataError(
            f"this scene is not {entry.title}",
            file=files[layout.scene],
            found=f"{scene.shape[1]} rows × {scene.shape[2]} columns",
            expected=f"{entry.shape[0]} rows × {entry.shape[1]} columns",
        )
    return scene


def _open_labels(layout: Layout, files: dict[str, Path], scene: xr.DataArray) -> xr.DataArray:
    if layout.labels is not None and layout.finer_labels == 1:
        return open_labels(files[layout.labels], scene, variable=layout.label_variable)
    if layout.labels is not None:
        fine = read_class_raster(files[layout.labels], layout.label_variable).ids
        return readers.labels_on(scene, readers.where_agreed(fine, layout.finer_labels), files[layout.labels])
    assert layout.masks is not None  # a cube's labels are in a file of their own or in the masks
    train, test = _read_masks(layout.masks, files, scene.shape[1:])
    return readers.labels_on(scene, np.where(train > 0, train, test), files[layout.masks.train])


def _read_masks(masks: Masks, files: dict[str, Path], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the training and the test mask; without a file for it, the latter is empty."""
    train = readers.read_mask(files[masks.train], masks.train_variable, shape, masks.positions)
    if masks.test is None:
        return train, np.zeros_like(train)
    return train, readers.read_mask(files[masks.test], masks.test_variable, shape, masks.positions)


def _name_classes(entry: Entry, layout: Layout, labels: xr.DataArray) -> None:
    """Give the ids that are present the catalogue's names and colours, where they are the catalogue's ids."""
    present = [int(id_) for id_ in np.unique(labels.values) if id_ > 0]
    names, colors = entry.class_names, entry.class_colors
    if not set(present) <= set(names) and present == list(range(1, len(names) + 1)):
        names, colors = (dict(enumerate(known.values(), start=1)) for known in (names, colors))
        labels.attrs["notes"] = [
            *labels.attrs["notes"],
            "Ids in this copy count from 1; classes are named in their order.",
        ]
    if layout.named:
        names, colors = {**labels.attrs["class_names"], **names}, {**labels.attrs["class_colors"], **colors}
    else:
        names, colors = labels.attrs["class_names"], labels.attrs["class_colors"]
    colors = {**default_colors([id_ for id_ in present if id_ not in colors], taken=colors.values()), **colors}
    labels.attrs["class_names"] = {id_: names.get(id_, f"class {id_}") for id_ in present}
    labels.attrs["class_colors"] = {id_: colors[id_] for id_ in present}


def _with_wavelengths(entry: Entry, scene: xr.DataArray) -> xr.DataArray:
    known: Any = entry.wavelengths
    if known is None or len(known) != scene.sizes["band"] or not np.isnan(scene["wavelength"].values).all():
        return scene
    notes = [*scene.attrs.get("notes", []), f"Wavelengths: {entry.wavelength_source}."]
    return scene.assign_coords(wavelength=("band", np.array(known, float))).assign_attrs(notes=notes)
