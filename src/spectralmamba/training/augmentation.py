"""What training changes in a batch, in the units of the normalised bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from spectralmamba.settings import Settings
from spectralmamba.training.draws import Purpose, below, generator, uniform, words


class Draw(IntEnum):
    """The random words of a sample, one for each number that decides a change; those of its blocks of bands follow."""

    TURN = 0
    BRIGHTNESS = 1
    OFFSET = 2
    SHARE = 3
    ONE = 4
    OTHER = 5
    PAIR = 6
    SIGN = 7


NOISE_BITS = 16  # of a random word that choose a normal number


class ClassDifferences:
    """Differences between training pixels of one class.

    With few labels they are all that is known of how a class varies over the scene. Added to pixels of every class, they teach
    the network to look away from these directions, as a linear discriminant does with the pooled covariance.

    Attributes:
        means: Mean spectra of the training patches `(n, L)`, class after class.
        count: Number of patches in the class of each, `(n,)`.
        first: Where that class begins, `(n,)`.
    """

    def __init__(self, means: Tensor, targets: Tensor) -> None:
        """Sort mean spectra `(n, L)` by the index of their class, `(n,)`."""
        order = torch.argsort(targets, stable=True)
        counts = torch.bincount(targets)
        self.means = means[order]
        self.count = counts.repeat_interleave(counts)
        self.first = (counts.cumsum(0) - counts).repeat_interleave(counts)

    @cached_property
    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        return self.count.cpu().numpy(), self.first.cpu().numpy()

    def draw(self, one: np.ndarray, other: np.ndarray) -> Tensor:
        """Return differences `(B, L)`: any training pixel minus another of its class, zero where there is none.

        Args:
            one: Random words `(B,)` that choose the first.
            other: Random words `(B,)` that choose the second.
        """
        count, first = self._classes
        one = below(one, len(count))
        step = 1 + below(other, count[one] - 1)
        other = first[one] + (one - first[one] + step) % count[one]
        device = self.means.device
        return self.means[torch.from_numpy(one).to(device)] - self.means[torch.from_numpy(other).to(device)]


@dataclass(frozen=True)
class Changes:
    """What is done to each sample of a batch.

    Attributes:
        symmetry: Which of the square's eight symmetries turns the patch, `(B,)` int64.
        factor: What its spectra are multiplied with, `(B, 1)` or `(B, L)`.
        shift: What is then added to them, `(B, 1)` or `(B, L)`.
        kept: 0 where bands are dropped, else 1, `(B, 1)` or `(B, L)`.
    """

    symmetry: Tensor
    factor: Tensor
    shift: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random changes of gathered batches, which follow from the seed and the step.

    Attributes:
        settings: The seed and the amplitudes.
        values: Normalised spectra `(n, L)` that neighbour differences are taken from.
        pairs: Positions `(m, 2)` of neighbouring pixels.
        differences: What varies inside the classes of the training pixels.
    """

    settings: Settings
    values: Tensor
    pairs: Tensor
    differences: ClassDifferences

    def draw(self, batch: int, step: int) -> Changes:
        """Draw what is done to the samples of a step."""
        settings, device, bands = self.settings, self.values.device, self.values.shape[1]
        block, per_sample = words_of_sample(settings, bands)
        drawn = words(settings.seed, Purpose.CHANGES, batch * per_sample, step=step).reshape(batch, per_sample)

        def amplitude(what: Draw, most: float) -> Tensor:
            return most * (2 * torch.from_numpy(uniform(drawn[:, what, None])).to(device) - 1)  # (B, 1)

        factor = 1 + amplitude(Draw.BRIGHTNESS, settings.brightness)
        shift = amplitude(Draw.OFFSET, settings.offset)
        if settings.class_difference:
            difference = self.differences.draw(drawn[:, Draw.ONE], drawn[:, Draw.OTHER])
            shift = shift + amplitude(Draw.SHARE, settings.class_difference) * difference
        if settings.neighbour_difference and len(self.pairs):
            pairs = self.pairs[torch.from_numpy(below(drawn[:, Draw.PAIR], len(self.pairs))).to(device)]
            positive, size = amplitude(Draw.SIGN, 1) >= 0, settings.neighbour_difference
            shift = shift + torch.where(positive, size, -size) * (self.values[pairs[:, 0]] - self.values[pairs[:, 1]])
        kept = torch.ones(batch, 1, device=device)
        if settings.band_dropout:
            dropped = uniform(drawn[:, len(Draw) :]) < np.float32(settings.band_dropout)
            kept = torch.from_numpy(np.repeat(~dropped, block, 1)[:, :bands].astype(np.float32)).to(device)
        symmetry = torch.from_numpy(below(drawn[:, Draw.TURN], 8)).to(device)
        return Changes(symmetry, factor, shift, kept)

    def turn(self, neighbourhoods: Tensor, changes: Changes) -> Tensor:
        """Turn and mirror each neighbourhood `(B, P²)`; the centre stays."""
        if not self.settings.turns_and_flips or neighbourhoods.shape[1] == 1:
            return neighbourhoods
        return neighbourhoods.gather(1, symmetries(self.settings.patch).to(neighbourhoods.device)[changes.symmetry])

    def change(self, spectra: Tensor, changes: Changes, step: int) -> Tensor:
        """Return changed spectra `(B, P², L)`, with noise."""
        kept = changes.kept
        changed = torch.addcmul((kept * changes.shift)[:, None], spectra, (kept * changes.factor)[:, None])
        if self.settings.noise:
            noise = self._noise(spectra.shape, step).to(spectra.device)
            changed.addcmul_(noise, kept[:, None], value=self.settings.noise)
        return changed

    def mix(self, parts: Sequence[Tensor], step: int) -> list[Tensor]:
        """Mix what belongs to each sample, tensors `(B, …)`, with that of another of the batch (mixup)."""
        if not self.settings.mixup:
            return list(parts)
        share, order = self.mixture(len(parts[0]), step)
        other = torch.from_numpy(order).to(parts[0].device)
        return [part.lerp(part[other], 1 - share) for part in parts]

    def mixture(self, batch: int, step: int) -> tuple[float, np.ndarray]:
        """Draw the share that samples keep in a step, and which other each is mixed with, `(B,)`."""
        random = generator(self.settings.seed, Purpose.MIXUP, step=step)
        return float(random.beta(self.settings.mixup, self.settings.mixup)), random.permutation(batch)

    def _noise(self, shape: torch.Size, step: int) -> Tensor:
        """Draw normal numbers on the CPU, rounded to 65 536 quantiles: half the time of torch's own."""
        batch, values = shape[0], math.prod(shape[1:])
        per_sample = noise_words(values)
        drawn = words(self.settings.seed, Purpose.NOISE, batch * per_sample, step=step).view(np.uint16)
        noise = quantiles().index_select(0, torch.from_numpy(drawn).int()).view(batch, -1)
        return noise[:, :values].view(shape)


def words_of_sample(settings: Settings, bands: int) -> tuple[int, int]:
    """Return the width of a block of bands, and the random words of a sample: whole blocks of four."""
    block = min(settings.band_block, bands)
    return block, len(Draw) + -(-bands // (4 * block)) * 4


def noise_words(values: int) -> int:
    """Return the random words for the noise of a sample of so many values: whole blocks of four."""
    per_block = 4 * 64 // NOISE_BITS
    return -(-values // per_block) * 4


@cache
def quantiles() -> Tensor:
    """Return the standard normal distribution's quantiles at the middles of 65 536 equal shares."""
    count = 1 << NOISE_BITS
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count).float()


@cache
def symmetries(patch: int) -> Tensor:
    """Return the positions `(8, P²)` that the square's eight symmetries send each pixel to."""
    square = torch.arange(patch * patch).view(patch, patch)
    turned = [torch.rot90(square, quarter) for quarter in range(4)]
    return torch.stack([view.flatten() for square_ in turned for view in (square_, square_.T)])
