"""Labels as people draw them, on the command line: options where labels are opened, whole polygons train or test."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from shapely import affinity
from shapely.geometry import Point, box

import cli_example
from cli_example import NORTH_UP, SMALL, UTM, Example, assert_refused, command_line
from spectralmamba import Classifier, open_labels, open_scene
from spectralmamba.splits import Split

geopandas = pytest.importorskip("geopandas")
example, one_thread = cli_example.example, cli_example.one_thread

SIMPLE = ("--model", "label_propagation", "--patch", "1")
OPTIONS = ("--all-touched", "--shrink", "--point-radius", "--classes", "--merge", "--drop")


def draw(path: Path, shapes: list, crops: list[str], transform: object = NORTH_UP, crs: str = UTM) -> Path:
    """Write features that are given in pixels (column, row)."""
    a, b, c, d, e, f = transform[:6]  # type: ignore[index]
    placed = [affinity.affine_transform(shape, [a, b, d, e, c, f]) for shape in shapes]
    geopandas.GeoDataFrame({"crop": crops}, geometry=placed, crs=crs).to_file(path)
    return path


@pytest.fixture
def fields(tmp_path: Path, example: Example) -> Path:
    """Squares of 4 × 4 pixels, each of the class that most of its pixels are of; the scene has three."""
    shapes, crops = [], []
    with rasterio.open(example.scene) as scene:
        transform = scene.transform
    for row in range(0, 24, 5):
        for column in range(0, 24, 5):
            counts = np.bincount(example.ids[row : row + 4, column : column + 4].ravel(), minlength=4)[1:]
            if counts.any():
                shapes.append(box(column, row, min(column + 4, 24), min(row + 4, 24)))
                crops.append(("wheat", "barley", "beet")[int(counts.argmax())])
    assert min(crops.count(name) for name in ("wheat", "barley", "beet")) > 1
    return draw(tmp_path / "fields.gpkg", shapes, crops, transform)


def test_help_names_the_options_wherever_labels_are_opened() -> None:
    for command in ("info", "train", "run", "evaluate", "suggest", "areas"):
        answer = command_line(command, "--help")
        for option in OPTIONS:
            assert option in answer.out, f"{command} {option}"


def test_polygons_are_divided_whole_unless_another_split_is_asked_for(
    tmp_path: Path, example: Example, fields: Path
) -> None:
    words = ("train", example.scene, fields, *SIMPLE)
    answer = command_line(*words, "--out", tmp_path / "whole")
    assert answer.code == 0, answer
    assert "trains or tests as a whole (--split fields)" in answer.out
    assert re.search(r"\d+ fields train and \d+ test \(class 1: ", answer.out)
    split, _ = Split.load(tmp_path / "whole" / "split.tif")
    assert split.record["method"] == "fields"
    drawn = open_labels(fields, open_scene(example.scene)).coords["field"].values
    assert not set(drawn[split.train]) & set(drawn[split.test])
    for asked in (("--split", "random"), ("--fraction", "0.2")):
        out = tmp_path / asked[1]
        answer = command_line(*words, "--out", out, *asked)
        assert answer.code == 0, answer
        assert "pixels of one polygon train and test in" in answer.out
        assert Split.load(out / "split.tif")[0].record["method"] == "random"


def test_points_are_drawn_at_random_and_wide_ones_whole(tmp_path: Path, example: Example) -> None:
    places = [np.argwhere(example.ids == id_)[::7][:6] for id_ in (1, 2, 3)]
    shapes = [Point(column + 0.5, row + 0.5) for found in places for row, column in found]
    crops = [name for name, found in zip("abc", places, strict=True) for _ in found]
    with rasterio.open(example.scene) as scene:
        points = draw(tmp_path / "points.gpkg", shapes, crops, scene.transform)
    words = ("train", example.scene, points, *SIMPLE, "--per-class", 3)
    for radius, method in ((0, "random"), (1, "fields")):
        out = tmp_path / method
        answer = command_line(*words, "--point-radius", radius, "--out", out)
        assert answer.code == 0, answer
        assert Split.load(out / "split.tif")[0].record["method"] == method


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--block-size", 4), "--block-size does not go with --split fields"),
        (("--split", "fields", "--fraction", 0.5), "--fraction does not go with --split fields"),
        (("--split", "field"), "Did you mean fields?"),
        (("--per-class", 3, "--fraction", 0.5), "exclude each other"),
        (("--merge", "wheat,barley"), "--merge takes classes and their new name"),
        (("--drop", "whaet"), "Did you mean 'wheat'?"),
        (("--classes", "none.csv"), "no such class table"),
    ],
)
def test_a_wrong_call_leaves_no_folder(
    tmp_path: Path, example: Example, fields: Path, words: tuple[object, ...], said: str
) -> None:
    answer = command_line("train", example.scene, fields, *SIMPLE, "--out", tmp_path / "out", *words)
    assert_refused(answer, said, out=tmp_path / "out")


def test_a_run_keeps_how_its_labels_were_opened_and_evaluate_opens_them_so(
    tmp_path: Path, example: Example, fields: Path
) -> None:
    table = tmp_path / "classes.csv"
    table.write_text("id,name,colour\n5,wheat,#e6c850\n6,barley,#010203\n9,beet,#ff00ff\n")
    options = ("--merge", "barley,wheat=cereal", "--shrink", 0.5, "--classes", table)
    out = tmp_path / "out"
    words = ("run", example.scene, fields, *SIMPLE, "--out", out)
    answer = command_line(*words, *options)
    assert answer.code == 0, answer
    assert "Merged as cereal (5): barley (6) and wheat (5)." in answer.out
    table.unlink()
    card = Classifier.load(out / "model.safetensors", "cpu").card
    assert [(entry["id"], entry["name"], entry["color"]) for entry in card["classes"]] == [
        (5, "cereal", "#010203"),
        (9, "beet", "#ff00ff"),
    ]
    kept = {"shrink": 0.5, "merge": {"cereal": ["barley", "wheat"]}}
    for labels in (card["labels"], json.loads((out / "scores.json").read_text())["scene"]["labels"]):
        assert labels["file"] == "fields.gpkg"
        assert {name: labels[name] for name in kept} == kept
    assert "labels.merge.cereal" in (out / "report.html").read_text(encoding="utf-8")

    again = command_line("evaluate", out / "model.safetensors", example.scene, fields)
    assert again.code == 0, again
    assert (
        "opened as in training: shrink 0.5, names and ids of its class table, merge barley,wheat=cereal." in again.out
    )
    scores = re.findall(r"(?:accuracy|kappa|F1) +[\d.]+", answer.out)
    assert re.findall(r"(?:accuracy|kappa|F1) +[\d.]+", again.out) == scores

    resumed = command_line(*words, "--resume")
    assert_refused(resumed, "holds a training with")


def test_resuming_a_finished_training_with_labels_opened_otherwise_is_refused(
    tmp_path: Path, example: Example, fields: Path
) -> None:
    words = ("train", example.scene, fields, *SMALL, "--steps", 2, "--split", "none", "--out", tmp_path / "out")
    assert command_line(*words, "--drop", "beet").code == 0
    assert command_line(*words, "--drop", "beet", "--resume").code == 0
    answer = command_line(*words, "--resume")
    assert_refused(answer, "opened in another way", "drop = ['beet']", "drop = None")


def test_classes_of_another_file_are_the_classifiers_by_name(tmp_path: Path, example: Example, fields: Path) -> None:
    out = tmp_path / "out"
    assert command_line("train", example.scene, fields, *SIMPLE, "--out", out).code == 0
    drawn = geopandas.read_file(fields)
    without_first = drawn[drawn["crop"] != "barley"]  # ids would be 1 and 2 by their own order
    without_first.to_file(tmp_path / "others.gpkg")
    scores = tmp_path / "scores.json"
    answer = command_line(
        "evaluate", out / "model.safetensors", example.scene, tmp_path / "others.gpkg", "--all", "--out", scores
    )
    assert answer.code == 0, answer
    asked = {entry["name"]: entry["id"] for entry in json.loads(scores.read_text())["per_class"] if entry["reference"]}
    assert asked == {"beet": 2, "wheat": 3}


def test_merged_classes_are_the_classifiers_in_other_files_too(tmp_path: Path, example: Example, fields: Path) -> None:
    out, scores = tmp_path / "out", tmp_path / "scores.json"
    merge = ("--merge", "wheat,barley=cereal")
    assert command_line("train", example.scene, fields, *SIMPLE, *merge, "--out", out).code == 0
    geopandas.read_file(fields).to_file(tmp_path / "others.gpkg")
    words = ("evaluate", out / "model.safetensors", example.scene, tmp_path / "others.gpkg", "--out", scores)
    answer = command_line(*words, *merge)
    assert answer.code == 0, answer
    assert "Not in the classifier" not in answer.out
    assert [entry["id"] for entry in json.loads(scores.read_text())["per_class"]] == [1, 2]
    assert "Not in the classifier: barley (3), wheat (4)." in command_line(*words).out


def test_info_areas_and_suggest_open_labels_with_the_same_options(
    tmp_path: Path, example: Example, fields: Path
) -> None:
    options = ("--merge", "wheat,barley=cereal", "--all-touched")
    found = json.loads(command_line("info", example.scene, fields, *options, "--json").out)
    assert [entry["name"] for entry in found["classes"]] == ["cereal", "beet"]
    assert "--merge without labels" in command_line("info", example.scene, "--merge", "a=b").err
    answer = command_line(
        "suggest", example.scene, "--labels", fields, *options, "--count", 3, "--out", tmp_path / "s.gpkg"
    )
    assert answer.code == 0, answer
    assert "Merged as cereal" in answer.out
    assert (
        "--shrink without labels"
        in command_line("suggest", example.scene, "--shrink", 1, "--out", tmp_path / "t.gpkg").err
    )
    plain = json.loads(command_line("info", example.scene, fields, "--json").out)
    assert sum(entry["pixels"] for entry in plain["classes"]) <= sum(entry["pixels"] for entry in found["classes"])
    names = [
        entry["name"]
        for entry in json.loads(command_line("info", example.scene, example.labels, "--json").out)["classes"]
    ]
    renamed = (f"wheat={names[0]}", f"barley={names[1]}", f"beet={names[2]}")
    words = [word for text in renamed for word in ("--merge", text)]
    answer = command_line("areas", example.labels, fields, *words)
    assert answer.code == 0, answer
    assert "Merged as" in answer.out
    table = tmp_path / "samples.csv"
    table.write_text("class,column,row\n1,0,0\n")
    assert_refused(command_line("areas", example.labels, table, "--shrink", 1), "taken as it is", "shrink")


def test_the_potsdam_points_run_by_one_command_and_those_outside_are_counted(tmp_path: Path, shared_data: Path) -> None:
    folder, out = shared_data / "enmap_potsdam", tmp_path / "out"
    words = (folder / "enmap_potsdam_west.tif", folder / "landcover_potsdam_point.gpkg", "--label-column", "level_1")
    answer = command_line("run", *words, "--point-radius", 1.5, *SIMPLE, "--out", out)
    assert answer.code == 0, answer
    assert "Labels left out, outside scene: 85" in answer.out
    assert "trains or tests as a whole" in answer.out
    assert (out / "map.tif").is_file()
    assert Split.load(out / "split.tif")[0].record["method"] == "fields"
