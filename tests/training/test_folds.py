"""Which training pixels are left out together, and what is left to learn from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from training_example import Data, task_of

from spectralmamba import Settings, split_disjoint
from spectralmamba.training.folds import FOLDS, divide, leave_out
from spectralmamba.training.task import Task

NEAR = 8  # pixels
PLAIN = Settings(normalisation="standard", patch=1)


def task_with(
    places: dict[int, list[tuple[int, int]]], shape: tuple[int, int] = (64, 64), *, apart: bool = True
) -> Task:
    """A task whose labels of each class lie at these rows and columns of a scene of noise."""
    spectra = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    ids = np.zeros(shape, np.int64)
    for class_id, of_class in places.items():
        rows, columns = np.transpose(of_class)
        ids[rows, columns] = class_id
    task = task_of(xr.DataArray(spectra, dims=("band", "y", "x")), xr.DataArray(ids, dims=("y", "x")), PLAIN)
    return dataclasses.replace(task, apart=apart)


def fold_at(task: Task, seed: int = 0) -> dict[tuple[int, int], int]:
    """The fold of each training pixel, by row and column."""
    pixels, folds = task.normalised.pixels, divide(task, np.random.default_rng(seed))
    rows, columns = (places[task.positions].tolist() for places in (pixels.rows, pixels.columns))
    return dict(zip(zip(rows, columns, strict=True), folds.tolist(), strict=True))


def in_rectangle(top: int, left: int, height: int, width: int, step: int = 1) -> list[tuple[int, int]]:
    return [(row, column) for row in range(top, top + height, step) for column in range(left, left + width, step)]


FAR = {2: [(60, 0), (60, 60)]}  # two labels of another class, far from each other


# Drawn at random ---------------------------------------------------------------------------------


def test_labels_drawn_at_random_are_left_out_one_by_one_however_near_they_are():
    folds = fold_at(task_with({1: in_rectangle(0, 0, 1, FOLDS)} | FAR, apart=False))
    assert sorted(folds[0, column] for column in range(FOLDS)) == list(range(FOLDS))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("counts", [[2, 2, 2], [5, 7, 23], [4, 3, 2, 2], [30, 2]], ids=str)
def test_labels_drawn_at_random_are_spread_evenly_over_the_folds_in_each_class_and_in_all(counts: list[int], seed: int):
    places = {number: in_rectangle(number, 0, 1, count) for number, count in enumerate(counts, start=1)}
    folds = divide(task := task_with(places, apart=False), np.random.default_rng(seed))
    assert folds.min() >= 0
    for of_some in [folds, *(folds[task.targets.numpy() == target] for target in range(len(counts)))]:
        assert np.ptp(np.bincount(of_some, minlength=FOLDS)) <= 1


def test_the_only_label_of_a_class_is_never_left_out_and_leaves_no_gap_among_the_others():
    folds = divide(task := task_with({1: [(0, 0)], 2: in_rectangle(5, 0, 1, 5), 3: [(9, 9)]}, apart=False), _random())
    single = np.isin(task.targets.numpy(), [0, 2])
    assert (folds[single] == -1).all()
    assert sorted(folds[~single]) == list(range(FOLDS))


def test_no_class_is_left_out_entirely():
    counts = {1: 2, 2: 3, 3: 11}
    for apart in (False, True):
        places = {
            number: in_rectangle(20 * (number - 1), 0, 1, 20 * count, step=20) for number, count in counts.items()
        }
        task = task_with(places, shape=(64, 240), apart=apart)
        folds = divide(task, _random())
        for fold in range(FOLDS):
            assert set(leave_out(task, folds == fold).targets.tolist()) == {0, 1, 2}


def test_the_random_numbers_decide_who_is_left_out_with_whom():
    task = task_with({1: in_rectangle(0, 0, 4, 5), 2: in_rectangle(20, 0, 4, 5)}, apart=False)
    assert fold_at(task, seed=1) == fold_at(task, seed=1)
    assert fold_at(task, seed=1) != fold_at(task, seed=2)


@pytest.mark.parametrize(("how", "apart"), [("random", False), ("disjoint", True), ("no split", True)])
def test_labels_are_drawn_among_the_others_only_by_a_random_split(data: Data, how: str, apart: bool):
    scene, labels, split = data
    split = {"random": split, "disjoint": split_disjoint(labels, block_size=4), "no split": None}[how]
    assert task_of(scene[:4], labels, PLAIN, split).apart == apart


# Apart in space ----------------------------------------------------------------------------------


# Between 8 and 10 pixels is left open: whether a group reaches a pixel farther does not matter to anyone.
@pytest.mark.parametrize(
    ("step", "together"),
    [((0, 1), True), ((0, NEAR), True), ((NEAR, 0), True), ((NEAR, NEAR), True), ((NEAR, -NEAR), True),
     ((0, NEAR + 1), False), ((NEAR + 1, 0), False), ((NEAR + 1, NEAR + 1), False), ((NEAR + 1, -NEAR - 2), False)],
    ids=str,
)  # fmt: skip
def test_labels_of_a_class_within_8_pixels_are_left_out_together(step: tuple[int, int], together: bool):
    first, third = (20, 20), (20, 60)
    second = (first[0] + step[0], first[1] + step[1])
    folds = fold_at(task_with({1: [first, second, third]} | FAR))
    assert (folds[first] == folds[second]) == together
    assert folds[third] not in (folds[first], folds[second], -1)


def test_labels_of_a_class_that_others_lead_to_are_left_out_together():
    chain = [(10, 0), (10, 8), (16, 14), (16, 22)]
    folds = fold_at(task_with({1: [*chain, (50, 50)]} | FAR))
    assert len({folds[place] for place in chain}) == 1
    assert folds[50, 50] != folds[chain[0]]


def test_labels_of_another_class_lead_nowhere():
    folds = fold_at(task_with({1: [(10, 0), (10, 14)], 2: [(10, 7), (40, 40)]}))
    assert folds[10, 0] != folds[10, 14]


@pytest.mark.parametrize(("height", "width"), [(31, 31), (31, 8), (8, 31), (1, 31)])
def test_a_field_narrower_than_32_pixels_is_one_group_and_as_the_only_one_never_left_out(height: int, width: int):
    folds = fold_at(task_with({1: in_rectangle(0, 0, height, width)} | FAR))
    assert {fold for (row, _), fold in folds.items() if row < 40} == {-1}


@pytest.mark.parametrize("offset", [(0, 0), (5, 3)])
@pytest.mark.parametrize(("height", "width"), [(48, 48), (8, 48), (48, 8), (33, 33)])
def test_a_wide_field_is_left_out_in_blocks_of_16_pixels(height: int, width: int, offset: tuple[int, int]):
    top, left = offset
    task = task_with({1: in_rectangle(top, left, height, width), 2: [(63, 0), (63, 60)]})
    folds = fold_at(task)
    blocks: dict[tuple[int, int], set[int]] = {}
    for (row, column), fold in folds.items():
        if row < 60:
            blocks.setdefault(((row - top) // 16, (column - left) // 16), set()).add(fold)
    assert len(blocks) == -(-height // 16) * -(-width // 16)
    assert all(len(found) == 1 for found in blocks.values())
    in_fold = np.bincount([found.pop() for found in blocks.values()], minlength=FOLDS)
    assert np.ptp(in_fold) <= 1


def test_a_small_field_beside_a_wide_one_is_left_whole():
    """Although the blocks of the wide one would divide it."""
    small = in_rectangle(12, 50, 8, 8)
    folds = fold_at(task_with({1: [*in_rectangle(0, 0, 40, 36), *small]} | FAR))
    assert len({folds[place] for place in small}) == 1


def test_the_only_field_of_a_class_is_never_left_out_where_tests_are_apart():
    folds = fold_at(task_with({1: in_rectangle(0, 0, 5, 5)} | FAR))
    assert {folds[place] for place in in_rectangle(0, 0, 5, 5)} == {-1}
    assert folds[60, 0] != folds[60, 60]
    assert min(folds[60, 0], folds[60, 60]) >= 0


# What is left ------------------------------------------------------------------------------------


def of_places(task: Task, positions: torch.Tensor) -> set[tuple[int, int]]:
    pixels = task.normalised.pixels
    return set(zip(pixels.rows[positions].tolist(), pixels.columns[positions].tolist(), strict=True))


PLACES = {1: [(20, 20), (40, 40)], 2: [(20, 25), (60, 3)]}


def at(task: Task, *places: tuple[int, int]) -> np.ndarray:
    pixels = task.normalised.pixels
    found = zip(pixels.rows[task.positions].tolist(), pixels.columns[task.positions].tolist(), strict=True)
    return np.array([place in places for place in found])


@pytest.mark.parametrize("apart", [False, True])
def test_what_is_left_out_is_no_training_pixel_any_more_and_the_others_keep_their_class(apart: bool):
    task = task_with(PLACES, apart=apart)
    fewer = leave_out(task, at(task, (20, 20)))
    assert of_places(fewer, fewer.positions) == {(20, 25), (40, 40), (60, 3)}
    assert of_places(fewer, fewer.positions[fewer.targets == 0]) == {(40, 40)}
    assert of_places(task, task.positions) == {(20, 20), (20, 25), (40, 40), (60, 3)}


def test_where_tests_are_apart_pixels_within_8_of_what_is_left_out_are_not_looked_at_but_for_kept_labels():
    task = task_with(PLACES)
    gone = of_places(task, task.training_side) - of_places(
        fewer := leave_out(task, at(task, (20, 20))), fewer.training_side
    )
    near = {(row, column) for row in range(12, 29) for column in range(12, 29)}
    assert gone == near - {(20, 25)}  # of another class


def test_at_the_scenes_border_as_much_is_left_out():
    task = task_with({1: [(0, 0), (40, 40)], 2: [(63, 63), (63, 0)]})
    gone = of_places(task, task.training_side) - of_places(
        fewer := leave_out(task, at(task, (0, 0))), fewer.training_side
    )
    assert gone == set(in_rectangle(0, 0, NEAR + 1, NEAR + 1))


def test_of_labels_drawn_at_random_the_pixels_left_out_and_their_neighbours_are_still_looked_at():
    task = task_with(PLACES, apart=False)
    fewer = leave_out(task, at(task, (20, 20)))
    assert torch.equal(fewer.training_side, task.training_side)
    assert of_places(fewer, fewer.unlabelled) == of_places(task, task.unlabelled) | {(20, 20)}


def test_leaving_out_looks_at_no_more_than_the_training_side_and_no_nodata(halved: Data):
    scene, labels, split = halved
    good = scene[scene["good"].values]
    task = dataclasses.replace(task_of(good, labels, PLAIN, split), apart=True)
    left_out = np.arange(len(task.positions)) == 0
    fewer = leave_out(task, left_out)
    assert of_places(fewer, fewer.training_side) < of_places(task, task.training_side)
    assert of_places(fewer, fewer.positions) <= of_places(fewer, fewer.training_side)


def test_nothing_left_out_leaves_the_task_as_it_was():
    task = task_with(PLACES)
    same = leave_out(task, np.zeros(4, bool))
    for name in ("positions", "targets", "training_side"):
        assert torch.equal(getattr(same, name), getattr(task, name))


def _random() -> np.random.Generator:
    return np.random.default_rng(0)
