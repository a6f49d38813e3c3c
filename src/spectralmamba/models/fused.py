"""SpectralMamba as maps compute it: the same function of the same weights, by the operations of `ops.dense`.

What weights do one after the other without a pixel's values between them is multiplied out once, in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from spectralmamba.models.committee import Committee
from spectralmamba.models.patches import ImagePatches, Patches, as_patches
from spectralmamba.models.spectral_mamba import GatedMerging, S6Block, SpectralMamba
from spectralmamba.ops.dense import FeatureWeights, ImageMerging, MergingWeights, S6Features, available


def fused(network: nn.Module, *, half: bool = False) -> nn.Module:
    """Return a network that tells the same faster, without gradients: a copy, or the network itself if there is nothing faster.

    Only of what this package has written: a class derived from `SpectralMamba`, or one with another block, stays as it is.

    Args:
        network: On the device where it will compute, in evaluation mode.
        half: Multiply matrices in float16, on a GPU; the rest stays float32.
    """
    if isinstance(network, Committee):
        return Committee(fused(network.network, half=half), network.companion).eval()
    if type(network) is not SpectralMamba or len(network.blocks) != 1 or type(network.blocks[0]) is not S6Block:
        return network
    weights = feature_weights(network)
    return FusedSpectralMamba(network, weights, half) if available(network.head.weight.device, weights) else network


class FusedSpectralMamba(nn.Module):
    """What `fused` makes of a SpectralMamba.

    Shapes: `(B, L)` for P = 1, else `(B, L, P, P)`, or patches → logits `(B, K)`.
    """

    takes_patches = True

    def __init__(self, network: SpectralMamba, weights: FeatureWeights, half: bool) -> None:
        super().__init__()
        merging = network.merging
        self.merging = FusedMerging(merging, half) if type(merging) is GatedMerging else merging
        self.features = S6Features(weights, half=half)
        norm, head = network.final_norm, network.head
        self.head = (head.weight * norm.weight).detach()
        self.head_bias = (head.weight @ norm.bias + head.bias).detach()
        self.beside, self.view = network.beside, network.view
        path = network.linear_path
        self.linear = None if path is None else (network.linear_path_gain * path.weight).detach()

    def forward(self, x: Tensor | Patches) -> Tensor:
        """Return logits."""
        patches = as_patches(x)
        spectra = patches.centre() if self.merging is None else patches.merged(self.merging)
        logits = linear(self.features(spectra.contiguous()), self.head, self.head_bias)
        if self.linear is not None and self.view is not None and isinstance(patches, ImagePatches):
            return logits + self.view(patches.mapped(self.linear))  # pixels that patches share are multiplied once
        beside = self.beside(patches)
        return logits if beside is None else logits + beside


class FusedMerging:
    """The gated merging, over an image by one operation."""

    def __init__(self, merging: GatedMerging, half: bool) -> None:
        self._of_image = ImageMerging(merging_weights(merging), half=half)

    def __call__(self, patches: Tensor) -> Tensor:
        """Merge patches `(B, L, P, P)` into spectra `(B, L)`."""
        patch = patches.shape[-1]
        below = patches.permute(0, 2, 3, 1).flatten(0, 1).contiguous()  # one below the other, an image (B · P, P, L)
        return self._of_image(below, patch)[::patch, 0]

    def of_image(self, image: Tensor, patch: int) -> Tensor:
        """Return what the patches around all pixels of an image `(H, W, L)` merge into, `(H − P + 1, W − P + 1, L)`."""
        return self._of_image(image, patch)


def merging_weights(merging: GatedMerging) -> MergingWeights:
    """Return what a gated merging is computed with."""
    depthwise, pointwise = merging.depthwise, merging.pointwise
    assert depthwise.bias is not None
    assert pointwise.bias is not None
    parts = (
        depthwise.weight[:, 0].permute(1, 2, 0),
        depthwise.bias,
        pointwise.weight.flatten(1).mT,
        pointwise.bias,
    )
    return MergingWeights(*(part.detach().contiguous() for part in parts))


@torch.no_grad()
def feature_weights(network: SpectralMamba) -> FeatureWeights:
    """Return what the features of a SpectralMamba of one block are computed with."""
    embedding, norm, block = network.embedding, network.norms[0], network.blocks[0]
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(block, S6Block)

    def exact(tensor: Tensor | None) -> Tensor:
        assert tensor is not None
        return tensor.double()

    def centred(tensor: Tensor) -> Tensor:
        return tensor - tensor.mean(-1, keepdim=True)

    token = centred(exact(embedding.projection.weight).mT)  # (R, M)
    position = centred(exact(embedding.position) + exact(embedding.projection.bias))  # (T, M)
    normalised_in = (exact(block.input_projection.weight) * exact(norm.weight)).mT  # (M, 2 E)
    made = FeatureWeights(
        token=token,
        position=position,
        token_in=token @ normalised_in,
        position_in=position @ normalised_in,
        bias_in=exact(block.input_projection.weight) @ exact(norm.bias),
        convolution=exact(block.convolution.weight)[:, 0].mT,
        convolution_bias=exact(block.convolution.bias),
        selection=exact(block.selection.weight).mT,
        delta=exact(block.delta_projection.weight).mT,
        delta_bias=exact(block.delta_projection.bias),
        A=-exact(block.A_log).exp() * math.log2(math.e),
        D=exact(block.D),
        out=centred(exact(block.output_projection.weight).mT),
        epsilon=torch.tensor([norm.eps, network.final_norm.eps]),
    )
    return FeatureWeights(*(part.float().contiguous() for part in made))
