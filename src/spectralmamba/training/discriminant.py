"""What a linear discriminant makes of patch means: class probabilities, and how unlike all classes a pixel is."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from spectralmamba.models.novelty import LEVELS, NoveltyScore
from spectralmamba.pixels import patch_means
from spectralmamba.settings import Settings
from spectralmamba.training.draws import Purpose, generator, some_of
from spectralmamba.training.task import Task

_MOST_SHRUNK = 0.9  # share of the sphere in the covariance
_MOST_PIXELS = 20_000  # of the training side, that novelty is measured on
# Scene variance, in units of the variance inside classes, at which a direction counts half. From 3 to 100 the scores of left-out
# classes differ by less than a hundredth.
_HALF = 30.0
_NOTHING = 1e-9  # of the largest ratio: rounding, where pixels are fewer than bands


def discriminate(task: Task, positions: Tensor, targets: Tensor, others: Tensor, patch: int) -> np.ndarray:
    """Return class probabilities `(m, K)` of the pixels `others` `(m,)`, by the discriminant of patch means of labelled pixels.

    Args:
        task: Whose pixels and classes they are.
        positions: Labelled pixels, `(n,)`.
        targets: Index of their class, `(n,)`.
        others: Pixels to tell the class of.
        patch: Width of the patches whose means are compared.
    """
    pixels = task.normalised.pixels
    spectra, asked = (patch_means(pixels, part, patch).double().cpu().numpy() for part in (positions, others))
    return discriminant_probabilities(spectra, targets.cpu().numpy(), asked, len(task.classes))


def discriminant_probabilities(
    spectra: np.ndarray, targets: np.ndarray, others: np.ndarray, classes: int
) -> np.ndarray:
    """Return class probabilities `(m, K)` of other spectra `(m, L)` by a linear discriminant learned from spectra `(n, L)`.

    No class is likelier beforehand than another. With one pixel a class it is the nearest one that counts.
    """
    means, covariance = _means_and_covariance(spectra, targets, classes)
    directions = np.linalg.solve(covariance, means.T)  # (L, K)
    scores = others @ directions - (means.T * directions).sum(0) / 2
    scores[:, np.bincount(targets, minlength=classes) == 0] = -np.inf
    return softmax(scores, axis=1)


def _means_and_covariance(spectra: np.ndarray, targets: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return class means `(K, L)`, 0 for a class without pixels, and the covariance `(L, L)` inside classes.

    The covariance is that of what all classes vary about their means. It is shrunk towards a sphere as if L further pixels had been
    seen to vary like that (Friedman 1989, "Regularized discriminant analysis"); where nothing varies it is the sphere.
    """
    counts, bands = np.bincount(targets, minlength=classes), spectra.shape[1]
    means = np.zeros((classes, bands))
    np.add.at(means, targets, spectra)
    means /= np.maximum(counts, 1)[:, None]
    residuals = spectra - means[targets]
    freedom = len(spectra) - np.count_nonzero(counts)
    covariance = residuals.T @ residuals / max(1, freedom)
    variance = np.trace(covariance) / bands
    if variance == 0:
        return means, np.eye(bands)
    shrunk = min(_MOST_SHRUNK, bands / (bands + freedom))
    return means, (1 - shrunk) * covariance + shrunk * variance * np.eye(bands)


def learn_novelty(task: Task, settings: Settings) -> NoveltyScore:
    """Learn how unlike all classes a pixel is, from the training pixels and the spectra of the training side.

    With W the covariance inside classes and G that of the training side's pixels, both of patch means, directions are the
    eigenvectors of W^(−1/2) G W^(−1/2), weighted by λ / (λ + 30), λ their eigenvalues: where the scene varies no more than a class
    does, a distance is noise. What counts is the squared distance to the nearest class mean, and of it the share of the training
    side's pixels that are nearer to a class.

    Args:
        task: Training pixels, and the training side.
        settings: With the seed and the patch of the classifier.
    """
    pixels = task.normalised.pixels
    positions = some_of(task.training_side, _MOST_PIXELS, generator(settings.seed, Purpose.NOVELTY, step=0))
    labelled, others = (
        patch_means(pixels, part, settings.patch).double().cpu().numpy() for part in (task.positions, positions)
    )
    means, covariance = _means_and_covariance(labelled, task.targets.cpu().numpy(), len(task.classes))
    variances, vectors = np.linalg.eigh(covariance)
    root = vectors * variances**-0.5 @ vectors.T
    ratios, directions = np.linalg.eigh(root @ np.atleast_2d(np.cov(others.T, bias=True)) @ root)
    ratios = np.where(ratios > _NOTHING * ratios.max(), ratios, 0)
    projection = root @ directions * np.sqrt(ratios / (ratios + _HALF))
    score = NoveltyScore(means.shape[1], len(means)).to(pixels.values.device)
    score.projection.copy_(torch.from_numpy(projection))
    score.means.copy_(torch.from_numpy(means @ projection))
    distances = score.distances(torch.from_numpy(others).to(score.means)).double().cpu().numpy()
    score.levels.copy_(torch.from_numpy(np.quantile(distances, np.linspace(0, 1, LEVELS))))
    return score
