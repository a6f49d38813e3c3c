from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power
from torch import Tensor

from spectralmamba import transforms
from spectralmamba.settings import Settings
from spectralmamba.transforms import InputTransform, learn_transform

EPSILON = 0.03


def correlated(pixels: int = 400, bands: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Spectra (n, L) with correlated noise, the same truth in pixels 2i and 2i + 1, and those pairs."""
    random = np.random.default_rng(seed)
    truth = np.repeat(random.normal(size=(pixels // 2, bands)), 2, axis=0)
    noise = random.normal(size=(pixels, bands)) @ random.normal(size=(bands, bands)) * 0.3
    values = torch.from_numpy((truth + noise) * np.logspace(-3, 4, bands) + 50)
    return values.float(), torch.arange(pixels).view(-1, 2)


def learned(
    values: Tensor, pairs: Tensor, statistics: Tensor | None = None, method: str = "whitening"
) -> InputTransform:
    statistics = torch.arange(len(values)) if statistics is None else statistics
    return learn_transform(values, statistics, pairs, Settings(normalisation=method, whitening_epsilon=EPSILON))


def noise_of(values: Tensor, pairs: Tensor) -> Tensor:
    difference = (values[pairs[:, 0]] - values[pairs[:, 1]]).double()
    return difference.mT @ difference / (2 * len(pairs))


def test_whitening_makes_the_noise_white_but_for_epsilon_and_then_standardises():
    values, pairs = correlated()
    transform = learned(values, pairs)
    standardised = ((values - transform.mean) * transform.inverse_sd).double()
    noise = noise_of(standardised, pairs)
    root = torch.from_numpy(fractional_matrix_power((noise + EPSILON * torch.eye(6)).numpy(), -0.5))
    assert torch.equal(root, root.mT) or (root - root.mT).abs().max() < 1e-10  # the symmetric root, in float64
    # Whitened differences have R N R = I − ε R² for their mean of d dᵀ / 2.
    left = noise_of(standardised @ root, pairs)
    torch.testing.assert_close(left, torch.eye(6).double() - EPSILON * root @ root, rtol=0, atol=1e-8)
    scale = 1 / (standardised @ root).std(0, correction=0)
    # float32 buffers: 6e-8 times factors of up to some tens.
    torch.testing.assert_close(transform.matrix.double(), root * scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["standard", "whitening"])
def test_statistics_pixels_come_out_with_mean_zero_and_standard_deviation_one(method: str):
    values, pairs = correlated()
    statistics = torch.arange(50, 300)
    found = learned(values, pairs, statistics, method)(values)[statistics]
    # 6 sums of float32 after subtracting a mean of up to 1e4 standard deviations.
    torch.testing.assert_close(found.mean(0), torch.zeros(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(6), rtol=0, atol=1e-4)


def test_without_neighbours_whitening_is_standardisation():
    values, pairs = correlated()
    whitened, standard = (learned(values, pairs[:0], method=method)(values) for method in ("whitening", "standard"))
    torch.testing.assert_close(whitened, standard, rtol=0, atol=1e-5)  # ε's root and back in float32


def test_fewer_pixels_than_bands_give_finite_spectra():
    values, pairs = correlated(pixels=4, bands=30)
    assert learned(values, pairs)(values).isfinite().all()


@pytest.mark.parametrize("method", ["standard", "whitening"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e-3, 12345.678, -1e30])
def test_a_band_that_is_constant_where_statistics_are_learned_is_not_blown_up(constant: float, method: str):
    values, pairs = correlated()
    values[:, 2] = constant
    transform = learned(values, pairs, torch.arange(7), method)
    found = transform(values)
    assert found.isfinite().all()
    assert transform.inverse_sd[2] == 1
    # What such a band adds elsewhere grows by no more than the whitening's largest factor, ε^−½ = 5.8.
    assert transform.matrix[2].abs().max() < 6
    assert found[:, 2].abs().max() < 1e-3 * max(1, abs(constant))  # float32's rounding of the constant


@pytest.mark.parametrize("method", ["standard", "whitening"])
def test_a_single_statistics_pixel_gives_finite_spectra(method: str):
    values, pairs = correlated()
    assert learned(values, pairs[:0], torch.tensor([3]), method)(values).isfinite().all()


def test_denormal_values_give_finite_spectra():
    values, pairs = correlated()
    assert learned(values * 1e-42, pairs)(values * 1e-42).isfinite().all()


def test_statistics_of_a_large_scene_come_from_evenly_spread_pixels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transforms, "_STATISTICS_SAMPLE", 100)
    values, pairs = correlated(400)
    spread = learned(values, pairs)
    monkeypatch.undo()
    expected = learned(values, pairs[::2], torch.arange(0, 400, 4))
    assert all(torch.equal(a, b) for a, b in zip(spread.buffers(), expected.buffers(), strict=True))


def test_the_transform_is_not_trained():
    assert not list(InputTransform(4).parameters())
    values = torch.randn(5, 4)
    assert torch.equal(InputTransform(4)(values), values)
