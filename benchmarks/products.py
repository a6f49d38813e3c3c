"""Whole products, from their files to a map's: seconds and peak memory of `info` and `map`, each run a process of its own.

    python benchmarks/products.py [--products enmap,emit] [--patches 1,3] [--rounds 1] [--folder FOLDER] [--write-docs]

The products are made by the makers of tests/products in their full size, of random values: EnMAP L2A of 1200 × 1300 pixels and
224 bands, GeoTIFF by lines, uncompressed; EMIT L2A of 1280 × 1242 pixels and 285 bands with its mask, compressed, in the chunks
that the netCDF library chooses for this shape, and a map grid of 1886 × 2298. They take 3 GB of the disk and minutes to make.

- info: `spectralmamba info`, with Python's start; and the same command again in one process, where all is imported.
- map: `spectralmamba map` by SpectralMamba of the preset "paper" without a companion, trained for 30 steps on a small product of
  the same wavelengths. Peak memory and seconds are those of the whole process.

With several rounds the least seconds and the most memory count.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from performance_page import ROOT, provenance, write_section
from results_page import table
from scale import launch
from spectralmamba import Settings, fit, open_scene, split_random

sys.path.insert(0, str(ROOT / "tests" / "products"))

from make_emit import make_emit, make_mask
from make_enmap import make_enmap

WANTED_INFO = 1.0
"""Seconds of `info` of EnMAP, with Python's start."""

SMALL = 48  # rows and columns of the product that is trained on
PROGRAM = str(Path(sys.executable).with_name("spectralmamba"))

AGAIN = """
import contextlib, io, sys, time
from typer.testing import CliRunner
from spectralmamba.cli import app
runner = CliRunner()
for _ in range(2):
    start = time.perf_counter()
    result = runner.invoke(app, ["info", sys.argv[1]])
    seconds = time.perf_counter() - start
    assert result.exit_code == 0, result.output
print(seconds)
"""


class Whole(NamedTuple):
    """A product in its full size.

    Attributes:
        title: What it is.
        shape: Rows and columns.
        memory: The most bytes that a map of it is wanted to take.
    """

    title: str
    shape: tuple[int, int]
    memory: float


PRODUCTS = {
    "enmap": Whole("EnMAP L2A", (1200, 1300), 1.5e9),
    "emit": Whole("EMIT L2A", (1280, 1242), 2e9),
}
EMIT_CHUNKS, EMIT_MAP_GRID = (256, 249, 57), (1886, 2298)


def make(name: str, folder: Path, whole: bool) -> Path:
    """Make a product in a folder, whole or small, and return the folder."""
    shape = PRODUCTS[name].shape if whole else (SMALL, SMALL)
    if name == "enmap":
        make_enmap(folder, shape=shape)
    elif whole:
        make_emit(folder, shape=shape, ortho_shape=EMIT_MAP_GRID, chunks=EMIT_CHUNKS)
        make_mask(folder, {}, shape=shape)
    else:
        make_emit(folder, shape=shape)
    return folder


def train(small: Path, patch: int, file: Path) -> None:
    """Train a classifier on a small product, and save it."""
    scene = open_scene(small)
    labels = scene[0].copy(data=np.zeros((SMALL, SMALL), np.int32)).drop_vars("band")
    labels.values[2 : SMALL // 2], labels.values[SMALL // 2 :] = 1, 2
    labels.attrs = {"class_names": {1: "upper", 2: "lower"}, "class_colors": {1: "#ff0000", 2: "#00ff00"}, "report": {}}
    settings = Settings(preset="paper", patch=patch, steps=30, companion="none", self_training_rounds=0, set_coverage=0)
    fit(scene, labels, split_random(labels, per_class=10, patch=patch), settings, device="cpu").save(file)


def measure(name: str, product: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the runs of `info` and of `map` by patch."""
    small = make(name, folder / "small", whole=False)
    runs: dict[str, Any] = {"info": [], "info again": [], "map": {}}
    for _ in range(arguments.rounds):
        runs["info"].append(launch([PROGRAM, "info", str(product)]))
        again = subprocess.run([sys.executable, "-c", AGAIN, str(product)], capture_output=True, text=True, check=True)
        runs["info again"].append(float(again.stdout))
        print(name, "info", json.dumps(runs["info"][-1]), runs["info again"][-1], file=sys.stderr, flush=True)
    for patch in map(int, arguments.patches.split(",")):
        model, out = folder / f"model_{patch}.safetensors", folder / "out"
        train(small, patch, model)
        words = [PROGRAM, "map", str(model), str(product), "--out", str(out / "map.tif"), "--device", "cpu"]
        for _ in range(arguments.rounds):
            out.mkdir()
            runs["map"].setdefault(patch, []).append(launch(words))
            shutil.rmtree(out)
            print(name, "map", patch, json.dumps(runs["map"][patch][-1]), file=sys.stderr, flush=True)
    return runs


def info_table(found: dict[str, dict[str, Any]]) -> str:
    """Return a row a product on `info`."""
    rows = []
    for name, runs in found.items():
        again = min(runs["info again"])
        best = min(runs["info"], key=lambda run: run["seconds"])
        wanted = ("yes" if best["seconds"] < WANTED_INFO else "no") if name == "enmap" else ""
        memory = max(run["memory"] for run in runs["info"])
        rows.append(
            [
                PRODUCTS[name].title,
                f"{best['seconds']:.1f}",
                f"{best['cpu']:.1f}",
                f"{again:.2f}",
                wanted,
                f"{memory / 1e6:.0f}",
            ]
        )
    head = [
        "`info`",
        "s with Python's start",
        "CPU s",
        "s again in one process",
        f"{WANTED_INFO:g} s with start kept",
        "MB",
    ]
    return table(head, rows)


def map_table(found: dict[str, dict[str, Any]]) -> str:
    """Return a row a product and patch on `map`."""
    rows = []
    for name, runs in found.items():
        title, (height, width), wanted = PRODUCTS[name]
        for patch, of_patch in runs["map"].items():
            best = min(of_patch, key=lambda run: run["seconds"])
            memory = max(run["memory"] for run in of_patch)
            rows.append(
                [
                    title,
                    str(patch),
                    f"{best['seconds']:.0f}",
                    f"{best['cpu']:.0f}",
                    f"{height * width / best['seconds']:,.0f}",
                    f"{memory / 1e9:.2f}",
                    f"{wanted / 1e9:g}, {'yes' if memory <= wanted else 'no'}",
                ]
            )
    return table(["`map`", "P", "s", "CPU s", "pixels a second", "GB", "GB wanted, kept"], rows)


def main() -> None:
    """Make the products, measure, print, and write docs/performance.md if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", default=",".join(PRODUCTS), help="separated by commas")
    parser.add_argument("--patches", default="1,3", help="separated by commas")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where files are written for a while; else the usual one")
    parser.add_argument("--write-docs", action="store_true", help="write the section of docs/performance.md")
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name in arguments.products.split(","):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as text:
            folder = Path(text)
            found[name] = measure(name, make(name, folder / "whole", whole=True), folder, arguments)
    where = provenance("cpu")
    print(json.dumps(where), info_table(found), map_table(found), sep="\n\n")
    if arguments.write_docs:
        head = f"- {where['date']}, commit {where['commit']}, {where['machine']}"
        written = (
            "Written by `python benchmarks/products.py --write-docs`, which says how the products are made. EnMAP has "
            "1200 × 1300 pixels and 224 bands; EMIT 1280 × 1242 and 285, its map 1886 × 2298. The preset is `paper`, without a "
            f"companion, {torch.get_num_threads()} threads. Files are in memory, as far as there is room. Of {arguments.rounds} "
            "runs the least seconds and the most memory."
        )
        write_section("products", ("## Whole products", written, head, info_table(found), map_table(found)))


if __name__ == "__main__":
    main()
