"""`SpectralMambaClassifier` under scikit-learn's own checks, and in what people do with estimators."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import spectralmamba.estimator
from spectralmamba import Classifier, SpectralMambaClassifier, simulate_scene
from spectralmamba.errors import ModelError, SampleError, SettingsError
from spectralmamba.models.committee import SIMPLE_MODELS

CROPS = np.array(["wheat", "barley", "maize"])
ARRAY_API_CHECK = """
import torch
from sklearn.utils.estimator_checks import estimator_checks_generator
from spectralmamba import SpectralMambaClassifier
torch.set_num_threads(1)
estimator = SpectralMambaClassifier(steps=5, random_state=0, device="cpu")
checks = [check for _, check in estimator_checks_generator(estimator) if "check_array_api" in str(check)]
for check in checks:
    check(estimator)
print(len(checks))
"""


def quick(**options: Any) -> SpectralMambaClassifier:
    """An estimator whose training takes a fraction of a second."""
    return SpectralMambaClassifier(**({"steps": 5, "batch_size": 8, "random_state": 0, "device": "cpu"} | options))


@pytest.fixture(scope="module")
def scene() -> tuple[xr.DataArray, xr.DataArray]:
    return simulate_scene(rows=24, columns=24, bands=20, classes=3)


@pytest.fixture(scope="module")
def spectra(scene: tuple[xr.DataArray, xr.DataArray]) -> tuple[np.ndarray, np.ndarray]:
    """90 spectra (n, L) of three crops, and the crops' names."""
    labelled = scene[1].values.ravel()
    chosen = np.concatenate([np.flatnonzero(labelled == id_)[:30] for id_ in (1, 2, 3)])
    return scene[0].values.reshape(20, -1).T[chosen], CROPS[labelled[chosen] - 1]


@pytest.fixture(scope="module")
def patches(scene: tuple[xr.DataArray, xr.DataArray]) -> tuple[np.ndarray, np.ndarray]:
    """Patches (n, 3, 3, L) and the crops in their middles."""
    values, ids = scene[0].values, scene[1].values
    inside = np.argwhere(ids[1:-1, 1:-1] > 0) + 1
    cut = np.stack([values[:, y - 1 : y + 2, x - 1 : x + 2].transpose(1, 2, 0) for y, x in inside])
    whole = np.isfinite(cut).all((1, 2, 3))
    return cut[whole][::4], CROPS[ids[tuple(inside[whole].T)] - 1][::4]


# scikit-learn's checks -----------------------------------------------------------------------------


# Enough steps to learn two dimensions, which has to succeed with five in six.
@parametrize_with_checks([SpectralMambaClassifier(steps=40, batch_size=8, random_state=0, device="cpu")])
def test_scikit_learns_checks_pass(estimator: SpectralMambaClassifier, check: Callable[[Any], None]):
    if "check_array_api" in str(check):  # needs a process that has it turned on before SciPy is imported
        env = os.environ | {"SCIPY_ARRAY_API": "1"}
        command = [sys.executable, "-c", ARRAY_API_CHECK]
        assert int(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout) > 0
    else:
        check(estimator)


# What comes out ------------------------------------------------------------------------------------


def test_classes_of_any_kind_come_back_and_probabilities_sum_to_one(spectra: tuple[np.ndarray, np.ndarray]):
    X, names = spectra
    for y in (names, names.astype(object), names == "maize", np.unique(names, return_inverse=True)[1] - 1.0):
        model = quick().fit(X, y)
        assert model.classes_.tolist() == np.unique(y).tolist()
        assert set(model.predict(X)) <= set(np.unique(y))
        shares = model.predict_proba(X)
        np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-14)
        np.testing.assert_array_equal(model.classes_[shares.argmax(1)], model.predict(X))
        assert model.decision_function(X).shape == ((90, 3) if len(model.classes_) == 3 else (90,))


def test_it_learns_what_the_package_learns(spectra: tuple[np.ndarray, np.ndarray]):
    X, names = spectra
    accuracy = cross_val_score(quick(steps=60, batch_size=32), X, names, cv=3).mean()
    assert accuracy > 0.75  # chance is 1/3


def test_the_same_random_state_gives_the_same_and_the_order_of_rows_does_not_matter(
    spectra: tuple[np.ndarray, np.ndarray],
):
    X, names = spectra
    first, again = (quick().fit(X, names).classifier_.to_bytes() for _ in range(2))
    assert first == again
    order = np.random.default_rng(0).permutation(len(X))
    assert quick().fit(X[order], names[order]).classifier_.to_bytes() == first
    assert quick(random_state=1).fit(X, names).classifier_.to_bytes() != first
    drawn = [
        quick(random_state=np.random.RandomState(3)).fit(X, names).classifier_.card["settings"]["seed"]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    unseeded = [quick(random_state=None).fit(X, names).classifier_.card["settings"]["seed"] for _ in range(2)]
    assert unseeded[0] != unseeded[1]


@pytest.mark.parametrize("model", ["spectral_mamba", "mlp", *SIMPLE_MODELS])
def test_what_is_said_of_a_row_does_not_depend_on_the_others_to_the_last_bit(
    spectra: tuple[np.ndarray, np.ndarray], model: str
):
    X, names = spectra
    fitted = quick(model=model).fit(X, names)
    logits = fitted.decision_function(np.concatenate([X] * 4))  # more than are computed at a time
    np.testing.assert_array_equal(fitted.decision_function(X[17:18]), logits[17:18])
    order = np.random.default_rng(0).permutation(len(logits))
    np.testing.assert_array_equal(fitted.decision_function(np.concatenate([X] * 4)[order]), logits[order])


def test_the_classifier_inside_is_the_packages_and_maps_scenes(
    scene: tuple[xr.DataArray, xr.DataArray], spectra: tuple[np.ndarray, np.ndarray]
):
    X, names = spectra
    wavelengths = scene[0].wavelength.values
    model = quick(steps=30, wavelengths=wavelengths).fit(X, names)
    card = model.classifier_.card
    assert model.classifier_.class_names == dict(enumerate(model.classes_, 1))
    assert card["bands"]["wavelength"] == wavelengths.tolist()
    assert card["normalisation"]["method"] == "standard"
    assert (card["normalisation"]["pairs"], card["normalisation"]["pixels"]) == (0, 90)
    assert card["prediction_sets"] is None
    mapped = model.classifier_.predict(scene[0]).values.ravel()
    rows = scene[0].values.reshape(20, -1).T
    valid = np.isfinite(rows).all(1)
    same = model.classes_[mapped[valid].astype(int) - 1] == model.predict(rows[valid])
    assert same.mean() > 0.99  # products add up in another order, so labels on the edge may differ
    assert (mapped[~valid] == 0).all()


# Weights -------------------------------------------------------------------------------------------


def test_whole_weights_are_repeated_rows_and_zero_is_no_row(spectra: tuple[np.ndarray, np.ndarray]):
    X, names = spectra
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = quick().fit(X, names, weights).classifier_
    repeated = quick().fit(X.repeat(weights, axis=0), names.repeat(weights)).classifier_
    assert weighted.to_bytes() == repeated.to_bytes()
    assert (
        quick().fit(X, names, np.full(len(X), 7)).classifier_.to_bytes() == quick().fit(X, names).classifier_.to_bytes()
    )
    assert weighted.card["normalisation"]["pixels"] == (weights > 0).sum()


@pytest.mark.parametrize("companion", ["none", "label propagation"])
def test_a_class_that_weighs_more_is_told_more_often(companion: str):
    random = np.random.default_rng(0)
    y = np.arange(120) % 2
    X = random.normal(size=(120, 4)) + 0.7 * y[:, None]
    shares = []
    for class_weight in ({0: 20, 1: 1}, None, {0: 1, 1: 20}):
        model = quick(steps=60, batch_size=32, companion=companion, class_weight=class_weight).fit(X, y)
        shares.append(model.predict(X).mean())
    assert shares[0] < shares[1] - 0.1
    assert shares[1] < shares[2] - 0.1


def test_class_weights_multiply_with_those_of_samples_and_balanced_counts_them(
    spectra: tuple[np.ndarray, np.ndarray],
):
    X, names = spectra
    X, names = X[:50], names[:50]  # 30 and 20
    of_class = {"wheat": 1.0, "barley": 4.0}
    expected = quick().fit(X, names, np.vectorize(of_class.get)(names)).classifier_.to_bytes()
    assert quick(class_weight=of_class).fit(X, names).classifier_.to_bytes() == expected
    balanced = quick(class_weight="balanced").fit(X, names).classifier_.card["labels"]["weights"]
    assert balanced[1] / balanced[0] == pytest.approx(30 / 20)
    even = np.where(names == "wheat", 2, 3)
    weighed = quick(class_weight="balanced").fit(X, names, even).classifier_.card["labels"]["weights"]
    assert weighed == pytest.approx(balanced), "both classes had the same sum already"


# Patches -------------------------------------------------------------------------------------------


def test_patches_are_taken_as_squares_or_flat(patches: tuple[np.ndarray, np.ndarray]):
    cut, names = patches
    square = quick(patch=3, steps=40, batch_size=32).fit(cut, names)
    flat = quick(patch=3, steps=40, batch_size=32).fit(cut.reshape(len(cut), -1), names)
    assert square.classifier_.to_bytes() == flat.classifier_.to_bytes()
    assert square.n_features_in_ == 3 * 3 * 20
    np.testing.assert_array_equal(square.predict_proba(cut), flat.predict_proba(cut.reshape(len(cut), -1)))
    assert (square.predict(cut) == names).mean() > 0.75  # chance is 1/3


def test_patches_are_trained_as_in_a_scene_of_tiles_that_do_not_touch(patches: tuple[np.ndarray, np.ndarray]):
    cut, names = patches
    card = quick(patch=3).fit(cut, names).classifier_.card
    assert card["normalisation"]["method"] == "whitening"
    assert card["normalisation"]["pixels"] == 9 * len(cut)
    assert card["normalisation"]["pairs"] == 12 * len(cut)  # 6 side by side and 6 one below the other in each patch


def test_a_patch_classifier_maps_as_it_predicts(
    scene: tuple[xr.DataArray, xr.DataArray], patches: tuple[np.ndarray, np.ndarray]
):
    cut, names = patches
    model = quick(patch=3, steps=30, wavelengths=scene[0].wavelength.values).fit(cut, names)
    mapped = model.classifier_.predict(scene[0]).values
    values = scene[0].values
    inside = [
        (y, x) for y in range(1, 23) for x in range(1, 23) if np.isfinite(values[:, y - 1 : y + 2, x - 1 : x + 2]).all()
    ]
    asked = np.stack([values[:, y - 1 : y + 2, x - 1 : x + 2].transpose(1, 2, 0) for y, x in inside])
    same = model.predict(asked) == model.classes_[[int(mapped[place]) - 1 for place in inside]]
    assert same.mean() > 0.99  # products add up in another order, so labels on the edge may differ


def test_what_are_no_patches_is_refused(patches: tuple[np.ndarray, np.ndarray]):
    cut, names = patches
    with pytest.raises(SampleError, match=r"width that is asked for; found an array .*; expected \(n, 5, 5, bands\)"):
        quick(patch=5).fit(cut, names)
    with pytest.raises(SampleError, match="found 100 features; expected a multiple of 9"):
        quick(patch=3).fit(cut.reshape(len(cut), -1)[:, :100], names)
    with pytest.raises(ValueError, match="dim 4"):
        quick().fit(cut, names)
    with pytest.raises(ValueError, match="180 features"):
        quick(patch=3).fit(cut, names).predict(cut[..., :10])


# What is done with estimators ----------------------------------------------------------------------


def test_it_goes_through_pickle_as_the_bytes_of_its_file(spectra: tuple[np.ndarray, np.ndarray]):
    X, names = spectra
    model = quick().fit(X, names)
    pickled = pickle.dumps(model)
    assert model.classifier_.to_bytes() in pickled
    assert b"torch" not in pickled.replace(model.classifier_.to_bytes(), b""), "but in the card's versions"
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.classifier_.to_bytes() == model.classifier_.to_bytes()
    assert isinstance(model.classifier_, Classifier), "the pickled one itself stays as it is"
    unfitted = pickle.loads(pickle.dumps(quick(steps=7)))
    assert unfitted.get_params() == quick(steps=7).get_params()


def test_a_classifier_of_a_device_that_is_not_here_is_unpickled_on_one_that_is(
    spectra: tuple[np.ndarray, np.ndarray],
):
    model = quick().fit(*spectra)
    model.device = "cuda:99"
    assert pickle.loads(pickle.dumps(model)).classifier_.device.type in ("cpu", "cuda")


def test_a_clone_is_not_fitted(spectra: tuple[np.ndarray, np.ndarray]):
    model = quick(settings={"mixup": 0.2}, wavelengths=np.arange(20.0)).fit(*spectra)
    copied = clone(model)
    assert copied.get_params()["settings"] == {"mixup": 0.2}
    with pytest.raises(NotFittedError):
        copied.predict(spectra[0])


def test_a_grid_is_searched_in_a_pipeline_by_two_processes(spectra: tuple[np.ndarray, np.ndarray]):
    X, names = spectra
    pipeline = make_pipeline(StandardScaler(), quick())
    grid = {"spectralmambaclassifier__steps": np.array([1, 30]), "spectralmambaclassifier__noise": [0.1]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2, error_score="raise").fit(X, names)
    assert search.best_params_["spectralmambaclassifier__noise"] == 0.1
    fitted = search.best_estimator_[-1]
    assert fitted.classifier_.card["settings"]["steps"] == search.best_params_["spectralmambaclassifier__steps"]
    assert set(search.predict(X)) <= set(CROPS)


def test_probabilities_are_calibrated(spectra: tuple[np.ndarray, np.ndarray]):
    X, names = spectra
    calibrated = CalibratedClassifierCV(quick(), cv=2).fit(X, names)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("table", [pd.DataFrame, lambda columns: pl.DataFrame(columns)], ids=["pandas", "polars"])
def test_columns_of_tables_have_names(spectra: tuple[np.ndarray, np.ndarray], table: Callable[[Any], Any]):
    X, names = spectra
    frame = table({f"band {number}": X[:, number] for number in range(20)})
    model = quick().fit(frame, names)
    assert model.feature_names_in_.tolist() == [f"band {number}" for number in range(20)]
    np.testing.assert_array_equal(model.predict_proba(frame), quick().fit(X, names).predict_proba(X))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(table({f"channel {number}": X[:, number] for number in range(20)}))


# What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "auto"}, SettingsError, r"Choose with GridSearchCV"),
        ({"model": "spectral_mambo"}, ModelError, "Did you mean 'spectral_mamba'"),
        ({"normalisation": "whitening"}, SettingsError, "no neighbours to learn from; found normalisation 'whitening'"),
        ({"settings": {"neighbour_difference": 0.5}}, SettingsError, "no neighbours .* neighbour_difference 0.5"),
        ({"settings": {"steps": 3}}, SettingsError, "'steps' is not to be given in `settings`"),
        ({"settings": {"set_coverage": 0.5}}, SettingsError, "'set_coverage' is not .* needs a scene"),
        ({"settings": {"mixapp": 0.5}}, SettingsError, "unknown setting 'mixapp'. Did you mean 'mixup'"),
        ({"steps": 0}, SettingsError, "'steps' is out of range; found 0; expected at least 1"),
        ({"patch": 2}, SettingsError, "no centre pixel"),
        ({"random_state": -1}, SettingsError, "'seed' is out of range"),
        ({"class_weight": "balanced", "rare_classes": "balanced loss"}, SettingsError, "classes are weighed twice"),
        ({"class_weight": {"wheat": 0.0}}, SampleError, r"class has a weight that cannot be; found 0\.0"),
        ({"wavelengths": [400.0, 500.0]}, SampleError, r"one wavelength for each band; found \(2,\); expected \(20,\)"),
        ({"device": "tpu"}, SettingsError, "device is not available"),
    ],
)
def test_options_that_cannot_be_are_refused_when_it_is_fitted(
    spectra: tuple[np.ndarray, np.ndarray], options: dict[str, Any], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        quick(**options).fit(*spectra)


def test_samples_that_cannot_be_are_refused(spectra: tuple[np.ndarray, np.ndarray]):
    X, names = spectra
    with pytest.raises(SampleError, match=r"sample weight is negative; found -1\.0"):
        quick().fit(X, names, np.where(names == "wheat", -1, 1))
    with pytest.raises(SampleError, match="found 1 class with weight"):
        quick().fit(X, names, names == "wheat")
    with pytest.raises(ValueError, match="NaN"):
        quick().fit(np.where(np.arange(20) == 3, np.nan, X), names)
    with pytest.raises(ValueError, match="expecting 20 features"):
        quick().fit(X, names).predict(X[:, :10])


def test_settings_reach_the_training(spectra: tuple[np.ndarray, np.ndarray]):
    model = quick(settings={"mixup": 0.3, "model_options": {"piece": 2}}, label_smoothing=np.float64(0.1)).fit(*spectra)
    settings = model.classifier_.card["settings"]
    assert (settings["mixup"], settings["label_smoothing"]) == (0.3, 0.1)
    assert settings["model_options"] == {"piece": 2}
    assert (settings["self_training_rounds"], settings["neighbour_difference"]) == (0, 0)


def test_before_scikit_learn_1_6_arrays_are_checked_by_the_estimators_own_method(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spectralmamba.estimator, "validation", SimpleNamespace())
    asked: list[Any] = []
    estimator = SimpleNamespace(_validate_data=lambda *arrays, **options: asked.append((arrays, options)) or arrays)
    assert spectralmamba.estimator._checked(estimator, 1, 2, dtype=np.float32) == (1, 2)
    assert asked == [((1, 2), {"dtype": np.float32})]
