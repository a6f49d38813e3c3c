"""Time of a training step on a GPU: one step after the other, and recorded steps of one seed and of several together.

    python benchmarks/training_gpu.py [--mamba-ssm FOLDER] [--write-docs]

Everything trains through `fit_seeds` on a simulated scene. Contestants that launch a step's kernels one after the other differ
by their selective scan: the loop over tokens, the kernels of mamba-ssm (built from its unpacked source distribution), this
package's. All of them take turns, so that ratios compare what ran side by side.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from performance_page import commit, write_section
from spectralmamba import simulate_scene, split_random
from spectralmamba.models import spectral_mamba
from spectralmamba.training import Progress, fit_seeds, fitting
from spectralmamba.training.single import SingleSteps

BANDS, CLASSES, PER_CLASS = 204, 6, 5
BLOCK = 50  # steps between two readings of the clock where steps are recorded
TOGETHER = (1, 5, 20)


def milliseconds(seeds: int, patch: int, blocks: int, block: int, warm_up: int = 1) -> float:
    """Train, and return the median time of a step of all seeds together."""
    scene, labels = simulate_scene(rows=64, columns=64, bands=BANDS, classes=CLASSES)
    scene["good"].values[:] = True
    splits = {seed: split_random(labels, per_class=PER_CLASS, patch=patch, seed=seed) for seed in range(seeds)}
    marks: list[float] = []

    def mark(seed: int, progress: Progress) -> None:
        if seed == seeds - 1 and progress.step % block == 0:
            marks.append(time.perf_counter())

    fit_seeds(scene, labels, splits, device="cuda", patch=patch, steps=(warm_up + blocks) * block, on_step=mark)
    times = [1e3 * (end - start) / block for start, end in pairwise(marks[warm_up - 1 :])]
    return statistics.median(times)


@contextmanager
def one_after_the_other(scan: Callable[..., Any]) -> Iterator[None]:
    """Launch a step's kernels one after the other, and take another selective scan."""
    before = fitting._steps, spectral_mamba.selective_scan
    fitting._steps, spectral_mamba.selective_scan = partial(map, SingleSteps), scan  # pyright: ignore
    try:
        yield
    finally:
        fitting._steps, spectral_mamba.selective_scan = before


def contestants(patch: int, mamba_ssm: Path | None) -> dict[str, Callable[[], float]]:
    """Return what takes turns, by name."""
    ours = spectral_mamba.selective_scan
    scans: dict[str, Callable[..., Any]] = {"loop over tokens": partial(ours, backend="reference")}
    if mamba_ssm is not None:
        from mamba_ssm_kernels import load, mamba_ssm_call

        call = mamba_ssm_call(load(mamba_ssm))

        def scan(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, **options: Any) -> Any:
            return call({"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": options["delta_bias"]})

        scans["kernels of mamba-ssm"] = scan
    scans["this scan"] = ours

    def launched(scan: Callable[..., Any]) -> float:
        with one_after_the_other(scan):
            return milliseconds(1, patch, blocks=15, block=1, warm_up=5)

    return {f"launched one by one, {name}": partial(launched, scan) for name, scan in scans.items()} | {
        f"recorded, {seeds} seed{'s' * (seeds > 1)} together": partial(milliseconds, seeds, patch, 6, BLOCK)
        for seeds in TOGETHER
    }


def table(times: dict[str, list[float]]) -> list[str]:
    """Lay out medians, and how many times faster per seed each is than others."""
    others = [next(iter(times)), "launched one by one, this scan", f"recorded, {TOGETHER[0]} seed together"]
    rows = [
        "| step | ms | ms a seed | against the loop | against this scan, launched | against one recorded seed after the other |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in times:
        seeds = next((count for count in TOGETHER if name.startswith(f"recorded, {count} ")), 1)
        median = statistics.median(times[name])
        cells = [name, f"{median:.3f}", f"{median / seeds:.3f}"]
        cells += [_ratio(times[other], times[name], seeds) for other in others]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _ratio(others: list[float], these: list[float], seeds: int) -> str:
    ratios = [seeds * other / this for other, this in zip(others, these, strict=True)]
    return f"{statistics.median(ratios):.3g}× ({min(ratios):.3g} to {max(ratios):.3g})"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mamba-ssm", type=Path, help="unpacked source distribution of mamba-ssm")
    parser.add_argument("--patches", type=int, nargs="+", default=[7, 1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the measurements, which --lines takes")
    parser.add_argument("--lines", type=Path, help="measurements to lay out instead of measuring")
    parser.add_argument("--write-docs", action="store_true", help="write the section of docs/performance.md")
    arguments = parser.parse_args()
    if arguments.lines is not None:
        found = json.loads(arguments.lines.read_text(encoding="utf-8"))
    else:
        found = measured(arguments)
    parts = []
    for patch, times in found["times"].items():
        parts += [f"P = {patch}, {BANDS} bands, batch 64, {PER_CLASS} pixels a class:", "\n".join(table(times))]
    print(found["where"], *parts, sep="\n\n")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found), encoding="utf-8")
    if arguments.write_docs:
        text = (
            "Written by `python benchmarks/training_gpu.py --mamba-ssm FOLDER --write-docs`. Medians over steps, and over rounds "
            "in which all took turns; ratios are per seed, median, lowest and highest over the rounds."
        )
        write_section("training on a GPU", ("## Training step on a GPU", text, f"- {found['where']}", *parts))


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything."""
    times: dict[str, dict[str, list[float]]] = {}
    for patch in arguments.patches:
        runs = contestants(patch, arguments.mamba_ssm)
        times[str(patch)] = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                times[str(patch)][name].append(run())
    where = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {os.cpu_count()} cores, commit {commit()}"
    return {"where": f"{datetime.date.today().isoformat()}, {where}", "times": times}


if __name__ == "__main__":
    main()
