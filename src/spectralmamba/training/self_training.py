"""Self-training: teachers label pixels that they are sure of, and the classifier learns from these, too.

With few labels the largest gap is in what of a class they miss. Networks of two patch widths and label propagation err in different
places; where their mean is sure, it is right far more often than any of them, and pixels labelled so show how a class varies. Every
class is filled up to the same number, no longer if half of them have that many labels, and only pixels of the split's training side
are looked at (Lee 2013, "Pseudo-Label"; Xie et al. 2020, arXiv 1911.04252).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectralmamba.models.committee import Companion, LabelPropagation
from spectralmamba.settings import Settings
from spectralmamba.training.companions import labels_are_few, learn_companion, propagate_labels
from spectralmamba.training.draws import Purpose, generator, some_of
from spectralmamba.training.task import Task

_MOST_CANDIDATES = 20_000  # pixels that teachers look at


@dataclass(frozen=True)
class Stage:
    """A network to train: a teacher of a round, or at last the classifier.

    Attributes:
        round: Counted from 0; that of the classifier is the number of rounds.
        patch: P.
        ends_round: Whether pixels are labelled when it is trained.
        last: Whether it is the classifier.
    """

    round: int
    patch: int
    ends_round: bool
    last: bool


def plan(settings: Settings, task: Task) -> list[Stage]:
    """Return what is trained one after the other; the classifier alone where half the classes need no more pixels.

    Adding to rare classes alone would make them likelier than they are.
    """
    student = Stage(settings.self_training_rounds, settings.patch, False, True)
    if not labels_are_few(task, settings):
        return [student]
    widest = widest_patch(settings, task)
    teachers = [widest, *([3] if widest > 3 else [])]
    return [
        *(
            Stage(number, patch, patch == teachers[-1], False)
            for number in range(settings.self_training_rounds)
            for patch in teachers
        ),
        student,
    ]


def widest_patch(settings: Settings, task: Task) -> int:
    """Return the widest teacher's patch: no wider than the classifier's where a side of the scene must not be seen.

    A disjoint split's buffer is as wide as the classifier's patch reaches.
    """
    whole = len(task.training_side) == len(task.normalised.pixels)
    return settings.teacher_patch if whole else min(settings.teacher_patch, settings.patch)


class Pupil:
    """What self-training has come to for one seed.

    Attributes:
        stage: Number of the stage that is next.
        positions: Positions of the pixels that teachers labelled, `(m,)`.
        targets: Index of their class, `(m,)`.
        sums: Sum of the round's teachers' probabilities of the candidates, `(c, K)`; zeros before the first.
    """

    def __init__(self, task: Task, settings: Settings) -> None:
        self.task, self.settings = task, settings
        self.stage = 0
        self.positions, self.targets = task.positions[:0], task.targets[:0]
        self._candidates = self._choose_candidates()
        self.sums = torch.zeros(len(self._candidates), len(task.classes))

    def lesson(self) -> Task:
        """Return the task with the pixels that teachers labelled, which count as much as labels do on average."""
        positions, targets = (
            torch.cat([self.task.positions, self.positions]),
            torch.cat([self.task.targets, self.targets]),
        )
        weights = self.task.weights
        if weights is not None:
            weights = torch.cat([weights, weights.new_ones(len(self.positions))])
        return replace(self.task, positions=positions, targets=targets, weights=weights)

    def learned(self, network: nn.Module, stage: Stage) -> None:
        """Take what a teacher says of the candidates; at the end of a round, label those that are sure."""
        self.sums = self.sums + self._probabilities(network, stage.patch)  # a checkpoint may hold what it was
        self.stage += 1
        if stage.ends_round:
            self.sums = self.sums + self._propagated
            self._label(stage.round)
            self.sums = torch.zeros_like(self.sums)

    def companion(self, patch: int) -> Companion | None:
        """Return what decides beside the classifier of patches of this width; the teacher, if it was of the same patches."""
        taught = patch == widest_patch(self.settings, self.task) and "_propagation" in self.__dict__
        if taught and self.settings.companion == "label propagation":
            return self._propagation
        return learn_companion(self.task, self.settings, patch)

    def record(self, stages: list[Stage]) -> dict[str, Any]:
        """Return what a card says of it: the teachers' patches, and the pixels that they labelled, by class id."""
        counts = torch.bincount(self.targets, minlength=len(self.task.classes)).tolist()
        return {
            "rounds": self.settings.self_training_rounds if len(stages) > 1 else 0,
            "teacher_patches": sorted({stage.patch for stage in stages if not stage.last}),
            "pseudo_labels": {str(id_): count for id_, count in zip(self.task.classes.tolist(), counts, strict=True)},
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {"positions": self.positions, "targets": self.targets, "sums": self.sums}

    def restore(self, stage: int, tensors: dict[str, Tensor]) -> None:
        """Go on from what a checkpoint kept."""
        self.stage, device = stage, self.task.positions.device
        self.positions, self.targets = tensors["positions"].to(device), tensors["targets"].to(device)
        self.sums = tensors["sums"]

    def _choose_candidates(self) -> Tensor:
        """Return the positions of unlabelled pixels that teachers look at, `(c,)`."""
        random = generator(self.settings.seed, Purpose.PSEUDO_LABELS, step=2**32)
        return some_of(self.task.unlabelled, _MOST_CANDIDATES, random)

    def _probabilities(self, network: nn.Module, patch: int) -> Tensor:
        return self.task.logits(network, self._candidates, patch).softmax(1).cpu()

    @cached_property
    def _propagation(self) -> LabelPropagation:
        """Label propagation of the widest patches, a teacher."""
        return propagate_labels(self.task, self.settings, widest_patch(self.settings, self.task))

    @cached_property
    def _propagated(self) -> Tensor:
        """What label propagation says of the candidates, `(c, K)`."""
        return self._probabilities(self._propagation, widest_patch(self.settings, self.task))

    def _label(self, number: int) -> None:
        """Label candidates at random among those that are sure, until each class has its number."""
        confidence, found = (self.sums / self.sums.sum(1, keepdim=True)).max(1)
        random = generator(self.settings.seed, Purpose.PSEUDO_LABELS, step=number)
        given = torch.bincount(self.task.targets, minlength=len(self.task.classes)).tolist()
        chosen, targets = [], []
        for target, count in enumerate(given):
            sure = np.flatnonzero((found == target) & (confidence > self.settings.pseudo_confidence))
            size = min(max(0, self.settings.pseudo_labels - count), len(sure))
            chosen.append(random.choice(sure, size, replace=False) if size else sure[:0])
            targets.append(np.full(size, target))
        device = self.task.positions.device
        self.positions = self._candidates[torch.from_numpy(np.concatenate(chosen)).to(device)]
        self.targets = torch.from_numpy(np.concatenate(targets)).to(device)
