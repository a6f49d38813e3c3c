from __future__ import annotations

from pathlib import Path

import pytest
from experiment_plans import SMALL, changed, small_plan, write_plan

from spectralmamba.errors import PlanError
from spectralmamba.experiments.plan import load_plan, make_plan
from spectralmamba.experiments.published import PUBLISHED, published_of

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def test_every_combination_is_a_run(tmp_path):
    plan = small_plan(tmp_path, changed("per_class = 5", "per_class = [3, 5]"))
    assert len(plan.runs) == 1 * 2 * 3 * 2
    assert len({run.place for run in plan.runs}) == len(plan.runs)
    assert [split for split in dict.fromkeys(run.split.name for run in plan.runs)] == [
        "random, 3 a class",
        "random, 5 a class",
    ]


def test_lists_of_a_model_make_several(tmp_path):
    text = changed(
        "patch = 3\nmodel_options = { width = 8, states = 2 }", "patch = [1, 3]\nmodel_options = { piece = [2, 4] }"
    )
    names = list(dict.fromkeys(run.model.name for run in small_plan(tmp_path, text).runs))
    assert names[:4] == [
        "ours, P = 1, piece = 2",
        "ours, P = 1, piece = 4",
        "ours, P = 3, piece = 2",
        "ours, P = 3, piece = 4",
    ]


def test_splits_apart_keep_the_widest_model_at_a_distance(tmp_path):
    text = (
        changed('method = "random"', 'method = "blocks"')
        + '\n[[model]]\nmodel = "svm"\nfeatures = "means"\nwindow = 9\n'
    )
    assert {run.split.arguments["buffer"] for run in small_plan(tmp_path, text).runs} == {4}


def test_a_split_may_be_for_some_data_only(tmp_path):
    text = SMALL.replace(
        "[[split]]", '[[data]]\nname = "other"\nsimulated = { rows = 16, columns = 16 }\n\n[[split]]\ndata = ["oth*"]'
    )
    assert {run.data.name for run in small_plan(tmp_path, text).runs} == {"other"}


def test_seeds_can_be_replaced(tmp_path):
    plan = small_plan(tmp_path).with_seeds([7])
    assert [run.seed for run in plan.runs] == [7, 7, 7]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "Small"', 'titel = "Small"', ("unknown key 'titel'", "Did you mean 'title'?")),
        ('model = "mlp"', 'model = "mpl"', ("unknown model", "Did you mean 'mlp'?")),
        ('model = "svm"', 'model = "random_forrest"', ("unknown model", "Did you mean 'random_forest'?")),
        ("steps = 4", "step = 4", ("unknown key 'step' in the settings", "Did you mean 'steps'?")),
        ("steps = 4", 'steps = "many"', ("'steps' has the wrong type",)),
        ("steps = 4", "steps = 4\nseed = 3", ("'seed' has another place", "seeds of the plan")),
        ("width = 8, states", "widht = 8, states", ("unknown key 'widht'", "Did you mean 'width'?")),
        ('method = "random"', 'method = "ramdon"', ("unknown split method", "Did you mean 'random'?")),
        ("per_class = 5", "perclass = 5", ("unknown key 'perclass' in the split", "Did you mean 'per_class'?")),
        ("per_class = 5", "", ("number of training pixels is not clear", "exactly one")),
        ('method = "random"\nper_class = 5', 'method = "standard"', ("fields has no standard split",)),
        ("rows = 24", "row = 24", ("unknown key 'row'", "Did you mean 'rows'?")),
        ("seeds = [0, 1]", "seeds = [0, 0]", ("the seeds cannot be used",)),
        ("seeds = [0, 1]", 'compare = "model"', ("unknown compare", "Did you mean 'models'?")),
        ('features = "pixels"', 'features = "pixel"', ("unknown features", "Did you mean 'pixels'?")),
        ('features = "pixels"', 'features = "means"\nwindow = 2', ("the window has no centre pixel",)),
        ('name = "ours"', 'name = "ours"\npublished = "bass"', ("unknown published figures", "Did you mean 'base'?")),
        ('name = "ours"', 'name = "ours"\npreset = "papr"', ("unknown preset", "Did you mean 'paper'?")),
        ('name = "ours"', 'name = "mlp, pixelwise, width = 8"', ("two models have the same name",)),
        ('name = "ours"', 'data = ["feilds"]', ("no data set of the plan", "Did you mean 'fields'?")),
        ('name = "fields"\nsimulated', 'name = "botswanna"\n#', ("unknown data set", "Did you mean 'botswana'?")),
        ('name = "fields"\nsimulated', 'name = "mine"\nscene = "a.tif"\n#', ("not complete", "labels")),
        ("[settings]", "[tuning]\ntrails = 3\n\n[settings]", ("unknown key 'trails'", "Did you mean 'trials'?")),
        ("[settings]", "[tuning]\nfolds = 9\n\n[settings]", ("the tuning is out of range",)),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path, old, new, words):
    with pytest.raises(PlanError) as caught:
        small_plan(tmp_path, changed(old, new))
    for word in ("plan.toml", *words):
        assert word in str(caught.value)


def test_a_file_that_is_no_toml_says_where(tmp_path):
    with pytest.raises(PlanError, match=r"not valid TOML.*line 2"):
        load_plan(write_plan(tmp_path, "seeds = [0]\ntitle = \n"))
    with pytest.raises(PlanError, match="cannot read the plan"):
        load_plan(tmp_path / "none.toml")


def test_an_empty_plan_says_what_is_missing():
    with pytest.raises(PlanError, match=r"no 'data'.*\[\[data\]\]"):
        make_plan({})


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_plans_of_the_project_can_be_read_and_say_what_they_show(path):
    plan = load_plan(path)
    assert plan.runs
    comment = " ".join(line.removeprefix("# ") for line in path.read_text("utf-8").splitlines() if line.startswith("#"))
    assert comment.startswith("What it shows:")
    assert "Not published of the paper's protocol" in comment or "Nothing of it is in the paper" in comment


def test_published_rows_are_found_by_the_plans_that_are_compared_with_them():
    found = set()
    for path in EXPERIMENTS.glob("*.toml"):
        found |= {published_of(run.model, run.data.name) for run in load_plan(path).runs}
    assert found >= set(PUBLISHED)
