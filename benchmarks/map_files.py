"""From a file to a map's files: pixels a second beside the disk's own speed, and what a pixel costs in scenes of many sizes.

    python benchmarks/map_files.py [--sizes 100,317,1000,3163,5000] [--rows 4096] [--rounds 3] [--device auto] [--folder FOLDER]
                                   [--write-docs]

The scene is an uncompressed ENVI file, int16, by lines (BIL), of 145 bands: rows of a simulated one, over and over. The network is
SpectralMamba by its recommended settings without a companion, P = 3.

- Disk: a scene of `--rows` × 2 048 pixels, read alone in pieces of 8 MiB, mapped by `map_scene`, and classified without writing a
  map; cold is after `posix_fadvise(DONTNEED)`, warm again. All take turns.
- Sizes: square scenes, warm, mapped by one process that has mapped before; the best of two runs, of the largest one run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mapping import trained
from performance_page import provenance, write_section
from spectralmamba import Classifier, map_scene, open_scene
from spectralmamba.classifier import find_device

BANDS, SCALE, COLUMNS, PIECE = 145, 10_000, 2048, 8 << 20


def write_file(folder: Path, line: np.ndarray, rows: int, columns: int) -> Path:
    """Write a scene of one line `(L, w)` over and over, and return its data file."""
    values = np.tile(line, (1, -(-columns // line.shape[1])))[:, :columns]
    stored = np.clip(values * SCALE, -30_000, 30_000).astype("<i2").tobytes()
    path = folder / "scene.raw"
    with path.open("wb") as file:
        for _ in range(rows):
            file.write(stored)
        os.fsync(file.fileno())
    path.with_suffix(".hdr").write_text(
        f"ENVI\nsamples = {columns}\nlines = {rows}\nbands = {len(line)}\nheader offset = 0\nfile type = ENVI Standard\n"
        f"data type = 2\ninterleave = bil\nbyte order = 0\nreflectance scale factor = {SCALE}\n"
    )
    return path


def forget(path: Path) -> None:
    """Let the operating system drop a file from memory."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def read_alone(path: Path) -> None:
    """Read a file in pieces."""
    piece = bytearray(PIECE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of it."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def disk(classifier: Classifier, line: np.ndarray, folder: Path, arguments: argparse.Namespace) -> tuple[str, str]:
    """Return a table of a file's bytes a second, read and mapped, and what it means."""
    path = write_file(folder, line, arguments.rows, COLUMNS)
    scene, size = open_scene(path.with_suffix(".hdr")), path.stat().st_size
    work: dict[str, Callable[[], object]] = {"read alone": lambda: read_alone(path)}
    for precision in ("float32",) if classifier.device.type == "cpu" else ("float32", "float16"):
        work[f"map, {precision}"] = partial(map_scene, classifier, scene, folder / "map.tif", precision=precision)
        work[f"classified, {precision}"] = lambda precision=precision: [
            None for _ in classifier.tiles(scene, precision=precision)
        ]
    for each in work.values():
        each()  # compiles kernels
    seconds: dict[str, dict[str, list[float]]] = {what: {"cold": [], "warm": []} for what in work}
    for _ in range(arguments.rounds):
        for what, each in work.items():
            forget(path)
            seconds[what]["cold"].append(timed(each))
            seconds[what]["warm"].append(timed(each))
    rows = []
    for what, found in seconds.items():
        cold, warm = (statistics.median(found[state]) for state in ("cold", "warm"))
        shares = [alone / mapped for alone, mapped in zip(seconds["read alone"]["cold"], found["cold"], strict=True)]
        rows.append(
            f"| {what} | {size / cold / 1e9:.2f} | {statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%}) "
            f"| {size / warm / 1e9:.2f} | {arguments.rows * COLUMNS / warm:,.0f} |"
        )
    table = (
        "| | cold, GB/s | of reading alone | warm, GB/s | warm, pixels a second |\n| --- | --- | --- | --- | --- |\n"
    )
    return table + "\n".join(rows), f"A file of {size / 1e9:.1f} GB, {arguments.rows} × {COLUMNS} pixels."


def costs(classifier: Classifier, line: np.ndarray, folder: Path, sizes: list[int]) -> str:
    """Return a table of what a pixel costs by size."""
    rows = []
    before: tuple[int, float] | None = None
    for size in sizes:
        path = write_file(folder, line, size, size)
        scene = open_scene(path.with_suffix(".hdr"))
        mapped = partial(map_scene, classifier, scene, folder / "map.tif")
        seconds = min(timed(mapped) for _ in range(1 if size == max(sizes) else 2))
        pixels = size * size
        more = "" if before is None else f"{1e9 * (seconds - before[1]) / (pixels - before[0]):.0f}"
        rows.append(
            f"| {size} × {size} | {seconds:.2f} | {1e9 * seconds / pixels:.0f} | {more} | {pixels / seconds:,.0f} |"
        )
        print(rows[-1], flush=True)
        before = pixels, seconds
        path.unlink()
    head = "| pixels | s | ns a pixel | ns a further pixel | pixels a second |\n| --- | --- | --- | --- | --- |\n"
    return head + "\n".join(rows)


def main() -> None:
    """Measure, print, and write docs/performance.md if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,317,1000,3163,5000", help="rows of square scenes, separated by commas")
    parser.add_argument("--rows", type=int, default=4096, help="rows of the scene that the disk is measured with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path, help="where files are written; a temporary folder if not given")
    parser.add_argument("--write-docs", action="store_true", help="write the section of docs/performance.md")
    arguments = parser.parse_args()
    device = str(find_device(arguments.device))
    classifier, scene, _ = trained(3, argparse.Namespace(rows=192, bands=BANDS), device)
    line: Any = scene.values[:, 5]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        speeds, what = disk(classifier, line, Path(name), arguments)
        sizes = costs(classifier, line, Path(name), [int(size) for size in arguments.sizes.split(",")])
    where = provenance(device)
    print(json.dumps(where), what, speeds, sizes, sep="\n\n")
    if arguments.write_docs:
        head = f"- {where['date']}, commit {where['commit']}, {where['machine']}"
        written = "Written by `python benchmarks/map_files.py --write-docs`; what a row is, the script says. " + what
        rounds = f"Medians of {arguments.rounds} rounds; shares are of the same round: median, lowest and highest."
        on = "" if device == "cpu" else " on a GPU"
        write_section(
            f"files{on}", (f"## Files{on}", f"{written} {rounds}", head, speeds, "Scenes of many sizes:", sizes)
        )


if __name__ == "__main__":
    main()
