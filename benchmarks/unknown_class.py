"""Classes that nobody labelled: does the novelty score tell their pixels from those of known classes?

    python benchmarks/unknown_class.py [--seeds 5] [--network] [--write-docs]

Each class in turn is left out of the labels; its pixels are unknown, the test pixels of the others known. The area under the ROC
curve says how often an unknown pixel scores higher than a known one. The baseline is 1 minus the highest class probability, of
the linear discriminant; with --network of the recommended classifier, too, which trains for every class left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from performance_page import provenance
from protocols import PROTOCOLS
from spectralmamba import fit_seeds, recommend_settings
from spectralmamba.pixels import Pixels, patch_means
from spectralmamba.splits import Split
from spectralmamba.training.discriminant import discriminate, learn_novelty
from spectralmamba.training.task import prepare

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "unknown_class.json"
NAMES = ("botswana/5", "botswana/10", "botswana/5-regions", "salinas-a/5", "enmap-potsdam/columns")
NOVELTY, DISCRIMINANT, NETWORK = "novelty score", "1 − probability, discriminant", "1 − probability, classifier"


def run(name: str, draw: int, network: bool) -> list[dict[str, Any]]:
    """Leave out each class of one draw in turn; return an entry each."""
    protocol = PROTOCOLS[name]
    scene, labels = protocol.data()
    split, ids = protocol.split(labels, draw), labels.values
    settings = recommend_settings(scene, labels, split).settings.replace(seed=draw)
    pixels = Pixels.from_scene(scene, np.flatnonzero(scene["good"].values))
    left_out = [int(id_) for id_ in np.unique(ids[split.train])]
    splits = {id_: Split(split.train & (ids != id_), split.test, split.training_side, split.record) for id_ in left_out}
    tasks = prepare(pixels, labels, splits, settings)
    classifiers = fit_seeds(scene, labels, splits, settings) if network else {}
    entries = []
    for id_, task in tasks.items():
        asked = pixels.at(split.test)
        unknown = ids[pixels.rows[asked], pixels.columns[asked]] == id_
        if not unknown.any():
            continue
        means = patch_means(task.normalised.pixels, asked, settings.patch)
        sure = discriminate(task, task.positions, task.targets, asked, settings.patch).max(1)
        scores = {NOVELTY: learn_novelty(task, settings)(means).numpy(), DISCRIMINANT: 1 - sure}
        if network:
            confidence = classifiers[id_].predict_proba(scene).max("class").values
            scores[NETWORK] = 1 - confidence[pixels.rows[asked], pixels.columns[asked]]
        areas = {key: float(roc_auc_score(unknown, score)) for key, score in scores.items()}
        entries.append({"draw": draw, "class": id_, "unknown_pixels": int(unknown.sum()), "area": areas})
    return entries


def main() -> None:
    """Measure and print; write docs/results/unknown_class.json if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", default=",".join(NAMES), help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=5, help="draws, from 0 on")
    parser.add_argument("--network", action="store_true", help="train the recommended classifier, too")
    parser.add_argument("--write-docs", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for name in arguments.protocols.split(","):
        draws = range(arguments.seeds if PROTOCOLS[name].seeded else 1)
        results[name] = [entry for draw in draws for entry in run(name, draw, arguments.network)]
        print(f"{name}: {len(results[name])} times a class was left out", file=sys.stderr, flush=True)
        for key in results[name][0]["area"]:
            areas = {entry["class"]: [] for entry in results[name]}
            for entry in results[name]:
                areas[entry["class"]].append(entry["area"][key])
            means = {id_: statistics.mean(values) for id_, values in areas.items()}
            worst = min(means, key=lambda id_: means[id_])
            mean = statistics.mean(means.values())
            print(f"| {name} | {key} | {mean:.3f} | class {worst}: {means[worst]:.3f} |")
    if arguments.write_docs:
        RESULTS.write_text(json.dumps(provenance() | {"protocols": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
