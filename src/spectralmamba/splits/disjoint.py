"""Splits that train and test in different areas of the scene."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spectralmamba.errors import SplitError
from spectralmamba.splits.areas import (
    assign_areas,
    count_fields,
    number_blocks,
    number_fields,
    number_regions,
    tested_pixels,
    training_side,
)
from spectralmamba.splits.checks import (
    check_fraction,
    check_patch,
    check_per_class,
    check_seed,
    checked_whole_number,
    is_whole,
)
from spectralmamba.splits.draws import draw_pixels
from spectralmamba.splits.labelled import LabelImage, Mask, class_ids, field_numbers, labelled_classes
from spectralmamba.splits.record import with_record
from spectralmamba.splits.split import Split

DisjointMethod = Literal["blocks", "regions", "fields", "columns", "rows"]

_USUAL_BLOCK_SIZE = 16


def split_disjoint(
    labels: LabelImage,
    *,
    method: DisjointMethod = "blocks",
    fields: LabelImage | None = None,
    block_size: int | None = None,
    boundary: int | None = None,
    train_fraction: float = 0.5,
    per_class: int | None = None,
    buffer: int | None = None,
    seed: int = 0,
    patch: int = 1,
) -> Split:
    """Train and test in different areas of the scene.

    The methods differ in what is kept whole on one side:

    - `blocks`: squares of `block_size` pixels, assigned at random so that each class has blocks on both sides where it
      can.
    - `regions`: 8-connected regions of one class, assigned in the same way.
    - `fields`: the polygons and points that labels were drawn as, assigned in the same way. The parts of a multipart polygon are
      one field.
    - `columns`, `rows`: those before `boundary` train, the others test.

    A class that lies in a single block, region or field trains and is not tested; the record's notes say so. A field is never
    divided, because its parts are no independent samples of the class. The record of `fields` also has `fields`, how many of each
    class have training and test pixels: `{"10": {"train": 3, "test": 2}}`.

    The buffer is a distance along rows and columns, as a patch reaches (Chebyshev). A test pixel within it of the
    training area, labelled or not, used or not, is dropped, and the notes count them. With the default buffer no test
    pixel's patch holds any pixel of the training side and no training pixel's patch holds a test pixel; what both may
    see are dropped and unlabelled pixels between the areas, which `buffer=patch - 1` excludes too.

    The training side is the training area: the columns or rows before `boundary`, the labelled training blocks, the
    training regions. Pixels of blocks without labels, or outside regions, join it if they are nearer to the training
    area than to the test area and not within the buffer of the test area.

    Args:
        labels: `(H, W)` class ids, 0 unlabelled.
        method: See above.
        fields: `(H, W)` number of the field of each labelled pixel from 1, for `fields`. By default the coordinate `field` that
            labels from polygons and points have.
        block_size: Pixels, for `blocks`. By default 16, less in a scene narrower than four such blocks, and at least
            four times the buffer, so that a lone test block keeps a quarter of its pixels.
        boundary: First column or row that tests; by default `train_fraction` of the width or height.
        train_fraction: Share of the labels (`blocks`, `regions`, `fields`) or of the width (`columns`, `rows`) that trains,
            between 0 and 1; areas are kept whole, so the outcome is near it only.
        per_class: Draw only so many training pixels of each class from the training area; the areas and the test
            pixels stay the same for every number.
        buffer: Pixels; None for the patch's reach, (P − 1) / 2; 0 keeps every test pixel.
        seed: Non-negative.
        patch: Odd patch width P.

    Raises:
        LabelError: `labels` are not class ids, or hold fewer than two classes.
        SplitError: An argument is out of range or does not belong to the method, or a side has no pixels, or fewer
            than two classes train.
    """
    ids, counts = labelled_classes(labels)
    check_patch(patch)
    check_seed(seed)
    check_fraction(train_fraction, "train_fraction")
    check_per_class(per_class, counts)
    _check_method(method, block_size, boundary, fields)
    reach = checked_whole_number(patch // 2 if buffer is None else buffer, "buffer", 0)
    parameters: dict[str, Any] = {"buffer": reach}
    units: NDArray[np.int64] | None = None
    if method in ("columns", "rows"):
        parameters["boundary"] = _checked_boundary(boundary, train_fraction, method, ids.shape)
        before = np.indices(ids.shape)[1 if method == "columns" else 0] < parameters["boundary"]
        areas, notes = (before, ~before), []
    else:
        parameters["train_fraction"] = float(train_fraction)
        if method == "blocks":
            parameters["block_size"] = _checked_block_size(block_size, reach, ids.shape)
            units = number_blocks(ids, parameters["block_size"])
        elif method == "regions":
            units = number_regions(ids, counts)
        else:
            units = number_fields(ids, field_numbers(labels) if fields is None else class_ids(fields))
        areas, notes = assign_areas(units, ids, counts, train_fraction, reach, seed, method)
    train, test = areas[0] & (ids > 0), tested_pixels(areas, ids, reach)
    if dropped := int((areas[1] & (ids > 0) & ~test).sum()):
        notes.append(f"{dropped} test pixels within {reach} pixels of the training area are left out")
    if per_class is not None:
        parameters["per_class"] = int(per_class)
        train = _subsample(train, ids, counts, per_class, seed, notes)
    split = with_record(method, parameters, seed, patch, (train, test, training_side(areas, reach)), ids, notes)
    if method == "fields" and units is not None:
        on_train, on_test = (count_fields(units, ids, counts, mask) for mask in (train, test))
        split.record["fields"] = {str(id_): {"train": on_train[id_], "test": on_test[id_]} for id_ in counts}
    return split


def _check_method(method: str, block_size: int | None, boundary: int | None, fields: LabelImage | None) -> None:
    if method not in get_args(DisjointMethod):
        raise SplitError("unknown method", found=method, expected=" or ".join(get_args(DisjointMethod)))
    if block_size is not None and method != "blocks":
        raise SplitError("block_size belongs to the method blocks", found=f"method={method}, block_size={block_size}")
    if fields is not None and method != "fields":
        raise SplitError("fields belong to the method fields", found=f"method={method}, fields=…")
    if boundary is not None and method not in ("columns", "rows"):
        raise SplitError("boundary belongs to columns and rows", found=f"method={method}, boundary={boundary}")


def _checked_boundary(boundary: int | None, train_fraction: float, method: str, shape: tuple[int, ...]) -> int:
    length = shape[1] if method == "columns" else shape[0]
    if boundary is None:
        return min(max(round(length * train_fraction), 1), max(length - 1, 1))
    if not is_whole(boundary) or not 0 < boundary < length:
        raise SplitError(
            "the boundary leaves a side empty",
            found=f"boundary={boundary} in a scene of {length} {method}",
            expected=f"1 to {length - 1}",
        )
    return int(boundary)


def _checked_block_size(block_size: int | None, reach: int, shape: tuple[int, ...]) -> int:
    if block_size is not None:
        return checked_whole_number(block_size, "block_size", 1)
    return max(4 * reach, min(_USUAL_BLOCK_SIZE, min(shape) // 4), 1)


def _subsample(
    area: Mask, ids: NDArray[np.int64], classes: Iterable[int], per_class: int, seed: int, notes: list[str]
) -> Mask:
    train = np.zeros(ids.shape, bool)
    for class_id in classes:
        candidates = area & (ids == class_id)
        available = int(candidates.sum())
        if 0 < available < per_class:
            notes.append(
                f"class {class_id} has {available} labels in the training area, fewer than {per_class}: all train"
            )
        draw_pixels(train, candidates, per_class, seed, class_id)
    return train
