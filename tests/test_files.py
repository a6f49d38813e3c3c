from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from spectralmamba.errors import OutputError
from spectralmamba.files import atomic_output, write_json, write_text

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_file_replaces_the_old_one(tmp_path: Path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    write_text(path, "nëu")
    assert path.read_text(encoding="utf-8") == "nëu"
    assert names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: type[BaseException]):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(failure), atomic_output(path) as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        raise failure
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_nothing_stands_under_the_final_name_while_it_is_written(tmp_path: Path):
    path = tmp_path / "result.tif"
    with atomic_output(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".tif"  # some writers go by it


def test_the_mode_is_what_the_umask_leaves(tmp_path: Path):
    before = os.umask(0o027)
    try:
        with atomic_output(tmp_path / "result.txt") as temporary:
            temporary.write_text("new")
            temporary.chmod(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "result.txt").stat().st_mode) == 0o640


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(OutputError, match="folder does not exist") as refused:
        write_text(tmp_path / "none" / "result.txt", "new")
    assert refused.value.file == tmp_path / "none"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="folder does not exist"):
        write_text(tmp_path / "file" / "result.txt", "new")
    assert names(tmp_path) == ["file"]


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path):
    (tmp_path / "result.txt").mkdir()
    with pytest.raises(OutputError, match=r"result\.txt: cannot write this file"):
        write_text(tmp_path / "result.txt", "new")
    assert names(tmp_path) == ["result.txt"]


def test_a_name_that_is_too_long_is_refused(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot write this file"):
        write_text(tmp_path / ("n" * 300), "new")


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="permissions"):
            write_text(tmp_path / "result.txt", "new")
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path):
    pytest.importorskip("resource")
    path = tmp_path / "result.txt"
    path.write_text("old")
    code = (
        "import resource, sys\nfrom spectralmamba.errors import OutputError\n"
        "from spectralmamba.files import write_text\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n    write_text(sys.argv[1], 'n' * 1000)\nexcept OutputError as error:\n    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    assert "no space left" in told
    assert str(path) in told
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_that_no_reader_takes_is_refused(tmp_path: Path, value: float):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "scores.json", {"kappa": value})
    assert names(tmp_path) == []


def test_json_round_trip(tmp_path: Path):
    content = {"a": [1, None, 0.1], "ü": "x"}
    write_json(tmp_path / "scores.json", content)
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == content
