"""The networks that SpectralMamba is compared with: their published sizes, that they learn, and that they are saved."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from spectralmamba import Classifier, Settings, fit, simulate_scene
from spectralmamba.errors import ModelError
from spectralmamba.models import AUTHOR_SETTINGS, create_model, list_models, model_size
from spectralmamba.models.baselines.mambahsi import GroupNorm
from spectralmamba.models.fused import FusedSpectralMamba, fused
from spectralmamba.models.patches import ImagePatches
from spectralmamba.models.spectral_mamba import MeanMerging, SpectralMamba

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
BASELINES = [name for name in list_models() if name != "spectral_mamba"]
RECURRENT = ("cas_rnn", "gru", "lstm")


@pytest.fixture(scope="module")
def page() -> Iterator[ModuleType]:
    """The module that writes docs/baselines.md."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import baselines_page

        yield baselines_page
    for name in {"baselines_page"} - before:
        sys.modules.pop(name, None)


def make(name: str, bands: int = 12, classes: int = 3, patch: int = 3, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, bands=bands, classes=classes, patch=patch, **options)


def test_parameters_are_the_published_ones(page: ModuleType):
    found = {(each.name, each.source, each.bands, each.patch): each.counted() for each in page.PUBLISHED}
    for each in page.PUBLISHED:
        key = each.name, each.source, each.bands, each.patch
        assert abs(found[key] / each.parameters - 1) <= 0.02, key
    # No count of these is published.
    assert {each.name for each in page.PUBLISHED} == set(BASELINES) - {"cnn2d", "lstm", "vit_pieces"}


def test_the_page_is_up_to_date(page: ModuleType):
    text = page.PAGE.read_text(encoding="utf-8")
    for name, table in page.sections().items():
        assert page.section_of(text, name) == table, "write it again: python benchmarks/baselines_page.py"


@pytest.mark.parametrize(
    ("name", "options", "published", "element_wise"),
    [
        # THOP adds to the GRUs' matrices 3 · 3 + 4 operations a unit and step, of 145 steps of 128 units and 5 of 256.
        ("cas_rnn", {"groups": 5}, 572.31e6, 13 * (145 * 128 + 5 * 256)),
        # THOP adds four operations a value for normalisation, of 8 layers of 146 tokens and one of the class token, and leaves out
        # the products of attention, two of 146 × 146 × 64 in each of four layers.
        ("spectralformer", {"depth": 4, "mode": "ViT"}, 685.89e6, 4 * 64 * (8 * 146 + 1) - 4 * 2 * 146**2 * 64),
    ],
)
def test_multiply_accumulates_of_64_patches_are_those_in_the_papers_table(
    name: str, options: dict[str, object], published: float, element_wise: int
):
    size = model_size(make(name, 145, 14, 3, **options), 145, 3)
    assert abs(64 * (size.multiply_accumulates + element_wise) / published - 1) < 1e-4


def separable(patch: int, bands: int = 12) -> tuple[Tensor, Tensor]:
    """Sixteen pixels of each of three classes, apart by their mean spectra, as training gives them."""
    random = torch.Generator().manual_seed(0)
    targets = torch.arange(48) % 3
    centres = torch.randn(3, bands, generator=random)[targets]
    if patch == 1:
        return centres + 0.2 * torch.randn(48, bands, generator=random), targets
    return centres[:, :, None, None] + 0.2 * torch.randn(48, bands, patch, patch, generator=random), targets


def learn(name: str, patch: int, steps: int) -> list[float]:
    model, (batch, targets) = make(name, patch=patch).train(), separable(patch)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(batch), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_learns_what_is_easy_and_the_same_every_time(name: str):
    patch = 1 if name in (*RECURRENT, "vit") else 3
    losses = learn(name, patch, steps=25)
    assert sum(losses[-3:]) / 3 < 0.6 * losses[0]
    assert learn(name, patch, steps=3) == losses[:3]


@pytest.fixture(scope="module")
def simulated() -> tuple[xr.DataArray, xr.DataArray]:
    return simulate_scene(rows=10, columns=10, bands=15, classes=3)


@pytest.mark.parametrize("name", BASELINES)
def test_a_classifier_of_every_baseline_is_trained_saved_and_loaded(
    name: str, simulated: tuple[xr.DataArray, xr.DataArray], tmp_path: Path
):
    scene, labels = simulated
    settings = Settings(model=name, steps=5, patch=3, batch_size=8, companion="none", self_training_rounds=0)
    trained = fit(scene, labels, settings=settings.replace(set_coverage=0), device="cpu")
    trained.save(tmp_path / "model.safetensors")
    loaded = Classifier.load(tmp_path / "model.safetensors", "cpu")
    assert loaded.card["model"]["name"] == name
    xr.testing.assert_identical(loaded.predict_proba(scene), trained.predict_proba(scene))


def stacked_logits(models: list[nn.Module], batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits `(V, B, K)` of several networks as one, each of its own batch, and the buffers that they leave."""
    parameters, buffers = stack_module_state(models)  # pyright: ignore

    def logits(parameters: dict, buffers: dict, batch: Tensor) -> Tensor:
        return functional_call(models[0], (parameters, buffers), (batch,))

    return torch.vmap(logits)(parameters, buffers, batch), buffers


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train()


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in RECURRENT])
def test_seeds_of_a_baseline_can_be_batched(name: str):
    models = [without_dropout(make(name)) for _ in range(2)]
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(1.1)
    batch = torch.randn(2, 4, 12, 3, 3, generator=torch.Generator().manual_seed(1))
    found, buffers = stacked_logits(models, batch)
    for number, model in enumerate(models):
        expected = model(batch[number])
        # float32 products of another shape, sums of some hundred terms.
        torch.testing.assert_close(found[number], expected, rtol=1e-4, atol=1e-4)
        for key, buffer in model.named_buffers():
            torch.testing.assert_close(buffers[key][number], buffer, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_networks_cannot_be_batched_and_torch_says_so(name: str):
    """Then training warns and falls back to one seed after the other (`fitting._together`)."""
    models = [make(name) for _ in range(2)]
    with pytest.raises(RuntimeError):
        stacked_logits(models, torch.randn(2, 4, 12, 3, 3))


@pytest.mark.parametrize("name", AUTHOR_SETTINGS)
def test_authors_settings_are_settings_of_a_model_that_is_there(name: str):
    assert name in BASELINES
    given = AUTHOR_SETTINGS[name]
    assert Settings(model=name, **given).to_dict() | given == Settings(model=name, **given).to_dict()


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("spectralformer", {"near_band": 2}, "expected an odd number"),
        ("spectralformer", {"mode": "caf"}, "expected ViT or CAF"),
        ("vit_pieces", {"piece": 13}, "expected 1 to 12 bands"),
        ("cas_rnn", {"groups": 0}, "expected at least 1"),
        ("hybridsn", {"components": 0}, "expected at least 1"),
        ("mamba_hsi", {"width": 6}, "cannot be built"),
    ],
)
def test_options_that_make_no_sense_are_refused(name: str, options: dict[str, object], problem: str):
    with pytest.raises(ModelError, match=problem):
        make(name, **options)


def test_neighbours_of_the_first_band_are_the_second_and_the_last():
    model = make("spectralformer", bands=5, patch=1)
    seen: list[Tensor] = []
    model.embedding.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))  # pyright: ignore
    model(torch.arange(5.0)[None])
    assert seen[0][0].tolist() == [[4, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0]]


def test_normalisation_of_last_channels_is_that_of_torch():
    torch.manual_seed(0)
    ours, torchs, x = GroupNorm(4, 8).double(), nn.GroupNorm(4, 8).double(), torch.randn(3, 5, 2, 8).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    torchs.load_state_dict(ours.state_dict())
    expected = torchs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(ours(x), expected, rtol=1e-10, atol=1e-12)


# SpectralMamba without its parts -----------------------------------------------------------------

PARTS = [{"gate": "mean"}, {"gate": "centre"}, {"piece": 1}, {"block": "mlp"}, {"block": "none"}]


@pytest.mark.parametrize("options", PARTS, ids=str)
@pytest.mark.parametrize("patch", [1, 3])
def test_spectral_mamba_learns_without_any_of_its_parts(options: dict[str, object], patch: int):
    model = make("spectral_mamba", patch=patch, **options)
    logits = model(separable(patch)[0])
    logits.square().sum().backward()
    assert logits.shape == (48, 3)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_gate_of_none_costs_nothing():
    pixelwise = model_size(make("spectral_mamba", 145, 14, 1, preset="paper"), 145, 1)
    for gate in ("mean", "centre"):
        assert model_size(make("spectral_mamba", 145, 14, 7, preset="paper", gate=gate), 145, 7) == pixelwise


@pytest.mark.parametrize("gate", ["mean", "centre"])
def test_without_a_gate_the_network_sees_the_mean_or_the_centre(gate: str):
    model, patches = make("spectral_mamba", preset="paper", gate=gate).eval(), separable(3)[0]
    alone = make("spectral_mamba", preset="paper", patch=1).eval()
    alone.load_state_dict(model.state_dict())
    spectra = patches.mean((2, 3)) if gate == "mean" else patches[:, :, 1, 1]
    with torch.no_grad():
        torch.testing.assert_close(model(patches), alone(spectra), rtol=0, atol=1e-5)


@pytest.mark.parametrize("block", ["mlp", "none"])
def test_without_the_mamba_block_no_token_is_mixed(block: str):
    model = make("spectral_mamba", preset="paper", patch=1, block=block).double().eval()
    assert isinstance(model, SpectralMamba)
    spectra = separable(1)[0].double()
    changed = spectra.clone()
    changed[:, :6] += 1  # the first token
    found = []
    model.final_norm.register_forward_hook(lambda _, __, tokens: found.append(tokens))
    for each in (spectra, changed):
        model(each)
    assert torch.equal(found[0][:, 1:], found[1][:, 1:])
    assert not torch.equal(found[0][:, 0], found[1][:, 0])


@pytest.mark.parametrize("options", PARTS, ids=str)
@pytest.mark.parametrize("patch", [1, 5])
def test_maps_see_what_training_sees_without_each_part(options: dict[str, object], patch: int):
    model = make("spectral_mamba", patch=patch, **options).eval()
    image = torch.randn(9, 8, 12, generator=torch.Generator().manual_seed(1))
    windows = image.unfold(0, patch, 1).unfold(1, patch, 1).flatten(0, 1)  # (B, L, P, P)
    with torch.no_grad():
        expected = model(windows[:, :, 0, 0] if patch == 1 else windows)
        for network in (model, fused(model)):
            found = network(ImagePatches(image, None, None, patch))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", ["mlp", "none"])
def test_only_a_mamba_block_is_fused(block: str):
    model = make("spectral_mamba", block=block).eval()
    assert fused(model) is model
    assert not isinstance(fused(make("mamba_hsi").eval()), FusedSpectralMamba)


def test_a_mean_gate_is_the_mean_of_every_patch_of_an_image():
    image = torch.randn(7, 6, 4, dtype=torch.float64)
    windows = image.unfold(0, 3, 1).unfold(1, 3, 1)
    torch.testing.assert_close(MeanMerging().of_image(image, 3), windows.mean((3, 4)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gru", "lstm", "cas_rnn"])
def test_recurrent_networks_say_the_same_of_many_spectra_as_of_few(name, monkeypatch):
    network = create_model(name, bands=9, classes=3).eval()
    spectra = torch.randn(11, 9, generator=torch.Generator().manual_seed(0))
    whole = network(spectra)
    monkeypatch.setattr("spectralmamba.models.baselines.layers._MOST_SEQUENCES", 4)
    torch.testing.assert_close(network(spectra), whole, rtol=0, atol=1e-6)  # sums of another batch in another order
