"""What the commands print: files, splits, scores and progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectralmamba.errors import SettingsError

if TYPE_CHECKING:
    import xarray as xr

    from spectralmamba.classifier import Classifier
    from spectralmamba.evaluation import Scores
    from spectralmamba.splits import Split
    from spectralmamba.training import Progress

console = Console(highlight=False, soft_wrap=True, emoji=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

PROGRESS = "SPECTRALMAMBA_PROGRESS"
"""Environment variable: with "lines", progress is printed for programs, a line `progress 0.42 train` for each hundredth."""
_SCORES = {
    "overall_accuracy": "overall accuracy",
    "average_accuracy": "average accuracy",
    "kappa": "kappa",
    "macro_f1": "macro F1",
}


def say_files(**files: Path) -> None:
    """Print where each file was written."""
    for what, file in files.items():
        console.print(f"{what}: {escape(str(file))}")


def adapted_aloud(classifier: Classifier, scene: xr.DataArray, allow_missing_range: bool) -> xr.DataArray:
    """Return a scene in the classifier's bands, and say what was resampled."""
    adapted = classifier.adapt_scene(scene, allow_missing_range=allow_missing_range)
    if adapted is not scene:
        say_resampled(adapted)
    return adapted


def say_resampled(scene: xr.DataArray) -> None:
    """Print what a scene was resampled from and to, and what was assumed."""
    from spectralmamba.scenes.resampling import resampled_in_words

    text = resampled_in_words(scene) or ""
    console.print(f"{text[:1].upper()}{escape(text[1:])}.")
    for note in scene.attrs["notes"]:
        console.print(f"Note: {escape(note)}")


def say_gis_files(files: Mapping[str, Path]) -> None:
    """Print which files lie beside a map for a GIS, without styles of layers and what only programs read."""
    from spectralmamba.gis.beside import TITLES

    say_files(**{title: files[name] for name, title in TITLES.items() if name in files})


def split_in_words(split: Split | None, patch: int) -> str:
    """The split's summary with its leaks for such a patch, ready to print."""
    if split is None:
        return "All labelled pixels train; nothing is left to score."
    return escape(split.with_patch(patch).summary())


def print_scores(scores: Scores) -> None:
    """Print the overall scores with their intervals, and a table of the classes."""
    found = scores.to_dict()
    for key, name in _SCORES.items():
        interval = found["intervals"].get(key)
        spread = f"  ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        console.print(f"{name:<17} {_number(found[key])}{spread}")
    if found["unclassified"]:
        console.print(f"{'unclassified':<17} {found['unclassified']} pixels, counted as wrong")
    table = Table("class", "name", "test pixels", "precision", "recall", "F1")
    for entry in found["per_class"]:
        numbers = (_number(entry[key]) for key in ("precision", "recall", "f1"))
        table.add_row(
            f"[{entry['color']}]■[/] {entry['id']}",
            entry["name"].replace("[", r"\["),
            str(entry["reference"]),
            *numbers,
        )
    console.print(table)


def print_summary(scores: dict[int, Scores]) -> None:
    """Print mean and standard deviation of several seeds' scores."""
    from spectralmamba.evaluation import summarize

    found = summarize(list(scores.values()), list(scores))
    for key, name in _SCORES.items():
        console.print(f"{name:<17} {_number(found[key]['mean'])} ± {_number(found[key]['sd'])}")


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _progress_lines(name: str) -> Callable[[int, int], None] | None:
    """Return what prints the share done as a line each time that it reaches another hundredth, if programs want it."""
    wanted = os.environ.get(PROGRESS)
    if not wanted:
        return None
    if wanted != "lines":
        raise SettingsError(
            f"unknown {PROGRESS}", found=repr(wanted), expected="lines", remedy="Set it to this, or unset it."
        )
    last = -1

    def say(done: int, total: int) -> None:
        nonlocal last
        hundredths = 100 * done // max(total, 1)
        if hundredths != last:
            last = hundredths
            console.print(f"progress {hundredths / 100:.2f} {name}")

    return say


@contextmanager
def training_bar(steps: int) -> Iterator[Callable[[Progress], None] | None]:
    """Show step, loss, rate and the time left; where the output is no terminal, nothing, or lines for programs."""
    if say := _progress_lines("train"):
        yield lambda progress: say(progress.step, progress.steps)
        return
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:.1f} steps/s"),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("train", total=steps, loss=float("nan"), speed=0.0)

        def show(progress: Progress) -> None:
            bar.update(
                task, completed=progress.step, total=progress.steps, loss=progress.loss, speed=bar.tasks[0].speed or 0.0
            )

        yield show


@contextmanager
def pixel_bar(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show pixels done and the time left; where the output is no terminal, nothing, or lines for programs."""
    if say := _progress_lines(name):
        yield say
        return
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(name),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[speed]} pixels/s"),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(name, speed="–")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if speed := bar.tasks[0].speed:
                bar.update(task, speed=f"{speed:,.0f}")

        yield show


@contextmanager
def download_bars() -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Show a bar for each file that is downloaded; nothing where the output is no terminal."""
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield show


@contextmanager
def run_bar(total: int) -> Iterator[Callable[[], None]]:
    """Show how many runs have ended and the time left; nothing where the output is no terminal."""
    if not console.is_terminal or not total:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("runs", total=total)
        yield lambda: bar.advance(task)
