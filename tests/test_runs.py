from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import rasterio
import xarray as xr

from spectralmamba import Classifier, Settings, Split, split_random
from spectralmamba.errors import OutputError, SettingsError, SplitError, TrainingInterrupted
from spectralmamba.memory import peak_memory
from spectralmamba.report import words
from spectralmamba.runs import RESULT_FILES, Run, prepare_folder, split_beside, write_summary
from spectralmamba.training import Progress, fitting

TRAINED = {"log.jsonl", "model.safetensors", "overview.tif", "settings.toml", "spectra.json", "split.tif"}
REPORTED = {"report.html", "viewer.html"}
MAPPED = {"map.tif", "map.tif.aux.xml", "map_areas.csv", "map.qml"} | {
    f"map_{layer}.{suffix}" for layer in ("confidence", "novelty", "set_size") for suffix in ("qml", "tif")
}


@pytest.fixture
def data(small_scene: xr.DataArray, small_labels: xr.DataArray, small_split: Split) -> tuple[Any, Any, Split]:
    return small_scene, small_labels, small_split


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(prepare_folder(tmp_path / "run"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def strict_json(path: Path) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def logged(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def stop_at(step: int, failure: type[BaseException] = KeyboardInterrupt) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.step == step:
            raise failure

    return on_step


def test_every_stage_leaves_its_documented_files_and_no_other(run: Run, data: Any, quick: Settings):
    scene, labels, split = data
    classifier = run.train(*data, quick, device="cpu")
    assert names(run.folder) == TRAINED
    run.map(classifier, scene)
    assert names(run.folder) == TRAINED | MAPPED
    run.evaluate(classifier, scene, labels, split)
    assert names(run.folder) == TRAINED | MAPPED | {"scores.json"}
    assert run.report() == run.folder / "report.html"
    assert names(run.folder) == TRAINED | MAPPED | {"scores.json"} | REPORTED
    run.explain(classifier, scene, labels, split)
    assert names(run.folder) == TRAINED | MAPPED | {"scores.json", "pixels.npz", "why.npz"} | REPORTED
    assert names(run.folder) <= set(RESULT_FILES)
    assert set(run.seconds) == {"train", "map", "evaluate", "explain"}


def test_scores_hold_what_is_documented_in_strict_json(run: Run, data: Any, quick: Settings):
    scene, labels, split = data
    classifier = run.train(*data, quick, device="cpu")
    run.map(classifier, scene)
    scores = run.evaluate(classifier, scene, labels, split)
    record = strict_json(run.folder / "scores.json")
    assert set(scores.to_dict()) < set(record)
    assert {"split", "versions", "seconds", "peak_memory_bytes", "model", "scene", "novelty"} < set(record)
    sets = {"coverage", "threshold", "labels", "left_out", "of_test", "of_map"}
    assert record["prediction_sets"].keys() == sets
    assert record["novelty"].keys() == {"level", "share_of_test"}
    assert all(0 <= share <= 1 for share in record["novelty"].values())
    assert record["test_pixels"] == split.test.sum() == np.sum(record["confusion"]) + record["unclassified"]
    assert record["overall_accuracy"] == scores.overall_accuracy
    assert record["split"]["patch"] == 3
    size = {"parameters", "multiply_accumulates", "companion"}
    assert set(record["model"]) == {"name", "preset", "patch"} | size
    assert {"file", "shape", "crs"} < set(record["scene"])
    assert record["scene"]["crs"] == "EPSG:32633"
    assert set(record["seconds"]) == {"train", "map", "evaluate"}
    strict_json(run.folder / "spectra.json")


def novelty_on(run: Run, where: np.ndarray) -> np.ndarray:
    with rasterio.open(run.folder / "map_novelty.tif") as file:
        return file.read(1)[where]


def test_scores_tell_how_many_test_pixels_are_more_novel_than_nearly_all_the_training_side(
    run: Run, data: Any, quick: Settings
):
    scene, labels, split = data
    strange = scene.copy(deep=True)
    odd = np.argwhere(split.test & np.isfinite(scene.values).all(0))[::3]
    strange.values[:, *odd.T] = np.random.default_rng(0).uniform(0, 1, (20, len(odd)))
    classifier = run.train(scene, labels, split, quick.replace(patch=1), device="cpu")
    run.map(classifier, strange)
    run.evaluate(classifier, strange, labels, split)
    tested = novelty_on(run, split.test & (labels.values > 0))
    tested = tested[np.isfinite(tested)]
    record = strict_json(run.folder / "scores.json")["novelty"]
    assert record == {"level": 0.99, "share_of_test": pytest.approx(np.mean(tested > np.float32(0.99)))}
    assert 0.2 < record["share_of_test"] < 1


def test_a_run_without_novelty_has_none_in_scores_and_report(run: Run, data: Any, quick: Settings):
    scene, labels, split = data
    classifier = run.train(scene, labels, split, quick, device="cpu")
    classifier.novelty = None
    run.map(classifier, scene)
    run.evaluate(classifier, scene, labels, split)
    assert names(run.folder) == TRAINED | MAPPED - {"map_novelty.tif", "map_novelty.qml"} | {"scores.json"}
    assert strict_json(run.folder / "scores.json")["novelty"] is None
    report = run.report().read_text(encoding="utf-8")
    assert "Novelty" not in report
    assert "less like any class" not in report


def test_the_report_of_a_run_tells_its_novelty(run: Run, data: Any, quick: Settings):
    scene, labels, split = data
    classifier = run.train(scene, labels, split, quick, device="cpu")
    run.map(classifier, scene)
    run.evaluate(classifier, scene, labels, split)
    report = run.report().read_text(encoding="utf-8")
    assert words.novelty(strict_json(run.folder / "scores.json")["novelty"]).split(";")[0] in html.unescape(report)
    assert "How unlike all classes each pixel is" in report


def score_nodata(run: Run, data: Any, quick: Settings) -> None:
    """Train, map, and score labelled pixels without data."""
    scene, labels, split = data
    nodata = ~np.isfinite(scene.values).all(0)
    ids = labels.copy(deep=True)
    ids.values[nodata] = 1
    classifier = run.train(scene, labels, split, quick, device="cpu")
    run.map(classifier, scene)
    run.evaluate(classifier, scene, ids, dataclasses.replace(split, test=nodata))


def test_where_no_test_pixel_has_a_novelty_there_is_no_share_of_them(run: Run, data: Any, quick: Settings):
    score_nodata(run, data, quick)
    assert strict_json(run.folder / "scores.json")["novelty"] is None


def sets_of_test(run: Run) -> Any:
    return strict_json(run.folder / "scores.json")["prediction_sets"]["of_test"]


def test_scores_tell_how_many_test_pixels_sets_hold_the_reference_class_in_all_and_of_each_class(
    run: Run, data: Any, quick: Settings
):
    scene, labels, split = data
    classifier = run.train(scene, labels, split, quick.replace(set_coverage=0.8), device="cpu")
    assert classifier.sets is not None
    classifier.sets.threshold.fill_(0.33)  # near 1 / 3: some sets are empty, some hold one class, some several
    run.map(classifier, scene)
    run.evaluate(classifier, scene, labels, split)
    sets = classifier.predict_sets(scene)
    found = strict_json(run.folder / "scores.json")["prediction_sets"]
    card = classifier.card["prediction_sets"]
    assert found["coverage"] == 0.8
    assert {key: found[key] for key in ("labels", "left_out", "threshold")} == {
        key: card[key] for key in ("labels", "left_out", "threshold")
    }
    valid = np.isfinite(scene.values).all(0)
    for entry in (found["of_test"], *found["of_test"]["per_class"]):
        where = split.test & valid & (labels.values == entry["id"] if "id" in entry else True)
        members = sets.values[:, where]
        holds = (members & (sets["class"].values[:, None] == labels.values[where])).any(0)
        assert entry["pixels"] == where.sum()
        assert entry["held"] == pytest.approx(holds.mean())
        assert entry["interval"][0] <= entry["held"] <= entry["interval"][1]
        assert_sizes(entry, members)
    assert 0 < found["of_test"]["held"] < 1
    assert [(entry["id"], entry["name"]) for entry in found["of_test"]["per_class"]] == sorted(
        labels.attrs["class_names"].items()
    )
    assert found["of_map"]["pixels"] == valid.sum()
    assert_sizes(found["of_map"], sets.values[:, valid])


def assert_sizes(found: dict[str, Any], members: np.ndarray) -> None:
    """Members: `(K, m)`."""
    sizes = members.sum(0)
    assert found["mean_size"] == pytest.approx(sizes.mean())
    assert found["share_empty"] == pytest.approx((sizes == 0).mean())
    assert found["share_single"] == pytest.approx((sizes == 1).mean())


def test_no_set_holds_a_class_that_did_not_train(run: Run, data: Any, quick: Settings):
    scene, labels, split = data
    classifier = run.train(scene, labels, split, quick, device="cpu")
    assert classifier.sets is not None
    classifier.sets.threshold.zero_()
    run.map(classifier, scene)
    strange = np.argwhere(split.test & np.isfinite(scene.values).all(0))[:5]
    labels.values[*strange.T] = 900
    labels.attrs["class_names"] = labels.attrs["class_names"] | {900: "pond"}
    labels.attrs["class_colors"] = labels.attrs["class_colors"] | {900: "#000080"}
    run.evaluate(classifier, scene, labels, split)
    found = sets_of_test(run)
    *known, pond = found["per_class"]
    assert (pond["id"], pond["name"], pond["held"], pond["pixels"], pond["mean_size"]) == (900, "pond", 0, 5, 3)
    assert [entry["held"] for entry in known] == [1, 1, 1]
    assert found["held"] == pytest.approx(1 - 5 / found["pixels"])


def test_where_no_test_pixel_has_a_set_there_is_no_share_of_them(run: Run, data: Any, quick: Settings):
    score_nodata(run, data, quick)
    assert sets_of_test(run) is None
    assert run.report().is_file()


def test_a_run_without_sets_has_none_in_files_scores_and_report(run: Run, data: Any, quick: Settings):
    scene, labels, split = data
    files = {"map_set_size.tif", "map_set_size.qml"}
    for coverage, layer in ((0.9, files), (0, set())):  # the second one over the first
        classifier = run.train(scene, labels, split, quick.replace(set_coverage=coverage), device="cpu")
        run.map(classifier, scene)
        run.evaluate(classifier, scene, labels, split)
        assert names(run.folder) - REPORTED == TRAINED | MAPPED - files | {"scores.json"} | layer
        report = html.unescape(run.report().read_text(encoding="utf-8"))
        for said in ("prediction set", "In its set"):
            assert (said in report.split("settings.toml")[0]) is bool(layer)
    assert strict_json(run.folder / "scores.json")["prediction_sets"] is None


def test_the_report_of_a_run_tells_its_sets(run: Run, data: Any, quick: Settings):
    scene, labels, split = data
    classifier = run.train(scene, labels, split, quick, device="cpu")
    run.map(classifier, scene)
    run.evaluate(classifier, scene, labels, split)
    said = words.prediction_sets(strict_json(run.folder / "scores.json")["prediction_sets"])
    assert said
    assert said in html.unescape(run.report().read_text(encoding="utf-8"))


def test_scores_go_into_the_classifiers_card(run: Run, data: Any, quick: Settings):
    scene, labels, split = data
    classifier = run.train(*data, quick, device="cpu")
    run.map(classifier, scene)
    scores = run.evaluate(classifier, scene, labels, split)
    card = Classifier.load(run.model, "cpu").card
    assert card["scores"]["overall_accuracy"] == scores.overall_accuracy
    assert card["scores"]["test_pixels"] == split.test.sum()


def test_settings_and_split_of_a_run_repeat_it(run: Run, data: Any, quick: Settings, tmp_path: Path):
    scene, labels, _ = data
    run.train(*data, quick, device="cpu")
    split, ids = Split.load(run.folder / "split.tif")
    again = Run(prepare_folder(tmp_path / "again"))
    again.train(scene, labels, split, Settings.load(run.folder / "settings.toml"), device="cpu")
    np.testing.assert_array_equal(ids, labels)
    assert again.model.read_bytes() == run.model.read_bytes()


def test_without_a_split_all_labels_train_and_there_is_no_split_file(run: Run, data: Any, quick: Settings):
    scene, labels, _ = data
    run.train(scene, labels, None, quick, device="cpu")
    assert names(run.folder) == TRAINED - {"split.tif"}
    pixels = {entry["id"]: entry["pixels"] for entry in strict_json(run.folder / "spectra.json")["classes"]}
    assert pixels == {id_: (labels.values == id_).sum() for id_ in (1, 2, 3)}


def test_an_interrupted_run_goes_on_to_the_same_classifier_and_log(
    run: Run, data: Any, quick: Settings, tmp_path: Path
):
    unbroken = Run(prepare_folder(tmp_path / "unbroken"))
    unbroken.train(*data, quick, device="cpu")
    with pytest.raises(TrainingInterrupted, match="--resume"):
        run.train(*data, quick, device="cpu", on_step=stop_at(4))
    assert names(run.folder) == {"checkpoint.safetensors", "log.jsonl", "settings.toml", "split.tif"}
    run.train(*data, quick, device="cpu", resume=True)
    assert names(run.folder) == TRAINED
    assert run.model.read_bytes() == unbroken.model.read_bytes()
    without_time = [[{k: v for k, v in line.items() if k != "seconds"} for line in logged(r)] for r in (run, unbroken)]
    assert without_time[0] == without_time[1]


def test_a_killed_run_logs_every_step_once_after_going_on(
    run: Run, data: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY", 2)
    with pytest.raises(RuntimeError):
        run.train(*data, quick, device="cpu", on_step=stop_at(5, RuntimeError))  # the checkpoint is of step 4
    log = run.folder / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 6, "lo')  # cut off by the kill
    run.train(*data, quick, device="cpu", resume=True)
    assert [line["step"] for line in logged(run)] == [1, 2, 3, 4, 5, 6]
    assert set(logged(run)[0]) == {"step", "loss", "accuracy", "learning_rate", "seconds"}


def test_going_on_before_the_first_checkpoint_starts_anew(run: Run, data: Any, quick: Settings):
    with pytest.raises(RuntimeError):
        run.train(*data, quick, device="cpu", on_step=stop_at(3, RuntimeError))
    run.train(*data, quick, device="cpu", resume=True)
    assert [line["step"] for line in logged(run)] == [1, 2, 3, 4, 5, 6]


def test_a_long_training_logs_some_two_hundred_lines_and_the_last_step(run: Run, data: Any):
    settings = Settings(steps=401, patch=1, batch_size=2, model_options={"blocks": 0}, self_training_rounds=0)
    run.train(*data, settings, device="cpu")
    steps = [line["step"] for line in logged(run)]
    assert 200 <= len(steps) <= 202
    assert steps[-1] == 401
    assert np.all(np.diff(steps) > 0)


def test_a_finished_training_is_only_loaded(run: Run, data: Any, quick: Settings):
    run.train(*data, quick, device="cpu")
    before = {name: (run.folder / name).read_bytes() for name in names(run.folder)}
    classifier = run.train(*data, quick, device="cpu", resume=True, on_step=stop_at(1))
    assert classifier.classes.tolist() == [1, 2, 3]
    assert {name: (run.folder / name).read_bytes() for name in names(run.folder)} == before


def test_several_seeds_are_summed_up(data: Any, quick: Settings, tmp_path: Path):
    scene, labels, _ = data
    scores = {}
    for seed in (0, 3):
        run, split = Run(prepare_folder(tmp_path / f"seed-{seed}")), split_random(labels, per_class=4, seed=seed)
        classifier = run.train(scene, labels, split, quick.replace(seed=seed), device="cpu")
        run.map(classifier, scene)
        scores[seed] = run.evaluate(classifier, scene, labels, split)
        run.map(classifier, scene)
        run.report()
    write_summary(tmp_path, scores)
    assert names(tmp_path) == {"seed-0", "seed-3", "summary.json", "report.html"}
    summary = strict_json(tmp_path / "summary.json")
    assert summary["seeds"] == [0, 3]
    for name in ("overall_accuracy", "average_accuracy", "kappa", "macro_f1"):
        values = [getattr(scores[seed], name) for seed in (0, 3)]
        assert summary[name]["values"] == values
        assert summary[name]["mean"] == pytest.approx(np.mean(values))
        assert summary[name]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert [entry["id"] for entry in summary["per_class"]] == [1, 2, 3]


def test_a_folder_that_holds_something_is_taken_only_if_asked(tmp_path: Path):
    folder = prepare_folder(tmp_path / "new" / "run")
    assert folder.is_dir()
    assert prepare_folder(folder) == folder
    for name in ("scores.json", "notes.txt"):
        (folder / name).write_text("x")
    with pytest.raises(OutputError, match="--overwrite"):
        prepare_folder(folder)
    prepare_folder(folder, resume=True)
    assert names(folder) == {"scores.json", "notes.txt"}
    prepare_folder(folder, overwrite=True)
    assert names(folder) == {"notes.txt"}  # the user's own


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot make"):
        prepare_folder(tmp_path / "file" / "run")


def test_the_split_beside_a_classifier_is_found_and_must_fit(run: Run, data: Any, quick: Settings):
    _, labels, split = data
    assert split_beside(run.model, labels) is None
    run.train(*data, quick, device="cpu")
    found = split_beside(run.model, labels)
    assert found is not None
    np.testing.assert_array_equal(found.test, split.test)
    with pytest.raises(SplitError, match="another scene"):
        split_beside(run.model, labels[:-1])


def test_peak_memory_is_in_bytes():
    peak = peak_memory()
    assert peak is None or 50 << 20 < peak < 1 << 40  # torch alone takes more than 50 MiB


def test_a_finished_training_is_not_taken_for_one_with_other_settings_or_another_split(
    run: Run, data: Any, quick: Settings
):
    scene, labels, split = data
    run.train(scene, labels, split, quick, device="cpu")
    with pytest.raises(SettingsError, match=r"other settings; found noise = 0\.2; expected noise = 0\.9"):
        run.train(scene, labels, split, quick.replace(noise=0.9), device="cpu", resume=True)
    with pytest.raises(SettingsError, match="another split"):
        run.train(scene, labels, split_random(labels, per_class=4, seed=9), quick, device="cpu", resume=True)
    assert Settings.load(run.folder / "settings.toml") == quick
