from __future__ import annotations

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
