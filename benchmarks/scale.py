"""What a map costs at any size: by one process, by a cluster, after kills, beside the disk; and arithmetic for archives.

    python benchmarks/scale.py [--measure parameters,size,cluster,kills,disk] [--rounds 3] [--largest] [--write-docs]

Each measurement replaces its part of docs/results/scale.json. The tables are made from that file, and the simulation runs on what
it holds. All scenes are ENVI files, interleaved by line, int16: one simulated block of 128 lines, repeated. The classifier is
SpectralMamba by its recommended settings, P = 3, without a companion, as in benchmarks/mapping.py; maps are classes and confidence.

- parameters: what each part of a map costs alone, which is all that the simulation knows of this machine.
- size: `spectralmamba map --memory 512MB`, a process a scene. Start-up is what a scene of 64 × 64 pixels takes. `--largest` adds
  10⁸ pixels, a file of 29 GB.
- cluster: 1 and 2 Dask workers of one thread, and one process of 1 and 2 threads, in turn.
- kills: SIGKILL at random moments, of the process and of a worker; then the files' SHA-256 against those of an unbroken run.
- disk: how fast the file is read, and how fast the map reads it.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mapping import trained
from performance_page import ROOT, provenance
from spectralmamba import Classifier, inference, map_scene, open_scene, simulate_scene
from spectralmamba.files import with_section, write_text
from spectralmamba.unfinished import UnfinishedMap

RESULTS = ROOT / "docs" / "results" / "scale.json"
PAGE = ROOT / "docs" / "scaling.md"
BANDS, ENMAP_BANDS, ITEM = 145, 224, 2
MEMORY = 512_000_000  # what `--memory 512MB` means
GPU_PIXELS_PER_SECOND = 1.2e7
"""Of one H100 in float32, where docs/performance.md has no section "mapping on a GPU" yet."""
GPU_READS_PER_SECOND = 8e6
"""Of an uncompressed file in memory, where docs/performance.md has no section "files on a GPU" yet."""

MEASUREMENTS = "parameters", "size", "cluster", "kills", "disk"
START, ENMAP = "64 × 64", "10⁶, 224 bands"
SHAPES = {
    START: (64, 64, BANDS),
    "10⁴": (100, 100, BANDS),
    "10⁵": (100, 1000, BANDS),
    "10⁶": (1000, 1000, BANDS),
    ENMAP: (1000, 1000, ENMAP_BANDS),
    "10⁷": (10_000, 1000, BANDS),
    "10⁸": (100_000, 1000, BANDS),
}
WANTED_SPREAD, WANTED_MEMORY, WANTED_RATIO = 0.15, 1.25, 1.8
QUIET = 2  # CPU seconds of other programs in a round that they hardly slow
LAND_KM2, LAND_PIXEL_M = 1.49e8, 30
SCENES, SCENE_PIXELS, SCENE_COLUMNS = 1000, 1_000_000, 1000
WORKERS = 1, 2, 8, 32, 128, 512, 1024, 2048, 4096

# A small process between, because a child's peak memory begins with that of the process that starts it.
LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - start
print(json.dumps({"code": os.waitstatus_to_exitcode(status), "seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime,
                  "memory": usage.ru_maxrss * 1024, "from_disk": usage.ru_inblock * 512}))
"""


# ------------------------------------------------------------------------------------------------------------ scenes


def write_scene(path: Path, rows: int, columns: int, bands: int) -> Path:
    """Write an ENVI scene, one block of lines again and again, and leave it on the disk rather than in memory to be written."""
    block = _block(columns, bands)
    with path.with_suffix(".img").open("wb") as file:
        for top in range(0, rows, len(block)):
            file.write(block[: rows - top].tobytes())
        os.fsync(file.fileno())
    scene, _ = simulate_scene(rows=8, columns=8, bands=bands, classes=6)
    keys = {"samples": columns, "lines": rows, "bands": bands, "data type": 2, "interleave": "bil", "byte order": 0}
    keys |= {"reflectance scale factor": 10_000, "wavelength units": "Nanometers"}
    keys |= {"wavelength": "{" + ", ".join(map(repr, scene["wavelength"].values.tolist())) + "}"}
    keys |= {"map info": "{UTM, 1, 1, 500000, 5800000, 30, 30, 33, North, WGS-84}"}
    text = "\n".join(("ENVI", *(f"{key} = {value}" for key, value in keys.items()))) + "\n"
    path.with_suffix(".hdr").write_text(text, encoding="utf-8")
    return path.with_suffix(".hdr")


@cache
def _block(columns: int, bands: int) -> np.ndarray:
    """Return lines `(rows, L, columns)` of a simulated scene, int16."""
    scene, _ = simulate_scene(rows=128, columns=columns, bands=bands, classes=6)
    values = np.nan_to_num(scene.values) * 10_000
    return np.ascontiguousarray(values.round().clip(0, 32_767).astype("<i2").transpose(1, 0, 2))


@cache
def model(folder: Path, bands: int = BANDS) -> Path:
    """Return the file of a classifier."""
    path = folder / f"model_{bands}.safetensors"
    classifier, _, _ = trained(3, argparse.Namespace(rows=96, bands=bands), "cpu")
    classifier.save(path)
    return path


def command(folder: Path, scene: Path, out: Path, *options: str, bands: int = BANDS) -> list[str]:
    """Return the words that map a scene."""
    program = str(Path(sys.executable).with_name("spectralmamba"))
    words = [program, "map", str(model(folder, bands)), str(scene), "--out", str(out), "--device", "cpu"]
    return [*words, *options]


def launch(words: list[str]) -> dict[str, Any]:
    """Run a command; return its seconds, CPU seconds, peak memory and bytes that came from the disk."""
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *words], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if found.pop("code"):
        raise RuntimeError(done.stderr)
    return found


def own_peak_memory() -> int:
    """Return the most memory that a process has held since it began to run its program."""
    return int(Path("/proc/self/status").read_text("ascii").partition("VmHWM:")[2].split()[0]) * 1024


def busy_seconds() -> float:
    """Return the CPU seconds that all programs of this machine have used."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text("ascii").split(maxsplit=11)[1:9])
    return (user + nice + system + sum(interrupts[:2])) / os.sysconf("SC_CLK_TCK")


# ----------------------------------------------------------------------------------------------------- measurements


def measure_parameters(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what the parts of a map cost alone: a task, the client's writing, the last copies, the scheduler."""
    rows, columns = 256, 1000
    path = write_scene(folder / "scene", 4 * rows, columns, BANDS)
    classifier, scene = Classifier.load(model(folder), "cpu"), open_scene(path)
    inner = slice(rows, 2 * rows), slice(0, columns)
    with _clusters(1) as (client,):  # a worker's process is set up in other ways than this one
        task = client.submit(_task_costs, folder, path, inner, 2 * arguments.rounds, pure=False).result()
        tasks = _task_rate(client)
    outside = _task_costs(folder, path, inner, 2 * arguments.rounds)
    kinds = {"classes": {"dtype": "uint8", "nodata": 0}, "confidence": {"dtype": "float32", "nodata": np.nan}}
    writing, finishing = [], []
    for _ in range(2 * arguments.rounds):
        unfinished = UnfinishedMap(folder / "alone.tif", {"width": columns, "height": 4 * rows, "count": 1})
        with unfinished.opened({}, (rows, columns), kinds, False):
            start = time.perf_counter()
            with np.load(folder / "part.npz") as part:
                unfinished.write(*inner, dict(part), rows * columns)
            writing.append(time.perf_counter() - start)
            unfinished.discard()
    times: list[float] = []
    for _ in range(arguments.rounds):
        map_scene(
            classifier, scene, folder / "alone.tif", tile=rows, on_tile=lambda *_: times.append(time.perf_counter())
        )
        finishing.append(time.perf_counter() - times[-1])
    pixels = rows * columns
    speeds = {what: pixels / seconds for what, seconds in task.items()} | {
        "written by the client": pixels / min(writing),
        "finished": 4 * pixels / min(finishing),
    }
    alone = {what: pixels / seconds for what, seconds in outside.items()}
    return {"pixels_per_second": speeds, "outside_a_worker": alone, "tasks_per_second": tasks, "tile": [rows, columns]}


def _task_costs(folder: Path, path: Path, inner: tuple[slice, slice], rounds: int) -> dict[str, float]:
    """Return the least seconds of a task's parts: one that reads a tile, computes it and saves what it found."""
    classifier, scene = Classifier.load(folder / f"model_{BANDS}.safetensors", "cpu"), open_scene(path)
    outer = slice(inner[0].start - 1, inner[0].stop + 1)
    found: dict[str, list[float]] = {"read and scaled": [], "computed": [], "saved": []}
    for _ in range(rounds):
        times = [time.perf_counter()]
        values = np.asarray(scene.isel(y=outer).values)
        times.append(time.perf_counter())
        tile = inference.tile_alone(classifier, scene.shape[1:], *inner, values, 1)
        times.append(time.perf_counter())
        confidence = np.nanmax(tile.probabilities, axis=0)
        np.savez(folder / "part.npz", classes=tile.ids.astype(np.uint8), confidence=confidence)
        times.append(time.perf_counter())
        for what, begin, end in zip(found, times, times[1:], strict=False):
            found[what].append(end - begin)
    return {what: min(seconds) for what, seconds in found.items()}


def _task_rate(client: Any, tasks: int = 2000) -> float:
    """Return the tasks a second that a client, a scheduler and a worker on this machine get done, where nothing is computed."""
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        client.gather([client.submit(abs, number, pure=False) for number in range(tasks)])
        rates.append(tasks / (time.perf_counter() - start))
    return max(rates)


def measure_size(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Map scenes of several sizes, each run a process of its own; the small ones more often, because start-up varies."""
    names = [name for name in SHAPES if name != "10⁸" or arguments.largest]
    scenes = {name: write_scene(folder / f"scene_{number}", *SHAPES[name]) for number, name in enumerate(names)}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    size: dict[str, int] = {}
    out = folder / "out"
    for number in range(2 * arguments.rounds):
        for name, scene in scenes.items():
            rows, columns, bands = SHAPES[name]
            if number >= arguments.rounds and rows * columns > 100_000:
                continue
            out.mkdir()
            runs[name].append(launch(command(folder, scene, out / "map.tif", "--memory", "512MB", bands=bands)))
            size[name] = sum(file.stat().st_size for file in out.iterdir())
            shutil.rmtree(out)
            _say("size", name, runs[name][-1])
    return {"threads": torch.get_num_threads(), "runs": runs, "map_bytes": size}


def measure_cluster(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Map one scene by 1 and 2 workers and by 1 and 2 threads, in turn."""
    scene = open_scene(write_scene(folder / "scene", arguments.cluster_rows, 1000, BANDS))
    classifier = Classifier.load(model(folder), "cpu")
    runs: dict[str, list[dict[str, Any]]] = {}
    with _clusters(1, 2) as clients:
        ways: dict[str, tuple[Any, dict[str, Any]]] = {
            "1 worker": (clients[0], {"dask": clients[0]}),
            "2 workers": (clients[1], {"dask": clients[1]}),
            "1 thread": (None, {"workers": 1}),
            "2 threads": (None, {"workers": 2}),
        }
        small = scene.isel(y=slice(0, 512)).load()
        for client in clients:
            map_scene(classifier, small, folder / "map.tif", tile=64, dask=client)
        for _ in range(arguments.rounds):
            for name, (client, options) in ways.items():
                runs.setdefault(name, []).append(_timed_map(classifier, scene, folder / "map.tif", client, options))
                _say("cluster", name, runs[name][-1])
    return {"pixels": scene.sizes["y"] * scene.sizes["x"], "runs": runs}


def _timed_map(classifier: Classifier, scene: Any, out: Path, client: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Map a scene; return seconds, those after the last tile, CPU seconds of workers, of this process and of other programs."""

    def of_workers() -> float:
        return 0.0 if client is None else sum(client.run(time.process_time).values())

    tiles: list[float] = []
    cpu, ours, all_, start = of_workers(), time.process_time(), busy_seconds(), time.perf_counter()
    map_scene(classifier, scene, out, on_tile=lambda *_: tiles.append(time.perf_counter()), **options)
    end = time.perf_counter()
    all_, ours, cpu = busy_seconds() - all_, time.process_time() - ours, of_workers() - cpu
    found = {"seconds": end - start, "after_the_last_tile": end - tiles[-1], "tiles": len(tiles), "workers_cpu": cpu}
    found |= {"this_process_cpu": ours, "others_cpu": max(0.0, all_ - ours - cpu)}
    if client is not None:
        found["worker_memory"] = max(client.run(own_peak_memory).values())
    return found


def measure_kills(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Kill maps at random moments, let them go on, and compare their files with those of an unbroken run."""
    scene = write_scene(folder / "scene", 512, 512, BANDS)
    chance = random.Random(0)
    whole = folder / "whole"
    whole.mkdir()
    unbroken = launch(command(folder, scene, whole / "map.tif", "--tile", "64"))["seconds"]
    expected = sums(whole)
    process = [_kill_process(folder, scene, chance.uniform(0, unbroken), expected) for _ in range(arguments.kills)]
    classifier, opened = Classifier.load(model(folder), "cpu"), open_scene(scene)
    with _clusters(2) as (client,):
        start = time.perf_counter()
        map_scene(classifier, opened, whole / "map.tif", tile=64, dask=client)
        on_cluster = time.perf_counter() - start
    same = sums(whole) == expected
    workers = []
    for _ in range(arguments.kills):
        with _clusters(2) as (client,):  # new ones, so that all kills are alike
            workers.append(
                _kill_worker(folder, classifier, opened, client, chance.uniform(0, on_cluster), expected, chance)
            )
    return {
        "unbroken_seconds": {"process": unbroken, "workers": on_cluster},
        "unbroken_cluster_same": same,
        "files": expected,
        "process": process,
        "workers": workers,
    }


def _kill_process(folder: Path, scene: Path, moment: float, expected: dict[str, str]) -> dict[str, Any]:
    out = folder / "killed"
    out.mkdir()
    words = command(folder, scene, out / "map.tif", "--tile", "64")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, **quiet) as child:
        time.sleep(moment)
        had_ended = child.poll() is not None
        child.send_signal(signal.SIGKILL)
    kept = out / ".map.tif.unfinished" / "done.txt"
    tiles = kept.read_text("ascii").count(" .") if kept.is_file() else None
    there = sorted(path.name for path in out.iterdir())
    resumed = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False)
    found = {"moment": moment, "had_ended": had_ended, "tiles_kept": tiles, "left": there}
    found |= {"code": resumed.returncode, "same": sums(out) == expected}
    if resumed.returncode:
        found["said"] = resumed.stderr
    shutil.rmtree(out)
    _say("kill of the process", "", found)
    return found


def _kill_worker(
    folder: Path,
    classifier: Classifier,
    scene: Any,
    client: Any,
    moment: float,
    expected: dict[str, str],
    chance: random.Random,
) -> dict[str, Any]:
    out = folder / "killed"
    out.mkdir()
    victim = chance.choice(sorted(client.run(os.getpid).values()))
    tiles: list[int] = []
    at: list[int] = []

    def kill() -> None:
        at.append(len(tiles))
        os.kill(victim, signal.SIGKILL)

    timer = threading.Timer(moment, kill)
    timer.start()
    map_scene(classifier, scene, out / "map.tif", tile=64, dask=client, on_tile=lambda *_: tiles.append(0))
    timer.join()
    found = {"moment": moment, "tiles_done": at[0], "tiles": len(tiles), "same": sums(out) == expected}
    shutil.rmtree(out)
    _say("kill of a worker", "", found)
    return found


def sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all files of a folder and what lies in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def measure_disk(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Read a scene's file with and without what the system keeps of it in memory, and map it, likewise."""
    scene = write_scene(folder / "scene", arguments.cluster_rows, 1000, BANDS)
    file, out = scene.with_suffix(".img"), folder / "map.tif"
    small = write_scene(folder / "small", *SHAPES[START])
    reading: dict[str, list[float]] = {"cold": [], "warm": []}
    maps: dict[str, list[dict[str, Any]]] = {"start-up": [], "cold": [], "warm": []}
    for _ in range(arguments.rounds):
        _forget(file)
        for kind in reading:
            start = time.perf_counter()
            with file.open("rb", buffering=0) as stream:
                while stream.read(8 << 20):
                    pass
            reading[kind].append(file.stat().st_size / (time.perf_counter() - start))
        maps["start-up"].append(launch(command(folder, small, out, "--overwrite")))
        for kind in ("warm", "cold"):
            if kind == "cold":
                _forget(file)
            maps[kind].append(launch(command(folder, scene, out, "--overwrite")))
            _say("disk", kind, maps[kind][-1])
    return {"bytes": file.stat().st_size, "reading": reading, "maps": maps}


def _forget(file: Path) -> None:
    """Let the system forget what it keeps of a file in memory."""
    with file.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def _clusters(*sizes: int) -> Iterator[list[Any]]:
    """Yield clients of clusters of so many worker processes of one thread."""
    from contextlib import ExitStack

    from distributed import Client, LocalCluster

    before = dict(os.environ)
    with ExitStack() as stack:
        # What Dask sets for its workers, such as one thread, it also leaves to all that this process starts later.
        stack.callback(lambda: (os.environ.clear(), os.environ.update(before)))
        clients = []
        for size in sizes:
            options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50, "memory_limit": "3GB"}
            cluster = stack.enter_context(LocalCluster(n_workers=size, processes=True, **options))
            clients.append(stack.enter_context(Client(cluster, set_as_default=False)))
        yield clients


def _say(*what: object) -> None:
    print(*what, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------- simulation


@dataclass(frozen=True)
class Site:
    """What a cluster is made of.

    Attributes:
        scaled: Pixels a second that one worker reads from memory and scales.
        pixels_per_second: That it computes of them.
        bytes_per_pixel: Of the scene's file.
        storage: Bytes a second that all workers get of it together.
        latency: Seconds until a request is answered; a tile's requests, one a line, follow one another.
        written: Pixels a second that one client writes while workers compute.
        finished: Pixels a second of its last copies, during which workers wait.
        tasks: Tasks a second that one scheduler hands out.
        block: Rows and columns that tiles are multiples of.
    """

    scaled: float
    pixels_per_second: float
    bytes_per_pixel: float
    storage: float
    latency: float
    written: float
    finished: float
    tasks: float
    block: int = 64


def tile_of(site: Site, workers: int, rows: int, columns: int) -> tuple[int, int]:
    """Return a tile's rows and columns: 256 lines, or fewer so that each worker gets four, as `cluster.smaller_tiles` has it."""
    high, wide = 256, columns
    while -(-rows // high) * -(-columns // wide) < 4 * workers and max(high, wide) > site.block:
        if high > site.block:
            high = -(-high // 2 // site.block) * site.block
        else:
            wide = max(site.block, -(-wide // 2 // site.block) * site.block)
    return min(high, rows), wide


def simulate(site: Site, workers: int, rows: int, columns: int, scenes: int = 1) -> float:
    """Return pixels a second of scenes mapped one after another by a client, a scheduler and workers that share a storage.

    A worker reads a tile, then computes it. The storage, the scheduler and the client each do one thing after another. As many
    tiles are at the scheduler at a time as `cluster.parts` lets be. The last copies of a scene are made while workers wait.
    """
    now = 0.0
    for _ in range(scenes):
        now = _map_one(site, workers, rows, columns, now) + rows * columns / site.finished
    return scenes * rows * columns / now


def _map_one(site: Site, workers: int, rows: int, columns: int, now: float) -> float:
    """Return when the tiles of a scene that is begun now are written."""
    high, wide = tile_of(site, workers, rows, columns)
    pixels, left = high * wide, -(-rows // high) * -(-columns // wide)
    # Lines of up to 16 384 bytes are read whole, and so are those of which a tile takes the half.
    line = columns if columns * ITEM <= 16_384 or 2 * wide >= columns else wide
    reading, waiting = high * line * site.bytes_per_pixel / site.storage, high * site.latency
    scheduler = storage = client = now
    queued, idle, begin = 0, workers, min(left, max(32, 3 * workers))
    events: list[tuple[float, str]] = []
    for number in range(begin):
        events.append((now + (number + 1) / site.tasks, "ready"))
    scheduler, left = events[-1][0], left - begin
    while events:
        now, what = heapq.heappop(events)
        if what == "ready":
            queued += 1
        elif what == "computed":
            idle += 1
            client = max(now, client) + pixels / site.written
            heapq.heappush(events, (client, "written"))
        elif left:
            left -= 1
            scheduler = max(now, scheduler) + 1 / site.tasks
            heapq.heappush(events, (scheduler, "ready"))
        while queued and idle:
            queued, idle = queued - 1, idle - 1
            storage = max(now, storage) + reading
            end = max(storage, now + waiting) + pixels / site.scaled + pixels / site.pixels_per_second
            heapq.heappush(events, (end, "computed"))
    return now


def a_process_a_scene(site: Site, workers: int) -> float:
    """Return pixels a second of processes that map a scene each: they share the storage alone, and read while they compute."""
    alone = 1 / (1 / min(site.scaled, site.pixels_per_second) + 1 / site.finished)
    by_latency = 1000 / site.latency if site.latency else np.inf  # a line of 1000 pixels a request
    return min(workers * min(alone, by_latency), site.storage / site.bytes_per_pixel)


# ------------------------------------------------------------------------------------------------------------- page


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def best(runs: list[dict[str, Any]], key: str = "seconds") -> float:
    """Return the least of a key over runs."""
    return min(run[key] for run in runs)


def where(found: dict[str, Any]) -> str:
    """Return the line that says what was measured, when and on what."""
    return f"- {found['date']}, commit {found['commit']}, {found['machine']}"


def costs(size: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return by size the pixels, and microseconds and CPU microseconds a pixel beyond start-up."""
    start, found, last = size["runs"][START], {}, START
    for name, runs in size["runs"].items():
        if name == START:
            continue
        pixels = _pixels(name)
        found[name] = {
            key: 1e6 * (best(runs, key) - best(start, key)) / (pixels - _pixels(START)) for key in ("seconds", "cpu")
        }
        found[name]["pixels"] = pixels
        if name != ENMAP:
            more = best(runs) - best(size["runs"][last])
            found[name]["further"] = 1e6 * more / (pixels - _pixels(last))
            last = name
    return found


def _pixels(name: str) -> int:
    return SHAPES[name][0] * SHAPES[name][1]


def spread_of_costs(size: dict[str, Any]) -> tuple[float, float]:
    """Return how far costs a pixel of 145 bands are from their median, from 10⁵ pixels on: as they are, and of further pixels."""
    large = [each for name, each in costs(size).items() if name != ENMAP and each["pixels"] >= 1e5]
    kinds = [each["seconds"] for each in large], [each["further"] for each in large if each["pixels"] > 1e5]
    as_is, further = (max(abs(cost / statistics.median(kind) - 1) for cost in kind) for kind in kinds)
    return as_is, further


def most_memory(size: dict[str, Any]) -> float:
    """Return the largest peak memory of all runs as a share of what was allowed."""
    return max(run["memory"] for runs in size["runs"].values() for run in runs) / MEMORY


def summary_parts(results: dict[str, Any]) -> list[str]:
    """Return the table of what was wanted and what was found."""
    as_is, further = spread_of_costs(results["size"])
    memory, runs, disk = most_memory(results["size"]), results["cluster"]["runs"], results["disk"]
    ratio = best(runs["1 worker"]) / best(runs["2 workers"])
    kills = results["kills"]["process"] + results["kills"]["workers"]
    same = sum(_same(each) == "same" for each in kills)
    rate = disk["bytes"] / (best(disk["maps"]["cold"]) - best(disk["maps"]["start-up"]))
    reading = max(disk["reading"]["cold"])
    rows = [
        [
            "cost a pixel, 10⁵ pixels and more",
            f"within {WANTED_SPREAD:.0%} of its median",
            f"within {as_is:.0%}; of the pixels beyond 10⁵ within {further:.1%}",
            _met(as_is <= WANTED_SPREAD),
        ],
        ["peak memory", f"≤ {WANTED_MEMORY} × 512 MB", f"{memory:.2f} × 512 MB", _met(memory <= WANTED_MEMORY)],
        ["2 workers against 1", f"≥ {WANTED_RATIO} times as fast", f"{ratio:.2f} times", _met(ratio >= WANTED_RATIO)],
        ["files after SIGKILL", "those of an unbroken run", f"{same} of {len(kills)}", _met(same == len(kills))],
        ["disk", "", f"reads {reading / 1e6:,.0f} MB/s cold, a map takes {rate / 1e6:.0f} MB/s", ""],
    ]
    return ["## Wanted and found", table(["", "wanted", "found", ""], rows)]


def _met(met: bool) -> str:
    return "met" if met else "not met"


def size_parts(size: dict[str, Any]) -> list[str]:
    """Return the section of one machine's sizes."""
    found, start = costs(size), size["runs"][START]
    rows = [[START, f"{best(start):.2f}", f"{best(start, 'cpu'):.2f}", "", "", "", "", _mb(start), "", str(len(start))]]
    for name, each in found.items():
        runs = size["runs"][name]
        rows.append(
            [
                name,
                f"{best(runs):.2f}",
                f"{best(runs, 'cpu'):.2f}",
                f"{each['seconds']:.1f}",
                f"{each['further']:.1f}" if "further" in each else "",
                f"{each['cpu']:.1f}",
                f"{1e6 / each['seconds']:,.0f}",
                _mb(runs),
                f"{size['map_bytes'][name] / each['pixels']:.2f}",
                str(len(runs)),
            ]
        )
    head = [
        "pixels",
        "s",
        "CPU s",
        "µs a pixel",
        "µs a further pixel",
        "CPU µs a pixel",
        "pixels a second",
        "peak MB",
        "map, B a pixel",
        "runs",
    ]
    noise = max(run["seconds"] for run in start) - best(start)
    as_is, further = spread_of_costs(size)
    return [
        "## One machine",
        "`spectralmamba map --memory 512MB` of scenes of 145 bands (one of 224), a process a run, files warm in memory. Times "
        "are the best of the runs; cost a pixel is the time beyond that of 64 × 64 pixels, which is start-up. Peak memory is "
        "the largest of the runs. A further pixel is one more than the size before. One block of 128 lines repeats, so maps "
        "compress better than those of real scenes.",
        f"{where(size)}, {size['threads']} threads",
        table(head, rows),
        f"- From 10⁵ pixels on the cost a pixel of 145 bands stays within {as_is:.0%} of its median; wanted: "
        f"{WANTED_SPREAD:.0%}. A further pixel, counted from the size before, costs the same within {further:.1%} beyond 10⁵. "
        "The first 10⁵ pixels cost more: among other things, opening looks at up to 8 million values, and the first tile is read "
        "before anything is computed.",
        f"- Start-up varies by {noise:.2f} s between runs, which is {1e6 * noise / 1e4:.0f} µs a pixel at 10⁴ pixels and "
        f"{1e6 * noise / 1e5:.1f} µs at 10⁵.",
        f"- Peak memory is at most {most_memory(size):.2f} × 512 MB; wanted: no more than {WANTED_MEMORY}.",
        "- 10⁸ pixels, a file of 29 GB, are measured with `--largest`"
        + ("." if "10⁸" in size["runs"] else " alone, and were not here."),
    ]


def _mb(runs: list[dict[str, Any]]) -> str:
    return f"{max(run['memory'] for run in runs) / 1e6:.0f}"


def cluster_parts(cluster: dict[str, Any], parameters: dict[str, Any]) -> list[str]:
    """Return the section of workers."""
    runs, rows = cluster["runs"], []
    for name, found in runs.items():
        fastest, seconds = min(found, key=lambda run: run["seconds"]), [run["seconds"] for run in found]
        rows.append(
            [
                name,
                f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
                f"{cluster['pixels'] / fastest['seconds']:,.0f}",
                str(fastest["tiles"]),
                f"{fastest['after_the_last_tile']:.1f}",
                f"{fastest['workers_cpu']:.1f}" if fastest["workers_cpu"] else "",
                f"{fastest['this_process_cpu']:.1f}",
                f"{fastest['others_cpu']:.1f}",
            ]
        )
    head = ["", "s, median", "pixels a second, best", "tiles", "last copies, s", "workers' CPU s", "client's CPU s"]
    workers, threads = _ratios(runs, "1 worker", "2 workers"), _ratios(runs, "1 thread", "2 threads")
    met = _met(best(runs["1 worker"]) / best(runs["2 workers"]) >= WANTED_RATIO)
    most = max(run.get("worker_memory", 0) for found in runs.values() for run in found)
    both = min(runs["2 workers"], key=lambda run: run["seconds"])
    needed = both["workers_cpu"] + both["this_process_cpu"]
    compared = []
    for number, name in ((1, "1 worker"), (2, "2 workers")):
        rows_of_scene = cluster["pixels"] // 1000
        tiles = min(runs[name], key=lambda run: run["seconds"])["tiles"]
        predicted = simulate(this_machine(parameters), number, rows_of_scene, 1000)
        measured = cluster["pixels"] / best(runs[name])
        compared.append([name, str(tiles), f"{predicted:,.0f}", f"{measured:,.0f}", f"{predicted / measured - 1:+.0%}"])
    return [
        "## Workers on one machine",
        f"One scene of {cluster['pixels']:,} pixels by Dask workers of one thread each, and by one process, in turn. Clusters are "
        "started before. CPU seconds are those of the best round.",
        *filter(None, [cluster.get("note")]),
        where(cluster),
        table([*head, "other programs' CPU s"], rows),
        f"- 2 workers are {workers}; wanted: {WANTED_RATIO}, {met} by the best rounds. The client and 2 workers need "
        f"{needed:.1f} CPU s, so {needed / 2:.1f} s on 2 cores, and {both['after_the_last_tile']:.1f} s for the last copies.",
        f"- 2 threads of one process are {threads}; beside them one thread reads the next tile.",
        f"- A worker's peak memory is {most / 1e6:.0f} MB.",
        f"- One thread of a Dask worker computes {parameters['pixels_per_second']['computed']:,.0f} pixels a second of one tile, "
        f"of another process {parameters['outside_a_worker']['computed']:,.0f}. Dask's nanny starts workers with "
        "`MALLOC_TRIM_THRESHOLD_=65536`, by which memory goes back to the system after each use; another process started so is "
        "as slow.",
        "The simulation below knows the parts' own costs, not these times. Its prediction, in pixels a second:",
        table(["", "tiles", "predicted", "measured, best", "difference"], compared),
    ]


def _ratios(runs: dict[str, list[dict[str, Any]]], slow: str, fast: str) -> str:
    pairs = list(zip(runs[slow], runs[fast], strict=True))
    found = [one["seconds"] / two["seconds"] for one, two in pairs]
    quiet = [
        one["seconds"] / two["seconds"] for one, two in pairs if max(each["others_cpu"] for each in (one, two)) < QUIET
    ]
    said = f"{best(runs[slow]) / best(runs[fast]):.2f} times as fast as 1, best round against best; by rounds "
    said += f"{min(found):.2f} to {max(found):.2f}"
    if quiet:
        said += f", in {len(quiet)} of {len(found)} where other programs took less than {QUIET} CPU s "
        said += f"{min(quiet):.2f} to {max(quiet):.2f}"
    return said


def kills_parts(kills: dict[str, Any]) -> list[str]:
    """Return the section of kills."""
    seconds = kills["unbroken_seconds"]
    rows = []
    for number, (process, worker) in enumerate(zip(kills["process"], kills["workers"], strict=True), 1):
        kept = process["tiles_kept"]
        at = "had ended" if process["had_ended"] else "before the first tile" if kept is None else f"{kept} tiles kept"
        written = f"{worker['tiles_done']} of {worker['tiles']} tiles"
        of_process = f"{process['moment']:.2f}", at, _same(process)
        rows.append([str(number), *of_process, f"{worker['moment']:.2f}", written, _same(worker)])
    head = ["", "process killed at, s", "what was there", "files", "worker killed at, s", "written", "files"]
    late = sum(each["tiles_done"] == each["tiles"] for each in kills["workers"])
    same = [sum(each["same"] for each in kills[kind]) for kind in ("process", "workers")]
    return [
        "## Kills",
        "512 × 512 pixels in 64 tiles. `spectralmamba map` gets SIGKILL at a random moment of the "
        f"{seconds['process']:.1f} s that it takes, start-up included, then runs with `--resume`. A worker of two gets SIGKILL "
        f"at a random moment of the {seconds['workers']:.1f} s that the cluster takes; Dask starts another, and the command "
        f"runs on. “Same” means that SHA-256 of all {len(kills['files'])} files is that of an unbroken run, and that no other "
        "file is left.",
        where(kills),
        table(head, rows),
        f"- Same after {same[0]} of {len(rows)} kills of the process and {same[1]} of {len(rows)} of a worker; unbroken on the "
        f"cluster: {'same' if kills['unbroken_cluster_same'] else 'different'}.",
        f"- {late} of the workers were killed when all tiles were written, so that no tile was lost.",
    ]


def _same(found: dict[str, Any]) -> str:
    return "same" if found["same"] and not found.get("code") else f"different, code {found.get('code', 0)}"


def disk_parts(disk: dict[str, Any]) -> list[str]:
    """Return the section of the disk."""
    start = best(disk["maps"]["start-up"])
    rows = []
    for kind in ("cold", "warm"):
        runs, reading = disk["maps"][kind], max(disk["reading"][kind])
        rate = disk["bytes"] / (best(runs) - start)
        read = max(run["from_disk"] for run in runs)
        rows.append([kind, f"{reading / 1e6:,.0f}", f"{rate / 1e6:.1f}", f"{reading / rate:.0f}", f"{read / 1e6:,.0f}"])
    head = ["file", "read alone, MB/s", "by the map, MB/s", "times as fast", "from the disk during a map, MB"]
    bound = "computing" if all(float(row[3]) > 1 for row in rows) else "the disk"
    return [
        "## Disk",
        f"A file of {disk['bytes'] / 1e6:,.0f} MB, read alone in pieces of 8 MiB, and by a map, beyond start-up; the best of "
        f"{len(disk['reading']['cold'])} rounds. Cold is after `posix_fadvise(DONTNEED)`; the host of a virtual machine may keep "
        "the file all the same.",
        where(disk),
        table(head, rows),
        f"- What bounds a map on this machine is {bound}.",
    ]


def this_machine(parameters: dict[str, Any]) -> Site:
    """Return this machine as the parts' measured costs have it."""
    speed = parameters["pixels_per_second"]
    computed = 1 / (1 / speed["computed"] + 1 / speed["saved"])
    tasks, written, finished = parameters["tasks_per_second"], speed["written by the client"], speed["finished"]
    # The file is in memory: reading it is a part of scaling.
    return Site(speed["read and scaled"], computed, BANDS * ITEM, 1e12, 0, written, finished, tasks)


def gpu_speed() -> tuple[float, str]:
    """Return pixels a second of a GPU, and where the number is from."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    section = page.partition("<!-- mapping on a GPU -->")[2].partition("<!-- /mapping on a GPU -->")[0]
    found = re.search(r"P = 3:.*?\| whole scene \| ([\d,]+) \|", section, re.DOTALL)
    if found is None:
        return GPU_PIXELS_PER_SECOND, "a placeholder in `benchmarks/scale.py`, not measured"
    return float(found[1].replace(",", "")), "`docs/performance.md`, 145 bands in memory"


def gpu_reads() -> float:
    """Return pixels a second of 145 bands that a GPU classifies from a file in memory."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    section = page.partition("<!-- files on a GPU -->")[2].partition("<!-- /files on a GPU -->")[0]
    found = re.search(r"\| classified, float32 \|.*\| ([\d,]+) \|$", section, re.MULTILINE)
    return float(found[1].replace(",", "")) if found else GPU_READS_PER_SECOND


def sites(results: dict[str, Any]) -> dict[str, Site]:
    """Return the clusters that are simulated: scenes of 224 bands, CPU workers or GPUs, and two kinds of storage."""
    here = this_machine(results["parameters"])
    here = replace(
        here,
        scaled=here.scaled * BANDS / ENMAP_BANDS,
        pixels_per_second=here.pixels_per_second * _enmap(results),
        bytes_per_pixel=ENMAP_BANDS * ITEM,
    )
    of_gpu = replace(here, scaled=gpu_reads() * BANDS / ENMAP_BANDS, pixels_per_second=gpu_speed()[0], block=256)
    return {
        "CPU, 2 GB/s, 1 ms": replace(here, storage=2e9, latency=1e-3),
        "CPU, 100 GB/s, 20 ms": replace(here, storage=1e11, latency=2e-2),
        "GPU, 2 GB/s, 1 ms": replace(of_gpu, storage=2e9, latency=1e-3),
        "GPU, 100 GB/s, 1 ms": replace(of_gpu, storage=1e11, latency=1e-3),
    }


def _enmap(results: dict[str, Any]) -> float:
    """Return how fast 224 bands are computed, as a share of 145 bands, by CPU time."""
    found = costs(results["size"])
    return found["10⁶"]["cpu"] / found[ENMAP]["cpu"]


def simulation_parts(results: dict[str, Any]) -> list[str]:
    """Return the section of the simulation."""
    speed, rows = results["parameters"]["pixels_per_second"], []
    parts = [
        "## Many workers",
        "A simulation, not a measurement. Workers read a tile, then compute it; one storage, one scheduler and one client, "
        "which alone writes the map, do one thing after another. Numbers are millions of pixels a second; in brackets the "
        "share of what as many workers would compute if they did nothing else. Scenes have "
        f"{ENMAP_BANDS} bands of int16. “Scenes” are of 1000 × 1000 pixels, one after another with one client; “mosaic” is "
        "one scene of 20 000 × 1000; “a process a scene” is as many `spectralmamba map` as workers, each with its own list. "
        "Storage and latency are assumed, as the heads say; a request is a line, of which a worker asks for one after another.",
        where(results["parameters"]),
        "What the simulation knows of this machine, each measured alone, 145 bands, one thread: "
        + ", ".join(f"{what} {value:,.0f} pixels a second" for what, value in speed.items())
        + f"; {results['parameters']['tasks_per_second']:,.0f} tasks a second. “Finished” are the last copies to cloud-optimised "
        "GeoTIFFs, which are read back whole. A GPU's worker reads as docs/performance.md has it of files on a GPU, then computes.",
    ]
    for name, site in sites(results).items():
        rows = []
        for workers in WORKERS:
            ideal = workers * site.pixels_per_second
            found = (
                simulate(site, workers, 1000, 1000, scenes=3),
                simulate(site, workers, 20_000, 1000),
                a_process_a_scene(site, workers),
            )
            rows.append([f"{workers}", *(f"{value / 1e6:.3g} ({_share(value / ideal)})" for value in found)])
        parts += [f"{name}:", table(["workers", "scenes, one client", "mosaic, one client", "a process a scene"], rows)]
    return parts


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.01 else f"{value:.2%}"


def arithmetic_parts(results: dict[str, Any]) -> list[str]:
    """Return the section of a thousand scenes and of the land of the Earth."""
    cost, size = costs(results["size"])[ENMAP], results["size"]
    cpu, (gpu, source) = cost["cpu"] / 1e6, gpu_speed()
    start = best(size["runs"][START], "cpu")
    map_bytes = size["map_bytes"][ENMAP] / SCENE_PIXELS
    land = LAND_KM2 * 1e6 / LAND_PIXEL_M**2
    rows = []
    amounts = {"1000 scenes": float(SCENES * SCENE_PIXELS), "land of the Earth": land}
    for what, of in (
        ("pixels", lambda n: f"{n:,.0f}"),
        ("scenes of 10⁶ pixels", lambda n: f"{n / SCENE_PIXELS:,.0f}"),
        ("bytes read", lambda n: _bytes(n * ENMAP_BANDS * ITEM)),
        ("maps, class and confidence, uncompressed", lambda n: _bytes(5 * n)),
        ("maps as compressed here", lambda n: _bytes(map_bytes * n)),
        ("core-hours", lambda n: f"{n * (cpu + start / SCENE_PIXELS) / 3600:,.1f}"),
        ("of them start-up, a process a scene", lambda n: f"{n / SCENE_PIXELS * start / 3600:,.1f}"),
        ("cores to end in 24 hours", lambda n: f"{n * (cpu + start / SCENE_PIXELS) / 86_400:,.1f}"),
        ("GPU-hours", lambda n: f"{n / gpu / 3600:,.2f}"),
        ("bytes a second to end in 24 hours", lambda n: _bytes(n * ENMAP_BANDS * ITEM / 86_400)),
        ("requests in all, a line each", lambda n: f"{n / 1000:,.0f}"),
    ):
        rows.append([what, *(of(n) for n in amounts.values())])
    return [
        "## A thousand scenes, and a global archive",
        f"Scenes of 1000 × 1000 pixels, {ENMAP_BANDS} bands, int16. Land is {LAND_KM2 / 1e6:.0f} million km², covered once by "
        f"pixels of {LAND_PIXEL_M} m, all of it classified. Core-hours are {1e6 * cpu:.1f} CPU µs a pixel, measured above, "
        f"and start-up of {start:.1f} CPU s a scene. GPU-hours are at {gpu:,.0f} pixels a second, {source}; they hold if "
        "reading keeps up.",
        table(["", *amounts], rows),
    ]


def _bytes(number: float) -> str:
    for unit in ("MB", "GB", "TB"):
        number /= 1e6 if unit == "MB" else 1e3
        if number < 1000:
            break
    return f"{number:.3g} {unit}"


def bounds_parts(results: dict[str, Any]) -> list[str]:
    """Return the section of what bounds first."""
    found = sites(results)
    cpu, (gpu_alone, source) = found["CPU, 2 GB/s, 1 ms"], gpu_speed()
    client = 1 / (1 / cpu.written + 1 / cpu.finished)
    one = 1 / (1 / cpu.scaled + 1 / cpu.pixels_per_second)
    bytes_ = cpu.bytes_per_pixel
    again = SCENE_COLUMNS / cpu.block
    memory = max(run["memory"] for run in results["size"]["runs"][ENMAP])
    shared = [
        ("the client: last copies", cpu.finished, "workers wait meanwhile"),
        ("the client: parts into the working rasters", cpu.written, "while workers compute"),
        ("storage of 2 GB/s", 2e9 / bytes_, f"{bytes_} B a pixel"),
        ("storage of 2 GB/s, tiles of 64 × 64", 2e9 / bytes_ / again, f"each line is read {again:.0f} times"),
        ("storage of 100 GB/s", 1e11 / bytes_, ""),
        ("5500 requests a second", 5500 * 1000.0, "a line of 1000 pixels each; the rate is that of one prefix of S3"),
        ("scheduler, tiles of 256 × 1000", cpu.tasks * 256_000, f"{cpu.tasks:,.0f} tasks a second"),
        ("scheduler, tiles of 64 × 64", cpu.tasks * 64 * 64, ""),
    ]
    rows = [
        [what, f"{value:,.0f}", f"{value / one:,.0f}", f"{value / gpu_alone:.2g}", note]
        for what, value, note in sorted(shared, key=lambda each: each[1])
    ]
    low, high = results["parameters"].get("read_and_scaled_range", [cpu.scaled * ENMAP_BANDS / BANDS] * 2)
    varied = f"in memory already; {low:,.0f} to {high:,.0f} at {BANDS} bands in several runs"
    own = [
        ["reading and scaling, one thread", f"{cpu.scaled:,.0f}", varied],
        ["requests of 1 ms, one after another", f"{1000 / 1e-3:,.0f}", "a line of 1000 pixels each"],
        ["requests of 20 ms, one after another", f"{1000 / 0.02:,.0f}", ""],
        ["computing, one CPU thread", f"{cpu.pixels_per_second:,.0f}", ""],
        ["computing, one GPU", f"{gpu_alone:,.0f}", source],
    ]
    return [
        "## What bounds first",
        f"Each part alone, {ENMAP_BANDS} bands. What all share, and how many CPU workers of one thread, {one:,.0f} pixels a "
        "second with their reading, or GPUs, if reading keeps up with them, keep it busy:",
        table(["part", "pixels a second", "CPU workers", "GPUs", ""], rows),
        "What each worker has for itself:",
        table(["part", "pixels a second", ""], own),
        "- With one client and scenes of 1000 × 1000 pixels, the size of the tiles comes first. More workers get smaller tiles, "
        f"down to 64 × 64: then lines of up to 16 384 bytes, which are read whole, are read {again:.0f} times, and the scheduler "
        f"hands out {cpu.tasks * 64 * 64:,.0f} pixels a second. A scene has 256 such tiles: more workers find nothing to do in it.",
        f"- With one client and large tiles its last copies and its writing come first: {client:,.0f} pixels a second together, "
        f"{client / one:,.0f} CPU workers or {client / gpu_alone:.2g} GPUs. Many scenes are mapped faster by many processes, "
        "each with its own list of them: `spectralmamba map model.safetensors list.txt --out maps`.",
        f"- With a process a scene storage comes first: {bytes_ * one / 1e6:.0f} MB/s for each CPU worker. A GPU would need "
        f"{bytes_ * gpu_alone / 1e9:.1f} GB/s. From a file in memory it classifies {gpu_reads():,.0f} pixels of {BANDS} bands a "
        f"second, reading and computing at once.",
        f"- Memory does not grow with the scene: {memory / 1e6:.0f} MB a process of two threads with `--memory 512MB`, so "
        f"1000 processes take {memory / 1e6:.0f} GB on their nodes together.",
    ]


def write_section(name: str, parts: list[str]) -> None:
    """Replace what is between a section's markers in docs/scaling.md, or append it."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else "# Scaling\n"
    write_text(PAGE, with_section(text, name, parts))


def sections(results: dict[str, Any]) -> dict[str, list[str]]:
    """Return the parts of all sections that there are results for."""
    found: dict[str, list[str]] = {}
    if {"size", "cluster", "kills", "disk"} <= results.keys():
        found["summary"] = summary_parts(results)
    if "size" in results:
        found["size"] = size_parts(results["size"])
    if {"cluster", "parameters"} <= results.keys():
        found["cluster"] = cluster_parts(results["cluster"], results["parameters"])
    if "kills" in results:
        found["kills"] = kills_parts(results["kills"])
    if "disk" in results:
        found["disk"] = disk_parts(results["disk"])
    if {"size", "parameters"} <= results.keys():
        found["archives"] = arithmetic_parts(results)
        found["bounds"] = bounds_parts(results)
        found["simulation"] = simulation_parts(results)
    return found


def main() -> None:
    """Measure what is asked for, print all tables, and write docs/scaling.md if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", default=",".join(MEASUREMENTS), help="parts, separated by commas; empty for none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    parser.add_argument("--cluster-rows", type=int, default=1536, help="lines of 1000 pixels that a cluster maps")
    parser.add_argument("--largest", action="store_true", help="map 10⁸ pixels, too")
    parser.add_argument("--folder", type=Path, help="where the scenes go, for a while; else the usual one")
    parser.add_argument("--write-docs", action="store_true", help="write docs/scaling.md")
    arguments = parser.parse_args()
    measures: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
        name: globals()[f"measure_{name}"] for name in MEASUREMENTS
    }
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in filter(None, arguments.measure.split(",")):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            model.cache_clear()
            results[name] = provenance("cpu") | measures[name](Path(folder), arguments)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        write_text(RESULTS, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    for name, parts in sections(results).items():
        print(*parts, sep="\n\n", end="\n\n")
        if arguments.write_docs:
            write_section(name, parts)


if __name__ == "__main__":
    main()
