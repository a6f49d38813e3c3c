from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from spectralmamba.models import create_model, model_size
from spectralmamba.models.spectral_mamba import S6Block, SelectiveScan


def published(patch: int) -> nn.Module:
    """The paper's network on its scene of 145 bands and 14 classes."""
    return create_model("spectral_mamba", bands=145, classes=14, patch=patch, preset="paper")


@pytest.mark.parametrize(("patch", "parameters", "operations"), [(1, 12_330, 365_000), (3, 34_960, 566_000)])
def test_the_paper_preset_stays_within_the_published_size(patch: int, parameters: int, operations: int):
    size = model_size(published(patch), 145, patch)
    assert size.parameters <= parameters
    assert size.multiply_accumulates <= operations


@pytest.mark.parametrize(
    ("gate", "parameters", "operations"),
    [
        ("position", 9 * 145 + 145 + 145**2 + 145, 49 * (9 * 145 + 145**2)),
        ("shared", 9 * 145 + 145 + 145**2 + 145, 9 * 145 + 145**2),
    ],
)
def test_a_gate_costs_its_convolutions(gate: str, parameters: int, operations: int):
    pixelwise = model_size(published(1), 145, 1)
    size = model_size(create_model("spectral_mamba", bands=145, classes=14, patch=7, preset="paper", gate=gate), 145, 7)
    assert size.parameters - pixelwise.parameters == parameters
    assert size.multiply_accumulates - pixelwise.multiply_accumulates == operations


@pytest.mark.parametrize("gate", ["position", "shared"])
@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("patch", [1, 3])
def test_all_but_the_scan_is_what_fvcore_counts(patch: int, preset: str, gate: str):
    """fvcore calls a multiply-accumulate one flop, does not see inside the scan's own autograd function, and adds five operations
    a value for each layer norm, which is element-wise work and not counted here.
    """
    model = create_model("spectral_mamba", bands=145, classes=14, patch=patch, preset=preset, gate=gate).eval()
    blocks = [module for module in model.modules() if isinstance(module, S6Block)]
    scans = sum(SelectiveScan.multiply_accumulates(25, block.D.numel(), block.states) for block in blocks)
    shape = (1, 145) if patch == 1 else (1, 145, patch, patch)
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    analysis = (
        FlopCountAnalysis(model, torch.zeros(shape)).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    )
    by_operator: dict[str, Any] = dict(analysis.by_operator())
    by_operator.pop("layer_norm")
    assert model_size(model, 145, patch).multiply_accumulates - scans == sum(by_operator.values())


def test_the_formula_of_the_scan_is_the_count_of_an_explicit_loop():
    tokens, channels, states = 3, 2, 4
    operations = 0

    def multiply(a: float, b: float) -> float:
        nonlocal operations
        operations += 1
        return a * b

    for _ in range(tokens):
        for _ in range(channels):
            driven = multiply(0.5, 1.0)  # Δ u
            y = 0.0
            for _ in range(states):
                exponent = multiply(0.5, -1.0)  # Δ A
                added = multiply(driven, 1.0)  # (Δ u) B
                h = added + multiply(exponent, 0.0)  # decay · h + …
                y += multiply(h, 1.0)  # C · h
            y += multiply(1.0, 1.0)  # D u
    assert operations == SelectiveScan.multiply_accumulates(tokens, channels, states)


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
@pytest.mark.parametrize(
    ("layers", "directions", "matrices"),
    [
        (1, 1, 6 * (1 + 6)),  # of one gate: hidden × (input + hidden)
        (2, 1, 6 * (1 + 6) + 6 * (6 + 6)),
        (2, 2, 2 * (6 * (1 + 6) + 6 * (12 + 6))),  # the second layer sees both directions
    ],
)
def test_recurrent_layers_cost_their_matrices_at_every_step(
    kind: type[nn.RNNBase], gates: int, layers: int, directions: int, matrices: int
):
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = kind(1, 6, num_layers=layers, batch_first=True, bidirectional=directions == 2)  # pyright: ignore
            self.head = nn.Linear(6 * directions, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.inside(x[..., None])[0][:, -1])

    size = model_size(Recurrent(), bands=20, patch=1)
    assert size.multiply_accumulates == 20 * gates * matrices + 6 * directions * 2


class Attending(nn.Module):
    """Attention of a token a band, by torch's function or its module."""

    def __init__(self, by_module: bool) -> None:
        super().__init__()
        self.embedding = nn.Linear(1, 8, bias=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True) if by_module else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embedding(x[..., None])
        if self.attention is not None:
            return self.attention(tokens, tokens, tokens, need_weights=False)[0][:, 0]
        heads = tokens.unflatten(2, (2, 4)).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)[:, 0]


@pytest.mark.parametrize("by_module", [False, True])
def test_attention_costs_its_two_products_of_all_pairs_of_tokens(by_module: bool):
    size = model_size(Attending(by_module), bands=20, patch=1)
    projections = 4 * 20 * 8 * 8 if by_module else 0
    assert size.multiply_accumulates == 20 * 8 + 2 * 20 * 20 * 8 + projections
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_scan_of_several_sequences_a_pixel_is_counted_for_each():
    """MambaHSI's spectral mixing scans the four tokens of each of nine pixels, then of four, then of one."""
    model = create_model("mamba_hsi", bands=20, classes=3, patch=3).eval()
    calls: list[tuple[int, int]] = []
    for module in model.modules():
        if isinstance(module, SelectiveScan):
            module.register_forward_hook(lambda _, inputs, __: calls.append(tuple(inputs[0].shape[:2])))  # pyright: ignore
    model_size(model, 20, 3)
    assert calls == [(1, 9), (9, 4), (1, 4), (4, 4), (1, 1), (1, 4)]
    without = model_size(_without_scans(model), 20, 3)
    scans = sum(
        SelectiveScan.multiply_accumulates(B * T, 256 if B == 1 and n % 2 == 0 else 64, 16)
        for n, (B, T) in enumerate(calls)
    )
    assert model_size(model, 20, 3).multiply_accumulates - without.multiply_accumulates == scans


def _without_scans(model: nn.Module) -> nn.Module:
    class Nothing(nn.Module):
        def forward(self, u: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return u

    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, S6Block):
            module.scan = Nothing()  # pyright: ignore
    return model
