from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from spectralmamba.models import create_model
from spectralmamba.models.spectral_mamba import GatedMerging, PieceEmbedding, S6Block


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_merging_has_the_published_number_of_parameters():
    assert count(GatedMerging(145)) == 22_620


def test_a_gate_of_one_half_gives_the_mean_of_the_patch():
    merging = GatedMerging(6)
    for parameter in merging.parameters():
        nn.init.zeros_(parameter)  # sigmoid(0) = ½
    patch = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    # One sum of 25 values in float64.
    torch.testing.assert_close(merging.double()(patch), patch.mean((2, 3)), rtol=1e-12, atol=1e-12)


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
