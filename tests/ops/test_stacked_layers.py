from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scan_cases import assert_near
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("triton", reason="triton is not installed")

from spectralmamba.ops.stacked import StackedLayers

Layer = Callable[..., Tensor]
CASES: dict[str, tuple[Layer, list[tuple[int, ...]]]] = {
    "linear": (F.linear, [(4, 7, 5), (6, 5), (6,)]),
    "linear without bias": (F.linear, [(8, 5), (6, 5)]),
    "depthwise 3 × 3": (lambda *t: F.conv2d(*t, padding=1, groups=12), [(4, 12, 7, 7), (12, 1, 3, 3), (12,)]),
    "depthwise of odd width": (
        lambda *t: F.conv2d(*t, padding=(0, 2), groups=70),
        [(3, 70, 3, 9), (70, 1, 2, 5), (70,)],
    ),
    "depthwise without bias": (lambda *t: F.conv2d(*t, groups=5), [(2, 5, 4, 4), (5, 1, 3, 2)]),
    "depthwise of a sequence": (lambda *t: F.conv1d(*t, padding=3, groups=10), [(4, 10, 9), (10, 1, 4), (10,)]),
    "pointwise": (F.conv2d, [(4, 10, 5, 5), (6, 10, 1, 1), (6,)]),
    "pointwise of a sequence": (F.conv1d, [(4, 10, 9), (12, 10, 1), (12,)]),
    "layer normalisation": (lambda x, *t: F.layer_norm(x, (33,), *t), [(4, 9, 33), (33,), (33,)]),
    "layer normalisation of one row": (lambda x, *t: F.layer_norm(x, (5,), *t), [(1, 5), (5,), (5,)]),
    "full convolution": (lambda *t: F.conv2d(*t, padding=1), [(4, 10, 5, 5), (6, 10, 3, 3), (6,)]),
    "strided": (lambda *t: F.conv2d(*t, padding=1, groups=10, stride=2), [(4, 10, 5, 5), (10, 1, 3, 3), (10,)]),
    "dilated": (lambda *t: F.conv2d(*t, groups=10, dilation=2), [(4, 10, 6, 6), (10, 1, 3, 3), (10,)]),
    "padding in words": (
        lambda *t: F.conv2d(*t, padding="same", groups=10),
        [(4, 10, 5, 5), (10, 1, 3, 3), (10,)],
    ),
    "more channels out than in": (lambda *t: F.conv2d(*t, groups=4), [(2, 4, 5, 5), (8, 1, 3, 3), (8,)]),
    "layer normalisation over two dimensions": (
        lambda x, *t: F.layer_norm(x, (3, 4), *t),
        [(2, 3, 4), (3, 4), (3, 4)],
    ),
}


def make(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(shapes[0]))
    return [torch.randn(3, *shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def results(found: Tensor, inputs: list[Tensor]) -> dict[str, Tensor]:
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((found * weights).sum(), inputs)
    return {"output": found.detach()} | {f"gradient {number}": each for number, each in enumerate(gradients)}


@pytest.mark.parametrize("name", CASES)
def test_layers_of_several_networks_are_each_torchs_own(name: str):
    layer, shapes = CASES[name]
    inputs = make(shapes)
    with StackedLayers():
        together = torch.vmap(layer)(*inputs)
    alone = torch.stack([layer(*(tensor[number] for tensor in inputs)) for number in range(3)])
    # float32 sums of up to some hundred terms in another order
    assert_near(results(together, inputs), results(alone, inputs), 1e-5)


@pytest.mark.parametrize("name", ["linear", "depthwise 3 × 3", "layer normalisation"])
def test_a_layer_of_one_network_is_torchs_own(name: str):
    layer, shapes = CASES[name]
    inputs = [tensor[0].detach().requires_grad_() for tensor in make(shapes)]
    with StackedLayers():
        found = layer(*inputs)
    assert_near(results(found, inputs), results(layer(*inputs), inputs), 1e-5)


def test_other_precisions_are_left_to_torch():
    inputs = make([(4, 7, 5), (6, 5), (6,)], torch.float64)
    with StackedLayers():
        found = torch.vmap(F.linear)(*inputs)
    assert found.dtype == torch.float64
    assert torch.equal(found, torch.vmap(F.linear)(*inputs))


def test_a_long_sum_is_divided_into_equal_parts(monkeypatch: pytest.MonkeyPatch):
    from spectralmamba.ops import stacked

    seen: list[Any] = []
    parts = stacked._parts
    monkeypatch.setattr(stacked, "_parts", lambda *sizes: seen.append((sizes, parts(*sizes))) or parts(*sizes))
    inputs = make([(40, 7, 5), (6, 5), (6,)])
    with StackedLayers():
        found = torch.vmap(F.linear)(*inputs)
    assert_near(results(found, inputs), results(torch.vmap(F.linear)(*inputs), inputs), 1e-5)
    ((_, rows), count) = seen[0]
    assert count > 1
    assert rows % count == 0
