"""Accuracies on real scenes: SpectralMamba beside simple classifiers, the same splits for all.

    python benchmarks/accuracy.py [--protocols salinas-a/5,botswana/5] [--methods …] [--seeds 0,1,2,3,4] [--jobs 2]

Every run is a line of docs/results/accuracy.jsonl; runs that are there already are skipped, so the command can be stopped and
given again. docs/results.md is written from these lines.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from performance_page import commit

ROOT = Path(__file__).resolve().parents[1]
LINES = ROOT / "docs" / "results" / "accuracy.jsonl"
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"

RECOMMENDED = "spectral_mamba, recommended"
NETWORKS = {
    RECOMMENDED: {},
    f"{RECOMMENDED}, without self-training": {"self_training_rounds": 0},
    **{f"spectral_mamba, P = {patch}": {"patch": patch} for patch in (1, 3, 7)},
    **{f"spectral_mamba, preset paper, P = {patch}": {"patch": patch, "preset": "paper"} for patch in (1, 3)},
}
CLASSICAL = {
    f"{name}, {'pixels' if window == 1 else f'{window} × {window} means'}, {words}": (
        name.lower(),
        window,
        normalisation,
    )
    for name in ("SVM", "RF", "LDA", "logistic regression", "class means", "k-NN")
    for normalisation, words in (("standard", "standardised"), ("whitening", "whitened"))
    for window in (1, 3, 7)
}
METHODS = [*NETWORKS, *CLASSICAL]


def run_one(protocol_name: str, method: str, seed: int, threads: int) -> dict[str, Any]:
    """Train and test one method on one draw."""
    import torch

    from classical import Classical
    from protocols import PROTOCOLS
    from spectralmamba import evaluate, fit
    from spectralmamba.runs import peak_memory

    torch.set_num_threads(threads)
    protocol = PROTOCOLS[protocol_name]
    scene, labels = protocol.data()
    options = NETWORKS.get(method)
    patch = options.get("patch", 7) if options is not None else CLASSICAL[method][1]
    split = protocol.split(labels, seed, patch)
    start = time.perf_counter()
    if options is not None:
        classifier = fit(scene, labels, split, seed=seed, **options)
        predicted, split = classifier.predict(scene).values, split.with_patch(classifier.patch)
    else:
        predicted = Classical(*CLASSICAL[method]).predict(scene, labels, split, seed)
    seconds = time.perf_counter() - start
    scores = evaluate(predicted, labels, where=split.test).to_dict()
    return {
        "protocol": protocol_name,
        "method": method,
        "seed": seed,
        **{key: scores[key] for key in ("overall_accuracy", "average_accuracy", "kappa", "macro_f1", "confusion")},
        "split": {key: split.record[key] for key in ("method", "parameters", "distance", "leaks", "notes")},
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak_memory(),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
    }


def machine() -> str:
    """Say what computes."""
    import torch

    where = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{where}, {os.cpu_count()} cores, torch {torch.__version__}"


def read_lines() -> list[dict[str, Any]]:
    """Return the runs that have been made."""
    if not LINES.is_file():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def write_page(lines: list[dict[str, Any]]) -> None:
    """Write docs/results.md."""
    from protocols import PROTOCOLS

    parts = [
        "# Results",
        "Written by `python benchmarks/accuracy.py` from `docs/results/accuracy.jsonl`, which also holds every confusion matrix, "
        "split record, date, commit and machine. Mean ± sample standard deviation over the seeds; OA, AA and κ as fractions. "
        "All methods see the same draws. “Whitened” is the noise whitening of `docs/method.md`, learned without labels; the "
        "networks of the default preset use it too. Random draws put test pixels beside training pixels, which flatters every "
        "method that looks at a neighbourhood: the leaks column says for how many test pixels. Read them next to the "
        "spatially disjoint split. The paper's own splits are not published, so none of this is comparable to its digits.",
    ]
    for name in PROTOCOLS:
        runs = [line for line in lines if line["protocol"] == name]
        if runs:
            parts += [f"## {name}", _table(runs)]
    parts.append(_provenance(lines))
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_readme(lines: list[dict[str, Any]]) -> None:
    """Replace the table between the README's markers."""
    from protocols import PROTOCOLS

    rows = [
        "| protocol | SpectralMamba | strongest simple opponent | difference |",
        "| --- | --- | --- | --- |",
    ]
    for name in PROTOCOLS:
        by_method, strongest = _by_method([line for line in lines if line["protocol"] == name])
        if strongest is None or not by_method[RECOMMENDED]:
            continue
        accuracies = {
            method: _spread([run["overall_accuracy"] for run in by_method[method]], 3)
            for method in (RECOMMENDED, strongest)
        }
        difference = _difference(by_method[RECOMMENDED], by_method[strongest], 3)
        cells = [name, accuracies[RECOMMENDED], f"{accuracies[strongest]}, {strongest}", difference]
        rows.append(f"| {' | '.join(cells)} |")
    start, end = "<!-- results -->", "<!-- /results -->"
    before, _, rest = README.read_text(encoding="utf-8").partition(start)
    after = rest.partition(end)[2]
    README.write_text("\n".join([before + start, *rows, end + after]), encoding="utf-8")


def _by_method(runs: list[dict[str, Any]]) -> tuple[dict[str, list[dict[str, Any]]], str | None]:
    """Return the runs of each method, and the simple opponent of the highest mean overall accuracy."""
    by_method = {method: [run for run in runs if run["method"] == method] for method in METHODS}
    strongest = max(
        (method for method in CLASSICAL if by_method[method]),
        key=lambda method: statistics.mean(run["overall_accuracy"] for run in by_method[method]),
        default=None,
    )
    return by_method, strongest


def _table(runs: list[dict[str, Any]]) -> str:
    by_method, strongest = _by_method(runs)
    rows = [
        "| method | OA | AA | κ | seeds | leaks, share of test pixels | OA minus strongest simple opponent (95 %) | s a run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method, found in by_method.items():
        if not found:
            continue
        compared = strongest is not None and method in NETWORKS
        difference = _difference(found, by_method[strongest], 4) if compared else ""
        cells = [
            f"{method}{' (strongest)' if method == strongest else ''}",
            *(_spread([run[key] for run in found]) for key in ("overall_accuracy", "average_accuracy", "kappa")),
            str(len(found)),
            f"{statistics.mean(run['split']['leaks']['share_of_test'] for run in found):.3f}",
            difference,
            f"{statistics.mean(run['seconds'] for run in found):.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _difference(first: list[dict[str, Any]], second: list[dict[str, Any]], digits: int) -> str:
    """Say the difference in overall accuracy, paired by seed, with its 95 % interval; nothing for a single pair."""
    from spectralmamba.evaluation import paired_difference

    other = {run["seed"]: run["overall_accuracy"] for run in second}
    pairs = [(run["overall_accuracy"], other[run["seed"]]) for run in first if run["seed"] in other]
    if len(pairs) < 2:
        return ""
    result = paired_difference(*zip(*pairs, strict=True))
    mean, low, high = (f"{value:+.{digits}f}" for value in (result["mean"], *result["interval"]))
    return f"{mean} ({low} to {high})"


def _spread(values: list[float], digits: int = 4) -> str:
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def _provenance(lines: list[dict[str, Any]]) -> str:
    seen = sorted({(line["date"], line["commit"], line["machine"]) for line in lines})
    return "\n".join(["Run on:", "", *(f"- {date}, commit {commit_}, {machine_}" for date, commit_, machine_ in seen)])


def main() -> None:
    """Run what is missing, then write the page."""
    from protocols import PROTOCOLS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", default=",".join(PROTOCOLS), help="names, separated by commas")
    parser.add_argument(
        "--methods", default=None, help="only methods whose name starts with one of these, separated by ;"
    )
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    arguments = parser.parse_args()
    methods = [m for m in METHODS if arguments.methods is None or m.startswith(tuple(arguments.methods.split(";")))]
    done = {(line["protocol"], line["method"], line["seed"]) for line in read_lines()}
    wanted = [
        (protocol, method, int(seed))
        for protocol in arguments.protocols.split(",")
        for method in methods
        for seed in arguments.seeds.split(",")
    ]
    LINES.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    with ProcessPoolExecutor(arguments.jobs) as pool, LINES.open("a", encoding="utf-8") as file:
        jobs = [pool.submit(run_one, *task, threads) for task in wanted if task not in done]
        for number, job in enumerate(as_completed(jobs), 1):
            line = job.result()
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            name = f"{line['protocol']}, {line['method']}, seed {line['seed']}"
            print(f"{number}/{len(jobs)} {name}: OA {line['overall_accuracy']:.4f}", file=sys.stderr, flush=True)
    lines = read_lines()
    write_page(lines)
    write_readme(lines)


if __name__ == "__main__":
    main()
