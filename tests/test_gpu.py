from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy as copy_of
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scan_cases import OPTIONS, assert_near, make_inputs, poisoned, results

from spectralmamba import Settings, Split, create_model, fit, inference, list_models, open_scene
from spectralmamba.errors import TrainingInterrupted
from spectralmamba.inference import Precision, exact_convolutions
from spectralmamba.ops import selective_scan
from spectralmamba.ops.stacked import StackedLayers
from spectralmamba.training import Progress, fit_seeds, fitting

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


@pytest.mark.parametrize("patch", [1, 3, 7])
def test_a_map_on_a_gpu_is_that_of_the_networks_own_operations(
    data: Data, quick: Settings, patch: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inference, "_GPU_BLOCK", 16)
    classifier = fit(*data, quick, patch=patch, companion="none", device="cuda")
    fast = classifier.predict_proba(data[0]).values
    with monkeypatch.context() as plain:
        plain.setattr(inference, "fused", lambda network, half: network)
        slow = classifier.predict_proba(data[0]).values
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_tiles_change_no_bit_on_a_gpu(
    data: Data, quick: Settings, precision: Precision, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inference, "_GPU_BLOCK", 16)
    classifier = fit(*data, quick, patch=3, device="cuda")
    maps = []
    for size in (16, 32, 512):
        found = np.zeros((len(classifier.classes), *data[0].shape[1:]), np.float32)
        for tile in classifier.tiles(data[0], size=size, precision=precision):
            found[:, tile.rows, tile.columns] = tile.probabilities
        maps.append(found)
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


@pytest.mark.parametrize("interleave", ["bil", "bip", "bsq"])
def test_a_file_is_converted_by_a_gpu_to_the_same_bits(
    data: Data, quick: Settings, tmp_path: Path, interleave: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inference, "_GPU_BLOCK", 16)
    order = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}[interleave]
    raw = np.nan_to_num(data[0].values * 10_000, nan=-9999).astype("<i2")
    (tmp_path / "scene.raw").write_bytes(raw.transpose(order).tobytes())
    bands, lines, samples = raw.shape
    (tmp_path / "scene.hdr").write_text(
        f"ENVI\nsamples = {samples}\nlines = {lines}\nbands = {bands}\nheader offset = 0\ndata type = 2\n"
        f"interleave = {interleave}\nbyte order = 0\nreflectance scale factor = 10000\ndata ignore value = -9999\n"
    )
    scene = open_scene(tmp_path / "scene.hdr")
    scene["good"].values[:] = data[0]["good"].values
    classifier = fit(scene.copy().load(), data[1], data[2], quick, patch=3, device="cuda")
    seen = [
        np.concatenate([tile.probabilities.ravel() for tile in classifier.tiles(which, size=16)])
        for which in (scene, scene.copy().load())
    ]
    np.testing.assert_array_equal(*seen)


def test_labels_agree_in_float16(data: Data, quick: Settings):
    classifier = fit(*data, quick, patch=3, device="cuda")
    ids = [
        np.concatenate([tile.ids.ravel() for tile in classifier.tiles(data[0], precision=precision)])
        for precision in ("float32", "float16")
    ]
    assert (ids[0] == ids[1]).mean() > 0.995


def test_training_on_a_gpu_gives_the_same_file_twice(data: Data, quick: Settings, tmp_path: Path):
    files = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.safetensors"
        fit(*data, quick, device="cuda").save(path)
        files.append(path.read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("batch", "tokens", "channels", "states"),
    [
        (1, 1, 1, 1),
        (5, 2, 3, 4),
        (5, 3, 32, 33),
        (8193, 24, 128, 16),
        (5, 37, 200, 16),
        (64, 145, 128, 16),
        (1, 1000, 32, 4),
        (5, 1000, 200, 1),
        (1, 4097, 128, 16),
    ],
)
def test_the_kernels_agree_with_the_definition(batch: int, tokens: int, channels: int, states: int, dtype: torch.dtype):
    inputs = make_inputs(batch, tokens, channels, states, dtype)
    on_gpu = {name: tensor.detach().cuda() for name, tensor in inputs.items()}
    exact = results({name: tensor.double() for name, tensor in on_gpu.items()}, "reference")
    kernels = pytest.importorskip("spectralmamba.ops.selective_scan.triton", reason="triton is not installed")
    with poisoned(kernels):
        found = results(on_gpu, "triton")
    # Rounded twice in low precision: y, and y SiLU(z).
    assert_near(found, exact, {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype])


@pytest.mark.parametrize("given", [(), ("D",), ("z", "delta_bias"), ("initial_state",)], ids="+".join)
@pytest.mark.parametrize("softplus", [True, False])
def test_the_kernels_options_agree_with_the_definition(given: tuple[str, ...], softplus: bool):
    inputs = {
        name: tensor.detach().cuda()
        for name, tensor in make_inputs(7, 24, 64, 16, torch.float32).items()
        if name not in OPTIONS or name in given
    }
    exact = results({name: tensor.double() for name, tensor in inputs.items()}, "reference", softplus=softplus)
    assert_near(results(inputs, "triton", softplus=softplus), exact, 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1e-8, 50.0])
def test_the_kernels_stay_finite_for_extreme_steps(delta: float):
    inputs = {name: tensor.detach().cuda() for name, tensor in make_inputs(4, 24, 32, 16, torch.float32).items()}
    inputs["delta"] = torch.full_like(inputs["delta"], delta)
    del inputs["delta_bias"]
    found = results(inputs, "triton", softplus=False)
    assert all(tensor.isfinite().all() for tensor in found.values())
    exact = results({name: tensor.double() for name, tensor in inputs.items()}, "reference", softplus=False)
    assert_near(found, exact, 1e-5)


def test_the_kernels_take_strided_inputs_and_give_the_same_bits_every_time():
    inputs = {name: tensor.detach().cuda() for name, tensor in make_inputs(300, 37, 64, 16, torch.float32).items()}
    first, second = results(inputs, "triton"), results(inputs, "triton")
    assert all(torch.equal(first[name], second[name]) for name in first)
    transposed = {name: tensor.mT.contiguous().mT for name, tensor in inputs.items() if tensor.dim() > 1}
    assert_near(results(inputs | transposed, "triton"), first, 1e-6)


def test_auto_takes_the_kernels_compiled_or_not_and_falls_back_from_what_they_cannot_do():
    inputs = {name: tensor.detach().cuda() for name, tensor in make_inputs(3, 5, 64, 16, torch.float32).items()}
    expected = selective_scan(**inputs, backend="triton")
    assert torch.equal(selective_scan(**inputs), expected)
    # The compiler rounds SiLU(z) differently.
    assert_near({"y": torch.compile(selective_scan, fullgraph=True)(**inputs)}, {"y": expected}, 1e-6)
    wide = {name: tensor.detach().cuda() for name, tensor in make_inputs(3, 5, 8, 65, torch.float32).items()}
    with pytest.warns(RuntimeWarning, match="65 states"):
        found = results(wide, "auto")
    assert_near(found, results(wide, "reference"), 1e-5)
    double = {name: tensor.double() for name, tensor in inputs.items()}
    assert_near(results(double, "auto"), results(double, "reference"), 1e-12)


def test_one_training_step_is_that_of_the_cpu():
    torch.manual_seed(0)
    network = create_model("spectral_mamba", bands=30, classes=4, patch=3)
    network.dropout.p = 0.0
    batch, targets = torch.randn(64, 30, 3, 3), torch.randint(4, (64,))
    found = []
    for device in ("cpu", "cuda"):
        copy = copy_of(network).to(device)
        with exact_convolutions():
            logits = copy(batch.to(device))
            torch.nn.functional.cross_entropy(logits, targets.to(device)).backward()
        found.append({"logits": logits} | {f"∂{name}": p.grad for name, p in copy.named_parameters()})
    on_cpu, on_gpu = ({name: tensor.detach().cpu() for name, tensor in each.items()} for each in found)
    assert_near(on_gpu, on_cpu, 1e-4)


@pytest.mark.parametrize("rare_classes", ["as drawn", "balanced loss", "logit adjustment", "prior correction"])
def test_seeds_trained_together_are_each_as_alone_and_as_on_the_cpu(data: Data, quick: Settings, rare_classes: str):
    scene, labels, split = data
    splits, settings = {0: split, 7: None}, quick.replace(rare_classes=rare_classes)
    together = fit_seeds(scene, labels, splits, settings, device="cuda")
    for seed, classifier in together.items():
        for device in ("cuda", "cpu"):
            alone = fit(scene, labels, splits[seed], settings, seed=seed, device=device)
            found, expected = (
                {name: tensor.detach().cpu() for name, tensor in each.network.named_parameters()}
                for each in (classifier, alone)
            )
            # Six steps, each of which adds up float32 in another order.
            assert_near(found, expected, 1e-4)


BASELINES = [name for name in list_models() if name != "spectral_mamba"]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_trains_and_maps_on_a_gpu_as_on_the_cpu(data: Data, quick: Settings, name: str):
    settings = quick.replace(model=name, steps=3, companion="none", set_coverage=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        on_gpu = fit_seeds(*data[:2], {0: data[2], 7: data[2]}, settings, device="cuda")
    alone = [
        str(warning.message) for warning in caught if "one seed and one kernel after the other" in str(warning.message)
    ]
    assert bool(alone) == (name in ("cas_rnn", "cnn2d", "gru", "lstm")), alone
    for seed, classifier in on_gpu.items():
        on_cpu = fit(*data, settings, seed=seed, device="cpu")
        expected = on_cpu.predict_proba(data[0]).values
        # Three steps of AdamW, whose first moves each weight by the rate whatever the rounding of its gradient.
        np.testing.assert_allclose(classifier.predict_proba(data[0]).values, expected, rtol=0, atol=1e-2)


def test_a_recorded_training_goes_on_from_its_checkpoint_to_the_same_file(
    data: Data, quick: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY", 4)

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    files = []
    for name in ("unbroken", "resumed"):
        if name == "resumed":
            with pytest.raises(TrainingInterrupted):
                fit(*data, quick, device="cuda", checkpoint=checkpoint, on_step=stop)
        resume = checkpoint.is_file()
        fit(*data, quick, device="cuda", checkpoint=checkpoint, resume=resume).save(tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("bands", [20, 33])
def test_stacked_layers_agree_with_torchs_own(bands: int):
    generator = torch.Generator().manual_seed(0)
    network = create_model("spectral_mamba", bands=bands, classes=3, patch=5).cuda().eval()
    weights = {
        name: torch.stack([tensor.detach(), tensor.detach() * 1.1]) for name, tensor in network.named_parameters()
    }
    batch = torch.randn(2, 9, bands, 5, 5, generator=generator).cuda()

    def logits(layers: AbstractContextManager[object]) -> dict[str, torch.Tensor]:
        learned = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
        with exact_convolutions(), layers:
            found = torch.vmap(lambda w, x: torch.func.functional_call(network, w, (x,)))(learned, batch)
        gradients = torch.autograd.grad(found.square().sum(), list(learned.values()))
        return {"logits": found.detach()} | dict(zip(learned, gradients, strict=True))

    assert_near(logits(StackedLayers()), logits(nullcontext()), 1e-5)
