from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from spectralmamba import Settings, Split, fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]

Data = tuple[xr.DataArray, xr.DataArray, Split]


@pytest.fixture
def data(small_scene: xr.DataArray, small_labels: xr.DataArray, small_split: Split) -> Data:
    return small_scene, small_labels, small_split


@pytest.mark.parametrize("patch", [1, 3])
def test_a_classifier_says_the_same_on_gpu_and_cpu(data: Data, quick: Settings, patch: int):
    classifier = fit(*data, quick, patch=patch, device="cpu")
    on_cpu = classifier.predict_proba(data[0]).values
    on_gpu = classifier.to("cuda").predict_proba(data[0]).values
    # float32 sums of some hundred terms in another order, and TF32 is off by default for matrix products.
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=1e-4)


def test_training_on_a_gpu_gives_the_same_file_twice(data: Data, quick: Settings, tmp_path: Path):
    files = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.safetensors"
        fit(*data, quick, device="cuda").save(path)
        files.append(path.read_bytes())
    assert files[0] == files[1]
