from __future__ import annotations

import copy
import itertools
import math
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectralmamba.models.fused import FusedMerging, FusedSpectralMamba, feature_weights, fused
from spectralmamba.models.patches import ImagePatches
from spectralmamba.models.spectral_mamba import GatedMerging, SpectralMamba
from spectralmamba.ops.dense import FeatureWeights, native

pytestmark = pytest.mark.skipif(
    not native.available(), reason="the native library is not built, not for this processor or SPECTRALMAMBA_NATIVE=0"
)

# Features are about 1, and float32 rounds at 6e-8 in some ten steps one after the other.
TOLERANCE = 5e-6
WIDEST, MATRICES = native._kernels()
KERNELS = [(lanes, 0) for lanes in ((8, 16) if WIDEST == 16 else (WIDEST,))] + [(WIDEST, 1)] * MATRICES


@pytest.fixture(autouse=True, params=KERNELS, ids=lambda kernels: f"{kernels[0]} lanes{' and matrices' * kernels[1]}")
def _all_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_kernels", lambda: request.param)


@pytest.fixture(autouse=True)
def _new_memory_holds_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "new_empty", lambda tensor, *sizes: tensor.new_full(sizes, math.nan))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_network(**sizes: Any) -> SpectralMamba:
    """A network none of whose weights is as it begins."""
    torch.manual_seed(sum(value for value in sizes.values() if isinstance(value, int)))
    network = SpectralMamba(**({"classes": 5} | sizes)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() < 2 or "A_log" in name or "position" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return network


def a_merging(bands: int) -> GatedMerging:
    torch.manual_seed(bands)
    return GatedMerging(bands).eval()


@torch.inference_mode()
def exact_features(network: SpectralMamba, spectra: Tensor) -> Tensor:
    """What the network makes of spectra in float64, before the final norm's weight and bias."""
    network = copy.deepcopy(network).double()
    nn.init.ones_(network.final_norm.weight)
    nn.init.zeros_(network.final_norm.bias)
    return network.features(spectra.double())


@torch.inference_mode()
def exact_merging(merging: GatedMerging, image: Tensor, patch: int) -> Tensor:
    """What each patch by itself merges into, in float64."""
    patches = image.double().unfold(0, patch, 1).unfold(1, patch, 1)  # (h, w, L, P, P)
    merged = copy.deepcopy(merging).double()(patches.flatten(0, 1).contiguous())
    return merged.unflatten(0, patches.shape[:2])


SIZES = [
    {"bands": 145},
    {"bands": 10, "piece": 3},
    {"bands": 1, "piece": 1},
    {"bands": 145, "orientation": "pieces"},
    {"bands": 103, "piece": 17, "orientation": "pieces", "states": 5},
    {"bands": 50, "piece": 1, "convolution": 2, "states": 8},
    {"bands": 37, "piece": 5, "width": 13, "expansion": 3, "states": 31, "convolution": 1},
    {"bands": 20, "piece": 20, "width": 5, "expansion": 1, "states": 1},
    {"bands": 30, "piece": 4, "width": 64, "states": 20, "convolution": 7},
    {"bands": 500, "piece": 2, "states": 3},
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("batch", [1, 37])
def test_features_are_those_of_the_network(sizes: dict[str, Any], batch: int) -> None:
    network = a_network(**sizes)
    spectra = torch.randn(batch, sizes["bands"])
    found = native.s6_features(spectra, feature_weights(network))
    assert (found - exact_features(network, spectra)).abs().max() <= TOLERANCE


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-3, 100.0])
def test_features_of_faint_and_of_bright_spectra_are_those_of_the_network(scale: float) -> None:
    network = a_network(bands=145)
    spectra = torch.randn(20, 145) * scale
    found = native.s6_features(spectra, feature_weights(network))
    # Long steps and large gates: the network's own float32 is off by as much.
    assert (found - exact_features(network, spectra)).abs().max() <= 2 * TOLERANCE


@pytest.mark.parametrize(
    ("sizes", "patch"), [*itertools.product(SIZES[:2], (1, 3, 5, 7)), ({"bands": 37, "piece": 5, "width": 24}, 3)]
)
@torch.inference_mode()
def test_logits_of_an_image_are_those_of_the_network(sizes: dict[str, Any], patch: int) -> None:
    network = a_network(patch=patch, linear_path="both", **sizes)
    image = torch.randn(17, 23, sizes["bands"])
    rows, columns = (torch.arange(patch // 2, size - patch // 2) for size in image.shape[:2])
    grid = torch.meshgrid(rows, columns, indexing="ij")
    patches = ImagePatches(image, grid[0].flatten(), grid[1].flatten(), patch)
    faster = fused(network)
    assert isinstance(faster, FusedSpectralMamba)
    if patch == 1:
        single = patches.centre()
        assert (faster(single) - network(single)).abs().max() <= 1e-5
    else:
        assert (faster(patches) - network(patches)).abs().max() <= 1e-5


@pytest.mark.parametrize("bands", [1, 2, 10, 37, 145])
@pytest.mark.parametrize("patch", [3, 5, 7, 9])
@pytest.mark.parametrize("beyond", [(0, 0), (1, 0), (0, 4), (13, 17)])
def test_an_image_merges_into_what_its_patches_do(bands: int, patch: int, beyond: tuple[int, int]) -> None:
    merging = a_merging(bands)
    image = torch.randn(patch + beyond[0], patch + beyond[1], bands)
    found = FusedMerging(merging, False).of_image(image, patch)
    assert (found - exact_merging(merging, image, patch)).abs().max() <= TOLERANCE


def test_a_wide_image_merges_into_what_its_patches_do() -> None:
    merging = a_merging(6)
    image = torch.randn(9, 200, 6)
    found = FusedMerging(merging, False).of_image(image, 5)
    assert (found - exact_merging(merging, image, 5)).abs().max() <= TOLERANCE


@pytest.mark.parametrize(("weight", "values"), [(1.0, 100.0), (1e30, 1e30)])
def test_a_gate_of_any_size_is_the_sigmoid(weight: float, values: float) -> None:
    matrices = native._kernels()[1]
    if matrices and weight > 1:
        pytest.skip("numbers beyond float32's have low halves of the other sign")
    merging = a_merging(1)
    with torch.no_grad():
        for parameter in merging.parameters():
            parameter.zero_()
        merging.depthwise.weight[0, 0, 1, 1] = 1
        merging.pointwise.weight.fill_(weight)
    x = torch.linspace(-1, 1, 10_001) * values
    image = torch.zeros(3, 3 * len(x), 1)
    image[1, 1::3, 0] = x  # no patch holds two of them
    found = FusedMerging(merging, False).of_image(image, 3)[0, ::3, 0] * (9 / 2)
    expected = x.double() * torch.sigmoid(weight * x.double())
    # log₂ e is rounded and multiplied by up to 100, matrices round what they multiply; a gate may be the smallest normal number
    # instead of zero.
    rtol = 2.0**-16 * values if matrices else 1e-5
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=2.0**-125 * values)


def test_a_step_is_the_softplus() -> None:
    one, zero = torch.ones(1), torch.zeros(1)

    def seen(low: float) -> Tensor:
        """A step through a network of one token, channel and state, whose u, gate, B and C are one."""
        weights = FeatureWeights(
            token=torch.zeros(1, 2),
            position=torch.zeros(1, 2),
            token_in=torch.zeros(1, 2),
            position_in=torch.zeros(1, 2),
            bias_in=torch.full((2,), 1.27846454),  # SiLU makes one of it
            convolution=one[None],
            convolution_bias=zero,
            selection=torch.ones(1, 3),
            delta=zero[None],
            delta_bias=torch.tensor([low]),
            A=zero[None],
            D=zero,
            out=torch.tensor([[1.0, -1.0]]),
            epsilon=torch.tensor([1.0, 1e6]),  # of a final norm that keeps how large a step is
        )
        return native.s6_features(torch.zeros(1, 1), weights)[0, 0]

    low = torch.cat([torch.linspace(-75, 25, 101), torch.linspace(-1, 1, 51), torch.tensor([1e3])])
    step = torch.nn.functional.softplus(low.double())
    found = torch.stack([seen(value) for value in low.tolist()]).double()
    # Also multiplied by the rounding of log₂ e, up to 75 times.
    torch.testing.assert_close(found, step / (step**2 + 1e6).sqrt(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shift", [-1e4, -100.0, -20.0, 20.0, 100.0, 1e4])
@pytest.mark.parametrize("what", ["step", "projection", "convolution", "decay"])
def test_extreme_weights_are_no_further_off_than_the_network(what: str, shift: float) -> None:
    network = a_network(bands=20, piece=4)
    block = network.blocks[0]
    parameter = {
        "step": block.delta_projection.bias,
        "projection": network.norms[0].bias,
        "convolution": block.convolution.bias,
        "decay": block.A_log,
    }[what]
    with torch.no_grad():
        parameter.add_(max(-80.0, min(shift, 80.0)) if what == "decay" else shift)
    spectra = torch.randn(40, 20)
    found, exact = native.s6_features(spectra, feature_weights(network)), exact_features(network, spectra)
    norm = network.final_norm
    with torch.inference_mode():
        theirs = (network.features(spectra) - norm.bias) / norm.weight
    assert found.isfinite().all()
    assert (found - exact).abs().max() <= TOLERANCE + 3 * (theirs - exact).abs().max()


@pytest.mark.parametrize("sizes", SIZES[:3], ids=str)
def test_features_have_the_same_bits_wherever_in_a_batch_and_for_any_number_of_threads(sizes: dict[str, Any]) -> None:
    weights = feature_weights(a_network(**sizes))
    spectra = torch.randn(150, sizes["bands"])
    expected = native.s6_features(spectra, weights)
    for threads, first, end in ((1, 0, 1), (1, 7, 30), (1, 149, 150), (2, 0, 150), (2, 3, 78), (3, 0, 150)):
        torch.set_num_threads(threads)
        assert torch.equal(native.s6_features(spectra[first:end].contiguous(), weights), expected[first:end])


@pytest.mark.parametrize("patch", [3, 7])
@pytest.mark.parametrize("bands", [10, 145])
def test_a_merged_pixel_has_the_same_bits_wherever_in_an_image_and_for_any_number_of_threads(
    bands: int, patch: int
) -> None:
    merging = FusedMerging(a_merging(bands), False)
    image = torch.randn(25, 150, bands)
    expected = merging.of_image(image, patch)
    for threads, top, left, height, width in (
        *((2, 0, 0, 25, 150), (3, 0, 0, 25, 150), (7, 0, 0, 25, 150)),
        *((1, 3, 5, patch, patch), (1, 0, 0, 20, 66), (1, 4, 11, 15, 29), (2, 1, 77, 24, 73)),
    ):
        torch.set_num_threads(threads)
        found = merging.of_image(image[top : top + height, left : left + width].contiguous(), patch)
        rest = height - patch + 1, width - patch + 1
        assert torch.equal(found, expected[top : top + rest[0], left : left + rest[1]])


def test_nan_in_one_spectrum_stays_there() -> None:
    spectra = torch.randn(20, 145)
    spectra[7, 100] = math.nan
    found = native.s6_features(spectra, feature_weights(a_network(bands=145)))
    assert torch.equal(found.isnan().any(1), spectra.isnan().any(1))


def test_nan_in_one_pixel_is_in_the_patches_that_hold_it() -> None:
    image = torch.randn(12, 30, 4)
    image[5, 20, 2] = math.nan
    found = FusedMerging(a_merging(4), False).of_image(image, 5)
    expected = torch.zeros(8, 26, dtype=torch.bool)
    expected[1:6, 16:21] = True
    assert torch.equal(found.isnan().all(2), expected)
    assert torch.equal(found.isnan().any(2), expected)


def test_no_spectra_have_no_features() -> None:
    assert native.s6_features(torch.zeros(0, 10), feature_weights(a_network(bands=10, piece=3))).shape == (0, 32)


def test_a_tensor_of_another_dtype_or_layout_is_refused() -> None:
    weights = feature_weights(a_network(bands=10, piece=3))
    merging = FusedMerging(a_merging(10), False)
    right, image = torch.randn(4, 10), torch.randn(5, 5, 10)
    for wrong in (right.double(), right.mT.contiguous().mT, torch.randn(4, 13)):
        with pytest.raises(AssertionError):
            native.s6_features(wrong, weights)
    for wrong in (image.double(), image.mT.contiguous().mT, image[:, :, :4].contiguous(), image[:2]):
        with pytest.raises(AssertionError):
            merging.of_image(wrong, 3)


def test_missing_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    library = native._library()
    assert library is not None
    kernels = native._kernels()
    assert library.dense_features(*[None] * 16, 1, 1, 1, 1, 1, 1, 1 << 53, 1, 1, 1, kernels[0]) == 1
    assert library.dense_merging(*[None] * 6, 3, 3, 1 << 24, 3, 1, *kernels) == 1
    refusing = SimpleNamespace(dense_features=lambda *_: 1, dense_merging=lambda *_: 1)
    monkeypatch.setattr(native, "_library", lambda: refusing)
    with pytest.raises(MemoryError, match="dense_features"):
        native.s6_features(torch.randn(4, 10), feature_weights(a_network(bands=10, piece=3)))
    with pytest.raises(MemoryError, match="dense_merging"):
        FusedMerging(a_merging(10), False).of_image(torch.randn(5, 5, 10), 3)


def test_the_environment_turns_the_library_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRALMAMBA_NATIVE", "0")
    native._library.cache_clear()
    network = a_network(bands=10, piece=3)
    try:
        assert not native.available()
        assert fused(network) is network
    finally:
        monkeypatch.undo()
        native._library.cache_clear()
    assert native.available()


@pytest.mark.skipif(sys.platform != "linux", reason="built without OpenMP")
def test_the_library_brings_no_second_openmp_runtime() -> None:
    paths = (Path(native.__file__).with_name(f"_native{suffix}") for suffix in EXTENSION_SUFFIXES)
    content = next(path for path in paths if path.exists()).read_bytes()
    assert b"GOMP_parallel" in content
    assert b"libgomp" not in content
