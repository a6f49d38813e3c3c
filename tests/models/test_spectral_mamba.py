from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state

from spectralmamba.models import create_model
from spectralmamba.models.spectral_mamba import (
    GatedMerging,
    PieceEmbedding,
    S6Block,
    SharedGateMerging,
    _causal_convolution,
)

EVERY_MERGING = pytest.mark.parametrize("build", [GatedMerging, SharedGateMerging])


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_merging_has_the_published_number_of_parameters():
    assert count(GatedMerging(145)) == 22_620
    assert count(SharedGateMerging(145)) == 22_620


@EVERY_MERGING
@pytest.mark.parametrize("patch_width", [3, 5, 7])
def test_a_gate_of_one_half_gives_the_mean_of_the_patch(build: type[nn.Module], patch_width: int):
    merging = build(6)
    for parameter in merging.parameters():
        nn.init.zeros_(parameter)  # sigmoid(0) = ½
    patch = torch.randn(2, 6, patch_width, patch_width, dtype=torch.float64)
    # One sum of at most 49 values in float64.
    torch.testing.assert_close(merging.double()(patch), patch.mean((2, 3)), rtol=1e-12, atol=1e-12)


LAYOUTS = {
    "bands first": lambda patch: patch.contiguous(),
    "bands last": lambda patch: patch.contiguous(memory_format=torch.channels_last),
    "neither": lambda patch: patch.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
    "every other": lambda patch: patch.repeat_interleave(2, 0)[::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("patch_needs_gradient", [False, True])
def test_merging_is_its_definition_in_every_memory_layout(layout: str, patch_needs_gradient: bool):
    torch.manual_seed(0)
    bands, merging = 6, GatedMerging(6).double()
    patch = torch.randn(3, bands, 5, 5, dtype=torch.float64)
    weights = torch.randn(3, bands, dtype=torch.float64)

    def defined(patch: torch.Tensor) -> torch.Tensor:
        around = torch.nn.functional.pad(patch, (1, 1, 1, 1))
        kernel = merging.depthwise.weight[:, 0]  # (L, 3, 3)
        convolved = (
            merging.depthwise.bias[:, None, None]
            + sum(  # pyright: ignore
                kernel[:, i, j, None, None] * around[:, :, i : i + 5, j : j + 5] for i in range(3) for j in range(3)
            )
        )
        mixed = torch.einsum("kl,blpq->bkpq", merging.pointwise.weight[:, :, 0, 0], convolved)
        gate = torch.sigmoid(mixed + merging.pointwise.bias[:, None, None])  # pyright: ignore
        return (gate * patch).sum((2, 3)) * 2 / 25

    results = []
    for function, given in ((defined, patch), (merging, LAYOUTS[layout](patch))):
        given = given.detach().requires_grad_(patch_needs_gradient)
        merged = function(given)
        wanted = [*merging.parameters(), *([given] if patch_needs_gradient else [])]
        results.append([merged, *torch.autograd.grad((merged * weights).sum(), wanted)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("width", [3, 5, 7])
def test_a_shared_gate_is_the_papers_at_the_centre_times_the_mean(width: int):
    torch.manual_seed(0)
    shared, papers = SharedGateMerging(6).double(), GatedMerging(6).double()
    papers.load_state_dict(shared.state_dict())
    patch = torch.randn(3, 6, width, width, dtype=torch.float64)
    gates = torch.sigmoid(papers.pointwise(papers.depthwise(patch)))  # (B, L, P, P)
    expected = 2 * gates[:, :, width // 2, width // 2] * patch.mean((2, 3))
    torch.testing.assert_close(shared(patch), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gate", ["position", "shared"])
def test_a_network_gives_the_same_in_every_memory_layout(gate: str):
    torch.manual_seed(0)
    model = create_model("spectral_mamba", bands=9, classes=3, patch=5, gate=gate).double().eval()
    patch = torch.randn(4, 9, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = model(patch)
        for layout in LAYOUTS.values():
            torch.testing.assert_close(model(layout(patch)), expected, rtol=1e-10, atol=1e-12)


def test_the_blocks_convolution_is_its_modules_without_the_appended_tokens():
    torch.manual_seed(0)
    block = S6Block(width=8, expansion=2, states=4, convolution=4).double()
    for tokens in (1, 2, 3, 7):
        x = torch.randn(2, tokens, 16, dtype=torch.float64, requires_grad=True)
        weights = torch.randn(2, tokens, 16, dtype=torch.float64)
        results = []
        for y in (_causal_convolution(x, block.convolution), block.convolution(x.mT)[..., :tokens].mT):
            results.append([y, *torch.autograd.grad((y * weights).sum(), [x, *block.convolution.parameters()])])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@EVERY_MERGING
def test_merging_can_be_mapped_over_parameters_and_patches(build: type[nn.Module]):
    torch.manual_seed(0)
    mergings, patches = [build(6) for _ in range(3)], torch.randn(3, 2, 6, 5, 5)
    parameters, buffers = stack_module_state(mergings)  # pyright: ignore

    def merged(parameters: dict, buffers: dict, patch: torch.Tensor) -> torch.Tensor:
        return functional_call(mergings[0], (parameters, buffers), (patch,))

    found = torch.vmap(merged)(parameters, buffers, patches)
    for one, merging, patch in zip(found, mergings, patches, strict=True):
        # float32 sums of size 1.
        torch.testing.assert_close(one, merging(patch), rtol=0, atol=1e-5)


def as_tokens(bands: int, piece: int, orientation: str) -> torch.Tensor:
    """The tokens of the spectrum 1, 2, … L before they are embedded."""
    tokens = math.ceil(bands / piece) if orientation == "neighbours" else piece
    width = math.ceil(bands / tokens) if orientation == "pieces" else piece
    embedding = PieceEmbedding(bands, width, piece, orientation)  # pyright: ignore
    with torch.no_grad():
        embedding.projection.weight.copy_(torch.eye(width))
        embedding.projection.bias.zero_()
        embedding.position.zero_()
        return embedding(torch.arange(1.0, bands + 1)[None])[0]


def test_neighbours_make_tokens_of_r_bands_and_the_last_is_padded_with_zeros():
    assert as_tokens(7, 3, "neighbours").tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert as_tokens(145, 6, "neighbours").shape == (25, 6)


def test_pieces_make_r_tokens_and_the_last_is_padded_with_zeros():
    assert as_tokens(7, 3, "pieces").tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert as_tokens(8, 2, "pieces").tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert as_tokens(145, 6, "pieces").shape == (6, 25)


@pytest.mark.parametrize("orientation", ["neighbours", "pieces"])
@pytest.mark.parametrize("piece", [1, 2, 6, 19, 20])
def test_every_piece_size_keeps_every_band_once_and_in_order(piece: int, orientation: str):
    tokens = as_tokens(20, piece, orientation)
    assert tokens.shape[0] == (math.ceil(20 / piece) if orientation == "neighbours" else piece)
    kept = tokens.flatten()
    assert kept[:20].tolist() == list(range(1, 21))
    assert not kept[20:].any()


def test_a_token_depends_on_no_later_token():
    torch.manual_seed(0)
    block = S6Block(width=8, expansion=2, states=4, convolution=4).eval()
    tokens = torch.randn(1, 6, 8)
    changed = tokens.clone()
    changed[:, 4:] += 1
    with torch.no_grad():
        assert torch.equal(block(tokens)[:, :4], block(changed)[:, :4])


@pytest.mark.parametrize("view", ["centre", "mean", "both"])
def test_the_linear_path_starts_without_influence_and_sees_what_it_should(view: str):
    options = {"bands": 9, "classes": 3, "patch": 3}
    models = []
    for linear_path in (view, "none"):
        torch.manual_seed(0)
        models.append(create_model("spectral_mamba", **options, linear_path=linear_path).eval())
    with_path, without = models
    without.load_state_dict({k: v for k, v in with_path.state_dict().items() if not k.startswith("linear_path")})
    x = torch.randn(2, 9, 3, 3)
    centre, mean = x[:, :, 1, 1], x.mean((2, 3))
    seen = {"centre": centre, "mean": mean, "both": (centre + mean) / 2}[view]
    with torch.no_grad():
        assert torch.equal(with_path(x), without(x))
        with_path.linear_path.weight.normal_()  # pyright: ignore
        difference = with_path(x) - without(x)
        # A difference of two float32 sums of size 1.
        torch.testing.assert_close(difference, with_path.linear_path(0.2 * seen), rtol=0, atol=1e-5)  # pyright: ignore
