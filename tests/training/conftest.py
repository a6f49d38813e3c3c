"""Fixtures of the tests of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from spectralmamba import Classifier, Split


@pytest.fixture
def data(
    small_scene: xr.DataArray, small_labels: xr.DataArray, small_split: Split
) -> tuple[xr.DataArray, xr.DataArray, Split]:
    """The small scene, its labels and split."""
    return small_scene, small_labels, small_split


@pytest.fixture
def bytes_of(tmp_path: Path) -> Callable[[Classifier], bytes]:
    """The bytes of a classifier's file."""

    def saved(classifier: Classifier) -> bytes:
        classifier.save(tmp_path / "compared.safetensors")
        return (tmp_path / "compared.safetensors").read_bytes()

    return saved
