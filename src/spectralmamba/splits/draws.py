"""Splits whose training pixels are drawn or dealt at random, or given as masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectralmamba.errors import SplitError
from spectralmamba.splits.checks import (
    check_fraction,
    check_patch,
    check_per_class,
    check_seed,
    checked_whole_number,
    refuse_empty_side,
    refuse_overlap,
)
from spectralmamba.splits.labelled import LabelImage, Mask, class_ids, field_numbers, labelled_classes
from spectralmamba.splits.record import with_record
from spectralmamba.splits.split import Split


def split_random(
    labels: LabelImage,
    *,
    per_class: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
    patch: int = 1,
) -> Split:
    """Draw training pixels of each class at random; the rest test.

    A class with fewer than 2 · `per_class` labels gives half of them, rounded down; a class with one label trains with
    it and is not tested. Each class has its own random numbers, so a class that is added or left out changes no other
    class's draw, and a draw of n pixels is part of every larger draw with the same seed.

    Args:
        labels: `(H, W)` class ids, 0 unlabelled.
        per_class: Training pixels of each class. Exactly one of `per_class` and `fraction` is given.
        fraction: Share of each class that trains, between 0 and 1; at least one pixel, and at least one is left to
            test.
        seed: Non-negative.
        patch: Odd patch width P, for counting leaks.

    Returns:
        A split whose training side is the whole scene.

    Raises:
        LabelError: `labels` are not class ids, or hold fewer than two classes.
        SplitError: An argument is out of range, or no class is left to test.
    """
    ids, counts = labelled_classes(labels)
    check_patch(patch)
    check_seed(seed)
    if (per_class is None) == (fraction is None):
        raise SplitError(
            "the number of training pixels is not clear",
            found=f"per_class={per_class}, fraction={fraction}",
            expected="exactly one of per_class and fraction",
        )
    check_per_class(per_class, counts)
    if fraction is not None:
        check_fraction(fraction, "fraction")
    train, notes = np.zeros(ids.shape, bool), []
    for class_id, count in counts.items():
        if per_class is not None:
            wanted = per_class if count >= 2 * per_class else max(count // 2, 1)
        else:
            wanted = min(max(round(count * float(fraction or 0)), 1), max(count - 1, 1))
        if count == 1 or (per_class is not None and wanted < per_class):
            notes.append(_few_labels_note(class_id, count, wanted))
        draw_pixels(train, ids == class_id, wanted, seed, class_id)
    parameters = {"per_class": int(per_class)} if per_class is not None else {"fraction": float(fraction or 0)}
    test = (ids > 0) & ~train
    notes += _mixed_fields_notes(field_numbers(labels), train, test)
    return with_record("random", parameters, seed, patch, (train, test, np.ones(ids.shape, bool)), ids, notes)


def _mixed_fields_notes(fields: NDArray[np.int64] | None, train: Mask, test: Mask) -> list[str]:
    if fields is None:
        return []
    mixed = len(np.intersect1d(fields[train], fields[test]))
    if not mixed:
        return []
    total = len(np.unique(fields[train | test]))
    return [
        f"pixels of one polygon train and test in {mixed} of {total} fields, which flatters the scores; "
        "the method fields keeps polygons whole"
    ]


def _few_labels_note(class_id: int, count: int, train: int) -> str:
    labels = "1 label" if count == 1 else f"{count} labels"
    return f"class {class_id} has {labels}: {train} for training, {count - train or 'none'} for testing"


def draw_pixels(mask: Mask, candidates: Mask, number: int, seed: int, class_id: int) -> None:
    """Mark `number` random candidates in `mask`; the draw depends on the seed, the class and its own pixels only."""
    positions = np.flatnonzero(candidates)
    generator = np.random.default_rng(np.random.SeedSequence([int(seed), class_id]))
    mask.flat[generator.permutation(positions)[:number]] = True


def split_folds(labels: LabelImage, *, folds: int, seed: int = 0, patch: int = 1) -> Split:
    """Leave one part of the labels out to test, and train on the rest: seeds 0 … folds - 1 are one cross-validation.

    The labels of each class are dealt at random to parts of equal size, give or take one; seed s tests part s mod `folds` of
    deal s // `folds`. A class with fewer labels than parts is not tested in each of them.

    Args:
        labels: `(H, W)` class ids, 0 unlabelled.
        folds: Parts, at least 2.
        seed: Non-negative.
        patch: Odd patch width P, for counting leaks.

    Returns:
        A split whose training side is the whole scene.

    Raises:
        LabelError: `labels` are not class ids, or hold fewer than two classes.
        SplitError: An argument is out of range, or this part holds no label.
    """
    ids, counts = labelled_classes(labels)
    check_patch(patch)
    check_seed(seed)
    folds = checked_whole_number(folds, "folds", 2)
    deal, part = divmod(int(seed), folds)
    test = np.zeros(ids.shape, bool)
    for class_id in counts:
        positions = np.flatnonzero(ids == class_id)
        order = np.random.default_rng(np.random.SeedSequence([deal, class_id])).permutation(positions)
        test.flat[order[part::folds]] = True
    train = (ids > 0) & ~test
    refuse_empty_side(train, test, "Ask for fewer folds.")
    return with_record("folds", {"folds": folds}, seed, patch, (train, test, np.ones(ids.shape, bool)), ids, [])


def split_masks(train: LabelImage, test: LabelImage, *, labels: LabelImage | None = None, patch: int = 1) -> Split:
    """Use fixed masks, such as those a benchmark publishes.

    Args:
        train: `(H, W)` bool, or class ids with 0 where a pixel does not train.
        test: The same for testing.
        labels: `(H, W)` class ids. If given, `train` and `test` say only where, and pixels without a label are left
            out; if not, the classes are those of the masks, or unknown for boolean masks.
        patch: Odd patch width P, for counting leaks.

    Returns:
        A split whose training side is the whole scene: masks alone do not say which area belongs to the training.

    Raises:
        LabelError: A mask or `labels` are not class ids, or hold fewer than two classes.
        SplitError: Shapes differ, the masks overlap, or one is empty.
    """
    check_patch(patch)
    arrays = {"training mask": class_ids(train), "test mask": class_ids(test)}
    if labels is not None:
        arrays["labels"] = class_ids(labels)
    if len({array.shape for array in arrays.values()}) > 1:
        raise SplitError(
            "masks and labels differ in shape",
            found=", ".join(f"{name} {array.shape}" for name, array in arrays.items()),
            expected="one shape",
            remedy="Bring all of them to the scene's grid.",
        )
    on_train, on_test = arrays["training mask"] > 0, arrays["test mask"] > 0
    refuse_overlap(on_train, on_test)
    notes: list[str] = []
    if labels is not None:
        ids, _ = labelled_classes(labels)
        for mask, name in ((on_train, "training"), (on_test, "test")):
            if unlabelled := int((mask & (ids == 0)).sum()):
                notes.append(f"{unlabelled} pixels of the {name} mask have no label and are left out")
            mask &= ids > 0
    elif np.asarray(train).dtype == bool or np.asarray(test).dtype == bool:
        ids = None
    else:
        ids, _ = labelled_classes(np.where(on_train, arrays["training mask"], arrays["test mask"]))
    return with_record("masks", {}, None, patch, (on_train, on_test, np.ones(on_train.shape, bool)), ids, notes)
