"""Tuning networks: the same number of trials for each, scored on training pixels that are left out in turn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from spectralmamba.errors import MissingPackageError
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


def tune(
    scene: xr.DataArray, labels: xr.DataArray, split: Split, settings: Settings, tuning: Tuning, device: str
) -> Tuned:
    """Try settings on folds of the training pixels, the given ones first, and return the best.

    Labels of other than training pixels are taken away before anything else.

    Args:
        scene: `(band, y, x)`.
        labels: `(y, x)` class ids.
        split: Which of them train.
        settings: What trials change.
        tuning: How many trials, and on how many folds.
        device: torch's name of a device.

    Raises:
        MissingPackageError: Optuna is not installed.
        SpectralMambaError: As `fit` does.
    """
    optuna = _optuna()
    start = time.perf_counter()
    known = labels.copy(data=np.where(split.train, labels.values, 0))
    folds = inner_splits(scene, known, split, settings)[: tuning.folds]
    record: dict[str, Any] = {"trials": 0, "folds": len(folds), "sampler_seed": SAMPLER_SEED, "tried": []}
    if not folds:
        reason = "no class has training pixels that could be left out"
        return Tuned(settings, record | {"reason": reason, "seconds": 0.0})
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=SAMPLER_SEED))
    study.enqueue_trial(_own(settings, tuning))
    best = settings
    for number in range(tuning.trials):
        trial = study.ask()
        tried = _suggested(trial, settings, tuning)
        tried = settings if number == 0 else tried
        accuracy = _accuracy(scene, known, folds, tried, device)
        if accuracy > max((entry["accuracy"] for entry in record["tried"]), default=-1.0):
            best, record["chosen"] = tried, number
        record["tried"].append({"changes": _changes(tried, settings), "accuracy": accuracy})
        study.tell(trial, accuracy)
    seconds = round(time.perf_counter() - start, 2)
    return Tuned(best, record | {"trials": tuning.trials, "seconds": seconds})


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


def _accuracy(scene: xr.DataArray, labels: xr.DataArray, folds: list[Split], settings: Settings, device: str) -> float:
    """Return the share of the left-out pixels of all folds that are told rightly."""
    right = total = 0
    plain = settings.replace(set_coverage=0)
    for number, classifier in fit_seeds(scene, labels, dict(enumerate(folds)), plain, device=device).items():
        where = folds[number].test
        for tile in classifier.tiles(scene, where=where):
            asked = where[tile.rows, tile.columns]
            right += int((tile.ids == labels.values[tile.rows, tile.columns])[asked].sum())
        total += int(where.sum())
    return right / total


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
