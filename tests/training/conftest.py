"""Fixtures of the tests of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from training_example import TRAINING_COLUMNS, Data

from spectralmamba import Classifier, Settings, Split, split_random


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


@pytest.fixture
def tiny() -> Settings:
    """A self-training of a fraction of a second, in which nearly any pixel is sure enough."""
    return Settings(
        steps=2,
        patch=5,
        batch_size=8,
        model_options={"width": 8, "states": 2},
        self_training_rounds=2,
        teacher_patch=5,
        pseudo_labels=10,
        pseudo_confidence=0.35,
    )


@pytest.fixture
def halved(small_scene: xr.DataArray, small_labels: xr.DataArray) -> Data:
    """The small scene, of which the left `TRAINING_COLUMNS` columns are the training side."""
    side = np.zeros(small_labels.shape, bool)
    side[:, :TRAINING_COLUMNS] = True
    split = split_random(small_labels.where(xr.DataArray(side, dims=("y", "x")), 0), per_class=3, patch=3)
    return small_scene, small_labels, dataclasses.replace(split, training_side=side)
