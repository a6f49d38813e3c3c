from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from spectralmamba.ops.selective_scan import native
from spectralmamba.ops.selective_scan.reference import selective_scan_reference

pytestmark = pytest.mark.skipif(
    not native.available(), reason="the native library is not built or SPECTRALMAMBA_NATIVE=0"
)

# Float32 rounds at 6e-8, and most errors are about 1e-7; steps that are all the same round the same way at every token,
# and exp(Δ A) of a large exponent has its rounding many times over.
TOLERANCE = 1e-5
NAMES = ("u", "delta", "A", "B", "C", "state")


@pytest.fixture(autouse=True)
def _new_memory_holds_nan(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "empty_like", lambda tensor: torch.full_like(tensor, math.nan))


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    # The loop of the definition has too little to do for threads, which wait long for each other on a busy machine.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_inputs(
    batch: int, tokens: int, channels: int, states: int, groups: int = 1, delta: float | None = None
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(batch + 10 * tokens + 1000 * channels + states)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "u": normal(batch, tokens, channels),
        "delta": normal(batch, tokens, channels).abs() / 2
        if delta is None
        else torch.full((batch, tokens, channels), delta),
        "A": -normal(groups, states, channels).exp(),
        "B": normal(batch, tokens, states),
        "C": normal(batch, tokens, states),
        "state": normal(batch, states, channels),
        "grad_y": normal(batch, tokens, channels),
        "grad_last": normal(batch, states, channels),
    }


def found_results(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    y, last = native.scan_forward(**{name: inputs[name] for name in NAMES})
    gradients = native.scan_backward(**inputs)
    return {"y": y, "last": last} | {f"∂{name}": g for name, g in zip(NAMES, gradients, strict=True)}


def exact_results(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same from the definition in float64, one part of the batch after the other."""
    leaves = {name: inputs[name].double().requires_grad_() for name in NAMES}
    groups, batch = leaves["A"].shape[0], leaves["u"].shape[0]
    results = []
    for group, A in enumerate(leaves["A"]):
        part = slice(group * batch // groups, (group + 1) * batch // groups)
        u, delta, B, C, state = (leaves[name][part] for name in ("u", "delta", "B", "C", "state"))
        results.append(selective_scan_reference(u, delta, A.mT, B, C, None, None, None, False, state.mT))
    y, last = (torch.cat(parts) for parts in zip(*results, strict=True))
    last = last.mT
    loss = (y * inputs["grad_y"]).sum() + (last * inputs["grad_last"]).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return {"y": y, "last": last} | {f"∂{name}": g for name, g in zip(NAMES, gradients, strict=True)}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape, name
        error = (found[name].double() - wanted).norm() / wanted.norm().clamp_min(1e-12)
        assert error <= TOLERANCE, f"{name}: relative error {error:.2e}"


@pytest.mark.parametrize(
    ("tokens", "channels_states", "batch_groups"),
    [
        *itertools.product(
            (0, 1, 2, 3, 24, 37, 145),
            ((1, 16), (3, 4), (8, 33), (32, 16), (100, 1), (200, 4)),
            ((1, 1), (5, 1), (5, 5), (6, 2)),
        ),
        *itertools.product((0, 24), ((3, 4), (32, 16)), ((0, 1), (0, 3))),
        (1000, (3, 4), (5, 1)),
        (1000, (200, 16), (1, 1)),
        (3, (20, 4), (35, 1)),  # more sequences than partial sums of ∂A
        (3, (20, 4), (150, 3)),
    ],
)
def test_values_and_every_gradient_agree_with_the_definition(
    tokens: int, channels_states: tuple[int, int], batch_groups: tuple[int, int]
):
    (channels, states), (batch, groups) = channels_states, batch_groups
    inputs = make_inputs(batch, tokens, channels, states, groups)
    assert_near(found_results(inputs), exact_results(inputs))


@pytest.mark.parametrize("delta", [0.0, 1e-8, 50.0])
def test_extreme_steps_stay_finite_and_agree_with_the_definition(delta: float):
    inputs = make_inputs(3, 70, 20, 16, delta=delta)
    found = found_results(inputs)
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert_near(found, exact_results(inputs))


@pytest.mark.parametrize("sizes", [(1, 300, 100, 16, 1), (64, 37, 40, 16, 2), (70, 25, 16, 33, 1)])
def test_results_have_the_same_bits_for_any_number_of_threads(sizes: tuple[int, int, int, int, int]):
    inputs = make_inputs(*sizes)
    expected = found_results(inputs)
    for threads in (2, 2, 3):
        torch.set_num_threads(threads)
        found = found_results(inputs)
        assert all(torch.equal(found[name], wanted) for name, wanted in expected.items())


def exponentials(x: Tensor) -> Tensor:
    """The library's exp, seen through one token that only lets a state of one decay."""
    ones = torch.ones(1, 1, x.numel())
    zero, one = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    y, last = native.scan_forward(ones, ones, x[None, None].contiguous(), zero, one, ones)
    assert torch.equal(y.isnan(), last.isnan())
    return last.flatten()


def test_the_exponential_is_right_to_two_units_in_the_last_place():
    x = torch.cat([torch.linspace(-87.33, 88.72, 1_000_001), -torch.logspace(-30, 1, 100_000)])
    exact = x.double().exp()
    unit = torch.exp2(exact.log2().floor() - 23)
    assert ((exponentials(x).double() - exact).abs() / unit).max() <= 2


@pytest.mark.parametrize("limit", [-126 * math.log(2), 128 * math.log(2)])
def test_the_exponential_just_inside_and_outside_of_what_float32_holds(limit: float):
    bits = torch.tensor(limit, dtype=torch.float32).view(torch.int32)
    x = (bits + torch.arange(-8, 9, dtype=torch.int32)).view(torch.float32)
    exact = x.double().exp()
    expected = torch.where(exact < 2.0**-126, 0, exact).float()
    assert torch.allclose(exponentials(x), expected, rtol=2.0**-22, atol=0)


def test_the_exponential_at_its_limits():
    inf, nan = math.inf, math.nan
    odd_nan = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32).item()
    x = torch.tensor([0.0, -0.0, -87.4, -104.0, -1e30, -inf, 88.73, 1e30, inf, nan, odd_nan])
    expected = torch.tensor([1, 1, 0, 0, 0, 0, inf, inf, inf, nan, nan])
    assert torch.allclose(exponentials(x), expected, rtol=0, atol=1.2e-38, equal_nan=True)


def test_nan_in_one_sequence_and_channel_stays_there():
    inputs = make_inputs(3, 5, 20, 4)
    inputs["u"][1, 2, 18] = math.nan
    y, last = native.scan_forward(**{name: inputs[name] for name in NAMES})
    expected = torch.zeros(3, 5, 20, dtype=torch.bool)
    expected[1, 2:, 18] = True
    assert torch.equal(y.isnan(), expected)
    assert torch.equal(last.isnan().any(1), expected[:, -1])


def test_inputs_are_left_as_they_are():
    inputs = make_inputs(3, 5, 20, 4)
    kept = {name: tensor.clone() for name, tensor in inputs.items()}
    found_results(inputs)
    assert all(torch.equal(inputs[name], tensor) for name, tensor in kept.items())


def test_a_tensor_of_another_dtype_or_layout_is_refused():
    inputs = make_inputs(3, 5, 20, 4)
    inputs = {name: inputs[name] for name in NAMES}
    for wrong in (inputs["u"].double(), inputs["u"].mT.contiguous().mT, inputs["u"][:, :4].contiguous()):
        with pytest.raises(AssertionError):
            native.scan_forward(**(inputs | {"u": wrong}))


def test_missing_memory_is_an_error(monkeypatch: pytest.MonkeyPatch):
    library = native._library()
    assert library is not None
    sizes = 1, 1, 1 << 55, 1, 1, 1
    assert library.scan_forward(*[None] * 8, *sizes) == 1
    assert library.scan_backward(*[None] * 14, *sizes) == 1
    monkeypatch.setattr(native, "_library", lambda: SimpleNamespace(scan_forward=lambda *_: 1))
    inputs = make_inputs(3, 5, 20, 4)
    with pytest.raises(MemoryError, match="scan_forward"):
        native.scan_forward(**{name: inputs[name] for name in NAMES})


def test_the_environment_turns_the_library_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPECTRALMAMBA_NATIVE", "0")
    native._library.cache_clear()
    try:
        assert not native.available()
    finally:
        monkeypatch.undo()
        native._library.cache_clear()
    assert native.available()


@pytest.mark.skipif(sys.platform != "linux", reason="built without OpenMP")
def test_the_library_brings_no_second_openmp_runtime():
    paths = (Path(native.__file__).with_name(f"_native{suffix}") for suffix in EXTENSION_SUFFIXES)
    content = next(path for path in paths if path.exists()).read_bytes()
    assert b"GOMP_parallel" in content
    assert b"libgomp" not in content
