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


SETS = {
    "coverage": 0.9,
    "threshold": 0.0125,
    "labels": 100,
    "left_out": "labels at random",
    "of_test": {"held": 0.9123, "interval": [0.89, 0.93], "mean_size": 1.24},
    "of_map": {"share_empty": 0.05, "share_single": 0.75},
}


def test_sets_are_said_with_what_was_measured_and_what_they_are_meant_for() -> None:
    assert words.prediction_sets(SETS).replace("\u202f", " ") == (
        "90 % prediction sets hold the reference class of 91.2 % of the test pixels (89.0 to 93.0 %) and 1.2 classes on average. "
        "On the map 75 % of the prediction sets hold exactly one class, 20 % several, 5 % none: no class is probable enough. "
        "They hold the classes of a probability of 0.013 or more by label propagation, a threshold from 100 training labels left "
        "out in turn, at random. "
        "The 90 % are meant for pixels like the labelled ones, all classes together; not for each class, for areas apart, for "
        "other scenes or for classes without labels."
    )


def test_sets_calibrated_apart_are_meant_for_the_labelled_areas() -> None:
    said = words.prediction_sets(SETS | {"left_out": "neighbouring labels together"})
    assert "left out in turn, neighbours together" in said
    assert "like those of the labelled areas" in said
    assert "areas apart" not in said


@pytest.mark.parametrize(
    ("interval", "labels", "said"),
    [
        ([0.98, 0.99], 100, "99.0\u202f%, more than meant)"),
        ([0.80, 0.82], 100, "82.0\u202f%, fewer than meant)"),
        ([0.955, 0.97], 100, "97.0\u202f%)"),  # two standard deviations of 100 labels are 6 points
        ([0.83, 0.845], 100, "84.5\u202f%)"),
        ([0.83, 0.845], 1000, "84.5\u202f%, fewer than meant)"),  # 1.9 points
        ([0.955, 0.97], 1000, "97.0\u202f%, more than meant)"),
        ([0.98, 0.99], 5, "99.0\u202f%)"),
    ],
    ids=str,
)
def test_sets_are_judged_only_beyond_what_so_few_labels_leave_to_chance(
    interval: list[float], labels: int, said: str
) -> None:
    of_test = {"held": sum(interval) / 2, "interval": interval, "mean_size": 1}
    assert f" to {said} and 1.0 classes" in words.prediction_sets(SETS | {"of_test": of_test, "labels": labels})


@pytest.mark.parametrize(
    ("empty", "single", "said"),
    [
        (0, 1, "exactly one class."),
        (0.9, 0.1, "exactly one class, 90\u202f% none: no class is probable enough."),
        (0, 0.9999, "exactly one class, < 1\u202f% several."),
        (0, 0, "On the map 0\u202f% of the prediction sets hold exactly one class, 100\u202f% several."),
    ],
)
def test_only_sizes_that_sets_have_are_named(empty: float, single: float, said: str) -> None:
    assert said in words.prediction_sets(SETS | {"of_map": {"share_empty": empty, "share_single": single}})


def test_sets_of_a_map_without_scored_pixels_are_said_without_them() -> None:
    said = words.prediction_sets(SETS | {"of_test": None})
    assert said.startswith("On the map 75\u202f% of the prediction sets")
    assert "test pixels" not in said


def test_sets_that_hold_every_class_are_said_to() -> None:
    said = words.prediction_sets(SETS | {"threshold": 0, "labels": 5})
    assert (
        "no threshold keeps the classes of 90\u202f% of 5 labels left out in turn, so each set holds every class."
        in said
    )
    assert "or more by label propagation" not in said


@pytest.mark.parametrize(
    "changes",
    [
        {"coverage": None},
        {"coverage": float("nan")},
        {"threshold": None},
        {"of_test": None, "of_map": None},
        {"of_test": {"held": 0.9}, "of_map": {"share_empty": 0.1}},
    ],
    ids=str,
)
def test_of_sets_that_were_not_measured_nothing_is_said(changes: dict) -> None:
    assert words.prediction_sets(SETS | changes) == ""
    assert words.prediction_sets({}) == ""


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


@pytest.mark.parametrize(
    ("step", "said"),
    [(2, "every second"), (9, "every ninth"), (11, "every 11th"), (22, "every 22nd"), (101, "every 101st")],
)
def test_every_nth_is_said_in_words(step: int, said: str) -> None:
    assert words.every(step) == said
