"""The random numbers and changes of `draws` and `augmentation` as Triton kernels, for several seeds at once.

Letters besides the model's: V seeds, n training pixels of a seed, U scenes that differ by their normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spectralmamba.settings import Settings
from spectralmamba.training.augmentation import (
    NOISE_BITS,
    Augmentation,
    Draw,
    noise_words,
    quantiles,
    symmetries,
    words_of_sample,
)
from spectralmamba.training.draws import Purpose

_BANDS = 256  # a program of `_draw_kernel`
_BLOCKS = 64  # of four words, a program of `_gather_kernel`

_CHANGES: tl.constexpr = tl.constexpr(int(Purpose.CHANGES))
_NOISE: tl.constexpr = tl.constexpr(int(Purpose.NOISE))
_DROPOUT: tl.constexpr = tl.constexpr(int(Purpose.DROPOUT))
_DRAWS: tl.constexpr = tl.constexpr(len(Draw))
_NOISE_BITS: tl.constexpr = tl.constexpr(NOISE_BITS)
_NOISE_MASK: tl.constexpr = tl.constexpr((1 << NOISE_BITS) - 1)


@triton.jit
def _philox(block, step, call, seed, purpose):
    """Return the four words of a block (Philox 4×64-10), as `draws.words` has them."""
    c0 = block.to(tl.uint64) + 1
    c1 = tl.zeros_like(c0) + step.to(tl.uint64)
    c2 = tl.zeros_like(c0) + call
    c3 = tl.zeros_like(c0)
    k0 = tl.zeros_like(c0) + seed.to(tl.uint64)
    k1 = tl.zeros_like(c0) + purpose
    for _ in tl.static_range(10):  # pyright: ignore[reportGeneralTypeIssues]
        high0, low0 = tl.umulhi(c0, tl.full((), 0xD2E7470EE14C6C93, tl.uint64)), c0 * 0xD2E7470EE14C6C93
        high1, low1 = tl.umulhi(c2, tl.full((), 0xCA5A826395121157, tl.uint64)), c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += 0x9E3779B97F4A7C15
        k1 += 0xBB67AE8584CAA73B
    return c0, c1, c2, c3


@triton.jit
def _in_order(w0, w1, w2, w3, BLOCKS: tl.constexpr):
    """Return the words of blocks one after the other, `(BLOCKS, 4)`."""
    return tl.reshape(tl.permute(tl.join(tl.join(w0, w1), tl.join(w2, w3)), (0, 2, 1)), (BLOCKS, 4))


@triton.jit
def _uniform(word):
    return (word >> 40).to(tl.float32) * (1.0 / (1 << 24))


@triton.jit
def _below(word, limit):
    return ((word >> 32) * limit.to(tl.uint64) >> 32).to(tl.int64)


@triton.jit
def _draw_kernel(
    symmetry_ptr,
    changes_ptr,
    seeds_ptr,
    step_ptr,
    means_ptr,
    count_ptr,
    first_ptr,
    pixels_ptr,
    values_ptr,
    scene_ptr,
    pairs_ptr,
    pair_count_ptr,
    brightness,
    offset,
    class_difference,
    neighbour_difference,
    band_dropout,
    batch,
    bands,
    band_block,
    per_sample,
    most_pixels,
    most_pairs,
    scene_size,
    BLOCK: tl.constexpr,
):
    """Draw one sample's symmetry `(V, B)`, and its factor, shift and kept bands `(V, B, 3, L)`."""
    item = tl.program_id(0).to(tl.int64)  # (seed, sample)
    of_seed, sample = item // batch, item % batch
    seed, step = tl.load(seeds_ptr + of_seed), tl.load(step_ptr)
    band = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = band < bands
    first_block = sample * (per_sample // 4)
    turn, bright, shift, share = _philox(first_block, step, 0, seed, _CHANGES)
    word_of_one, word_of_other, word_of_pair, sign = _philox(first_block + 1, step, 0, seed, _CHANGES)
    tl.store(symmetry_ptr + item, (turn >> 61).to(tl.int64))
    factor = 1 + brightness * (2 * _uniform(bright) - 1)
    added = tl.zeros([BLOCK], tl.float32) + offset * (2 * _uniform(shift) - 1)
    if class_difference != 0:
        pixels = tl.load(pixels_ptr + of_seed)
        one = _below(word_of_one, pixels)
        count = tl.load(count_ptr + of_seed * most_pixels + one)
        begin = tl.load(first_ptr + of_seed * most_pixels + one)
        other = begin + (one - begin + 1 + _below(word_of_other, count - 1)) % count
        means = means_ptr + of_seed * most_pixels * bands + band
        difference = tl.load(means + one * bands, mask=there, other=0.0)
        difference -= tl.load(means + other * bands, mask=there, other=0.0)
        added += class_difference * (2 * _uniform(share) - 1) * difference
    scene = tl.load(scene_ptr + of_seed)
    pair_count = tl.load(pair_count_ptr + scene)
    if neighbour_difference != 0:
        if pair_count > 0:
            place = pairs_ptr + (scene * most_pairs + _below(word_of_pair, pair_count)) * 2
            values = values_ptr + scene * scene_size + band
            difference = tl.load(values + tl.load(place) * bands, mask=there, other=0.0)
            difference -= tl.load(values + tl.load(place + 1) * bands, mask=there, other=0.0)
            added += tl.where(_uniform(sign) < 0.5, -neighbour_difference, neighbour_difference) * difference
    word = _DRAWS + band // band_block
    w0, w1, w2, w3 = _philox(first_block + word // 4, step, 0, seed, _CHANGES)
    drawn = tl.where(word % 4 < 2, tl.where(word % 4 == 0, w0, w1), tl.where(word % 4 == 2, w2, w3))
    kept = tl.where(_uniform(drawn) < band_dropout, 0.0, 1.0)
    changes = changes_ptr + item * 3 * bands + band
    tl.store(changes, kept * factor, mask=there)
    tl.store(changes + bands, kept * added, mask=there)
    tl.store(changes + 2 * bands, kept, mask=there)


@triton.jit
def _gather_kernel(
    spectra_ptr,
    chosen_ptr,
    symmetry_ptr,
    changes_ptr,
    symmetries_ptr,
    neighbourhoods_ptr,
    seeds_ptr,
    step_ptr,
    values_ptr,
    scene_ptr,
    quantiles_ptr,
    noise,
    batch,
    band_units,
    area,
    words_a_sample,
    most_pixels,
    scene_size,
    UNIT: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Gather one sample's turned patch and change it, `(V, B, P², L)`; a program takes some blocks of random words."""
    bands = band_units * UNIT  # so that the compiler knows a divisor, and reads several at once
    item = tl.program_id(0).to(tl.int64)
    of_seed, sample = item // batch, item % batch
    seed, step = tl.load(seeds_ptr + of_seed), tl.load(step_ptr)
    block = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    w0, w1, w2, w3 = _philox(sample * (words_a_sample // 4) + block, step, 0, seed, _NOISE)
    PER_WORD: tl.constexpr = 64 // _NOISE_BITS
    PER_BLOCK: tl.constexpr = 4 * PER_WORD
    words = _in_order(w0, w1, w2, w3, BLOCKS)
    shifts = (tl.arange(0, PER_WORD) * _NOISE_BITS).to(tl.uint64)
    bits = tl.reshape(words[:, :, None] >> shifts[None, None, :], (BLOCKS, PER_BLOCK)) & _NOISE_MASK
    place = block[:, None] * PER_BLOCK + tl.arange(0, PER_BLOCK)[None, :]
    there = place < area * bands
    pixel, band = place // bands, place % bands
    chosen = tl.load(chosen_ptr + item)
    symmetry = tl.load(symmetry_ptr + item)
    pixel = tl.load(symmetries_ptr + symmetry * area + pixel, mask=there, other=0)
    position = tl.load(neighbourhoods_ptr + (of_seed * most_pixels + chosen) * area + pixel, mask=there, other=0)
    scene = tl.load(scene_ptr + of_seed)
    spectrum = tl.load(values_ptr + scene * scene_size + position * bands + band, mask=there, other=0.0)
    changes = changes_ptr + item * 3 * bands + band
    factor = tl.load(changes, mask=there, other=0.0)
    shift = tl.load(changes + bands, mask=there, other=0.0)
    changed = spectrum * factor + shift
    if noise != 0:
        kept = tl.load(changes + 2 * bands, mask=there, other=0.0)
        changed += noise * kept * tl.load(quantiles_ptr + bits.to(tl.int32), mask=there, other=0.0)
    tl.store(spectra_ptr + item * area * bands + place, changed, mask=there)


@triton.jit(do_not_specialize=["call"])
def _uniform_kernel(result_ptr, seeds_ptr, step_ptr, call, count, BLOCK: tl.constexpr):
    """Draw `count` numbers of each seed, `(V, count)`."""
    of_seed = tl.program_id(0).to(tl.int64)
    seed, step = tl.load(seeds_ptr + of_seed), tl.load(step_ptr)
    block = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    w0, w1, w2, w3 = _philox(block, step, call.to(tl.uint64), seed, _DROPOUT)
    words = _in_order(w0, w1, w2, w3, BLOCK)
    place = block[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(result_ptr + of_seed * count + place, _uniform(words), mask=place < count)


@dataclass(frozen=True)
class JointBatches:
    """What the batches of several seeds are made of; tensors on the device, shorter ones filled up with zeros.

    Attributes:
        settings: But for the seed.
        seeds: `(V,)` int64.
        step: The step that is drawn for, `(1,)` int64.
        values: Normalised spectra `(U, N, L)`.
        scene: Which of them each seed has, `(V,)` int64.
        pairs: Positions of neighbouring pixels `(U, m, 2)` int64.
        pair_count: How many there are, `(U,)` int64.
        neighbourhoods: `(V, n, P²)` int64.
        means: `(V, n, L)`, `count`, `first`: `(V, n)` int64, as `ClassDifferences` has them.
        pixels: n of each seed, `(V,)` int64.
    """

    settings: Settings
    seeds: Tensor
    step: Tensor
    values: Tensor
    scene: Tensor
    pairs: Tensor
    pair_count: Tensor
    neighbourhoods: Tensor
    means: Tensor
    count: Tensor
    first: Tensor
    pixels: Tensor
    symmetries: Tensor
    quantiles: Tensor

    @classmethod
    def of(cls, augmentations: list[Augmentation], neighbourhoods: list[Tensor], step: Tensor) -> JointBatches:
        """Put the augmentations and training patches `(n, P²)` of several seeds side by side."""
        device, settings = step.device, augmentations[0].settings
        scenes: list[Augmentation] = []
        scene: list[int] = []
        for each in augmentations:
            known = [number for number, other in enumerate(scenes) if other.values is each.values]
            scene.append(known[0] if known else len(scenes))
            scenes += [] if known else [each]
        differences = [each.differences for each in augmentations]
        counts = [len(each) for each in neighbourhoods]
        identity = torch.arange(settings.patch**2).repeat(8, 1)
        turned = symmetries(settings.patch) if settings.turns_and_flips else identity
        return cls(
            settings=settings,
            seeds=torch.tensor([each.settings.seed for each in augmentations], device=device),
            step=step,
            values=_stacked([each.values for each in scenes]),
            scene=torch.tensor(scene, device=device),
            pairs=_stacked([each.pairs for each in scenes]),
            pair_count=torch.tensor([len(each.pairs) for each in scenes], device=device),
            neighbourhoods=_stacked(neighbourhoods),
            means=_stacked([each.means for each in differences]),
            count=_stacked([each.count for each in differences]),
            first=_stacked([each.first for each in differences]),
            pixels=torch.tensor(counts, device=device),
            symmetries=turned.to(device),
            quantiles=quantiles().to(device),
        )

    def gathered(self, chosen: Tensor) -> Tensor:
        """Return the changed batches `(V, B, P², L)` of the training pixels `(V, B)` int64."""
        settings, (seeds, batch), (_, pixels, bands) = self.settings, chosen.shape, self.values.shape
        _, most, area = self.neighbourhoods.shape
        block, per_sample = words_of_sample(settings, bands)
        symmetry = torch.empty_like(chosen)
        changes = self.values.new_empty(seeds, batch, 3, bands)
        spectra = self.values.new_empty(seeds, batch, area, bands)
        draw: Any = _draw_kernel
        draw[(seeds * batch, triton.cdiv(bands, _BANDS))](
            symmetry, changes, self.seeds, self.step, self.means, self.count, self.first, self.pixels, self.values,
            self.scene, self.pairs, self.pair_count,
            settings.brightness, settings.offset, settings.class_difference, settings.neighbour_difference,
            settings.band_dropout, batch, bands, block, per_sample, most, self.pairs.shape[1], pixels * bands,
            BLOCK=_BANDS,
        )  # fmt: skip
        words, unit = noise_words(area * bands), 4 if bands % 4 == 0 else 1
        gather: Any = _gather_kernel
        gather[(seeds * batch, triton.cdiv(words // 4, _BLOCKS))](
            spectra, chosen, symmetry, changes, self.symmetries, self.neighbourhoods, self.seeds, self.step, self.values,
            self.scene, self.quantiles, settings.noise, batch, bands // unit, area, words, most, pixels * bands,
            UNIT=unit, BLOCKS=_BLOCKS,
        )  # fmt: skip
        return spectra

    def uniform(self, call: int, shape: torch.Size) -> Tensor:
        """Return the numbers in [0, 1) of a call of dropout, `(V, *shape)`."""
        result = self.values.new_empty(len(self.seeds), *shape)
        count = shape.numel()
        draw: Any = _uniform_kernel
        draw[(len(self.seeds), triton.cdiv(count, 4 * 128))](result, self.seeds, self.step, call, count, BLOCK=128)
        return result


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Stack tensors that differ in their first dimension, filled up with zeros."""
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
