"""What is done to spectra before the network sees them: one fixed affine map, kept in the classifier's file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectralmamba.settings import Settings

# Pixels or pairs of pixels that statistics are learned from at most; more do not change a 10-bit figure.
_STATISTICS_SAMPLE = 200_000


class InputTransform(nn.Module):
    """Standardise bands, then multiply with a fixed matrix and add an offset: `(…, L)` → `(…, L)`.

    Standardisation comes first on its own because raw values of 10⁴ times a whitening matrix would lose digits in float32.
    """

    mean: Tensor
    inverse_sd: Tensor
    matrix: Tensor
    offset: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("inverse_sd", torch.ones(bands))
        self.register_buffer("matrix", torch.eye(bands))
        self.register_buffer("offset", torch.zeros(bands))

    def forward(self, spectra: Tensor) -> Tensor:
        """Transform spectra `(n, L)`."""
        return torch.addmm(self.offset, (spectra - self.mean) * self.inverse_sd, self.matrix)

    def of_image(self, image: Tensor) -> Tensor:
        """Transform an image `(L, h, w)`, and return it as `(h, w, L)`."""
        standard = (image - self.mean[:, None, None]).mul_(self.inverse_sd[:, None, None])
        return torch.addmm(self.offset, standard.flatten(1).mT, self.matrix).unflatten(0, image.shape[1:])

    def completion(self, missing: Tensor) -> tuple[Tensor, Tensor]:
        """Return what best stands for bands that are missing: weights `(m, L)` of the others, and summands `(m,)`, float64.

        It is what makes a transformed spectrum shortest, so as near to the training mean as the other bands let it be. With plain
        standardisation that is the training mean of the band; with whitening it is the mean of the band given the others, as
        they vary together inside a field.

        Args:
            missing: Which bands are, bool `(L,)`; not all of them.
        """
        matrix, inverse_sd, mean = (values.double().cpu() for values in (self.matrix, self.inverse_sd, self.mean))
        missing = missing.cpu()
        length = (
            matrix @ matrix.mT
        )  # of a standardised spectrum z the transformed one has the square length z length zᵀ
        of_standard = -torch.linalg.solve(length[missing][:, missing], length[missing][:, ~missing])  # (m, L - m)
        weights = torch.zeros(len(of_standard), len(mean), dtype=torch.float64)
        weights[:, ~missing] = of_standard * inverse_sd[~missing] / inverse_sd[missing, None]
        return weights, mean[missing] - weights @ mean


def learn_transform(
    values: Tensor, statistics: Tensor, pairs: Tensor, settings: Settings, sharper: float = 1.0
) -> InputTransform:
    """Learn the transform from unlabelled pixels.

    "whitening": with Z the standardised spectra and N the mean of d dᵀ / 2 over the differences d of neighbouring pixels,
    spectra become Z (N + ε I)^(−1/2), standardised again. N is what varies inside a field; the symmetric root keeps the
    bands' order. Without neighbours N is zero and this is plain standardisation.

    Args:
        values: Spectra `(n, L)`.
        statistics: Positions of the pixels to learn from.
        pairs: Positions `(m, 2)` of neighbouring pixels to learn from.
        settings: `normalisation` and `whitening_epsilon`.
        sharper: What ε is divided by.
    """
    transform = InputTransform(values.shape[1]).to(values.device)
    sample = values[_thinned(statistics)].double()
    varying = _varying(sample)
    mean, inverse_sd = sample.mean(0), _inverse_sd(sample, varying)
    transform.mean.copy_(mean)
    transform.inverse_sd.copy_(inverse_sd)
    if settings.normalisation == "whitening":
        pairs = _thinned(pairs)
        differences = (values[pairs[:, 0]].double() - values[pairs[:, 1]].double()) * inverse_sd
        root = _inverse_root(differences, settings.whitening_epsilon / sharper)
        whitened = (sample - mean) * inverse_sd @ root
        second = _inverse_sd(whitened, varying)
        transform.matrix.copy_(root * second)
        transform.offset.copy_(-whitened.mean(0) * second)
    return transform


def _inverse_root(differences: Tensor, epsilon: float) -> Tensor:
    noise = differences.mT @ differences / (2 * max(1, len(differences)))  # (L, L)
    variances, vectors = torch.linalg.eigh(noise.cpu())
    root = vectors * (variances.clamp_min(0) + epsilon) ** -0.5 @ vectors.mT
    return root.to(differences.device)


def _varying(sample: Tensor) -> Tensor:
    """Tell which bands vary by more than the rounding of float32 and of their mean."""
    rounding = torch.finfo(torch.float32)
    return sample.std(0, correction=0) > rounding.eps * sample.mean(0).abs() + rounding.tiny


def _inverse_sd(sample: Tensor, varying: Tensor) -> Tensor:
    """Return 1 / standard deviation of each band; a band that does not vary is left as it is."""
    return torch.where(varying, 1 / sample.std(0, correction=0), 1.0)


def _thinned(positions: Tensor) -> Tensor:
    """Take evenly spaced positions, so that the sample is the same each time."""
    step = -(-len(positions) // _STATISTICS_SAMPLE)
    return positions[:: max(1, step)]
