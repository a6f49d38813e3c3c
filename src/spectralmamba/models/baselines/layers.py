"""What several baselines are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from spectralmamba.errors import ModelError

_MOST_SEQUENCES = 2**15  # at a time: with 2^18, cuDNN 9.1 reads beyond its memory, and its workspace grows with them


def band_sequence(x: Tensor) -> Tensor:
    """Return spectra `(B, L)` or patches `(B, L, P, P)` as sequences of bands, `(B, L, P²)`."""
    return x.unsqueeze(2) if x.dim() == 2 else x.flatten(2)


def recurred(layer: nn.GRU | nn.LSTM, sequences: Tensor) -> Tensor:
    """Return what a recurrent layer says at each step of each sequence, `(B, T, C)` → `(B, T, M)`, some sequences at a time."""
    return torch.cat([layer(part)[0] for part in sequences.split(_MOST_SEQUENCES)])


def recurred_last(layer: nn.GRU, sequences: Tensor) -> Tensor:
    """Return what it says in the end, `(B, T, C)` → `(B, M)`, some sequences at a time."""
    return torch.cat([layer(part)[1][0] for part in sequences.split(_MOST_SEQUENCES)])


def need_patch(name: str, patch: int) -> None:
    """Check that there is a neighbourhood to convolve.

    Raises:
        ModelError: There is none.
    """
    if patch < 3:
        raise ModelError(f"{name} needs a patch around each pixel", found=f"patch {patch}", expected="patch 3 or wider")


def paddings(patch: int, convolutions: int) -> list[int]:
    """Return how much zero padding each of several 3 × 3 convolutions needs to leave a pixel of a patch.

    Published networks without padding need wide patches. Where a patch is narrower, the first convolutions keep its width.
    """
    unpadded = min(convolutions, (patch - 1) // 2)
    return [1] * (convolutions - unpadded) + [0] * unpadded


class Components(nn.Module):
    """A learned projection of the bands, in place of the principal components that a network's authors give it.

    Where there are no more bands than components, they stay as they are; zeros follow if there are fewer than the network needs.

    Attributes:
        count: C, components that come out.

    Shapes: `(B, L, P, P)` → `(B, C, P, P)`.

    Raises:
        ModelError: There are to be no components.
    """

    def __init__(self, bands: int, components: int, least: int) -> None:
        super().__init__()
        if components < 1:
            raise ModelError("too few components", found=components, expected="at least 1")
        self.projection = nn.Conv2d(bands, components, 1, bias=False) if bands > components else None
        self.count = max(min(bands, components), least)

    def forward(self, x: Tensor) -> Tensor:
        """Project patches."""
        x = x if self.projection is None else self.projection(x)
        return pad(x, (0, 0, 0, 0, 0, self.count - x.shape[1]))


class Attention(nn.Module):
    """Multi-head self-attention, written out, since torch's fused kernels need not give the same bits every time.

    Args:
        width: M.
        heads: Number of heads.
        head_width: Channels of each.
        dropout: Share of the output that training drops.
        bias: Whether queries, keys and values have one.
        scale: What products of queries and keys are multiplied with; head_width^(−½) if None.

    Shapes: `(B, T, M)` → `(B, T, M)`.
    """

    def __init__(
        self, width: int, heads: int, head_width: int, dropout: float, bias: bool = False, scale: float | None = None
    ) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_width**-0.5 if scale is None else scale
        self.projection = nn.Linear(width, 3 * heads * head_width, bias=bias)
        self.output_projection = nn.Linear(heads * head_width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Mix a sequence's tokens."""
        of_heads = self.projection(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, T, ·)
        queries, keys, values = of_heads[0], of_heads[1], of_heads[2]
        weights = ((queries * self.scale) @ keys.mT).softmax(-1)  # (B, heads, T, T)
        return self.dropout(self.output_projection((weights @ values).transpose(1, 2).flatten(2)))


class TransformerLayer(nn.Module):
    """Attention and two linear layers, each behind a normalisation and beside a skip connection.

    Shapes: `(B, T, M)` → `(B, T, M)`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        hidden: int,
        dropout: float,
        bias: bool = False,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.attention_norm, self.hidden_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, head_width, dropout, bias, scale)
        self.hidden = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mix a sequence's tokens."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.hidden(self.hidden_norm(x))
