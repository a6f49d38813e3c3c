from __future__ import annotations

import json
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from experiment_plans import SMALL, changed, small_plan

from spectralmamba import simulate_scene
from spectralmamba.errors import OutputError, TrainingInterrupted
from spectralmamba.experiments import execute as executing
from spectralmamba.experiments import provenance, tuning
from spectralmamba.experiments.data import load
from spectralmamba.experiments.execute import Order, execute, train_networks
from spectralmamba.experiments.folder import ResultFolder
from spectralmamba.experiments.page import write_results, write_section
from spectralmamba.experiments.plan import Plan, Tuning
from spectralmamba.experiments.runner import DONE, FAILED, MISSING, _outcomes, in_order, make_runs, pending, survey
from spectralmamba.experiments.tables import Tables, make_tables, markdown
from spectralmamba.scenes.writing import write_labels, write_scene
from spectralmamba.splits import Split, split_random


def run(plan: Plan, path: Path, **options) -> Tables:
    folder = ResultFolder(path)
    with folder.alone():
        states = survey(plan, folder, None)
        make_runs(plan, pending(states), folder, device="cpu", **options)
        tables = make_tables(plan, in_order(states, folder))
        write_results(tables, folder)
    return tables


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Plan, Path, Tables]:
    folder = tmp_path_factory.mktemp("done")
    plan = small_plan(folder)
    return plan, folder / "out", run(plan, folder / "out")


def test_all_runs_are_made_and_kept(done):
    plan, out, tables = done
    folder = ResultFolder(out)
    assert [state.status for state in survey(plan, folder, None)] == [DONE] * len(plan.runs)
    assert len((out / "runs.jsonl").read_text("utf-8").splitlines()) == len(plan.runs)
    for key, line in folder.lines.items():
        kept = json.loads((folder.folder_of(key) / "result.json").read_text("utf-8"))
        assert kept == line
        assert sum(map(sum, line["confusion"])) == line["test_pixels"] == line["split"]["test_pixels"]
        assert {"commit", "date", "machine", "code"} <= set(line)
        assert (folder.folder_of(key) / "map.npy").is_file()
        assert (folder.folder_of(key) / "settings.toml").is_file() == (line["model"] != "SVM, pixels, standardised")
    assert not tables.failed


def test_tables_give_mean_difference_and_cost(done):
    plan, out, tables = done
    ours, perceptron, machine = tables.rows
    scores = ours.score("overall_accuracy")
    assert ours.difference is None
    assert perceptron.difference is not None
    expected = np.mean(perceptron.score("overall_accuracy")) - np.mean(scores)
    assert perceptron.difference.mean == pytest.approx(expected)
    assert perceptron.corrected is not None
    text = (out / "table.md").read_text("utf-8")
    assert f"{np.mean(scores):.4f} ± {np.std(scores, ddof=1):.4f}" in text
    assert machine.done[0]["tuning"] == {"trials": 16, "folds": 3}
    csv = (out / "table.csv").read_text("utf-8").splitlines()
    assert len(csv) == 1 + 3
    assert all(line.count(",") >= csv[0].count(",") for line in csv)
    page = (out / "index.html").read_text("utf-8")
    assert page.count('href="runs/') == len(plan.runs)
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("data:image/png") == 3
    assert "multiply-accumulates a pixel" in page


def test_nothing_is_run_twice_and_names_do_not_matter(done, tmp_path):
    plan, out, _ = done
    renamed = small_plan(tmp_path, changed('name = "ours"', 'name = "SpectralMamba"'))
    assert pending(survey(renamed, ResultFolder(out), None)) == []
    other = small_plan(tmp_path, changed("steps = 4", "steps = 5"))
    assert {state.run.model.kind for state in pending(survey(other, ResultFolder(out), None))} == {
        "spectral_mamba",
        "mlp",
    }
    another_scene = small_plan(tmp_path, changed("seed = 1 }", "seed = 2 }"))
    assert len(pending(survey(another_scene, ResultFolder(out), None))) == len(plan.runs)
    assert (
        len(pending(survey(plan.with_trials(2), ResultFolder(out), None))) == 4
    )  # simple classifiers are tuned anyway


def test_other_code_makes_runs_anew(done, monkeypatch):
    plan, out, _ = done
    monkeypatch.setattr("spectralmamba.experiments.runner.code_version", lambda: "0.0.1+else")
    assert len(pending(survey(plan, ResultFolder(out), None))) == len(plan.runs)


def test_processes_give_what_one_process_gives(done, tmp_path):
    plan, _, alone = done
    assert accuracies(run(plan, tmp_path / "out", jobs=2)) == accuracies(alone)


def test_a_dask_cluster_gives_what_one_process_gives(done, tmp_path):
    distributed = pytest.importorskip("distributed")
    plan, _, alone = done
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        assert accuracies(run(plan, tmp_path / "out", dask=cluster.scheduler_address)) == accuracies(alone)


def test_seeds_together_give_what_they_give_alone_and_fail_alone(done, monkeypatch):
    plan, _, alone = done
    runs = tuple(each for each in plan.runs if each.model.name == "ours")
    order = Order(runs, plan.tuning, plan.maps, "cpu")
    scores = [outcome.result["overall_accuracy"] for outcome in execute(order)]
    assert scores == alone.rows[0].score("overall_accuracy")
    original = executing.train_networks

    def train(loaded, chosen, splits, order):
        if 1 in chosen:
            raise ValueError("not this one")
        return original(loaded, chosen, splits, order)

    monkeypatch.setattr(executing, "train_networks", train)
    assert [outcome.result["status"] for outcome in execute(order)] == [DONE, FAILED]


def test_a_gpu_takes_the_seeds_of_a_network_together(tmp_path, monkeypatch):
    plan = small_plan(tmp_path)
    orders = []
    monkeypatch.setattr("spectralmamba.experiments.runner.execute", lambda order: orders.append(order) or [])
    states = survey(plan, ResultFolder(tmp_path / "out"), None)
    list(_outcomes(plan, states, None, 1, "cuda", None))
    assert [[run.seed for run in order.runs] for order in orders] == [[0, 1], [0, 1], [0], [1]]
    assert [order.runs[0].model.kind for order in orders] == ["spectral_mamba", "mlp", "svm", "svm"]


def test_a_half_written_line_is_dropped(done, tmp_path):
    plan, out, _ = done
    (tmp_path / "runs").mkdir()
    text = (out / "runs.jsonl").read_text("utf-8")
    (tmp_path / "runs.jsonl").write_text(text[:-40], "utf-8")
    folder = ResultFolder(tmp_path)
    assert len(pending(survey(plan, folder, None))) == 1
    with folder.alone():
        pass
    assert (tmp_path / "runs.jsonl").read_text("utf-8") == "".join(text.splitlines(keepends=True)[:-1])


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"key": "a"}\n[1, 2]\n', "utf-8")
    with pytest.raises(OutputError, match="line 2"):
        ResultFolder(tmp_path)


def test_two_processes_do_not_share_a_folder(tmp_path):
    with (
        ResultFolder(tmp_path).alone(),
        pytest.raises(OutputError, match="another process"),
        ResultFolder(tmp_path).alone(),
    ):
        pass


def test_a_folder_of_another_plan_says_so(done, tmp_path):
    plan, _, _ = done
    folder = ResultFolder(tmp_path)
    assert folder.differing_plan(plan) is None
    folder.keep_plan(plan)
    assert folder.differing_plan(plan) is None
    said = folder.differing_plan(small_plan(tmp_path, changed("seeds = [0, 1]", "seeds = [1, 2]")))
    assert said is not None
    assert "3 of the 6 runs are new to it, and 3 of its runs stay" in said


def test_a_failing_run_is_a_row_and_is_retried_when_asked(tmp_path, monkeypatch):
    plan = small_plan(tmp_path).with_seeds([0])
    original = executing.train_simple
    monkeypatch.setattr(executing, "train_simple", lambda *_: 1 / 0)
    tables = run(plan, tmp_path / "out")
    assert [state.run.model.kind for state in tables.failed] == ["svm"]
    assert "failed: ZeroDivisionError: division by zero" in "\n".join(markdown(tables))
    folder = ResultFolder(tmp_path / "out")
    states = survey(plan, folder, None)
    assert [state.status for state in states] == [DONE, DONE, FAILED]
    assert "ZeroDivisionError" in (folder.folder_of(str(states[2].key)) / "error.txt").read_text("utf-8")
    assert pending(states) == []
    monkeypatch.setattr(executing, "train_simple", original)
    again = pending(states, retry_failed=True)
    assert [state.run.model.kind for state in again] == ["svm"]
    with folder.alone():
        make_runs(plan, again, folder, device="cpu")
    assert [state.status for state in survey(plan, ResultFolder(tmp_path / "out"), None)] == [DONE] * 3


def test_a_run_whose_process_dies_fails_and_the_others_go_on(tmp_path, monkeypatch):
    plan = small_plan(tmp_path).with_seeds([0])

    def pooled(orders, jobs):
        for order in orders:
            if order.runs[0].model.kind == "mlp":
                raise BrokenProcessPool
            yield from execute(order)

    monkeypatch.setattr("spectralmamba.experiments.runner._pooled", pooled)
    tables = run(plan, tmp_path / "out", jobs=2)
    assert [state.run.model.kind for state in tables.failed] == ["mlp"]
    assert "killed" in tables.failed[0].reason
    assert [len(row.done) for row in tables.rows] == [1, 0, 1]


def test_being_stopped_is_no_failure(tmp_path, monkeypatch):
    plan = small_plan(tmp_path)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(executing, "train_simple", stop)
    folder = ResultFolder(tmp_path / "out")
    with folder.alone(), pytest.raises(TrainingInterrupted, match="the same command goes on"):
        make_runs(plan, pending(survey(plan, folder, None)), folder, device="cpu")
    assert [state.status for state in survey(plan, folder, None)] == [DONE] * 4 + [MISSING] * 2


def test_data_that_are_not_here_are_rows_with_the_way_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRALMAMBA_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("SPECTRALMAMBA_CACHE", str(tmp_path / "none"))
    text = SMALL.replace(
        "[[split]]", '[[data]]\nname = "ksc"\n\n[[data]]\nname = "mine"\nscene = "a.tif"\nlabels = "b.tif"\n\n[[split]]'
    )
    plan = small_plan(tmp_path, text).with_seeds([0])
    tables = run(plan, tmp_path / "out")
    text = "\n".join(markdown(tables))
    assert "Not available: Get it with: spectralmamba data get ksc" in text
    assert "Not available: There is no " in text
    assert len(tables.rows[0].done) == 1
    assert not tables.failed


def test_a_scene_that_cannot_be_read_fails_alone(tmp_path):
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(b"no raster")
    text = SMALL.replace("[[split]]", '[[data]]\nname = "mine"\nscene = "a.tif"\nlabels = "b.tif"\n\n[[split]]')
    tables = run(small_plan(tmp_path, text).with_seeds([0]), tmp_path / "out")
    assert {state.run.data.name for state in tables.failed} == {"mine"}
    assert "a.tif" in tables.failed[0].reason
    assert len(tables.rows[0].done) == 1


def test_several_numbers_of_pixels_are_a_learning_curve_and_splits_can_be_compared(tmp_path):
    text = changed("per_class = 5", "per_class = [3, 6]").replace(
        "seeds = [0, 1]", 'seeds = [0, 1]\ncompare = "splits"'
    )
    tables = run(small_plan(tmp_path, text), tmp_path / "out")
    by_split = {row.first.cell[1:]: row for row in tables.rows}
    few, many = (by_split[f"random, {number} a class", "ours"] for number in (3, 6))
    assert few.difference is None
    assert many.difference is not None
    expected = np.subtract(many.score("overall_accuracy"), few.score("overall_accuracy"))
    np.testing.assert_allclose(many.difference.differences, expected)
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "Learning curve, fields" in page
    assert "3, 6 training pixels of each class" in page
    assert "the first split of the same model" in page


def test_the_code_version_is_of_what_computes(tmp_path, monkeypatch):
    for name in ("cli/words.py", "experiments/tables.py", "experiments/execute.py", "models/net.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a = 1\n")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    first = provenance.code_version.__wrapped__()
    for name, same in (("cli/words.py", True), ("experiments/tables.py", True), ("models/net.py", False)):
        (tmp_path / name).write_text("a = 2\n")
        assert (provenance.code_version.__wrapped__() == first) == same, name


def test_files_are_data_too_and_masks_their_standard_split(tmp_path):
    scene, labels = simulate_scene(rows=24, columns=24, bands=20, classes=3, seed=1)
    split = split_random(labels, per_class=5)
    write_scene(scene, tmp_path / "scene.tif")
    write_labels(labels, tmp_path / "labels.tif")
    for name, mask in (("train", split.train), ("test", split.test)):
        write_labels(labels.copy(data=np.where(mask, labels.values, 0)), tmp_path / f"{name}.tif")
    files = 'scene = "scene.tif"\nlabels = "labels.tif"\ntrain_mask = "train.tif"\ntest_mask = "test.tif"\n#'
    text = SMALL.replace("simulated = ", files).replace('"random"\nper_class = 5', '"standard"')
    plan = small_plan(tmp_path, text)
    found = load(plan.runs[0].data, None)
    assert found.standard is not None
    np.testing.assert_array_equal(found.standard.train, split.train)
    assert not run(plan.with_seeds([0]), tmp_path / "out").failed


def test_polygons_are_divided_whole_and_other_polygons_are_another_data_set(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    from rasterio.features import shapes
    from shapely.geometry import shape

    scene, labels = simulate_scene(rows=24, columns=24, bands=20, classes=3, seed=1)
    write_scene(scene, tmp_path / "scene.tif")
    found = list(shapes(labels.values.astype(np.int32), mask=labels.values > 0, transform=labels.rio.transform()))
    fields = geopandas.GeoDataFrame(
        {"crop": [int(id_) for _, id_ in found]}, geometry=[shape(outline) for outline, _ in found], crs=labels.rio.crs
    )
    fields.to_file(tmp_path / "labels.gpkg")
    text = SMALL.replace("simulated = ", 'scene = "scene.tif"\nlabels = "labels.gpkg"\n#')
    plan = small_plan(tmp_path, text.replace('"random"\nper_class = 5', '"fields"\nbuffer = 0'))
    loaded = load(plan.runs[0].data, None)
    split = loaded.split(plan.runs[0].split, 0)
    numbers = loaded.labels.coords["field"].values
    assert split.record["method"] == "fields"
    assert not set(numbers[split.train]) & set(numbers[split.test])
    before = loaded.fingerprint()
    loaded.labels.coords["field"].values[numbers == numbers.max()] = 1
    assert loaded.fingerprint() != before


def test_a_section_of_a_document_is_replaced(done, tmp_path):
    _, _, tables = done
    path = tmp_path / "page.md"
    path.write_text("# Before\n\n<!-- small -->\n\nold\n\n<!-- /small -->\n\nafter\n", "utf-8")
    write_section(path, "small", tables)
    once = path.read_text("utf-8")
    assert "old" not in once
    assert once.startswith("# Before")
    assert once.endswith("after\n")
    write_section(path, "small", tables)
    assert path.read_text("utf-8") == once
    with pytest.raises(OutputError, match="cannot read the document"):
        write_section(tmp_path / "none.md", "small", tables)


def test_test_labels_change_no_setting_and_no_model(tmp_path):
    text = changed("[[data]]", "[tuning]\ntrials = 2\nfolds = 2\nsteps = [2, 4]\n\n[[data]]")
    plan = small_plan(tmp_path, text)
    found = load(plan.runs[0].data, None)
    split = found.split(plan.runs[0].split, 0)
    wrong = found.labels.copy(data=np.where(split.test, found.labels.values % 3 + 1, found.labels.values))
    order = Order((plan.runs[0],), plan.tuning, True, "cpu")
    trained = [
        train_networks(executing.Loaded(found.scene, labels, None), {0: plan.runs[0]}, {0: split}, order)[0]
        for labels in (found.labels, wrong)
    ]
    everywhere = np.ones(split.train.shape, bool)
    np.testing.assert_array_equal(*(each.mapping(everywhere) for each in trained))
    assert trained[0].settings == trained[1].settings
    assert [each["accuracy"] for each in trained[0].trials["tried"]] == [
        each["accuracy"] for each in trained[1].trials["tried"]
    ]


def test_tuning_tries_the_plans_settings_first_and_as_many_as_asked(tmp_path):
    text = changed("[[data]]", "[tuning]\ntrials = 3\nfolds = 1\nsteps = [2, 4]\n\n[[data]]")
    plan = small_plan(tmp_path, text)
    (outcome,) = execute(Order((plan.runs[0],), plan.tuning, False, "cpu"))
    assert outcome.result["status"] == DONE, outcome
    assert outcome.result["tuning"] == {"trials": 3, "folds": 1}
    assert outcome.trials is not None
    first, *others = outcome.trials["tried"]
    assert first["changes"] == {}
    assert all({"learning_rate", "weight_decay", "noise", "model_options"} <= set(other["changes"]) for other in others)
    best = max(outcome.trials["tried"], key=lambda trial: trial["accuracy"])
    assert outcome.trials["tried"].index(best) == outcome.trials["chosen"]


def test_seeds_tuned_together_try_and_find_what_they_do_alone(tmp_path):
    text = changed("[[data]]", "[tuning]\ntrials = 2\nfolds = 2\nsteps = [2, 4]\n\n[[data]]")
    plan = small_plan(tmp_path, text)
    runs = plan.runs[:2]
    assert [run.seed for run in runs] == [0, 1]
    together = execute(Order(runs, plan.tuning, False, "cpu"))
    for run, outcome in zip(runs, together, strict=True):
        (alone,) = execute(Order((run,), plan.tuning, False, "cpu"))
        assert alone.trials is not None
        assert outcome.trials is not None
        assert outcome.trials["tried"] == alone.trials["tried"]
        assert outcome.settings == alone.settings
        assert outcome.result["confusion"] == alone.result["confusion"]


@pytest.mark.parametrize("method", ["random", "blocks"])
def test_inner_folds_are_of_training_pixels_alone(method, tmp_path):
    text = changed('method = "random"', f'method = "{method}"').replace(
        "rows = 24, columns = 24", "rows = 48, columns = 48"
    )
    plan = small_plan(tmp_path, text)
    found = load(plan.runs[0].data, None)
    split = found.split(plan.runs[0].split, 0)
    folds = tuning.inner_splits(found.scene, found.labels, split, plan.runs[0].model.network)
    assert len(folds) > 1
    for fold in folds:
        assert not ((fold.train | fold.test) & ~split.train).any()
        assert not (fold.training_side & ~split.training_side).any()
        assert isinstance(fold, Split)
    if method == "blocks":
        near = folds[0].training_side & ~folds[0].train
        rows, columns = np.nonzero(folds[0].test)
        distance = np.abs(np.argwhere(near)[:, None] - np.stack([rows, columns], 1)).max(2)
        assert distance.min() > 8


def test_a_class_of_one_pixel_each_is_not_tuned(small_scene, small_labels):
    split = split_random(small_labels, per_class=1)
    settings = small_settings()
    (found,) = tuning.tune(small_scene, small_labels, {0: split}, {0: settings}, Tuning(trials=3), "cpu").values()
    assert found.settings == settings
    assert "no class has training pixels" in found.record["reason"]


def small_settings():
    from spectralmamba import Settings

    return Settings(steps=2, patch=1, batch_size=8, self_training_rounds=0, companion="none", set_coverage=0)


def accuracies(tables: Tables) -> list[list[float]]:
    return [row.score("overall_accuracy") for row in tables.rows]
