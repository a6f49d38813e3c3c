"""Time of a training step and of its parts, on a simulated scene.

    python benchmarks/training.py [--patch 7] [--bands 204] [--backend auto] [--against /path/of/another/checkout/src]

Every round is a process of its own that trains through `fit` and takes the median over its steps. With `--against` the rounds
of this version and of the other one alternate, and ratios are of neighbouring rounds: a machine that others use as well slows
both.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
SOURCE = HERE.parents[1] / "src"
WARM_UP = 10  # steps left out
PARTS = ("batch and changes", "forward", "loss and backward", "optimizer", "progress")
STEP = "step"


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Train and return the median milliseconds of a step and of its parts."""
    import torch
    from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    from spectralmamba import fit, simulate_scene, split_random
    from spectralmamba.models import spectral_mamba

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.backend != "auto":
        spectral_mamba.selective_scan = partial(spectral_mamba.selective_scan, backend=arguments.backend)
    scene, labels = simulate_scene(rows=64, columns=64, bands=arguments.bands, classes=arguments.classes)
    scene["good"].values[:] = True
    split = split_random(labels, per_class=5, patch=arguments.patch)
    marks: list[float] = []
    steps: list[list[float]] = []

    def mark(*_: object) -> None:
        marks.append(time.perf_counter())

    def mark_network(module: object, *_: object) -> None:
        if isinstance(module, spectral_mamba.SpectralMamba):
            mark()

    def end_of_step(_: object) -> None:
        mark()
        steps.append(marks[-len(PARTS) - 1 :])

    hooks = [
        register_module_forward_pre_hook(mark_network),
        register_module_forward_hook(mark_network),
        register_optimizer_step_pre_hook(mark),
        register_optimizer_step_post_hook(mark),
    ]
    settings = {"patch": arguments.patch, "batch_size": arguments.batch, "steps": WARM_UP + arguments.steps}
    try:
        fit(scene, labels, split, device="cpu", on_step=end_of_step, **settings)
    finally:
        for hook in hooks:
            hook.remove()
    times = [[1e3 * (end - start) for start, end in pairwise(step)] for step in steps[WARM_UP:]]
    medians = dict(zip(PARTS, map(statistics.median, zip(*times, strict=True)), strict=True))
    return medians | {STEP: statistics.median(map(sum, times))}


def measured_in_a_process(source: Path, given: list[str]) -> dict[str, float]:
    """Measure the package of a source folder."""
    done = subprocess.run(
        [sys.executable, str(HERE), *given, "--one-round"],
        env=os.environ | {"PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def table(rounds: list[dict[str, float]], others: list[dict[str, float]]) -> str:
    """Lay out the parts: milliseconds as the median of the rounds, and how many times longer the other version takes."""
    head = f"{'part':<20}{'ms':>8}" + (f"{'other, ms':>12}{'ratio, min to max':>24}" if others else "")
    lines = [head]
    for part in (*PARTS, STEP):
        line = f"{part:<20}{statistics.median(each[part] for each in rounds):>8.2f}"
        if others:
            ratios = [other[part] / this[part] for this, other in zip(rounds, others, strict=True)]
            spread = f"{statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
            line += f"{statistics.median(each[part] for each in others):>12.2f}{spread:>24}"
        lines.append(line)
    lines.append(f"{1e3 / statistics.median(each[STEP] for each in rounds):.1f} steps a second")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bands", type=int, default=204)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--patch", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="torch's threads; 0 leaves torch's choice")
    parser.add_argument("--backend", default="auto", help="of the selective scan, by name")
    parser.add_argument("--against", type=Path, help="source folder of another version of the package")
    parser.add_argument("--against-commit", default="unknown", help="its name in the page")
    parser.add_argument("--write-docs", action="store_true", help="write the section of docs/performance.md")
    parser.add_argument("--one-round", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_round:
        print(json.dumps(measure(arguments)))
        return
    given = sys.argv[1:]
    rounds: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for _ in range(arguments.rounds):
        rounds.append(measured_in_a_process(SOURCE, given))
        if arguments.against is not None:
            others.append(measured_in_a_process(arguments.against.resolve(), given))
    import torch

    from performance_page import commit, cpu_model, write_section

    threads = arguments.threads or torch.get_num_threads()
    where = f"{cpu_model()}, {threads} threads, torch {torch.__version__}, commit {commit()}"
    what = f"P = {arguments.patch}, {arguments.bands} bands, batch {arguments.batch}, scan {arguments.backend}"
    lines = table(rounds, others)
    print(where, what, lines, sep="\n")
    if arguments.write_docs:
        other = f" The other version is commit {arguments.against_commit}." if arguments.against is not None else ""
        text = (
            "Written by `python benchmarks/training.py --write-docs`. Medians over the steps of a round, each a process of its own "
            f"that trains through `fit`; median, lowest and highest over {arguments.rounds} rounds.{other}"
        )
        today = datetime.date.today().isoformat()
        write_section("training", ("## Training step", text, f"- {today}, {where}\n- {what}", f"```\n{lines}\n```"))


if __name__ == "__main__":
    main()
