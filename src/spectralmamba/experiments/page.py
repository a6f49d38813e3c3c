"""What is written of an experiment: the page, the tables as Markdown and CSV, and a section of a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from spectralmamba import __version__
from spectralmamba.errors import OutputError
from spectralmamba.experiments import tables as told
from spectralmamba.experiments.folder import ResultFolder
from spectralmamba.experiments.runner import DONE, State
from spectralmamba.experiments.tables import Row, Tables
from spectralmamba.files import with_section, write_text
from spectralmamba.ranks import Ranks
from spectralmamba.report.charts import HEIGHT, WIDTH, Axis, Chart, Line, Tick, axis_around, line_path
from spectralmamba.report.critical_difference import critical_difference_svg
from spectralmamba.report.pictures import Picture, png_uri, rgba
from spectralmamba.report.scatter import Point, scatter_svg
from spectralmamba.report.templates import render
from spectralmamba.scenes.palette import default_colors

MARKDOWN, CSV, PAGE = "table.md", "table.csv", "index.html"
_MOST_MAPS = 12
_COSTS = {
    "parameters": lambda line: line["parameters"],
    "multiply-accumulates a pixel": lambda line: line["multiply_accumulates"],
    "seconds to map a million pixels": lambda line: _seconds_a_million(line),
}


@dataclass(frozen=True)
class PageRow:
    """A row of the accuracies, and where the result of each seed is."""

    cells: list[str]
    links: list[tuple[str, str]]


@dataclass
class DataPart:
    """What the page says of a data set."""

    name: str
    rows: list[PageRow]
    absent: str = ""
    curve: Chart | None = None
    key: list[tuple[str, str]] = field(default_factory=list)
    scatters: list[Markup] = field(default_factory=list)
    scatter_split: str = ""
    marks: list[tuple[str, str]] = field(default_factory=list)
    maps: list[Picture] = field(default_factory=list)
    map_split: str = ""
    classes: list[tuple[str, str]] = field(default_factory=list)


def write_results(tables: Tables, folder: ResultFolder) -> list[Path]:
    """Write `table.md`, `table.csv` and `index.html`, which needs no network, and return their paths.

    Raises:
        OutputError: A file cannot be written.
    """
    title = f"# {tables.plan.title}"
    texts = {
        MARKDOWN: "\n\n".join([title, *told.markdown(tables)]) + "\n",
        CSV: told.csv_text(tables),
        PAGE: page(tables, folder),
    }
    for name, text in texts.items():
        write_text(folder.path / name, text)
    return [folder.path / name for name in texts]


def write_section(path: Path, name: str, tables: Tables) -> None:
    """Replace what is between a section's markers in a Markdown file, or append the section.

    Raises:
        OutputError: There is no such file, or it cannot be written.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise OutputError(
            "cannot read the document to write the tables into",
            file=path,
            found=error.strerror,
            remedy="Give --write-docs in a checkout of the project.",
        ) from error
    write_text(path, with_section(text, name, [f"### {tables.plan.title}", *told.markdown(tables, "####")]))


def page(tables: Tables, folder: ResultFolder) -> str:
    """Return the page: accuracies, published figures, ranks, learning curves, costs and maps."""
    ranks = tables.ranks()
    parts = [_part(tables, name, folder) for name in tables.datasets]
    return render(
        "experiment.html",
        title=tables.plan.title,
        subtitle=f"{len(tables.rows)} rows, seeds {', '.join(map(str, tables.plan.seeds))}",
        software_version=__version__,
        about=tables.plan.about,
        seed=tables.plan.seeds[0],
        accuracy_words=told.accuracy_words(tables),
        accuracy_head=told.ACCURACY_HEAD,
        datasets=parts,
        published=told.published_rows(tables),
        published_head=told.PUBLISHED_HEAD,
        published_words=told.PUBLISHED_WORDS,
        ranks=Markup(critical_difference_svg(ranks)) if isinstance(ranks, Ranks) else "",
        no_ranks="" if isinstance(ranks, Ranks) else ranks,
        cost=[told.cost_cells(row) for row in tables.rows if row.done],
        cost_head=told.COST_HEAD,
        cost_words=told.COST_WORDS,
        made=told.provenance_lines(tables),
    )


def _part(tables: Tables, name: str, folder: ResultFolder) -> DataPart:
    rows = tables.of_data(name)
    cells = [PageRow(told.accuracy_cells(row), _links(row, folder)) for row in rows]
    part = DataPart(name, cells, told.sentence(tables.absent(name)))
    _add_curve(part, rows)
    first = next((row.first.split.name for row in rows if row.done), None)
    if first is not None:
        of_split = [row for row in rows if row.first.split.name == first]
        _add_scatters(part, of_split, first)
        _add_maps(part, of_split, first, tables.plan.seeds[0], folder)
    return part


def _links(row: Row, folder: ResultFolder) -> list[tuple[str, str]]:
    return [
        (f"runs/{folder.folder_of(state.key).name}/result.json", f"seed {state.run.seed}")
        for state in row.runs
        if state.key is not None and state.line is not None
    ]


def _add_curve(part: DataPart, rows: Sequence[Row]) -> None:
    """Draw accuracy over the number of training pixels of a class, if there are several."""
    models: dict[str, dict[int, float]] = {}
    for row in rows:
        number, scores = row.first.split.arguments.get("per_class"), row.score("overall_accuracy")
        if number is not None and scores:
            models.setdefault(row.first.model.name, {})[number] = sum(scores) / len(scores)
    numbers = sorted({number for found in models.values() for number in found})
    if len(numbers) < 2:
        return
    x_axis = Axis(numbers[0] * 0.9, numbers[-1] * 1.1, logarithmic=True)
    y_axis = axis_around(np.array([value for found in models.values() for value in found.values()]))
    colors = list(default_colors(list(range(1, len(models) + 1))).values())
    lines = []
    for found, color in zip(models.values(), colors, strict=True):
        x, y = (np.array(values, float) for values in zip(*sorted(found.items()), strict=True))
        lines.append(Line(line_path(WIDTH * x_axis.share(x), HEIGHT * (1 - y_axis.share(y)), len(x)), "mean", color))
    part.curve = Chart(
        description=f"Overall accuracy over {', '.join(map(str, numbers))} training pixels of each class, a line a model.",
        x_title="training pixels of each class",
        y_title="overall accuracy",
        x_ticks=[Tick(round(100 * float(x_axis.share(number)), 2), str(number)) for number in numbers],
        y_ticks=y_axis.ticks(5, upwards=True),
        lines=lines,
    )
    part.key = list(zip(colors, models, strict=True))


def _add_scatters(part: DataPart, rows: Sequence[Row], split: str) -> None:
    """Draw accuracy against each cost, a point a model."""
    marks = {row.first.model.name: str(number) for number, row in enumerate(rows, 1)}
    for title, read in _COSTS.items():
        points = []
        for row in rows:
            cost, score = told.mean_of(row.values(read)), told.mean_of(row.score("overall_accuracy"))
            if cost and score is not None:
                points.append(Point(marks[row.first.model.name], row.first.model.name, cost, score))
        if points:
            part.scatters.append(Markup(scatter_svg(points, title, "overall accuracy")))
    part.marks = [(mark, name) for name, mark in marks.items()]
    part.scatter_split = split


def _add_maps(part: DataPart, rows: Sequence[Row], split: str, seed: int, folder: ResultFolder) -> None:
    """Show the maps of the first seed side by side, if they were kept."""
    classes: dict[int, dict[str, Any]] = {}
    for row in rows[:_MOST_MAPS]:
        state = next((state for state in row.runs if state.run.seed == seed), None)
        mapped = None if state is None else _map_of(state, folder)
        if state is None or state.line is None or mapped is None:
            continue
        classes |= {entry["id"]: entry for entry in state.line["classes"]}
        score = f"overall accuracy {state.line['overall_accuracy']:.4f}"
        name = row.first.model.name
        alt = f"Map of {part.name} by {name}, {score}."
        height, width = mapped.shape
        part.maps.append(Picture(name, png_uri(_colored(mapped, classes)), width, height, alt, score))
    part.classes = [(entry["color"], entry["name"]) for entry in classes.values()]
    part.map_split = split


def _map_of(state: State, folder: ResultFolder) -> NDArray[np.uint16] | None:
    if state.status != DONE or state.key is None:
        return None
    path = folder.folder_of(state.key) / "map.npy"
    return np.load(path, allow_pickle=False) if path.is_file() else None


def _colored(mapped: NDArray[np.uint16], classes: dict[int, dict[str, Any]]) -> NDArray[np.uint8]:
    known, inverse = np.unique(mapped, return_inverse=True)
    colors = [rgba(classes[id_]["color"]) if id_ in classes else (0, 0, 0, 0) for id_ in known.tolist()]
    return np.array(colors, np.uint8)[inverse.reshape(mapped.shape)]


def _seconds_a_million(line: dict[str, Any]) -> float | None:
    rate = told.mapping_rate(line)
    return 1e6 / rate if rate else None
