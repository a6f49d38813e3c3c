"""The linear discriminant of spectra: which class is likelier, and that no training set is too small for it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from spectralmamba.training.discriminant import discriminant_probabilities


def two_clouds(counts: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw spectra of five bands of two classes, 4 standard deviations apart in the first."""
    random = np.random.default_rng(seed)
    spectra, targets = random.normal(size=(sum(counts), 5)), np.repeat([0, 1], counts)
    spectra[:, 0] += 4 * targets - 2
    return spectra, targets


def test_the_discriminant_tells_two_clouds_apart():
    spectra, targets = two_clouds((30, 30))
    others, expected = two_clouds((200, 200), seed=1)
    found = discriminant_probabilities(spectra, targets, others, 2)
    assert found.shape == (400, 2)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)  # rounding of float64
    assert (found.argmax(1) == expected).mean() > 0.95  # 97.7 % at best, two standard deviations from the middle


def test_the_discriminant_does_not_take_a_frequent_class_for_a_likely_one():
    found = discriminant_probabilities(*two_clouds((2000, 50)), np.zeros((1, 5)), 2)
    # Means of 50 spectra are off by 0.14, which makes some 0.07 halfway; shares of 40 : 1 would make it 0.98.
    assert found[0, 0] == pytest.approx(0.5, abs=0.2)


def test_the_discriminant_of_nothing_is_nothing():
    assert discriminant_probabilities(*two_clouds((3, 3)), np.zeros((0, 5)), 2).shape == (0, 2)


@pytest.mark.parametrize("counts", [(1, 1), (1, 40), (2, 1)])
def test_the_discriminant_of_single_spectra_gives_probabilities(counts: tuple[int, int]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = discriminant_probabilities(*two_clouds(counts), two_clouds((5, 5))[0], 2)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("columns", [[0], [1, 3], [0, 1, 2, 3, 4]], ids=str)
def test_constant_columns_leave_the_discriminant_probabilities(columns: list[int]):
    spectra, targets = two_clouds((20, 20))
    others, _ = two_clouds((20, 20), seed=1)
    spectra[:, columns] = others[:, columns] = 0.25
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = discriminant_probabilities(spectra, targets, others, 2)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    if 0 not in columns:
        assert (found.argmax(1) == targets).mean() > 0.9


def test_more_columns_than_spectra_are_no_problem_for_the_discriminant():
    random = np.random.default_rng(0)
    centres = random.normal(size=(3, 100))
    spectra = np.repeat(centres, 3, 0) + 0.3 * random.normal(size=(9, 100))
    others = np.repeat(centres, 20, 0) + 0.3 * random.normal(size=(60, 100))
    found = discriminant_probabilities(spectra, np.repeat([0, 1, 2], 3), others, 3)
    assert (found.argmax(1) == np.repeat([0, 1, 2], 20)).all()  # centres lie 14 apart, 47 standard deviations
