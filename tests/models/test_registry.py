from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spectralmamba.errors import ModelError
from spectralmamba.models import create_model, list_models, list_presets, model_size

EVERY_PRESET = [(name, preset) for name in list_models() for preset in list_presets(name)]
NEED_A_PATCH = ("cnn2d", "cnn3d", "hybridsn", "mamba_hsi", "ssftt")


def with_patches(patches: tuple[int, ...]) -> list[tuple[str, str, int]]:
    """Every preset with every patch that its model takes."""
    return [(*each, patch) for each in EVERY_PRESET for patch in patches if patch > 1 or each[0] not in NEED_A_PATCH]


def make_batch(bands: int, patch: int, batch: int = 3) -> Tensor:
    shape = (batch, bands) if patch == 1 else (batch, bands, patch, patch)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def make(name: str, preset: str, bands: int = 20, patch: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, bands=bands, classes=5, patch=patch, preset=preset)


@pytest.mark.parametrize("bands", [1, 4, 7, 145, 200])
@pytest.mark.parametrize(("name", "preset", "patch"), with_patches((1, 3, 5, 7)))
def test_every_model_takes_every_number_of_bands_and_patch(name: str, preset: str, bands: int, patch: int):
    model = make(name, preset, bands, patch)
    logits = model(make_batch(bands, patch))
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize(("name", "preset", "patch"), with_patches((1, 3)))
def test_every_model_is_deterministic_in_evaluation_and_takes_one_pixel_or_none(name: str, preset: str, patch: int):
    model, batch = make(name, preset, patch=patch).eval(), make_batch(20, patch)
    with torch.no_grad():
        logits = model(batch)
        assert torch.equal(logits, model(batch))
        # Matrix products of another size add in another order: float32's 6e-8 times some dozen summands of size 1.
        torch.testing.assert_close(model(batch[:1]), logits[:1], rtol=0, atol=1e-5)
        assert model(batch[:0]).shape == (0, 5)


@pytest.mark.parametrize(("name", "preset"), EVERY_PRESET)
def test_every_model_is_rebuilt_from_its_saved_tensors(tmp_path: Path, name: str, preset: str):
    model, other = make(name, preset), create_model(name, bands=20, classes=5, patch=3, preset=preset)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    batch = make_batch(20, 3)
    assert torch.equal(model.eval()(batch), other.eval()(batch))


@pytest.mark.parametrize(("name", "preset"), EVERY_PRESET)
def test_counting_leaves_the_model_as_it_was(name: str, preset: str):
    model = make(name, preset).train()
    first, again = model_size(model, 20, 3), model_size(model, 20, 3)
    assert first == again
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert first.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NEED_A_PATCH)
def test_a_model_that_needs_a_patch_says_so(name: str):
    with pytest.raises(ModelError, match=f"{name} needs a patch.* expected patch 3 or wider"):
        create_model(name, bands=20, classes=5, patch=1)


def test_models_are_listed_by_pattern():
    assert "spectral_mamba" in list_models()
    assert list_models("spectral_*") == ["spectral_mamba"]
    assert list_models("nothing*") == []
    assert list_presets("spectral_mamba") == ("default", "paper")


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(ModelError, match="Did you mean 'spectral_mamba'"):
        create_model("spectralmamba", bands=20, classes=3)


def test_an_unknown_option_or_preset_is_refused_with_what_there_is():
    with pytest.raises(ModelError, match="Did you mean 'orientation'"):
        create_model("spectral_mamba", bands=20, classes=3, orientatoin="pieces")
    with pytest.raises(ModelError, match="default or paper"):
        create_model("spectral_mamba", bands=20, classes=3, preset="huge")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"patch": 4}, "no centre pixel"),
        ({"patch": 0}, "no centre pixel"),
        ({"patch": -3}, "no centre pixel"),
        ({"piece": 0}, "piece size R"),
        ({"piece": 21}, "expected 1 to 20 bands"),
        ({"classes": 1}, "too few classes"),
        ({"bands": 0}, "too few bands"),
        ({"orientation": "sideways"}, "orientation"),
        ({"gate": "revolving"}, "expected position or shared or mean or centre"),
        ({"block": "wooden"}, "expected mamba, mlp or none"),
        ({"width": -4}, "cannot be built"),
        ({"width": "wide"}, "cannot be built"),
        ({"dropout": 2.0}, "cannot be built"),
        ({"states": 10**30}, "cannot be built"),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused(options: dict[str, object], problem: str):
    with pytest.raises(ModelError, match=problem):
        create_model("spectral_mamba", **({"bands": 20, "classes": 3} | options))  # pyright: ignore
