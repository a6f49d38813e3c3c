"""The scenes, labels and splits that a plan names, and a digest that tells them from others."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr

from spectralmamba.catalog import dataset, load_dataset
from spectralmamba.catalog.downloads import how_to_get
from spectralmamba.catalog.places import find
from spectralmamba.errors import SplitError
from spectralmamba.experiments.plan import APART, DataSpec, SplitSpec
from spectralmamba.scenes import open_labels, open_scene, simulate_scene
from spectralmamba.scenes.scene import row_blocks
from spectralmamba.splits import Split, split_disjoint, split_folds, split_masks, split_random

_KEPT = 2  # data sets in memory at a time


@dataclass(frozen=True, eq=False)
class Loaded:
    """A data set that is open.

    Attributes:
        scene: `(band, y, x)`, in memory.
        labels: `(y, x)` class ids.
        standard: The fixed split, None if there is none or its masks are not here.
    """

    scene: xr.DataArray
    labels: xr.DataArray
    standard: Split | None

    def split(self, spec: SplitSpec, seed: int) -> Split:
        """Divide the labels.

        Raises:
            SplitError: They cannot be divided like this.
        """
        if spec.method == "standard":
            if self.standard is None:
                raise SplitError("the standard split is not here")
            return self.standard
        if spec.method in APART:
            return split_disjoint(self.labels, method=spec.method, seed=seed, **spec.arguments)  # type: ignore[arg-type]
        if spec.method == "folds":
            return split_folds(self.labels, seed=seed, **spec.arguments)
        return split_random(self.labels, seed=seed, **spec.arguments)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the scene's values, which bands are good, labels with their fields, and standard split."""
        digest = hashlib.sha256(json.dumps([*self.scene.shape]).encode())
        for rows in row_blocks(self.scene):
            digest.update(np.ascontiguousarray(self.scene.isel(y=rows).values, np.float32).data)
        arrays = [self.scene["good"].values, self.labels.values]
        # Equal pixels may be drawn as other polygons, which a split into fields divides in another way.
        arrays += [self.labels.coords["field"].values] if "field" in self.labels.coords else []
        arrays += [] if self.standard is None else [self.standard.train, self.standard.test]
        for array in arrays:
            digest.update(np.ascontiguousarray(array, np.int32).data)
        return digest.hexdigest()


def training_labels(labels: xr.DataArray, *splits: Split) -> xr.DataArray:
    """Return labels of pixels that train in one of the splits, 0 elsewhere: all that training and tuning are given."""
    train = np.logical_or.reduce([split.train for split in splits])
    return labels.copy(data=np.where(train, labels.values, 0))


def load(spec: DataSpec, root: Path | None) -> Loaded:
    """Open a data set; the last ones stay in memory.

    Raises:
        SpectralMambaError: It is not here, or cannot be opened.
    """
    return _load(spec.name, spec.kind, json.dumps(spec.arguments), None if root is None else str(root))


@lru_cache(_KEPT)
def _load(name: str, kind: str, arguments: str, root: str | None) -> Loaded:
    given = json.loads(arguments)
    if kind == "simulated":
        return Loaded(*simulate_scene(**given), None)
    if kind == "catalogue":
        found = load_dataset(name, root=root)
        return Loaded(found.scene.load(), found.labels, found.split)
    scene = open_scene(given["scene"])
    labels = open_labels(given["labels"], scene)
    standard = None
    if "train_mask" in given:
        masks = (open_labels(given[key], scene) for key in ("train_mask", "test_mask"))
        standard = split_masks(*masks, labels=labels)
    return Loaded(scene.load(), labels, standard)


def forget() -> None:
    """Let go of the data sets in memory."""
    _load.cache_clear()


def why_not_here(data: DataSpec, root: Path | None) -> str | None:
    """Return a sentence on how to get a data set that is not on this machine; None if it is."""
    if data.kind == "files":
        missing = [file for file in data.arguments.values() if not Path(file).exists()]
        return f"There is no {' and no '.join(missing)}." if missing else None
    if data.kind == "simulated" or find(dataset(data.name), root=root) is not None:
        return None
    return how_to_get(dataset(data.name))


def why_not_split(data: DataSpec, split: SplitSpec, loaded: Loaded) -> str | None:
    """Return a sentence on why a data set that is here cannot be divided by its standard split; None if it can."""
    if split.method != "standard" or loaded.standard is not None:
        return None
    return f"The masks of the standard split are not here. {how_to_get(dataset(data.name))}"
