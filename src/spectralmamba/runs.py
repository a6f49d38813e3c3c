"""A run: train, map, evaluate and report, everything kept in one folder."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import xarray as xr

from spectralmamba.classifier import Classifier, versions
from spectralmamba.errors import OutputError, SettingsError, SplitError
from spectralmamba.evaluation import Scores, calibration, evaluate, summarize, wilson_interval
from spectralmamba.explanations import choose_pixels, explain, pixel_values
from spectralmamba.files import write_json
from spectralmamba.gis.beside import GisFiles
from spectralmamba.mapping import SET_SIZE_NODATA, MapFiles, map_scene
from spectralmamba.memory import peak_memory
from spectralmamba.models.committee import SIMPLE_MODELS
from spectralmamba.report import write_report, write_summary_report
from spectralmamba.scenes.raster_files import opened_raster
from spectralmamba.scenes.summary import class_spectra, write_overview
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.training import Progress, fit_seeds

_LOG_LINES = 200
_NOVEL = 0.99


@dataclass
class Run:
    """One folder with everything that belongs to one training.

    Attributes:
        folder: Where it is kept.
        seconds: Wall time of each stage so far.
    """

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """The classifier's file."""
        return self.folder / "model.safetensors"

    def train(
        self,
        scene: xr.DataArray,
        labels: xr.DataArray,
        split: Split | None,
        settings: Settings,
        *,
        device: str = "auto",
        resume: bool = False,
        on_step: Callable[[Progress], None] | None = None,
    ) -> Classifier:
        """Train, and keep settings, split, log, picture, spectra and classifier.

        With `resume`, a finished training is only loaded, and an unfinished one goes on from its checkpoint.

        Raises:
            SettingsError: The training in the folder has other settings or another split; or as `fit` does.
        """
        return train_runs(
            {settings.seed: self},
            scene,
            labels,
            {settings.seed: split},
            settings,
            device=device,
            resume=resume,
            on_step=None if on_step is None else lambda _, progress: on_step(progress),
        )[settings.seed]

    def map(
        self,
        classifier: Classifier,
        scene: xr.DataArray,
        on_tile: Callable[[int, int], None] | None = None,
        gis: GisFiles | None = None,
    ) -> MapFiles:
        """Map the whole scene to `map.tif`, its layers, `map_confidence.tif` …, and what `gis` asks for beside them."""
        with self._timed("map"):
            return map_scene(classifier, scene, self.folder / "map.tif", on_tile=on_tile, ortho=False, gis=gis)

    def evaluate(self, classifier: Classifier, scene: xr.DataArray, labels: xr.DataArray, split: Split) -> Scores:
        """Score the map that `map` wrote on the test pixels; keep the scores in `scores.json` and in the classifier's card.

        The map holds how many classes are in each prediction set but not which, so the test pixels' sets are made again.
        """
        with self._timed("evaluate"):
            mapped, confidence = (_read_band(self.folder / name) for name in ("map.tif", "map_confidence.tif"))
            scores = evaluate(mapped, labels, where=split.test)
            sets = self._prediction_sets(classifier, scene, labels, split.test & (labels.values > 0))
        record = scores.to_dict()
        classifier.card["scores"] = {
            key: record[key] for key in ("overall_accuracy", "average_accuracy", "kappa", "macro_f1", "test_pixels")
        }
        classifier.save(self.model)
        left_out = {"options", "preset"} if classifier.card["model"]["name"] in SIMPLE_MODELS else {"options"}
        model = {key: value for key, value in classifier.card["model"].items() if key not in left_out}
        if choice := classifier.card.get("choice"):
            model["choice"] = choice
        write_json(
            self.folder / "scores.json",
            record
            | {
                "calibration": calibration(mapped, confidence, labels, where=split.test),
                "novelty": self._novelty(split.test & (labels.values > 0)),
                "prediction_sets": sets,
                "split": split.with_patch(classifier.patch).record,
                "versions": versions(),
                "seconds": {stage: round(spent, 3) for stage, spent in self.seconds.items()},
                "peak_memory_bytes": peak_memory(),
                "model": model,
                "scene": classifier.card["data"]
                | {
                    "crs": _crs(scene),
                    "labels": classifier.card.get("labels"),
                    "label_report": labels.attrs.get("report", {}),
                },
            },
        )
        return scores

    def explain(self, classifier: Classifier, scene: xr.DataArray, labels: xr.DataArray, split: Split) -> None:
        """Keep for the viewer spectra and probabilities, `pixels.npz`, and what decided in some test pixels, `why.npz`.

        Needs the map that `map` wrote, which tells the test pixels that are wrong.
        """
        with self._timed("explain"):
            values = pixel_values(classifier, scene)
            values.save(self.folder / "pixels.npz")
            wrong = _read_band(self.folder / "map.tif") != labels.values
            chosen = choose_pixels(split.test & (labels.values > 0), wrong, values.step)
            explain(classifier, scene, chosen).save(self.folder / "why.npz")

    def report(self) -> Path:
        """Write `report.html` and `viewer.html` from what the folder holds; return the report's path."""
        return write_report(self.folder)

    def _novelty(self, tested: np.ndarray) -> dict[str, float] | None:
        """Return the share of the test pixels that are more novel than all but 1 % of the training side's."""
        if not (self.folder / "map_novelty.tif").is_file():
            return None
        found = _read_band(self.folder / "map_novelty.tif")[tested]
        found = found[np.isfinite(found)]
        return {"level": _NOVEL, "share_of_test": float((found > _NOVEL).mean())} if len(found) else None

    def _prediction_sets(
        self, classifier: Classifier, scene: xr.DataArray, labels: xr.DataArray, tested: np.ndarray
    ) -> dict[str, Any] | None:
        """Return what there is to say of the sets: how they came about, of the test pixels, of the whole map; None without sets."""
        if classifier.sets is None:
            return None
        card, mapped = classifier.card["prediction_sets"], self.folder / "map_set_size.tif"
        return {name: card[name] for name in ("coverage", "threshold", "labels", "left_out")} | {
            "of_test": _coverage(classifier, scene, labels, tested),
            "of_map": _shares(_count_values(mapped)[:SET_SIZE_NODATA]) if mapped.is_file() else None,
        }

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def _begin(self, labels: xr.DataArray, split: Split | None, settings: Settings) -> None:
        settings.save(self.folder / "settings.toml")
        if split is not None:
            split.with_patch(settings.patch).save(self.folder / "split.tif", labels)

    def _finish(self, scene: xr.DataArray, labels: xr.DataArray, split: Split | None, classifier: Classifier) -> None:
        write_overview(scene, self.folder / "overview.tif")
        write_json(
            self.folder / "spectra.json",
            class_spectra(scene, labels, labels.values > 0 if split is None else split.train),
        )
        classifier.save(self.model)

    def _check_same(self, settings: Settings, labels: xr.DataArray, split: Split | None) -> None:
        kept_settings, kept_split = self.folder / "settings.toml", self.folder / "split.tif"
        remedy = "Give the same ones, choose another folder with --out, or begin anew with --overwrite."
        if kept_settings.is_file():
            kept, asked = Settings.load(kept_settings).to_dict(), settings.to_dict()
            differing = [name for name in asked if kept[name] != asked[name]]
            if differing:
                raise SettingsError(
                    "the folder holds a training with other settings",
                    file=kept_settings,
                    found=", ".join(f"{name} = {kept[name]}" for name in differing),
                    expected=", ".join(f"{name} = {asked[name]}" for name in differing),
                    remedy=remedy,
                )
        if kept_split.is_file():
            stored, ids = Split.load(kept_split)
            same = split is not None and all(
                np.array_equal(getattr(stored, mask), getattr(split, mask)) for mask in ("train", "test")
            )
            if not same:
                raise SettingsError("the folder holds a training with another split", file=kept_split, remedy=remedy)
            if not np.array_equal(ids, labels.values):
                raise SettingsError("the folder holds a training with other labels", file=kept_split, remedy=remedy)
        if self.model.is_file():
            self._check_same_opening(labels, remedy)

    def _check_same_opening(self, labels: xr.DataArray, remedy: str) -> None:
        kept, asked = Classifier.load(self.model, "cpu").card.get("labels"), labels.attrs.get("opened_with", {})
        kept = asked if kept is None else {name: value for name, value in kept.items() if name != "file"}
        if differing := [name for name in {**kept, **asked} if kept.get(name) != asked.get(name)]:
            raise SettingsError(
                "the folder holds a training with labels that were opened in another way",
                file=self.model,
                found=", ".join(f"{name} = {kept.get(name)}" for name in differing),
                expected=", ".join(f"{name} = {asked.get(name)}" for name in differing),
                remedy=remedy,
            )

    def _logged_seconds(self) -> dict[str, float]:
        """Return what the finished training took by its log; nothing where there is none, since no step was trained."""
        log = self.folder / "log.jsonl"
        return (
            {"train": json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["seconds"]} if log.is_file() else {}
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


def train_runs(
    runs: Mapping[int, Run],
    scene: xr.DataArray,
    labels: xr.DataArray,
    splits: Mapping[int, Split | None],
    settings: Settings,
    *,
    device: str = "auto",
    resume: bool = False,
    on_step: Callable[[int, Progress], None] | None = None,
) -> dict[int, Classifier]:
    """Train several seeds, on a GPU together, and keep in each one's folder what `Run.train` keeps.

    Time that seeds spent together is divided evenly among them.

    Args:
        runs: The folder of each seed.
        scene: `(band, y, x)`.
        labels: `(y, x)` class ids.
        splits: Which labelled pixels train with each seed.
        settings: Hyper-parameters but for the seed.
        device: As `fit` takes it.
        resume: Whether finished trainings are only loaded, and unfinished ones go on from their checkpoint.
        on_step: Called with the seed for every step.

    Raises:
        SettingsError: The training in a folder has other settings or another split; or as `fit` does.
    """
    classifiers: dict[int, Classifier] = {}
    for seed, run in runs.items():
        if resume:
            run._check_same(settings.replace(seed=seed), labels, splits[seed])
        if resume and run.model.is_file():
            run.seconds |= run._logged_seconds()
            classifiers[seed] = Classifier.load(run.model, device)
    missing = {seed: run for seed, run in runs.items() if seed not in classifiers}
    if not missing:
        return classifiers
    start = time.perf_counter()
    with ExitStack() as logs:
        listeners: dict[int, _Log] = {}
        for seed, run in missing.items():
            run._begin(labels, splits[seed], settings.replace(seed=seed))
            listeners[seed] = logs.enter_context(_Log(run.folder / "log.jsonl", resume))

        def listen(seed: int, progress: Progress) -> None:
            listeners[seed](progress)
            if on_step is not None:
                on_step(seed, progress)

        trained = fit_seeds(
            scene,
            labels,
            {seed: splits[seed] for seed in missing},
            settings,
            device=device,
            on_step=listen,
            checkpoints={seed: run._checkpoint for seed, run in missing.items()},
            resume=resume,
        )
    spent = (time.perf_counter() - start) / len(missing)
    for seed, classifier in trained.items():
        runs[seed].seconds["train"] = spent
        runs[seed]._finish(scene, labels, splits[seed], classifier)
    return classifiers | trained


def prepare_folder(path: str | os.PathLike[str], *, overwrite: bool = False, resume: bool = False) -> Path:
    """Make a folder for results; one that holds something is taken only with `overwrite` or `resume`.

    Raises:
        OutputError: The folder holds files, is a file, or cannot be written.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise OutputError("the output folder is a file", file=folder, remedy="Choose another name with --out.")
    if folder.is_dir() and any(folder.iterdir()) and not (overwrite or resume):
        raise OutputError(
            "the output folder holds files already",
            file=folder,
            remedy="Choose another one with --out, write over it with --overwrite, or go on with --resume.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "cannot make the output folder", file=folder, found=error.strerror, remedy="Choose another one with --out."
        ) from error
    if not os.access(folder, os.W_OK):
        raise OutputError("the output folder is not writable", file=folder, remedy="Choose another one with --out.")
    if overwrite and not resume:
        for place in (folder, *folder.glob("seed-*")):
            for name in RESULT_FILES:
                (place / name).unlink(missing_ok=True)
    return folder


RESULT_FILES = (
    "checkpoint.safetensors",
    "log.jsonl",
    "map.qml",
    "map.tif",
    "map.tif.aux.xml",
    "map_areas.csv",
    "map_confidence.qml",
    "map_confidence.tif",
    "map_novelty.qml",
    "map_novelty.tif",
    "map_overview.kmz",
    "map_overview.png",
    "map_polygons.gpkg",
    "map_set_size.qml",
    "map_set_size.tif",
    "map_stac.json",
    "model.safetensors",
    "overview.tif",
    "pixels.npz",
    "report.html",
    "scores.json",
    "settings.toml",
    "spectra.json",
    "split.tif",
    "summary.json",
    "viewer.html",
    "why.npz",
)


def write_summary(folder: Path, scores: dict[int, Scores]) -> Path:
    """Write `summary.json` and `report.html` of several seeds' runs, and return the report's path."""
    write_json(folder / "summary.json", summarize(list(scores.values()), list(scores)))
    return write_summary_report(folder)


def split_beside(model: Path, labels: xr.DataArray) -> Split | None:
    """Return the split that was stored beside a classifier, None if there is none.

    Raises:
        SplitError: It is of another grid than the labels.
    """
    path = model.parent / "split.tif"
    if not path.is_file():
        return None
    split, _ = Split.load(path)
    if split.test.shape != labels.shape:
        raise SplitError(
            "the split beside the classifier is of another scene",
            file=path,
            found=split.test.shape,
            expected=labels.shape,
            remedy="Score all labelled pixels with --all.",
        )
    return split


def _read_band(path: Path) -> np.ndarray:
    with opened_raster(path) as file:
        return file.read(1)


def _coverage(
    classifier: Classifier, scene: xr.DataArray, labels: xr.DataArray, tested: np.ndarray
) -> dict[str, Any] | None:
    """Return how many of the test pixels' sets hold the reference class, and how large they are, in all and of each class."""
    known, ids = classifier.classes, labels.values
    asked = np.unique(ids[tested])
    held = np.zeros(len(asked), np.int64)
    sizes = np.zeros((len(asked), len(known) + 1), np.int64)  # pixels by reference class and classes in the set
    for tile in classifier.tiles(scene, where=tested):
        assert tile.sets is not None
        classified = tile.ids > 0
        members, reference = tile.sets[:, classified], ids[tile.rows, tile.columns][classified]  # (K, m), (m,)
        row = np.searchsorted(asked, reference)
        held += np.bincount(row[(members & (known[:, None] == reference)).any(0)], minlength=len(asked))
        np.add.at(sizes, (row, members.sum(0)), 1)
    found = _held(held.sum(), sizes.sum(0))
    if found is None:
        return None
    of_classes = [(id_, _held(held[row], sizes[row])) for row, id_ in enumerate(asked.tolist())]
    names = labels.attrs["class_names"]
    return found | {
        "per_class": [{"id": id_, "name": names[id_], **each} for id_, each in of_classes if each is not None]
    }


def _held(held: int, sizes: np.ndarray) -> dict[str, Any] | None:
    """Return the share of sets that hold the reference class, with an interval, and what `_shares` says of them."""
    found, interval = _shares(sizes), wilson_interval(int(held), int(sizes.sum()))
    if found is None or interval is None:
        return None
    return {"held": float(held / sizes.sum()), "interval": [*interval], **found}


def _shares(sizes: np.ndarray) -> dict[str, Any] | None:
    """Return mean and shares of sets, of which `sizes` counts those with 0, 1 … classes; None if there are none."""
    total = int(sizes.sum())
    if total == 0:
        return None
    return {
        "pixels": total,
        "mean_size": float(sizes @ np.arange(len(sizes)) / total),
        "share_empty": float(sizes[0] / total),
        "share_single": float(sizes[1] / total),
    }


def _count_values(path: Path) -> np.ndarray:
    """Return the number of pixels of each value of a raster of bytes, `(256,)`; memory does not grow with the raster."""
    with opened_raster(path) as file:
        blocks = (file.read(1, window=window) for _, window in file.block_windows(1))
        return sum((np.bincount(block.ravel(), minlength=256) for block in blocks), np.zeros(256, np.int64))


def _crs(scene: xr.DataArray) -> str | None:
    return scene.rio.crs.to_string() if scene.rio.crs is not None else None


class _Log:
    """Writes a line of `log.jsonl` every few steps; going on drops the lines after the checkpoint."""

    def __init__(self, path: Path, resume: bool) -> None:
        self._path, self._resume = path, resume and path.is_file()
        self._start = time.perf_counter()
        self._file: TextIO | None = None

    def __enter__(self) -> _Log:
        return self

    def __call__(self, progress: Progress) -> None:
        file = self._file = self._file or self._open(progress.step)
        if progress.step % max(1, progress.steps // _LOG_LINES) == 0 or progress.step == progress.steps:
            line = {key: value for key, value in dataclasses.asdict(progress).items() if key != "steps"}
            line = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in line.items()}
            line["seconds"] = round(time.perf_counter() - self._start, 3)
            file.write(json.dumps({key: _json_number(value) for key, value in line.items()}) + "\n")
            file.flush()

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self, first: int) -> TextIO:
        kept = []
        if self._resume:
            lines = self._path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] < first]
        file = self._path.open("w", encoding="utf-8")
        file.writelines(line + "\n" for line in kept)
        return file


def _json_number(value: float) -> float | None:
    return value if np.isfinite(value) else None
