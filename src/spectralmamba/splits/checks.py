"""Refusals: numbers out of range, sides that overlap or hold nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from spectralmamba.errors import SplitError
from spectralmamba.splits.labelled import Mask, counts_in_words


def check_patch(patch: int) -> None:
    """Refuse a patch width that is not odd."""
    if not is_whole(patch) or patch < 1 or patch % 2 == 0:
        raise SplitError(
            "a patch has a pixel in its centre", found=f"patch={patch}", expected="an odd number, 1 or more"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that is not a whole number of at least 0."""
    checked_whole_number(seed, "seed", 0)


def check_fraction(fraction: float, name: str) -> None:
    """Refuse a share that leaves a side empty."""
    if not 0 < fraction < 1:
        raise SplitError("a share is out of range", found=f"{name}={fraction}", expected="more than 0 and less than 1")


def check_per_class(per_class: int | None, counts: dict[int, int]) -> None:
    """Refuse a number of training pixels that no class has, with one left to test."""
    if per_class is None:
        return
    checked_whole_number(per_class, "per_class", 1)
    if per_class >= max(counts.values()):
        raise SplitError(
            "no class has more labels than are to train",
            found=f"per_class={per_class} and {counts_in_words(counts)}",
            expected="fewer training pixels than labels in at least one class",
            remedy="Ask for fewer training pixels a class.",
        )


def checked_whole_number(number: int, name: str, least: int) -> int:
    """The number as an int; refused if it is not whole or less than `least`."""
    if not is_whole(number) or number < least:
        raise SplitError(
            "a number is out of range", found=f"{name}={number}", expected=f"a whole number, {least} or more"
        )
    return int(number)


def is_whole(number: Any) -> bool:
    """Whether this is an integer of Python or numpy."""
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


def refuse_overlap(train: Mask, test: Mask) -> None:
    """Refuse masks that share pixels."""
    if both := int((train & test).sum()):
        raise SplitError(
            "training and test pixels overlap",
            found=f"{both} pixels in both",
            expected="none",
            remedy="A pixel seen in training says nothing about unseen ones; take it out of one of the masks.",
        )


def refuse_empty_side(train: Mask, test: Mask, remedy: str) -> None:
    """Refuse a split without training or without test pixels."""
    for mask, side in ((train, "training"), (test, "test")):
        if not mask.any():
            raise SplitError(
                f"the {side} side holds no labelled pixel",
                expected="at least one pixel to train on and one to test",
                remedy=remedy,
            )
