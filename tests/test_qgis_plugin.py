"""The plugin for QGIS as far as it needs no QGIS: its tables beside the command line, how it runs the command, its zip."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import time
import types
import typing
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import pytest

import spectralmamba
from cli_example import Example, command_line, example
from spectralmamba.cli import app
from spectralmamba.cli.split_options import _SPLIT_OPTIONS
from spectralmamba.models import list_models
from spectralmamba.models.committee import SIMPLE_MODELS
from spectralmamba.scenes.products.masks import Kind
from spectralmamba.scenes.sensors import SENSORS
from spectralmamba.settings import _CHOICES
from spectralmamba.training.fitting import AUTO

__all__ = ["example"]

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "qgis" / "spectralmamba"


def _loaded(name: str, file: Path) -> ModuleType:
    """Import a file; the plugin under another name than in QGIS, where it is called like the package."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_loaded("qgis_plugin", PLUGIN / "__init__.py")
command = importlib.import_module("qgis_plugin.command")
tables = importlib.import_module("qgis_plugin.tables")
words = importlib.import_module("qgis_plugin.words")
build = _loaded("qgis_build", ROOT / "qgis" / "build.py")

CALLED = {each.name or each.callback.__name__: each.callback for each in app.registered_commands if each.callback}
LINES = [(algorithm, parameter) for algorithm in tables.ALGORITHMS for parameter in algorithm.parameters]


# The tables beside the command line --------------------------------------------------------------


def options_of(name: str) -> dict[str, tuple[Any, Any, Any]]:
    """Type without None, typer's description and default of a command's options and arguments, by what the user writes."""
    found = {}
    for each in inspect.signature(CALLED[name], eval_str=True).parameters.values():
        hint, info = get_args(each.annotation)
        if get_origin(hint) in (types.UnionType, typing.Union):
            (hint,) = (one for one in get_args(hint) if one is not type(None))
        default = None if each.default is inspect.Parameter.empty else each.default
        is_option = type(info).__name__ == "OptionInfo"
        usual = f"--{each.name.replace('_', '-')}" if is_option else each.name
        written = next((one for one in (info.default, *(info.param_decls or ())) if str(one).startswith("--")), usual)
        found[written] = (hint, info, default)
    return found


LINES_OF_OPTIONS = [(each, line) for each, line in LINES if line.option is not None]


@pytest.mark.parametrize(
    ("algorithm", "parameter"), LINES_OF_OPTIONS, ids=[f"{each.command}-{line.name}" for each, line in LINES_OF_OPTIONS]
)
def test_each_parameter_is_an_option_of_its_command_with_its_type_default_and_range(
    algorithm: Any, parameter: Any
) -> None:
    options = options_of(algorithm.command)
    assert parameter.option in options
    hint, info, default = options[parameter.option]
    assert parameter.kind in tables.KINDS
    of_kind = {"flag": bool, "whole number": int, "number": float}
    if parameter.kind in of_kind or hint in of_kind.values():
        assert hint is of_kind.get(parameter.kind)
    assert (get_origin(hint) is list) == (parameter.kind in ("texts", "choices") or parameter.option == "scenes")
    if get_origin(hint) is Literal:
        assert parameter.choices == get_args(hint)
    assert parameter.default == default
    for own, of_command in ((parameter.least, info.min), (parameter.most, info.max)):
        if of_command is not None:
            assert own == of_command


@pytest.mark.parametrize("algorithm", tables.ALGORITHMS, ids=lambda each: each.command)
def test_whatever_a_command_needs_has_a_parameter_in_its_order(algorithm: Any) -> None:
    signature = inspect.signature(CALLED[algorithm.command], eval_str=True).parameters.values()
    options = options_of(algorithm.command)
    needed = {name for name, each in zip(options, signature, strict=True) if each.default is inspect.Parameter.empty}
    asked = list(dict.fromkeys(each.option for each in algorithm.parameters if each.option is not None))
    assert needed <= set(asked)
    arguments = [name for name in options if not name.startswith("--")]
    assert [name for name in asked if not name.startswith("--")] == arguments
    assert set(algorithm.always) <= set(options)
    assert len({each.name for each in algorithm.parameters}) == len(algorithm.parameters)


def test_the_choices_are_those_of_the_package() -> None:
    assert set(tables.SPLITS) == set(_SPLIT_OPTIONS)
    assert set(tables.MODELS) == {*list_models(), *SIMPLE_MODELS, AUTO}
    assert tables.RARE_CLASSES == _CHOICES["rare_classes"]
    assert tables.MASKED == get_args(Kind)
    assert set(tables.SENSORS) == set(SENSORS)


def test_a_training_as_qgis_asks_for_it_is_one_that_the_command_runs(tmp_path: Path, example: Example) -> None:
    values = {
        "SCENE": str(example.scene),
        "LABEL_RASTER": str(example.labels),
        "SPLIT": "random",
        "PATCH": 1,
        "STEPS": 3,
        "SET": words.split_texts("batch_size=8; model_options.width=8\nmodel_options.states=2;self_training_rounds=0"),
        "SHRINK": 0.0,
        "OUT": str(tmp_path / "out"),
    }
    assert words.check_values(tables.TRAIN, values) is None
    made = words.command_words(tables.TRAIN, values)
    assert made[:4] == ["train", "--split=random", "--patch=1", "--steps=3"]
    assert made[-2:] == [str(example.scene), str(example.labels)]
    assert not any(word.startswith("--shrink") for word in made), "a default is handed on"
    answer = command_line(*made)
    assert answer.code == 0, answer
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_scene_is_given_once() -> None:
    labels = {"LABELS": "labels.gpkg"}
    assert "SCENE_FILE" in words.check_values(tables.RUN, labels)
    twice = {"SCENE": "a.tif", "SCENE_FILE": "b.mat"} | labels
    assert words.check_values(tables.RUN, twice).startswith("Give only one")
    assert words.check_values(tables.RUN, {"SCENE_FILE": "b.mat"} | labels) is None


# The command -------------------------------------------------------------------------------------


def fake(folder: Path, body: str, version: str = "9.0.0") -> Path:
    """A program that says its version, or does what the body says."""
    file = folder / "spectralmamba"
    answer = f"import sys, time, signal, os\nif '--version' in sys.argv:\n    sys.exit(print({version!r}))\n"
    file.write_text(f"#!{sys.executable}\n{answer}{body}\n")
    file.chmod(0o755)
    return file


def run(program: Path, cancelled: Any = lambda: False, folder: Path | None = None) -> dict[str, list[Any]]:
    heard: dict[str, list[Any]] = {"said": [], "complained": [], "progress": []}
    command.run_command(
        program,
        ["map"],
        say=heard["said"].append,
        complain=heard["complained"].append,
        progress=lambda *each: heard["progress"].append(each),
        cancelled=cancelled,
        folder=folder,
    )
    return heard


def test_progress_is_told_apart_from_what_is_said(tmp_path: Path) -> None:
    heard = run(fake(tmp_path, "print('progress 0.42 map\\nprogress of science\\nMap: ü')"))
    assert heard == {"said": ["progress of science", "Map: ü"], "complained": [], "progress": [(0.42, "map")]}


def test_what_qgis_sets_does_not_reach_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "PROJ_LIB", "PROJ_DATA", "GDAL_DRIVER_PATH", "LD_LIBRARY_PATH")
    program = fake(tmp_path, f"print([name for name in {names} if name in os.environ], os.environ['KEPT'])")
    for name in names:
        monkeypatch.setenv(name, "/of/qgis")
    monkeypatch.setenv("KEPT", "kept")
    assert run(program)["said"] == ["[] kept"]


def test_an_error_is_what_the_command_said(tmp_path: Path) -> None:
    with pytest.raises(command.CommandError, match=r"^Error: no such scene\.$"):
        run(fake(tmp_path, "sys.exit('Error: no such scene.')"))
    with pytest.raises(command.CommandError, match="code 3"):
        run(fake(tmp_path, "sys.exit(3)"))


@pytest.mark.parametrize("deaf", [False, True])
def test_cancel_ends_the_command_and_removes_files_without_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    monkeypatch.setattr(command, "_LONGEST_STOP", 0.5 if deaf else 60)
    other = tmp_path / ".other.part-1.tif"
    other.touch()
    program = fake(
        tmp_path,
        f"signal.signal(signal.SIGINT, signal.SIG_IGN if {deaf} else signal.default_int_handler)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        f"open({str(tmp_path / '.map.part-2.tif')!r}, 'w').close()\n"
        "print('progress 0.50 map', flush=True)\ntime.sleep(600)",
    )
    began: list[float] = []

    def cancelled() -> bool:
        if (tmp_path / ".map.part-2.tif").exists():
            began.append(time.monotonic())
        return bool(began)

    with pytest.raises(command.Cancelled):
        run(program, cancelled, tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert other.exists(), "a file that was there before is another's"
    assert not (tmp_path / ".map.part-2.tif").exists()


def test_a_missing_command_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(command.CommandError, match=r"no spectralmamba on PATH(.|\n)*python -m venv(.|\n)*pip install"):
        command.find_command(None)
    with pytest.raises(command.CommandError, match="/nowhere/spectralmamba is no program"):
        command.find_command("/nowhere/spectralmamba")
    program = fake(tmp_path, "")
    assert command.find_command("") == program
    assert command.find_command(str(program)) == program


def test_an_old_command_is_refused_with_what_updates_it(tmp_path: Path) -> None:
    with pytest.raises(
        command.CommandError, match=r"version 0\.0\.9, and this plugin needs(.|\n)*pip install --upgrade"
    ):
        command.check_version(fake(tmp_path, "", version="0.0.9"))


def test_a_program_that_is_no_spectralmamba_is_refused(tmp_path: Path) -> None:
    with pytest.raises(command.CommandError, match="does not tell its version"):
        command.check_version(fake(tmp_path, "", version="hello"))


def test_the_version_of_this_package_is_new_enough(tmp_path: Path) -> None:
    assert command.check_version(fake(tmp_path, "", version=spectralmamba.__version__)) >= command.MINIMUM


# The plugin's files ------------------------------------------------------------------------------


def test_the_zip_holds_the_plugin_and_is_made_to_the_same_bytes(tmp_path: Path) -> None:
    first, second = build.build(tmp_path / "a.zip"), build.build(tmp_path / "b" / "c.zip")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as packed:
        assert packed.testzip() is None
        names = set(packed.namelist())
    files = {
        each.relative_to(PLUGIN) for each in PLUGIN.rglob("*") if each.is_file() and "__pycache__" not in each.parts
    }
    assert names == {f"spectralmamba/{each.as_posix()}" for each in files} | {"spectralmamba/LICENSE"}


def test_the_metadata_are_whole_and_of_this_version() -> None:
    content = configparser.ConfigParser()
    content.read(PLUGIN / "metadata.txt", encoding="utf-8")
    found = content["general"]
    for name in ("name", "description", "about", "author", "license", "qgisMinimumVersion"):
        assert found[name].strip(), name
    assert found["version"] == spectralmamba.__version__
    assert found.getboolean("hasProcessingProvider")
    assert (PLUGIN / found["icon"]).is_file()


@pytest.mark.parametrize("file", sorted(PLUGIN.rglob("*.py")), ids=lambda each: each.stem)
def test_no_file_imports_the_package_or_torch_or_what_python_3_9_lacks(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) if not node.level}
    others = {name.partition(".")[0] for name in imported} - {"qgis", "processing"}
    assert others <= sys.stdlib_module_names


def test_the_modules_without_qgis_import_alone() -> None:
    alone = "from spectralmamba import command, tables, words"
    code = f"import sys; sys.path.insert(0, sys.argv[1]); {alone}; print(sorted(sys.modules))"
    answer = subprocess.run([sys.executable, "-I", "-c", code, str(PLUGIN.parent)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert not re.search(r"'(qgis|torch|numpy|typer)'", answer.stdout)


def test_every_algorithm_and_parameter_of_the_page_is_there() -> None:
    page = (ROOT / "docs" / "qgis.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `spectralmamba:(\w+)`", page, re.MULTILINE))
    assert listed == {each.command for each in tables.ALGORITHMS}
    known = {line.name for _, line in LINES} | {"MAP", "CLASSIFIER", "REPORT"}
    assert set(re.findall(r"--([A-Z_]+)", page)) <= known
