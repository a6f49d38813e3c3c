from __future__ import annotations

import pytest

from spectralmamba.report import words


def leaks(near: int, test: int = 1000) -> dict:
    return {"test_near_training": near, "training_near_test": near, "share_of_test": near / test}


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "n/a"),
        (1, "100.00\u202f%"),
        (0.99999, "> 99.99\u202f%"),
        (0.00001, "< 0.01\u202f%"),
        (0.12345, "12.35\u202f%"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float | None, text: str) -> None:
    assert words.percent(share) == text


def test_a_leaking_split_is_said_to_flatter() -> None:
    record = {"method": "random", "patch": 3, "test_pixels": 1000, "leaks": leaks(120), "distance": {}}
    sentence = words.independence(record)
    assert "12.0\u202f% of the test pixels (120 of 1\u202f000)" in sentence
    assert "flatter" in sentence


def test_a_disjoint_split_without_leaks_is_said_to_be_clean() -> None:
    distance = {"unit": "pixels", "minimum": 5.0, "median": 21.3}
    record = {"method": "disjoint", "patch": 7, "test_pixels": 1000, "leaks": leaks(0), "distance": distance}
    sentence = words.independence(record)
    assert "clean" in sentence
    assert "flatter" not in sentence
    assert "5\u202fpixels away" in sentence
    assert "fewer than 7 pixels apart" in sentence


def test_a_random_split_without_leaks_is_still_said_to_be_easy() -> None:
    record = {"method": "random", "patch": 3, "test_pixels": 1000, "leaks": leaks(0)}
    assert "easier than a new area" in words.independence(record)


def test_a_record_without_leaks_is_not_called_clean() -> None:
    assert "clean" not in words.independence({"method": "given"})


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"level": 0.99},
        {"share_of_test": 0.1},
        {"level": None, "share_of_test": 0.1},
        {"level": 0.99, "share_of_test": None},
        {"level": 0.99, "share_of_test": float("nan")},
        {"level": 0.99, "share_of_test": "many"},
    ],
    ids=str,
)
def test_of_novelty_that_was_not_measured_nothing_is_said(found: dict) -> None:
    assert words.novelty(found) == ""


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0.0\u202f%"),
        (0.0, "0.0\u202f%"),
        (0.0001, "< 0.1\u202f%"),
        (0.25, "25.0\u202f%"),
        (0.9999, "> 99.9\u202f%"),
        (1.0, "100.0\u202f%"),
        (1, "100.0\u202f%"),
    ],
)
def test_novelty_says_how_many_test_pixels_are_unlike_and_how_many_would_be(share: float, text: str) -> None:
    assert words.novelty({"level": 0.99, "share_of_test": share}) == (
        f"{text} of the test pixels are less like any class than 99\u202f% of the training side's pixels; "
        "1\u202f% would be if they were alike."
    )


def test_nested_settings_become_dotted_names_and_long_lists_are_cut() -> None:
    facts = dict(words.facts({"training": {"epochs": 3, "rate": 1e-3}, "bands": list(range(100)), "on": True}))
    assert facts["training.epochs"] == "3"
    assert facts["training.rate"] == "0.001"
    assert facts["bands"].endswith("… (100 values)")
    assert facts["on"] == "true"


def test_time_and_memory_are_in_units_a_person_would_use() -> None:
    assert words.duration(3725) == "1\u202fh 2\u202fmin"
    assert words.duration(83.4) == "1\u202fmin 23\u202fs"
    assert words.memory(3 * 2**30) == "3.00\u202fGiB"
