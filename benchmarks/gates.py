"""Cheaper gates beside the paper's: accuracy on the same draws, and speed in the same rounds.

    python benchmarks/gates.py [--protocols salinas-a/5,botswana/5] [--forms "recommended;network alone, P = 7"]
                               [--seeds 5] [--rounds 7] [--jobs 2] [--device auto] [--write-docs]

Networks that differ in the option `gate` alone learn each draw with the same seed, so they have the same batches and augmentation;
differences to the paper's gate, "position", are paired by draw. "Network alone" learns the training labels and nothing else: no
self-training, no companion. "Recommended" is the classifier that few_labels.py reports, and "its network" the one in it. Where
single pixels are recommended there is no gate, so EnMAP is in the tables of the network alone only.

Every run is kept in docs/results/gates.json, and runs that are there already are skipped, so the command can be stopped and given
again. Speed is of whole scenes in memory, as in mapping.py, and of the forward and backward pass of a batch; the gates take turns
in every round, and --rounds 0 keeps the speeds that are there. --write-docs writes the section of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from few_labels import RECOMMENDED, run_networks
from performance_page import provenance, write_section
from protocols import PROTOCOLS, Protocol, enmap_potsdam
from results_page import interval, spread, table
from spectralmamba import Classifier, Settings, Split, fit, simulate_scene, split_random
from spectralmamba.classifier import find_device
from spectralmamba.evaluation import paired_difference
from spectralmamba.files import write_text

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "gates.json"
PAPERS, CHEAPER = "position", ("shared",)
SCORES = {"overall_accuracy": "OA", "average_accuracy": "AA", "kappa": "κ"}
PATCHES = (3, 7)
ROWS, BANDS, BATCH = 192, 145, 64  # of the scene whose pixels are counted, and of a training step


def _enmap_random(labels: xr.DataArray, seed: int) -> Split:
    return split_random(labels, per_class=10, seed=seed)


PROTOCOLS["enmap-potsdam/10"] = Protocol("enmap-potsdam/10", enmap_potsdam, _enmap_random)
NAMES = (
    "salinas-a/5",
    "botswana/5",
    "enmap-potsdam/10",
    "salinas-a/5-blocks",
    "botswana/5-regions",
    "enmap-potsdam/columns",
)
_PIXELWISE = ("enmap-potsdam/10", "enmap-potsdam/columns")  # recommended settings have no patches there

# Prediction sets do not change what is predicted.
_ALONE = {"companion": "none", "self_training_rounds": 0, "set_coverage": 0}
_FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"network alone, P = {patch}": (RECOMMENDED, {"patch": patch} | _ALONE) for patch in PATCHES},
    "recommended": (RECOMMENDED, {"set_coverage": 0}),
    "recommended, its network": (f"{RECOMMENDED}, its network alone", {"set_coverage": 0}),
}
_KEPT = ("overall_accuracy", "average_accuracy", "kappa", "confusion", "split", "patch", "seconds")
_KEPT += ("date", "commit", "machine")


class Run(NamedTuple):
    """What an entry of the results is of."""

    protocol: str
    form: str
    gate: str
    seed: int


def train(runs: list[Run], device: str) -> list[dict[str, Any]]:
    """Train and test what differs in the form alone, one after the other in this process; return the entries."""
    entries = []
    for run in runs:
        method, changes = _FORMS[run.form]
        options = {"gate": run.gate}
        (line,) = run_networks(run.protocol, method, [run.seed], device, model_options=options, **changes)
        entries.append(run._asdict() | {key: line[key] for key in _KEPT})
    return entries


def missing(protocols: list[str], forms: list[str], seeds: int, done: set[Run]) -> list[list[Run]]:
    """Return what has not been run, the forms of one network together, so that the recommended one is trained once."""
    together = []
    for seed in range(seeds):
        for protocol in protocols:
            for gate in (PAPERS, *CHEAPER):
                wanted = [Run(protocol, form, gate, seed) for form in forms]
                wanted = [run for run in wanted if run.protocol not in _PIXELWISE or "recommended" not in run.form]
                alone = [[run] for run in wanted if "recommended" not in run.form]
                together += [*alone, [run for run in wanted if [run] not in alone]]
    left = ([run for run in runs if run not in done] for runs in together)
    return [runs for runs in left if runs]


def train_all(jobs: list[list[Run]], processes: int, device: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the entries of jobs as they are there."""
    if processes == 1:
        yield from (train(job, device) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // processes)
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool:
        for job in as_completed([pool.submit(train, job, device) for job in jobs]):
            yield job.result()


def paired(entries: list[dict[str, Any]], protocol: str, form: str, gate: str) -> dict[int, tuple[dict, dict]]:
    """Return by seed the entries of a gate and of the paper's where both have run."""
    found = {
        name: {
            entry["seed"]: entry
            for entry in entries
            if (entry["protocol"], entry["form"], entry["gate"]) == (protocol, form, name)
        }
        for name in (gate, PAPERS)
    }
    return {seed: (found[gate][seed], found[PAPERS][seed]) for seed in sorted(set(found[gate]) & set(found[PAPERS]))}


def accuracy_table(entries: list[dict[str, Any]], form: str) -> str:
    """Return a row for each protocol and gate, and one for each gate of the mean over protocols of several draws."""
    rows, of_gate = [], {gate: {} for gate in CHEAPER}
    for protocol in NAMES:
        for gate in CHEAPER:
            pairs = paired(entries, protocol, form, gate)
            if not pairs:
                continue
            if PROTOCOLS[protocol].seeded:
                of_gate[gate][protocol] = pairs
            accuracies = (spread([pair[side]["overall_accuracy"] for pair in pairs.values()]) for side in (1, 0))
            differences = (
                paired_difference(*zip(*((ours[key], papers[key]) for ours, papers in pairs.values()), strict=True))
                for key in SCORES
            )
            rows.append([protocol, gate, *accuracies, *(interval(found, 4) for found in differences), str(len(pairs))])
    for gate, by_protocol in of_gate.items():
        seeds = sorted(set.intersection(*map(set, by_protocol.values()))) if len(by_protocol) > 1 else []
        if len(seeds) > 1:
            differences = (interval(_over_protocols(by_protocol, seeds, key), 4) for key in SCORES)
            rows.append([f"mean of {len(by_protocol)} of several draws", gate, "", "", *differences, str(len(seeds))])
    head = [
        "protocol",
        "gate",
        "OA, position",
        "OA, this gate",
        *(f"{name}, difference (95 %)" for name in SCORES.values()),
    ]
    return table([*head, "seeds"], rows) if rows else ""


def _over_protocols(by_protocol: dict[str, dict[int, tuple[dict, dict]]], seeds: list[int], key: str) -> dict[str, Any]:
    """Average both sides over protocols in each draw, then compare: protocols of one scene have pixels in common."""
    sides = (
        [statistics.mean(pairs[seed][side][key] for pairs in by_protocol.values()) for seed in seeds] for side in (0, 1)
    )
    return paired_difference(*sides)


def measure(rounds: int, device: str) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return by patch, gate and what is timed how many a second, in each round: pixels of a map, training steps."""
    scene, labels = simulate_scene(rows=ROWS, columns=ROWS, bands=BANDS, classes=6)
    scene = scene.copy(data=np.nan_to_num(scene.values))
    scene["good"].values[:] = True
    speeds: dict[str, dict[str, dict[str, list[float]]]] = {}
    for patch in PATCHES:
        split = split_random(labels, per_class=10, patch=patch)
        classifiers: dict[str, Classifier] = {}
        for gate in (PAPERS, *CHEAPER):
            settings = Settings(patch=patch, steps=30, model_options={"gate": gate}, **_ALONE)
            classifiers[gate] = fit(scene, labels, split, settings, device=device)
            classifiers[gate].novelty = None
            list(classifiers[gate].tiles(scene))
        speeds[str(patch)] = {gate: {"pixels": [], "steps": []} for gate in classifiers}
        for _ in range(rounds):
            for gate, classifier in classifiers.items():
                start = time.perf_counter()
                list(classifier.tiles(scene))
                speeds[str(patch)][gate]["pixels"].append(ROWS**2 / (time.perf_counter() - start))
            for gate, classifier in classifiers.items():
                speeds[str(patch)][gate]["steps"].append(_steps_a_second(classifier, patch))
    return speeds


def _steps_a_second(classifier: Classifier, patch: int, steps: int = 20) -> float:
    """Time the network's forward and backward pass."""
    network, device = classifier.network.train(), classifier.device
    batch = torch.randn(BATCH, BANDS, patch, patch, device=device)
    network(batch).sum().backward()
    start = time.perf_counter()
    for _ in range(steps):
        network(batch).sum().backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    network.zero_grad()
    network.eval()
    return steps / seconds


def speed_table(speeds: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """Return a row for each patch and gate: medians, and ratios to the paper's gate in the same round."""
    rows = []
    for patch, by_gate in speeds.items():
        for gate, found in by_gate.items():
            row = [patch, gate]
            for what in ("pixels", "steps"):
                ratios = [ours / papers for ours, papers in zip(found[what], by_gate[PAPERS][what], strict=True)]
                said = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                row += [f"{statistics.median(found[what]):,.0f}", "" if gate == PAPERS else said]
            rows.append(row)
    return table(["P", "gate", "pixels a second", "times as fast", "training steps a second", "times as fast"], rows)


def read() -> dict[str, Any]:
    """Return what has been measured."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"runs": [], "speed": {}}


def keep(results: dict[str, Any]) -> None:
    """Write what has been measured, a run a line, in an order that does not follow from what was ready first."""
    runs = sorted(
        results["runs"], key=lambda entry: (NAMES.index(entry["protocol"]), *(entry[key] for key in Run._fields))
    )
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in runs)
    speed = json.dumps(results["speed"], ensure_ascii=False)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_text(RESULTS, f'{{"runs": [\n{lines}\n],\n"speed": {speed}}}\n')


def section(results: dict[str, Any]) -> list[str]:
    """Return the parts of the section of docs/performance.md."""
    runs, speed = results["runs"], results["speed"]
    seen = sorted({(entry["date"], entry["commit"], entry["machine"]) for entry in runs})
    parts = [
        "## Gates",
        "Written by `python benchmarks/gates.py --write-docs` from `docs/results/gates.json`, which also holds every confusion "
        "matrix and split record. The gates of `docs/method.md`, all else alike: the same splits, seeds, batches and augmentation. "
        "Differences are to the paper's gate, “position”, paired by draw, with Student's 95 % interval; OA is mean ± sample "
        "standard deviation. What a table is of, the script says. `enmap-potsdam/10` are ten random pixels a class; the other "
        "protocols are those of `docs/results.md`. `enmap-potsdam/columns` is one split, where a seed changes the training alone.",
        "\n".join(f"- {date}, commit {commit}, {machine}" for date, commit, machine in seen),
    ]
    for form in _FORMS:
        if found := accuracy_table(runs, form):
            parts += [f"### {form[0].upper()}{form[1:]}", found]
    if speed:
        parts += [
            "### Speed of the gates",
            f"{ROWS} × {ROWS} pixels in memory, {BANDS} bands, the network alone; a training step is the forward and backward pass "
            f"of {BATCH} patches. Medians of {speed['rounds']} rounds; ratios are of the same round: median, lowest and highest.",
            f"- {speed['date']}, commit {speed['commit']}, {speed['machine']}, {speed['threads']} threads",
            speed_table(speed["by_patch"]),
        ]
    return parts


def main() -> None:
    """Run what is missing, print, and write the section if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", default=",".join(NAMES), help="names, separated by commas")
    parser.add_argument("--forms", default=";".join(_FORMS), help="names, separated by ;")
    parser.add_argument("--seeds", type=int, default=5, help="draws, from 0 on")
    parser.add_argument("--rounds", type=int, default=7, help="of speed; 0 keeps those that are there")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--device", default="auto", help="what networks train and are timed on")
    parser.add_argument("--write-docs", action="store_true", help="write the section of docs/performance.md")
    arguments = parser.parse_args()
    device, results = str(find_device(arguments.device)), read()
    done = {Run(*(entry[key] for key in Run._fields)) for entry in results["runs"]}
    chosen = arguments.protocols.split(","), arguments.forms.split(";")
    jobs = missing(*chosen, arguments.seeds, done)
    for number, entries in enumerate(train_all(jobs, arguments.jobs, device), 1):
        results["runs"] += entries
        keep(results)
        for entry in entries:
            name = ", ".join(str(entry[key]) for key in Run._fields)
            accuracy = f"OA {entry['overall_accuracy']:.4f}, {entry['seconds']:.1f} s"
            print(f"{number}/{len(jobs)} {name}: {accuracy}", file=sys.stderr, flush=True)
    if arguments.rounds:
        by_patch, threads = measure(arguments.rounds, device), torch.get_num_threads()
        results["speed"] = provenance(device) | {"threads": threads, "rounds": arguments.rounds, "by_patch": by_patch}
        keep(results)
    parts = section(results)
    print(*parts, sep="\n\n")
    if arguments.write_docs:
        write_section("gates", parts)


if __name__ == "__main__":
    main()
