"""`model = "auto"`: which classifier is best on training labels that it has not learned, block by block of the scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from spectralmamba.errors import SettingsError
from spectralmamba.models.committee import SIMPLE_MODELS
from spectralmamba.settings import Settings
from spectralmamba.training.companions import learn_simple
from spectralmamba.training.draws import Purpose, generator
from spectralmamba.training.folds import FOLDS, divide, leave_out
from spectralmamba.training.task import Task

FIRST_CHOICE = "spectral_mamba"
_CLEAR = 2.0  # standard errors by which another must be better than the first choice


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        model: Name of the classifier.
        accuracies: Share of the left-out labels that each candidate told rightly, by name; empty if none can be left out.
        labels: Number of labels that were left out in turn.
        reason: A sentence.
    """

    model: str
    accuracies: dict[str, float]
    labels: int
    reason: str

    def record(self) -> dict[str, Any]:
        """Return what a card says of it."""
        return asdict(self)


@torch.no_grad()
def choose_model(
    task: Task, settings: Settings, train: Callable[[Mapping[int, Task], Settings], Mapping[int, nn.Module]]
) -> Choice:
    """Choose by cross-validation: SpectralMamba, unless another is better by two standard errors.

    Labels of one class that are near each other are left out together, and so are the pixels of the training side near them. With a
    handful of labels hardly any difference is as clear as that, and the first choice stands.

    Args:
        task: What there is to learn.
        settings: Those of the first choice.
        train: Trains the first choice for some tasks.
    """
    apart = replace(task, apart=True)
    folds = divide(apart, generator(settings.seed, Purpose.FOLDS, step=1))
    asked = {fold: folds == fold for fold in range(FOLDS) if (folds == fold).any()}
    if not asked:
        reason = (
            f"{FIRST_CHOICE}: no class has labels in two places, one of which could be left out to compare classifiers."
        )
        return Choice(FIRST_CHOICE, {}, 0, reason)
    tasks = {fold: leave_out(apart, left_out) for fold, left_out in asked.items()}
    right = {FIRST_CHOICE: _right(train(tasks, settings), task, asked, settings.patch)}
    for name, kind in SIMPLE_MODELS.items():
        try:
            learned = {fold: learn_simple(kind, fewer, settings, settings.patch) for fold, fewer in tasks.items()}
        except SettingsError:  # too many classes
            continue
        right[name] = _right(learned, task, asked, settings.patch)
    accuracies = {name: float(found.mean()) for name, found in right.items()}
    best = max(accuracies, key=accuracies.__getitem__)
    gains = right[best] - right[FIRST_CHOICE]
    clear = gains.mean() > _CLEAR * gains.std() / len(gains) ** 0.5
    model = best if clear else FIRST_CHOICE
    told = ", ".join(f"{name} {share:.3f}" for name, share in sorted(accuracies.items(), key=lambda item: -item[1]))
    reason = f"{model}: of {len(gains)} labels left out block by block, {told} were told rightly."
    if best != model:
        reason += f" The lead of {best} is within two standard errors."
    return Choice(model, accuracies, len(gains), reason)


def _right(learned: Mapping[int, nn.Module], task: Task, asked: Mapping[int, np.ndarray], patch: int) -> np.ndarray:
    """Return which labels were told rightly, fold after fold, as 0 or 1."""
    found = []
    for fold, left_out in asked.items():
        chosen = torch.from_numpy(np.flatnonzero(left_out)).to(task.positions.device)
        answers = task.logits(learned[fold], task.positions[chosen], patch).argmax(1)
        found.append((answers == task.targets[chosen]).double().cpu().numpy())
    return np.concatenate(found)
