"""What the README shows is run as it stands there, on a small simulated scene."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import spectralmamba
from page_files import write_example_files
from shown_code import ROOT, code_blocks, run_block
from spectralmamba.errors import SpectralMambaError

BLOCKS = code_blocks(ROOT / "README.md")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the README speaks of, in the working folder."""
    pytest.importorskip("geopandas")
    write_example_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_line_works_in_the_order_it_is_shown(folder: Path) -> None:
    shown = [block for block in BLOCKS if block.language == "sh"]
    assert {words[0] for block in shown for words in block.commands} == {"spectralmamba"}
    for block in shown:
        run_block(block, "README.md", {})


def test_the_python_example_runs_as_it_stands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = [block for block in BLOCKS if block.language == "python"]
    run_block(example, "README.md", {})
    printed = capsys.readouterr().out
    assert "Leaks: none" in printed
    for name in ("model.safetensors", "map.tif", "map_confidence.tif", "map_novelty.tif"):
        assert (folder / name).is_file()


def test_every_make_target_in_the_text_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in ("README.md", "CONTRIBUTING.md", "docs/method.md"):
        targets = re.findall(r"^    make ([a-z-]+)|`make ([a-z-]+)", (ROOT / page).read_text(encoding="utf-8"), re.M)
        for target in {one or other for one, other in targets}:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page} names make {target}"


# The benchmark writes these, so a checkout may be without them.
GENERATED = {"docs/results.md"}


def test_every_relative_link_leads_to_a_file() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            place = (page.parent / target).resolve()
            assert place.exists() or str(place.relative_to(ROOT)) in GENERATED, f"{page.name} links to {target}"


def test_every_public_name_is_described_in_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [name for name in spectralmamba.__all__ if not re.search(rf"`{name}[`(]", page)]
    assert not missing
    assert issubclass(spectralmamba.SpectralMambaError, SpectralMambaError)


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in listed} - {"spectralmamba"}
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| ([a-z][a-z0-9-]+) (?:\(.*?\) )?\|", page, re.MULTILINE)) - {"package"}
    assert names - documented == set(), "not described"
    assert documented - names - {"setuptools"} == set(), "described, but not used"


def test_the_citation_names_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert set(re.findall(r"^ *version: (.+)$", text, re.MULTILINE)) == {spectralmamba.__version__}
