"""Who trains, who tests, and how far apart they are."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import rasterio
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import MemoryFile
from scipy import ndimage

from spectralmamba.errors import LabelError, SplitError
from spectralmamba.files import atomic_output

Mask = NDArray[np.bool_]
LabelImage = np.ndarray | xr.DataArray
DisjointMethod = Literal["blocks", "regions", "columns", "rows"]

TRAINING, TEST = 1, 2
"""Values of the first band of split.tif; 0 is unused."""

_RECORD_TAG = "SPLIT_RECORD"
_BAND_DESCRIPTIONS = ("role: 0 unused, 1 training, 2 test", "reference class id", "training side: 0 no, 1 yes")
# Halves keep the whole distances 1, 2, 3, 5, 10, 20, 50 clear of the edges; the first bin holds the four direct
# neighbours and the diagonal ones.
_DISTANCE_EDGES = (0.0, 1.5, 2.5, 3.5, 5.5, 10.5, 20.5, 50.5)
_USUAL_BLOCK_SIZE = 16
# Of so many greedy assignments the best is taken. One alone misses a class now and then, because a neighbour's buffer
# swallows its only test block, or leaves it a tiny field to train and a large one to test.
_ASSIGNMENT_TRIALS = 16


@dataclass(frozen=True, eq=False)
class Split:
    """Which pixels train and which test.

    Attributes:
        train: `(H, W)` bool, labelled pixels that the network learns from.
        test: `(H, W)` bool, labelled pixels that the scores are computed from.
        training_side: `(H, W)` bool, pixels, labelled or not, from which unsupervised statistics may be learned.
        record: What docs/architecture.md calls the record, ready for JSON.

    Raises:
        SplitError: The masks differ in shape, overlap, or one of `train` and `test` is empty.
    """

    train: Mask
    test: Mask
    training_side: Mask
    record: dict[str, Any]

    def __post_init__(self) -> None:
        if not self.train.shape == self.test.shape == self.training_side.shape:
            raise SplitError(
                "training mask, test mask and training side differ in shape",
                found=f"{self.train.shape}, {self.test.shape} and {self.training_side.shape}",
                expected="one shape",
            )
        _refuse_overlap(self.train, self.test)
        _refuse_empty_side(self.train, self.test, "Label more pixels, or divide them in another way.")

    def with_patch(self, patch: int) -> Split:
        """The same pixels, their leaks counted for patches of `patch` × `patch` pixels.

        The distances in the record are between pixels and stay as they are. A buffer is not redrawn: a disjoint split
        made for a smaller patch may leak with a larger one, and the record then says how much.

        Raises:
            SplitError: `patch` is not an odd number of at least 1.
        """
        _check_patch(patch)
        record = json.loads(json.dumps(self.record))
        record["patch"] = int(patch)
        record["leaks"] = _count_leaks(self.train, self.test, patch)
        return Split(self.train, self.test, self.training_side, record)

    def summary(self) -> str:
        """A few plain lines for people: method, counts, distance, leaks."""
        record = self.record
        patch, distance, leaks = record["patch"], record["distance"], record["leaks"]
        seed = "" if record["seed"] is None else f", seed {record['seed']}"
        lines = [
            f"Split: {_method_in_words(record)}{seed}.",
            f"{record['train_pixels']} training and {record['test_pixels']} test pixels"
            + (f" of {len(record['classes'])} classes." if record["classes"] else "."),
            f"From a test pixel to the nearest training pixel: at least {distance['minimum']:.1f} pixels, "
            f"median {distance['median']:.1f}.",
        ]
        if leaks["test_near_training"]:
            lines.append(
                f"Leaks: {leaks['test_near_training']} test pixels ({leaks['share_of_test']:.1%}) have a training "
                f"pixel in their {patch} × {patch} patch, {leaks['training_near_test']} training pixels a test pixel "
                "in theirs."
            )
        else:
            lines.append(f"Leaks: none; no {patch} × {patch} patch of a test pixel holds a training pixel.")
        return "\n".join(lines + [f"Note: {note}." for note in record["notes"]])

    def save(self, path: str | os.PathLike[str], labels: LabelImage) -> None:
        """Write the split as a GeoTIFF that holds everything to repeat it.

        Band 1 is the role (0 unused, 1 training, 2 test), band 2 the class id, band 3 the training side; all uint16.
        The record is the dataset's tag `SPLIT_RECORD` (JSON). CRS and transform are those of `labels`, where it has
        them.

        Args:
            path: The file, replaced atomically.
            labels: `(H, W)` class ids, 0 unlabelled.

        Raises:
            SplitError: `labels` has another shape, or an id above 65535.
            LabelError: `labels` are not class ids.
            OutputError: The file cannot be written.
        """
        ids = class_ids(labels)
        if ids.shape != self.train.shape:
            raise SplitError("labels and split differ in shape", found=ids.shape, expected=self.train.shape)
        if ids.max() > np.iinfo(np.uint16).max:
            raise SplitError(
                "a class id is too large for split.tif",
                file=path,
                found=int(ids.max()),
                expected=f"at most {np.iinfo(np.uint16).max}",
                remedy="Renumber the classes.",
            )
        roles = np.where(self.train, TRAINING, np.where(self.test, TEST, 0))
        bands = np.stack([roles, ids, self.training_side]).astype(np.uint16)
        with atomic_output(path) as temporary:
            temporary.write_bytes(_encode_geotiff(bands, self.record, _georeference(labels)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> tuple[Split, NDArray[np.int32]]:
        """Read what `save` wrote.

        Returns:
            The split and the `(H, W)` int32 class ids.

        Raises:
            SplitError: The file is missing, no GeoTIFF, or not a split.
        """
        expected = f"a GeoTIFF of three bands with a tag {_RECORD_TAG}, as training writes it"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(path) as file:
                    record, bands = json.loads(file.tags()[_RECORD_TAG]), file.read()
            roles, ids, side = bands
        except RasterioIOError as error:
            raise SplitError("cannot read the split", file=path, found=str(error), expected=expected) from error
        except (KeyError, ValueError) as error:
            raise SplitError("this file is not a split", file=path, expected=expected) from error
        return cls(roles == TRAINING, roles == TEST, side > 0, record), ids.astype(np.int32)


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
    ids, counts = _labelled_classes(labels)
    _check_patch(patch)
    _check_seed(seed)
    if (per_class is None) == (fraction is None):
        raise SplitError(
            "the number of training pixels is not clear",
            found=f"per_class={per_class}, fraction={fraction}",
            expected="exactly one of per_class and fraction",
        )
    _check_per_class(per_class, counts)
    if fraction is not None:
        _check_fraction(fraction, "fraction")
    train, notes = np.zeros(ids.shape, bool), []
    for class_id, count in counts.items():
        if per_class is not None:
            wanted = per_class if count >= 2 * per_class else max(count // 2, 1)
        else:
            wanted = min(max(round(count * float(fraction or 0)), 1), max(count - 1, 1))
        if count == 1 or (per_class is not None and wanted < per_class):
            notes.append(_few_labels_note(class_id, count, wanted))
        _draw(train, ids == class_id, wanted, seed, class_id)
    parameters = {"per_class": int(per_class)} if per_class is not None else {"fraction": float(fraction or 0)}
    test = (ids > 0) & ~train
    return _finish("random", parameters, seed, patch, (train, test, np.ones(ids.shape, bool)), ids, notes)


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
    _check_patch(patch)
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
    _refuse_overlap(on_train, on_test)
    notes: list[str] = []
    if labels is not None:
        ids, _ = _labelled_classes(labels)
        for mask, name in ((on_train, "training"), (on_test, "test")):
            if unlabelled := int((mask & (ids == 0)).sum()):
                notes.append(f"{unlabelled} pixels of the {name} mask have no label and are left out")
            mask &= ids > 0
    elif np.asarray(train).dtype == bool or np.asarray(test).dtype == bool:
        ids = None
    else:
        ids, _ = _labelled_classes(np.where(on_train, arrays["training mask"], arrays["test mask"]))
    return _finish("masks", {}, None, patch, (on_train, on_test, np.ones(on_train.shape, bool)), ids, notes)


def split_disjoint(
    labels: LabelImage,
    *,
    method: DisjointMethod = "blocks",
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
    - `regions`: 8-connected regions of one class (fields), assigned in the same way.
    - `columns`, `rows`: those before `boundary` train, the others test.

    A class that lies in a single block or region trains and is not tested; the record's notes say so.

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
        block_size: Pixels, for `blocks`. By default 16, less in a scene narrower than four such blocks, and at least
            four times the buffer, so that a lone test block keeps a quarter of its pixels.
        boundary: First column or row that tests; by default `train_fraction` of the width or height.
        train_fraction: Share of the labels (`blocks`, `regions`) or of the width (`columns`, `rows`) that trains,
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
    ids, counts = _labelled_classes(labels)
    _check_patch(patch)
    _check_seed(seed)
    _check_fraction(train_fraction, "train_fraction")
    _check_per_class(per_class, counts)
    _check_method(method, block_size, boundary)
    reach = _checked_whole_number(patch // 2 if buffer is None else buffer, "buffer", 0)
    parameters: dict[str, Any] = {"buffer": reach}
    if method in ("columns", "rows"):
        parameters["boundary"] = _checked_boundary(boundary, train_fraction, method, ids.shape)
        before = np.indices(ids.shape)[1 if method == "columns" else 0] < parameters["boundary"]
        areas, notes = (before, ~before), []
    else:
        parameters["train_fraction"] = float(train_fraction)
        if method == "blocks":
            parameters["block_size"] = _checked_block_size(block_size, reach, ids.shape)
            units = _blocks(ids, parameters["block_size"])
        else:
            units = _regions(ids, counts)
        areas, notes = _assign_areas(units, ids, counts, train_fraction, reach, seed, method)
    train, test = areas[0] & (ids > 0), _tested(areas, ids, reach)
    if dropped := int((areas[1] & (ids > 0) & ~test).sum()):
        notes.append(f"{dropped} test pixels within {reach} pixels of the training area are left out")
    if per_class is not None:
        parameters["per_class"] = int(per_class)
        train = _subsample(train, ids, counts, per_class, seed, notes)
    return _finish(method, parameters, seed, patch, (train, test, _training_side(areas, reach)), ids, notes)


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


def _labelled_classes(labels: LabelImage) -> tuple[NDArray[np.int64], dict[int, int]]:
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
            found=_counts_in_words(counts),
            expected="at least two classes",
            remedy="Label a second class, or give the class ids if these are masks.",
        )
    return ids, counts


def _check_patch(patch: int) -> None:
    if not _is_whole(patch) or patch < 1 or patch % 2 == 0:
        raise SplitError(
            "a patch has a pixel in its centre", found=f"patch={patch}", expected="an odd number, 1 or more"
        )


def _check_seed(seed: int) -> None:
    _checked_whole_number(seed, "seed", 0)


def _check_fraction(fraction: float, name: str) -> None:
    if not 0 < fraction < 1:
        raise SplitError("a share is out of range", found=f"{name}={fraction}", expected="more than 0 and less than 1")


def _check_per_class(per_class: int | None, counts: dict[int, int]) -> None:
    if per_class is None:
        return
    _checked_whole_number(per_class, "per_class", 1)
    if per_class >= max(counts.values()):
        raise SplitError(
            "no class has more labels than are to train",
            found=f"per_class={per_class} and {_counts_in_words(counts)}",
            expected="fewer training pixels than labels in at least one class",
            remedy="Ask for fewer training pixels a class.",
        )


def _check_method(method: str, block_size: int | None, boundary: int | None) -> None:
    if method not in get_args(DisjointMethod):
        raise SplitError("unknown method", found=method, expected=" or ".join(get_args(DisjointMethod)))
    if block_size is not None and method != "blocks":
        raise SplitError("block_size belongs to the method blocks", found=f"method={method}, block_size={block_size}")
    if boundary is not None and method not in ("columns", "rows"):
        raise SplitError("boundary belongs to columns and rows", found=f"method={method}, boundary={boundary}")


def _checked_whole_number(number: int, name: str, least: int) -> int:
    if not _is_whole(number) or number < least:
        raise SplitError(
            "a number is out of range", found=f"{name}={number}", expected=f"a whole number, {least} or more"
        )
    return int(number)


def _is_whole(number: Any) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


def _checked_boundary(boundary: int | None, train_fraction: float, method: str, shape: tuple[int, ...]) -> int:
    length = shape[1] if method == "columns" else shape[0]
    if boundary is None:
        return min(max(round(length * train_fraction), 1), max(length - 1, 1))
    if not _is_whole(boundary) or not 0 < boundary < length:
        raise SplitError(
            "the boundary leaves a side empty",
            found=f"boundary={boundary} in a scene of {length} {method}",
            expected=f"1 to {length - 1}",
        )
    return int(boundary)


def _checked_block_size(block_size: int | None, reach: int, shape: tuple[int, ...]) -> int:
    if block_size is not None:
        return _checked_whole_number(block_size, "block_size", 1)
    return max(4 * reach, min(_USUAL_BLOCK_SIZE, min(shape) // 4), 1)


def _refuse_overlap(train: Mask, test: Mask) -> None:
    if both := int((train & test).sum()):
        raise SplitError(
            "training and test pixels overlap",
            found=f"{both} pixels in both",
            expected="none",
            remedy="A pixel seen in training says nothing about unseen ones; take it out of one of the masks.",
        )


def _refuse_empty_side(train: Mask, test: Mask, remedy: str) -> None:
    for mask, side in ((train, "training"), (test, "test")):
        if not mask.any():
            raise SplitError(
                f"the {side} side holds no labelled pixel",
                expected="at least one pixel to train on and one to test",
                remedy=remedy,
            )


def _draw(mask: Mask, candidates: Mask, number: int, seed: int, class_id: int) -> None:
    """Mark `number` random candidates in `mask`; the draw depends on the seed, the class and its own pixels only."""
    positions = np.flatnonzero(candidates)
    generator = np.random.default_rng(np.random.SeedSequence([int(seed), class_id]))
    mask.flat[generator.permutation(positions)[:number]] = True


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
        _draw(train, candidates, per_class, seed, class_id)
    return train


def _blocks(ids: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Number of the block of each pixel, −1 in blocks without labels."""
    height, width = ids.shape
    row, column = np.arange(height) // size, np.arange(width) // size
    blocks = row[:, None] * (column[-1] + 1) + column[None, :]
    labelled = np.unique(blocks[ids > 0])
    renumbered = np.full(int(blocks.max()) + 1, -1, np.int64)
    renumbered[labelled] = np.arange(len(labelled))
    return renumbered[blocks]


def _regions(ids: NDArray[np.int64], classes: Iterable[int]) -> NDArray[np.int64]:
    """Number of the 8-connected region of one class at each pixel, −1 where unlabelled."""
    regions, total = np.full(ids.shape, -1, np.int64), 0
    for class_id in classes:
        numbered, number = ndimage.label(ids == class_id, structure=np.ones((3, 3), int))  # pyright: ignore[reportGeneralTypeIssues]
        regions[numbered > 0] = numbered[numbered > 0] - 1 + total
        total += number
    return regions


def _assign_areas(
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
            remedy="Choose smaller blocks." if method == "blocks" else "Choose the method blocks, columns or rows.",
        )
    # 0 is no class id, so these numbers are apart from every class's own.
    generator = np.random.default_rng(np.random.SeedSequence([int(seed), 0]))
    best, best_quality = None, (-1, 0.0)
    for _ in range(_ASSIGNMENT_TRIALS):
        on_train = np.append(_assign_units(pixels_per_unit, train_fraction, generator), False)
        areas = on_train[units], ~on_train[units] & (units >= 0)
        share = on_train[:-1] @ pixels_per_unit / pixels_per_unit.sum(axis=0)
        tested = np.isin(class_list, ids[_tested(areas, ids, reach)])
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


def _tested(areas: tuple[Mask, Mask], ids: NDArray[np.int64], reach: int) -> Mask:
    """Labelled pixels of the test area beyond the training area's buffer."""
    train_area, test_area = areas
    return test_area & (ids > 0) & ~_within(train_area, reach)


def _training_side(areas: tuple[Mask, Mask], reach: int) -> Mask:
    """The training area and what lies nearer to it than to the test area, beyond the test area's buffer."""
    train_area, test_area = areas
    between = ~train_area & ~test_area
    if not (between.any() and train_area.any() and test_area.any()):
        return train_area
    to_train, to_test = (np.asarray(ndimage.distance_transform_edt(~area)) for area in areas)
    return train_area | (between & (to_train < to_test) & ~_within(test_area, reach))


def _within(mask: Mask, reach: int) -> Mask:
    """Pixels whose square of 2 · `reach` + 1 pixels holds a pixel of `mask`."""
    size = 2 * min(reach, max(mask.shape)) + 1
    return ndimage.maximum_filter(mask.view(np.uint8), size=size, mode="constant", cval=0).view(bool)


def _finish(
    method: str,
    parameters: dict[str, Any],
    seed: int | None,
    patch: int,
    masks: tuple[Mask, Mask, Mask],
    ids: NDArray[np.int64] | None,
    notes: list[str],
) -> Split:
    train, test, training_side = masks
    remedy = _remedy(parameters)
    _refuse_empty_side(train, test, remedy)
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
        "distance": _distances(train, test),
        "leaks": _count_leaks(train, test, patch),
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


def _distances(train: Mask, test: Mask) -> dict[str, Any]:
    """Euclidean distances from test pixels to their nearest training pixel."""
    distance = np.asarray(ndimage.distance_transform_edt(~train))[test]
    histogram, _ = np.histogram(distance, bins=[*_DISTANCE_EDGES, math.inf])
    return {
        "unit": "pixels",
        "minimum": float(distance.min()),
        "median": float(np.median(distance)),
        "bin_edges": [*_DISTANCE_EDGES, None],
        "histogram": histogram.tolist(),
    }


def _count_leaks(train: Mask, test: Mask, patch: int) -> dict[str, Any]:
    near_training = int((test & _within(train, patch // 2)).sum())
    near_test = int((train & _within(test, patch // 2)).sum())
    share = near_training / int(test.sum())
    return {"test_near_training": near_training, "training_near_test": near_test, "share_of_test": share}


def _counts_in_words(counts: dict[int, int]) -> str:
    return "labels " + ", ".join(f"class {class_id}: {count}" for class_id, count in counts.items())


def _few_labels_note(class_id: int, count: int, train: int) -> str:
    labels = "1 label" if count == 1 else f"{count} labels"
    return f"class {class_id} has {labels}: {train} for training, {count - train or 'none'} for testing"


def _method_in_words(record: dict[str, Any]) -> str:
    parameters = record["parameters"]
    words = {
        "random": lambda: (
            f"{parameters['per_class']} random pixels of each class"
            if "per_class" in parameters
            else f"{parameters['fraction']:.3g} of each class, at random"
        ),
        "masks": lambda: "fixed masks",
        "blocks": lambda: f"spatially disjoint blocks of {parameters['block_size']} pixels",
        "regions": lambda: "spatially disjoint, each region of a class on one side",
        "columns": lambda: f"spatially disjoint, columns before {parameters['boundary']} train, the others test",
        "rows": lambda: f"spatially disjoint, rows before {parameters['boundary']} train, the others test",
    }
    method = words[record["method"]]() if record["method"] in words else record["method"]
    if "buffer" in parameters:
        method += f", buffer {parameters['buffer']} pixels"
        method += f", {parameters['per_class']} training pixels of each class" if "per_class" in parameters else ""
    return method


def _remedy(parameters: dict[str, Any]) -> str:
    if "buffer" not in parameters:
        return "Label more pixels, or divide them in another way."
    lower = "Lower the buffer or the patch, or choose" if parameters["buffer"] else "Choose"
    return f"{lower} another method, block size, boundary or train_fraction."


def _georeference(labels: LabelImage) -> dict[str, Any]:
    if not isinstance(labels, xr.DataArray) or not {"y", "x"} <= set(labels.dims):
        return {}
    georeference = {"crs": labels.rio.crs, "transform": labels.rio.transform()}
    if georeference["transform"].is_identity:
        del georeference["transform"]
    return {key: value for key, value in georeference.items() if value is not None}


def _encode_geotiff(bands: NDArray[np.uint16], record: dict[str, Any], georeference: dict[str, Any]) -> bytes:
    count, height, width = bands.shape
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(
            driver="GTiff", count=count, height=height, width=width, dtype="uint16", compress="deflate", **georeference
        ) as file:
            file.write(bands)
            file.update_tags(**{_RECORD_TAG: json.dumps(record, allow_nan=False)})
            for band, description in enumerate(_BAND_DESCRIPTIONS, start=1):
                file.set_band_description(band, description)
        return bytes(memory.getbuffer())
