from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_example import HOSTILE, make_seeds
from report_reader import read

from spectralmamba.errors import OutputError
from spectralmamba.report import write_report, write_summary_report


@pytest.fixture
def seeds_folder(tmp_path: Path) -> Path:
    return make_seeds(tmp_path / "seeds", (0, 3))


def test_the_summary_shows_scores_seeds_recalls_and_leaks(seeds_folder: Path) -> None:
    page = read(write_summary_report(seeds_folder))
    assert page.headings == ["Scores", "Seeds", "Recall of the classes", "How to cite"]
    assert "seed 3" in page.text
    assert "random" in page.text
    assert "have a training pixel inside their neighbourhood" in page.text
    assert HOSTILE in page.text
    assert "n/a" in page.text
    assert "script" not in page.tags


def test_the_summary_links_to_the_reports_that_exist(seeds_folder: Path) -> None:
    write_report(seeds_folder / "seed-3")
    page = read(write_summary_report(seeds_folder))
    links = [value for tag, name, value in page.attributes if tag == "a" and name == "href"]
    assert "seed-3/report.html" in links
    assert "seed-0/report.html" not in links


def test_a_seed_without_scores_is_said(seeds_folder: Path) -> None:
    (seeds_folder / "seed-0" / "scores.json").unlink()
    assert "Only 1 of 2 seeds say" in read(write_summary_report(seeds_folder)).text


def test_splits_without_leaks_are_called_clean(seeds_folder: Path) -> None:
    for path in seeds_folder.glob("seed-*/scores.json"):
        scores = json.loads(path.read_text())
        scores["split"]["leaks"] = {"test_near_training": 0, "training_near_test": 0, "share_of_test": 0.0}
        path.write_text(json.dumps(scores))
    assert "the splits are clean" in read(write_summary_report(seeds_folder)).text


def test_a_missing_summary_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"summary\.json.*spectralmamba run"):
        write_summary_report(tmp_path)


def test_the_same_seeds_give_the_same_bytes(seeds_folder: Path) -> None:
    assert write_summary_report(seeds_folder).read_bytes() == write_summary_report(seeds_folder).read_bytes()
