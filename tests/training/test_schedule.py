from __future__ import annotations

import numpy as np
import pytest

from spectralmamba.settings import Settings
from spectralmamba.training import one_cycle
from spectralmamba.training.schedule import Batches

RARE_CLASSES = ["as drawn", "balanced batches", "balanced loss", "logit adjustment", "prior correction"]
SCARCE = np.repeat([1, 0, 2], [40, 1, 52])  # one pixel of the first class among dozens


def batches(targets: np.ndarray, **settings: object) -> Batches:
    return Batches(targets, Settings().replace(**settings))


@pytest.mark.parametrize("rare_classes", RARE_CLASSES)
def test_classes_are_drawn_evenly_only_if_asked(rare_classes: str):
    drawn = batches(SCARCE, batch_size=60, rare_classes=rare_classes).take(0, 10)
    share = np.bincount(SCARCE[drawn].flatten(), minlength=3) / 600
    balanced = rare_classes == "balanced batches"
    expected = np.full(3, 1 / 3) if balanced else np.bincount(SCARCE) / len(SCARCE)
    # 600 draws of a third: five standard errors are 0.1. Whole shuffles are exact but for the last one.
    np.testing.assert_allclose(share, expected, atol=0.1 if balanced else 0.03)


def test_every_training_pixel_is_drawn_once_before_any_is_drawn_again():
    drawn = batches(np.arange(12) % 3, batch_size=5).take(0, 12)  # 60 draws of 12 pixels
    assert (np.sort(drawn.reshape(5, 12), axis=1) == np.arange(12)).all()


def test_every_pixel_of_a_class_is_drawn_as_often_as_another_of_it():
    targets = np.array([2, 0, 1, 0, 2, 2])
    share = np.bincount(batches(targets, batch_size=60, rare_classes="balanced batches").take(0, 100).flatten()) / 6000
    # 6000 draws: five standard errors of a share of a third are 0.03.
    np.testing.assert_allclose(share, 1 / 3 / np.bincount(targets)[targets], atol=0.03)


@pytest.mark.parametrize("rare_classes", RARE_CLASSES)
@pytest.mark.parametrize("size", [1, 5, 8, 200])
def test_steps_taken_one_at_a_time_or_in_blocks_have_the_same_batches(rare_classes: str, size: int):
    drawn = batches(SCARCE, batch_size=size, rare_classes=rare_classes)
    whole = drawn.take(0, 60)
    assert whole.shape == (60, size)
    for blocks in ([1] * 60, [7, 1, 50, 2], [30, 30]):
        firsts = np.cumsum(blocks) - blocks
        parts = [drawn.take(int(first), count) for first, count in zip(firsts, blocks, strict=True)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(drawn.take(59, 1), whole[59:])  # none before it taken


@pytest.mark.parametrize("rare_classes", RARE_CLASSES)
def test_batches_follow_from_the_seed(rare_classes: str):
    first, again, other = (
        batches(SCARCE, batch_size=8, rare_classes=rare_classes, seed=seed).take(0, 5) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_rate_rises_for_three_tenths_of_the_steps_and_falls_to_almost_nothing():
    rates = [one_cycle(step, 100, 0.5) for step in range(101)]
    assert rates[0] == pytest.approx(0.5 / 25)
    assert rates[30] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.5e-4 / 25)
    assert np.all(np.diff(rates[:31]) > 0)
    assert np.all(np.diff(rates[30:]) < 0)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_trainings_have_a_rate(steps: int):
    assert all(0 < one_cycle(step, steps, 0.5) <= 0.5 for step in range(steps))
