from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_reader import read

from spectralmamba.report import write_report
from spectralmamba.report.folder import RunFolder, read_run
from spectralmamba.report.networks import trained_networks

RECORD = {"rounds": 2, "teacher_patches": [3, 7]}
SETTINGS = {"steps": 100, "self_training_rounds": 2}
WIDE, NARROW = "teacher 7\u202f×\u202f7", "teacher 3\u202f×\u202f3"
SENTENCE = "each starts anew, and only the last is kept"


def run_of(last_step: int, card: dict[str, Any] | None, settings: dict[str, Any] = SETTINGS) -> RunFolder:
    log = [{"step": step, "loss": 1.0} for step in range(2, last_step + 1)]
    return RunFolder(Path("run"), {}, settings, {}, (1, 1), log=log, card=card)


def found(run: RunFolder) -> list[tuple[int, str]]:
    return [(network.start, network.name) for network in trained_networks(run)]


FIVE = [(0, WIDE), (100, NARROW), (200, WIDE), (300, NARROW), (400, "classifier")]
NAMELESS = [(start, name.split()[0]) for start, name in FIVE]


def test_teachers_of_each_round_come_the_widest_first_and_the_classifier_last() -> None:
    assert found(run_of(500, {"self_training": RECORD})) == FIVE


def test_lines_lost_at_the_end_of_the_log_change_nothing() -> None:
    assert found(run_of(402, {"self_training": RECORD})) == FIVE


@pytest.mark.parametrize("card", [None, {}, {"self_training": None}])
def test_without_a_record_the_teachers_have_no_width(card: dict | None) -> None:
    assert found(run_of(500, card)) == NAMELESS


@pytest.mark.parametrize("card", [None, {"self_training": {"rounds": 0, "teacher_patches": []}}])
def test_one_network_alone_is_none_to_tell_of(card: dict | None) -> None:
    assert found(run_of(100, card)) == []


@pytest.mark.parametrize(
    "record",
    [
        {"rounds": 1, "teacher_patches": [3, 7]},
        {"rounds": 2, "teacher_patches": [7]},
        {"rounds": 2, "teacher_patches": []},
        {"rounds": "2", "teacher_patches": [3, 7]},
        {"rounds": 2, "teacher_patches": "37"},
        {"rounds": 2},
        {"rounds": 2, "teacher_patches": [3, None]},
    ],
)
def test_a_record_that_the_log_contradicts_or_that_is_damaged_marks_nothing(record: dict) -> None:
    assert found(run_of(500, {"self_training": record})) == []


@pytest.mark.parametrize(
    "settings", [{}, {"steps": 100}, {"steps": 0}, {"steps": "100"}, {"steps": 100, "self_training_rounds": 1}]
)
def test_settings_that_do_not_explain_the_log_mark_nothing(settings: dict) -> None:
    assert found(run_of(500, None, settings)) == []


def test_a_folder_without_log_has_no_networks() -> None:
    assert found(RunFolder(Path("run"), {}, SETTINGS, {}, (1, 1))) == []


def teach(folder: Path) -> None:
    """Make the training of a folder, whose log ends with step 1990, one of five networks."""
    (folder / "settings.toml").write_text("steps = 400\nself_training_rounds = 2\n")
    header = json.dumps({"__metadata__": {"card": json.dumps({"self_training": RECORD})}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def test_the_page_names_the_networks_on_both_curves_and_says_why(run_folder: Path) -> None:
    teach(run_folder)
    page = read(write_report(run_folder))
    names = [text for text in page.texts if text in (WIDE, NARROW, "classifier")]
    assert names == [WIDE, NARROW, WIDE, NARROW, "classifier"] * 2
    assert [value for tag, name, value in page.attributes if (tag, name) == ("line", "class")].count("begin") == 2 * 4
    assert f"5 networks, 4 teachers and then the classifier: {SENTENCE}" in page.text


def test_the_page_of_one_network_says_nothing_of_it(run_folder: Path) -> None:
    assert trained_networks(read_run(run_folder)) == []  # its settings are of before self-training
    page = read(write_report(run_folder))
    assert SENTENCE not in page.text
    assert "begin" not in [value for _, name, value in page.attributes if name == "class"]
    assert not [value for _, name, value in page.attributes if name == "class" and "named" in value]
