"""What training changes in a batch, in the units of the normalised bands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from spectralmamba.settings import Settings


class ClassDifferences:
    """Differences between training pixels of one class.

    With few labels they are all that is known of how a class varies over the scene. Added to pixels of every class, they teach
    the network to look away from these directions, as a linear discriminant does with the pooled covariance.

    Args:
        means: Mean spectra of the training patches, `(n, L)`.
        targets: Index of their class, `(n,)`.
    """

    def __init__(self, means: Tensor, targets: Tensor) -> None:
        order = torch.argsort(targets, stable=True)
        counts = torch.bincount(targets)
        self._means = means[order]
        self._count = counts.repeat_interleave(counts)  # (n,), of the class of each
        self._first = (counts.cumsum(0) - counts).repeat_interleave(counts)  # (n,), where that class begins

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw differences `(number, L)`: any training pixel minus another of its class, zero where there is none."""
        device = self._means.device
        one = torch.randint(len(self._means), (number,), generator=generator, device=device)
        first, count = self._first[one], self._count[one]
        further = 1 + torch.rand(number, generator=generator, device=device) * (count - 1)
        return self._means[one] - self._means[first + (one - first + further.long()) % count]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of gathered batches.

    Attributes:
        settings: The amplitudes.
        values: Normalised spectra `(n, L)` that neighbour differences are taken from.
        pairs: Positions `(m, 2)` of neighbouring pixels.
        differences: What varies inside the classes of the training pixels.
    """

    settings: Settings
    values: Tensor
    pairs: Tensor
    differences: ClassDifferences

    def turn(self, neighbourhoods: Tensor, generator: torch.Generator) -> Tensor:
        """Turn and mirror each neighbourhood `(B, P²)` at random; the centre stays."""
        if not self.settings.turns_and_flips or neighbourhoods.shape[1] == 1:
            return neighbourhoods
        symmetries = _symmetries(self.settings.patch).to(neighbourhoods.device)  # (8, P²)
        chosen = torch.randint(8, (len(neighbourhoods),), generator=generator, device=neighbourhoods.device)
        return neighbourhoods.gather(1, symmetries[chosen])

    def change(self, spectra: Tensor, generator: torch.Generator, random: np.random.Generator) -> Tensor:
        """Change spectra `(B, P², L)`.

        Brightness, offset, differences inside classes and of neighbours, noise, blocks of bands set to zero.

        Args:
            spectra: They stay as they are; the changed ones are returned.
            generator: Draws all but the noise, on the spectra's device.
            random: Draws the noise on a CPU.
        """
        settings, (batch, _, bands), device = self.settings, spectra.shape, spectra.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        # Everything but the noise is one factor and one summand for each sample and band.
        factor = 1 + settings.brightness * (2 * uniform(batch, 1) - 1)  # (B, 1)
        shift = settings.offset * (2 * uniform(batch, 1) - 1)  # (B, 1)
        if settings.class_difference:
            share = settings.class_difference * (2 * uniform(batch, 1) - 1)
            shift = shift + share * self.differences.draw(batch, generator)  # (B, L)
        if settings.neighbour_difference and len(self.pairs):
            pairs = self.pairs[torch.randint(len(self.pairs), (batch,), generator=generator, device=device)]
            difference = self.values[pairs[:, 0]] - self.values[pairs[:, 1]]  # (B, L)
            sign = torch.where(uniform(batch, 1) < 0.5, -settings.neighbour_difference, settings.neighbour_difference)
            shift = shift + sign * difference
        kept = torch.ones(batch, 1, device=device)
        if settings.band_dropout:
            block = min(settings.band_block, bands)
            blocks = uniform(batch, -(-bands // block)) >= settings.band_dropout
            kept = blocks.repeat_interleave(block, 1)[:, :bands].float()  # (B, L)
        changed = torch.addcmul((kept * shift)[:, None], spectra, (kept * factor)[:, None])
        if settings.noise:
            noise = _normal(spectra.shape, device, generator, random)
            changed.addcmul_(noise, kept[:, None], value=settings.noise)
        return changed

    def mix(self, spectra: Tensor, targets: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mix each spectrum `(B, P², L)` and target `(B, K)` with another of the batch (mixup)."""
        if not self.settings.mixup:
            return spectra, targets
        weight = float(random.beta(self.settings.mixup, self.settings.mixup))
        other = torch.from_numpy(random.permutation(len(spectra))).to(spectra.device)
        return spectra.lerp(spectra[other], 1 - weight), targets.lerp(targets[other], 1 - weight)


def _normal(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator, random: np.random.Generator
) -> Tensor:
    """Draw normal numbers.

    On a CPU they are rounded to the 65 536 quantiles that 16 random bits choose from, in half the time of torch's own.
    """
    if device.type != "cpu":
        return torch.randn(shape, generator=generator, device=device)
    count = math.prod(shape)
    bits = random.integers(0, 1 << 64, -(-count // 4), np.uint64).view(np.uint16)[:count]
    return _quantiles().index_select(0, torch.from_numpy(bits).int()).view(shape)


@cache
def _quantiles() -> Tensor:
    """Return the standard normal distribution's quantiles at the middles of 65 536 equal shares."""
    return torch.special.ndtri((torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16)).float()


@cache
def _symmetries(patch: int) -> Tensor:
    """Return the positions `(8, P²)` that the square's eight symmetries send each pixel to."""
    square = torch.arange(patch * patch).view(patch, patch)
    turned = [torch.rot90(square, quarter) for quarter in range(4)]
    return torch.stack([view.flatten() for square_ in turned for view in (square_, square_.T)])
