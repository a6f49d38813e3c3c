"""Support vectors and random forests on pixels, means of patches, or morphological profiles: what networks have to beat.

Hyper-parameters are those of the best cross-validated accuracy on the training pixels, of a grid of 4 to 16 candidates.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy import ndimage
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from spectralmamba.pixels import Pixels, patch_means
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.training import statistics_area
from spectralmamba.training.task import normalise

# The first candidate is the one that is taken where there is nothing to tune on, and among equals.
SVM_GRID: dict[str, list[Any]] = {"C": [10, 1, 100, 1000], "gamma": ["scale", 0.0001, 0.001, 0.01]}
FOREST_GRID: dict[str, list[Any]] = {"max_features": ["sqrt", "log2"], "min_samples_leaf": [1, 2]}
SHARP = "whitened, ε = 0.01"
NORMALISATIONS = {
    "standardised": Settings(normalisation="standard"),
    "whitened": Settings(),
    SHARP: Settings(whitening_epsilon=0.01),
}
KINDS = ("svm", "random_forest")
FEATURES = ("pixels", "means", "profiles")
FOLDS = 3
TREES, TUNING_TREES = 500, 50
COMPONENTS, RADII = 4, (1, 2, 3, 4)  # of the morphological profile
_SAMPLE = 20_000  # pixels that principal components are learned from
_ASKED = 20_000  # pixels classified at a time


@dataclass(frozen=True)
class Simple:
    """A simple classifier and what it sees.

    Attributes:
        kind: One of `KINDS`.
        features: "pixels"; "means" of patches; or "profiles", the extended morphological profile of principal components.
        window: Width of the patches whose mean is seen.
        normalisation: "standardised", or "whitened", the transform that networks get.
    """

    kind: str
    features: str = "pixels"
    window: int = 7
    normalisation: str = "standardised"

    @property
    def width(self) -> int:
        """Width of the neighbourhood that features are made of; reconstruction follows what is connected beyond it."""
        return {"pixels": 1, "means": self.window, "profiles": 2 * RADII[-1] + 1}[self.features]

    def learner(self, seed: int) -> Tuned:
        """Return what learns, not yet tuned."""
        if self.kind == "svm":
            return Tuned(SVC, SVM_GRID)
        forest = partial(RandomForestClassifier, random_state=seed)
        return Tuned(forest, FOREST_GRID, {"n_estimators": TUNING_TREES}, {"n_estimators": TREES})


class FittedSimple:
    """A simple classifier that has learned a scene.

    Attributes:
        tuned: What the grid search found, ready for JSON.
    """

    def __init__(self, simple: Simple, pixels: Pixels, labels: xr.DataArray, split: Split, seed: int) -> None:
        area = statistics_area(split.train, split, NORMALISATIONS[simple.normalisation])
        normalised = normalise(pixels, area, NORMALISATIONS[simple.normalisation]).pixels
        width = simple.window if simple.features == "means" else 1
        self._pixels, self._width = normalised, width
        if simple.features == "profiles":
            self._pixels = normalised.with_values(torch.from_numpy(profiles(normalised, area)))
        positions = pixels.at(split.train & (labels.values > 0))
        targets = labels.values[pixels.rows[positions].numpy(), pixels.columns[positions].numpy()]
        learner = simple.learner(seed)
        self._model = learner.fit(patch_means(self._pixels, positions, width).numpy(), targets)
        self.tuned = learner.record

    def map(self, where: np.ndarray) -> np.ndarray:
        """Return the class ids `(H, W)` of the valid pixels under a mask, 0 elsewhere."""
        mapped = np.zeros(where.shape, np.int32)
        positions = self._pixels.at(where)
        for part in positions.split(_ASKED):
            if len(part):
                rows, columns = self._pixels.rows[part].numpy(), self._pixels.columns[part].numpy()
                mapped[rows, columns] = self._model.predict(patch_means(self._pixels, part, self._width).numpy())
        return mapped


@dataclass(frozen=True)
class Features:
    """What a method sees.

    Attributes:
        training: Spectra `(n, L)` of the training pixels.
        testing: Those of the test pixels, `(m, L)`.
        others: Those of the other pixels of the training side, on random draws of the whole scene, `(o, L)`.
        seconds: What making them took.
    """

    training: np.ndarray
    testing: np.ndarray
    others: np.ndarray
    seconds: float


def make_features(
    scene: xr.DataArray, split: Split, normalisation: str, window: int, pixels: Pixels | None = None
) -> Features:
    """Normalise a scene by the training side of a split, and take the mean spectra around its pixels.

    Args:
        scene: `(band, y, x)`.
        split: Which pixels train and test.
        normalisation: One of `NORMALISATIONS`, or "physical" for none.
        window: Width of the neighbourhood whose mean spectrum is taken; 1 is the pixel.
        pixels: The scene's pixels, if they have been read.
    """
    start = time.perf_counter()
    pixels = pixels or read_pixels(scene)
    if normalisation != "physical":
        settings = NORMALISATIONS[normalisation]
        area = statistics_area(split.train, split, settings)
        pixels = normalise(pixels, area, settings).pixels
    masks = split.train, split.test, split.training_side & ~split.train
    parts = (patch_means(pixels, pixels.at(mask), window).numpy() for mask in masks)
    return Features(*parts, seconds=time.perf_counter() - start)


def read_pixels(scene: xr.DataArray) -> Pixels:
    """Return the pixels of a scene in its good bands."""
    return Pixels.from_scene(scene, np.flatnonzero(scene["good"].values))


def profiles(pixels: Pixels, area: np.ndarray) -> np.ndarray:
    """Return the extended morphological profile of each pixel, `(n, F)` float32.

    Principal components of the spectra, and their openings and closings by reconstruction with disks (Benediktsson, Palmason,
    Sveinsson 2005, doi 10.1109/TGRS.2004.842478). A missing pixel has the value of the nearest one.

    Args:
        pixels: Normalised spectra.
        area: Mask `(H, W)` of the pixels that components are learned from.
    """
    values, grid = pixels.values.numpy(), pixels.grid.numpy()
    learned = pixels.at(area).numpy()
    learned = learned[:: max(1, -(-len(learned) // _SAMPLE))]
    number = min(COMPONENTS, values.shape[1], len(learned))
    components = PCA(number, svd_solver="full").fit(values[learned]).transform(values)  # (n, C)
    nearest = ndimage.distance_transform_edt(grid < 0, return_distances=False, return_indices=True)
    filled = grid[tuple(np.asarray(nearest))]  # (H, W)
    layers = []
    for component in components.T:
        image = component[filled].astype(np.float32)
        layers.append(image)
        for radius in RADII:
            layers += [_opened(image, radius), -_opened(-image, radius)]
    return np.stack([layer[pixels.rows.numpy(), pixels.columns.numpy()] for layer in layers], axis=1)


def _opened(image: np.ndarray, radius: int) -> np.ndarray:
    """Open an image `(H, W)` by reconstruction: bright parts narrower than a disk vanish, others keep their shape."""
    distance = np.hypot(*np.indices((2 * radius + 1, 2 * radius + 1)) - radius)
    found = ndimage.grey_erosion(image, footprint=distance <= radius, mode="nearest")
    while True:
        grown = np.minimum(ndimage.maximum_filter(found, 3, mode="nearest"), image)
        if np.array_equal(grown, found):
            return found
        found = grown


class Tuned:
    """A classifier of standardised spectra whose hyper-parameters are those of the best cross-validated accuracy.

    Attributes:
        record: Candidates tried, folds, and the best one, once it has learned.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        grid: dict[str, list[Any]],
        when_tuned: dict[str, Any] | None = None,
        at_last: dict[str, Any] | None = None,
    ) -> None:
        self._make, self._grid = make, grid
        self._when_tuned, self._at_last = when_tuned or {}, at_last or {}
        self.record: dict[str, Any] = {}

    def fit(self, spectra: np.ndarray, targets: np.ndarray) -> Any:
        """Return a pipeline that has learned spectra `(n, L)` of the classes `(n,)`."""
        best = {key: values[0] for key, values in self._grid.items()}
        self.record = {"trials": 0, "folds": 0}
        if splitter := inner_folds(targets):
            tuned = make_pipeline(StandardScaler(), self._make(**self._when_tuned))
            prefix = f"{tuned.steps[-1][0]}__"
            grid = {f"{prefix}{key}": values for key, values in self._grid.items()}
            with warnings.catch_warnings():
                # A candidate that cannot be had in a fold, such as 5 neighbours of 4 pixels, has no pixel right there.
                warnings.simplefilter("ignore")
                search = GridSearchCV(tuned, grid, cv=splitter, refit=False, error_score=0.0).fit(spectra, targets)
            best = {key.removeprefix(prefix): value for key, value in search.best_params_.items()}
            self.record = {"trials": len(search.cv_results_["params"]), "folds": splitter.get_n_splits()}
            self.record["accuracy"] = float(search.best_score_)
        self.record["chosen"] = best
        return make_pipeline(StandardScaler(), self._make(**best, **self._at_last)).fit(spectra, targets)


def inner_folds(targets: np.ndarray) -> StratifiedKFold | None:
    """Return how training pixels are divided for tuning; None where no class has two of them.

    There are 3 folds, or 2 where a class has fewer than 3 pixels. A single pixel is missed once, by all candidates alike.
    """
    counts = np.unique(targets, return_counts=True)[1]
    if counts.max() < 2:
        return None
    return StratifiedKFold(max(2, min(FOLDS, int(counts.min()))), shuffle=True, random_state=0)
