"""Labels as they come → class ids, and how many labels each class has."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from spectralmamba.errors import LabelError

Mask = NDArray[np.bool_]
LabelImage = np.ndarray | xr.DataArray


def class_ids(labels: LabelImage) -> NDArray[np.int64]:
    """Class ids of any integer, boolean or whole-number array, with 0 for NaN.

    Raises:
        LabelError: There are negative or fractional numbers, or no numbers at all.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "biuf":
        raise LabelError(
            "labels are not numbers", found=f"type {array.dtype}", expected="whole class ids, 0 unlabelled"
        )
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), 0, array)
        if not np.array_equal(array, np.floor(array)) or np.isinf(array).any():
            raise LabelError("labels are not whole numbers", expected="whole class ids, 0 unlabelled")
    if array.size and array.min() < 0:
        raise LabelError(
            "a class id is negative",
            found=array.min(),
            expected="ids of at least 1, 0 unlabelled",
            remedy="Set unlabelled pixels to 0 and renumber the classes.",
        )
    return array.astype(np.int64)


def labelled_classes(labels: LabelImage) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Class ids `(H, W)` and the number of labels of each class."""
    ids = class_ids(labels)
    if ids.ndim != 2:
        raise LabelError("labels are not an image", found=f"shape {ids.shape}", expected="(H, W)")
    present, count = np.unique(ids[ids > 0], return_counts=True)
    counts = {int(class_id): int(n) for class_id, n in zip(present, count, strict=True)}
    if not counts:
        raise LabelError("no pixel is labelled", found="0 everywhere", expected="class ids of at least 1")
    if len(counts) == 1:
        raise LabelError(
            "all labels are of one class",
            found=counts_in_words(counts),
            expected="at least two classes",
            remedy="Label a second class, or give the class ids if these are masks.",
        )
    return ids, counts


def field_numbers(labels: LabelImage) -> NDArray[np.int64] | None:
    """Which polygon or point each pixel `(H, W)` is of, 0 unlabelled; None where `labels` do not say."""
    if not isinstance(labels, xr.DataArray) or "field" not in labels.coords:
        return None
    return np.asarray(labels.coords["field"].values, np.int64)


def has_wide_fields(labels: LabelImage) -> bool:
    """Whether `labels` say which polygon or point each pixel is of, and one of these has several pixels."""
    fields = field_numbers(labels)
    return fields is not None and bool((np.bincount(fields[fields > 0]) > 1).any())


def counts_in_words(counts: dict[int, int]) -> str:
    """Say 'labels class 1: 20, class 2: 7'."""
    return "labels " + ", ".join(f"class {class_id}: {count}" for class_id, count in counts.items())
