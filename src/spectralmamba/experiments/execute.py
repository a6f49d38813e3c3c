"""One run, or the seeds of one cell together: train, map, score."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from spectralmamba.classifier import Classifier
from spectralmamba.errors import TrainingInterrupted
from spectralmamba.evaluation import evaluate
from spectralmamba.experiments.data import Loaded, load, training_labels
from spectralmamba.experiments.plan import Run, Tuning
from spectralmamba.experiments.simple import FittedSimple, read_pixels
from spectralmamba.experiments.tuning import tune
from spectralmamba.memory import peak_memory
from spectralmamba.models.committee import SIMPLE_MODELS
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.training import fit_seeds, recommend_settings

_SMALL = 250_000  # pixels of a scene whose map is kept
_SCORES = (
    "overall_accuracy",
    "average_accuracy",
    "kappa",
    "macro_f1",
    "confusion",
    "classes",
    "test_pixels",
    "unclassified",
)


@dataclass(frozen=True)
class Order:
    """What one call computes.

    Attributes:
        runs: Runs that differ in the seed alone.
        tuning: How networks are tuned.
        maps: Whether the whole scene is mapped, rather than test pixels alone.
        device: torch's name of a device; simple classifiers compute on the CPU whatever it says.
        threads: Of torch; None leaves them as they are.
        root: Folder of reference data.
    """

    runs: tuple[Run, ...]
    tuning: Tuning
    maps: bool
    device: str
    threads: int | None = None
    root: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        run: Which.
        result: What is kept of it, ready for JSON: `status` "done", or "failed" with `error`.
        settings: Of a network, as TOML; None where there is none.
        trials: The record of tuning; None without.
        trace: Python's own account of an error.
        classes: Map `(H, W)` of a small scene; None otherwise.
    """

    run: Run
    result: dict[str, Any]
    settings: str | None = None
    trials: dict[str, Any] | None = None
    trace: str | None = None
    classes: np.ndarray | None = None


@dataclass(frozen=True)
class Trained:
    """A classifier, how it maps, and what it took."""

    mapping: Any
    seconds: float
    settings: Settings | None
    trials: dict[str, Any] | None
    size: tuple[int, int] | None


def execute(order: Order) -> list[Outcome]:
    """Make runs; an error becomes the outcome of its run. Where several fail together, each is tried alone."""
    if order.threads is not None:
        torch.set_num_threads(order.threads)
    first = order.runs[0]
    _wake(order.device)
    _forget_peak(order.device)
    try:
        return _execute(order)
    except TrainingInterrupted:
        raise
    except Exception as error:
        if len(order.runs) > 1:
            return [outcome for run in order.runs for outcome in execute(replace(order, runs=(run,), threads=None))]
        return [failed(first, error, traceback.format_exc())]


def failed(run: Run, error: BaseException, trace: str | None = None) -> Outcome:
    """Return the outcome of a run that raised an error."""
    problem = {"type": type(error).__name__, "message": str(error) or type(error).__name__}
    return Outcome(run, {"status": "failed", "error": problem, "peak_memory_bytes": peak_memory()}, trace=trace)


def _execute(order: Order) -> list[Outcome]:
    loaded = load(order.runs[0].data, order.root)
    runs = {run.seed: run for run in order.runs}
    splits = {seed: loaded.split(run.split, seed).with_patch(run.model.patch) for seed, run in runs.items()}
    train = train_simple if order.runs[0].model.simple is not None else train_networks
    trained = train(loaded, runs, splits, order)
    return [_outcome(runs[seed], found, loaded, splits[seed], order) for seed, found in trained.items()]


def train_simple(
    loaded: Loaded, runs: Mapping[int, Run], splits: Mapping[int, Split], order: Order
) -> dict[int, Trained]:
    """Tune and train a simple classifier for each seed."""
    del order
    trained = {}
    for seed, run in runs.items():
        assert run.model.simple is not None
        start = time.perf_counter()
        known = training_labels(loaded.labels, splits[seed])
        fitted = FittedSimple(run.model.simple, read_pixels(loaded.scene), known, splits[seed], seed)
        trained[seed] = Trained(fitted.map, time.perf_counter() - start, None, fitted.tuned, None)
    return trained


def train_networks(
    loaded: Loaded, runs: Mapping[int, Run], splits: Mapping[int, Split], order: Order
) -> dict[int, Trained]:
    """Tune and train a network for each seed; those with the same settings together, which a GPU does at once."""
    scene, wanted, trials = loaded.scene, {}, {}
    for seed, run in runs.items():
        known = training_labels(loaded.labels, splits[seed])
        settings = run.model.network.replace(seed=seed)
        if run.model.recommended:
            settings = recommend_settings(scene, known, splits[seed], settings).settings
        wanted[seed] = settings
    if order.tuning.trials:
        # Those without a network have nothing that trials change.
        networks = {seed: settings for seed, settings in wanted.items() if settings.model not in SIMPLE_MODELS}
        for seed, tuned in tune(scene, loaded.labels, splits, networks, order.tuning, order.device).items():
            wanted[seed], trials[seed] = tuned.settings, tuned.record
    trained: dict[int, Trained] = {}
    while len(trained) < len(wanted):
        first = next(settings for seed, settings in wanted.items() if seed not in trained)
        alike = [seed for seed in wanted if wanted[seed].replace(seed=first.seed) == first]
        for seed, (classifier, seconds) in _fit(loaded, {seed: splits[seed] for seed in alike}, first, order).items():
            model = classifier.card["model"]
            size = model["parameters"], model["multiply_accumulates"]
            mapping = _mapping(classifier, scene)
            trained[seed] = Trained(mapping, seconds, wanted[seed], trials.get(seed), size)
    return {seed: trained[seed] for seed in runs}


def _fit(
    loaded: Loaded, splits: dict[int, Split], settings: Settings, order: Order
) -> dict[int, tuple[Classifier, float]]:
    """Train seeds together; return each classifier and its share of the seconds."""
    known = training_labels(loaded.labels, *splits.values())
    start = time.perf_counter()
    classifiers = fit_seeds(loaded.scene, known, splits, settings, device=order.device)
    seconds = (time.perf_counter() - start) / len(splits)
    return {seed: (classifier, seconds) for seed, classifier in classifiers.items()}


def _mapping(classifier: Classifier, scene: xr.DataArray) -> Any:
    def mapped(where: np.ndarray) -> np.ndarray:
        classes = np.zeros(where.shape, np.int32)
        for tile in classifier.tiles(scene, where=None if where.all() else where):
            classes[tile.rows, tile.columns] = tile.ids
        return classes

    return mapped


def _outcome(run: Run, trained: Trained, loaded: Loaded, split: Split, order: Order) -> Outcome:
    where = np.ones_like(split.test) if order.maps else split.test
    start = time.perf_counter()
    classes = trained.mapping(where)
    seconds = time.perf_counter() - start
    scores = evaluate(classes, loaded.labels, where=split.test).to_dict()
    on_gpu = order.device.startswith("cuda") and run.model.simple is None
    result = {
        "status": "done",
        **{key: scores[key] for key in _SCORES},
        "parameters": trained.size and trained.size[0],
        "multiply_accumulates": trained.size and trained.size[1],
        "seconds": {
            "train": round(trained.seconds, 3),
            "tune": round((trained.trials or {}).get("seconds", 0.0), 3),
            "map": round(seconds, 3),
        },
        "mapped_pixels": int((classes > 0).sum()),
        "peak_memory_bytes": peak_memory(),
        "peak_device_bytes": torch.cuda.max_memory_allocated(order.device) if on_gpu else None,
        "tuning": trained.trials and {key: trained.trials[key] for key in ("trials", "folds")},
        "split": split.record,
    }
    settings = None if trained.settings is None else trained.settings.to_toml()
    kept = classes.astype(np.uint16) if order.maps and classes.size <= _SMALL else None
    return Outcome(run, result, settings, trained.trials, classes=kept)


def _wake(device: str) -> None:
    """Let a GPU and its library of matrix products set themselves up, whose seconds are no run's."""
    if device.startswith("cuda"):
        some = torch.ones(8, 8, device=device)
        (some @ some).sum().item()


def _forget_peak(device: str) -> None:
    """Count peak memory anew, the process's on Linux and a GPU's, so that a run is not charged with those before it."""
    if device.startswith("cuda") and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
