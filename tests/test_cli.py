"""The command line as a user meets it."""

from __future__ import annotations

import errno
import json
import os
import pty
import random
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import typer

import cli_example
from cli_example import (
    ONE_TRAINING,
    QUICK,
    SMALL,
    UTM,
    Answer,
    Example,
    assert_refused,
    command_line,
    run_program,
    start_program,
    temporary_files,
    write_tiff,
)
from spectralmamba import Classifier, Settings, __version__, classifier
from spectralmamba.cli import app

example, trained, one_thread = cli_example.example, cli_example.trained, cli_example.one_thread

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
LONG = (*SMALL, *ONE_TRAINING, "--steps", "300")  # more than the steps between two checkpoints
RUN_FILES = {
    "log.jsonl",
    "map.qml",
    "map.tif",
    "map.tif.aux.xml",
    "map_areas.csv",
    "map_confidence.qml",
    "map_confidence.tif",
    "map_novelty.qml",
    "map_novelty.tif",
    "map_set_size.qml",
    "map_set_size.tif",
    "model.safetensors",
    "overview.tif",
    "pixels.npz",
    "report.html",
    "scores.json",
    "settings.toml",
    "spectra.json",
    "split.tif",
    "viewer.html",
    "why.npz",
}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Help and usage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_argument_and_option_says_what_it_is_for(name: str) -> None:
    answer = command_line(name, "--help")
    assert answer.code == 0
    assert COMMANDS[name].help
    for parameter in COMMANDS[name].params:
        text = getattr(parameter, "help", None)
        assert text, parameter.name
        assert text.rstrip().endswith("."), f"{parameter.name}: {text}"


def test_the_defaults_that_help_shows_are_those_of_the_settings() -> None:
    shown = {parameter.name: getattr(parameter, "show_default", None) for parameter in COMMANDS["train"].params}
    for name in ("model", "preset", "seed"):
        assert shown[name] == str(getattr(Settings(), name))
    assert shown["patch"] == shown["steps"] == "chosen for the scene"


def test_run_has_the_options_of_train_and_those_of_its_map() -> None:
    of_train = [parameter.name for parameter in COMMANDS["train"].params]
    of_map = ["polygons", "smallest_area", "overview", "stac", "acquired"]
    assert [parameter.name for parameter in COMMANDS["run"].params] == [*of_train, *of_map]


def test_alone_it_lists_its_commands() -> None:
    answer = command_line()
    assert answer.code in (0, 2)  # 2 with newer releases of click
    for name in ("info", "train", "run", "evaluate", "map", "report", "models", "simulate"):
        assert f" {name} {' ' * (8 - len(name))} " in answer.out


def test_version_is_printed() -> None:
    assert command_line("--version") == Answer(0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trian",), "No such command 'trian'"),
        (("info", "--labels", "x"), "No such option"),
        (("train", "scene.tif"), "labels"),
        (("train", "scene.tif", "labels.tif"), "--out"),
        (("train", "s", "l", "--out", "o", "--steps", "many"), "--steps"),
        (("map", "m", "s", "--out", "o", "--tile", "0"), "--tile"),
        (("models", "--classes", "1"), "--classes"),
        (("simulate", "--out", "o", "--classes", "13"), "--classes"),
        (("simulate", "--out", "o", "--bands", "1"), "--bands"),
        (("info", "scene.tif", "--label-column", "crop"), "--label-column without labels"),
    ],
)
def test_a_wrong_call_leaves_with_2_and_names_what_is_wrong(words: tuple[str, ...], said: str) -> None:
    answer = command_line(*words)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_models_lists_every_network_with_its_size() -> None:
    answer = command_line("models", "--bands", 20, "--classes", 3)
    assert answer.code == 0
    assert re.search(r"spectral_mamba +│ paper +│ +3 │ +[\d,]+ │", answer.out)
    assert command_line("models", "--bands", 1).code == 0


# info --------------------------------------------------------------------------------------------


def test_info_says_what_scene_and_labels_hold(example: Example) -> None:
    answer = command_line("info", example.scene, example.labels)
    assert answer.code == 0
    for words in ("24 rows × 24 columns × 12 bands, int16", "EPSG:32633", "400.0 to 2500.0 nm", "winter wheat"):
        assert words in answer.out
    found = json.loads(command_line("info", example.scene, example.labels, "--json").out)
    assert [entry["pixels"] for entry in found["classes"]] == np.bincount(example.ids.ravel())[1:].tolist()


def test_info_says_what_was_assumed_of_the_labels(tmp_path: Path, example: Example) -> None:
    np.save(tmp_path / "labels.npy", example.ids)
    said = "Only one of scene and labels has a georeference"
    assert said in command_line("info", example.scene, tmp_path / "labels.npy").out
    answer = command_line("train", example.scene, tmp_path / "labels.npy", "--out", tmp_path / "out", *QUICK)
    assert said in answer.out


def test_info_imports_nothing_that_only_training_and_reports_need(example: Example) -> None:
    check = (
        "import sys; from spectralmamba.cli import app\n"
        f"app(['info', {str(example.scene)!r}, {str(example.labels)!r}], standalone_mode=False)\n"
        "print([name for name in ('torch', 'sklearn', 'spectralmamba.report', 'scipy.io', 'geopandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Runs --------------------------------------------------------------------------------------------


def test_run_makes_everything_in_one_folder(tmp_path: Path, example: Example) -> None:
    answer = command_line("run", example.scene, example.labels, "--out", tmp_path / "out", *QUICK)
    assert answer.code == 0, answer
    assert names(tmp_path / "out") == RUN_FILES
    assert "10 random pixels of each class, seed 0" in answer.out
    assert f"Report: {tmp_path / 'out' / 'report.html'}" in answer.out
    assert f"Viewer: {tmp_path / 'out' / 'viewer.html'}" in answer.out


def test_run_trains_teachers_first_unless_it_is_told_not_to(tmp_path: Path, example: Example) -> None:
    options = ("--patch", 1, "--steps", 2, "--set", "batch_size=4", "--set", "model_options.width=8")
    answer = command_line("run", example.scene, example.labels, "--out", tmp_path / "out", *options)
    assert answer.code == 0, answer
    assert names(tmp_path / "out") == RUN_FILES
    assert [json.loads(line)["step"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()][-1] > 2
    record = classifier.Classifier.load(tmp_path / "out" / "model.safetensors", "cpu").card["self_training"]
    assert record["rounds"] == Settings().self_training_rounds
    assert set(record["pseudo_labels"]) == {"1", "2", "3"}


def test_several_seeds_make_a_folder_each_and_a_summary(tmp_path: Path, example: Example) -> None:
    answer = command_line("run", example.scene, example.labels, "--out", tmp_path / "out", *QUICK, "--seeds", "0,1")
    assert answer.code == 0, answer
    assert names(tmp_path / "out") == {"seed-0", "seed-1", "summary.json", "report.html"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["seeds"] == [0, 1]
    for seed in (0, 1):
        assert names(tmp_path / "out" / f"seed-{seed}") == RUN_FILES
        assert Settings.load(tmp_path / "out" / f"seed-{seed}" / "settings.toml").seed == seed
        scores = json.loads((tmp_path / "out" / f"seed-{seed}" / "scores.json").read_text())
        assert scores["overall_accuracy"] == summary["overall_accuracy"]["values"][seed]
    mean = summary["overall_accuracy"]["mean"]
    assert f"overall accuracy  {mean:.4f} ± {summary['overall_accuracy']['sd']:.4f}" in answer.out
    before = (tmp_path / "out" / "report.html").read_bytes()
    assert command_line("report", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "report.html").read_bytes() == before


def test_seeds_that_train_together_give_what_they_give_one_after_the_other(
    tmp_path: Path, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for together in (False, True):
        if together:
            monkeypatch.setattr(classifier, "find_device", lambda _: torch.device("cuda"))  # training asks for its own
        out = tmp_path / str(together)
        answer = command_line(
            "run", example.scene, example.labels, "--out", out, *QUICK, "--seeds", "0,1", "--device", "cpu"
        )
        assert answer.code == 0, answer
        assert ("2 seeds train together" in answer.out) == together
        files.append([(out / f"seed-{seed}" / "map.tif").read_bytes() for seed in (0, 1)])
        assert len((out / "seed-1" / "log.jsonl").read_text().splitlines()) > 1
    assert files[0] == files[1]
    assert files[0][0] != files[0][1]


def test_overwriting_deletes_only_what_a_run_writes(tmp_path: Path, example: Example) -> None:
    out = tmp_path / "out"
    assert command_line("run", example.scene, example.labels, "--out", out, *QUICK).code == 0
    (out / "notes.txt").write_text("mine")
    (out / "figures").mkdir()
    answer = command_line("train", example.scene, example.labels, "--out", out, *QUICK)
    assert_refused(answer, "holds files already", "--overwrite")
    assert names(out) == RUN_FILES | {"notes.txt", "figures"}
    assert command_line("train", example.scene, example.labels, "--out", out, *QUICK, "--overwrite").code == 0
    of_run = {name for name in RUN_FILES if name.startswith("map")} | {
        "pixels.npz",
        "report.html",
        "scores.json",
        "viewer.html",
        "why.npz",
    }
    assert names(out) == RUN_FILES - of_run | {"notes.txt", "figures"}


def test_a_refused_overwriting_deletes_nothing(tmp_path: Path, example: Example) -> None:
    out = tmp_path / "out"
    assert command_line("run", example.scene, example.labels, "--out", out, *QUICK).code == 0
    answer = command_line("run", example.scene, tmp_path / "none.tif", "--out", out, *QUICK, "--overwrite")
    assert_refused(answer, "none.tif")
    assert names(out) == RUN_FILES


def test_resuming_a_finished_run_keeps_its_classifier(tmp_path: Path, example: Example) -> None:
    words = ("run", example.scene, example.labels, "--out", tmp_path / "out", *QUICK)
    assert command_line(*words).code == 0
    before = {name: (tmp_path / "out" / name).read_bytes() for name in ("model.safetensors", "log.jsonl", "map.tif")}
    assert command_line(*words, "--resume").code == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    assert names(tmp_path / "out") == RUN_FILES


def test_the_settings_that_a_run_keeps_make_the_same_run(tmp_path: Path, example: Example) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--seed", 3, "--rare-classes", "logit adjustment", "--set", "model_options.piece=2")
    assert command_line("train", example.scene, example.labels, "--out", first, *QUICK, *options).code == 0
    kept = Settings.load(first / "settings.toml")
    assert (kept.seed, kept.rare_classes, kept.model_options["piece"], kept.steps) == (3, "logit adjustment", 2, 3)
    settings = ("--settings", first / "settings.toml")
    assert command_line("train", example.scene, example.labels, "--out", second, *settings).code == 0
    for name in ("model.safetensors", "settings.toml", "split.tif"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_options_go_before_the_settings_file(tmp_path: Path, example: Example) -> None:
    (tmp_path / "s.toml").write_text("patch = 1\nsteps = 2\nnoise = 0.5\nbatch_size = 8\n[model_options]\nwidth = 8\n")
    words = ("--settings", tmp_path / "s.toml", "--steps", 1, "--set", "noise=0.1", "--set", "model_options.states=2")
    assert command_line("train", example.scene, example.labels, "--out", tmp_path / "out", *words).code == 0
    kept = Settings.load(tmp_path / "out" / "settings.toml")
    assert (kept.steps, kept.noise, kept.model_options) == (1, 0.1, {"width": 8, "states": 2})


def test_a_folder_with_brackets_and_colons_is_printed_as_it_is(tmp_path: Path, example: Example) -> None:
    out = tmp_path / "[red]runs" / ":smile:"
    answer = command_line("train", example.scene, example.labels, "--out", out, *QUICK)
    assert answer.code == 0
    assert f"Classifier: {out / 'model.safetensors'}" in answer.out
    assert str(out) in command_line("train", example.scene, example.labels, "--out", out, *QUICK).err


# Splits ------------------------------------------------------------------------------------------


@pytest.fixture
def masks(tmp_path: Path, example: Example) -> tuple[object, ...]:
    left = np.indices(example.ids.shape)[1] < 12
    files = [
        write_tiff(tmp_path / f"{name}.tif", (mask & (example.ids > 0)).astype(np.uint8)[None])
        for name, mask in (("train", left), ("test", ~left))
    ]
    return ("--train-mask", files[0], "--test-mask", files[1])


@pytest.mark.parametrize(
    ("split", "options", "said"),
    [
        ("random", ("--fraction", 0.2), "0.2 of each class, at random, seed 0"),
        ("blocks", ("--block-size", 4, "--per-class", 6), "spatially disjoint blocks of 4 pixels, buffer 0 pixels"),
        ("regions", ("--buffer", 1), "each region of a class on one side, buffer 1 pixels"),
        ("columns", ("--boundary", 9), "columns before 9 train"),
        ("rows", ("--train-fraction", 0.25), "rows before 6 train"),
    ],
)
def test_each_split_can_be_asked_for(
    split: str, options: tuple[object, ...], said: str, tmp_path: Path, example: Example
) -> None:
    words = ("train", example.scene, example.labels, "--out", tmp_path / "out", *QUICK, "--split", split, *options)
    answer = command_line(*words)
    assert answer.code == 0, answer
    assert said in answer.out
    with rasterio.open(tmp_path / "out" / "split.tif") as file:
        roles, record = file.read(1), json.loads(file.tags()["SPLIT_RECORD"])
    assert record["method"] == split
    assert (record["train_pixels"], record["test_pixels"]) == ((roles == 1).sum(), (roles == 2).sum())


def test_masks_decide_what_trains_and_tests(tmp_path: Path, example: Example, masks: tuple[object, ...]) -> None:
    answer = command_line(
        "run", example.scene, example.labels, "--out", tmp_path / "out", *QUICK, "--split", "masks", *masks
    )
    assert answer.code == 0, answer
    assert "Split: fixed masks." in answer.out
    with rasterio.open(tmp_path / "out" / "split.tif") as file:
        assert np.array_equal(file.read(1) == 1, (np.indices((24, 24))[1] < 12) & (example.ids > 0))


def test_without_split_all_labels_train(tmp_path: Path, example: Example) -> None:
    answer = command_line("train", example.scene, example.labels, "--out", tmp_path / "out", *QUICK, "--split", "none")
    assert answer.code == 0, answer
    assert "All labelled pixels train; nothing is left to score." in answer.out
    assert "split.tif" not in names(tmp_path / "out")


# evaluate, map, simulate -------------------------------------------------------------------------


def test_evaluate_says_which_pixels_were_scored(tmp_path: Path, trained: Path, example: Example) -> None:
    words = ("evaluate", trained / "model.safetensors", example.scene, example.labels)
    labelled = int((example.ids > 0).sum())
    answer = command_line(*words, "--out", tmp_path / "scores.json")
    assert f"Scored on the {labelled - 30} test pixels of {trained / 'split.tif'}." in answer.out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["test_pixels"], scores["split"]["method"]) == (labelled - 30, "random")
    answer = command_line(*words, "--all", "--out", tmp_path / "all.json")
    assert f"Scored on all {labelled} labelled pixels. If some of them trained" in answer.out
    assert json.loads((tmp_path / "all.json").read_text())["test_pixels"] == labelled
    alone = tmp_path / "model.safetensors"
    alone.write_bytes((trained / "model.safetensors").read_bytes())
    assert "because there is no split.tif beside" in command_line("evaluate", alone, *words[2:]).out


def test_a_map_has_the_scene_s_grid(tmp_path: Path, trained: Path, example: Example) -> None:
    words = ("map", trained / "model.safetensors", example.scene, "--out", tmp_path / "m.tif", "--tile", 10)
    answer = command_line(*words)
    assert answer.code == 0, answer
    assert f"Confidence: {tmp_path / 'm_confidence.tif'}" in answer.out
    assert f"Novelty: {tmp_path / 'm_novelty.tif'}" in answer.out
    assert f"Set size: {tmp_path / 'm_set_size.tif'}" in answer.out
    with rasterio.open(tmp_path / "m.tif") as classes, rasterio.open(example.scene) as scene:
        assert (classes.crs, classes.transform, classes.shape) == (scene.crs, scene.transform, scene.shape)
    assert command_line(*words).code == 2
    assert command_line(*words, "--overwrite").code == 0


def test_a_map_of_a_classifier_without_novelty_and_sets_speaks_of_neither(
    tmp_path: Path, trained: Path, example: Example
) -> None:
    older = Classifier.load(trained / "model.safetensors", "cpu")
    older.novelty, older.sets, older.card["prediction_sets"] = None, None, None
    older.save(tmp_path / "older.safetensors")
    (tmp_path / "maps").mkdir()
    answer = command_line("map", tmp_path / "older.safetensors", example.scene, "--out", tmp_path / "maps" / "m.tif")
    assert answer.code == 0, answer
    assert "Novelty" not in answer.out
    assert "Set size" not in answer.out
    assert names(tmp_path / "maps") == {
        "m.qml",
        "m.tif",
        "m.tif.aux.xml",
        "m_areas.csv",
        "m_confidence.qml",
        "m_confidence.tif",
    }


def test_set_sizes_of_an_earlier_map_are_kept_or_go_with_it(tmp_path: Path, trained: Path, example: Example) -> None:
    without = Classifier.load(trained / "model.safetensors", "cpu")
    without.sets, without.card["prediction_sets"] = None, None
    without.save(tmp_path / "without.safetensors")
    (tmp_path / "maps").mkdir()
    earlier = tmp_path / "maps" / "m_set_size.tif"
    earlier.write_text("of another map")
    words = ("map", tmp_path / "without.safetensors", example.scene, "--out", tmp_path / "maps" / "m.tif")
    assert_refused(command_line(*words), "m_set_size.tif", "--overwrite")
    assert earlier.read_text() == "of another map"
    assert command_line(*words, "--overwrite").code == 0
    layers = {"m_confidence.tif", "m_confidence.qml", "m_novelty.tif", "m_novelty.qml"}
    assert names(tmp_path / "maps") == {"m.qml", "m.tif", "m.tif.aux.xml", "m_areas.csv"} | layers


def test_a_run_may_go_without_sets(tmp_path: Path, example: Example) -> None:
    files = {"map_set_size.tif", "map_set_size.qml"}
    for coverage, layer in ((0.5, files), (0, set())):
        words = ("run", example.scene, example.labels, "--out", tmp_path / "out", *QUICK, "--overwrite")
        answer = command_line(*words, "--set", f"set_coverage={coverage}")
        assert answer.code == 0, answer
        assert names(tmp_path / "out") == RUN_FILES - files | layer


def test_help_of_map_names_every_layer() -> None:
    said = " ".join(command_line("map", "--help").out.replace("│", " ").split())
    for layer in ("confidence", "novelty", "set size"):
        assert layer in said.split("--tile")[0]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_map_of_a_scene_without_georeference_says_so(tmp_path: Path, trained: Path, example: Example) -> None:
    np.save(tmp_path / "cube.npy", np.nan_to_num(example.cube.transpose(1, 2, 0)))
    np.save(tmp_path / "labels.npy", example.ids)
    answer = command_line(
        "run", tmp_path / "cube.npy", tmp_path / "labels.npy", "--out", tmp_path / "out", *QUICK, "--band-axis", 2
    )
    assert answer.code == 0, answer
    assert "no georeference, so the map has none" in answer.out


def test_simulate_leaves_a_run_and_other_scenes_alone(tmp_path: Path, example: Example) -> None:
    out = tmp_path / "out"
    assert command_line("run", example.scene, example.labels, "--out", out, *QUICK).code == 0
    words = ("simulate", "--out", out, "--rows", 16, "--columns", 16, "--bands", 8, "--classes", 2)
    assert command_line(*words).code == 0
    assert names(out) == RUN_FILES | {"scene.tif", "labels.tif", "labels.tif.aux.xml"}
    (out / "scene.tif").write_text("measured")
    assert_refused(command_line(*words), "scene.tif", "--overwrite")
    assert (out / "scene.tif").read_text() == "measured"
    assert command_line(*words, "--overwrite").code == 0
    assert command_line("info", out / "scene.tif", out / "labels.tif").code == 0


def test_points_and_a_real_scene_go_from_file_to_map(tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("geopandas")
    folder = shared_data / "enmap_potsdam"
    words = (folder / "enmap_potsdam_west.tif", folder / "landcover_potsdam_point.gpkg", "--label-column", "level_1")
    answer = command_line("run", *words, "--out", tmp_path / "out", *QUICK, "--split", "blocks")
    assert answer.code == 0, answer
    with rasterio.open(tmp_path / "out" / "map.tif") as classes, rasterio.open(words[0]) as scene:
        assert (classes.crs, classes.transform) == (scene.crs, scene.transform)
    assert UTM in str(scene.crs)


# Progress and interruption -----------------------------------------------------------------------


def steps_done(folder: Path) -> int:
    """The last step that the log of a training holds, 0 before the first."""
    try:
        lines = (folder / "log.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return 0
    whole = [line for line in lines if line.endswith("}")]
    return json.loads(whole[-1])["step"] if whole else 0


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    deadline = time.monotonic() + 100
    while steps_done(folder) < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def unbroken(example: Example, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The classifier of a training that nobody stopped."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    assert command_line("train", example.scene, example.labels, "--out", out, *LONG).code == 0
    return (out / "model.safetensors").read_bytes()


def test_programs_read_progress_in_lines(
    tmp_path: Path, example: Example, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECTRALMAMBA_PROGRESS", "lines")
    answer = command_line("train", example.scene, example.labels, "--out", tmp_path / "out", *QUICK)
    assert answer.code == 0, answer
    lines = [line for line in answer.out.splitlines() if line.startswith("progress ")]
    assert lines == ["progress 0.33 train", "progress 0.66 train", "progress 1.00 train"]
    answer = command_line("map", trained / "model.safetensors", example.scene, "--out", tmp_path / "map.tif")
    assert answer.code == 0, answer
    assert "progress 1.00 map" in answer.out.splitlines()
    monkeypatch.setenv("SPECTRALMAMBA_PROGRESS", "bars")
    answer = command_line("map", trained / "model.safetensors", example.scene, "--out", tmp_path / "other.tif")
    assert_refused(answer, "SPECTRALMAMBA_PROGRESS", "'bars'", "lines")


def test_a_stopped_training_goes_on_as_if_nothing_had_been(tmp_path: Path, example: Example, unbroken: bytes) -> None:
    words = ("train", example.scene, example.labels, "--out", tmp_path / "out", *LONG)
    process = start_program(*words)
    wait_for_step(process, tmp_path / "out", 20)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"checkpoint\.safetensors: training was stopped after \d+ of 300 steps", err)
    assert "the same command with --resume goes on" in err
    assert "Traceback" not in err
    assert "\x1b" not in out + err
    assert not re.search(r"steps/s|\d+%\s", out)
    assert "checkpoint.safetensors" in names(tmp_path / "out")
    assert "model.safetensors" not in names(tmp_path / "out")
    answer = command_line(*words, "--resume")
    assert answer.code == 0, answer
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == unbroken
    assert "checkpoint.safetensors" not in names(tmp_path / "out")
    steps = [json.loads(line)["step"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 300


def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path: Path, example: Example, unbroken: bytes) -> None:
    words = ("train", example.scene, example.labels, "--out", tmp_path / "out", *LONG)
    process = start_program(*words)
    wait_for_step(process, tmp_path / "out", random.randrange(1, 295))
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    answer = command_line(*words, "--resume")
    assert answer.code == 0, answer
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == unbroken


def test_another_training_does_not_go_on_from_a_checkpoint(
    tmp_path: Path, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ("train", example.scene, example.labels, "--out", out, *LONG)
    interrupt_after(monkeypatch, 3)
    assert command_line(*words).code == 130
    monkeypatch.undo()
    checkpoint = (out / "checkpoint.safetensors").read_bytes()
    answer = command_line(*words, "--set", "noise=0.9", "--resume")
    assert_refused(answer, "settings.toml", "other settings", "noise = 0.9", "--overwrite")
    assert (out / "checkpoint.safetensors").read_bytes() == checkpoint


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Press Ctrl-C in this process after a few steps."""
    from spectralmamba.runs import _Log

    original = _Log.__call__

    def call(self: Any, progress: Any) -> None:
        original(self, progress)
        if progress.step == steps:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_Log, "__call__", call)


def test_ctrl_c_outside_of_training_leaves_with_130(monkeypatch: pytest.MonkeyPatch, example: Example) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spectralmamba.scenes.describe.describe_scene", pressed)
    assert command_line("info", example.scene) == Answer(130, "", "Stopped.\n")


@pytest.mark.usefixtures("small_blocks")
def test_ctrl_c_while_mapping_leaves_no_map_and_resume_goes_on(
    tmp_path: Path, trained: Path, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectralmamba.classifier import Classifier

    original = Classifier.tiles

    def pressed(self: Any, *arguments: Any, **options: Any) -> Any:
        yield next(original(self, *arguments, **options))
        raise KeyboardInterrupt

    for folder in ("unbroken", "stopped"):
        (tmp_path / folder).mkdir()
    words = ("map", trained / "model.safetensors", example.scene, "--tile", 10)
    assert command_line(*words, "--out", tmp_path / "unbroken" / "map.tif").code == 0
    words = (*words, "--out", tmp_path / "stopped" / "map.tif")
    with monkeypatch.context() as patches:
        patches.setattr(Classifier, "tiles", pressed)
        answer = command_line(*words)
    assert answer.code == 130
    assert "the same command with --resume goes on" in answer.err
    assert names(tmp_path / "stopped") == {".map.tif.unfinished"}
    assert command_line(*words, "--resume").code == 0
    assert names(tmp_path / "stopped") == names(tmp_path / "unbroken")
    for name in names(tmp_path / "stopped"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_memory_is_an_amount_and_enough(tmp_path: Path, trained: Path, example: Example) -> None:
    words = ("map", trained / "model.safetensors", example.scene, "--out", tmp_path / "map.tif", "--memory")
    assert_refused(command_line(*words, "much"), "no amount of memory", "much", "512MB")
    assert_refused(command_line(*words, "50MB"), "memory is too little", "50 MB", "at least", "--memory")
    assert names(tmp_path) == set()


def test_a_terminal_shows_step_loss_rate_and_time_left(tmp_path: Path, example: Example) -> None:
    screen, terminal = pty.openpty()
    words = ("run", example.scene, example.labels, "--out", tmp_path / "out", *SMALL, "--steps", 10)
    process = start_program(*words, "--set", "teacher_patch=1", stdout=terminal, stderr=terminal, stdin=terminal)
    os.close(terminal)
    shown = read_terminal(screen)
    assert process.wait(timeout=60) == 0, shown
    last = re.findall(r"train .*?steps/s", shown)[-1]
    assert "30/30" in last  # two rounds of one teacher, and the classifier
    assert re.search(r"\d:\d\d:\d\d", last)
    assert re.search(r"loss \d\.\d{3} +\d+\.\d steps/s", last)
    assert re.search(r"map .*100%", shown)


def read_terminal(screen: int) -> str:
    """Read what a program shows until it closes the terminal."""
    parts = []
    while select.select([screen], [], [], 100)[0]:
        try:
            part = os.read(screen, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # Linux says so when the other end is closed
                raise
            break
        if not part:
            break
        parts.append(part)
    os.close(screen)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(parts).decode())


def test_a_reader_that_goes_away_is_no_defect(example: Example) -> None:
    receiver, sender = os.pipe()
    os.close(receiver)
    answer = run_program("info", example.scene, stdout=sender)
    os.close(sender)
    assert "Traceback" not in answer.err
    assert "defect" not in answer.err


def test_no_temporary_file_is_left_by_a_run(tmp_path: Path, example: Example) -> None:
    assert command_line("run", example.scene, example.labels, "--out", tmp_path / "out", *QUICK).code == 0
    assert temporary_files(tmp_path) == []


# suggest -----------------------------------------------------------------------------------------


@pytest.fixture
def few(tmp_path: Path, example: Example) -> Path:
    """Labels of the example's first rows; below them there is something to suggest."""
    return write_tiff(tmp_path / "few.tif", np.where(np.indices(example.ids.shape)[0] < 10, example.ids, 0)[None])


@pytest.mark.parametrize("guide", ["labels", "model", "nothing"])
def test_suggestions_are_filled_in_and_given_back_as_labels(
    guide: str, tmp_path: Path, trained: Path, example: Example, few: Path
) -> None:
    geopandas = pytest.importorskip("geopandas")
    options = {"labels": ("--labels", few), "model": ("--model", trained / "model.safetensors"), "nothing": ()}[guide]
    said = {"labels": "discriminant of the labels", "model": "the classifier doubts", "nothing": "spectra alone"}[guide]
    out = tmp_path / "ask.gpkg"
    answer = command_line("suggest", example.scene, "--count", 6, "--out", out, *options)
    assert answer.code == 0, answer
    assert re.search(rf"^6 pixels from \d+ candidates, .*{said}", answer.out, re.MULTILINE)
    assert f"Suggestions: {out}" in answer.out
    assert '"class"' in answer.out
    assert "--label-column class" in answer.out
    assert ("--with-labels" in answer.out) == (guide == "labels")
    features = geopandas.read_file(out)
    assert features["likely_class"].notna().all() == (guide != "nothing")
    features["class"] = ["oats", "rye", "oats", "rye", "rye", None]
    features.to_file(out)
    words = ("suggest", example.scene, "--labels", out, "--label-column", "class", "--count", 2, "--with-labels")
    assert_refused(command_line(*words, "--out", out, "--overwrite"), "ask.gpkg", "holds the labels")
    answer = command_line(*words, "--out", tmp_path / "more.geojson", "--width", 3)
    assert answer.code == 0, answer
    assert "Labels left out, without class: 1" in answer.out
    assert "2 squares of 3 × 3 pixels" in answer.out
    assert sorted(geopandas.read_file(tmp_path / "more.geojson")["class"].dropna()) == ["oats"] * 2 + ["rye"] * 3
    run = ("train", example.scene, out, "--label-column", "class", "--split", "none", "--out", tmp_path / "run")
    assert command_line(*run, *QUICK).code == 0


def test_suggestions_stay_in_the_area_and_repeat_by_seed(tmp_path: Path, example: Example, few: Path) -> None:
    area = np.zeros(example.ids.shape, np.uint8)
    area[12:15] = 1
    words = ("--labels", few, "--area", write_tiff(tmp_path / "area.tif", area[None]), "--count", 15)
    texts = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        out = tmp_path / f"{name}.csv"
        answer = command_line("suggest", example.scene, *words, "--seed", seed, "--out", out)
        assert answer.code == 0, answer
        assert "counted from 0" in answer.out
        texts.append(out.read_text())
    assert texts[0] == texts[1] != texts[2]
    assert {int(line.split(",")[4]) for line in texts[0].splitlines()[1:]} <= {12, 13, 14}


def test_what_cannot_be_suggested_is_said_before_a_file_is_made(
    tmp_path: Path, trained: Path, example: Example, few: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    np.save(tmp_path / "cube.npy", np.nan_to_num(example.cube.transpose(1, 2, 0)))
    write_tiff(tmp_path / "other.tif", example.cube[:5])
    model = trained / "model.safetensors"
    for scene, name, options, said in (
        (example.scene, "s.gpkg", ("--count", 10_000), ("at least 10000", "--count")),
        (example.scene, "s.gpkg", ("--width", 2), ("no centre pixel",)),
        (example.scene, "s.gpkg", ("--with-labels",), ("--with-labels without labels", "--labels")),
        (example.scene, "s.gpkg", ("--label-column", "crop"), ("--label-column without labels",)),
        (example.scene, "s.gpkg", ("--labels", tmp_path / "none.tif"), ("none.tif", "no such label file")),
        (example.scene, "s.gpkg", ("--area", tmp_path / "roads.gpkg"), ("roads.gpkg", "raster", "gdal_rasterize")),
        (example.scene, "s.shp", (), (".gpkg, .geojson or .csv",)),
        (example.scene, "none/s.csv", (), ("output folder does not exist",)),
        (tmp_path / "cube.npy", "s.gpkg", ("--band-axis", 2), ("neither CRS nor transform", ".csv")),
        (tmp_path / "other.tif", "s.gpkg", ("--model", model), ("other.tif", "another number of bands")),
    ):
        assert_refused(command_line("suggest", scene, "--out", out / name, *options), *said, out=out)
    answer = command_line("suggest", tmp_path / "cube.npy", "--band-axis", 2, "--count", 3, "--out", out / "s.csv")
    assert answer.code == 0, answer
    (out / "s.csv").write_text("filled in")
    words = ("suggest", example.scene, "--labels", few, "--count", 3, "--out", out / "s.csv")
    assert_refused(command_line(*words), "s.csv", "--overwrite")
    assert (out / "s.csv").read_text() == "filled in"
    assert command_line(*words, "--overwrite").code == 0
    assert (out / "s.csv").read_text().startswith("suggestion,class,likely_class,margin,row,column,x,y")


# Other classifiers -------------------------------------------------------------------------------


def test_a_run_without_a_network_says_nothing_of_one_and_has_no_curve(example: Example, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ("run", example.scene, example.labels, "--out", folder, *QUICK, "--model", "label_propagation")
    assert command_line(*words).code == 0
    assert names(folder) == RUN_FILES - {"log.jsonl"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "label propagation · patch 1 × 1" in page
    assert "Nothing was trained step by step, so there is no curve." in page
    assert "etwork" not in re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
    assert json.loads((folder / "scores.json").read_text())["model"].keys() >= {"name", "patch", "size"}
    classes = (folder / "map.tif").read_bytes()
    again = command_line(*words, "--resume")
    assert again.code == 0, again
    assert (folder / "map.tif").read_bytes() == classes


def test_of_auto_train_and_report_tell_what_was_chosen_and_why(example: Example, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    answer = command_line("run", example.scene, example.labels, "--out", folder, *QUICK, "--model", "auto")
    assert answer.code == 0, answer
    choice = Classifier.load(folder / "model.safetensors", "cpu").card["choice"]
    said = [line for line in answer.out.splitlines() if line.startswith("Chosen: ")]
    assert said == [f"Chosen: {choice['reason']}"]
    assert json.loads((folder / "scores.json").read_text())["model"]["choice"] == choice
    assert choice["reason"] in (folder / "report.html").read_text(encoding="utf-8")


def test_the_help_names_what_can_classify() -> None:
    text = " ".join(next(each for each in COMMANDS["train"].params if each.name == "model").help.split())
    assert all(name in text for name in ("label_propagation", "support_vectors", "logistic_regression", "auto"))
    assert "label_propagation" in command_line("models").out
