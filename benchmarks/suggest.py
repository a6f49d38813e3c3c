"""Labels that are suggested beside labels drawn at random, on scenes all of whose labelled pixels may be asked for.

    python benchmarks/suggest.py [--scenes botswana,salinas-a] [--seeds 10] [--rounds 8] [--network] [--write-docs]

Both start from the same two pixels a class and get as many labels a round as there are classes. After each round a linear
discriminant of whitened 7 × 7 means learns from them (with --network, after the last round the recommended network instead) and
is tested twice: on all labelled pixels that it has not been given, and on those that neither of the two has been given. The first
flatters suggestions, which take the hardest pixels out of their own test; differences, and the number of random labels that gain as
much, are therefore of the second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import results_page
from performance_page import provenance
from protocols import botswana, salinas_a
from spectralmamba import Settings, fit, split_masks, split_random, suggest
from spectralmamba.evaluation import paired_difference
from spectralmamba.pixels import Pixels, patch_means
from spectralmamba.training.discriminant import discriminant_probabilities
from spectralmamba.training.task import prepare

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "suggest.json"
SCENES = {"botswana": botswana, "salinas-a": salinas_a}
PATCH, PER_CLASS = 7, 2
FURTHER = 0.4  # share of the pool up to which random labels are drawn on, to see when they reach what was suggested
METHODS = ("suggested", "random")


@dataclass(frozen=True)
class Pool:
    """A scene's labelled pixels: `(n,)` rows, columns and index of the class, and patch means `(n, L)`."""

    scene: xr.DataArray
    labels: xr.DataArray
    rows: np.ndarray
    columns: np.ndarray
    targets: np.ndarray
    means: np.ndarray

    @classmethod
    def of(cls, name: str) -> Pool:
        scene, labels = SCENES[name]()
        pixels = Pixels.from_scene(scene, np.flatnonzero(scene["good"].values))
        task = prepare(pixels, labels, {0: None}, Settings())[0]
        means = patch_means(task.normalised.pixels, task.positions, PATCH).double().numpy()
        rows, columns = (index[task.positions].numpy() for index in (pixels.rows, pixels.columns))
        return cls(scene, labels, rows, columns, task.targets.numpy(), means)

    def mask(self, of_pool: np.ndarray) -> np.ndarray:
        """Return a mask `(H, W)` of some of its pixels `(n,)`."""
        mask = np.zeros(self.labels.shape, bool)
        mask[self.rows[of_pool], self.columns[of_pool]] = True
        return mask

    def right(self, given: np.ndarray, seed: int, network: bool) -> np.ndarray:
        """Return which pixels `(n,)` are told rightly by what learned from those that are given."""
        if network:
            split = split_masks(self.mask(given), self.mask(~given), labels=self.labels, patch=PATCH)
            predicted = fit(self.scene, self.labels, split, seed=seed).predict(self.scene).values
            return predicted[self.rows, self.columns] == self.labels.values[self.rows, self.columns]
        classes = int(self.targets.max()) + 1
        found = discriminant_probabilities(self.means[given], self.targets[given], self.means, classes)
        return found.argmax(1) == self.targets

    def more(self, method: str, given: np.ndarray, count: int, random: np.random.Generator, seed: int) -> np.ndarray:
        """Return what is given after another round."""
        given = given.copy()
        if method == "random":
            given[random.choice(np.flatnonzero(~given), count, replace=False)] = True
            return given
        labels = self.labels.where(self.mask(given), 0).astype(np.int32)
        found = suggest(self.scene, labels, count=count, seed=seed, patch=PATCH, area=self.mask(~given), device="cpu")
        return given | self.mask_of(found.rows, found.columns)

    def mask_of(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return which of its pixels `(n,)` lie at these places."""
        mask = np.zeros(self.labels.shape, bool)
        mask[rows, columns] = True
        return mask[self.rows, self.columns]


def run_seed(pool: Pool, seed: int, rounds: int, network: bool) -> list[dict[str, Any]]:
    """Return a line for each number of labels: the accuracies of both methods; further on, of random labels alone."""
    split = split_random(pool.labels, per_class=PER_CLASS, seed=seed, patch=PATCH)
    count, random = int(pool.targets.max()) + 1, np.random.default_rng(seed)
    start = split.train[pool.rows, pool.columns]
    last = int(start.sum()) + rounds * count
    given: dict[str, np.ndarray] = dict.fromkeys(METHODS, start)
    lines: list[dict[str, Any]] = []
    while (labels := int(given["random"].sum())) <= last:
        if not network or labels == last:
            right = {method: pool.right(given[method], seed, network) for method in METHODS}
            common = ~given["suggested"] & ~given["random"]
            lines.append({"labels": labels, **{method: _share(right[method], ~given[method]) for method in METHODS}})
            lines[-1]["common"] = {method: _share(right[method], common) for method in METHODS}
        if labels == last:
            break
        given = {method: pool.more(method, given[method], count, random, seed) for method in METHODS}
    while not network and (labels := int(given["random"].sum())) < FURTHER * len(pool.rows):
        given["random"] = pool.more("random", given["random"], labels // 4, random, seed)
        accuracy = _share(pool.right(given["random"], seed, network), ~given["random"])
        lines.append({"labels": int(given["random"].sum()), "random": accuracy})
    return lines


def _share(right: np.ndarray, where: np.ndarray) -> float:
    return float(right[where].mean())


def summary(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of the table: accuracies by seed, the paired difference, and the random labels for what was suggested."""
    at_random = {lines[0]["labels"]: [line["random"] for line in lines] for lines in zip(*runs, strict=True)}
    rows = []
    for lines in zip(*runs, strict=True):
        if "common" not in lines[0]:
            continue
        row: dict[str, Any] = {"labels": lines[0]["labels"]}
        row |= {method: [line[method] for line in lines] for method in METHODS}
        first, second = ([line["common"][method] for line in lines] for method in METHODS)
        row["difference"] = paired_difference(first, second) if len(lines) > 1 else None
        gain = statistics.mean(first) - statistics.mean(second)
        row["random_labels_for_the_same"] = labels_for(statistics.mean(row["random"]) + gain, at_random)
        rows.append(row)
    return rows


def labels_for(accuracy: float, at_random: dict[int, list[float]]) -> float | None:
    """Return how many random labels reach an accuracy on average, between the numbers tried; None if none of them does."""
    counts, means = list(at_random), [statistics.mean(values) for values in at_random.values()]
    for position, mean in enumerate(means):
        if mean >= accuracy:
            if position == 0:
                return float(counts[0])
            share = (accuracy - means[position - 1]) / (mean - means[position - 1])
            return counts[position - 1] + share * (counts[position] - counts[position - 1])
    return None


def table(rows: list[dict[str, Any]], most: int) -> str:
    """Return the rows in Markdown; `most` is the largest number of random labels tried."""
    head = ["labels", "OA suggested", "OA random", "difference on common test pixels (95 %)"]
    cells = []
    for row in rows:
        found, same = row["difference"], row["random_labels_for_the_same"]
        cells.append(
            [
                str(row["labels"]),
                *(results_page.spread(row[method], 3) for method in METHODS),
                "" if found is None else results_page.interval(found, 3),
                f"more than {most}" if same is None else f"{same:.0f}",
            ]
        )
    return results_page.table([*head, "random labels that gain as much"], cells)


def main() -> None:
    """Measure and print; write docs/results/suggest.json if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", default=",".join(SCENES), help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 on")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--network", action="store_true", help="train the recommended network after the last round")
    parser.add_argument(
        "--write-docs", action="store_true", help="write docs/results/suggest.json or suggest_network.json"
    )
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for name in arguments.scenes.split(","):
        pool, runs = Pool.of(name), []
        for seed in range(arguments.seeds):
            runs.append(run_seed(pool, seed, arguments.rounds, arguments.network))
            print(f"{name}: {seed + 1}/{arguments.seeds} seeds", file=sys.stderr, flush=True)
        results[name] = summary(runs)
        learner = "the recommended network" if arguments.network else "linear discriminant of whitened 7 × 7 means"
        print(f"\n## {name}, {arguments.seeds} seeds, {learner}\n\n{table(results[name], runs[0][-1]['labels'])}")
    if arguments.write_docs:
        write(results, arguments.network)


def write(results: dict[str, Any], network: bool) -> None:
    learner = "recommended network" if network else "linear discriminant"
    content = {"learner": learner, **provenance(), "scenes": results}
    path = RESULTS.with_name("suggest_network.json") if network else RESULTS
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
