"""What is done for classes with few labels: the loss, and the network that has learned from it."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from training_example import SIDE, Data, scene_from, stopped_and_resumed

from spectralmamba import Classifier, Settings, fit, fit_seeds
from spectralmamba.errors import SettingsError, TrainingInterrupted
from spectralmamba.models.committee import Committee
from spectralmamba.training import Progress, fitting, state
from spectralmamba.training.rare_classes import Loss, without_prior
from spectralmamba.training.self_training import Pupil, Stage

CHOICES = ["as drawn", "balanced batches", "balanced loss", "logit adjustment", "prior correction"]
COUNTS = np.array([70, 5, 25])
LOG_PRIOR = np.log([0.7, 0.05, 0.25])
WEIGHTS = np.array([100 / (3 * 70), 100 / (3 * 5), 100 / (3 * 25)])


def batch(size: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and soft targets, as mixup makes them."""
    random = np.random.default_rng(seed)
    logits, targets = 3 * random.normal(size=(size, 3)), random.dirichlet([0.5] * 3, size)
    return torch.from_numpy(logits).float(), torch.from_numpy(targets).float()


# The loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rare_classes", CHOICES)
def test_the_loss_is_that_of_its_formula(rare_classes: str, smoothing: float):
    logits, targets = batch()
    adjustment = LOG_PRIOR if rare_classes == "logit adjustment" else 0
    weights = targets.double().numpy() @ WEIGHTS if rare_classes == "balanced loss" else 1
    smoothed = (1 - smoothing) * targets.double().numpy() + smoothing / 3
    losses = -(smoothed * log_softmax(logits.double().numpy() + adjustment, axis=1)).sum(1)
    settings = Settings(rare_classes=rare_classes, label_smoothing=smoothing)
    found = Loss(torch.from_numpy(COUNTS).float(), settings)(logits, targets)
    assert found.item() == pytest.approx((weights * losses).mean(), rel=1e-6)  # float32


@pytest.mark.parametrize("rare_classes", ["as drawn", "balanced batches", "prior correction"])
def test_where_the_loss_is_left_alone_it_is_torchs_to_the_last_bit(rare_classes: str):
    logits, targets = batch(64)
    found = Loss(torch.from_numpy(COUNTS).float(), Settings(rare_classes=rare_classes))(logits, targets)
    assert torch.equal(found, cross_entropy(logits, targets, label_smoothing=Settings().label_smoothing))


def test_weights_have_the_mean_one_over_training_pixels_and_the_same_sum_in_each_class():
    loss = Loss(torch.from_numpy(COUNTS).float(), Settings(rare_classes="balanced loss", label_smoothing=0))
    targets = one_hot(torch.from_numpy(np.repeat(np.arange(3), COUNTS)), 3).float()
    undecided = torch.zeros(100, 3)
    assert loss(undecided, targets).item() == pytest.approx(np.log(3), rel=1e-6)
    sums = [float(loss(undecided, targets * one_hot(torch.tensor(number), 3))) for number in range(3)]
    np.testing.assert_allclose(sums, np.log(3) / 3, rtol=1e-6)


@pytest.mark.parametrize("rare_classes", CHOICES)
def test_the_loss_of_several_trainings_is_that_of_each(rare_classes: str):
    settings = Settings(rare_classes=rare_classes)
    counts = torch.tensor([[70.0, 5.0, 25.0], [1.0, 30.0, 2.0]])
    parts = [batch(seed=seed) for seed in range(2)]
    logits, targets = (torch.stack([part[number] for part in parts]) for number in range(2))
    found = Loss(counts[:, None], settings)(logits, targets)
    expected = torch.stack([Loss(of_one, settings)(*part) for of_one, part in zip(counts, parts, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_classes_count_as_in_the_lesson_that_is_learned(data: Data, tiny: Settings, monkeypatch: pytest.MonkeyPatch):
    counts: list[list[int]] = []

    def noted(of_classes: Tensor, settings: Settings) -> Loss:
        counts.append(of_classes.int().tolist())
        return Loss(of_classes, settings)

    monkeypatch.setattr(state, "Loss", noted)
    classifier = fit(*data, tiny, rare_classes="logit adjustment", device="cpu")
    labelled = list(classifier.card["self_training"]["pseudo_labels"].values())
    assert sum(labelled) > 0
    assert (counts[0], counts[-1]) == ([4, 4, 4], [4 + count for count in labelled])


# Rare classes ------------------------------------------------------------------------------------


def recall_of_rare_class(rare_classes: str) -> float:
    """Of two classes that overlap, 120 and 8 pixels are labelled; of the others half are of the rare one."""
    random = np.random.default_rng(0)
    of_pixel = random.permutation(SIDE * SIDE) % 2
    spectra = random.normal(size=(SIDE * SIDE, 4))
    spectra[:, 0] += 1.5 * of_pixel
    ids = np.zeros(SIDE * SIDE, np.int64)
    for number, count in enumerate((120, 8)):
        ids[np.flatnonzero(of_pixel == number)[:count]] = number + 1
    unknown = ("band", np.full(4, np.nan))
    coordinates = {"good": ("band", np.ones(4, bool)), "wavelength": unknown, "fwhm": unknown}
    scene = scene_from(spectra).assign_coords(coordinates)
    labels = xr.DataArray(ids.reshape(SIDE, SIDE), dims=("y", "x"))
    # A small network and much noise, so that it does not know the eight by heart.
    settings = Settings(
        patch=1, steps=100, learning_rate=5e-3, model_options={"width": 8, "states": 2}, normalisation="standard",
        noise=0.5, neighbour_difference=0, band_dropout=0, self_training_rounds=0, companion="none",
    )  # fmt: skip
    found = fit(scene, labels, None, settings, rare_classes=rare_classes, device="cpu").predict(scene).values.flatten()
    return float((found[(of_pixel == 1) & (ids == 0)] == 2).mean())


@pytest.fixture(scope="module")
def recall_as_drawn() -> float:
    return recall_of_rare_class("as drawn")


@pytest.mark.parametrize("rare_classes", CHOICES[1:])
def test_a_rare_class_is_found_more_often_than_as_drawn(recall_as_drawn: float, rare_classes: str):
    # The best that can be is 0.77 with classes equally likely, 0.15 with 15 times as many pixels of the other. Over four
    # scenes it was 0.69 to 0.94, and 0.07 at most as drawn.
    assert recall_of_rare_class(rare_classes) > recall_as_drawn + 0.3


# Prior correction --------------------------------------------------------------------------------


@pytest.fixture
def unequal(data: Data) -> Data:
    """The small scene with a training pixel of class 1, four of class 2 and three of class 3."""
    scene, labels, split = data
    train = split.train.copy()
    for class_id, left_out in ((1, 3), (3, 1)):
        rows, columns = np.nonzero(train & (labels.values == class_id))
        train[rows[:left_out], columns[:left_out]] = False
    return scene, labels, dataclasses.replace(split, train=train)


def test_a_corrected_network_is_that_trained_as_drawn_but_for_the_prior_in_its_bias(unequal: Data, quick: Settings):
    plain, corrected = (
        fit(*unequal, quick, companion="none", rare_classes=rare_classes, device="cpu").network.state_dict()
        for rare_classes in ("as drawn", "prior correction")
    )
    shift = corrected.pop("head.bias") - plain.pop("head.bias")
    np.testing.assert_allclose(shift, -np.log(np.array([1, 4, 3]) / 8), rtol=1e-5)
    assert all(torch.equal(corrected[name], tensor) for name, tensor in plain.items())


def test_a_companion_decides_beside_the_corrected_network(unequal: Data, quick: Settings):
    alone = fit(*unequal, quick, companion="none", rare_classes="prior correction", device="cpu").network
    both = fit(*unequal, quick, rare_classes="prior correction", device="cpu").network
    assert isinstance(both, Committee)
    assert all(torch.equal(tensor, both.network.state_dict()[name]) for name, tensor in alone.state_dict().items())


def test_teachers_are_corrected_as_the_classifier_is(unequal: Data, tiny: Settings, monkeypatch: pytest.MonkeyPatch):
    taught: dict[str, list[Tensor]] = {"as drawn": [], "prior correction": []}
    learned = Pupil.learned
    for rare_classes, biases in taught.items():

        def noted(self: Pupil, network: nn.Module, stage: Stage, biases: list[Tensor] = biases) -> None:
            biases.append(network.state_dict()["head.bias"].clone())
            learned(self, network, stage)

        monkeypatch.setattr(Pupil, "learned", noted)
        fit(*unequal, tiny, rare_classes=rare_classes, device="cpu")
    # The first round's two, which have learned the same labels either way.
    for plain, corrected in list(zip(*taught.values(), strict=True))[:2]:
        np.testing.assert_allclose(corrected - plain, -np.log(np.array([1, 4, 3]) / 8), rtol=1e-5)


@pytest.mark.parametrize("companion", ["label propagation", "none"])
def test_a_corrected_classifier_predicts_the_same_when_it_is_read_again(
    unequal: Data, quick: Settings, tmp_path: Path, companion: str
):
    classifier = fit(*unequal, quick, companion=companion, rare_classes="prior correction", device="cpu")
    classifier.save(tmp_path / "model.safetensors")
    again = Classifier.load(tmp_path / "model.safetensors", "cpu")
    xr.testing.assert_identical(again.predict_proba(unequal[0]), classifier.predict_proba(unequal[0]))


@pytest.mark.parametrize("step", [2, 3, 10])  # at the end of the first stage, in the second, at the end of all
def test_a_corrected_training_that_goes_on_from_a_checkpoint_comes_to_the_same_file(
    unequal: Data, tiny: Settings, bytes_of: Any, tmp_path: Path, step: int
):
    settings = tiny.replace(rare_classes="prior correction")
    resumed = stopped_and_resumed(unequal, settings, tmp_path / "checkpoint.safetensors", step)
    assert bytes_of(resumed) == bytes_of(fit(*unequal, settings, device="cpu"))


def test_ctrl_c_after_the_correction_does_not_correct_twice(
    unequal: Data, quick: Settings, bytes_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings, checkpoint = quick.replace(rare_classes="prior correction"), tmp_path / "checkpoint.safetensors"
    expected = bytes_of(fit(*unequal, settings, device="cpu"))

    def pressed(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "learn_novelty", pressed)
        with pytest.raises(TrainingInterrupted):
            fit(*unequal, settings, device="cpu", checkpoint=checkpoint)
    assert bytes_of(fit(*unequal, settings, device="cpu", checkpoint=checkpoint, resume=True)) == expected


class HeadFirst(nn.Module):
    """A network whose parameters are in another order than it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(3, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x)))


class Tempered(nn.Module):
    """A network whose logits are its last layer's, sharpened, so that no bias moves them as far as itself."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.only(x)


@pytest.mark.parametrize(
    "build",
    [
        HeadFirst,
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)),
        lambda: nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3)),
        lambda: nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 3, 1), nn.Flatten()),
    ],
    ids=["head first", "as wide as classes", "log-softmax", "batch normalisation", "convolution"],
)
def test_any_network_with_a_bias_of_its_logits_is_corrected_and_left_alone_itself(build: Any):
    torch.manual_seed(0)
    network, x = build().eval(), torch.randn(20, 4)
    before = network(x)
    corrected = without_prior(network, torch.tensor([0.7, 0.05, 0.25]), x)
    expected = log_softmax(before.detach().double().numpy() - LOG_PRIOR, axis=1)
    np.testing.assert_allclose(corrected(x).log_softmax(1).detach(), expected, rtol=0, atol=1e-5)  # float32
    assert torch.equal(network(x), before)


@pytest.mark.parametrize("build", [lambda: nn.Linear(4, 3, bias=False), Tempered], ids=["no bias", "tempered"])
def test_a_network_without_such_a_bias_is_refused(build: Any):
    with pytest.raises(SettingsError, match="logit adjustment"):
        without_prior(build(), torch.tensor([0.7, 0.05, 0.25]), torch.randn(20, 4))


def test_what_cannot_be_corrected_is_refused_before_a_step_is_done(
    unequal: Data, quick: Settings, monkeypatch: pytest.MonkeyPatch
):
    heard: list[Progress] = []
    monkeypatch.setattr(fitting, "build_network", lambda _, bands, classes: nn.Linear(bands, classes, bias=False))
    settings = quick.replace(patch=1, rare_classes="prior correction")
    with pytest.raises(SettingsError, match="rare_classes"):
        fit(*unequal, settings, device="cpu", on_step=heard.append)
    assert not heard


@pytest.mark.parametrize("rare_classes", CHOICES)
def test_on_a_cpu_every_seed_makes_up_for_rare_classes_as_by_fit_byte_for_byte(
    unequal: Data, quick: Settings, bytes_of: Any, rare_classes: str
):
    scene, labels, split = unequal
    settings = quick.replace(rare_classes=rare_classes)
    together = fit_seeds(scene, labels, {0: split, 5: None}, settings, device="cpu")
    for seed, used in ((0, split), (5, None)):
        assert bytes_of(together[seed]) == bytes_of(fit(scene, labels, used, settings, seed=seed, device="cpu"))
