"""Conformal prediction sets, calibrated by cross-validation of label propagation over the training labels.

A set holds every class whose probability is at least a threshold: the one at which the sets of left-out training pixels hold
their class in the wanted share of cases (Vovk et al. 2005, "Algorithmic Learning in a Random World"; Sadinle et al. 2019, "Least
ambiguous set-valued classifiers with bounded error levels"). Labels are shared out among classes otherwise than the map's
pixels, so each counts by the share that its class has in the scene (Podkopaev & Ramdas 2021, arXiv 2103.03323).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectralmamba.models.committee import LabelPropagation
from spectralmamba.models.prediction_sets import PredictionSets
from spectralmamba.settings import Settings
from spectralmamba.training.companions import propagate_labels
from spectralmamba.training.draws import Purpose, generator, some_of
from spectralmamba.training.folds import FOLDS, divide, leave_out
from spectralmamba.training.task import Task

_MOST_ASKED = 5000  # pixels of a fold, and of the training side
_ROUNDING = 1e-5  # of probabilities and of sums of weights


@torch.no_grad()
def learn_prediction_sets(
    task: Task, settings: Settings, patch: int, decides: nn.Module | None
) -> tuple[PredictionSets, dict[str, Any]] | None:
    """Return prediction sets and what a card says of them; None if they are not wanted or no training pixel can be left out.

    Args:
        task: Training pixels, and the training side.
        settings: `set_coverage` and the seed.
        patch: P of the classifier.
        decides: What decides alone or beside the network: if that is label propagation, the sets are of its probabilities.
    """
    if settings.set_coverage == 0:
        return None
    random = generator(settings.seed, Purpose.FOLDS, step=0)
    folds = divide(task, random)
    if (folds < 0).all():
        return None
    own = None if isinstance(decides, LabelPropagation) else propagate_labels(task, settings, patch)
    propagation = own or decides
    assert isinstance(propagation, LabelPropagation)
    probabilities, targets, right = [], [], []
    for fold in range(FOLDS):
        asked = some_of(torch.from_numpy(np.flatnonzero(folds == fold)), _MOST_ASKED, random).to(task.positions.device)
        if len(asked):
            fewer = propagate_labels(leave_out(task, folds == fold), settings, patch)
            found, truth = _probabilities(fewer, task, task.positions[asked], patch), task.targets[asked]
            probabilities.append(found.gather(1, truth[:, None])[:, 0])
            targets.append(truth)
            right.append(found.argmax(1) == truth)
    of_class, target = torch.cat(probabilities).cpu().double().numpy(), torch.cat(targets).cpu().numpy()
    side = some_of(task.training_side, _MOST_ASKED, random)
    mapped = _probabilities(propagation, task, side, patch).argmax(1).cpu().numpy()
    shares = np.bincount(mapped, minlength=len(task.classes)) / max(1, len(mapped))
    weights = shares[target] / np.bincount(target, minlength=len(task.classes))[target]
    sets = PredictionSets(own).to(task.positions.device)
    sets.threshold.fill_((1 - _ROUNDING) * max(0.0, -_quantile(-of_class, weights, settings.set_coverage)))
    record = {
        "coverage": settings.set_coverage,
        "threshold": float(sets.threshold),
        "size": None if own is None else own.size,
        "labels": len(of_class),
        "folds": len(probabilities),
        "left_out": "neighbouring labels together" if task.apart else "labels at random",
        "accuracy_left_out": float(torch.cat(right).double().mean()),
    }
    return sets.eval(), record


def _quantile(scores: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Return the weighted quantile of scores below 1, as if a further one of mean weight were 1.

    Scores without weight are as if they were not there; 1 if there are no others.
    """
    scores, weights = scores[weights > 0], weights[weights > 0]
    if not len(scores):
        return 1.0
    order, further = np.argsort(scores), weights.mean()
    wanted = level * (weights.sum() + further) - _ROUNDING * further
    place = int(np.searchsorted(np.cumsum(weights[order]), wanted))
    return float(scores[order][place]) if place < len(scores) else 1.0


def _probabilities(propagation: LabelPropagation, task: Task, positions: Tensor, patch: int) -> Tensor:
    return task.logits(propagation, positions, patch).softmax(1)
