"""From a confusion matrix to everything that is reported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from spectralmamba.errors import LabelError, SpectralMambaError
from spectralmamba.scenes.palette import default_colors
from spectralmamba.splits import class_ids

_LEVEL = 0.95
_REPLICATES = 2000
_BOOTSTRAP_SEED = 0
_BOOTSTRAP = f"percentile bootstrap, {_REPLICATES} multinomial replicates"
_SUMMARY_SCORES = ("overall_accuracy", "average_accuracy", "kappa", "macro_f1")


@dataclass(frozen=True, eq=False)
class Scores:
    """How well a map agrees with reference labels.

    A pixel without a prediction (id 0) is unclassified. It counts as an error: it stays in the reference total of its
    class, and so lowers overall accuracy, recall, F1 and kappa; it is in no class's predicted total.

    The intervals treat test pixels as independent draws. Neighbouring pixels are not, so across scenes, and across
    training sets above all, the scores vary more than these intervals say.

    Attributes:
        confusion: `(K, K)` int64, rows reference, columns predicted, in the order of `classes`.
        classes: K mappings `{"id": int, "name": str, "color": "#rrggbb"}`, ascending ids.
        unclassified_by_class: `(K,)` int64, reference pixels of each class without a prediction.
    """

    confusion: NDArray[np.int64]
    classes: tuple[dict[str, Any], ...]
    unclassified_by_class: NDArray[np.int64]

    @classmethod
    def from_confusion(
        cls,
        confusion: Any,
        classes: Iterable[int | Mapping[str, Any]],
        unclassified_by_class: Sequence[int] | NDArray[np.integer] | None = None,
    ) -> Scores:
        """Scores of a confusion matrix from elsewhere.

        Args:
            confusion: `(K, K)` counts, rows reference, columns predicted.
            classes: K ids, or mappings with `id` and, if known, `name` and `color`.
            unclassified_by_class: `(K,)` counts; none if not given.

        Raises:
            LabelError: The shapes do not fit, or a count is negative or fractional.
        """
        described = described_classes(classes)
        counts = as_counts(confusion)
        missed = as_counts(np.zeros(len(described)) if unclassified_by_class is None else unclassified_by_class)
        number = len(described)
        if counts.shape != (number, number) or missed.shape != (number,):
            raise LabelError(
                "confusion matrix and classes do not fit",
                found=f"shapes {counts.shape} and {missed.shape} for {number} classes",
                expected="(K, K) counts, (K,) unclassified pixels and K classes",
            )
        return cls(counts, described, missed)

    @property
    def reference(self) -> NDArray[np.int64]:
        """Reference pixels of each class `(K,)`, unclassified ones included."""
        return self.confusion.sum(axis=1) + self.unclassified_by_class

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Predicted pixels of each class `(K,)`."""
        return self.confusion.sum(axis=0)

    @property
    def test_pixels(self) -> int:
        """All pixels compared, unclassified ones included."""
        return int(self.confusion.sum() + self.unclassified_by_class.sum())

    @property
    def unclassified(self) -> int:
        """Pixels without a prediction."""
        return int(self.unclassified_by_class.sum())

    @property
    def overall_accuracy(self) -> float | None:
        """Share of the test pixels that are right; None without test pixels."""
        return _ratio(int(np.trace(self.confusion)), self.test_pixels)

    @property
    def average_accuracy(self) -> float | None:
        """Mean recall of the classes that have reference pixels; None if none has."""
        return self._statistics["average_accuracy"]

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance (Cohen 1960, "A coefficient of agreement for nominal scales").

        None where chance alone agrees fully: a single class that is all there is in both.
        """
        return self._statistics["kappa"]

    @property
    def macro_f1(self) -> float | None:
        """Mean F1 of the classes that occur in the reference or the prediction; None if none does."""
        return self._statistics["macro_f1"]

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """Precision, recall, F1 and Wilson intervals of each class; what is undefined is None."""
        rows = []
        for k, (reference, predicted) in enumerate(zip(self.reference.tolist(), self.predicted.tolist(), strict=True)):
            right = int(self.confusion[k, k])
            rows.append(
                {
                    **self.classes[k],
                    "reference": reference,
                    "predicted": predicted,
                    "precision": _ratio(right, predicted),
                    "recall": _ratio(right, reference),
                    "f1": _ratio(2 * right, reference + predicted),
                    "precision_interval": _as_list(wilson_interval(right, predicted, _LEVEL)),
                    "recall_interval": _as_list(wilson_interval(right, reference, _LEVEL)),
                }
            )
        return rows

    @cached_property
    def intervals(self) -> dict[str, Any]:
        """95 % intervals: Wilson for overall accuracy, percentile bootstrap for the rest.

        The bootstrap draws confusion matrices of the same number of pixels (Efron and Tibshirani 1993, "An
        Introduction to the Bootstrap", chapter 13), with fixed random numbers; replicates in which a score is
        undefined are left out. Without any error in the matrix every replicate is without error, and these intervals
        are a point; Wilson's are not.
        """
        replicates = self._bootstrap()
        interval = {
            name: _percentile_interval(replicates[name], self._statistics[name]) for name in _SUMMARY_SCORES[1:]
        }
        right = int(np.trace(self.confusion))
        return {
            "level": _LEVEL,
            "overall_accuracy": _as_list(wilson_interval(right, self.test_pixels, _LEVEL)),
            **interval,
            "method": {"overall_accuracy": "Wilson", **dict.fromkeys(interval, _BOOTSTRAP)},
        }

    def to_dict(self) -> dict[str, Any]:
        """The heart of scores.json (docs/architecture.md), ready for JSON; what is undefined is None."""
        return {
            **{name: getattr(self, name) for name in _SUMMARY_SCORES},
            "intervals": self.intervals,
            "per_class": self.per_class,
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
            "test_pixels": self.test_pixels,
            "unclassified": self.unclassified,
        }

    @cached_property
    def _statistics(self) -> dict[str, float | None]:
        right = np.diag(self.confusion)[None]
        values = _statistics(right, self.reference[None], self.predicted[None])
        return {name: None if math.isnan(value[0]) else float(value[0]) for name, value in values.items()}

    def _bootstrap(self) -> dict[str, NDArray[np.float64]]:
        """Each score of `_statistics` in `(replicates,)` redrawn confusion matrices, NaN where undefined."""
        number, total = len(self.classes), self.test_pixels
        table = np.column_stack([self.confusion, self.unclassified_by_class])
        row, column = np.nonzero(table)
        if total == 0:
            return {name: np.empty(0) for name in self._statistics}
        generator = np.random.default_rng(_BOOTSTRAP_SEED)
        cells = generator.multinomial(total, table[row, column] / total, size=_REPLICATES)
        classes = np.arange(number)
        in_row, in_column = row[:, None] == classes, column[:, None] == classes
        return _statistics(cells @ (in_row & in_column), cells @ in_row, cells @ in_column)


def evaluate(
    predicted: np.ndarray | xr.DataArray,
    labels: np.ndarray | xr.DataArray,
    *,
    where: np.ndarray | xr.DataArray | None = None,
    class_names: Mapping[int, str] | None = None,
    class_colors: Mapping[int, str] | None = None,
) -> Scores:
    """Compare a map with reference labels.

    Only pixels with a label count. One that is predicted 0 (nothing) is unclassified: it counts as an error and stays
    in the reference totals, so that a map cannot gain by leaving hard pixels out.

    Args:
        predicted: Class ids of any shape, commonly `(H, W)`; 0, or NaN in floating-point arrays, where there is no
            prediction.
        labels: Class ids of the same shape, 0 unlabelled. A `DataArray` may bring `class_names` and `class_colors` in
            its `attrs`.
        where: Bool of the same shape: the pixels to compare, a split's test mask as a rule.
        class_names: Name of each id; what it does not hold is taken from `labels`, or else is "class 3".
        class_colors: `#rrggbb` of each id, likewise, or else of the default palette.

    Returns:
        Scores over every class that occurs in `labels`, in `class_names` or in the compared predictions.

    Raises:
        LabelError: Shapes differ, an array is not class ids, or no labelled pixel is left to compare.
    """
    attributes = labels.attrs if isinstance(labels, xr.DataArray) else {}
    names = {**attributes.get("class_names", {}), **(class_names or {})}
    colors = {**attributes.get("class_colors", {}), **(class_colors or {})}
    mapped, reference = class_ids(predicted), class_ids(labels)
    selected = np.ones(reference.shape, bool) if where is None else np.asarray(where).astype(bool)
    if not mapped.shape == reference.shape == selected.shape:
        raise LabelError(
            "predictions, labels and mask differ in shape",
            found=f"{mapped.shape}, {reference.shape} and {selected.shape}",
            expected="one shape",
        )
    compared = selected & (reference > 0)
    if not compared.any():
        raise LabelError(
            "there is nothing to evaluate",
            found="no labelled pixel" + ("" if where is None else " inside the mask"),
            expected="at least one",
            remedy="Check that the labels, and the mask if one is given, belong to this scene.",
        )
    present = {int(class_id) for class_id in np.unique(np.concatenate([reference.ravel(), mapped[compared]]))}
    ids = sorted((present | {int(class_id) for class_id in names}) - {0})
    described = [{"id": k, "name": names.get(k), "color": colors.get(k)} for k in ids]
    return _tally(mapped[compared], reference[compared], described)


def _tally(predicted: NDArray[np.int64], reference: NDArray[np.int64], classes: list[dict[str, Any]]) -> Scores:
    number = len(classes)
    ids = np.array([entry["id"] for entry in classes])
    row = np.searchsorted(ids, reference)
    column = np.where(predicted == 0, number, np.searchsorted(ids, predicted))
    table = np.bincount(row * (number + 1) + column, minlength=number * (number + 1)).reshape(number, number + 1)
    return Scores.from_confusion(table[:, :number], classes, table[:, number])


def calibration(
    predicted: np.ndarray | xr.DataArray,
    confidence: np.ndarray | xr.DataArray,
    labels: np.ndarray | xr.DataArray,
    *,
    where: np.ndarray | xr.DataArray | None = None,
    bins: int = 15,
) -> dict[str, Any]:
    """Compare a map's confidence with how often it is right (Guo et al. 2017, arXiv 1706.04599).

    Args:
        predicted: Class ids of any shape; pixels of 0 are left out.
        confidence: Probability of the predicted class, of the same shape.
        labels: Class ids of the same shape, 0 unlabelled.
        where: Bool of the same shape: the pixels to compare.
        bins: Number of equal bins of confidence.

    Returns:
        `expected_calibration_error`: mean distance of confidence and accuracy over the bins, weighted by their pixels; and of each
        bin `pixels`, mean `confidence` and `accuracy`, None where it is empty. The error is None without a pixel.

    Raises:
        LabelError: Shapes differ.
    """
    mapped, reference, sure = class_ids(predicted), class_ids(labels), np.asarray(confidence, float)
    selected = np.ones(reference.shape, bool) if where is None else np.asarray(where).astype(bool)
    shapes = {mapped.shape, reference.shape, sure.shape, selected.shape}
    if len(shapes) > 1:
        raise LabelError("map, confidence, labels and mask differ in shape", found=shapes, expected="one shape")
    compared = selected & (reference > 0) & (mapped > 0) & np.isfinite(sure)
    right, sure = mapped[compared] == reference[compared], sure[compared]
    bin_ = np.minimum((sure * bins).astype(int), bins - 1)
    pixels = np.bincount(bin_, minlength=bins)
    sums = (np.bincount(bin_, weights=values, minlength=bins) for values in (sure, right))
    means = [np.divide(sum_, pixels, out=np.full(bins, np.nan), where=pixels > 0) for sum_ in sums]
    error = float(np.nansum(np.abs(means[0] - means[1]) * pixels) / pixels.sum()) if pixels.sum() else None
    confidences, accuracies = ([None if np.isnan(value) else float(value) for value in mean] for mean in means)
    return {
        "expected_calibration_error": error,
        "pixels": pixels.tolist(),
        "confidence": confidences,
        "accuracy": accuracies,
    }


def summarize(scores: Sequence[Scores], seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """Several seeds in one table, as summary.json has it.

    Args:
        scores: Scores of each seed.
        seeds: Their seeds; 0, 1, … if not given.

    Returns:
        For each score `mean`, `sd` (of the sample, n − 1; None for fewer than two values) and `values`, in the order
        of the seeds. A seed in which a score is undefined has the value None and is left out of mean and sd.

    Raises:
        SpectralMambaError: There are no scores, or not one for each seed.
    """
    numbers = list(range(len(scores))) if seeds is None else [int(seed) for seed in seeds]
    if not scores or len(numbers) != len(scores):
        raise SpectralMambaError(
            "there is not one score for each seed", found=f"{len(scores)} scores and {len(numbers)} seeds"
        )
    classes = {entry["id"]: entry for score in scores for entry in score.classes}
    recalls = [{entry["id"]: entry["recall"] for entry in score.per_class} for score in scores]
    return {
        "seeds": numbers,
        **{name: _spread([getattr(score, name) for score in scores]) for name in _SUMMARY_SCORES},
        "per_class": [
            {**classes[class_id], "recall": _spread([recall.get(class_id) for recall in recalls])}
            for class_id in sorted(classes)
        ],
    }


def paired_difference(first: Sequence[float], second: Sequence[float], *, level: float = _LEVEL) -> dict[str, Any]:
    """How much two models differ over the same seeds and splits: first − second.

    The interval is Student's ("The probable error of a mean", 1908), over seeds. Draws from one scene share most of
    their test pixels, so it speaks of this scene, not of others.

    Args:
        first: A score of each seed.
        second: The same score and seeds of the other model.
        level: Confidence level.

    Returns:
        `n`, `mean`, `sd` (of the sample), `level`, `interval` `[low, high]` and the single `differences`; `sd` and
        `interval` are None for one pair.

    Raises:
        SpectralMambaError: The lengths differ, there is no pair, a value is undefined, or `level` is not between 0 and
            1.
    """
    check_level(level)
    if len(first) != len(second) or len(first) == 0:
        raise SpectralMambaError(
            "the values cannot be paired", found=f"{len(first)} and {len(second)} values", expected="one for each seed"
        )
    if any(value is None or not math.isfinite(value) for value in (*first, *second)):
        raise SpectralMambaError("a score is undefined", expected="a number for each seed of both models")
    differences = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    spread = _spread(differences)
    number, mean, sd = len(differences), spread["mean"], spread["sd"]
    interval = None
    if sd is not None:
        half_width = float(stats.t.ppf((1 + level) / 2, number - 1)) * sd / math.sqrt(number)
        interval = [mean - half_width, mean + half_width]
    return {
        "n": number,
        "mean": mean,
        "sd": sd,
        "level": level,
        "interval": interval,
        "differences": differences,
    }


def wilson_interval(successes: int, total: int, level: float = _LEVEL) -> tuple[float, float] | None:
    """Score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22 (1927), 209–212.

    Args:
        successes: 0 to `total`.
        total: Number of trials.
        level: Confidence level.

    Returns:
        Lower and upper limit, within 0 and 1; None if `total` is 0.

    Raises:
        SpectralMambaError: `successes` is not between 0 and `total`, or `level` not between 0 and 1.
    """
    check_level(level)
    if not 0 <= successes <= total:
        raise SpectralMambaError("a proportion is out of range", found=f"{successes} of {total}")
    if total == 0:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, shrink = successes / total, 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half_width = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / shrink
    # The limits at 0 and at `total` are 0 and 1 exactly; rounding must not push them beside.
    low = 0.0 if successes == 0 else max(centre - half_width, 0.0)
    high = 1.0 if successes == total else min(centre + half_width, 1.0)
    return low, high


def check_level(level: float) -> None:
    """Raise SpectralMambaError unless the confidence level lies between 0 and 1."""
    if not 0 < level < 1:
        raise SpectralMambaError("a level is out of range", found=level, expected="more than 0 and less than 1")


def _statistics(
    right: NDArray[Any], reference: NDArray[Any], predicted: NDArray[Any]
) -> dict[str, NDArray[np.float64]]:
    """Average accuracy, kappa, macro F1 of R matrices, from their diagonals and totals `(R, K)`; NaN if undefined."""
    recall = _divide(right, reference)
    f1 = _divide(2 * right, reference + predicted)
    total = reference.sum(axis=1).astype(np.float64)
    agreement = _divide(right.sum(axis=1), total)
    chance = _divide((reference.astype(np.float64) * predicted).sum(axis=1), total**2)
    # All in one class: an exact count, where 1 − chance would be a rounding error.
    certain = ((reference == total[:, None]) & (predicted == total[:, None])).any(axis=1)
    kappa = np.where(certain, np.nan, _divide(agreement - chance, np.where(certain, 1, 1 - chance)))
    return {"average_accuracy": _defined_mean(recall), "kappa": kappa, "macro_f1": _defined_mean(f1)}


def _divide(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    quotient = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) != 0)


def _defined_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1))


def _percentile_interval(replicates: NDArray[np.float64], score: float | None) -> list[float] | None:
    defined = replicates[~np.isnan(replicates)]
    if score is None or defined.size == 0:
        return None
    return np.quantile(defined, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).tolist()


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    defined = np.array([value for value in values if value is not None], np.float64)
    return {
        "mean": float(defined.mean()) if defined.size else None,
        "sd": float(defined.std(ddof=1)) if defined.size > 1 else None,
        "values": list(values),
    }


def as_counts(numbers: Any) -> NDArray[np.int64]:
    """Return whole numbers of at least 0, of any shape; LabelError for anything else."""
    array = np.asarray(numbers)
    if array.dtype.kind not in "iuf" or (array < 0).any() or (array != np.floor(array)).any():
        raise LabelError("a confusion matrix holds something else than counts", expected="whole numbers, 0 or more")
    return array.astype(np.int64)


def described_classes(classes: Iterable[int | Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return classes with `id`, `name` and `color`; what is not given is filled in."""
    given: list[dict[str, Any]] = [dict(entry) if isinstance(entry, Mapping) else {"id": entry} for entry in classes]
    colors = {int(entry["id"]): entry["color"] for entry in given if entry.get("color")}
    colors |= default_colors({int(entry["id"]) for entry in given} - set(colors), taken=list(colors.values()))
    return tuple(
        {"id": k, "name": entry.get("name") or f"class {k}", "color": colors[k]}
        for k, entry in ((int(entry["id"]), entry) for entry in given)
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _as_list(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
