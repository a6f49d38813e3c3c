from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = {"tutorial.ipynb": 3, "notebooks/tools.ipynb": 1}


@pytest.fixture(scope="module", params=list(PICTURES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(DOCS / name, as_version=4)


def test_a_notebook_is_kept_without_outputs(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    kept = [cell.id for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    assert not kept


def test_a_notebook_runs_from_top_to_bottom_and_shows_its_pictures(
    name: str, notebook: nbformat.NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # tensors of a few kilobytes: more threads only wait for each other
    run = NotebookClient(
        nbformat.from_dict(notebook), timeout=240, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in run.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"], "a warning meets the reader"
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == PICTURES[name]
    assert list(tmp_path.iterdir()) == []
