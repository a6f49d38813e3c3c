"""Which networks a run trained one after the other: its loss starts high again with each, which is no instability."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeGuard

from spectralmamba.report import words
from spectralmamba.report.folder import RunFolder

MOST_TEACHERS_A_ROUND = 2  # of the folders whose card does not say


@dataclass(frozen=True)
class TrainedNetwork:
    """A teacher of self-training, or at last the classifier.

    Args:
        start: Steps that were done when it began.
        name: `teacher 7 × 7`; `teacher` if the folder does not hold its patch; `classifier`.
    """

    start: int
    name: str


def trained_networks(run: RunFolder) -> list[TrainedNetwork]:
    """The networks that share the steps of the log; none if it was one alone, or if the folder's files do not agree on them.

    Each takes the `steps` of the settings, so that the last step of the log, even if lines are lost at its end, tells how
    many there were.
    """
    logged = [step["step"] for step in run.log or [] if words.is_number(step["step"])]
    steps = run.settings.get("steps")
    if not logged or not _is_count(steps):
        return []
    names = _names(run, math.ceil(max(logged) / steps))
    return [TrainedNetwork(index * steps, name) for index, name in enumerate(names)]


def _names(run: RunFolder, networks: int) -> list[str]:
    rounds, teachers = _teachers(run, networks)
    if not teachers or networks != rounds * len(teachers) + 1:
        return []
    return [*teachers * rounds, "classifier"]


def _teachers(run: RunFolder, networks: int) -> tuple[int, list[str]]:
    """The rounds of self-training and the names of a round's teachers, in their order: the widest first."""
    record: Any = (run.card or {}).get("self_training")
    if isinstance(record, dict):
        rounds, patches = record.get("rounds"), record.get("teacher_patches")
        if _is_count(rounds) and isinstance(patches, list) and all(_is_count(patch) for patch in patches):
            return rounds, [f"teacher {words.square(patch)}" for patch in sorted(patches, reverse=True)]
        return 0, []
    rounds = run.settings.get("self_training_rounds")
    if not _is_count(rounds):
        return 0, []
    a_round = (networks - 1) // rounds
    return rounds, ["teacher"] * a_round if a_round <= MOST_TEACHERS_A_ROUND else []


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
