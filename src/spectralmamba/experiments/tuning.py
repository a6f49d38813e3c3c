"""Tuning networks: the same number of trials for each, scored on training pixels that are left out in turn."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from spectralmamba.errors import MissingPackageError
from spectralmamba.experiments.data import training_labels
from spectralmamba.experiments.plan import Tuning
from spectralmamba.experiments.simple import read_pixels
from spectralmamba.models import list_models, list_options
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.training import fit_seeds
from spectralmamba.training.draws import Purpose, generator
from spectralmamba.training.folds import divide, leave_out
from spectralmamba.training.task import prepare

SAMPLER_SEED = 0
RATES, DECAYS, NOISES, DROPOUTS = (3e-4, 1e-2), (1e-4, 1e-1), (0.0, 0.4), (0.0, 0.5)
_MOST_FOLDS = 5  # that training pixels are divided into
_NOTHING_LEFT_OUT = "no class has training pixels that could be left out"
_FOLD_DRAW = 2  # another stream than those of prediction sets and of `model = "auto"`


@dataclass(frozen=True)
class Tuned:
    """The settings of the best trial, and the record of all.

    Attributes:
        settings: Complete settings.
        record: Trials with their settings and accuracy, folds, sampler's seed, seconds; ready for JSON.
    """

    settings: Settings
    record: dict[str, Any]


@dataclass
class _Search:
    """The trials of a seed: its own settings, Optuna's study, the folds of its training pixels, and what has been tried."""

    own: Settings
    study: Any
    folds: list[Split]
    best: Settings
    tried: list[dict[str, Any]] = field(default_factory=list)
    chosen: int = 0

    def take(self, settings: Settings, accuracy: float) -> None:
        """Note what settings gave."""
        if accuracy > max((entry["accuracy"] for entry in self.tried), default=-1.0):
            self.best, self.chosen = settings, len(self.tried)
        self.tried.append({"changes": _changes(settings, self.own), "accuracy": accuracy})


def tune(
    scene: xr.DataArray,
    labels: xr.DataArray,
    splits: Mapping[int, Split],
    settings: Mapping[int, Settings],
    tuning: Tuning,
    device: str,
) -> dict[int, Tuned]:
    """Try settings on folds of each seed's training pixels, the given ones first, and return the best of each seed.

    Labels of pixels that train in none of the splits are taken away before anything else. Seeds that try the same settings train
    together, which they do as long as Optuna has no trials to learn from.

    Args:
        scene: `(band, y, x)`.
        labels: `(y, x)` class ids.
        splits: Which of them train, of each seed.
        settings: What trials change, of each seed to be tuned.
        tuning: How many trials, and on how many folds.
        device: torch's name of a device.

    Raises:
        MissingPackageError: Optuna is not installed.
        SpectralMambaError: As `fit` does.
    """
    optuna = _optuna()
    if not settings:
        return {}
    start = time.perf_counter()
    searches, found = {}, {}
    for seed, own in settings.items():
        known = training_labels(labels, splits[seed])
        folds = inner_splits(scene, known, splits[seed], own)[: tuning.folds]
        if not folds:
            found[seed] = Tuned(own, {**_record([]), "reason": _NOTHING_LEFT_OUT, "seconds": 0.0})
            continue
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=SAMPLER_SEED))
        study.enqueue_trial(_own(own, tuning))
        searches[seed] = _Search(own, study, folds, own)
    shown = training_labels(labels, *(splits[seed] for seed in settings))
    for number in range(tuning.trials):
        trials = {seed: search.study.ask() for seed, search in searches.items()}
        tried = {seed: _suggested(trial, searches[seed].own, tuning) for seed, trial in trials.items()}
        tried = tried if number else {seed: search.own for seed, search in searches.items()}
        folds = {seed: search.folds for seed, search in searches.items()}
        for seed, accuracy in _accuracies(scene, shown, folds, tried, device).items():
            searches[seed].take(tried[seed], accuracy)
            searches[seed].study.tell(trials[seed], accuracy)
    seconds = round((time.perf_counter() - start) / max(len(searches), 1), 2)
    for seed, search in searches.items():
        record = {**_record(search.folds), "trials": tuning.trials, "tried": search.tried, "chosen": search.chosen}
        found[seed] = Tuned(search.best, {**record, "seconds": seconds})
    return {seed: found[seed] for seed in settings}


def _record(folds: list[Split]) -> dict[str, Any]:
    return {"trials": 0, "folds": len(folds), "sampler_seed": SAMPLER_SEED, "tried": []}


def inner_splits(scene: xr.DataArray, labels: xr.DataArray, split: Split, settings: Settings) -> list[Split]:
    """Divide the training pixels of a split: in each part some of them test, apart in space if the split's own tests are.

    Args:
        scene: `(band, y, x)`.
        labels: `(y, x)` class ids; those that do not train are not looked at.
        split: The outer split.
        settings: With the seed.
    """
    pixels = read_pixels(scene)
    task = prepare(pixels, labels, {0: split}, settings)[0]
    numbers = divide(task, generator(settings.seed, Purpose.FOLDS, step=_FOLD_DRAW))
    parts = []
    for number in np.unique(numbers[numbers >= 0]):
        left_out = numbers == number
        shown = leave_out(task, left_out)
        train, test, side = masks = [np.zeros(split.train.shape, bool) for _ in range(3)]
        for mask, positions in zip(
            masks, (shown.positions, task.positions[np.flatnonzero(left_out)], shown.training_side), strict=True
        ):
            mask[pixels.rows[positions].numpy(), pixels.columns[positions].numpy()] = True
        parts.append(Split(train, test, side, split.record))
    return parts


def _accuracies(
    scene: xr.DataArray,
    labels: xr.DataArray,
    folds: Mapping[int, list[Split]],
    tried: Mapping[int, Settings],
    device: str,
) -> dict[int, float]:
    """Return, for each seed, the share of the left-out pixels of all its folds that are told rightly."""
    right, total = dict.fromkeys(tried, 0), dict.fromkeys(tried, 0)
    left = list(tried)
    while left:
        plain = tried[left[0]].replace(set_coverage=0)
        alike = [seed for seed in left if tried[seed].replace(set_coverage=0, seed=plain.seed) == plain]
        left = [seed for seed in left if seed not in alike]
        # A part of each seed has a seed of its own, whatever trains together.
        parts = {
            (seed * _MOST_FOLDS + part) % 2**32: (seed, split)
            for seed in alike
            for part, split in enumerate(folds[seed])
        }
        splits = {number: split for number, (_, split) in parts.items()}
        for number, classifier in fit_seeds(scene, labels, splits, plain, device=device).items():
            seed, where = parts[number][0], splits[number].test
            for tile in classifier.tiles(scene, where=where):
                asked = where[tile.rows, tile.columns]
                right[seed] += int((tile.ids == labels.values[tile.rows, tile.columns])[asked].sum())
            total[seed] += int(where.sum())
    return {seed: right[seed] / total[seed] for seed in tried}


def _own(settings: Settings, tuning: Tuning) -> dict[str, Any]:
    """Return the given settings as a trial, as near as the ranges have them."""
    own = {
        "learning_rate": float(np.clip(settings.learning_rate, *RATES)),
        "weight_decay": float(np.clip(settings.weight_decay, *DECAYS)),
        "noise": float(np.clip(settings.noise, *NOISES)),
        "steps": min(tuning.steps, key=lambda steps: abs(steps - settings.steps)),
    }
    if _has_dropout(settings):
        own["dropout"] = float(np.clip(settings.model_options.get("dropout", 0.1), *DROPOUTS))
    return own


def _suggested(trial: Any, settings: Settings, tuning: Tuning) -> Settings:
    changes: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", *RATES, log=True),
        "weight_decay": trial.suggest_float("weight_decay", *DECAYS, log=True),
        "noise": trial.suggest_float("noise", *NOISES),
        "steps": trial.suggest_categorical("steps", list(tuning.steps)),
    }
    if _has_dropout(settings):
        dropout = trial.suggest_float("dropout", *DROPOUTS)
        changes["model_options"] = settings.model_options | {"dropout": dropout}
    return settings.replace(**changes)


def _has_dropout(settings: Settings) -> bool:
    return settings.model in list_models() and "dropout" in list_options(settings.model)


def _changes(tried: Settings, settings: Settings) -> dict[str, Any]:
    before = settings.to_dict()
    return {key: value for key, value in tried.to_dict().items() if value != before[key]}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError.of("tuning needs", "optuna", "4", "experiments") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def check_tuning(trials: int) -> None:
    """Check that what so many trials need is installed.

    Raises:
        MissingPackageError: Optuna is not.
    """
    if trials:
        _optuna()
