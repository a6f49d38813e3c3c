from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from spectralmamba import Settings, fit, recommend_settings, split_random
from spectralmamba.errors import LabelError

BANDS, CLASSES, SIDE = 12, 3, 48


def make(patchwork: bool, noise: float) -> tuple[xr.DataArray, xr.DataArray]:
    """Make a scene of fields of 12 × 12 pixels, or one where each pixel has a class of its own, and its labels."""
    generator = np.random.default_rng(0)
    fields = generator.integers(1, CLASSES + 1, (SIDE // 12, SIDE // 12)).repeat(12, 0).repeat(12, 1)
    ids = fields if patchwork else generator.integers(1, CLASSES + 1, (SIDE, SIDE))
    ids[0, :CLASSES] = range(1, CLASSES + 1)  # every class occurs
    spectra = generator.normal(0, 1, (CLASSES + 1, BANDS))
    values = spectra[ids] + noise * generator.normal(0, 1, (SIDE, SIDE, BANDS))
    unknown = np.full(BANDS, np.nan)
    coordinates = {
        "band": np.arange(1, BANDS + 1),
        "wavelength": ("band", unknown),
        "fwhm": ("band", unknown),
        "good": ("band", np.ones(BANDS, bool)),
    }
    cube = np.moveaxis(values, 2, 0).astype(np.float32)
    return xr.DataArray(cube, dims=("band", "y", "x"), coords=coordinates), xr.DataArray(ids, dims=("y", "x"))


@pytest.mark.parametrize("per_class", [2, 5, 20])
def test_fields_get_patches_and_scenes_whose_neighbours_differ_get_pixels(per_class: int):
    for patchwork, patch in ((True, 7), (False, 1)):
        scene, labels = make(patchwork, noise=0.2)
        found = recommend_settings(scene, labels, split_random(labels, per_class=per_class, seed=0))
        assert found.settings.patch == found.settings.teacher_patch == patch
        assert len(found.reasons) == 1
        assert ("Patches" if patchwork else "Single pixels") in found.reasons[0]


def test_fields_under_strong_noise_keep_their_patches():
    scene, labels = make(True, noise=3)
    found = recommend_settings(scene, labels, split_random(labels, per_class=20, seed=0))
    assert found.settings.patch == 7
    assert "points more often in blocks left out" in found.reasons[0]


def test_many_labels_where_neighbours_differ_get_mixup_and_more_steps_instead_of_neighbour_differences():
    scene, labels = make(False, noise=0.2)
    found = recommend_settings(scene, labels, split_random(labels, per_class=120, seed=0))
    assert found.settings.neighbour_difference == 0
    assert found.settings.mixup > 0
    assert found.settings.steps == 2 * Settings().steps
    assert len(found.reasons) == 2


def test_labels_of_test_pixels_have_no_influence():
    scene, labels = make(True, noise=3)
    split = split_random(labels, per_class=20, seed=0)
    other = labels.copy(deep=True)
    other.values[split.test] = 1
    assert recommend_settings(scene, labels, split) == recommend_settings(scene, other, split)


def test_a_patch_that_was_asked_for_is_the_one_that_is_weighed():
    scene, labels = make(True, noise=0.2)
    found = recommend_settings(scene, labels, split_random(labels, per_class=5, seed=0), Settings(patch=3, steps=5))
    assert (found.settings.patch, found.settings.steps) == (3, 5)
    assert "3 × 3" in found.reasons[0]


def test_training_without_settings_takes_what_is_recommended():
    scene, labels = make(False, noise=0.2)
    classifier = fit(scene, labels, split_random(labels, per_class=3, seed=0), steps=2, batch_size=4, device="cpu")
    assert classifier.patch == 1
    assert classifier.card["settings"]["teacher_patch"] == 1


def test_labels_that_all_lie_in_one_block_are_no_ground_for_patches_by_cross_validation():
    scene, labels = make(False, noise=0.2)
    corner = labels.copy(deep=True)
    corner.values[10:] = 0
    corner.values[:, 10:] = 0
    assert recommend_settings(scene, corner).settings.patch == 1


def test_a_scene_without_valid_pixels_or_classes_is_left_to_training_to_refuse():
    scene, labels = make(True, noise=0.2)
    empty = scene.copy(deep=True)
    empty.values[:] = np.nan
    assert recommend_settings(empty, labels).settings == Settings()
    with pytest.raises(LabelError, match="nothing to tell apart"):
        recommend_settings(scene, labels.where(labels == 1, 0))


def test_one_row_of_pixels_and_one_label_a_class_are_enough_to_choose():
    scene, labels = make(True, noise=0.2)
    row, few = scene[:, :1], labels[:1].copy(deep=True)
    few.values[:, CLASSES:] = 0
    assert recommend_settings(row, few).settings.patch in (1, 7)
