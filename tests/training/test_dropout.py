from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from spectralmamba.training.dropout import GivenDropout


def numbers(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class Recorded(GivenDropout):
    """Gives each call other numbers, and keeps which calls there were."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, torch.Size]] = []
        super().__init__(self._given)

    def _given(self, call: int, shape: torch.Size) -> Tensor:
        self.calls.append((call, shape))
        return (numbers(*shape) + call / 2) % 1


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_values_are_dropped_where_the_number_is_below_p_and_scaled_elsewhere(p: float):
    x, uniform = inputs(4, 50), numbers(4, 50)
    uniform[0, 0] = p  # not below
    x.requires_grad_()
    with GivenDropout(lambda call, shape: uniform):
        found = dropout(x, p)
    expected = torch.where(uniform < p, 0, x / (1 - p))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # one rounding of float32 more or less
    assert torch.equal(found == 0, uniform < p)
    (slope,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(slope, (uniform >= p) / (1 - p), rtol=1e-6, atol=0)


def test_a_dropout_module_takes_the_numbers():
    x, uniform = inputs(6, 5), numbers(6, 5)
    network = nn.Sequential(nn.Identity(), nn.Dropout(0.4))
    with GivenDropout(lambda call, shape: uniform):
        found = network(x)
    assert torch.equal(found == 0, uniform < 0.4)


def test_calls_are_counted_from_zero_and_each_has_numbers_of_its_own():
    x = inputs(3, 4)
    with Recorded() as given:
        first, second, third = dropout(x, 0.5), dropout(x[:, :2], 0.5), nn.Dropout(0.5)(x)
    assert given.calls == [(0, torch.Size([3, 4])), (1, torch.Size([3, 2])), (2, torch.Size([3, 4]))]
    assert torch.equal(first, third)
    assert torch.equal(second == 0, numbers(3, 2) >= 0.5)
    with Recorded() as again:
        dropout(x, 0.5)
    assert [call for call, _ in again.calls] == [0]


def test_evaluation_and_a_share_of_zero_draw_nothing():
    x = inputs(3, 4)
    with Recorded() as given:
        assert torch.equal(nn.Dropout(0.5).eval()(x), x)
        assert torch.equal(dropout(x, 0.5, training=False), x)
        assert torch.equal(nn.Dropout(0.0)(x), x)
        assert given.calls == []
        dropout(x, 0.5)
    assert [call for call, _ in given.calls] == [0]


def test_a_share_of_one_drops_everything():
    x = inputs(3, 4).requires_grad_()
    with GivenDropout(lambda call, shape: torch.full(shape, 1 - 2**-24)):
        found = dropout(x, 1.0)
    assert torch.equal(found, torch.zeros(3, 4))
    (slope,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(slope, torch.zeros(3, 4))


def test_values_are_dropped_in_place_only_if_asked():
    x = inputs(3, 4)
    before, changed = x.clone(), x.clone()
    with GivenDropout(lambda call, shape: numbers(*shape)):
        expected = dropout(x, 0.5)
        assert torch.equal(x, before)
        found = nn.Dropout(0.5, inplace=True)(changed)
    assert found is changed
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_values_keep_their_precision_as_with_torchs_own_dropout(dtype: torch.dtype):
    x, uniform = inputs(3, 4).to(dtype), numbers(3, 4)
    with GivenDropout(lambda call, shape: uniform):
        found = dropout(x, 0.1)
    assert found.dtype == dropout(x, 0.1).dtype == dtype
    expected = torch.where(uniform < 0.1, 0, x.double() / 0.9)
    # Two roundings, of 1 / (1 − p) and of the product, to half the distance of neighbouring numbers each.
    torch.testing.assert_close(found.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_samples_in_vmap_are_dropped_as_in_calls_of_their_own():
    x, uniform = inputs(3, 4, 5), numbers(3, 4, 5)
    network = nn.Sequential(nn.Dropout(0.5), nn.Tanh())

    def passed(x: Tensor, uniform: Tensor) -> Tensor:
        with GivenDropout(lambda call, shape: uniform):
            return network(x)

    separate = torch.stack([passed(*sample) for sample in zip(x, uniform, strict=True)])
    assert torch.equal(torch.vmap(passed)(x, uniform), separate)
    assert len({tuple(mask.flatten().tolist()) for mask in separate == 0}) == 3


def test_outside_of_it_torch_drops_as_ever():
    x = inputs(30, 40)
    torch.manual_seed(0)
    expected = dropout(x, 0.5)
    with GivenDropout(lambda call, shape: torch.zeros(shape)):
        assert not dropout(x, 0.5).any()
        assert torch.equal(torch.relu(x), x.clamp(min=0))
    torch.manual_seed(0)
    assert torch.equal(dropout(x, 0.5), expected)
