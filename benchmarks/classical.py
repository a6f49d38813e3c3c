"""Simple classifiers of pixels and patch means: what the network has to beat.

Every method with hyper-parameters is tuned in the same way: 3-fold cross-validation on the training pixels, over 4 to 16
candidates, always divided alike. On random draws label propagation and whitening see the spectra of test pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from spectralmamba.experiments.simple import (
    FOREST_GRID,
    SHARP,
    SVM_GRID,
    TREES,
    TUNING_TREES,
    Features,
    Tuned,
    inner_folds,
    make_features,
    read_pixels,
)
from spectralmamba.training.discriminant import discriminant_probabilities

__all__ = ["CLASSICAL", "GRIDS", "Classical", "Features", "make_features", "propagate", "read_pixels"]

# The first candidate is the one that is taken where there is nothing to tune on, and among equals.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "SVM": SVM_GRID,
    "RF": FOREST_GRID,
    "logistic regression": {"C": [1, 0.0001, 0.001, 0.01, 0.1, 10, 100]},
    "k-NN": {"n_neighbors": [1, 3, 5], "weights": ["uniform", "distance"], "metric": ["euclidean", "cosine"]},
    # gamma in units of 1 / (bands × mean variance), like "scale" of the SVM
    "label propagation": {"gamma": [30, 10, 100], "alpha": [0.9, 0.5, 0.99]},
}
_MOST_UNLABELLED = 4000  # in label propagation's graph


@dataclass(frozen=True)
class Classical:
    """A simple classifier and what it sees.

    Attributes:
        kind: "SVM", "RF", …
        window: Width of the neighbourhood whose mean spectrum is classified; 1 is the pixel.
        normalisation: "physical" (none), "standardised", "whitened", the same transform that the network gets, or a sharper one.
    """

    kind: str
    window: int
    normalisation: str

    @property
    def name(self) -> str:
        """As reported."""
        seen = "pixels" if self.window == 1 else f"{self.window} × {self.window} means"
        return f"{self.kind}, {seen}, {self.normalisation}"

    @property
    def random(self) -> bool:
        """Whether another seed gives another result from the same training pixels."""
        return self.kind == "RF"

    def predict(self, features: Features, targets: np.ndarray, seed: int) -> np.ndarray:
        """Learn from the ids `(n,)` of the training pixels and return those of the test pixels, `(m,)`."""
        if self.kind == "label propagation":
            return propagate(features, targets)
        return self._learner(targets, seed).fit(features.training, targets).predict(features.testing)

    def _learner(self, targets: np.ndarray, seed: int) -> Any:
        match self.kind:
            case "SVM":
                return Tuned(SVC, GRIDS[self.kind])
            case "logistic regression":
                return Tuned(partial(LogisticRegression, max_iter=1000), GRIDS[self.kind])
            case "k-NN":
                return Tuned(KNeighborsClassifier, GRIDS[self.kind])
            case "RF":
                forest = partial(RandomForestClassifier, random_state=seed)
                return Tuned(forest, GRIDS[self.kind], {"n_estimators": TUNING_TREES}, {"n_estimators": TREES})
            case "LDA" if len(targets) > len(np.unique(targets)):
                return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            case "LDA" | "class means":  # one pixel a class has no covariance
                return make_pipeline(StandardScaler(), NearestCentroid())
            case "SAM":
                return KNeighborsClassifier(1, metric="cosine")
            case _:
                return _OurDiscriminant()


CLASSICAL = {
    method.name: method
    for method in (
        *(
            Classical(kind, window, normalisation)
            for kind in ("SVM", "RF", "LDA", "logistic regression", "class means", "k-NN", "SAM")
            for normalisation in ("physical" if kind == "SAM" else "standardised", "whitened")
            for window in (1, 3, 7)
        ),
        *(Classical("label propagation", window, "whitened") for window in (1, 7)),
        *(Classical(kind, 7, SHARP) for kind in ("SVM", "LDA", "label propagation")),
        Classical("linear discriminant (ours)", 7, "whitened"),
    )
}


class _OurDiscriminant:
    """The linear discriminant that is a teacher in self-training."""

    def fit(self, spectra: np.ndarray, targets: np.ndarray) -> _OurDiscriminant:
        self._classes, self._indices = np.unique(targets, return_inverse=True)
        self._spectra = spectra.astype(np.float64)
        return self

    def predict(self, spectra: np.ndarray) -> np.ndarray:
        asked, classes = spectra.astype(np.float64), len(self._classes)
        return self._classes[discriminant_probabilities(self._spectra, self._indices, asked, classes).argmax(1)]


def propagate(features: Features, targets: np.ndarray) -> np.ndarray:
    """Return the ids `(m,)` of the test pixels by label spreading (Zhou et al. 2004, "Learning with local and global consistency").

    The graph holds the training pixels and up to 4000 others of the training side. An RBF kernel weighs its edges.
    F = (I − α S)⁻¹ Y is what scikit-learn's LabelSpreading goes towards step by step; solved at once, all folds and the final
    answer share the inverse. Test pixels take the kernel's mean of the graph's.
    """
    classes, indices = np.unique(targets, return_inverse=True)
    given, number = np.eye(len(classes), dtype=np.float32)[indices], len(targets)
    unlabelled = features.others[_shuffled(features.others)[:_MOST_UNLABELLED]]
    nodes = np.concatenate([features.training, unlabelled])
    scale = nodes.shape[1] * nodes.var(0).mean()
    squares = euclidean_distances(nodes, squared=True) / scale
    splitter = inner_folds(targets)
    folds = list(splitter.split(given, indices)) if splitter else []
    best, found, gamma = -1.0, given, 1.0
    for candidate in GRIDS["label propagation"]["gamma"]:
        similar = _normalised_graph(squares, candidate)
        for alpha in GRIDS["label propagation"]["alpha"]:
            influence = _influence(similar, alpha, number)
            right = _right(influence[:number], given, folds)
            if right > best:
                best, found, gamma = right, influence @ given, candidate
    shares = found / np.maximum(found.sum(1, keepdims=True), np.finfo(np.float32).tiny)
    weights = np.exp(-gamma * euclidean_distances(features.testing, nodes, squared=True) / scale)
    return classes[(weights @ shares).argmax(1)]


def _shuffled(spectra: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(spectra))


def _normalised_graph(squares: np.ndarray, gamma: float) -> np.ndarray:
    """Return S = D^(−1/2) W D^(−1/2) `(n, n)` of the RBF kernel W without its diagonal."""
    weights = np.exp(-gamma * squares)
    np.fill_diagonal(weights, 0)
    sums = weights.sum(0)
    scale = np.where(sums > 0, np.maximum(sums, np.finfo(np.float32).tiny) ** -0.5, 1).astype(np.float32)
    return weights * scale * scale[:, None]


def _influence(similar: np.ndarray, alpha: float, number: int) -> np.ndarray:
    """Return (I − α S)⁻¹ `(n, number)`: how much each of the labelled pixels, which come first, counts in each pixel."""
    matrix = np.float32(-alpha) * similar
    np.fill_diagonal(matrix, 1)
    factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    return cho_solve(factor, np.eye(len(similar), number, dtype=np.float32), check_finite=False)


def _right(influence: np.ndarray, given: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return how many of the labelled pixels are told rightly when their fold's labels are hidden."""
    right = 0
    for shown, hidden in folds:
        found = influence[np.ix_(hidden, shown)] @ given[shown]
        right += int((found.argmax(1) == given[hidden].argmax(1)).sum())
    return right / len(given)
