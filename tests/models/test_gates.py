"""What a user sees of the gates: the option travels from the settings into the file and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr

from spectralmamba import Classifier, Settings, Split, fit
from spectralmamba.models import create_model
from spectralmamba.models.spectral_mamba import GatedMerging, SharedGateMerging

GATES = {"position": GatedMerging, "shared": SharedGateMerging}


@pytest.mark.parametrize("options", [{}, {"preset": "paper"}, {"gate": None}])
def test_the_papers_gate_is_the_default(options: dict[str, Any]) -> None:
    network = create_model("spectral_mamba", bands=9, classes=3, patch=3, **options)
    assert type(network.merging) is GatedMerging


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_gate_may_be_chosen_with_every_preset_and_does_nothing_without_patches(gate: str, preset: str) -> None:
    options = {"bands": 9, "classes": 3, "preset": preset}
    assert type(create_model("spectral_mamba", patch=3, gate=gate, **options).merging) is GATES[gate]
    models = []
    for chosen in ({"gate": gate}, {}):
        torch.manual_seed(0)
        models.append(create_model("spectral_mamba", patch=1, **chosen, **options).eval())
    spectra = torch.randn(2, 9)
    assert models[0].merging is None
    assert torch.equal(models[0](spectra), models[1](spectra))


def test_a_classifier_with_a_shared_gate_is_saved_and_loaded_with_it(
    quick: Settings, small_scene: xr.DataArray, small_labels: xr.DataArray, small_split: Split, tmp_path: Path
) -> None:
    settings = quick.replace(model_options={"gate": "shared"}, companion="none", set_coverage=0)
    trained = fit(small_scene, small_labels, small_split, settings, device="cpu")
    trained.save(tmp_path / "model.safetensors")
    loaded = Classifier.load(tmp_path / "model.safetensors", "cpu")
    assert type(loaded.network.merging) is SharedGateMerging
    assert loaded.card["settings"]["model_options"] == {"gate": "shared"}
    xr.testing.assert_identical(loaded.predict_proba(small_scene), trained.predict_proba(small_scene))


def test_every_parameter_of_a_shared_gate_learns() -> None:
    torch.manual_seed(0)
    network = create_model("spectral_mamba", bands=9, classes=3, patch=5, gate="shared")
    network(torch.randn(4, 9, 5, 5)).square().sum().backward()
    merging = network.merging
    assert isinstance(merging, SharedGateMerging)
    for name, parameter in merging.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
