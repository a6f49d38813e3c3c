from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from spectralmamba import Classifier, Split
from spectralmamba.explanations import MOST_EXPLAINED, choose_pixels, explain, pixel_values
from spectralmamba.models.committee import Committee
from spectralmamba.pixels import Pixels, as_input
from spectralmamba.report.pixel_files import LEVELS


def test_effects_are_what_the_class_loses_without_a_block(
    classifier: Classifier, small_scene: xr.DataArray, small_split: Split
):
    found = explain(classifier, small_scene, small_split.test)
    pixels = Pixels.from_scene(small_scene, classifier.bands)
    positions = pixels.at(small_split.test)
    assert found.effects.shape == (len(positions), len(found.first)) == (len(found.rows), len(classifier.bands))
    seen = classifier.transform(pixels.values)
    mean = classifier.transform(classifier.transform.mean[None])[0]
    whole = classifier.probabilities(pixels, positions)
    assert found.classes.tolist() == classifier.classes[whole.argmax(1).numpy()].tolist()
    for block in (0, 7, 16):
        without = seen.clone()
        without[:, block] = mean[block]
        patches = pixels.with_values(without).gathered(pixels.neighbourhoods(positions, classifier.patch))
        with torch.inference_mode():
            left = classifier.network(as_input(patches)).softmax(1)
        expected = (whole - left).gather(1, whole.argmax(1, keepdim=True))[:, 0]
        assert found.effects[:, block] == pytest.approx(
            expected.numpy(), abs=1e-5
        )  # batches of other sizes round otherwise


def test_a_band_that_the_network_does_not_look_at_has_no_effect(
    classifier: Classifier, small_scene: xr.DataArray, small_split: Split
):
    torch.nn.init.zeros_(classifier.transform.matrix[:, 4])
    torch.nn.init.zeros_(classifier.transform.offset[4:5])
    found = explain(classifier, small_scene, small_split.test)
    assert np.abs(found.effects[:, 4]).max() == 0
    assert np.abs(found.effects).max() > 0


def test_the_gate_of_a_patch_is_the_network_s_own_averaged_over_the_bands(
    classifier: Classifier, small_scene: xr.DataArray, small_split: Split
):
    found = explain(classifier, small_scene, small_split.test)
    network = classifier.network.network if isinstance(classifier.network, Committee) else classifier.network
    patch = torch.randn(2, len(classifier.bands), 3, 3)
    with torch.inference_mode():
        gates = network.merging.gates(patch)
        merged = (gates * patch.permute(0, 2, 3, 1)).sum((1, 2)) * 2 / 9
        assert torch.allclose(network.merging(patch), merged, atol=1e-6)
    assert found.gates.shape == (len(found.rows), 3, 3)
    assert ((found.gates > 0) & (found.gates < 1)).all()


def test_blocks_do_not_reach_over_bands_that_are_not_used(
    classifier: Classifier, small_scene: xr.DataArray, small_split: Split, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("spectralmamba.explanations.MOST_BLOCKS", 4)
    found = explain(classifier, small_scene, small_split.test)
    assert np.diff(classifier.bands).max() > 1
    covered = [number for first, last in zip(found.first, found.last, strict=True) for number in range(first, last + 1)]
    assert covered == (classifier.bands + 1).tolist()
    assert 4 <= len(found.first) < len(covered)
    assert found.effects.shape[1] == len(found.first)


def test_no_pixel_gives_an_empty_answer(classifier: Classifier, small_scene: xr.DataArray):
    found = explain(classifier, small_scene, np.zeros(small_scene.shape[1:], bool))
    assert len(found.rows) == len(found.classes) == len(found.effects) == 0


def test_half_of_the_chosen_pixels_are_wrong_ones_where_there_are_enough():
    tested, wrong = np.ones((40, 40), bool), np.zeros((40, 40), bool)
    wrong[:, :10] = True
    chosen = choose_pixels(tested, wrong)
    assert chosen.sum() == MOST_EXPLAINED
    assert (chosen & wrong).sum() == MOST_EXPLAINED // 2
    few = np.zeros((40, 40), bool)
    few[3, :7] = True
    assert (choose_pixels(tested, few) & few).sum() == 7
    assert choose_pixels(tested, few).sum() == MOST_EXPLAINED
    assert choose_pixels(few, few).sum() == 7
    rows, columns = np.nonzero(choose_pixels(tested, wrong, step=3))
    assert not (rows % 3).any()
    assert not (columns % 3).any()


def test_every_nth_pixel_has_the_values_of_the_whole_scene(
    classifier: Classifier, small_scene: xr.DataArray, monkeypatch: pytest.MonkeyPatch, small_blocks: int
):
    whole = pixel_values(classifier, small_scene)
    monkeypatch.setattr("spectralmamba.explanations.find_step", lambda *_: 3)
    found = pixel_values(classifier, small_scene)
    assert found.levels.shape == (4, 4, 17)
    expected = whole.probabilities[::3, ::3] / LEVELS
    assert found.probabilities / LEVELS == pytest.approx(expected, abs=2 / LEVELS)
