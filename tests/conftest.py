"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
import xarray as xr

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # heeded only before the first import of triton

from spectralmamba import Classifier, Settings, Split, fit, simulate_scene, split_random

# A shell that starts tests in the background lets Ctrl-C be ignored, here and in what tests start; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # tensors of a few kilobytes: more threads only wait for each other


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real reference data; tests that need it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("SPECTRALMAMBA_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder}; set SPECTRALMAMBA_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def _simulated() -> tuple[xr.DataArray, xr.DataArray]:
    return simulate_scene(rows=12, columns=12, bands=20, classes=3)


@pytest.fixture
def small_scene(_simulated: tuple[xr.DataArray, xr.DataArray]) -> xr.DataArray:
    """A scene of 20 bands and 12 × 12 pixels, a corner of which is nodata."""
    return _simulated[0].copy(deep=True)


@pytest.fixture
def small_labels(_simulated: tuple[xr.DataArray, xr.DataArray]) -> xr.DataArray:
    """Labels of three classes on the small scene."""
    return _simulated[1].copy(deep=True)


@pytest.fixture
def small_split(small_labels: xr.DataArray) -> Split:
    """Four training pixels a class, the other labels test."""
    return split_random(small_labels, per_class=4, patch=3)


@pytest.fixture(scope="session")
def quick() -> Settings:
    """A training of a fraction of a second; it learns next to nothing."""
    return Settings(steps=6, patch=3, batch_size=8, self_training_rounds=0)


@pytest.fixture(scope="session")
def _trained(_simulated: tuple[xr.DataArray, xr.DataArray], quick: Settings) -> Classifier:
    scene, labels = _simulated
    return fit(scene, labels, split_random(labels, per_class=4, patch=3), quick, device="cpu")


@pytest.fixture
def classifier_file(_trained: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a classifier of the small scene."""
    path = tmp_path_factory.mktemp("classifier") / "model.safetensors"
    _trained.save(path)
    return path


@pytest.fixture
def classifier(classifier_file: Path) -> Classifier:
    """A classifier of the small scene, of its own for each test."""
    return Classifier.load(classifier_file, "cpu")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks so small that a scene of a dozen rows has many: their width."""
    from spectralmamba import inference

    monkeypatch.setattr(inference, "BLOCK", 4)
    return 4
