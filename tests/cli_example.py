"""The command line called as a user calls it, and tiny files to give to it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from spectralmamba.cli import main
from spectralmamba.scenes import simulate_scene
from spectralmamba.scenes.writing import write_labels, write_scene

UTM, NORTH_UP = "EPSG:32633", Affine(10, 0, 390_000, 0, -10, 5_820_000)
ENVI_TYPES = {"u1": 1, "i2": 2, "f4": 4}
# A network of a few thousand parameters; what is tested here does not depend on its size.
SMALL = ("--patch", "1", "--set", "batch_size=8", "--set", "model_options.width=8", "--set", "model_options.states=2")
ONE_TRAINING = ("--set", "self_training_rounds=0")
QUICK = (*SMALL, *ONE_TRAINING, "--steps", "3")


@dataclass(frozen=True)
class Answer:
    """What a command printed, without colours, and its exit code."""

    code: int
    out: str
    err: str


def command_line(*words: object) -> Answer:
    """Run the command line in this process, with the exit code it would leave with."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["spectralmamba", *map(str, words)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 0
    return Answer(code, plain(out.getvalue()), plain(err.getvalue()))


def start_program(*words: object, **options: object) -> subprocess.Popen[str]:
    """Start the command line as a process of its own; one thread, so that it computes what this process does."""
    program = [sys.executable, "-c", "from spectralmamba.cli import main; main()", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(program, env=environment, text=True, **pipes)  # type: ignore[call-overload]


def run_program(*words: object, **options: object) -> Answer:
    """Run the command line as a process of its own."""
    process = start_program(*words, **options)
    out, err = process.communicate(timeout=120)
    return Answer(process.returncode, out, err)


def plain(text: str) -> str:
    """Take away colours and the frames of usage errors, and join their lines."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return re.sub(r"\s*│\n│\s*", " ", text)


def assert_refused(answer: Answer, *words: str, out: Path | None = None) -> None:
    """One clear message that holds the words, exit code 2, and nothing left in the output folder."""
    assert answer.code == 2, answer
    assert "Traceback" not in answer.err
    assert len(re.findall(r"^(Error: |╭─ Error)", answer.err, re.MULTILINE)) == 1, answer.err
    for word in words:
        assert word in answer.err, f"{word!r} is not said in: {answer.err}"
    if out is not None:
        assert not out.exists() or list(out.iterdir()) == [], f"left over: {sorted(out.iterdir())}"


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".") or "part" in path.name]


def write_tiff(path: Path, cube: np.ndarray, **profile: object) -> Path:
    bands, rows, columns = cube.shape
    size = {"count": bands, "height": rows, "width": columns, "dtype": cube.dtype}
    options = {"crs": UTM, "transform": NORTH_UP} | size | profile
    with rasterio.open(path, "w", driver="GTiff", **options) as dataset:  # type: ignore[arg-type]
        dataset.write(cube)
    return path


def write_envi(path: Path, cube: np.ndarray, **changes: object) -> Path:
    """Write a band-sequential scene; `changes` replace keys of the header, None leaves one out."""
    bands, rows, columns = cube.shape
    keys = {"samples": columns, "lines": rows, "bands": bands, "data type": ENVI_TYPES[cube.dtype.str[1:]]}
    keys |= {"interleave": "bsq", "byte order": 0} | {name.replace("_", " "): value for name, value in changes.items()}
    path.with_suffix(".img").write_bytes(cube.tobytes())
    lines = ["ENVI", *(f"{name} = {value}" for name, value in keys.items() if value is not None)]
    path.with_suffix(".hdr").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path.with_suffix(".hdr")


@dataclass(frozen=True)
class Example:
    """A scene of 24 × 24 pixels and 12 bands with labels of three classes, as files and as arrays."""

    scene: Path
    labels: Path
    cube: np.ndarray
    ids: np.ndarray


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    folder = tmp_path_factory.mktemp("example")
    scene, labels = simulate_scene(rows=24, columns=24, bands=12, classes=3, seed=0)
    files = write_scene(scene, folder / "scene.tif"), write_labels(labels, folder / "labels.tif")
    return Example(*files, scene.values, labels.values.astype(np.uint8))


@pytest.fixture(scope="session")
def trained(example: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained classifier."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    answer = command_line("train", example.scene, example.labels, "--out", folder, *QUICK)
    assert answer.code == 0, answer
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and threads that wait for each other on a busy machine lose much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
