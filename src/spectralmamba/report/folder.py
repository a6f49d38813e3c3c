"""Reads a run's folder: what the report says comes from these files and from nowhere else."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from spectralmamba.errors import OutputError
from spectralmamba.scenes.raster_files import opened_raster
from spectralmamba.splits import TEST, TRAINING

SCORE_KEYS = ("overall_accuracy", "average_accuracy", "kappa", "macro_f1", "per_class", "classes", "confusion")
COLOR = re.compile(r"#[0-9a-fA-F]{6}")
FALLBACK_COLOR = "#808080"
STRIP_ROWS = 512  # the tile height of a cloud-optimised GeoTIFF, so that no tile is decoded twice
LARGEST_HEADER = 100_000_000  # bytes; the safetensors format specification refuses longer headers


@dataclass(frozen=True)
class MappedClass:
    """A class as the report names and colours it."""

    id: int
    name: str
    color: str


@dataclass(frozen=True)
class Survey:
    """What one pass over `split.tif` and `map.tif` finds.

    Args:
        rows: Rows of the training and test pixels, int64 `(n,)`.
        columns: Their columns.
        role: 1 training, 2 test.
        reference: Their reference class ids.
        predicted: Their mapped class ids.
        mapped: Pixels of the whole map by class id; 0 counts nodata.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    role: NDArray[np.int64]
    reference: NDArray[np.int64]
    predicted: NDArray[np.int64]
    mapped: Counter[int]


@dataclass(frozen=True)
class RunFolder:
    """A run's folder with its small files read; rasters are read when asked for.

    Args:
        path: The folder.
        scores: `scores.json`.
        settings: `settings.toml`.
        record: The split's record.
        shape: Rows and columns of the scene.
        spectra: `spectra.json`, None if it is absent.
        log: The steps of `log.jsonl`, None if it is absent.
        card: The classifier's card, None if it cannot be read.
    """

    path: Path
    scores: dict[str, Any]
    settings: dict[str, Any]
    record: dict[str, Any]
    shape: tuple[int, int]
    spectra: dict[str, Any] | None = None
    log: list[dict[str, Any]] | None = None
    card: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        """The scene's name if the scores say it, else the folder's."""
        file = (self.scores.get("scene") or {}).get("file")
        return PurePath(str(file)).name if file else self.path.resolve().name

    @cached_property
    def classes(self) -> dict[int, MappedClass]:
        """The classes by id, in the order of the scores."""
        found = (mapped_class(entry) for entry in self.scores["classes"])
        return {each.id: each for each in found}

    def class_of(self, id: int) -> MappedClass:
        """The class of this id, one with a plain name and colour if the scores do not know it."""
        return self.classes.get(id) or MappedClass(id, f"class {id}", FALLBACK_COLOR)

    @cached_property
    def survey(self) -> Survey:
        """The labelled pixels and the map's class counts, at full resolution."""
        return _survey(self.path / "split.tif", self.path / "map.tif")

    def has(self, name: str) -> bool:
        """Whether the folder holds this file."""
        return (self.path / name).is_file()


def mapped_class(entry: dict[str, Any]) -> MappedClass:
    """The class of an entry with `id`, `name` and `color`; a colour that is not `#rrggbb` becomes grey."""
    color = str(entry.get("color", ""))
    name = str(entry.get("name") or f"class {entry['id']}")
    return MappedClass(int(entry["id"]), name, color if COLOR.fullmatch(color) else FALLBACK_COLOR)


def read_run(folder: Path) -> RunFolder:
    """Read the folder of one run.

    Args:
        folder: The folder, see "A run's folder" in the architecture document.

    Raises:
        OutputError: A file that a report cannot do without is missing or damaged.
    """
    scores = read_json(require(folder, "scores.json"), required_keys=SCORE_KEYS)
    _check_confusion(folder / "scores.json", scores)
    settings = _read_settings(require(folder, "settings.toml"))
    tags, shape = _raster_facts(require(folder, "split.tif"))
    _, map_shape = _raster_facts(require(folder, "map.tif"))
    if map_shape != shape:
        raise OutputError(
            "the map does not lie on the grid of the split",
            file=folder / "map.tif",
            found=f"{map_shape[0]} × {map_shape[1]} pixels",
            expected=f"{shape[0]} × {shape[1]} as in split.tif",
            remedy="Make both in one go with `spectralmamba run`.",
        )
    record = scores.get("split") or _record_of(folder / "split.tif", tags)
    spectra = folder / "spectra.json"
    log = folder / "log.jsonl"
    return RunFolder(
        folder,
        scores,
        settings,
        record,
        shape,
        spectra=read_json(spectra, required_keys=("classes", "good")) if spectra.is_file() else None,
        log=_read_log(log) if log.is_file() else None,
        card=_read_card(folder / "model.safetensors"),
    )


def require(folder: Path, name: str) -> Path:
    """The path of a file in the folder.

    Raises:
        OutputError: There is no such folder or file.
    """
    if not folder.is_dir():
        raise OutputError("there is no such folder", file=folder, remedy="Make it with `spectralmamba run`.")
    if not (folder / name).is_file():
        raise OutputError(
            "the report needs this file and it is not there",
            file=folder / name,
            remedy=f"Make the folder with `spectralmamba run … --out {folder}`.",
        )
    return folder / name


def read_json(path: Path, *, required_keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """A JSON object with these keys.

    Raises:
        OutputError: It is not JSON, not an object, or lacks a key.
    """
    try:
        content = _loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise damaged(path, f"a {type(content).__name__}", "an object")
    missing = [key for key in required_keys if key not in content]
    if missing:
        raise damaged(path, f"no {', '.join(missing)}", "all of " + ", ".join(required_keys))
    return content


@contextmanager
def open_raster(path: Path) -> Iterator[Any]:
    """Open a raster that may have no georeference.

    Raises:
        OutputError: It cannot be read.
    """
    try:
        with opened_raster(path) as dataset:
            yield dataset
    except RasterioError as error:
        raise damaged(path, str(error), "a raster that GDAL reads") from error


def _loads(text: str | bytes) -> Any:
    """JSON in which NaN and infinity, which Python writes and JSON does not know, are as undefined as null."""
    return json.loads(text, parse_constant=lambda _: None)


def damaged(path: Path, found: str, expected: str | None = None) -> OutputError:
    """The error for a file that is not what a run writes."""
    remedy = "Make the folder anew with `spectralmamba run`."
    return OutputError(
        "this file cannot be used for the report", file=path, found=found, expected=expected, remedy=remedy
    )


def _check_confusion(path: Path, scores: dict[str, Any]) -> None:
    classes = len(scores["classes"])
    rows = [len(row) for row in scores["confusion"]]
    if rows != [classes] * classes:
        raise damaged(path, f"{len(rows)} rows of the confusion matrix", f"{classes} rows and columns, one a class")


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise damaged(path, str(error), "TOML") from error


def _raster_facts(path: Path) -> tuple[dict[str, str], tuple[int, int]]:
    with open_raster(path) as dataset:
        return dataset.tags(), dataset.shape


def _record_of(path: Path, tags: dict[str, str]) -> dict[str, Any]:
    try:
        return _loads(tags["SPLIT_RECORD"])
    except (KeyError, ValueError) as error:
        raise damaged(path, "no readable tag SPLIT_RECORD", "the split's record as JSON") from error


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole: a run that was stopped may have left half a line at the end."""
    steps = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            step = _loads(line)
        except ValueError:
            continue
        if isinstance(step, dict) and "step" in step:
            steps.append(step)
    return steps


def _read_card(path: Path) -> dict[str, Any] | None:
    """The card in a safetensors header: eight bytes of length, little-endian, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST_HEADER:
                return None
            card = _loads(_loads(file.read(length))["__metadata__"]["card"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return card if isinstance(card, dict) else None


def _survey(split_path: Path, map_path: Path) -> Survey:
    mapped: Counter[int] = Counter()
    strips = []
    with open_raster(split_path) as split, open_raster(map_path) as classes:
        height, width = split.shape
        for top in range(0, height, STRIP_ROWS):
            window = Window(0, top, width, min(STRIP_ROWS, height - top))  # pyright: ignore[reportCallIssue]
            role, reference = split.read([1, 2], window=window)
            predicted = classes.read(1, window=window)
            ids, counts = np.unique(predicted, return_counts=True)
            mapped.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
            rows, columns = np.nonzero((role == TRAINING) | (role == TEST))
            here = rows, columns
            strips.append(
                np.stack([rows + top, columns, role[here], reference[here], predicted[here]]).astype(np.int64)
            )
    return Survey(*np.concatenate(strips, axis=1), mapped=mapped)
