"""`model = "auto"`: which classifier is chosen, why, and from what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from training_example import Data, scene_of, task_of

from spectralmamba import Classifier, Settings, fit, fit_seeds, split_masks
from spectralmamba.errors import ClassifierError, ModelError, SettingsError, TrainingInterrupted
from spectralmamba.models.committee import SIMPLE_MODELS
from spectralmamba.training import choice, fitting
from spectralmamba.training.choice import FIRST_CHOICE, choose_model
from spectralmamba.training.task import Task

LABELS = 36
KINDS = {name.replace("_", " "): name for name in SIMPLE_MODELS}


class Knowing(nn.Module):
    """Tells the class of some of the scene's pixels, whatever was learned, and of the others a wrong one."""

    def __init__(self, task: Task, known: np.ndarray) -> None:
        super().__init__()
        self.spectra, self.targets = task.normalised.pixels.values[task.positions], task.targets
        self.known, self.classes = torch.from_numpy(known), len(task.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        which = torch.cdist(x, self.spectra).argmin(1)
        answers = torch.where(self.known[which], self.targets[which], (self.targets[which] + 1) % self.classes)
        return nn.functional.one_hot(answers, self.classes).float()


@pytest.fixture
def settings() -> Settings:
    return Settings(patch=1)


@pytest.fixture
def task(settings: Settings) -> Task:
    """Labels of two classes, of each some in every corner of the scene."""
    scene, labels = scene_of([1, 1])
    labels.values[:] = 0
    for rows in (np.s_[:3], np.s_[-3:]):
        for columns in (np.s_[:3], np.s_[-3:]):
            labels.values[rows, columns] = np.arange(9).reshape(3, 3) % 2 + 1
    found = task_of(scene, labels, settings)
    assert len(found.targets) == LABELS
    return found


def chosen(
    monkeypatch: pytest.MonkeyPatch, task: Task, settings: Settings, known: Mapping[str, np.ndarray]
) -> choice.Choice:
    """Choose among candidates that know some labels each; a name that is left out knows none."""
    nothing = np.zeros(len(task.targets), bool)

    def simple(kind: str, *_: object) -> nn.Module:
        return Knowing(task, known.get(KINDS[kind], nothing))

    def train(tasks: Mapping[int, Task], _: Settings) -> dict[int, nn.Module]:
        return {fold: Knowing(task, known.get(FIRST_CHOICE, nothing)) for fold in tasks}

    monkeypatch.setattr(choice, "learn_simple", simple)
    return choose_model(task, settings, train)


def first(count: int) -> np.ndarray:
    return np.arange(LABELS) < count


# What is chosen ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lead", "clear"),
    # Of n labels k more give the gain a mean of p = k / n and a standard error of √(p (1 − p) / n): two of them at k = 3.6 of 36.
    [(1, False), (3, False), (4, True), (20, True)],
)
@pytest.mark.parametrize("name", SIMPLE_MODELS)
def test_another_is_chosen_only_if_it_is_better_by_two_standard_errors(
    monkeypatch: pytest.MonkeyPatch, task: Task, settings: Settings, name: str, lead: int, clear: bool
):
    found = chosen(monkeypatch, task, settings, {FIRST_CHOICE: first(16), name: first(16 + lead)})
    assert found.labels == LABELS
    assert found.model == (name if clear else FIRST_CHOICE)
    assert found.accuracies[FIRST_CHOICE] == 16 / LABELS
    assert found.accuracies[name] == (16 + lead) / LABELS
    assert list(found.accuracies) == [FIRST_CHOICE, *SIMPLE_MODELS]
    assert found.reason.startswith(
        f"{found.model}: of 36 labels left out block by block, {name} {(16 + lead) / LABELS:.3f}"
    )
    assert (f"The lead of {name} is within two standard errors." in found.reason) == (not clear)


def test_a_lead_counts_less_where_each_is_right_on_labels_that_the_other_is_not(
    monkeypatch: pytest.MonkeyPatch, task: Task, settings: Settings
):
    found = chosen(monkeypatch, task, settings, {FIRST_CHOICE: first(17), "label_propagation": ~first(17)})
    assert found.accuracies["label_propagation"] > found.accuracies[FIRST_CHOICE]
    assert found.model == FIRST_CHOICE


@pytest.mark.parametrize("right", [0, 20, LABELS])
def test_among_equals_the_first_choice_stands(
    monkeypatch: pytest.MonkeyPatch, task: Task, settings: Settings, right: int
):
    found = chosen(monkeypatch, task, settings, {name: first(right) for name in (FIRST_CHOICE, *SIMPLE_MODELS)})
    assert found.model == FIRST_CHOICE
    assert "standard errors" not in found.reason


def test_of_several_that_are_better_the_best_is_chosen(monkeypatch: pytest.MonkeyPatch, task: Task, settings: Settings):
    known = {"label_propagation": first(30), "support_vectors": first(34), "logistic_regression": first(32)}
    assert chosen(monkeypatch, task, settings, known).model == "support_vectors"


def test_a_candidate_that_cannot_learn_so_many_classes_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, task: Task, settings: Settings
):
    def simple(kind: str, *_: object) -> nn.Module:
        if kind == "support vectors":
            raise SettingsError("too many")
        return Knowing(task, first(LABELS))

    monkeypatch.setattr(choice, "learn_simple", simple)
    found = choose_model(task, settings, lambda tasks, _: dict.fromkeys(tasks, Knowing(task, first(0))))
    assert list(found.accuracies) == [FIRST_CHOICE, "label_propagation", "logistic_regression"]
    assert found.model == "label_propagation"


def test_where_no_class_has_labels_in_two_places_the_first_choice_stands_untested(settings: Settings):
    scene, labels = scene_of([20, 20])
    labels.values[:], labels.values[:3, :3], labels.values[-3:, -3:] = 0, 1, 2

    def never(*_: object) -> dict[int, nn.Module]:
        raise AssertionError("there is nothing to train")

    found = choose_model(task_of(scene, labels, settings), settings, never)
    assert (found.model, found.accuracies, found.labels) == (FIRST_CHOICE, {}, 0)
    assert "no class has labels in two places" in found.reason


# From what ---------------------------------------------------------------------------------------


def test_what_is_left_out_is_not_learned_and_each_label_is_left_out_once(
    monkeypatch: pytest.MonkeyPatch, task: Task, settings: Settings
):
    given: list[dict[int, Task]] = []
    learned: list[Task] = []
    asked: list[tuple[np.ndarray, np.ndarray]] = []
    right = choice._right

    def told(models: Any, all_of_it: Task, left_out: Mapping[int, np.ndarray], patch: int) -> np.ndarray:
        asked.extend(
            (given[0][fold].positions.numpy(), all_of_it.positions[mask].numpy()) for fold, mask in left_out.items()
        )
        return right(models, all_of_it, left_out, patch)

    def train(tasks: Mapping[int, Task], _: Settings) -> dict[int, nn.Module]:
        given.append(dict(tasks))
        return dict.fromkeys(tasks, Knowing(task, first(LABELS)))

    def simple(_: str, fewer: Task, *__: object) -> nn.Module:
        learned.append(fewer)
        return Knowing(task, first(LABELS))

    monkeypatch.setattr(choice, "learn_simple", simple)
    monkeypatch.setattr(choice, "_right", told)
    choose_model(task, settings, train)
    folds = given[0]
    assert [id(fewer) for fewer in learned] == [id(fewer) for fewer in folds.values()] * len(SIMPLE_MODELS)
    for kept, left_out in asked:
        assert not np.isin(left_out, kept).any()
        assert len(kept) + len(left_out) == len(task.positions)
    of_one = asked[: len(folds)]
    everything = np.sort(np.concatenate([left_out for _, left_out in of_one]))
    np.testing.assert_array_equal(everything, np.sort(task.positions.numpy()))


# The classifier ----------------------------------------------------------------------------------


def strip(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in card.items() if key != "choice"}


def force(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Choose this one, whatever the candidates say."""
    monkeypatch.setattr(fitting, "choose_model", lambda *_: choice.Choice(name, {name: 1.0}, 1, f"{name}: asked for."))


@pytest.mark.parametrize("name", [FIRST_CHOICE, *SIMPLE_MODELS])
def test_the_chosen_classifier_is_what_fit_gives_with_that_model(
    monkeypatch: pytest.MonkeyPatch, data: Data, quick: Settings, small_scene: xr.DataArray, name: str
):
    force(monkeypatch, name)
    auto, direct = (fit(*data, quick, model=model, device="cpu") for model in ("auto", name))
    assert strip(auto.card) == strip(direct.card)
    assert auto.card["choice"] == {
        "model": name,
        "accuracies": {name: 1.0},
        "labels": 1,
        "reason": f"{name}: asked for.",
    }
    assert direct.card["choice"] is None
    xr.testing.assert_identical(auto.predict_proba(small_scene), direct.predict_proba(small_scene))
    xr.testing.assert_identical(auto.predict_sets(small_scene), direct.predict_sets(small_scene))


@pytest.fixture
def fields(small_scene: xr.DataArray, small_labels: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Labels in the corners of the small scene, so that each class has some in two places."""
    labels = small_labels.copy(deep=True)
    labels.values[:] = 0
    valid = np.isfinite(small_scene.values).all(0)
    for number, (row, column) in enumerate([(0, 5), (0, 11), (11, 0), (11, 5), (5, 0), (11, 11)]):
        window = np.s_[max(0, row - 1) : row + 1, max(0, column - 1) : column + 1]
        labels.values[window] = np.where(valid[window], number % 2 + 1, 0)
    return small_scene, labels


def test_the_card_tells_what_was_chosen_from_what_and_why_and_is_read_again(
    fields: tuple[xr.DataArray, xr.DataArray], quick: Settings, tmp_path: Path, bytes_of: Callable[[Classifier], bytes]
):
    classifier = fit(*fields, None, quick, model="auto", device="cpu")
    found = classifier.card["choice"]
    assert found.keys() == {"model", "accuracies", "labels", "reason"}
    assert list(found["accuracies"]) == [FIRST_CHOICE, *SIMPLE_MODELS]
    assert all(0 <= share <= 1 for share in found["accuracies"].values())
    assert 0 < found["labels"] <= (fields[1].values > 0).sum()
    assert found["reason"].startswith(f"{found['model']}: of {found['labels']} labels")
    assert classifier.card["model"]["name"] == classifier.card["settings"]["model"] == found["model"]
    classifier.save(tmp_path / "model.safetensors")
    assert Classifier.load(tmp_path / "model.safetensors", "cpu").card["choice"] == found
    direct = fit(*fields, None, quick, model=found["model"], device="cpu")
    xr.testing.assert_identical(direct.predict_proba(fields[0]), classifier.predict_proba(fields[0]))
    assert bytes_of(classifier) == bytes_of(fit(*fields, None, quick, model="auto", device="cpu"))


def test_test_labels_have_no_influence(
    fields: tuple[xr.DataArray, xr.DataArray], quick: Settings, bytes_of: Callable[[Classifier], bytes]
):
    scene, labels = fields
    train = labels.values > 0
    test = ~train & np.isfinite(scene.values).all(0)
    found = []
    for tested in (1, 2):
        given = labels.where(xr.DataArray(~test, dims=("y", "x")), tested)
        found.append(fit(scene, given, split_masks(train, test, labels=given), quick, model="auto", device="cpu"))
    assert found[0].card["choice"]["labels"] > 0
    for classifier in found:
        classifier.card["split"] = None  # counts the test pixels of each class
    assert bytes_of(found[0]) == bytes_of(found[1])


def test_of_several_seeds_each_has_its_own_choice(
    fields: tuple[xr.DataArray, xr.DataArray], quick: Settings, bytes_of: Callable[[Classifier], bytes]
):
    together = fit_seeds(*fields, {0: None, 3: None}, quick, model="auto", device="cpu")
    for seed, classifier in together.items():
        assert classifier.card["settings"]["seed"] == seed
        assert bytes_of(classifier) == bytes_of(fit(*fields, None, quick, model="auto", seed=seed, device="cpu"))


def test_seeds_may_have_different_models(monkeypatch: pytest.MonkeyPatch, data: Data, quick: Settings):
    scene, labels, split = data
    names = {0: "label_propagation", 1: FIRST_CHOICE, 2: "logistic_regression"}
    monkeypatch.setattr(
        fitting, "choose_model", lambda _, settings, __: choice.Choice(names[settings.seed], {}, 0, "Said so.")
    )
    found = fit_seeds(scene, labels, dict.fromkeys(names, split), quick, model="auto", device="cpu")
    assert {seed: classifier.card["model"]["name"] for seed, classifier in found.items()} == names
    for seed, classifier in found.items():
        direct = fit(scene, labels, split, quick, model=names[seed], seed=seed, device="cpu")
        assert strip(classifier.card) == strip(direct.card)
        xr.testing.assert_identical(classifier.predict_proba(scene), direct.predict_proba(scene))


def test_choosing_leaves_the_callers_random_numbers_as_they_were(
    fields: tuple[xr.DataArray, xr.DataArray], quick: Settings
):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit(*fields, None, quick, steps=1, model="auto", device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_model_is_refused_with_all_that_there_are(data: Data, quick: Settings):
    with pytest.raises(ModelError) as refused:
        fit(*data, quick, model="label_propagatoin", device="cpu")
    assert all(name in str(refused.value) for name in (FIRST_CHOICE, *SIMPLE_MODELS, "auto"))
    assert str(refused.value).endswith("Did you mean 'label_propagation'?")


def test_ctrl_c_in_the_comparison_says_so_and_keeps_no_checkpoint(
    monkeypatch: pytest.MonkeyPatch, fields: tuple[xr.DataArray, xr.DataArray], quick: Settings, tmp_path: Path
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting.SingleSteps, "advance", interrupted)
    with pytest.raises(TrainingInterrupted, match="while classifiers were compared"):
        fit(*fields, None, quick, model="auto", device="cpu", checkpoint=tmp_path / "checkpoint.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damaged", ["spectral_mamba", {}, {"reason": 3}, [], 1])
def test_a_card_whose_choice_has_no_reason_is_refused(data: Data, quick: Settings, tmp_path: Path, damaged: Any):
    classifier = fit(*data, quick, model="logistic_regression", device="cpu")
    classifier.card["choice"] = damaged
    classifier.save(tmp_path / "model.safetensors")
    with pytest.raises(ClassifierError, match="does not describe a classifier"):
        Classifier.load(tmp_path / "model.safetensors", "cpu")
