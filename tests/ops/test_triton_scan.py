"""The Triton kernels, on the CPU by Triton's interpreter; tests/test_gpu.py runs them on a GPU."""

from __future__ import annotations

import pytest
import torch
from scan_cases import OPTIONS, assert_near, make_inputs, poisoned, results

if torch.cuda.is_available():
    pytest.skip("the kernels are compiled where there is a GPU", allow_module_level=True)
pytest.importorskip("triton", reason="triton is not installed")

from spectralmamba.errors import ModelError
from spectralmamba.ops import selective_scan
from spectralmamba.ops.selective_scan import operator
from spectralmamba.ops.selective_scan import triton as kernels
from spectralmamba.ops.selective_scan.operator import selective_scan_in_groups

TOLERANCE = 1e-5  # relative; float32 against float64


def assert_right(inputs: dict[str, torch.Tensor], *, softplus: bool = True) -> None:
    exact = results({name: tensor.double() for name, tensor in inputs.items()}, "reference", softplus=softplus)
    with poisoned(kernels):
        found = results(inputs, "triton", softplus=softplus)
    assert_near(found, exact, TOLERANCE)


@pytest.mark.parametrize(
    ("batch", "tokens", "channels", "states"),
    [(1, 1, 1, 1), (3, 2, 3, 4), (9, 3, 33, 16), (2, 24, 32, 4), (1, 5, 200, 33), (5, 6, 64, 1)],
)
def test_values_and_every_gradient_agree_with_the_definition(batch: int, tokens: int, channels: int, states: int):
    assert_right(make_inputs(batch, tokens, channels, states, torch.float32))


@pytest.mark.parametrize("given", [(), ("D",), ("z", "delta_bias"), ("initial_state",), OPTIONS], ids="+".join)
@pytest.mark.parametrize("softplus", [True, False])
def test_options_agree_with_the_definition(given: tuple[str, ...], softplus: bool):
    inputs = make_inputs(dtype=torch.float32)
    kept = {name: tensor for name, tensor in inputs.items() if name not in OPTIONS or name in given}
    assert_right(kept, softplus=softplus)


def test_long_sequences_are_cut_and_carried_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "_SHORTEST_CHUNK", 3)
    monkeypatch.setattr(kernels, "_LONGEST_CHUNK", 5)
    assert_right(make_inputs(1, 23, 4, 3, torch.float32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_loses_no_more_than_the_rounding_of_the_result(dtype: torch.dtype):
    inputs = make_inputs(2, 5, 8, 4, dtype)
    exact = results({name: tensor.double() for name, tensor in inputs.items()}, "reference")
    # Rounded twice: y, and y SiLU(z).
    assert_near(results(inputs, "triton"), exact, 2**-7 if dtype == torch.bfloat16 else 2**-10)


@pytest.mark.parametrize("delta", [0.0, 1e-8, 50.0])
def test_extreme_steps_stay_finite(delta: float):
    inputs = make_inputs(dtype=torch.float32)
    inputs["delta"] = torch.full_like(inputs["delta"], delta)
    del inputs["delta_bias"]
    found = results(inputs, "triton", softplus=False)
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert_right(inputs, softplus=False)


def test_inputs_need_not_be_contiguous():
    inputs = make_inputs(dtype=torch.float32)
    exact = results({name: tensor.double() for name, tensor in inputs.items()}, "reference")
    transposed = {name: tensor.mT.contiguous().mT for name, tensor in inputs.items() if tensor.dim() > 1}
    wide = {name: torch.cat([tensor, tensor], -1)[..., : tensor.shape[-1]] for name, tensor in inputs.items()}
    for strided in (inputs | transposed, wide):
        assert_near(results(strided, "triton"), exact, TOLERANCE)
    spread = inputs | {name: inputs[name][:1].expand_as(inputs[name]) for name in ("u", "delta", "B", "C", "z")}
    assert_right(spread)


def test_groups_and_their_sums():
    inputs = make_inputs(6, 4, 5, 3, torch.float32)
    tensors = [inputs[name].detach() for name in ("u", "delta", "A", "B", "C", "D", "delta_bias")]
    for index in (2, 5, 6):
        tensors[index] = torch.stack([tensors[index], tensors[index] * 2])
    found, expected = [], []
    for backend, values in (("triton", found), ("torch", expected)):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        y, last = selective_scan_in_groups(*leaves, True, None, True, backend)
        values += [y, last, *torch.autograd.grad(y.square().sum() + last.sum(), leaves)]
    names = "y", "last", "∂u", "∂delta", "∂A", "∂B", "∂C", "∂D", "∂bias"
    assert_near(dict(zip(names, found, strict=True)), dict(zip(names, expected, strict=True)), TOLERANCE)


def test_what_the_kernels_cannot_do_is_refused_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ModelError, match="float64"):
        selective_scan(**make_inputs(), backend="triton")
    with pytest.raises(ModelError, match="65 states"):
        selective_scan(**make_inputs(states=65, dtype=torch.float32), backend="triton")
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    with pytest.raises(ModelError, match="tensors are on cpu"):
        selective_scan(**make_inputs(dtype=torch.float32), backend="triton")


def test_the_self_check_passes_for_right_kernels_and_finds_wrong_ones(monkeypatch: pytest.MonkeyPatch):
    with torch.inference_mode():  # as a classifier's first map calls it
        operator._self_check(kernels, torch.device("cpu"))
    right = kernels.backward
    monkeypatch.setattr(kernels, "backward", lambda *arguments: tuple(1.01 * grad for grad in right(*arguments)))
    with pytest.raises(RuntimeError, match=r"∂u is off by 1\.0e-02"):
        operator._self_check(kernels, torch.device("cpu"))
