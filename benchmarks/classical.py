"""Simple classifiers of pixels and patch means: what the network has to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from spectralmamba.pixels import Pixels, patch_means
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.training import statistics_area
from spectralmamba.transforms import learn_transform

# Tuned by 3-fold cross-validation on the training pixels, like the published comparisons.
_TUNED: dict[str, tuple[Callable[[], Any], dict[str, list[Any]]]] = {
    "svm": (SVC, {"svc__C": [1, 10, 100, 1000], "svc__gamma": ["scale", 0.0001, 0.001, 0.01, 0.1]}),
    "logistic regression": (
        partial(LogisticRegression, max_iter=2000),
        {"logisticregression__C": [0.001, 0.01, 0.1, 1, 10]},
    ),
    "k-nn": (KNeighborsClassifier, {"kneighborsclassifier__n_neighbors": [1, 3, 5]}),
}
_TREES = 500


@dataclass(frozen=True)
class Classical:
    """A scikit-learn classifier and what it sees.

    Attributes:
        name: "svm", "rf", "lda", "logistic regression", "class means" or "k-nn".
        window: Width of the neighbourhood whose mean spectrum is classified; 1 is the pixel.
        normalisation: "standard" or "whitening", the same transform that the network gets.
    """

    name: str
    window: int
    normalisation: str

    def predict(self, scene: xr.DataArray, labels: xr.DataArray, split: Split, seed: int) -> np.ndarray:
        """Train on the split's training pixels and return ids `(H, W)` of its test pixels, 0 elsewhere."""
        pixels = Pixels.from_scene(scene, np.flatnonzero(scene["good"].values))
        settings = Settings(normalisation=self.normalisation)
        area = statistics_area(split.train, split, settings)
        transform = learn_transform(pixels.values, pixels.at(area), pixels.neighbour_pairs(area), settings)
        values = transform(pixels.values)
        training, testing = (self._features(pixels, values, mask) for mask in (split.train, split.test))
        model = self._model(seed, labels.values[split.train])
        model.fit(training, labels.values[split.train])
        result = np.zeros(labels.shape, np.int32)
        result[split.test] = model.predict(testing)
        return result

    def _features(self, pixels: Pixels, values: torch.Tensor, mask: np.ndarray) -> np.ndarray:
        return patch_means(pixels.with_values(values), pixels.at(mask), self.window).numpy()

    def _model(self, seed: int, targets: np.ndarray) -> Any:
        if self.name == "rf":
            return RandomForestClassifier(_TREES, random_state=seed)
        if self.name == "lda":
            return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        if self.name == "class means":
            return make_pipeline(StandardScaler(), NearestCentroid())
        folds = max(2, min(3, np.unique(targets, return_counts=True)[1].min()))
        splitter = StratifiedKFold(int(folds), shuffle=True, random_state=seed)
        model, grid = _TUNED[self.name]
        return GridSearchCV(make_pipeline(StandardScaler(), model()), grid, cv=splitter)
