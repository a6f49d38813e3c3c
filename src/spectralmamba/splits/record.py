"""From masks to a split with its record: counts, distances, leaks and what the user should know."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectralmamba.errors import SplitError
from spectralmamba.splits.checks import refuse_empty_side
from spectralmamba.splits.distances import count_leaks, distance_record
from spectralmamba.splits.labelled import Mask
from spectralmamba.splits.split import Split


def with_record(
    method: str,
    parameters: dict[str, Any],
    seed: int | None,
    patch: int,
    masks: tuple[Mask, Mask, Mask],
    ids: NDArray[np.int64] | None,
    notes: list[str],
) -> Split:
    """The split of these training mask, test mask and training side; refused where it is of no use."""
    train, test, training_side = masks
    remedy = _remedy(parameters)
    refuse_empty_side(train, test, remedy)
    classes = {} if ids is None else _class_counts(ids, train, test)
    if ids is not None:
        _refuse_single_class(classes, remedy)
    record = {
        "method": method,
        "parameters": parameters,
        "seed": None if seed is None else int(seed),
        "patch": int(patch),
        "classes": classes,
        "train_pixels": int(train.sum()),
        "test_pixels": int(test.sum()),
        "distance": distance_record(train, test),
        "leaks": count_leaks(train, test, patch),
        "notes": notes + _one_sided_class_notes(classes),
    }
    return Split(train, test, training_side, record)


def _class_counts(ids: NDArray[np.int64], train: Mask, test: Mask) -> dict[str, dict[str, int]]:
    classes, number = np.unique(ids[ids > 0], return_inverse=True)
    on_train, on_test = (np.bincount(number, mask[ids > 0], len(classes)) for mask in (train, test))
    return {
        str(class_id): {"train": int(on_train[k]), "test": int(on_test[k])}
        for k, class_id in enumerate(classes.tolist())
    }


def _refuse_single_class(classes: dict[str, dict[str, int]], remedy: str) -> None:
    trained = [class_id for class_id, count in classes.items() if count["train"]]
    if len(trained) < 2:
        raise SplitError(
            "only one class trains",
            found=f"training pixels of class {trained[0]} alone",
            expected="at least two classes on the training side",
            remedy=remedy,
        )


def _one_sided_class_notes(classes: dict[str, dict[str, int]]) -> list[str]:
    notes = []
    for class_id, count in classes.items():
        if count["train"] and not count["test"]:
            notes.append(f"class {class_id} has no test pixels: it is learned but not tested")
        elif count["test"] and not count["train"]:
            notes.append(f"class {class_id} has no training pixels: its {count['test']} test pixels will all be wrong")
        elif not count["train"]:
            notes.append(f"class {class_id} has neither training nor test pixels")
    return notes


def _remedy(parameters: dict[str, Any]) -> str:
    if "buffer" not in parameters:
        return "Label more pixels, or divide them in another way."
    lower = "Lower the buffer or the patch, or choose" if parameters["buffer"] else "Choose"
    return f"{lower} another method, block size, boundary or train_fraction."
