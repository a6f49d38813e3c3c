"""`spectralmamba experiment`: the runs of a plan, and their tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from spectralmamba.cli.commands.data import DataRoot
from spectralmamba.cli.options import Device
from spectralmamba.cli.show import console, errors, run_bar, say_files
from spectralmamba.errors import PlanError

if TYPE_CHECKING:
    from spectralmamba.experiments.plan import Plan
    from spectralmamba.experiments.runner import State

_DOCUMENT = Path("docs/experiments.md")


def experiment(
    plan: Annotated[
        Path,
        typer.Argument(
            help="TOML file of data sets, splits, models and seeds, see docs/experiments.md.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for results; what is done there is not done again.", show_default=False)
    ],
    jobs: Annotated[int, typer.Option(help="Processes that make runs side by side.", min=1)] = 1,
    device: Device = "auto",
    seeds: Annotated[
        str | None, typer.Option(help="Other seeds than the plan's, such as 0,1.", show_default="the plan's")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Make only runs of these data sets, such as 'botswana*', or of these names 'data/split/model'; tables are of all.",
            show_default="all",
        ),
    ] = None,
    data_root: DataRoot = None,
    tune: Annotated[
        int | None,
        typer.Option(
            help="Settings tried for each network, on training pixels left out in turn; 0 is none.",
            min=0,
            show_default="the plan's",
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            help="Make runs on the CPUs of a Dask cluster, tcp://host:8786; its workers see data under the same paths.",
            show_default="here",
        ),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Make runs that failed again.")] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Say what is done and what would be run, and run nothing.")
    ] = False,
    write_docs: Annotated[
        bool, typer.Option("--write-docs", help=f"Write the tables into {_DOCUMENT}, between the plan's markers.")
    ] = False,
) -> None:
    """Make the runs of a plan that have not been made, and write the tables and a page of all."""
    from spectralmamba.experiments.folder import ResultFolder
    from spectralmamba.experiments.page import write_results, write_section
    from spectralmamba.experiments.plan import load_plan
    from spectralmamba.experiments.runner import check_means, in_order, make_runs, pending, survey
    from spectralmamba.experiments.tables import make_tables

    wanted = load_plan(plan)
    wanted = wanted if seeds is None else wanted.with_seeds(_seeds(seeds))
    wanted = wanted if tune is None else wanted.with_trials(tune)
    _check_only(only, wanted)
    folder = ResultFolder(out)
    if list_:
        states = survey(wanted, folder, data_root)
        _list_runs(states, pending(states, only, retry_failed))
        return
    check_means(wanted, device)
    with folder.alone():
        if differing := folder.differing_plan(wanted):
            console.print(escape(differing))
        states = survey(wanted, folder, data_root)
        folder.keep_plan(wanted)
        todo = pending(states, only, retry_failed)
        console.print(f"{len(todo)} runs to make of {len(states)}.")
        with run_bar(len(todo)) as advance:
            make_runs(
                wanted,
                todo,
                folder,
                root=data_root,
                jobs=jobs,
                device=device,
                dask=dask,
                on_line=_teller(len(todo), advance),
            )
        tables = make_tables(wanted, in_order(states, folder))
        markdown, table, page = write_results(tables, folder)
    say_files(Table=markdown, CSV=table, Page=page)
    if write_docs:
        write_section(_DOCUMENT, plan.stem, tables)
        say_files(Document=_DOCUMENT)
    _say_absent(states)
    if tables.failed:
        for state in tables.failed:
            errors.print(f"[red]Failed:[/red] {escape(f'{state.run.label}: {state.reason}')}")
        raise typer.Exit(1)


def _seeds(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise PlanError("the seeds cannot be used", found=repr(text), expected="different whole numbers, such as 0,1,2")
    return found


def _check_only(only: str | None, plan: Plan) -> None:
    from spectralmamba.experiments.plan import nearest

    if only is not None and not any(run.matches(only) for run in plan.runs):
        known = list(dict.fromkeys(run.data.name for run in plan.runs))
        raise PlanError(
            "no run of the plan is called like this",
            found=only,
            expected=f"one of {', '.join(known)}, or a pattern of 'data/split/model'",
            remedy=nearest(only.strip("*"), known),
        )


def _teller(total: int, advance: Callable[[], None]) -> Callable[[State], None]:
    made: list[State] = []

    def tell(state: State) -> None:
        made.append(state)
        advance()
        said = state.reason
        if state.line is not None and "seconds" in state.line:
            seconds = sum(state.line["seconds"].values())
            said = f"OA {state.line['overall_accuracy']:.4f}, {seconds:.1f} s"
        console.print(escape(f"{len(made)}/{total} {state.run.label}: {said}"))

    return tell


def _list_runs(states: list[State], todo: list[State]) -> None:
    waiting = {state.run.place for state in todo}
    cells: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for state in states:
        said = "to run" if state.run.place in waiting else f"{state.status}{': ' if state.reason else ''}{state.reason}"
        cells.setdefault(state.run.cell, {}).setdefault(said, []).append(str(state.run.seed))
    for cell, found in cells.items():
        listed = "; ".join(f"seed {', '.join(seeds)} {said}" for said, seeds in found.items())
        console.print(escape(f"{' / '.join(cell)}: {listed}"))
    console.print(f"{len(todo)} runs to make of {len(states)}.")


def _say_absent(states: list[State]) -> None:
    reasons = {(state.run.data.name, state.reason) for state in states if state.status == "not available"}
    for name, reason in sorted(reasons):
        errors.print(f"[yellow]Not available:[/yellow] {escape(f'{name}: {reason}')}")
