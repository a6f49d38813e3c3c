from __future__ import annotations

import numpy as np
import pytest
import torch

from spectralmamba.evaluation import evaluate
from spectralmamba.experiments.simple import FittedSimple, Simple, profiles, read_pixels
from spectralmamba.pixels import Pixels


@pytest.mark.parametrize("kind", ["svm", "random_forest"])
@pytest.mark.parametrize("features", ["pixels", "means", "profiles"])
def test_simple_classifiers_learn(kind, features, small_scene, small_labels, small_split):
    simple = Simple(kind, features, 3, "whitened")
    fitted = FittedSimple(simple, read_pixels(small_scene), small_labels, small_split, 0)
    mapped = fitted.map(np.ones(small_labels.shape, bool))
    valid = np.isfinite(small_scene.values[small_scene["good"].values]).all(0)
    np.testing.assert_array_equal(mapped > 0, valid)
    assert evaluate(mapped, small_labels, where=small_split.test).overall_accuracy > 0.5
    assert fitted.tuned["trials"] == {"svm": 16, "random_forest": 4}[kind]


def test_profiles_hold_the_components_and_take_away_narrow_parts():
    image = np.zeros((15, 15), np.float32)
    image[3, 3] = 5  # narrower than any disk
    image[8:14, 8:14] = 5  # wider than the disk of radius 1
    pixels = Pixels.of_image(torch.from_numpy(image)[..., None], torch.ones(15, 15, dtype=torch.bool))
    found = profiles(pixels, np.ones((15, 15), bool)).reshape(15, 15, -1)
    component, opened, closed = found[..., 0], found[..., 1], found[..., 2]
    assert found.shape[2] == 1 + 2 * 4
    background = component[0, 0]
    sides = (opened, closed) if component[3, 3] > background else (closed, opened)
    assert sides[0][3, 3] == pytest.approx(background)
    np.testing.assert_allclose(sides[0][8:14, 8:14], component[8:14, 8:14])
    np.testing.assert_allclose(sides[1], component)
