"""The report of several seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from spectralmamba import files
from spectralmamba.report import words
from spectralmamba.report.folder import MappedClass, mapped_class, read_json, require
from spectralmamba.report.templates import render

SCORES = {
    "overall_accuracy": "Overall accuracy",
    "average_accuracy": "Average accuracy",
    "kappa": "Kappa κ",
    "macro_f1": "Macro F1",
}


@dataclass(frozen=True)
class SummaryScore:
    """A score's mean, spread and values, as text."""

    name: str
    mean: str
    sd: str
    values: list[str]


@dataclass(frozen=True)
class SeedRow:
    """What a seed's folder says; `link` is empty if it holds no report."""

    seed: int
    link: str
    scores: list[str]
    method: str
    training: str
    test: str
    median_distance: str
    leaks: str


@dataclass(frozen=True)
class ClassRecall:
    """A class's recall over the seeds; `values` holds numbers, None where undefined."""

    owner: MappedClass
    mean: float | None
    sd: float | None
    values: list[float | None]


def write_summary_report(folder: str | Path) -> Path:
    """Write `report.html` for the folder of several seeds, from `summary.json` and the seeds' `scores.json`.

    Args:
        folder: The folder that holds `summary.json` and `seed-0/`, `seed-1/`, ….

    Returns:
        The path of the report.

    Raises:
        OutputError: `summary.json` is missing or damaged, or the report cannot be written.
    """
    folder = Path(folder)
    summary = read_json(require(folder, "summary.json"), required_keys=("seeds", *SCORES, "per_class"))
    scores = [_summary_score(key, summary) for key in SCORES]
    path = folder / "report.html"
    page = render(
        "summary.html",
        title=_title(folder, summary["seeds"]),
        subtitle=f"{folder.resolve().name} · {words.counted(len(summary['seeds']), 'seed')}",
        scores=scores,
        seeds=[_seed_row(folder, seed, index, scores) for index, seed in enumerate(summary["seeds"])],
        independence=_independence(folder, summary["seeds"]),
        recalls=[_class_recall(entry) for entry in summary["per_class"]],
        software_version=_software_version(folder, summary["seeds"]),
    )
    files.write_text(path, page)
    return path


def _summary_score(key: str, summary: Mapping[str, Any]) -> SummaryScore:
    entry = summary[key] or {}

    def show(value: Any) -> str:
        return words.decimal(value, 4) if key == "kappa" else words.percent(value)

    return SummaryScore(
        SCORES[key],
        show(entry.get("mean")),
        _spread(show(entry.get("sd"))),
        [show(v) for v in entry.get("values") or []],
    )


def _spread(text: str) -> str:
    return "" if text == words.NOT_AVAILABLE else f"± {text}"


def _class_recall(entry: Mapping[str, Any]) -> ClassRecall:
    recall = entry.get("recall") or {}
    values = [value if words.is_number(value) else None for value in recall.get("values") or []]
    return ClassRecall(mapped_class(dict(entry)), recall.get("mean"), recall.get("sd"), values)


def _seed_scores(folder: Path, seed: int) -> dict[str, Any]:
    """The scores of a seed, empty if its folder holds none."""
    path = folder / f"seed-{seed}" / "scores.json"
    return read_json(path) if path.is_file() else {}


def _seed_row(folder: Path, seed: int, index: int, scores: list[SummaryScore]) -> SeedRow:
    record = _seed_scores(folder, seed).get("split") or {}
    leaks, distance = record.get("leaks") or {}, record.get("distance") or {}
    near = leaks.get("test_near_training")
    link = f"seed-{seed}/report.html"
    return SeedRow(
        seed,
        link if (folder / link).is_file() else "",
        [score.values[index] if index < len(score.values) else words.NOT_AVAILABLE for score in scores],
        words.value(record.get("method")),
        words.count(record.get("train_pixels")),
        words.count(record.get("test_pixels")),
        words.measured(distance.get("median"), str(distance.get("unit", "pixels"))),
        f"{words.count(near)} ({words.percent(leaks.get('share_of_test'))})"
        if words.is_number(near)
        else words.NOT_AVAILABLE,
    )


def _independence(folder: Path, seeds: list[int]) -> str:
    """What the splits of all seeds mean for the scores."""
    records = [record for seed in seeds if (record := _seed_scores(folder, seed).get("split"))]
    near = [(record.get("leaks") or {}).get("test_near_training") for record in records]
    known = [number for number in near if words.is_number(number)]
    if not known or len(known) < len(seeds):
        said = f"{words.count(len(known))} of {words.counted(len(seeds), 'seed')}"
        return f"Only {said} say how near test and training pixels lie."
    if max(known) == 0:
        patch = words.neighbourhood(records[0].get("patch"))
        return f"In no seed has a test pixel a training pixel inside its {patch}: the splits are clean in this sense."
    shares = [(record.get("leaks") or {}).get("share_of_test") or 0 for record in records]
    low, high = words.percent(min(shares), 1), words.percent(max(shares), 1)
    return (
        f"{low if low == high else f'{low} to {high}'} of the test pixels, by seed, have a training pixel inside their "
        "neighbourhood, so the scores flatter: part of what is tested was seen in training."
    )


def _title(folder: Path, seeds: list[int]) -> str:
    """The scene's name if a seed says it, else the folder's."""
    names = [(_seed_scores(folder, seed).get("scene") or {}).get("file") for seed in seeds]
    return next((PurePath(str(name)).name for name in names if name), folder.resolve().name)


def _software_version(folder: Path, seeds: list[int]) -> str:
    versions = [str((_seed_scores(folder, seed).get("versions") or {}).get("spectralmamba", "")) for seed in seeds]
    return next((version for version in versions if version), "")
