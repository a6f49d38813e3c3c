"""Which pixels to label next: those that a classifier doubts, spread over what the scene's spectra hold.

Doubt alone asks for the same borders again and again, and spread alone for what is known already. Clusters of spectra in which
each pixel counts as much as it is doubted join both (Zhdanov 2019, "Diverse mini-batch active learning", arXiv 1901.05954).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import minimum_filter
from torch import Tensor

from spectralmamba.classifier import Classifier, find_device
from spectralmamba.errors import LabelError, SceneError, SettingsError
from spectralmamba.pixels import Pixels, patch_means
from spectralmamba.scenes.scene import valid_mask
from spectralmamba.settings import Settings
from spectralmamba.training.discriminant import discriminate
from spectralmamba.training.draws import Purpose, generator, some_of
from spectralmamba.training.recommend import recommend_for_task
from spectralmamba.training.task import Task, normalise, prepare

_MOST_CANDIDATES = 20_000  # pixels that are looked at
_FLOOR = 1e-3  # weight of a pixel without any doubt: it still says what the scene holds
_STARTS = 2  # of the clustering; the best is taken


@dataclass(frozen=True)
class Suggestions:
    """Pixels to label next, the most useful first.

    Attributes:
        rows: Row of each, counted from 0, `(k,)` int64.
        columns: Column of each, counted from 0, `(k,)` int64.
        likely_class: Class id that it most likely has, `(k,)` int64, 0 where nothing is known.
        margin: Difference of its two highest class probabilities, `(k,)` float64 in 0 to 1, NaN where nothing is known.
        width: Pixels along each side of the area to label around each.
        candidates: Number of the pixels that they were chosen from.
        guided_by: What said where doubt is: a classifier, a linear discriminant of the labels, or nothing but the spectra.
    """

    rows: np.ndarray
    columns: np.ndarray
    likely_class: np.ndarray
    margin: np.ndarray
    width: int
    candidates: int
    guided_by: Literal["classifier", "labels", "spectra"]

    def __len__(self) -> int:
        return len(self.rows)


def suggest(
    scene: xr.DataArray,
    labels: xr.DataArray | None = None,
    *,
    count: int,
    classifier: Classifier | None = None,
    seed: int = 0,
    patch: int | None = None,
    width: int = 1,
    area: np.ndarray | xr.DataArray | None = None,
    device: str = "auto",
) -> Suggestions:
    """Choose the pixels, or small squares of pixels, whose labels would help most.

    Whitened patch means of at most 20 000 unlabelled pixels are put into `count` clusters, in which a pixel counts the more the
    closer its two likeliest classes are; of each cluster the pixel nearest to its centre is taken. The likeliest classes are those
    of the classifier, else of a linear discriminant of the labelled pixels. Where there are neither a classifier nor labels of two
    classes, all pixels count alike.

    Args:
        scene: `(band, y, x)`, from `open_scene`.
        labels: `(y, x)` class ids, 0 unlabelled, from `open_labels`. Labelled pixels are not suggested.
        count: k, how many to suggest. Fewer are returned where squares find no more room beside each other.
        classifier: What tells where doubt is; it computes where it is.
        seed: The same seed gives the same suggestions.
        patch: P, odd width of the patches whose means are compared; if None the classifier's, else the one recommended for the
            labels, else 7. It is never wider than the scene.
        width: Pixels along each side of the square to label, odd. Squares lie in the scene, on valid and unlabelled pixels, and
            do not overlap.
        area: `(H, W)` bool, where pixels may be suggested (squares: their centres); the whole scene if None.
        device: "auto" (a GPU if there is one), or torch's name of a device; without a classifier.

    Raises:
        ClassifierError: The scene has other bands than the classifier's.
        LabelError: Labels or area have another shape than the scene.
        SceneError: No band or no pixel can be used.
        SettingsError: There are fewer candidates than asked for, or a number is out of range.
    """
    settings = _settings(count, width, seed, patch)
    if classifier is not None:
        classifier.check_scene(scene)
    bands = np.flatnonzero(scene["good"].values) if classifier is None else classifier.bands
    pixels = Pixels.from_scene(scene, bands, find_device(device) if classifier is None else classifier.device)
    if not len(bands) or not len(pixels):
        raise SceneError("no pixel can be used", file=scene.attrs.get("source"), found="no pixel whose bands hold data")
    everywhere = np.ones(scene.shape[1:], bool)
    where = everywhere if area is None else _as_mask(area, scene, "the area")
    labelled = ~everywhere if labels is None else _as_mask(labels, scene, "labels")
    candidates = _candidates(pixels, where & _squares(scene, pixels, labelled, classifier, width), count, seed)
    task = _task(pixels, labels, settings)
    normalised = normalise(pixels, everywhere, settings) if task is None else task.normalised
    if patch is None:
        patch = _patch(task, settings, classifier)
    patch = min(patch, _odd(min(scene.shape[1:])))
    likely, margin = _doubts(classifier, task, pixels, candidates, patch)
    features = patch_means(normalised.pixels, candidates, patch).double().cpu().numpy()  # (c, L)
    weights = np.nan_to_num(1 - margin, nan=1.0) + _FLOOR
    rows, columns = pixels.rows[candidates].cpu().numpy(), pixels.columns[candidates].cpu().numpy()
    chosen = _choose(features, weights, rows, columns, count, width, seed)
    guided_by = "classifier" if classifier is not None else "spectra" if task is None else "labels"
    return Suggestions(rows[chosen], columns[chosen], likely[chosen], margin[chosen], width, len(candidates), guided_by)


def _settings(count: int, width: int, seed: int, patch: int | None) -> Settings:
    """Check the numbers; return settings with the seed, and the patch if there is one."""
    if count < 1:
        raise SettingsError("there is nothing to suggest", found=f"a count of {count}", expected="at least 1")
    if width < 1 or width % 2 == 0:
        raise SettingsError("the square has no centre pixel", found=width, expected="an odd width: 1, 3, 5, …")
    return Settings(seed=seed) if patch is None else Settings(seed=seed, patch=patch)


def _odd(width: int) -> int:
    return width - 1 + width % 2


def _as_mask(values: np.ndarray | xr.DataArray, scene: xr.DataArray, what: str) -> np.ndarray:
    """Return where an array `(H, W)` is not 0."""
    mask = np.asarray(values) != 0
    if mask.shape != scene.shape[1:]:
        problem = f"{what} and scene have different shapes"
        raise LabelError(problem, found=mask.shape, expected=tuple(scene.shape[1:]))
    return mask


def _squares(
    scene: xr.DataArray, pixels: Pixels, labelled: np.ndarray, classifier: Classifier | None, width: int
) -> np.ndarray:
    """Return the mask `(H, W)` of the pixels around which a square is valid and unlabelled."""
    free = (pixels.grid >= 0).cpu().numpy() & ~labelled
    if classifier is not None:  # its bands need not be all that make a pixel valid
        free &= valid_mask(scene)
    return minimum_filter(free, size=width, mode="constant", cval=False)


def _patch(task: Task | None, settings: Settings, classifier: Classifier | None) -> int:
    """Return the width of the patches that a classifier of the scene sees."""
    if classifier is not None:
        return classifier.patch
    return settings.patch if task is None else recommend_for_task(task, settings).settings.patch


def _candidates(pixels: Pixels, free: np.ndarray, count: int, seed: int) -> Tensor:
    """Return the positions `(c,)` of the pixels that are looked at."""
    positions = pixels.at(free)
    positions = some_of(positions, _MOST_CANDIDATES, generator(seed, Purpose.SUGGESTIONS, step=0))
    if count > len(positions):
        raise SettingsError(
            "there are fewer pixels to choose from than are asked for",
            found=f"{len(positions)} valid pixels without a label that may be suggested",
            expected=f"at least {count}",
            remedy="Ask for fewer with --count, for smaller squares with --width, or in a larger --area.",
        )
    return positions


def _task(pixels: Pixels, labels: xr.DataArray | None, settings: Settings) -> Task | None:
    """Return what the labels teach; None where they are of fewer than two classes, of which no doubt follows."""
    if labels is None:
        return None
    ids = np.asarray(labels.values)[(pixels.grid >= 0).cpu().numpy()]
    return prepare(pixels, labels, {0: None}, settings)[0] if len(np.unique(ids[ids > 0])) > 1 else None


@torch.no_grad()
def _doubts(
    classifier: Classifier | None, task: Task | None, pixels: Pixels, candidates: Tensor, patch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the likely class of the candidates `(c,)` and the margin of its probability `(c,)`."""
    if classifier is not None:
        found, classes = classifier.probabilities(pixels, candidates).double().cpu().numpy(), classifier.classes
    elif task is not None:
        found, classes = discriminate(task, task.positions, task.targets, candidates, patch), task.classes
    else:
        return np.zeros(len(candidates), np.int64), np.full(len(candidates), np.nan)
    likely = classes[found.argmax(1)].astype(np.int64)
    second, first = np.partition(found, -2, axis=1)[:, -2:].T
    return likely, np.clip(first - second, 0, 1)


def _choose(
    features: np.ndarray,
    weights: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    count: int,
    width: int,
    seed: int,
) -> np.ndarray:
    """Return which candidates are suggested, `(k,)`: one of each cluster, that of the largest weight first.

    A cluster all of whose pixels are too close to those of others gives its place to the heaviest candidate that is left.
    """
    cluster, distance = _cluster(features, weights, count, seed)
    open_ = np.ones(len(features), bool)  # far enough from all that are chosen
    chosen: list[int] = []

    def take(best: int) -> None:
        chosen.append(best)
        open_[np.maximum(abs(rows - rows[best]), abs(columns - columns[best])) < width] = False

    for number in np.argsort(-np.bincount(cluster, weights, minlength=count), kind="stable"):
        members = np.flatnonzero(open_ & (cluster == number))
        if len(members):
            take(members[distance[members].argmin()])
    while len(chosen) < count and open_.any():
        left = np.flatnonzero(open_)
        take(left[weights[left].argmax()])
    return np.array(chosen)


def _cluster(features: np.ndarray, weights: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster of each candidate `(c,)` and its distance from the cluster's centre `(c,)`."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    random = generator(seed, Purpose.SUGGESTIONS, step=1)
    options: dict[str, Any] = {"n_init": _STARTS, "random_state": int(random.integers(2**31))}
    clusters = KMeans(count, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different spectra than clusters: some stay empty
        clusters.fit(features, sample_weight=weights)
    cluster = np.asarray(clusters.labels_)
    return cluster, np.linalg.norm(features - clusters.cluster_centers_[cluster], axis=1)
