"""The Triton kernels of maps, on the CPU by Triton's interpreter; tests/test_gpu.py runs them on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spectralmamba.models.fused import feature_weights, merging_weights
from spectralmamba.models.spectral_mamba import GatedMerging, SpectralMamba

kernels = pytest.importorskip("spectralmamba.ops.dense.triton", reason="Triton is not installed")

SHAPES = [
    {"bands": 20, "patch": 3},
    {"bands": 37, "patch": 5, "piece": 4, "states": 5, "width": 20, "expansion": 3},
    {"bands": 33, "patch": 7, "piece": 5, "orientation": "pieces", "convolution": 2},
]


def a_network(**options: Any) -> SpectralMamba:
    torch.manual_seed(0)
    network = SpectralMamba(classes=4, **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * parameter.abs().mean() * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("options", SHAPES, ids=str)
@torch.inference_mode()
def test_features_are_those_of_the_network(options: dict[str, Any], half: bool) -> None:
    network = a_network(**options)
    spectra = torch.randn(70, options["bands"])
    expected = (network.features(spectra) - network.final_norm.bias) / network.final_norm.weight
    found = kernels.s6_features(spectra, kernels.prepare(feature_weights(network), half))
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-3 if half else 2e-6)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("options", SHAPES, ids=str)
@torch.inference_mode()
def test_an_image_is_merged_as_its_patches_are(options: dict[str, Any], half: bool) -> None:
    merging, patch = a_network(**options).merging, options["patch"]
    assert isinstance(merging, GatedMerging)
    image = torch.randn(patch + 4, patch + 7, options["bands"])
    patches = image.unfold(0, patch, 1).unfold(1, patch, 1)  # (h, w, L, P, P)
    expected = merging(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
    found = kernels.gated_merging(image, patch, kernels.prepare_merging(merging_weights(merging), half))
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-3 if half else 2e-6)


@torch.inference_mode()
def test_large_values_do_not_overflow_in_float16() -> None:
    network = a_network(bands=20, patch=3)
    assert isinstance(network.merging, GatedMerging)
    image = 1e6 * torch.randn(4, 4, 20)
    found = kernels.gated_merging(image, 3, kernels.prepare_merging(merging_weights(network.merging), True))
    assert found.isfinite().all()
    features = kernels.s6_features(image.flatten(0, 1), kernels.prepare(feature_weights(network), True))
    assert features.isfinite().all()


def test_networks_too_large_for_the_kernels_are_told() -> None:
    assert kernels.takes(feature_weights(a_network(bands=20)))
    assert not kernels.takes(feature_weights(a_network(bands=20, width=128)))
    assert not kernels.takes(feature_weights(a_network(bands=20, convolution=6)))
