"""Runs of one scene side by side, as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectralmamba import files
from spectralmamba.comparison import LEVEL, McNemar, holm
from spectralmamba.report import words
from spectralmamba.report.differences import difference_picture, pairs_of
from spectralmamba.report.folder import MappedClass, mapped_class
from spectralmamba.report.matching import Compared, compared_runs
from spectralmamba.report.pictures import Picture
from spectralmamba.report.summary import SCORES
from spectralmamba.report.templates import render

MOST_PICTURES = 6  # pairs; of more, those with the most accurate run
SIGNIFICANT = 1 - LEVEL


@dataclass(frozen=True)
class PairRow:
    """McNemar's test of two runs, in words."""

    first: str
    second: str
    only_first: int
    only_second: int
    difference: str
    interval: str
    p: str
    corrected: str
    verdict: str


@dataclass(frozen=True)
class ScoreCell:
    """A score and its interval, in words."""

    value: str
    interval: str


@dataclass(frozen=True)
class ClassRow:
    """A class's F1 in each run, and how much more than in the first."""

    owner: MappedClass
    pixels: int
    cells: list[ScoreCell]


def write_comparison(folders: Sequence[str | Path], path: str | Path) -> Path:
    """Write a page that compares runs: scores, McNemar's test of each pair, where their maps differ, settings and cost.

    All is computed of the pixels that every run tests, from the files in the folders and nothing else. The page holds its
    pictures and style; it needs no script and no network.

    Args:
        folders: Folders of two or more runs of one scene with the same labels.
        path: The page to write.

    Returns:
        The path.

    Raises:
        OutputError: A folder lacks a file or it is damaged, the runs do not fit together, or the page cannot be written.
    """
    path = Path(path)
    files.write_text(
        path, render("compare.html", **_content(compared_runs([Path(folder) for folder in folders], path)))
    )
    return path


def _content(found: tuple[list[Compared], NDArray[np.int64]]) -> dict[str, Any]:
    runs, common = found
    pairs = pairs_of(len(runs))
    tests = [_mcnemar(runs[i], runs[j]) for i, j in pairs]
    corrected = [p or 0.0 for p in holm([test.p for test in tests])]
    rows = [_pair_row(runs[i], runs[j], test, p) for (i, j), test, p in zip(pairs, tests, corrected, strict=True)]
    versions = [str((each.run.scores.get("versions") or {}).get("spectralmamba", "")) for each in runs]
    file = (runs[0].run.scores.get("scene") or {}).get("file")
    return {
        "title": PurePath(str(file)).name if file else "Comparison",
        "subtitle": f"{words.counted(len(runs), 'run')}: {', '.join(each.name for each in runs)}",
        "runs": runs,
        "score_names": list(SCORES.values()),
        "score_rows": [[_score_cell(each.scores, key) for key in SCORES] for each in runs],
        "level": words.percent(LEVEL, 0),
        "verdict": _verdict(runs, pairs, corrected),
        "basis": _basis(runs, len(common)),
        "pairs": rows,
        "pictures": _pictures(runs, common, pairs),
        "all_pictures": len(pairs) <= MOST_PICTURES,
        "classes": _class_rows(runs),
        "run_head": ["", *(each.name for each in runs)],
        "differing": [[name, *values] for name, values in _differing(runs)],
        "cost": [[name, *values] for name, values in _cost(runs)],
        "software_version": next((version for version in versions if version), ""),
    }


def _mcnemar(first: Compared, second: Compared) -> McNemar:
    one, other = first.right, second.right
    counts = (np.count_nonzero(case) for case in (one & other, one & ~other, ~one & other, ~one & ~other))
    return McNemar.from_counts(*map(int, counts))


def _pair_row(first: Compared, second: Compared, test: McNemar, corrected: float) -> PairRow:
    better = first if test.difference > 0 else second
    return PairRow(
        first.name,
        second.name,
        test.b,
        test.c,
        _points(test.difference),
        f"{_points(test.interval[0])} to {_points(test.interval[1])}",
        _p(test.p) + (" (exact)" if test.statistic is None else ""),
        _p(corrected),
        f"{better.name} is better" if corrected <= SIGNIFICANT else "no difference shown",
    )


def _points(difference: float) -> str:
    """A difference of shares in points of percent, with its sign."""
    text = f"{100 * difference:+.2f}".replace("-", "−")
    return f"±{text[1:]}" if float(f"{100 * difference:.2f}") == 0 else text


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else words.decimal(p, 4)


def _score_cell(scores: Mapping[str, Any], key: str) -> ScoreCell:
    interval = scores["intervals"].get(key)
    if key == "kappa":
        return ScoreCell(words.decimal(scores[key], 4), words.decimal_range(interval))
    return ScoreCell(words.percent(scores[key]), words.percent_range(interval))


def _verdict(runs: list[Compared], pairs: list[tuple[int, int]], corrected: list[float]) -> str:
    best = max(range(len(runs)), key=lambda index: runs[index].right.mean())
    names: dict[bool, list[str]] = {True: [], False: []}
    for (i, j), p in zip(pairs, corrected, strict=True):
        if best in (i, j):
            names[p <= SIGNIFICANT].append(runs[j if i == best else i].name)
    said = f"{runs[best].name} has the most test pixels right, {words.percent(float(runs[best].right.mean()))}."
    if names[True]:
        said += f" Its lead over {_listed(names[True])} is more than chance among these pixels."
    if names[False]:
        said += f" Between it and {_listed(names[False])} no difference is shown."
    return said


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _basis(runs: list[Compared], common: int) -> str:
    if all(each.own == common for each in runs):
        return f"On {words.counted(common, 'test pixel')}, the same in all runs."
    own = ", ".join(f"{words.count(each.own)} in {each.name}" for each in runs)
    return (
        f"On the {words.counted(common, 'pixel')} that all runs test; the runs' own tests have {own}, so scores differ from "
        "those of their reports."
    )


def _pictures(runs: list[Compared], common: NDArray[np.int64], pairs: list[tuple[int, int]]) -> list[Picture]:
    if len(pairs) > MOST_PICTURES:
        best = max(range(len(runs)), key=lambda index: runs[index].right.mean())
        pairs = [pair for pair in pairs if best in pair]
    return [
        difference_picture(
            (runs[i].run, runs[j].run), (runs[i].name, runs[j].name), common, (runs[i].right, runs[j].right)
        )
        for i, j in pairs
    ]


def _class_rows(runs: list[Compared]) -> list[ClassRow]:
    tables = [{entry["id"]: entry for entry in each.scores["per_class"]} for each in runs]
    rows = []
    for id_ in sorted(set().union(*tables)):
        entries = [table.get(id_, {}) for table in tables]
        known = next(entry for entry in entries if entry)
        first = entries[0].get("f1")
        cells = [
            ScoreCell(
                words.percent(entry.get("f1")),
                _points(entry["f1"] - first) if index and None not in (first, entry.get("f1")) else "",
            )
            for index, entry in enumerate(entries)
        ]
        rows.append(ClassRow(mapped_class(known), known["reference"], cells))
    return rows


def _differing(runs: list[Compared]) -> list[tuple[str, list[str]]]:
    """What was asked for in other ways: settings, split, model and versions, with each run's value."""
    tables = []
    for each in runs:
        scores, record = each.run.scores, each.run.record
        split = {key: record.get(key) for key in ("method", "parameters", "seed", "train_pixels", "test_pixels")}
        model = {key: value for key, value in (scores.get("model") or {}).items() if key in ("name", "preset", "patch")}
        groups = {"split": split, "model": model, "versions": scores.get("versions") or {}}
        tables.append(dict(words.facts(each.run.settings)) | dict(words.facts(groups)))
    names = list(dict.fromkeys(name for table in tables for name in table))
    rows = [(name, [table.get(name, words.NOT_AVAILABLE) for table in tables]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _cost(runs: list[Compared]) -> list[tuple[str, list[str]]]:
    scores = [each.run.scores for each in runs]
    models = [score.get("model") or {} for score in scores]
    stages = list(dict.fromkeys(stage for score in scores for stage in score.get("seconds") or {}))
    return [
        ("parameters", [words.count(model.get("parameters")) for model in models]),
        ("multiply-accumulates", [words.count(model.get("multiply_accumulates")) for model in models]),
        *(
            (f"time to {stage}", [words.duration((score.get("seconds") or {}).get(stage)) for score in scores])
            for stage in stages
        ),
        ("peak memory", [words.memory(score.get("peak_memory_bytes")) for score in scores]),
    ]
