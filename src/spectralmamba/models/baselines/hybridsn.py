"""HybridSN (Roy, Krishna, Dubey, Chaudhuri 2020, arXiv 1902.06701): 3-D convolutions, then a 2-D one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from spectralmamba.models.baselines.layers import Components, need_patch, paddings
from spectralmamba.models.registry import register_model


class HybridSN(nn.Module):
    """Convolutions of 7, 5 and 3 bands by 3 × 3 pixels, one of 3 × 3 pixels over all bands, and three linear layers.

    The authors give it 30 principal components of 25 × 25 pixels, at which it has their 5 122 176 parameters for 16 classes. Here a
    learned projection stands for the components. Below P = 9, the first convolutions keep a patch's width by zero padding.

    Args:
        bands: L.
        classes: K.
        patch: P, at least 3.
        components: C, what the bands are projected to if there are more.
        dropout: Share of the hidden units that training drops.

    Shapes: `(B, L, P, P)` → logits `(B, K)`.
    """

    def __init__(self, *, bands: int, classes: int, patch: int, components: int, dropout: float) -> None:
        super().__init__()
        self.components = Components(bands, components, least=13)
        padding = paddings(patch, convolutions=4)
        self.volume = nn.Sequential(
            nn.Conv3d(1, 8, (7, 3, 3), padding=(0, padding[0], padding[0])),
            nn.ReLU(),
            nn.Conv3d(8, 16, (5, 3, 3), padding=(0, padding[1], padding[1])),
            nn.ReLU(),
            nn.Conv3d(16, 32, (3, 3, 3), padding=(0, padding[2], padding[2])),
            nn.ReLU(),
        )
        self.spatial = nn.Conv2d(32 * (self.components.count - 12), 64, 3, padding=padding[3])
        left = patch - 8 + 2 * sum(padding)
        self.decision = nn.Sequential(
            nn.Linear(64 * left**2, 256),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(128, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.volume(self.components(x).unsqueeze(1))  # (B, 32, C − 12, ·, ·)
        return self.decision(relu(self.spatial(x.flatten(1, 2))).flatten(1))


@register_model(presets=("default",))
def hybridsn(
    *,
    bands: int,
    classes: int,
    patch: int = 25,
    preset: str = "default",
    components: int = 30,
    dropout: float = 0.4,
) -> HybridSN:
    """HybridSN (Roy et al. 2020)."""
    need_patch("hybridsn", patch)
    return HybridSN(bands=bands, classes=classes, patch=patch, components=components, dropout=dropout)
