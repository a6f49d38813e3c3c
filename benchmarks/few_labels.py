"""Few labels on real scenes: SpectralMamba beside simple classifiers, the same splits and the same effort of tuning for all.

    python benchmarks/few_labels.py [--protocols salinas-a/5,botswana/5] [--methods "SVM;RF, pixels"] [--seeds 0,1,2]
                                    [--jobs 2] [--device auto]

Every run is a line of docs/results/few_labels.jsonl; runs that are there already are skipped, so the command can be stopped and
given again. docs/results.md and the README's table are written from these lines. Networks train on a GPU where there is one, all
seeds of a protocol together; on a CPU, and simple classifiers anywhere, run after run in --jobs processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from classical import CLASSICAL, Features, make_features, read_pixels
from performance_page import provenance
from protocols import PROTOCOLS
from results_page import write_page, write_readme
from spectralmamba import evaluate, fit_seeds, recommend_settings
from spectralmamba.classifier import Classifier, find_device
from spectralmamba.evaluation import calibration
from spectralmamba.memory import peak_memory
from spectralmamba.models.committee import Committee
from spectralmamba.pixels import Pixels
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.training import Recommendation

LINES = Path(__file__).resolve().parents[1] / "docs" / "results" / "few_labels.jsonl"


@dataclass(frozen=True)
class Form:
    """A way to train the network.

    Attributes:
        changes: Of the recommended settings.
        members: Networks whose probabilities are averaged.
        part: "network" or "companion" where one of the two that decide together is asked alone.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    members: int = 1
    part: str | None = None


RECOMMENDED = "spectral_mamba, recommended"
NETWORKS = {
    RECOMMENDED: Form(),
    f"{RECOMMENDED}, its network alone": Form(part="network"),
    f"{RECOMMENDED}, its companion alone": Form(part="companion"),
    f"{RECOMMENDED}, five seeds averaged": Form(members=5),
    f"{RECOMMENDED}, without self-training": Form({"self_training_rounds": 0}),
    "spectral_mamba, pixelwise recommended": Form({"patch": 1}),
    "spectral_mamba, strictly pixelwise": Form({"patch": 1, "teacher_patch": 1}),
    **{f"spectral_mamba, preset paper, P = {patch}": Form({"patch": patch, "preset": "paper"}) for patch in (1, 3)},
}
METHODS = [*NETWORKS, *CLASSICAL]


class Seen(NamedTuple):
    """What a classifier says of a scene: probabilities `(K, H, W)`, NaN nodata, and sets, bool `(K, H, W)`, None without sets."""

    probabilities: np.ndarray
    sets: np.ndarray | None


class Run(NamedTuple):
    """What a line of the results is of."""

    protocol: str
    method: str
    seed: int


# Splits, features and recommendations are the same for many methods; the time that a line tells holds them all the same.


@lru_cache(16)
def _split(protocol: str, seed: int) -> Split:
    return PROTOCOLS[protocol].split(PROTOCOLS[protocol].data()[1], seed)


@lru_cache(1)
def _pixels(protocol: str) -> Pixels:
    return read_pixels(PROTOCOLS[protocol].data()[0])


@lru_cache(9)
def _features(protocol: str, seed: int, normalisation: str, window: int) -> Features:
    scene = PROTOCOLS[protocol].data()[0]
    return make_features(scene, _split(protocol, seed), normalisation, window, _pixels(protocol))


@lru_cache(16)
def _recommendation(protocol: str, seed: int) -> Recommendation:
    return recommend_settings(*PROTOCOLS[protocol].data(), _split(protocol, seed))


def run_classical(run: Run, threads: int) -> dict[str, Any]:
    """Train and test a simple classifier; return its line."""
    torch.set_num_threads(threads)
    method, split = CLASSICAL[run.method], _split(run.protocol, run.seed)
    labels = PROTOCOLS[run.protocol].data()[1]
    features = _features(run.protocol, run.seed, method.normalisation, method.window)
    start = time.perf_counter()
    predicted = np.zeros(labels.shape, np.int32)
    predicted[split.test] = method.predict(features, labels.values[split.train], run.seed)
    seconds = time.perf_counter() - start + features.seconds
    return _line(run, predicted, method.window, seconds, "cpu")


def run_networks(
    protocol: str, method: str, seeds: Sequence[int], device: str, **changes: Any
) -> Iterator[dict[str, Any]]:
    """Train a form of the network on each of several draws and yield the lines.

    Draws for which the same settings are recommended train together: on a GPU at once, elsewhere one after the other.

    Args:
        protocol: Its name.
        method: Name of the form.
        seeds: Draws.
        device: torch's name of a device.
        **changes: Of the form's settings, for a trial.
    """
    changes = NETWORKS[method].changes | changes
    wanted = {seed: _recommendation(protocol, seed).settings.replace(**changes) for seed in seeds}
    while wanted:
        settings = next(iter(wanted.values()))
        alike = [seed for seed in wanted if wanted[seed] == settings]
        wanted = {seed: wanted[seed] for seed in wanted if seed not in alike}
        yield from _train_alike(protocol, method, alike, settings, device)


def run_network(run: Run, threads: int, device: str) -> dict[str, Any]:
    """Train and test the network of one draw; return its line."""
    torch.set_num_threads(threads)
    (line,) = run_networks(run.protocol, run.method, [run.seed], device)
    return line


def _train_alike(
    protocol: str, method: str, draws: list[int], settings: Settings, device: str
) -> Iterator[dict[str, Any]]:
    scene, labels = PROTOCOLS[protocol].data()
    form = NETWORKS[method]
    trained, seconds_of_all = _trained(protocol, tuple(draws), form.members, settings.to_toml(), device)
    share = seconds_of_all / len(draws)
    for draw in draws:
        start = time.perf_counter()
        classifiers = [part_of(trained[seed], form.part) for seed in member_seeds(draw, form.members)]
        classes, seen = classifiers[0].classes, [look(classifier, scene) for classifier in classifiers]
        predicted, confidence = average(seen, classes)
        seconds = share + time.perf_counter() - start
        line = _line(Run(protocol, method, draw), predicted, settings.patch, seconds, device)
        test, ids = _split(protocol, draw).test, labels.values
        found = calibration(predicted, confidence, labels, where=test)
        line["calibration"] = {"expected_calibration_error": found["expected_calibration_error"]}
        sets = seen[0].sets if form.members == 1 else None  # an average has none
        tested = test & (ids > 0) & (predicted > 0)
        line["prediction_sets"] = None if sets is None else judge_sets(sets[:, tested], classes, ids[tested])
        yield line | {"patch": settings.patch, "reasons": _recommendation(protocol, draw).reasons}


@lru_cache(1)
def _trained(
    protocol: str, draws: tuple[int, ...], members: int, settings: str, device: str
) -> tuple[dict[int, Classifier], float]:
    """Train; return the classifiers by seed and the seconds. Kept for forms that ask a part of them."""
    splits = {seed: _split(protocol, draw) for draw in draws for seed in member_seeds(draw, members)}
    start = time.perf_counter()
    found = Settings.from_dict(tomllib.loads(settings))
    classifiers = fit_seeds(*PROTOCOLS[protocol].data(), splits, found, device=device)
    return classifiers, time.perf_counter() - start


def part_of(classifier: Classifier, part: str | None) -> Classifier:
    """Return a classifier that asks only its network or only its companion; the same where it has but the network."""
    if part is None or not isinstance(classifier.network, Committee):
        return classifier
    return dataclasses.replace(classifier, network=getattr(classifier.network, part), sets=None)


def member_seeds(draw: int, members: int) -> list[int]:
    """Return the seeds of the networks that learn one draw: its own, or others that no draw has."""
    return [draw] if members == 1 else [draw * 1000 + number for number in range(1, members + 1)]


def look(classifier: Classifier, scene: xr.DataArray) -> Seen:
    """Return probabilities and prediction sets of a scene that is classified once."""
    shape = (len(classifier.classes), *scene.shape[1:])
    seen = Seen(np.full(shape, np.nan, np.float32), None if classifier.sets is None else np.zeros(shape, bool))
    for tile in classifier.tiles(scene):
        seen.probabilities[:, tile.rows, tile.columns] = tile.probabilities
        if seen.sets is not None:
            seen.sets[:, tile.rows, tile.columns] = tile.sets
    return seen


def average(seen: list[Seen], classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class ids and the probability of that class, `(H, W)`, of the mean of classifiers of the same classes `(K,)`."""
    mean = np.mean([each.probabilities for each in seen], axis=0)
    ids = np.where(np.isfinite(mean[0]), classes[mean.argmax(0)], 0)
    return ids.astype(np.int32), mean.max(0)


def judge_sets(sets: np.ndarray, classes: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return the share of sets `(K, m)` of classes `(K,)` that hold the reference class `(m,)`, and how large sets are."""
    sizes = sets.sum(0)
    return {
        "held": float((sets & (classes[:, None] == reference)).any(0).mean()),
        "mean_size": float(sizes.mean()),
        "share_single": float((sizes == 1).mean()),
    }


def _line(run: Run, predicted: np.ndarray, patch: int, seconds: float, device: str) -> dict[str, Any]:
    split = _split(run.protocol, run.seed).with_patch(patch)
    scores = evaluate(predicted, PROTOCOLS[run.protocol].data()[1], where=split.test).to_dict()
    kept = ("method", "parameters", "train_pixels", "test_pixels", "leaks", "notes")
    return {
        **run._asdict(),
        **{key: scores[key] for key in ("overall_accuracy", "average_accuracy", "kappa", "macro_f1", "confusion")},
        "split": {key: split.record[key] for key in kept},
        "seconds": round(seconds, 2),
        "peak_memory_bytes": peak_memory(),
        **_provenance(device),
    }


_provenance = cache(provenance)


def read_lines() -> list[dict[str, Any]]:
    """Return the runs that have been made."""
    if not LINES.is_file():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def missing_runs(protocols: list[str], methods: list[str], seeds: list[int]) -> list[Run]:
    """Return what has not been run; draws first, so that what several methods share is made once.

    Where another seed is no other split, methods without chance of their own run for seed 0 alone.
    """
    done = {Run(line["protocol"], line["method"], line["seed"]) for line in read_lines()}
    runs = (Run(*task) for task in ((p, m, s) for p in protocols for s in seeds for m in methods))
    return [run for run in runs if run not in done and not (run.seed and _same_for_all_seeds(run))]


def _same_for_all_seeds(run: Run) -> bool:
    return not PROTOCOLS[run.protocol].seeded and run.method in CLASSICAL and not CLASSICAL[run.method].random


def make_runs(runs: list[Run], jobs: int, device: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of runs as they are there: first what runs in processes of its own, then networks on a GPU."""
    together = [run for run in runs if run.method in NETWORKS and device != "cpu"]
    single = [run for run in runs if run not in set(together)]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    threads = int(os.environ["OMP_NUM_THREADS"])
    if single:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            started = [
                pool.submit(run_network, run, threads, device)
                if run.method in NETWORKS
                else pool.submit(run_classical, run, threads)
                for run in single
            ]
            for job in as_completed(started):
                yield job.result()
    for protocol, method in dict.fromkeys((run.protocol, run.method) for run in together):
        seeds = [run.seed for run in together if run[:2] == (protocol, method)]
        yield from run_networks(protocol, method, seeds, device)


def keep(lines: Iterable[dict[str, Any]], total: int) -> None:
    """Append each line to the file as soon as it is there."""
    LINES.parent.mkdir(parents=True, exist_ok=True)
    with LINES.open("a", encoding="utf-8") as file:
        for number, line in enumerate(lines, 1):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            name = f"{line['protocol']}, {line['method']}, seed {line['seed']}"
            done = f"OA {line['overall_accuracy']:.4f}, {line['seconds']:.1f} s"
            print(f"{number}/{total} {name}: {done}", file=sys.stderr, flush=True)


def chosen_methods(asked: str | None, device: str) -> list[str]:
    """Return the methods that are named, or that begin like this; all, but for averages on a CPU, if None."""
    if asked is None:
        return [m for m in METHODS if device != "cpu" or m not in NETWORKS or NETWORKS[m].members == 1]
    names = asked.split(";")
    return [m for m in METHODS if m in names or m.startswith(tuple(name for name in names if name not in METHODS))]


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", default=",".join(PROTOCOLS), help="names, separated by commas")
    parser.add_argument("--methods", help="names, or how they begin, separated by ;")
    parser.add_argument("--seeds", default=",".join(map(str, range(10))))
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--device", default="auto", help="what networks train on")
    arguments = parser.parse_args()
    device = str(find_device(arguments.device))
    methods = chosen_methods(arguments.methods, device)
    runs = missing_runs(arguments.protocols.split(","), methods, [int(seed) for seed in arguments.seeds.split(",")])
    keep(make_runs(runs, arguments.jobs, device), len(runs))
    lines = read_lines()
    write_page(lines, list(NETWORKS))
    write_readme(lines, list(NETWORKS))


if __name__ == "__main__":
    main()
