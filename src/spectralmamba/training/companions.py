"""What decides beside a network or in its place: label propagation, a support vector machine, or logistic regression."""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from spectralmamba.errors import SettingsError
from spectralmamba.models.committee import (
    NEAR,
    Companion,
    LabelPropagation,
    LogisticRegression,
    SupportVectorMachine,
)
from spectralmamba.pixels import patch_means
from spectralmamba.settings import Settings
from spectralmamba.training.draws import Purpose, generator, some_of
from spectralmamba.training.task import Task

_MOST_CLASSES = 64  # of a support vector machine: 2 016 pairs
# Tuning by cross-validation chooses worse than this where labels are few (Salinas-A, 5 a class: 0.984 against 0.995).
_COST = 10.0
_INVERSE_REGULARISATION = 0.01  # C of logistic regression
_CONSTANT = 1e-4  # standard deviation of a whitened band that does not vary
_MOST_LABELLED, _MOST_NODES = 1500, 3000  # of the graph
_MOST_REGRESSED = 50_000  # labelled pixels
_REACH = 60.0  # γ, in units of 1 / (bands × mean variance)
_FINEST = 1e-3  # distance below which nodes are equal, in units of √(bands × mean variance)
# α, how much of what a pixel says comes from its neighbours in the graph: sharp eyes see few neighbours, and those are right.
_PASSED_ON, _PASSED_ON_SHARP = 0.5, 0.9


def learn_companion(task: Task, settings: Settings, patch: int) -> Companion | None:
    """Return what decides beside the network, which sees means of patches of this width; None where nothing does.

    Label propagation and the support vector machine are for few labels, where half the classes have fewer than
    `settings.pseudo_labels`. With many, the network alone is better than with them.
    """
    kind = settings.companion
    if kind == "none" or (kind != "logistic regression" and not labels_are_few(task, settings)):
        return None
    if kind == "support vectors" and len(task.classes) > _MOST_CLASSES:
        return None
    return learn_simple(kind, task, settings, patch)


def learn_simple(kind: str, task: Task, settings: Settings, patch: int) -> Companion:
    """Learn one of `COMPANIONS` from the means of patches.

    Raises:
        SettingsError: There are too many classes for a support vector machine.
    """
    if kind == "label propagation":
        return propagate_labels(task, settings, patch)
    if kind == "logistic regression":
        return _learn_regression(task, settings, patch)
    if len(task.classes) > _MOST_CLASSES:
        raise SettingsError(
            "a support vector machine here takes fewer classes",
            found=len(task.classes),
            expected=f"at most {_MOST_CLASSES}",
            remedy="Choose another model.",
        )
    return _learn_machine(task, settings, patch)


def labels_are_few(task: Task, settings: Settings) -> bool:
    """Tell whether half the classes have fewer training pixels than self-training fills them up to."""
    return float(np.median(torch.bincount(task.targets).cpu().numpy())) < settings.pseudo_labels


@torch.no_grad()
def propagate_labels(task: Task, settings: Settings, patch: int) -> LabelPropagation:
    """Spread labels over a graph of labelled and unlabelled pixels.

    Zhou et al. 2004, "Learning with local and global consistency". An edge weighs as much as a Gaussian kernel of the distance
    between two patch means. With S the weights, divided by the roots of both nodes' sums, and Y the labels, what the nodes know is
    F = (I − α S)⁻¹ Y, solved at once. Any other pixel takes the kernel's mean of the nodes' shares of F. That is done twice: with
    spectra as they are, and with those of a sharper whitening; of wide patches a third time, with the sharper ones of their middle.

    Args:
        task: Its labelled pixels, and the pixels of its training side, are the nodes: a random part of them where they are many.
        settings: With the seed.
        patch: Width of the patches.
    """
    pixels, balanced = task.normalised.pixels, settings.rare_classes != "as drawn"
    random = generator(settings.seed, Purpose.GRAPH, step=0)
    labelled = _of_each_class(task.targets.cpu().numpy(), _MOST_LABELLED, random)
    unlabelled = some_of(task.unlabelled, max(0, _MOST_NODES - len(labelled)), random)
    positions = torch.cat([task.positions[labelled], unlabelled])
    nodes = patch_means(pixels, positions, patch)  # (S, L)
    found = LabelPropagation(nodes.shape[1], len(task.classes), len(nodes), patch).to(nodes.device)
    found.sharpening.copy_(task.normalised.sharpening)
    views = [(found.blunt, nodes, _PASSED_ON), (found.sharp, nodes @ found.sharpening, _PASSED_ON_SHARP)]
    if found.near is not None:
        middles = patch_means(pixels, positions, NEAR)
        views.append((found.near, middles @ found.sharpening, _PASSED_ON_SHARP))
    for smoother, seen, passed_on in views:
        variance = float(seen.double().var(0, correction=0).mean()) or 1.0
        smoother.gamma.fill_(_REACH / (seen.shape[1] * variance))
        smoother.support.copy_(seen)
        exact = seen.double() if seen.device.type != "mps" else seen.cpu().double()
        distances = torch.cdist(exact, exact)  # (S, S)
        smoother.spacing.copy_(_spacing(distances, _FINEST * (seen.shape[1] * variance) ** 0.5))
        weights = torch.exp(-float(smoother.gamma) * distances.square())
        counts = None if task.weights is None else task.weights[labelled]
        given = task.targets[labelled]
        smoother.shares.copy_(_spread(weights, given, len(task.classes), passed_on, balanced, counts))
    return found.eval()


def _spacing(distances: Tensor, finest: float) -> Tensor:
    """Return the distance of each node to the nearest one that differs, `(S,)`; in a resampled scene many are equal.

    Args:
        distances: Of nodes from each other, `(S, S)`.
        finest: Least distance of nodes that differ, and the spacing where none does.
    """
    nearest = distances.masked_fill(distances < finest, torch.inf).amin(1)
    return torch.where(nearest < torch.inf, nearest, finest)


def _spread(
    weights: Tensor,
    targets: Tensor,
    classes: int,
    passed_on: float,
    balanced: bool = False,
    counts: Tensor | None = None,
) -> Tensor:
    """Return each node's shares of the classes `(S, K)`; the first nodes are labelled, their targets `(n,)`.

    Args:
        weights: Of the edges, `(S, S)`, double precision; the diagonal does not count, and is set to 0.
        targets: Index of the class of the labelled nodes.
        classes: K.
        passed_on: α, how much of what a node says comes from its neighbours.
        balanced: Whether the labels of a class count as much together as those of any other.
        counts: How much each label counts, `(n,)`; all alike if None.
    """
    weights.fill_diagonal_(0)
    scale = weights.sum(1).clamp_min(torch.finfo(weights.dtype).tiny).rsqrt()
    size = len(weights)
    matrix = torch.eye(size, dtype=weights.dtype, device=weights.device) - passed_on * weights * scale * scale[:, None]
    given = weights.new_zeros(size, classes)
    given[torch.arange(len(targets)), targets.to(weights.device)] = 1 if counts is None else counts.to(given)
    if balanced:
        given /= given.sum(0).clamp_min(1)
    found = torch.cholesky_solve(given, torch.linalg.cholesky(matrix)).clamp_min(0)
    most = found.amax(1, keepdim=True)
    known = torch.where(most > 0, found / most, 1.0)  # a node that no label reaches knows nothing
    return known / known.sum(1, keepdim=True)


def _learn_machine(task: Task, settings: Settings, patch: int) -> SupportVectorMachine:
    from sklearn.svm import SVC

    spectra, targets, counts, mean, scale = _standardised(task, settings, patch, _MOST_LABELLED)
    weights = None if settings.rare_classes == "as drawn" else "balanced"
    gamma = 1 / (spectra.shape[1] * (spectra.var() or 1))  # SVC's "scale", which it does not tell
    found = SVC(C=_COST, gamma=gamma, class_weight=weights, decision_function_shape="ovo", random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # which many classes of one label look like
        found.fit(spectra, targets, counts)
    machine = SupportVectorMachine(spectra.shape[1], len(task.classes), len(found.support_))
    values = {
        "mean": mean,
        "inverse_sd": 1 / scale,
        "gamma": gamma,
        "support": found.support_vectors_,
        "coefficients": _of_pairs(np.asarray(found.dual_coef_), found.n_support_),
        "intercepts": found.intercept_ if len(task.classes) > 2 else -found.intercept_,
    }
    for name, value in values.items():
        getattr(machine, name).copy_(torch.as_tensor(np.asarray(value)))
    return machine.to(task.positions.device).eval()


def _learn_regression(task: Task, settings: Settings, patch: int) -> LogisticRegression:
    """Learn logistic regression of sharpened spectra; the sharpening is folded into the weights."""
    from sklearn.linear_model import LogisticRegression as Regression

    sharpening = task.normalised.sharpening.double().cpu().numpy()
    spectra, targets, counts, mean, scale = _standardised(task, settings, patch, _MOST_REGRESSED, sharpening)
    weights = None if settings.rare_classes == "as drawn" else "balanced"
    found = Regression(C=_INVERSE_REGULARISATION, class_weight=weights, max_iter=1000).fit(spectra, targets, counts)
    weight, bias = np.asarray(found.coef_) / scale, np.asarray(found.intercept_)  # (K, L), (K,)
    if len(task.classes) == 2:  # scikit-learn has the second class's logit alone
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    regression = LogisticRegression(spectra.shape[1], len(task.classes), len(weight))
    regression.weight.copy_(torch.from_numpy(weight @ sharpening.T))
    regression.bias.copy_(torch.from_numpy(bias - weight @ mean))
    return regression.to(task.positions.device).eval()


def _standardised(
    task: Task, settings: Settings, patch: int, most: int, matrix: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Return standardised means of patches of labelled pixels `(n, L)`, their targets `(n,)`, and mean and scale of each band.

    Between targets and mean stands how much each pixel counts, `(n,)`; None where all count alike.

    Args:
        task: Whose labels they are.
        settings: With the seed.
        patch: Width of the patches.
        most: Labelled pixels to take at most.
        matrix: What spectra are multiplied with first, `(L, L)`.
    """
    chosen = _of_each_class(task.targets.cpu().numpy(), most, generator(settings.seed, Purpose.GRAPH, step=1))
    targets = task.targets[chosen].cpu().numpy()
    counts = None if task.weights is None else task.weights[chosen].double().cpu().numpy()
    spectra = patch_means(task.normalised.pixels, task.positions[chosen], patch).double().cpu().numpy()
    spectra = spectra if matrix is None else spectra @ matrix
    mean, sd = spectra.mean(0), spectra.std(0)
    # Where bands are constant, whitening leaves rounding behind, which must not become large.
    scale = np.where(sd > _CONSTANT, sd, 1.0)
    return (spectra - mean) / scale, targets, counts, mean, scale


def _of_each_class(targets: np.ndarray, most: int, random: np.random.Generator) -> Tensor:
    """Return which labelled pixels are learned, ascending `(n,)`: if many, one of each class and its share of the rest."""
    if len(targets) <= most:
        return torch.arange(len(targets))
    classes, counts = np.unique(targets, return_counts=True)
    room = max(0, most - len(classes))
    sizes = 1 + room * (counts - 1) // max(1, len(targets) - len(classes))
    parts = [
        random.choice(np.flatnonzero(targets == target), size, replace=False)
        for target, size in zip(classes, sizes, strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(parts)))


def _of_pairs(dual: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the coefficient of each support vector in each pair's decision `(S, J)`.

    Args:
        dual: SVC's `dual_coef_` `(K − 1, S)`: for a support vector of class i, those against the other classes in order.
        counts: Support vectors of each class `(K,)`, which are in the order of the classes.
    """
    ends = np.cumsum(counts)
    of_class = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    pairs = list(combinations(range(len(counts)), 2))
    coefficients = np.zeros((dual.shape[1], len(pairs)))
    for number, (first, second) in enumerate(pairs):
        coefficients[of_class[first], number] = dual[second - 1, of_class[first]]
        coefficients[of_class[second], number] = dual[first, of_class[second]]
    return coefficients if len(counts) > 2 else -coefficients  # scikit-learn turns the sign of a single pair
