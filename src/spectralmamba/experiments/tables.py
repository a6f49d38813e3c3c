"""From results to tables: a row for each data set, split and model, its differences, and what stands beside it."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from spectralmamba.comparison import PairedTests, holm, paired_tests
from spectralmamba.errors import SpectralMambaError
from spectralmamba.experiments.plan import Plan, Run
from spectralmamba.experiments.published import Published, published_of
from spectralmamba.experiments.runner import DONE, FAILED, State
from spectralmamba.ranks import Ranks, compare_ranks

SCORES = {"overall_accuracy": "OA", "average_accuracy": "AA", "kappa": "κ", "macro_f1": "macro F1"}
_LONGEST_REASON = 160  # characters; the whole of it is in the run's folder


@dataclass(frozen=True)
class Row:
    """All seeds of a data set, split and model.

    Attributes:
        runs: How each seed stands.
        difference: Of the overall accuracy to the reference's, paired by seed; None for the reference itself or without a pair.
        corrected: Its p by Student's t, corrected by Holm for all differences of the tables.
    """

    runs: tuple[State, ...]
    difference: PairedTests | None = None
    corrected: float | None = None

    @property
    def first(self) -> Run:
        """One of the runs, for what all have in common."""
        return self.runs[0].run

    @property
    def done(self) -> list[dict[str, Any]]:
        """The results that are there."""
        return [state.line for state in self.runs if state.status == DONE and state.line is not None]

    def values(self, read: Callable[[dict[str, Any]], float | None]) -> list[float]:
        """Return a number of each result, without those that have none."""
        return [value for value in map(read, self.done) if value is not None]

    def score(self, key: str) -> list[float]:
        """Return a score of each result."""
        return self.values(lambda line: line[key])

    def by_seed(self) -> dict[int, float | None]:
        """Return the overall accuracy of each seed that has a result."""
        return {line["seed"]: line["overall_accuracy"] for line in self.done}

    @property
    def published(self) -> Published | None:
        """What the authors report of it."""
        return published_of(self.first.model, self.first.data.name)

    @property
    def remark(self) -> str:
        """Why seeds are missing; empty if none is."""
        reasons: dict[str, list[int]] = {}
        for state in self.runs:
            if state.status != DONE:
                said = " ".join(f"{state.status}{': ' if state.reason else ''}{state.reason}".split())
                reasons.setdefault(said[:_LONGEST_REASON], []).append(state.run.seed)
        if len(reasons) == 1 and not self.done:
            return next(iter(reasons))
        return "; ".join(f"seed {', '.join(map(str, seeds))} {said}" for said, seeds in reasons.items())


@dataclass(frozen=True)
class Tables:
    """What there is to tell of an experiment.

    Attributes:
        plan: What was asked for.
        rows: In the plan's order.
    """

    plan: Plan
    rows: tuple[Row, ...]

    @property
    def failed(self) -> list[State]:
        """Runs that failed."""
        return [state for row in self.rows for state in row.runs if state.status == FAILED]

    @property
    def datasets(self) -> list[str]:
        """Names, in the plan's order."""
        return list(dict.fromkeys(row.first.data.name for row in self.rows))

    def of_data(self, name: str) -> list[Row]:
        """Return the rows of a data set."""
        return [row for row in self.rows if row.first.data.name == name]

    def absent(self, name: str) -> str:
        """Say why there is nothing of a data set, if nothing of it is done and the reason is one; else nothing."""
        states = [state for row in self.of_data(name) for state in row.runs]
        reasons = {f"{state.status}: {state.reason}" for state in states if state.reason}
        return reasons.pop() if len(reasons) == 1 and not any(state.status == DONE for state in states) else ""

    @property
    def reference(self) -> str:
        """What differences are to."""
        return (
            "the first model of the same split"
            if self.plan.compare == "models"
            else "the first split of the same model"
        )

    def ranks(self) -> Ranks | str:
        """Return the models' mean ranks over data sets, or why there are none."""
        models = [name for name in dict.fromkeys(row.first.model.name for row in self.rows)]
        blocks = list(
            dict.fromkeys(
                (state.run.data.name, state.run.split.name, state.run.seed) for row in self.rows for state in row.runs
            )
        )
        found = {
            (*state.run.cell, state.run.seed): state.line["overall_accuracy"]
            for row in self.rows
            for state in row.runs
            if state.status == DONE and state.line is not None
        }
        scores = {model: [found.get((data, split, model, seed)) for data, split, seed in blocks] for model in models}
        try:
            return compare_ranks(scores, groups=[data for data, _, _ in blocks])
        except SpectralMambaError as error:
            return str(error)


def make_tables(plan: Plan, states: Iterable[State]) -> Tables:
    """Gather the runs of each data set, split and model, and compare them with their reference."""
    cells: dict[tuple[str, str, str], list[State]] = {}
    for state in states:
        cells.setdefault(state.run.cell, []).append(state)
    rows = [Row(tuple(members)) for members in cells.values()]
    tests = [_difference(row, _reference(plan, row, rows)) for row in rows]
    corrected = holm([None if test is None else test.t_p for test in tests])
    return Tables(plan, tuple(Row(row.runs, test, p) for row, test, p in zip(rows, tests, corrected, strict=True)))


def _reference(plan: Plan, row: Row, rows: Sequence[Row]) -> Row:
    """Return the first row of the same data set and, as the plan compares, the same split or model."""
    same = 1 if plan.compare == "models" else 2
    return next(
        other
        for other in rows
        if other.first.cell[0] == row.first.cell[0] and other.first.cell[same] == row.first.cell[same]
    )


def _difference(row: Row, reference: Row) -> PairedTests | None:
    if row is reference:
        return None
    ours, theirs = row.by_seed(), reference.by_seed()
    seeds = [seed for seed in ours if seed in theirs]
    try:
        return paired_tests([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    except SpectralMambaError:  # no seed has both
        return None


def markdown(tables: Tables, heading: str = "##") -> list[str]:
    """Return the parts of a page in Markdown: accuracy, what is published, cost, and what they were made with.

    Args:
        tables: What there is to tell.
        heading: What begins a heading.
    """
    parts = [tables.plan.about] if tables.plan.about else []
    parts += [f"{heading} Accuracy", accuracy_words(tables)]
    for name in tables.datasets:
        of_data = _table(ACCURACY_HEAD, [accuracy_cells(row) for row in tables.of_data(name)])
        parts += [f"{heading}# {name}", sentence(tables.absent(name)) or of_data]
    if published := published_rows(tables):
        parts += [f"{heading} Beside the published figures", PUBLISHED_WORDS, _table(PUBLISHED_HEAD, published)]
    parts += [f"{heading} Cost", COST_WORDS, _table(COST_HEAD, [cost_cells(row) for row in tables.rows if row.done])]
    if made := provenance_lines(tables):
        parts.append("\n".join(["Run on:", "", *(f"- {line}" for line in made)]))
    return parts


ACCURACY_HEAD = [
    "split",
    "model",
    *SCORES.values(),
    "seeds",
    "test pixels near training",
    "OA − reference (95 %)",
    "p (Holm)",
    "remarks",
]
COST_HEAD = [
    "data",
    "split",
    "model",
    "parameters",
    "MACs a pixel",
    "trials",
    "training, s",
    "tuning, s",
    "map, pixels/s",
    "peak memory, MiB",
]
PUBLISHED_HEAD = [
    "data",
    "split",
    "model",
    "",
    *list(SCORES.values())[:3],
    "parameters",
    "MACs a pixel",
    "what differs",
]
PUBLISHED_WORDS = (
    "Published: arXiv 2404.08489. Multiply-accumulates (MACs) there are of a batch of 64, here of one pixel."
)
COST_WORDS = (
    "Means over the seeds. Parameters and multiply-accumulates (MACs) are of what decides in the end; simple classifiers have "
    "no such count. Trials are settings tried in tuning. Networks that trained together on a GPU have equal shares of the "
    "seconds. Peak memory is of the process while it trains, tunes and maps."
)


def accuracy_words(tables: Tables) -> str:
    """Say how to read the accuracies."""
    return (
        "Mean ± sample standard deviation over the seeds. “Test pixels near training” have a training pixel within the "
        f"neighbourhood that the model sees, so they flatter it. Differences are to {tables.reference}, paired by seed, with "
        "Student's interval; p is corrected by Holm for all differences of these tables. They speak of these scenes, not of "
        "others."
    )


def accuracy_cells(row: Row) -> list[str]:
    """Return the cells of a row in the table of accuracies."""
    leaks = row.values(lambda line: line["split"]["leaks"]["share_of_test"])
    return [
        row.first.split.name,
        row.first.model.name,
        *(spread(row.score(key)) for key in SCORES),
        f"{len(row.done)} of {len(row.runs)}",
        percent(leaks),
        difference(row.difference),
        "" if row.corrected is None else f"{row.corrected:.3g}",
        row.remark,
    ]


def cost_cells(row: Row) -> list[str]:
    """Return the cells of a row in the table of costs."""
    trials = row.values(lambda line: (line["tuning"] or {}).get("trials"))
    return [
        *row.first.cell,
        number(mean_of(row.values(lambda line: line["parameters"]))),
        number(mean_of(row.values(lambda line: line["multiply_accumulates"]))),
        number(mean_of(trials)),
        *(
            decimal(mean_of(row.values(lambda line, stage=stage: line["seconds"][stage])))
            for stage in ("train", "tune")
        ),
        number(mean_of(row.values(mapping_rate))),
        number(mean_of(row.values(lambda line: _mebibytes(line["peak_memory_bytes"])))),
    ]


def published_rows(tables: Tables) -> list[list[str]]:
    """Return two rows, theirs and ours, for each that the authors report."""
    rows = []
    for row in tables.rows:
        theirs = row.published
        if theirs is None:
            continue
        scores = (theirs.overall_accuracy, theirs.average_accuracy, theirs.kappa)
        size = (theirs.parameters, theirs.multiply_accumulates)
        rows.append(
            [*row.first.cell, "published", *map(fraction, scores), *map(number, size), theirs.differs(row.first.split)]
        )
        size = (mean_of(row.values(lambda line, key=key: line[key])) for key in ("parameters", "multiply_accumulates"))
        ours = [spread(row.score(key)) for key in list(SCORES)[:3]]
        rows.append(["", "", "", "ours", *ours, *map(number, size), "" if row.done else row.remark])
    return rows


def provenance_lines(tables: Tables) -> list[str]:
    """Return dates, commits, code and machines of all results."""
    made = {(line["date"], line["commit"], line["code"], line["machine"]) for row in tables.rows for line in row.done}
    return [f"{date}, commit {commit}, code {code}, {machine}" for date, commit, code, machine in sorted(made)]


def mapping_rate(line: dict[str, Any]) -> float | None:
    """Return the pixels a second of a result's map."""
    seconds = line["seconds"]["map"]
    return line["mapped_pixels"] / seconds if seconds > 0 else None


def csv_text(tables: Tables) -> str:
    """Return all tables as one, a line for each data set, split and model."""
    means = [part for key in SCORES for part in (key, f"{key}_sd")]
    head = [
        "data",
        "split",
        "model",
        *means,
        "seeds",
        "seeds_asked",
        "test_near_training",
        "difference",
        "difference_low",
    ]
    head += [
        "difference_high",
        "p_holm",
        "parameters",
        "multiply_accumulates",
        "trials",
        "training_seconds",
        "tuning_seconds",
    ]
    head += ["map_pixels_per_second", "peak_memory_bytes", "published_overall_accuracy", "remarks", "runs"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_csv_cells(row) for row in tables.rows])
    return text.getvalue()


def _csv_cells(row: Row) -> list[Any]:
    scores = [part for key in SCORES for part in (mean_of(row.score(key)), _sd(row.score(key)))]
    low, high = (row.difference and row.difference.interval) or (None, None)
    seconds = [mean_of(row.values(lambda line, stage=stage: line["seconds"][stage])) for stage in ("train", "tune")]
    cells = [
        *row.first.cell,
        *scores,
        len(row.done),
        len(row.runs),
        mean_of(row.values(lambda line: line["split"]["leaks"]["share_of_test"])),
        row.difference and row.difference.mean,
        low,
        high,
        row.corrected,
        mean_of(row.values(lambda line: line["parameters"])),
        mean_of(row.values(lambda line: line["multiply_accumulates"])),
        mean_of(row.values(lambda line: (line["tuning"] or {}).get("trials"))),
        *seconds,
        mean_of(row.values(mapping_rate)),
        mean_of(row.values(lambda line: line["peak_memory_bytes"])),
        row.published and row.published.overall_accuracy,
        row.remark,
        " ".join(line["key"][:12] for line in row.done),
    ]
    return ["" if cell is None else cell for cell in cells]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines)


def sentence(text: str) -> str:
    """Return a text as a sentence."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def mean_of(values: Sequence[float]) -> float | None:
    """Return the mean; None of nothing."""
    return statistics.mean(values) if values else None


def _sd(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def spread(values: Sequence[float]) -> str:
    """Say mean ± standard deviation; the value alone of a single one, a dash of nothing."""
    if not values:
        return "–"
    sd = _sd(values)
    return f"{statistics.mean(values):.4f}" + ("" if sd is None else f" ± {sd:.4f}")


def difference(found: PairedTests | None) -> str:
    """Say a difference with its interval; nothing if there is none."""
    if found is None:
        return ""
    values = (found.mean, *(found.interval or ()))
    mean, *limits = (f"{value:+.4f}".replace("-", "−") for value in values)
    return f"{mean} ({' to '.join(limits)})" if limits else mean


def percent(values: Sequence[float]) -> str:
    """Say the mean of shares in percent."""
    return f"{100 * statistics.mean(values):.1f} %" if values else "–"


def fraction(value: float | None) -> str:
    """Say a published score."""
    return "" if value is None else f"{value:.4f}"


def number(value: float | None) -> str:
    """Say a count with its thousands apart; a dash if there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{round(value):,}".replace(",", " ")


def decimal(value: float | None) -> str:
    """Say seconds."""
    return "–" if value is None else f"{value:.2f}"


def _mebibytes(value: int | None) -> float | None:
    return None if value is None else value / 2**20
