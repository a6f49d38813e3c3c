"""What the pages in docs/ show is run as it stands there, page by page, and the site builds without a warning."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import typer
from rasterio.errors import NotGeoreferencedWarning

import spectralmamba as sm
from page_files import PREPARATIONS, write_example_files
from shown_code import ROOT, code_blocks, run_block
from spectralmamba.cli import app
from spectralmamba.models import registry

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUNNABLE = ("python", "sh")

NOT_RUN = {
    "data.md": ["needs the network", "needs the network"],
    "experiments.md": ["takes minutes"],
    "index.md": ["installs packages"],
    "large_scenes.md": ["needs a Dask cluster", "needs a Slurm cluster"],
    "paper_tables.md": ["takes minutes to hours", "needs the network"],
    "sensors.md": ["needs products of EnMAP and PRISMA"],
    "statistics.md": ["leaves numbers out"],
}
"""Why blocks are not run; a page that marks another one has to say so here."""

OTHER_PROGRAMS = {"--nthreads", "--network", "--mamba-ssm", "--measure", "--largest", "--upgrade"}
"""Options of benchmarks, of Dask and of pip that pages name."""


def blocks_to_run(page: Path) -> list[Any]:
    return [block for block in code_blocks(page) if block.reason is None and (block.file or block.language in RUNNABLE)]


@pytest.fixture(scope="session")
def example_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("geopandas")
    folder = tmp_path_factory.mktemp("docs")
    write_example_files(folder)
    return folder


@pytest.fixture
def folder(example_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files that pages speak of, in the working folder; what a page imports and registers is forgotten afterwards."""
    shutil.copytree(example_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for table in ("_builders", "_presets"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_to_run(page)], ids=lambda page: page.name)
def test_every_block_of_a_page_runs_in_its_order(page: Path, folder: Path) -> None:
    names = PREPARATIONS.get(page.name, dict)() or {}
    for block in blocks_to_run(page):
        run_block(block, page.name, names)


def test_the_example_of_a_reader_reads_what_gdal_wrote(folder: Path) -> None:
    PREPARATIONS["add_reader.md"]()
    (reader,) = [block for block in code_blocks(DOCS / "add_reader.md") if block.file]
    names: dict[str, Any] = {}
    exec(compile(reader.code, "add_reader.md", "exec"), names)
    scene = names["open_lan"]("scene.lan")
    with rasterio.open("scene.lan") as written:
        np.testing.assert_array_equal(scene.values, written.read())
        assert scene.rio.transform() == written.transform


def test_blocks_that_are_not_run_are_known() -> None:
    marked = {page.name: [block.reason for block in code_blocks(page) if block.reason] for page in PAGES}
    assert {name: reasons for name, reasons in marked.items() if reasons} == NOT_RUN


def test_no_code_stands_outside_the_blocks_that_are_run() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- not run") == len(NOT_RUN.get(page.name, [])), f"{page.name} marks what is no block"
        indented = re.findall(
            r"^ {4}((?:spectralmamba|python|import|from) .*)$",
            re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S),
            re.M,
        )
        assert not indented, f"{page.name} shows code that no test runs"
        for block in code_blocks(page):
            plain = block.language not in RUNNABLE and block.reason is None
            assert not (plain and re.search(r"^(spectralmamba|python|import|from) ", block.code, re.M)), page.name


def test_the_pictures_and_shares_of_the_splits_page_are_those_of_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import make_pictures

    ids, colors, splits = make_pictures.example_splits()
    page = (DOCS / "splits.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| ([\d.]+)% of the test pixels .*\| ([\d.]+)% \| ([\d.]+)% \|$", page, re.MULTILINE)
    assert list(row) == [f"{100 * split.record['leaks']['share_of_test']:.1f}" for split in splits.values()]
    for name, split in splits.items():
        file = make_pictures.IMAGES / f"{name}.png"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(file) as drawn:
                np.testing.assert_array_equal(
                    np.moveaxis(drawn.read(), 0, -1), make_pictures.picture(ids, colors, split)
                )
        assert file.stat().st_size < 100_000
    sys.modules.pop("make_pictures")


def test_the_python_page_has_every_public_name() -> None:
    described = re.findall(r"^::: spectralmamba\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(sm.__all__) - {"SpectralMambaError"} <= set(described)  # the errors are described together
    assert "::: spectralmamba.errors" in (DOCS / "api.md").read_text(encoding="utf-8")


def test_every_option_that_a_page_names_exists() -> None:
    known = {
        option
        for command in _commands(typer.main.get_command(app))
        for entry in command.params
        for option in entry.opts
    }
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
        assert named - OTHER_PROGRAMS <= known, f"{page.name} names {sorted(named - OTHER_PROGRAMS - known)}"


def _commands(command: Any) -> list[Any]:
    """Return a command of click and all below it."""
    below = getattr(command, "commands", {}).values()
    return [command, *(each for sub in below for each in _commands(sub))]


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package)
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert {page.stem for page in pages} == {page.stem for page in PAGES} | {"404"}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]* src=[\"']?(?:https?:)?//[^\s>]+", text)
        fetched += re.findall(r"<link[^>]* href=[\"']?(?:https?:)?//[^\s>]+", text)
        assert not fetched, f"{page.name} fetches {fetched}"
    index = (tmp_path / "site" / "search" / "search_index.js").read_text(encoding="utf-8")
    assert "own_scene.html" in index, "nothing is found by pages opened from the disk"
    assert "Train and score" in (tmp_path / "site" / "tutorial.html").read_text(encoding="utf-8")
