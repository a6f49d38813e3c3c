from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from spectralmamba.settings import Settings
from spectralmamba.training.augmentation import Augmentation, ClassDifferences
from spectralmamba.training.draws import Purpose, words

OFF = {
    "brightness": 0,
    "offset": 0,
    "noise": 0,
    "neighbour_difference": 0,
    "class_difference": 0,
    "band_dropout": 0,
    "mixup": 0,
}
OFF |= {"turns_and_flips": False}
NO_DIFFERENCES = ClassDifferences(torch.zeros(2, 20), torch.tensor([0, 1]))


def make(**changes: object) -> Augmentation:
    values = torch.randn(10, 20, generator=torch.Generator().manual_seed(1))
    return Augmentation(Settings().replace(**(OFF | changes)), values, torch.tensor([[0, 1], [2, 3]]), NO_DIFFERENCES)


def changed(spectra: Tensor, **changes: object) -> Tensor:
    return change(make(**changes), spectra)


def change(augmentation: Augmentation, spectra: Tensor, step: int = 0) -> Tensor:
    return augmentation.change(spectra, augmentation.draw(len(spectra), step), step)


def turn(augmentation: Augmentation, neighbourhoods: Tensor) -> Tensor:
    return augmentation.turn(neighbourhoods, augmentation.draw(len(neighbourhoods), 0))


@pytest.fixture
def spectra() -> Tensor:
    return torch.randn(64, 9, 20, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("patch", [3, 5])
def test_turns_and_flips_are_the_eight_symmetries_of_the_square_about_its_centre(patch: int):
    square = torch.arange(patch * patch).repeat(400, 1)
    turned = turn(make(patch=patch, turns_and_flips=True), square)
    assert (turned[:, patch * patch // 2] == patch * patch // 2).all()
    views = {tuple(row) for row in turned.tolist()}
    assert len(views) == 8
    place = np.indices((patch, patch)).reshape(2, -1)
    for view in views:
        assert sorted(view) == list(range(patch * patch))
        # Symmetries keep distances: neighbours stay neighbours.
        moved = place[:, list(view)]
        before, after = (((p[:, :, None] - p[:, None]) ** 2).sum(0) for p in (place, moved))
        np.testing.assert_array_equal(before, after)


def test_patches_are_not_turned_if_not_asked_for_or_if_they_are_one_pixel():
    square = torch.arange(9).repeat(5, 1)
    assert turn(make(patch=3), square) is square
    single = square[:, :1]
    assert turn(make(patch=1, turns_and_flips=True), single) is single


def test_no_amplitude_is_no_change(spectra: Tensor):
    assert torch.equal(changed(spectra), spectra)
    targets = torch.eye(4)[torch.arange(64) % 4]
    mixed, mixed_targets = make().mix((spectra, targets), 0)
    assert torch.equal(mixed, spectra)
    assert torch.equal(mixed_targets, targets)


def test_brightness_and_offset_are_one_number_a_patch_within_their_amplitude(spectra: Tensor):
    ratio = changed(spectra, brightness=0.2) / spectra
    assert (ratio.amax((1, 2)) - ratio.amin((1, 2))).max() < 1e-5  # one division's rounding
    assert ratio.sub(1).abs().max() <= 0.2 + 1e-6
    assert ratio.std() > 0.05
    added = changed(spectra, offset=0.3) - spectra
    assert (added.amax((1, 2)) - added.amin((1, 2))).max() < 1e-5
    assert added.abs().max() <= 0.3 + 1e-5


def test_noise_has_its_standard_deviation(spectra: Tensor):
    added = changed(spectra, noise=0.5) - spectra
    # 11 520 normal values: the standard error of their standard deviation is 0.5 / √23 040 = 0.0033; five of them.
    assert added.std().item() == pytest.approx(0.5, abs=0.017)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (2, 9, 7), (64, 9, 20)])
def test_every_number_of_values_gets_noise_of_its_own(shape: tuple[int, ...]):
    added = changed(torch.zeros(shape), noise=1)
    assert added.shape == shape
    assert added.count_nonzero() == added.numel()
    # Of 65 536 quantiles, 11 520 draws meet about 1000 twice.
    assert len(added.unique()) > 0.9 * added.numel()


def test_noise_is_normally_distributed_and_independent():
    added = changed(torch.zeros(100, 49, 204), noise=1).double()
    count = added.numel()
    # A million normal numbers; each bound is five standard errors.
    assert added.mean().abs() < 5 / count**0.5
    assert (added.square().mean() - 1).abs() < 5 * (2 / count) ** 0.5
    assert (added**3).mean().abs() < 5 * (15 / count) ** 0.5
    assert ((added**4).mean() - 3).abs() < 5 * (96 / count) ** 0.5
    for lag in (1, 2, 3, 4, 204):
        flat = added.flatten()
        assert (flat[lag:] * flat[:-lag]).mean().abs() < 5 / count**0.5
    below = (added.flatten()[:, None] < torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0])).double().mean(0)
    share = torch.special.ndtr(torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]).double())
    # The rounding to 2^-16 shares comes on top.
    assert ((below - share).abs() < 5 * (share * (1 - share) / count) ** 0.5 + 2**-16).all()


def test_spectra_are_changed_in_a_copy(spectra: Tensor):
    before = spectra.clone()
    changed(spectra, brightness=0.1, offset=0.1, noise=0.1, neighbour_difference=0.5, band_dropout=0.2)
    assert torch.equal(spectra, before)


def test_all_changes_together_are_those_one_after_the_other():
    spectra = torch.randn(4000, 1, 20, generator=torch.Generator().manual_seed(5))
    augmentation = make(brightness=0.2, offset=0.3, noise=0.4, neighbour_difference=0.5, band_dropout=0.25)
    found = change(augmentation, spectra)
    kept = found != 0
    # 4000 samples of four blocks, of 20 bands: five standard errors.
    assert kept.float().mean().item() == pytest.approx(0.75, abs=5 * (0.25 * 0.75 / 16_000) ** 0.5 * 1.1)
    values = augmentation.values
    differences = torch.stack([values[0] - values[1], values[2] - values[3]]) / 2  # (2, L)
    # Uniform in ±a has variance a² / 3; either sign of either pair is as likely.
    variance = 0.2**2 / 3 * spectra.square().mean() + 0.3**2 / 3 + differences.square().mean() + 0.4**2
    moved = (found - spectra)[kept]
    assert moved.mean().abs().item() < 0.05
    assert moved.square().mean().item() == pytest.approx(variance.item(), rel=0.05)


def test_a_neighbour_difference_is_that_of_a_pair_with_either_sign(spectra: Tensor):
    augmentation = make(neighbour_difference=0.5)
    added = change(augmentation, spectra) - spectra
    values = augmentation.values
    possible = torch.stack([s * (values[a] - values[b]) / 2 for a, b in ((0, 1), (2, 3)) for s in (1, -1)])
    distance = (added[:, 0, None] - possible).abs().amax(-1)  # (B, 4)
    assert distance.amin(1).max() < 1e-5  # a float32 sum and difference of size 1
    assert set(distance.argmin(1).tolist()) == {0, 1, 2, 3}
    assert (added - added[:, :1]).abs().max() < 1e-5


def test_without_pairs_there_is_no_neighbour_difference(spectra: Tensor):
    augmentation = make(neighbour_difference=0.5)
    alone = Augmentation(augmentation.settings, augmentation.values, augmentation.pairs[:0], augmentation.differences)
    assert torch.equal(change(alone, spectra), spectra)


def test_bands_are_dropped_as_whole_blocks_in_the_whole_patch(spectra: Tensor):
    found = changed(spectra, band_dropout=0.5, band_block=6)
    zero = (found == 0).all(1)  # (B, L)
    assert torch.equal(zero, (found == 0).any(1))
    assert torch.equal(found[~zero[:, None].expand_as(found)], spectra[~zero[:, None].expand_as(found)])
    for block in (slice(0, 6), slice(6, 12), slice(12, 18), slice(18, 20)):
        assert torch.equal(zero[:, block].any(1), zero[:, block].all(1))
        # 64 draws of ½: five standard errors are 0.31.
        assert zero[:, block][:, 0].float().mean().item() == pytest.approx(0.5, abs=0.31)


def test_a_block_wider_than_the_spectrum_is_the_spectrum(spectra: Tensor):
    zero = changed(spectra, band_dropout=0.5, band_block=10**12) == 0
    assert torch.equal(zero.flatten(1).any(1), zero.flatten(1).all(1))
    assert 0 < zero[:, 0, 0].sum() < 64


def test_mixup_keeps_each_target_a_distribution_and_mixes_spectra_alike(spectra: Tensor):
    targets = torch.eye(64)
    mixed, shares = make(mixup=0.4).mix((spectra, targets), 0)
    torch.testing.assert_close(shares.sum(1), torch.ones(64), rtol=0, atol=1e-6)  # two summands in float32
    assert shares.min() >= 0
    expected = torch.einsum("bc,cpl->bpl", shares, spectra)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-5)


def test_the_same_seed_and_step_change_alike_and_others_otherwise(spectra: Tensor):
    settings = {"brightness": 0.1, "offset": 0.1, "noise": 0.1, "neighbour_difference": 0.5, "band_dropout": 0.2}
    once = changed(spectra, **settings)
    assert torch.equal(changed(spectra, **settings), once)
    assert not torch.equal(changed(spectra, seed=1, **settings), once)
    assert not torch.equal(change(make(**settings), spectra, step=1), once)
    targets = torch.eye(64)
    shares = [make(mixup=0.4, seed=seed).mix((spectra, targets), step)[1] for seed, step in ((0, 0), (1, 0), (0, 1))]
    assert torch.equal(make(mixup=0.4).mix((spectra, targets), 0)[1], shares[0])
    assert not torch.equal(shares[0], shares[1])
    assert not torch.equal(shares[0], shares[2])


def test_what_happens_to_a_sample_does_not_depend_on_how_many_come_after_it(spectra: Tensor):
    augmentation = make(brightness=0.1, offset=0.1, noise=0.1, neighbour_difference=0.5, band_dropout=0.2)
    assert torch.equal(change(augmentation, spectra)[:5], change(augmentation, spectra[:5]))


def test_class_differences_are_between_pixels_of_one_class():
    targets = torch.tensor([2, 0, 1, 0, 2, 2])
    means = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    drawn = ClassDifferences(means, targets).draw(*words(0, Purpose.CHANGES, 1000).reshape(2, 500))
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j and targets[i] == targets[j]]
    allowed = [means[i] - means[j] for i, j in pairs] + [torch.zeros(4)]  # zero: the class of one pixel
    seen = {next(k for k, difference in enumerate(allowed) if torch.equal(difference, row)) for row in drawn}
    assert len(seen) == len(allowed) == 9


def test_a_class_difference_moves_the_whole_patch_alike(spectra: Tensor):
    settings = Settings().replace(**(OFF | {"class_difference": 1.0}))
    differences = ClassDifferences(
        torch.randn(4, 20, generator=torch.Generator().manual_seed(4)), torch.tensor([0, 0, 1, 1])
    )
    augmentation = Augmentation(settings, torch.zeros(1, 20), torch.zeros(0, 2, dtype=torch.long), differences)
    moved = change(augmentation, spectra) - spectra
    # Rounding of a sum of numbers of size 1.
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), rtol=0, atol=1e-5)
    assert moved.abs().max() > 0.1
