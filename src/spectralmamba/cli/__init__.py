"""The command line: words only. It parses, calls and prints."""

from __future__ import annotations

import atexit
import errno
import gc
import sys
import traceback
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from spectralmamba import __version__
from spectralmamba.cli.commands.areas import areas
from spectralmamba.cli.commands.compare import compare
from spectralmamba.cli.commands.data import data
from spectralmamba.cli.commands.evaluate import evaluate
from spectralmamba.cli.commands.experiment import experiment
from spectralmamba.cli.commands.info import info
from spectralmamba.cli.commands.map import map_command
from spectralmamba.cli.commands.models import models
from spectralmamba.cli.commands.polygons import polygons
from spectralmamba.cli.commands.report import report
from spectralmamba.cli.commands.resample import resample
from spectralmamba.cli.commands.share import card, export, pull, push
from spectralmamba.cli.commands.simulate import simulate
from spectralmamba.cli.commands.suggest import suggest
from spectralmamba.cli.commands.train import run_all, train
from spectralmamba.cli.show import console, errors
from spectralmamba.errors import OutputError, SpectralMambaError, TrainingInterrupted

__all__ = ["app", "main"]

USER_ERROR, DEFECT, INTERRUPTED = 2, 1, 130


class _Interrupted(Exception):
    """Ctrl-C outside of training."""


class _Commands(TyperGroup):
    """Hides Ctrl-C from typer, whose versions leave with different exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted from error


app = typer.Typer(
    name="spectralmamba",
    cls=_Commands,
    help="Tell what each pixel of a hyperspectral scene is: from a scene and a few labels to a map and its accuracy.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.command()(info)
app.command()(train)
app.command(name="run")(run_all)
app.command()(evaluate)
app.command()(suggest)
app.command(name="map")(map_command)
app.command()(report)
app.command()(compare)
app.command()(experiment)
app.command()(areas)
app.command()(polygons)
app.command()(models)
app.command()(resample)
app.command()(simulate)
app.command()(card)
app.command()(export)
app.command()(push)
app.command()(pull)
app.add_typer(data, name="data")


def main() -> None:
    """Run the command line; leave with 2 for a mistake that the user can mend, 1 for a defect of the program."""
    # Imports make many objects and no garbage; searching them for cycles, again and again and at the end, takes 0.25 s.
    gc.set_threshold(100_000, 20, 20)
    atexit.register(_leave_cycles)
    try:
        app(standalone_mode=True)
    except TrainingInterrupted as error:
        errors.print(f"[yellow]Stopped:[/yellow] {escape(str(error))}")
        sys.exit(INTERRUPTED)
    except SpectralMambaError as error:
        errors.print(f"[red]Error:[/red] {escape(str(error))}")
        sys.exit(USER_ERROR)
    except (_Interrupted, KeyboardInterrupt):
        errors.print("[yellow]Stopped.[/yellow]")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            errors.print(f"[red]Error:[/red] {escape(_no_space(error))}")
            sys.exit(USER_ERROR)
        traceback.print_exc()
        errors.print(
            "[red]This is a defect of spectralmamba, not a mistake of yours.[/red] Please report it with the lines above."
        )
        sys.exit(DEFECT)


def _leave_cycles() -> None:
    """Let the interpreter end without a last search for cycles; triton would call what is left in them leaks, on many lines."""
    if "triton" not in sys.modules:
        gc.freeze()


def _no_space(error: OSError) -> str:
    problem = f"no space left to write here ({error.strerror})"
    return str(OutputError(problem, file=error.filename, remedy="Free some space or choose another folder with --out."))


def _print_version(asked: bool) -> None:
    if asked:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
