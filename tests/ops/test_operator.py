from __future__ import annotations

import warnings

import pytest
import torch
from scan_cases import EXACT, assert_near, make_inputs
from torch import Tensor
from torch.library import opcheck

from spectralmamba.ops import selective_scan
from spectralmamba.ops.selective_scan import operator
from spectralmamba.ops.selective_scan.operator import scan, scan_backward, selective_scan_in_groups

ORDER = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def grouped(dtype: torch.dtype = torch.float64, groups: int = 1) -> list[Tensor]:
    """The operator's tensors: as `selective_scan`'s, A, D and bias for each group."""
    inputs = make_inputs(batch=2 * groups, dtype=dtype)
    tensors = [inputs[name].detach() for name in ORDER]
    for index, name in enumerate(ORDER):
        if name in ("A", "D", "delta_bias"):
            tensors[index] = torch.stack([tensors[index] * (1 + group) for group in range(groups)])
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("final_state", [True, False])
@pytest.mark.parametrize("options", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_operators_keep_to_torchs_rules(final_state: bool, options: bool, dtype: torch.dtype):
    *tensors, D, bias = (tensor.detach() for tensor in grouped(dtype))
    state = make_inputs(dtype=dtype)["initial_state"].detach()
    extra = (D, bias, True, state) if options else (None, None, False, None)
    opcheck(scan, (*tensors, *extra, final_state, "torch"))
    opcheck(scan_backward, (tensors[0], state if final_state else None, *tensors, *extra, "torch"))


def test_groups_have_an_a_a_skip_and_a_bias_each():
    u, delta, A, B, C, D, bias = grouped(groups=3)
    y, last = selective_scan_in_groups(u, delta, A, B, C, D, bias, True, None, True, "torch")
    gradients = torch.autograd.grad(y.square().sum() + last.sum(), [u, A, D, bias])
    parts = []
    for group in range(3):
        own = slice(2 * group, 2 * group + 2)
        leaves = [tensor.detach().requires_grad_() for tensor in (u[own], A[group], D[group], bias[group])]
        y_, last_ = selective_scan(
            leaves[0], delta[own], leaves[1], B[own], C[own], leaves[2], delta_bias=leaves[3], delta_softplus=True,
            return_final_state=True, backend="reference",
        )  # fmt: skip
        parts.append((y_, last_, *torch.autograd.grad(y_.square().sum() + last_.sum(), leaves)))
    y_, last_, grad_u, grad_A, grad_D, grad_bias = zip(*parts, strict=True)
    expected = {
        "y": torch.cat(y_),
        "last": torch.cat(last_),
        "∂u": torch.cat(grad_u),
        "∂A": torch.stack(grad_A),
        "∂D": torch.stack(grad_D),
        "∂bias": torch.stack(grad_bias),
    }
    assert_near(dict(zip(expected, (y, last, *gradients), strict=True)), expected, EXACT)


def test_compiling_breaks_no_graph_and_changes_nothing():
    inputs = make_inputs(dtype=torch.float32)

    def loss(*tensors: Tensor) -> Tensor:
        named = dict(zip(inputs, tensors, strict=True))
        y, state = selective_scan(**named, delta_softplus=True, return_final_state=True)
        return y.square().sum() + state.sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for call in (compiled, loss):
        found = call(*inputs.values())
        gradients = torch.autograd.grad(found, list(inputs.values()))
        if call is compiled:
            kept = found, gradients
    assert_near({"loss": kept[0]}, {"loss": found}, 1e-6)
    assert_near(
        dict(zip(inputs, kept[1], strict=True)), dict(zip(inputs, gradients, strict=True)), 1e-6
    )  # the same kernels, other sums around them


@pytest.mark.parametrize("mapped", ["all", "u", "A", "u and D"])
def test_vmap_is_a_loop(mapped: str):
    names = list(make_inputs()) if mapped == "all" else mapped.split(" and ")
    several = {name: torch.stack([make_inputs(seed=seed)[name].detach() for seed in range(3)]) for name in names}
    inputs = {name: several.get(name, tensor.detach()) for name, tensor in make_inputs().items()}
    dims = tuple(0 if name in several else None for name in inputs)

    def loss(*tensors: Tensor) -> Tensor:
        named = dict(zip(inputs, tensors, strict=True))
        y, state = selective_scan(**named, delta_softplus=True, return_final_state=True)
        return y.square().sum() + state.sum()

    every = tuple(range(len(inputs)))
    found = torch.vmap(torch.func.grad(loss, every), dims)(*inputs.values())
    for index in range(3):
        one = [tensor if dim is None else tensor[index] for tensor, dim in zip(inputs.values(), dims, strict=True)]
        expected = torch.func.grad(loss, every)(*one)
        assert_near(
            {name: gradient[index] for name, gradient in zip(inputs, found, strict=True)},
            dict(zip(inputs, expected, strict=True)),
            EXACT,
        )


def test_under_autocast_the_state_stays_float32():
    inputs = make_inputs(dtype=torch.float32, channels=8)
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        u = inputs["u"] @ weight
        y, state = selective_scan(**(inputs | {"u": u}), return_final_state=True)
    assert (u.dtype, y.dtype, state.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    y.float().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.dtype == torch.float32 for tensor in inputs.values())


def test_a_kernel_that_cannot_be_had_is_told_once_and_done_without(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr(operator, "_self_check", broken)
    operator.triton_kernels.cache_clear()
    operator._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="falls back .* no compiler"):
        assert operator.triton_kernels(torch.device("cpu")) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert operator.triton_kernels(torch.device("cpu")) is None
    operator.triton_kernels.cache_clear()
