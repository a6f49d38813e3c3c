"""The report of one run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectralmamba import files
from spectralmamba.report import words
from spectralmamba.report.charts import distance_chart, training_charts
from spectralmamba.report.folder import MappedClass, RunFolder, read_run
from spectralmamba.report.networks import trained_networks
from spectralmamba.report.pictures import all_pictures
from spectralmamba.report.spectra import spectra_charts
from spectralmamba.report.templates import render
from spectralmamba.report.viewer import write_viewer

FEW_CLASSES = 16  # a legend of so many fits beside the pictures


@dataclass(frozen=True)
class Headline:
    """One of the scores at the top."""

    name: str
    value: str
    interval: str


@dataclass(frozen=True)
class LegendEntry:
    """A class and how much of the map it takes."""

    owner: MappedClass
    pixels: int
    share: float | None


@dataclass(frozen=True)
class Cell:
    """A field of the confusion matrix; `heat` is the square root of its share of the row, so that rare errors show."""

    count: int
    heat: float
    right: bool


@dataclass(frozen=True)
class ConfusionRow:
    """A reference class, the cells of the classes it was predicted as, and their sum."""

    owner: MappedClass
    cells: list[Cell]
    total: int


@dataclass(frozen=True)
class ClassScore:
    """A class's line in the table of scores; `sets` is what was measured of the prediction sets of its test pixels."""

    owner: MappedClass
    training: Any
    scores: Mapping[str, Any]
    sets: Mapping[str, Any]


def write_report(folder: str | Path) -> Path:
    """Write `report.html` and `viewer.html` into the folder of one run, from the files there and nothing else.

    The report holds its pictures, charts and style; it needs no script and no network. The viewer holds all its data and runs a
    script of its own. The same folder gives the same bytes.

    Args:
        folder: The run's folder with at least `scores.json`, `split.tif`, `map.tif` and `settings.toml`.

    Returns:
        The path of the report.

    Raises:
        OutputError: A file that the report needs is missing or damaged, or the report cannot be written.
    """
    run = read_run(Path(folder))
    write_viewer(run)
    path = run.path / "report.html"
    files.write_text(path, render("page.html", **_content(run)))
    return path


def _content(run: RunFolder) -> dict[str, Any]:
    scores, networks = run.scores, trained_networks(run)
    return {
        "title": run.title,
        "subtitle": _subtitle(run),
        "headlines": _headlines(scores),
        "level": words.percent((scores.get("intervals") or {}).get("level", 0.95), 0),
        "interval_methods": _interval_methods(scores),
        "independence": words.independence(run.record),
        "calibration_error": _calibration_error(scores),
        "novelty": words.novelty(scores.get("novelty") or {}),
        "prediction_sets": words.prediction_sets(scores.get("prediction_sets") or {}),
        "unclassified": scores.get("unclassified") or 0,
        "test_pixels": scores.get("test_pixels"),
        "pictures": all_pictures(run),
        "legend": _legend(run),
        "short_legend": len(run.classes) <= FEW_CLASSES,
        "class_scores": _class_scores(run),
        "sets_of_classes": bool(_sets_of_classes(run)),
        "confusion": _confusion(run),
        "predicted_totals": [sum(column) for column in zip(*scores["confusion"], strict=True)],
        "spectra": None if run.spectra is None else spectra_charts(run.spectra),
        "has_spectra": run.spectra is not None,
        "curves": training_charts(run.log or [], networks),
        "networks": words.networks(len(networks)),
        "has_log": run.log is not None,
        "stepwise": not _without_network(run),
        "choice": _choice(scores),
        "split_facts": _split_facts(run.record),
        "notes": [str(note) for note in run.record.get("notes") or []],
        "distances": distance_chart(run.record.get("distance") or {}),
        "cost_facts": _cost_facts(scores),
        "scene_facts": _scene_facts(scores.get("scene") or {}),
        "model_facts": _model_facts(scores.get("model") or {}),
        "settings": words.facts(run.settings),
        "versions": words.facts(scores.get("versions") or {}),
        "card": None if run.card is None else words.facts(run.card),
        "software_version": str((scores.get("versions") or {}).get("spectralmamba", "")),
    }


def _subtitle(run: RunFolder) -> str:
    model = run.scores.get("model") or {}
    parts = [str(model.get("name") or "").replace("_", " ") if _without_network(run) else str(model.get("name") or "")]
    parts.append(f"preset {model['preset']}" if model.get("preset") else "")
    if model.get("patch"):
        parts.append(f"patch {model['patch']} × {model['patch']}")
    parts.append(words.counted(len(run.classes), "class", "classes"))
    parts.append(f"split: {run.record.get('method', 'unknown')}")
    if run.record.get("seed") is not None:
        parts.append(f"seed {run.record['seed']}")
    return " · ".join(part for part in parts if part)


def _without_network(run: RunFolder) -> bool:
    """Whether nothing was trained step by step: what decides alone says of how many spectra it is made."""
    return "size" in (run.scores.get("model") or {})


def _choice(scores: Mapping[str, Any]) -> str:
    """Why this classifier was chosen among several; empty if it was not."""
    choice = (scores.get("model") or {}).get("choice")
    return str(choice.get("reason") or "") if isinstance(choice, Mapping) else ""


def _headlines(scores: Mapping[str, Any]) -> list[Headline]:
    intervals = scores.get("intervals") or {}
    names = {"overall_accuracy": "Overall accuracy", "average_accuracy": "Average accuracy", "macro_f1": "Macro F1"}
    headlines = [
        Headline(name, words.percent(scores[key]), words.percent_range(intervals.get(key)))
        for key, name in names.items()
    ]
    kappa = Headline("Kappa κ", words.decimal(scores["kappa"], 4), words.decimal_range(intervals.get("kappa")))
    return [*headlines[:2], kappa, headlines[2]]


def _calibration_error(scores: Mapping[str, Any]) -> str | None:
    error = (scores.get("calibration") or {}).get("expected_calibration_error")
    return None if error is None else words.percent(error)


def _interval_methods(scores: Mapping[str, Any]) -> str:
    methods = (scores.get("intervals") or {}).get("method") or {}
    if not isinstance(methods, Mapping):
        return words.value(methods)
    names: dict[str, list[str]] = {}
    for name, method in methods.items():
        names.setdefault(words.value(method), []).append(name.replace("_", " ").replace("f1", "F1"))
    return "; ".join(f"{', '.join(alike)}: {method}" for method, alike in names.items())


def _legend(run: RunFolder) -> list[LegendEntry]:
    mapped = run.survey.mapped
    total = sum(pixels for id, pixels in mapped.items() if id != 0)
    ids = [*run.classes, *sorted(id for id in mapped if id != 0 and id not in run.classes)]
    return [LegendEntry(run.class_of(id), mapped[id], mapped[id] / total if total else None) for id in ids]


def _class_scores(run: RunFolder) -> list[ClassScore]:
    division = run.record.get("classes") or {}
    sets = {entry["id"]: entry for entry in _sets_of_classes(run)}
    return [
        ClassScore(
            run.class_of(entry["id"]),
            (division.get(str(entry["id"])) or {}).get("train"),
            entry,
            sets.get(entry["id"], {}),
        )
        for entry in run.scores["per_class"]
    ]


def _sets_of_classes(run: RunFolder) -> list[dict[str, Any]]:
    of_test = (run.scores.get("prediction_sets") or {}).get("of_test") or {}
    return of_test.get("per_class") or []


def _confusion(run: RunFolder) -> list[ConfusionRow]:
    rows = []
    for index, (owner, counts) in enumerate(zip(run.classes.values(), run.scores["confusion"], strict=True)):
        total = sum(counts)
        cells = [
            Cell(number, round(math.sqrt(number / total), 2) if number else 0, column == index)
            for column, number in enumerate(counts)
        ]
        rows.append(ConfusionRow(owner, cells, total))
    return rows


def _split_facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    leaks, distance, patch = record.get("leaks") or {}, record.get("distance") or {}, record.get("patch")
    unit = str(distance.get("unit", "pixels"))
    near = words.neighbourhood(patch)
    return [
        ("method", words.value(record.get("method"))),
        *words.facts(record.get("parameters") or {}),
        ("seed", words.value(record.get("seed"))),
        ("training pixels", words.count(record.get("train_pixels"))),
        ("test pixels", words.count(record.get("test_pixels"))),
        (f"test pixels with a training pixel in their {near}", words.count(leaks.get("test_near_training"))),
        (f"training pixels with a test pixel in their {near}", words.count(leaks.get("training_near_test"))),
        ("share of the test pixels near training", words.percent(leaks.get("share_of_test"))),
        ("smallest distance of a test pixel to training", words.measured(distance.get("minimum"), unit)),
        ("median distance of the test pixels to training", words.measured(distance.get("median"), unit)),
    ]


def _cost_facts(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    seconds = [(f"time to {name}", words.duration(span)) for name, span in (scores.get("seconds") or {}).items()]
    return [*seconds, ("peak memory", words.memory(scores.get("peak_memory_bytes")))]


def _scene_facts(scene: Mapping[str, Any]) -> list[tuple[str, str]]:
    shape = scene.get("shape")
    known = {"shape": " × ".join(words.count(size) for size in shape)} if isinstance(shape, list) else {}
    return words.facts({**scene, **known})


def _model_facts(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    large = {"parameters", "multiply_accumulates"}
    return [
        (name.replace("_", "-"), words.count(item) if name in large else words.value(item))
        for name, item in model.items()
        if name != "choice"
    ]
