"""SpectralMamba (Yao, Hong, Li, Chanussot 2024, arXiv 2404.08489), whole and in one file.

Letters: B batch, L bands, P patch width, T tokens, R piece size, M model width, E inner channels, N states, K classes.
docs/method.md says what is published and what had to be reconstructed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad, silu

from spectralmamba.errors import ModelError
from spectralmamba.models.patches import Patches, as_patches, box_sums
from spectralmamba.models.registry import register_model
from spectralmamba.ops import selective_scan

Orientation = Literal["neighbours", "pieces"]
Gate = Literal["position", "shared", "mean", "centre"]
Block = Literal["mamba", "mlp", "none"]
LinearPath = Literal["none", "centre", "mean", "both"]


class GatedMerging(nn.Module):
    """Gated spatial-spectral merging, GSSM: a patch becomes one spectrum.

    A depthwise 3 × 3 and a pointwise convolution over the bands, then a sigmoid, weigh every value of the patch; the
    weighted patch is summed over its pixels. L·9 + L + L² + L parameters: 22 620 at 145 bands, as published. The sum is
    scaled by 2 / P², so that a gate of ½ everywhere gives the mean (reconstructed).

    Shapes: `(B, L, P, P)` → `(B, L)`.

    The depthwise convolution sees zeros beyond the patch's border. So what it says of a pixel depends on the patch only by
    which of the pixel's eight neighbours lie in it: all, or not those beyond one of four edges or corners. Of a whole image it
    therefore has nine answers, each with a gate of its own, whatever P, and a patch's sum is made of nine sums over them.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(bands, bands, kernel_size=3, padding=1, groups=bands)
        self.pointwise = nn.Conv2d(bands, bands, kernel_size=1)

    def forward(self, patch: Tensor) -> Tensor:
        """Merge patches."""
        # Channels last, where a CPU convolves faster, and a pointwise convolution is a matrix product; no copy if they are already.
        patch = patch.permute(0, 2, 3, 1).contiguous()  # (B, P, P, L)
        return (self._gates(patch) * patch).sum((1, 2)) * (2 / (patch.shape[1] * patch.shape[2]))

    def gates(self, patch: Tensor) -> Tensor:
        """Return what weighs each value of patches `(B, L, P, P)`, in 0 to 1, `(B, P, P, L)`."""
        return self._gates(patch.permute(0, 2, 3, 1).contiguous())

    def _gates(self, patch: Tensor) -> Tensor:
        mixed = self.depthwise(patch.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return torch.sigmoid(linear(mixed, self.pointwise.weight.flatten(1), self.pointwise.bias))

    def of_image(self, image: Tensor, patch: int) -> Tensor:
        """Return what the patches around all pixels of an image `(H, W, L)` merge into, `(H − P + 1, W − P + 1, L)`."""
        rows, columns = image.shape[0] - patch + 1, image.shape[1] - patch + 1
        pointwise = self.pointwise.weight.flatten(1)
        merged = image.new_zeros(rows, columns, image.shape[2])
        for row, height in _parts(patch):
            for column, width in _parts(patch):
                part = image[row : row + rows + height - 1, column : column + columns + width - 1]
                # Neighbours that lie in the patch, and the part with a border of those.
                above, below = int(row > 0), int(row + height < patch)
                before, after = int(column > 0), int(column + width < patch)
                around = image[
                    row - above : row + rows + height - 1 + below,
                    column - before : column + columns + width - 1 + after,
                ]
                kernel = self.depthwise.weight[:, :, 1 - above : 2 + below, 1 - before : 2 + after]
                mixed = conv2d(around.permute(2, 0, 1)[None], kernel, self.depthwise.bias, groups=self.depthwise.groups)
                mixed = mixed[0].permute(1, 2, 0)  # (h, w, L)
                gate = torch.sigmoid(linear(mixed, pointwise, self.pointwise.bias))
                merged += box_sums(gate.mul_(part), height, width)
        return merged.mul_(2 / patch**2)


def _parts(patch: int) -> tuple[tuple[int, int], ...]:
    """Return where the first row (or column), those inside and the last of a patch begin, and how many they are."""
    return (0, 1), (1, patch - 2), (patch - 1, 1)


class SharedGateMerging(nn.Module):
    """Merging by one gate a patch, a variant of `GatedMerging`: as many parameters, one pointwise product a patch.

    The depthwise convolution is taken at the patch's centre alone, so the gate says how much of each band is let through, not of
    which pixels; it is multiplied with the patch's mean, doubled, so that a gate of ½ gives the mean. L·9 + L + L² + L
    parameters. Of a whole image that is one depthwise and one pointwise convolution and a box mean, whatever P.

    Shapes: `(B, L, P, P)` → `(B, L)`, P at least 3.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(bands, bands, kernel_size=3, groups=bands)
        self.pointwise = nn.Conv2d(bands, bands, kernel_size=1)

    def forward(self, patch: Tensor) -> Tensor:
        """Merge patches."""
        border = patch.shape[2] // 2 - 1
        middle = patch[:, :, border : border + 3, border : border + 3]
        mixed = self.depthwise(middle).flatten(1)  # (B, L)
        gate = torch.sigmoid(linear(mixed, self.pointwise.weight.flatten(1), self.pointwise.bias))
        return 2 * gate * patch.mean((2, 3))

    def of_image(self, image: Tensor, patch: int) -> Tensor:
        """Return what the patches around all pixels of an image `(H, W, L)` merge into, `(H − P + 1, W − P + 1, L)`."""
        border = patch // 2 - 1
        around = image[border : image.shape[0] - border, border : image.shape[1] - border]
        mixed = self.depthwise(around.permute(2, 0, 1)[None])[0].permute(1, 2, 0)  # (H − P + 1, W − P + 1, L)
        gate = torch.sigmoid(linear(mixed, self.pointwise.weight.flatten(1), self.pointwise.bias))
        return gate.mul_(box_sums(image, patch)).mul_(2 / patch**2)


class MeanMerging(nn.Module):
    """Merging without a gate, to see what the gate is worth: a patch's mean.

    Shapes: `(B, L, P, P)` → `(B, L)`.
    """

    def forward(self, patch: Tensor) -> Tensor:
        """Merge patches."""
        return patch.mean((2, 3))

    def of_image(self, image: Tensor, patch: int) -> Tensor:
        """Return what the patches around all pixels of an image `(H, W, L)` merge into, `(H − P + 1, W − P + 1, L)`."""
        return box_sums(image, patch) * (1 / patch**2)


_MERGINGS: dict[str, Callable[[int], GatedMerging | SharedGateMerging | MeanMerging | None]] = {
    "position": GatedMerging,
    "shared": SharedGateMerging,
    "mean": lambda _: MeanMerging(),
    "centre": lambda _: None,
}


class PieceEmbedding(nn.Module):
    """Piece-wise sequential scanning, PSS: a spectrum becomes a short sequence of embedded tokens.

    "neighbours": T = ceil(L / R) tokens of R neighbouring bands. "pieces": R tokens, each a piece of ceil(L / R) bands. The
    last token is padded with zeros. Each token is projected to the model's width and gets a learned position.

    Shapes: `(B, L)` → `(B, T, M)`.
    """

    def __init__(self, bands: int, width: int, piece: int, orientation: Orientation) -> None:
        super().__init__()
        other = math.ceil(bands / piece)
        if orientation == "neighbours":
            self.tokens, self.token_bands = other, piece
        else:
            self.tokens, self.token_bands = piece, other
        self.padding = self.tokens * self.token_bands - bands
        self.projection = nn.Linear(self.token_bands, width)
        self.position = nn.Parameter(torch.randn(self.tokens, width) * 0.02)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Cut and embed spectra."""
        tokens = pad(spectrum, (0, self.padding)).unflatten(1, (self.tokens, self.token_bands))  # (B, T, R)
        return self.projection(tokens) + self.position  # (B, T, M)


class SelectiveScan(nn.Module):
    """The scan as a module without parameters, so that counters and hooks find it."""

    def forward(
        self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
    ) -> Tensor:
        """Scan; shapes as `selective_scan` has them."""
        return selective_scan(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=True)

    @staticmethod
    def multiply_accumulates(tokens: int, channels: int, states: int) -> int:
        """Count a sequence's multiply-accumulates.

        For each token, channel and state four: Δ·A, (Δu)·B, decay·h + …, C·h; for each token and channel two: Δ·u and D·u.
        Exponentials are not counted.
        """
        return tokens * channels * (4 * states + 2)


def _causal_convolution(x: Tensor, convolution: nn.Conv1d) -> Tensor:
    """Convolve each channel of `(B, T, E)` with the tokens before it.

    The same as the module's own Conv1d on `(B, E, T)` without the tokens it appends, but it reads and writes channels last.
    """
    before = pad(x, (0, 0, convolution.kernel_size[0] - 1, 0))
    image = before.mT.unsqueeze(2)  # (B, E, 1, …)
    convolved = conv2d(image, convolution.weight.unsqueeze(2), convolution.bias, groups=convolution.groups)
    return convolved.squeeze(2).mT


class S6Block(nn.Module):
    """The Mamba block (Gu and Dao 2023, figure 3): projection, causal convolution, selective scan, gate, projection.

    Shapes: `(B, T, M)` → `(B, T, M)`.
    """

    def __init__(self, width: int, expansion: int, states: int, convolution: int) -> None:
        super().__init__()
        channels = expansion * width
        self.delta_rank = math.ceil(width / 16)
        self.states = states
        self.input_projection = nn.Linear(width, 2 * channels, bias=False)
        self.convolution = nn.Conv1d(channels, channels, convolution, groups=channels, padding=convolution - 1)
        self.selection = nn.Linear(channels, self.delta_rank + 2 * states, bias=False)
        self.delta_projection = nn.Linear(self.delta_rank, channels)
        self.A_log = nn.Parameter(torch.arange(1, states + 1, dtype=torch.float32).log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self.scan = SelectiveScan()
        self.output_projection = nn.Linear(channels, width, bias=False)
        self._initialise_delta(channels)

    def _initialise_delta(self, channels: int) -> None:
        """Start with steps spread evenly in the logarithm over 0.001 … 0.1, as Mamba does."""
        bound = self.delta_rank**-0.5
        nn.init.uniform_(self.delta_projection.weight, -bound, bound)
        delta = torch.exp(torch.rand(channels) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
        with torch.no_grad():
            self.delta_projection.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # softplus⁻¹(Δ)

    def forward(self, x: Tensor) -> Tensor:
        """Mix a sequence's tokens."""
        u, z = self.input_projection(x).chunk(2, dim=-1)  # each (B, T, E)
        u = silu(_causal_convolution(u, self.convolution))  # (B, T, E)
        selected = self.selection(u)  # (B, T, rank + 2 N)
        low_rank, B, C = selected.split([self.delta_rank, self.states, self.states], dim=-1)
        delta = linear(low_rank, self.delta_projection.weight)  # (B, T, E)
        y = self.scan(u, delta, -torch.exp(self.A_log), B, C, self.D, self.delta_projection.bias)  # (B, T, E)
        return self.output_projection(y * silu(z))  # (B, T, M)


class TokenPerceptron(nn.Sequential):
    """A perceptron of each token by itself, to see what the Mamba block is worth: two linear layers, SiLU between them.

    Shapes: `(B, T, M)` → `(B, T, M)`.
    """

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__(nn.Linear(width, expansion * width), nn.SiLU(), nn.Linear(expansion * width, width))


_VIEWS: dict[str, Callable[[Patches], Tensor] | None] = {
    "none": None,
    "centre": lambda patches: patches.centre(),
    "mean": lambda patches: patches.mean(),
    "both": lambda patches: (patches.centre() + patches.mean()) / 2,
}


class SpectralMamba(nn.Module):
    """Classify spectra, or the centre pixels of patches.

    Args:
        bands: L.
        classes: K.
        patch: P, odd; 1 is pixelwise.
        piece: R of the piece-wise scanning, 1 … L.
        orientation: "neighbours": tokens of R neighbouring bands; "pieces": R tokens.
        width: M, the token's width inside the network.
        expansion: E / M.
        states: N.
        convolution: Width of the causal convolution.
        blocks: Number of S6 blocks.
        dropout: Share of the pooled features that training drops.
        gate: What weighs a patch's values when they are summed. "position": the paper's gate, which each pixel of the patch has
            from itself and its neighbours in the patch; "shared": one for the whole patch, from its middle 3 × 3 pixels, which is
            cheaper; "mean": all alike; "centre": the centre alone. Without effect where P = 1, as there is nothing to merge.
        block: What mixes tokens. "mamba": `blocks` S6 blocks; "mlp": as many perceptrons of each token by itself; "none": nothing.
        linear_path: What spectrum a linear classifier beside the network sees, whose logits are added: the patch's "centre",
            its "mean", the mean of "both", or "none": no such classifier. It starts at zero and learns with the rest.

    Shapes: `(B, L)` for P = 1, else `(B, L, P, P)` → logits `(B, K)`.

    Raises:
        ModelError: R is not in 1 … L, or there is no such orientation, gate, block or linear path.
    """

    takes_patches = True
    # With AdamW a weight moves by the learning rate whatever its gradient, and the linear path would outrun the network and overfit
    # a handful of labels; this makes its logits move slower.
    linear_path_gain = 0.2

    def __init__(
        self,
        *,
        bands: int,
        classes: int,
        patch: int = 1,
        piece: int = 6,
        orientation: Orientation = "neighbours",
        width: int = 32,
        expansion: int = 2,
        states: int = 16,
        convolution: int = 4,
        blocks: int = 1,
        dropout: float = 0.1,
        gate: Gate = "position",
        linear_path: LinearPath = "none",
        block: Block = "mamba",
    ) -> None:
        super().__init__()
        if not 1 <= piece <= bands:
            raise ModelError("the piece size R does not fit the spectrum", found=piece, expected=f"1 to {bands} bands")
        if orientation not in ("neighbours", "pieces"):
            raise ModelError("unknown orientation of the pieces", found=orientation, expected="neighbours or pieces")
        if gate not in _MERGINGS:
            raise ModelError("unknown gate", found=gate, expected=" or ".join(_MERGINGS))
        if linear_path not in _VIEWS:
            raise ModelError("unknown linear path", found=linear_path, expected=", ".join(_VIEWS))
        if block not in ("mamba", "mlp", "none"):
            raise ModelError("unknown block", found=block, expected="mamba, mlp or none")
        self.patch = patch
        self.merging = _MERGINGS[gate](bands) if patch > 1 else None
        self.embedding = PieceEmbedding(bands, width, piece, orientation)
        blocks = 0 if block == "none" else blocks
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.blocks = nn.ModuleList(
            S6Block(width, expansion, states, convolution) if block == "mamba" else TokenPerceptron(width, expansion)
            for _ in range(blocks)
        )
        self.final_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)
        self.view = _VIEWS[linear_path]
        self.linear_path = None
        if self.view is not None:
            self.linear_path = nn.Linear(bands, classes, bias=False)
            nn.init.zeros_(self.linear_path.weight)

    def features(self, spectrum: Tensor) -> Tensor:
        """Map merged spectra `(B, L)` to what the head sees, `(B, M)`."""
        x = self.embedding(spectrum)  # (B, T, M)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))
        return self.final_norm(x).mean(1)  # (B, M)

    def forward(self, x: Tensor | Patches) -> Tensor:
        """Return logits."""
        patches = as_patches(x)
        spectrum = patches.centre() if self.merging is None else patches.merged(self.merging)  # (B, L)
        logits = self.head(self.dropout(self.features(spectrum)))  # (B, K)
        beside = self.beside(patches)
        return logits if beside is None else logits + beside

    def beside(self, patches: Patches) -> Tensor | None:
        """Return the logits `(B, K)` of the linear path; None without one."""
        if self.linear_path is None or self.view is None:
            return None
        return self.linear_path(self.linear_path_gain * self.view(patches))


PRESETS: dict[str, dict[str, Any]] = {
    "default": {"linear_path": "both"},
    "paper": {"linear_path": "none"},
}


@register_model(presets=PRESETS)
def spectral_mamba(
    *,
    bands: int,
    classes: int,
    patch: int = 1,
    preset: str = "default",
    piece: int | None = None,
    orientation: Orientation | None = None,
    width: int | None = None,
    expansion: int | None = None,
    states: int | None = None,
    convolution: int | None = None,
    blocks: int | None = None,
    dropout: float | None = None,
    gate: Gate | None = None,
    linear_path: LinearPath | None = None,
    block: Block | None = None,
) -> SpectralMamba:
    """SpectralMamba; preset "paper" stays within the published size, "default" is the better classifier.

    Options left None come from the preset, then from `SpectralMamba`'s defaults; a piece larger than the spectrum is cut to it
    unless it was asked for.
    """
    asked = {
        "piece": piece,
        "orientation": orientation,
        "width": width,
        "expansion": expansion,
        "states": states,
        "convolution": convolution,
        "blocks": blocks,
        "dropout": dropout,
        "gate": gate,
        "linear_path": linear_path,
        "block": block,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    return SpectralMamba(
        bands=bands, classes=classes, patch=patch, **{"piece": min(6, bands), **PRESETS[preset], **given}
    )
