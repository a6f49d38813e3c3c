"""`SpectralMambaClassifier`: training and prediction as scikit-learn has them, of spectra that stand in no order.

Only scikit-learn is imported here; torch is when something is fitted or predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state, compute_class_weight, validation
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from spectralmamba.errors import SampleError, SettingsError
from spectralmamba.scenes.class_rasters import HIGHEST_ID
from spectralmamba.scenes.palette import default_colors
from spectralmamba.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from spectralmamba.classifier import Classifier

# Settings that are arguments of the same name.
_ARGUMENTS = (
    *("model", "preset", "patch", "steps", "batch_size", "learning_rate", "weight_decay", "label_smoothing"),
    *("rare_classes", "noise", "companion"),
)
# Settings that mean nothing without a scene, or that come from an argument of another name.
_SETTLED = {"self_training_rounds": 0, "set_coverage": 0.0, "statistics_from": "scene"}
_NOT_TO_BE_SET = ("normalisation", "seed", "teacher_patch", "pseudo_confidence", *_SETTLED)


class SpectralMambaClassifier(ClassifierMixin, BaseEstimator):
    """SpectralMamba on spectra in rows, by the package's own training.

    Rows stand in no order, and no row is another's neighbour. So bands are standardised, but noise is not whitened, which takes
    differences of neighbours, nor are such differences added in training; and there are no self-training, prediction sets or
    `model="auto"`, which take a scene. The same rows in another order give the same classifier. Equal rows of one class are one
    sample that counts as often as it occurs: a whole weight does what repeating a row does, a weight of 0 what leaving it out does.

    With `patch=P` above 1 a row is a patch of P × P pixels whose middle is to be told: an array `(n, P, P, L)`, or flat
    `(n, P·P·L)` in the order row, column, band, as scikit-learn's other tools want it. Pixels of one patch are neighbours.

    There is no `partial_fit`: learning rates follow a schedule that ends with the last step. Fit anew with all rows.

    Args:
        model: As `Settings.model`, but for "auto"; to choose among models use `GridSearchCV`.
        preset: As `Settings.preset`.
        patch: P; 1 is single spectra.
        steps: Training steps.
        batch_size: Samples a step.
        learning_rate: Highest rate of the one-cycle schedule of AdamW.
        weight_decay: Weight decay of AdamW.
        label_smoothing: Share of a label that is spread over all classes.
        rare_classes: As `Settings.rare_classes`; with `class_weight`, which is for the same, only "as drawn".
        normalisation: "standard"; or of patches "whitening", which learns noise from neighbours inside them. None is "standard" for
            single spectra and "whitening" for patches.
        noise: Standard deviation of noise added in training, in standard deviations of the bands.
        companion: What decides beside the network, as `Settings.companion`.
        class_weight: How much the samples of each class count: a dictionary, "balanced", or None for all alike.
        settings: All other settings by name, such as `{"mixup": 0.3, "model_options": {"piece": 2}}`.
        wavelengths: Band centres in nm `(L,)`, kept for `classifier_`, which then resamples scenes of other sensors.
        random_state: Seed, or numpy's RandomState to draw it from; None draws another one each time.
        device: "auto" (a GPU if there is one), or torch's name of a device.

    Attributes:
        classes_: The classes, `(K,)`, of any dtype.
        n_features_in_: Numbers in a row: L, or P·P·L.
        feature_names_in_: Names of the columns, where they are text.
        classifier_: The `Classifier`, which saves itself and maps scenes; its class ids are 1 to K in the order of `classes_`.
    """

    def __init__(
        self,
        model: str = "spectral_mamba",
        *,
        preset: str = "default",
        patch: int = 1,
        steps: int = 1000,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        label_smoothing: float = 0.05,
        rare_classes: str = "as drawn",
        normalisation: str | None = None,
        noise: float = 0.2,
        companion: str = "label propagation",
        class_weight: Mapping[Any, float] | str | None = None,
        settings: Mapping[str, Any] | None = None,
        wavelengths: ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
    ) -> None:
        self.model = model
        self.preset = preset
        self.patch = patch
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.rare_classes = rare_classes
        self.normalisation = normalisation
        self.noise = noise
        self.companion = companion
        self.class_weight = class_weight
        self.settings = settings
        self.wavelengths = wavelengths
        self.random_state = random_state
        self.device = device

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> SpectralMambaClassifier:
        """Train on spectra and their classes.

        Args:
            X: Spectra `(n, L)`; of patches `(n, P, P, L)` or `(n, P·P·L)`. All finite, in any unit.
            y: Their classes `(n,)`.
            sample_weight: How much each counts, `(n,)`, at least 0; all alike if None. Only ratios matter.

        Raises:
            ModelError: There is no such model, or it does not take its options.
            SampleError: Fewer than two classes, weights that cannot be, or a row that is no patch.
            SettingsError: A setting is unknown or out of range, or does not fit spectra without a scene.
            ValueError: What scikit-learn says of arrays that do not fit, hold NaN or are no numbers.
        """
        from spectralmamba.training import fit

        settings = self._settings()
        rows, of_rows = _checked(self, _flat(X, settings.patch), y, dtype=np.float32)
        bands = _bands(rows.shape[1], settings.patch)
        check_classification_targets(of_rows)
        weights = _checked_weights(sample_weight, rows)
        counts = weights > 0
        rows, weights = rows[counts], weights[counts]
        self.classes_, targets = np.unique(of_rows[counts], return_inverse=True)
        _check_classes(self.classes_)
        weights = weights * self._class_weights(targets, weights)[targets]
        rows, targets, weights = _merged(rows, targets, weights)
        patches = rows.reshape(len(rows), settings.patch, settings.patch, bands)
        scene, labels, of_pixels = _as_scene(patches, targets, weights, self.classes_, self._wavelengths(bands))
        alike = bool((weights == weights[0]).all())
        self.classifier_ = fit(scene, labels, None, settings, weights=None if alike else of_pixels, device=self.device)
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return the logits of spectra `(n, K)`; of two classes that of the second less that of the first, `(n,)`.

        What is said of a row depends on nothing but the row, to the last bit.

        Args:
            X: As `fit` takes it.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return class probabilities of spectra `(n, K)`, float64, in the order of `classes_`; each row's sum is 1.

        Args:
            X: As `fit` takes it.
        """
        return softmax(self._logits(X), axis=1)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the class of each spectrum `(n,)`, one of `classes_`.

        Args:
            X: As `fit` takes it.
        """
        found = self._logits(X).argmax(1)
        return self.classes_[found]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle, with the bytes of the classifier's file in place of the classifier."""
        state: Any = super().__getstate__()
        state = dict(state)
        if "classifier_" in state:
            state["classifier_"] = state["classifier_"].to_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state that `__getstate__` gave; a classifier of a device that is not here goes to one that is."""
        if "classifier_" in state:
            state = state | {"classifier_": _unpacked(state["classifier_"], state["device"])}
        super().__setstate__(state)

    def _logits(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        patch = self.classifier_.patch
        rows = _checked(self, _flat(X, patch), dtype=np.float32, reset=False)
        shape = (patch, patch, -1) if patch > 1 else (-1,)
        return self.classifier_.logits(rows.reshape(len(rows), *shape)).astype(np.float64)

    def _settings(self) -> Settings:
        """Return what is asked for as settings.

        Raises:
            SettingsError: A setting is unknown, out of range, given twice or of no use without a scene.
        """
        others = dict(self.settings or {})
        for name in others:
            if name in _ARGUMENTS or name in _NOT_TO_BE_SET:
                known = sorted({entry.name for entry in fields(Settings)} - {*_ARGUMENTS, *_NOT_TO_BE_SET})
                raise SettingsError(
                    f"{name!r} is not to be given in `settings`",
                    expected=f"some of {', '.join(known)}",
                    remedy="What is an argument of its own is given as that; the rest needs a scene, for which there is `fit`.",
                )
        values = _SETTLED | others | {name: getattr(self, name) for name in _ARGUMENTS}
        single = values["patch"] == 1
        values["normalisation"] = self.normalisation or ("standard" if single else "whitening")
        values["seed"] = _seed(self.random_state)
        if single:
            values.setdefault("neighbour_difference", 0.0)
        settings = Settings.from_dict({name: _plain(value) for name, value in values.items()})
        _check_for_spectra(settings, self.class_weight)
        return settings

    def _wavelengths(self, bands: int) -> np.ndarray:
        """Return band centres `(L,)`, NaN where none are given."""
        if self.wavelengths is None:
            return np.full(bands, np.nan)
        wavelengths = np.asarray(self.wavelengths, np.float64)
        if wavelengths.shape != (bands,):
            raise SampleError("there is not one wavelength for each band", found=wavelengths.shape, expected=(bands,))
        return wavelengths

    def _class_weights(self, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the weight of each class, `(K,)`."""
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            of_class = np.bincount(targets, weights)
            return of_class.sum() / (len(of_class) * of_class)
        of_class = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[targets])
        if not (of_class > 0).all():
            raise SampleError("a class has a weight that cannot be", found=of_class.min(), expected="a number above 0")
        return of_class


def _checked(estimator: Any, *arrays: Any, **options: Any) -> Any:
    """Return arrays as scikit-learn checks and converts them for an estimator, by what its version has for that."""
    if hasattr(validation, "validate_data"):
        return validation.validate_data(estimator, *arrays, **options)
    return estimator._validate_data(*arrays, **options)  # before scikit-learn 1.6


def _flat(X: Any, patch: int) -> Any:
    """Return patches `(n, P, P, L)` as rows; whatever else as it is."""
    if patch == 1 or getattr(X, "ndim", 2) != 4:
        return X
    if X.shape[1:3] != (patch, patch):
        raise SampleError(
            "these are not patches of the width that is asked for",
            found=f"an array {tuple(X.shape)}",
            expected=f"(n, {patch}, {patch}, bands)",
            remedy="Cut other patches, or set patch.",
        )
    return np.asarray(X).reshape(len(X), -1)


def _bands(columns: int, patch: int) -> int:
    """Return L of rows of so many numbers."""
    bands, rest = divmod(columns, patch**2)
    if rest:
        raise SampleError(
            f"a row is no patch of {patch} × {patch} pixels",
            found=f"{columns} features",
            expected=f"a multiple of {patch**2}",
            remedy="Give patches (n, P, P, L), or flat in the order row, column, band.",
        )
    return bands


def _unpacked(content: bytes, device: str) -> Classifier:
    from spectralmamba.classifier import Classifier

    try:
        return Classifier.from_bytes(content, device)
    except SettingsError:
        return Classifier.from_bytes(content)


def _seed(random_state: Any) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _plain(value: Any) -> Any:
    """Return a number of numpy's, as grids of parameters have them, as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _check_for_spectra(settings: Settings, class_weight: Any) -> None:
    """Refuse what means nothing for spectra without a scene.

    Raises:
        SettingsError: It does.
    """
    if settings.model == "auto":
        raise SettingsError(
            "the model is not chosen here",
            found=repr(settings.model),
            expected="the name of one",
            remedy="Choose with GridSearchCV over `model`; 'auto' leaves out blocks of a scene.",
        )
    if settings.patch == 1 and (settings.normalisation == "whitening" or settings.neighbour_difference):
        raise SettingsError(
            "single spectra have no neighbours to learn from",
            found=f"normalisation {settings.normalisation!r}, neighbour_difference {settings.neighbour_difference}",
            expected="normalisation 'standard', neighbour_difference 0",
            remedy="Give patches, or leave both out.",
        )
    if class_weight is not None and settings.rare_classes != "as drawn":
        raise SettingsError(
            "classes are weighed twice",
            found=f"class_weight and rare_classes {settings.rare_classes!r}",
            expected="one of them",
        )


def _checked_weights(sample_weight: Any, X: np.ndarray) -> np.ndarray:
    """Return the weight of each row, `(n,)` float64.

    Raises:
        SampleError: A weight is negative, or all are zero.
        ValueError: They are not one number a row.
    """
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if (weights < 0).any():
        raise SampleError("a sample weight is negative", found=weights.min(), expected="at least 0")
    if not weights.any():
        raise SampleError("all sample weights are zero", expected="at least one above 0")
    return weights


def _check_classes(classes: np.ndarray) -> None:
    if not 2 <= len(classes) <= HIGHEST_ID:
        raise SampleError(
            "there is nothing to tell apart",
            found=f"{len(classes)} class{'es' * (len(classes) > 1)} with weight",
            expected=f"2 to {HIGHEST_ID} classes",
        )


def _merged(X: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows that differ, in an order that follows from them, their targets, and the sum of the weights of equal ones."""
    X = np.ascontiguousarray(X) + np.float32(0)  # −0 is 0
    keys = np.ascontiguousarray(np.column_stack([targets.astype(np.int32), X.view(np.int32)]))
    rows = keys.view(np.dtype((np.void, keys.itemsize * keys.shape[1])))[:, 0]
    _, first, place = np.unique(rows, return_index=True, return_inverse=True)
    return X[first], targets[first], np.bincount(place.reshape(-1), weights)


def _as_scene(
    patches: np.ndarray, targets: np.ndarray, weights: np.ndarray, classes: np.ndarray, wavelengths: np.ndarray
) -> tuple[xr.DataArray, xr.DataArray, np.ndarray]:
    """Lay patches `(n, P, P, L)` side by side, with a column of nodata after each, so that none is another's neighbour.

    Returns:
        The scene, labels of the pixels in the patches' middles, and the weights of all pixels, `(y, x)`.
    """
    count, width, _, bands = patches.shape
    tiles = np.full((bands, width, count, width + 1), np.nan, np.float32)
    tiles[..., :width] = patches.transpose(3, 1, 0, 2)
    coordinates = {
        "band": np.arange(1, bands + 1),
        "wavelength": ("band", wavelengths),
        "fwhm": ("band", np.full(bands, np.nan)),
        "good": ("band", np.ones(bands, bool)),
    }
    scene = xr.DataArray(tiles.reshape(bands, width, -1), dims=("band", "y", "x"), coords=coordinates)
    ids, of_pixels = np.zeros(scene.shape[1:], np.int32), np.zeros(scene.shape[1:])
    middles = np.arange(count) * (width + 1) + width // 2
    ids[width // 2, middles], of_pixels[width // 2, middles] = targets + 1, weights
    present = list(range(1, len(classes) + 1))
    attributes = {
        "class_names": {id_: str(name) for id_, name in zip(present, classes.tolist(), strict=True)},
        "class_colors": default_colors(present),
    }
    return scene, xr.DataArray(ids, dims=("y", "x"), attrs=attributes), of_pixels
