from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch
from scan_cases import EXACT, OPTIONS, assert_near, make_inputs, results
from torch import Tensor

from spectralmamba.errors import ModelError
from spectralmamba.ops import from_mamba_ssm, selective_scan
from spectralmamba.ops.selective_scan import portable


@pytest.mark.parametrize(
    ("tokens", "channels", "states", "batch"),
    list(itertools.product((1, 2, 3, 24, 37), (1, 3, 32), (1, 4, 16), (1, 5))),
)
def test_values_and_every_gradient_agree_with_the_definition(tokens: int, channels: int, states: int, batch: int):
    inputs = make_inputs(batch, tokens, channels, states)
    assert_near(results(inputs, "torch"), results(inputs, "reference"), EXACT)


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize(
    "given", [chosen for count in range(5) for chosen in itertools.combinations(OPTIONS, count)], ids="+".join
)
def test_every_combination_of_options_agrees_with_the_definition(given: tuple[str, ...], softplus: bool):
    inputs = {name: tensor for name, tensor in make_inputs().items() if name not in OPTIONS or name in given}
    found, expected = (results(inputs, backend, softplus=softplus) for backend in ("torch", "reference"))
    assert_near(found, expected, EXACT)


@pytest.mark.parametrize(("batch", "tokens"), [(0, 5), (2, 0)])
def test_an_empty_batch_or_sequence_gives_empty_output_and_gradients_of_the_right_shape(batch: int, tokens: int):
    inputs = make_inputs(batch, tokens)
    found = results(inputs, "torch")
    assert_near(found, results(inputs, "reference"), EXACT)
    assert found["y"].shape == (batch, tokens, 3)
    assert found["∂A"].abs().max() == 0


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # Inside all is float32, so what is left is the rounding of results: half a unit in the last of 8, 11 or 24 bits.
    [(torch.bfloat16, 2**-8), (torch.float16, 2**-11), (torch.float32, 1e-6)],
)
def test_low_precision_inputs_lose_no_more_than_the_rounding_of_the_result(dtype: torch.dtype, tolerance: float):
    inputs = make_inputs(3, 24, 8, 16, dtype)
    exact = results({name: tensor.double() for name, tensor in inputs.items()}, "reference")
    for backend in ("torch", "reference"):
        found = results(inputs, backend)
        assert_near(found, exact, tolerance)
        assert found["y"].dtype == dtype
        assert found["final state"].dtype == torch.float32
        assert all(found[f"∂{name}"].dtype == dtype for name in inputs)


def test_inputs_need_not_be_contiguous():
    inputs = make_inputs()
    strided = {name: torch.stack([tensor, tensor * 0], -1)[..., 0] for name, tensor in inputs.items()}
    transposed = {name: tensor.mT.contiguous().mT for name, tensor in inputs.items() if tensor.dim() > 1}
    expected = results(inputs, "reference")
    assert not any(tensor.is_contiguous() for tensor in strided.values())
    assert_near(results(strided, "torch"), expected, EXACT)
    assert_near(results(inputs | transposed, "torch"), expected, EXACT)


def test_gradients_are_those_of_finite_differences():
    inputs = make_inputs(batch=2, tokens=3, channels=2, states=2)

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(inputs, tensors, strict=True))
        return selective_scan(**named, delta_softplus=True, return_final_state=True, backend="torch")

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()))


def test_a_graph_that_is_kept_gives_the_same_gradient_again():
    inputs = make_inputs()
    loss = selective_scan(**inputs, backend="torch").square().sum()
    first = torch.autograd.grad(loss, list(inputs.values()), retain_graph=True)
    second = torch.autograd.grad(loss, list(inputs.values()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("delta", [0.0, 1e-8, 50.0])
def test_extreme_steps_stay_finite_and_agree_with_the_definition(delta: float):
    inputs = make_inputs(tokens=24)
    inputs["delta"] = torch.full_like(inputs["delta"], delta)
    del inputs["delta_bias"]
    found = results(inputs, "torch", softplus=False)
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert_near(found, results(inputs, "reference", softplus=False), EXACT)
    in_float32 = results({name: tensor.float() for name, tensor in inputs.items()}, "torch", softplus=False)
    assert all(tensor.isfinite().all() for tensor in in_float32.values())


@pytest.mark.parametrize("piece", [1, 30, 1 << 18])
def test_without_gradients_the_result_is_the_same_in_pieces_of_any_size(monkeypatch: pytest.MonkeyPatch, piece: int):
    monkeypatch.setattr(portable, "_PIECE", piece)
    inputs = make_inputs(batch=7, tokens=5)
    kept = {name: tensor.detach().clone() for name, tensor in inputs.items()}
    with torch.no_grad():
        y, state = selective_scan(**inputs, delta_softplus=True, return_final_state=True)
    with_gradients = results(inputs, "torch")
    expected = {name: with_gradients[name] for name in ("y", "final state")}
    assert_near({"y": y, "final state": state}, expected, EXACT)
    assert not y.requires_grad
    assert all(torch.equal(inputs[name], kept[name]) for name in inputs)


def test_a_sequence_cut_in_two_goes_on_from_the_state_of_its_first_part():
    inputs = {name: tensor.detach() for name, tensor in make_inputs(tokens=7).items()}
    whole, end = selective_scan(**inputs, return_final_state=True)
    timed = ("u", "delta", "B", "C", "z")
    first = inputs | {name: inputs[name][:, :3] for name in timed}
    y, state = selective_scan(**first, return_final_state=True)
    second = inputs | {name: inputs[name][:, 3:] for name in timed} | {"initial_state": state}
    y_rest, state = selective_scan(**second, return_final_state=True)
    assert_near({"y": torch.cat([y, y_rest], 1), "state": state}, {"y": whole, "state": end}, EXACT)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_two_tokens_by_hand(backend: str):
    # exp(Δ A) = ½. h₁ = 1·3·1 = 3, y₁ = 2·3 + 10·1 = 16; h₂ = 3/2 + 1·1·2 = 3.5, y₂ = −3.5 + 10·2 = 16.5.
    column = [torch.tensor(values, dtype=torch.float64).view(1, 2, 1) for values in ([1, 2], [1, 1], [3, 1], [2, -1])]
    u, delta, B, C = column
    A, D = torch.tensor([[0.5]], dtype=torch.float64).log(), torch.tensor([10.0], dtype=torch.float64)
    y, state = selective_scan(u, delta, A, B, C, D, return_final_state=True, backend=backend)
    assert y.flatten().tolist() == pytest.approx([16, 16.5], rel=1e-15)
    assert state.item() == pytest.approx(3.5, rel=1e-15)


@pytest.mark.parametrize("name", ["delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"])
def test_a_wrong_shape_is_refused_with_the_name_of_the_tensor(name: str):
    inputs = make_inputs()
    inputs[name] = torch.cat([inputs[name], inputs[name]])
    with pytest.raises(ModelError, match=f"^{name} does not fit"):
        selective_scan(**inputs)


def test_inputs_of_other_dimensions_and_unknown_backends_are_refused():
    inputs = make_inputs()
    with pytest.raises(ModelError, match="takes u"):
        selective_scan(**(inputs | {"u": inputs["u"][0]}))
    with pytest.raises(ModelError, match="unknown selective scan backend"):
        selective_scan(**inputs, backend="fast")  # pyright: ignore


def test_a_second_derivative_is_refused_rather_than_wrong():
    inputs = make_inputs()
    y = selective_scan(**inputs, backend="torch")
    (gradient,) = torch.autograd.grad(y.square().sum(), inputs["u"], create_graph=True)
    with pytest.raises(ModelError, match="differentiated once only"):
        gradient.sum().backward()


def test_arguments_in_mamba_ssms_layout_give_the_same_scan():
    inputs = {name: tensor for name, tensor in make_inputs().items() if name != "initial_state"}
    other = {name: tensor.mT if tensor.dim() == 3 else tensor for name, tensor in inputs.items()}
    other["B"] = other["B"][:, None]
    assert torch.equal(selective_scan(**from_mamba_ssm(**other)), selective_scan(**inputs))
    with pytest.raises(ModelError, match=r"^B is not of a kind"):
        from_mamba_ssm(**(other | {"B": inputs["A"]}))


def test_the_pages_examples_run():
    page = Path(__file__).parents[2] / "docs" / "selective_scan.md"
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    turned = names["y"]
    expected = selective_scan(*(names[name] for name in ("u", "delta", "A", "B", "C")), delta_softplus=True)
    assert torch.equal(turned.mT, expected)
