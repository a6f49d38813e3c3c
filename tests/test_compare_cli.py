"""`compare` and `areas` as a user meets them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

import cli_example
from cli_example import QUICK, Example, assert_refused, command_line

example, one_thread = cli_example.example, cli_example.one_thread


@pytest.fixture(scope="module")
def run(example: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    answer = command_line("run", example.scene, example.labels, "--out", folder, *QUICK)
    assert answer.code == 0, answer
    return folder


@pytest.fixture
def other(run: Path, example: Example, tmp_path: Path) -> Path:
    """The folder of a run of the same split and another model."""
    folder = tmp_path / "second"
    options = ("--patch", "1", "--model", "label_propagation")
    answer = command_line("run", example.scene, example.labels, "--out", folder, *options)
    assert answer.code == 0, answer
    return folder


def test_runs_are_compared_in_one_page(run: Path, other: Path, tmp_path: Path) -> None:
    answer = command_line("compare", run, other, "--out", tmp_path / "compare.html")
    assert answer.code == 0, answer
    assert answer.out == f"Comparison: {tmp_path / 'compare.html'}\n"
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "label_propagation" in page
    assert re.search(r"first and second", page)


def test_what_cannot_be_compared_is_said_before_a_page_is_made(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    assert_refused(command_line("compare", run, "--out", page), "two or more runs")
    assert_refused(command_line("compare", run, tmp_path / "nowhere", "--out", page), "no such folder")
    lacking = tmp_path / "lacking"
    shutil.copytree(run, lacking)
    (lacking / "map.tif").unlink()
    assert_refused(command_line("compare", run, lacking, "--out", page), "map.tif", "spectralmamba run")
    assert not page.exists()
    assert_refused(command_line("compare", run), "--out")
    shutil.copyfile(run / "map.tif", lacking / "map.tif")
    out = tmp_path / "no" / "folder.html"
    assert_refused(command_line("compare", run, lacking, "--out", out), "does not exist")


def sample(run: Path, path: Path, each: int = 12) -> Path:
    """A random sample of each mapped class, with one label in ten wrong, as a table."""
    with rasterio.open(run / "map.tif") as file:
        ids = file.read(1)
    generator, lines = np.random.default_rng(0), ["column,row,class"]
    present = np.unique(ids[ids > 0])
    for id_ in present:
        places = np.argwhere(ids == id_)
        for row, column in places[generator.permutation(len(places))[:each]]:
            lines.append(f"{column},{row},{id_ if generator.random() < 0.9 else generator.choice(present)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_areas_are_printed_with_their_intervals_and_kept(run: Path, tmp_path: Path) -> None:
    reference = sample(run, tmp_path / "reference.csv")
    for name in ("areas.json", "areas.csv"):
        answer = command_line("areas", run / "map.tif", reference, "--out", tmp_path / name)
        assert answer.code == 0, answer
        assert "random sample of pixels drawn within each mapped class" in answer.out
        assert "hectares" in answer.out
        assert re.search(r"overall accuracy 0\.\d{4} ± 0\.\d{4}", answer.out)
        assert f"Areas: {tmp_path / name}" in answer.out
    kept = json.loads((tmp_path / "areas.json").read_text())
    assert kept["unit"] == "hectares"
    with rasterio.open(run / "map.tif") as file:
        hectares = np.count_nonzero(file.read(1)) * 100 / 10_000  # pixels of 10 m
    assert sum(entry["mapped_area"] for entry in kept["per_class"]) == pytest.approx(hectares)


def test_samples_that_were_left_out_are_said(run: Path, tmp_path: Path) -> None:
    reference = sample(run, tmp_path / "reference.csv")
    reference.write_text(reference.read_text() + "500,500,1\n")
    answer = command_line("areas", run / "map.tif", reference)
    assert "Samples left out, outside scene: 1" in answer.out


def test_what_gives_no_areas_is_said(run: Path, tmp_path: Path) -> None:
    reference = sample(run, tmp_path / "reference.csv")
    answer = command_line("areas", run / "map.tif", reference, "--out", tmp_path / "areas.txt")
    assert_refused(answer, ".json or .csv")
    assert_refused(command_line("areas", run / "map.tif", tmp_path / "nowhere.csv"), "no such label file")
    lines = reference.read_text().splitlines()
    with rasterio.open(run / "map.tif") as file:
        ids = file.read(1)
    gone = ids[tuple(int(text) for text in lines[1].split(",")[1::-1])]
    kept = [line for line in lines[1:] if ids[tuple(int(text) for text in line.split(",")[1::-1])] != gone]
    reference.write_text("\n".join([lines[0], *kept]) + "\n")
    assert_refused(command_line("areas", run / "map.tif", reference), "too few reference samples", "(0)")
