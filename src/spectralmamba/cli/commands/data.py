"""`spectralmamba data`: the public data sets."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from spectralmamba.cli.show import console, download_bars, errors
from spectralmamba.errors import DataError, SpectralMambaError

if TYPE_CHECKING:
    from spectralmamba.catalog import Entry

data = typer.Typer(help="List, describe and download public data sets.", no_args_is_help=True)

Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder of downloads; else that of SPECTRALMAMBA_CACHE, or the system's for caches.", show_default=False
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder of reference data, looked into first; else that of SPECTRALMAMBA_DATA.", show_default=False
    ),
]


@data.command(name="list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="Names to list, such as 'pavia*'.")] = "*",
    data_root: DataRoot = None,
    cache: Cache = None,
) -> None:
    """List the public data sets, how each is had, and whether it is here."""
    from spectralmamba.catalog import dataset, list_datasets
    from spectralmamba.catalog.page import way
    from spectralmamba.catalog.places import find

    table = Table("name", "size", "classes", "split", "by", "here")
    for column in (*table.columns[:1], *table.columns[2:]):
        column.no_wrap = True
    for name in list_datasets(pattern):
        entry = dataset(name)
        size = " × ".join(str(number) for number in (*entry.shape, entry.bands))
        here = "yes" if find(entry, root=data_root, cache=cache) else ""
        classes = str(len(entry.classes) or "")
        table.add_row(name, size, classes, "yes" if entry.split else "", way(entry), here)
    console.print(table)


@data.command(name="info")
def info_command(
    name: Annotated[str, typer.Argument(help="The data set.", show_default=False)],
    data_root: DataRoot = None,
    cache: Cache = None,
) -> None:
    """Show all that the catalogue says of a data set."""
    from spectralmamba.catalog import dataset

    entry = dataset(name)
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for what, value in _facts(entry, data_root, cache):
        facts.add_row(f"[bold]{what}[/bold]", escape(value))
    console.print(facts)
    if entry.classes:
        table = Table("class", "name")
        for id_, color in entry.class_colors.items():
            table.add_row(f"[{color}]■[/] {id_}", escape(entry.class_names[id_]))
        console.print(table)


@data.command(name="get")
def get_command(
    names: Annotated[list[str] | None, typer.Argument(help="The data sets.", show_default=False)] = None,
    from_folder: Annotated[
        Path | None,
        typer.Option(help="Folder of files or archives that you downloaded by hand.", show_default=False),
    ] = None,
    cache: Cache = None,
    all_: Annotated[bool, typer.Option("--all", help="Get all that can be downloaded.")] = False,
) -> None:
    """Download data sets, or take them from a folder, into the cache."""
    from spectralmamba.catalog import dataset, fetch, list_datasets
    from spectralmamba.catalog.page import way

    if bool(names) == all_:
        raise DataError(
            "which data sets is not clear", expected="either names or --all", remedy="See: spectralmamba data list"
        )
    entries = [dataset(name) for name in (names or list_datasets())]
    if all_ and from_folder is None:
        skipped = [entry.name for entry in entries if way(entry) != "download"]
        console.print(f"Not downloaded, but had by hand: {', '.join(skipped)}. See: spectralmamba data info NAME")
        entries = [entry for entry in entries if entry.name not in skipped]
    failed: list[SpectralMambaError] = []
    for entry in entries:
        try:
            with download_bars() as progress, _told_warnings():
                files = fetch(entry, cache=cache, from_folder=from_folder, progress=progress)
        except SpectralMambaError as error:
            if len(entries) == 1:
                raise
            errors.print(f"[red]Error:[/red] {escape(f'{entry.name}: {error}')}")
            failed.append(error)
        else:
            console.print(f"{entry.name}: {escape(str(files[0].parent))} ({', '.join(file.name for file in files)})")
            console.print(f"  terms: {escape(entry.terms)}\n  cite: {escape(entry.citation)}")
    if failed:
        raise DataError(
            f"{len(failed)} of {len(entries)} data sets could not be had", remedy="The messages above say why."
        )


@contextmanager
def _told_warnings() -> Iterator[None]:
    """Print warnings as sentences, without the line of the program that they come from."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for warning in caught:
                errors.print(f"[yellow]Warning:[/yellow] {escape(str(warning.message))}")


def _facts(entry: Entry, data_root: Path | None, cache: Path | None) -> Iterator[tuple[str, str]]:
    from spectralmamba.catalog.downloads import how_to_get
    from spectralmamba.catalog.places import find

    yield "data set", f"{entry.title} ({entry.name})"
    yield "published at", entry.page
    yield "terms", entry.terms + (" (a form or agreement comes before the download)" if entry.form else "")
    yield "cite", entry.citation
    yield "sensor", entry.sensor
    yield "size", f"{entry.shape[0]} rows × {entry.shape[1]} columns × {entry.bands} bands"
    if entry.spectral_range is not None:
        yield "range", f"{entry.spectral_range[0]:g} to {entry.spectral_range[1]:g} nm"
    yield "wavelengths", entry.wavelength_source
    yield "removed bands", entry.removed_bands
    yield "fixed split", entry.split or "none"
    for file in entry.files:
        checked = (
            f"SHA-256 {file.sha256}"
            if file.sha256
            else f"Git object id {file.git_blob}"
            if file.git_blob
            else "unverified"
        )
        size = "" if file.size is None else f", {file.size} bytes"
        origin = " or ".join(file.urls) or (f"in {file.archive}" if file.archive else "by hand")
        yield "file", f"{file.name}{size}, {checked}: {origin}"
    for note in entry.notes:
        yield "note", note
    yield "sources", "; ".join(entry.sources)
    found = find(entry, root=data_root, cache=cache)
    yield "here", ", ".join(str(path) for path in found.files.values()) if found else f"no. {how_to_get(entry)}"
