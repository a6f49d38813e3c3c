"""The areas of a disjoint split: whole blocks, regions or fields, and the side that each of them takes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spectralmamba.errors import SplitError
from spectralmamba.splits.distances import within_reach
from spectralmamba.splits.labelled import Mask

# Of so many greedy assignments the best is taken. One alone misses a class now and then, because a neighbour's buffer
# swallows its only test block, or leaves it a tiny field to train and a large one to test.
_ASSIGNMENT_TRIALS = 16
_REMEDIES = {
    "blocks": "Choose smaller blocks.",
    "regions": "Choose the method blocks, columns or rows.",
    "fields": "Draw a second polygon of a class, or make single parts of multipart polygons; or divide the labels by blocks, "
    "columns or rows, or at random.",
}


def number_blocks(ids: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Number of the block of each pixel, −1 in blocks without labels."""
    height, width = ids.shape
    row, column = np.arange(height) // size, np.arange(width) // size
    blocks = row[:, None] * (column[-1] + 1) + column[None, :]
    labelled = np.unique(blocks[ids > 0])
    renumbered = np.full(int(blocks.max()) + 1, -1, np.int64)
    renumbered[labelled] = np.arange(len(labelled))
    return renumbered[blocks]


def number_regions(ids: NDArray[np.int64], classes: Iterable[int]) -> NDArray[np.int64]:
    """Number of the 8-connected region of one class at each pixel, −1 where unlabelled."""
    regions, total = np.full(ids.shape, -1, np.int64), 0
    for class_id in classes:
        numbered, number = ndimage.label(ids == class_id, structure=np.ones((3, 3), int))  # pyright: ignore[reportGeneralTypeIssues]
        regions[numbered > 0] = numbered[numbered > 0] - 1 + total
        total += number
    return regions


def number_fields(ids: NDArray[np.int64], fields: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Number of the field at each pixel, −1 where unlabelled, from numbers that are 0 where there is none.

    Raises:
        SplitError: There are no fields, they are of another shape, or a labelled pixel is of none.
    """
    if fields is None:
        raise SplitError(
            "the labels do not say which pixels are one field",
            expected="labels from polygons or points, or fields=",
            remedy="Choose the method regions: connected pixels of a class.",
        )
    if fields.shape != ids.shape:
        raise SplitError("fields and labels differ in shape", found=fields.shape, expected=ids.shape)
    if without := int(((ids > 0) & (fields <= 0)).sum()):
        raise SplitError("labelled pixels are of no field", found=f"{without} such pixels", expected="none")
    units = np.full(ids.shape, -1, np.int64)
    units[ids > 0] = np.unique(fields[ids > 0], return_inverse=True)[1]
    return units


def count_fields(
    units: NDArray[np.int64], ids: NDArray[np.int64], classes: Iterable[int], mask: Mask
) -> dict[int, int]:
    """How many fields of each class have a pixel in `mask`."""
    return {class_id: len(np.unique(units[mask & (ids == class_id)])) for class_id in classes}


def assign_areas(
    units: NDArray[np.int64],
    ids: NDArray[np.int64],
    classes: Iterable[int],
    train_fraction: float,
    reach: int,
    seed: int,
    method: str,
) -> tuple[tuple[Mask, Mask], list[str]]:
    """Training and test area of whole units, each class on both sides where it can be; notes on where it cannot."""
    class_list = np.array(list(classes))
    labelled = ids > 0
    pixels_per_unit = np.zeros((int(units.max()) + 1, len(class_list)), np.int64)
    np.add.at(pixels_per_unit, (units[labelled], np.searchsorted(class_list, ids[labelled])), 1)
    divisible, unit = (pixels_per_unit > 0).sum(axis=0) > 1, method.removesuffix("s")
    if not divisible.any():
        raise SplitError(
            f"every class lies in a single {unit}, which cannot be on both sides",
            expected=f"a class with two {method} or more",
            remedy=_REMEDIES[method],
        )
    # 0 is no class id, so these numbers are apart from every class's own.
    generator = np.random.default_rng(np.random.SeedSequence([int(seed), 0]))
    best, best_quality = None, (-1, 0.0)
    for _ in range(_ASSIGNMENT_TRIALS):
        on_train = np.append(_assign_units(pixels_per_unit, train_fraction, generator), False)
        areas = on_train[units], ~on_train[units] & (units >= 0)
        share = on_train[:-1] @ pixels_per_unit / pixels_per_unit.sum(axis=0)
        tested = np.isin(class_list, ids[tested_pixels(areas, ids, reach)])
        quality = int(((share > 0) & tested).sum()), -float(np.abs(share - train_fraction).mean())
        if quality > best_quality:
            best, best_quality = areas, quality
    assert best is not None
    return best, [f"class {class_id} lies in a single {unit}, which trains" for class_id in class_list[~divisible]]


def _assign_units(
    pixels_per_unit: NDArray[np.int64], train_fraction: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Side of each unit `(U,)`, True for training, from its pixels of each class `(U, K)`.

    The class with the fewest units goes first, since it has the least choice; each of its free units, in random order,
    joins the side that lacks more of the class, training first.
    """
    number, classes = pixels_per_unit.shape
    on_train, free = np.zeros(number, bool), np.ones(number, bool)
    train_pixels, test_pixels = np.zeros(classes), np.zeros(classes)
    order = generator.permutation(classes)
    for k in order[np.argsort((pixels_per_unit > 0).sum(axis=0)[order], kind="stable")]:
        for unit in generator.permutation(np.flatnonzero(free & (pixels_per_unit[:, k] > 0))):
            on_train[unit] = train_pixels[k] / train_fraction <= test_pixels[k] / (1 - train_fraction)
            (train_pixels if on_train[unit] else test_pixels)[:] += pixels_per_unit[unit]
            free[unit] = False
    return on_train


def tested_pixels(areas: tuple[Mask, Mask], ids: NDArray[np.int64], reach: int) -> Mask:
    """Labelled pixels of the test area beyond the training area's buffer."""
    train_area, test_area = areas
    return test_area & (ids > 0) & ~within_reach(train_area, reach)


def training_side(areas: tuple[Mask, Mask], reach: int) -> Mask:
    """The training area and what lies nearer to it than to the test area, beyond the test area's buffer."""
    train_area, test_area = areas
    between = ~train_area & ~test_area
    if not (between.any() and train_area.any() and test_area.any()):
        return train_area
    to_train, to_test = (np.asarray(ndimage.distance_transform_edt(~area)) for area in areas)
    return train_area | (between & (to_train < to_test) & ~within_reach(test_area, reach))
