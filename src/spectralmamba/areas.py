"""Class areas and accuracies from a stratified random reference sample, with their uncertainty; and how large it should be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectralmamba.errors import LabelError, SpectralMambaError
from spectralmamba.evaluation import as_counts, check_level, described_classes

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error and interval, value ± half width, which is not cut at 0 or 1; None if undefined."""

    value: float | None
    standard_error: float | None
    half_width: float | None

    @property
    def interval(self) -> list[float] | None:
        """Lower and upper limit."""
        if self.value is None or self.half_width is None:
            return None
        return [self.value - self.half_width, self.value + self.half_width]

    def times(self, factor: float) -> Estimate:
        """The same in another unit."""
        parts = (self.value, self.standard_error, self.half_width)
        return Estimate(*(None if part is None else part * factor for part in parts))

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"value": self.value, "standard_error": self.standard_error, "interval": self.interval}


@dataclass(frozen=True, eq=False)
class AreaEstimates:
    """What a stratified random reference sample says of a map and of the ground (Olofsson et al. 2014).

    Attributes:
        counts: `(K, K)` int64, sampled units; rows map class, columns reference class.
        classes: K mappings `{"id": int, "name": str, "color": "#rrggbb"}`.
        unit: Of the areas.
        level: Confidence level of the intervals.
        proportions: `(K, K)`, estimated share of the whole area in each cell of `counts`.
        mapped: `(K,)` mapped area of each class; estimated from the sample if the strata are not the map classes.
        overall_accuracy: Share of the area that is mapped right.
        users_accuracy: Of each map class, the share of its area that is right.
        producers_accuracy: Of each reference class, the share of its area that is mapped so.
        areas: Of each reference class, its area, which the mapped one is a biased estimate of.
    """

    counts: NDArray[np.int64]
    classes: tuple[dict[str, Any], ...]
    unit: str
    level: float
    proportions: NDArray[np.float64]
    mapped: NDArray[np.float64]
    overall_accuracy: Estimate
    users_accuracy: tuple[Estimate, ...]
    producers_accuracy: tuple[Estimate, ...]
    areas: tuple[Estimate, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; what is undefined is None."""
        return {
            "level": self.level,
            "unit": self.unit,
            "samples": int(self.counts.sum()),
            "overall_accuracy": self.overall_accuracy.to_dict(),
            "per_class": [
                {
                    **entry,
                    "samples": int(self.counts[k].sum()),
                    "reference_samples": int(self.counts[:, k].sum()),
                    "mapped_area": float(self.mapped[k]),
                    "area": self.areas[k].to_dict(),
                    "users_accuracy": self.users_accuracy[k].to_dict(),
                    "producers_accuracy": self.producers_accuracy[k].to_dict(),
                }
                for k, entry in enumerate(self.classes)
            ],
            "counts": self.counts.tolist(),
            "proportions": self.proportions.tolist(),
        }


def estimate_areas(
    counts: Any,
    areas: Sequence[float] | NDArray[Any],
    *,
    classes: Iterable[int | Mapping[str, Any]] | None = None,
    unit: str = "pixels",
    level: float = LEVEL,
) -> AreaEstimates:
    """Estimate accuracies and class areas from a stratified random sample of reference labels.

    The strata are the map classes, as a rule (Olofsson et al. 2014, Remote Sensing of Environment 148, 42–57, equations 1 to
    11); or others, such as those of an earlier map (Stehman 2014, International Journal of Remote Sensing 35, 4923–4939), of
    which the former is the special case. Strata are taken to be large: their finite size is not corrected for.

    Args:
        counts: `(K, K)` sampled units, rows map class, columns reference class, each row one stratum; or `(H, K, K)`, such a
            table for each of H strata.
        areas: Size of each stratum, `(K,)` or `(H,)`, in any unit, pixels or hectares. A class that is not mapped has 0.
        classes: K ids, or mappings with `id` and, if known, `name` and `color`; 1 to K if not given.
        unit: Of the areas, for the result.
        level: Confidence level of the intervals.

    Raises:
        LabelError: The shapes do not fit, a count is negative or fractional, a stratum has no area but samples, or an area
            but fewer than two samples.
        SpectralMambaError: `level` is not between 0 and 1.
    """
    check_level(level)
    table, sizes = as_counts(counts), np.asarray(areas, dtype=float)
    by_class = table.ndim == 2
    described = described_classes(range(1, table.shape[-1] + 1) if classes is None else classes) if table.ndim else ()
    _check_shapes(table, sizes, len(described))
    _check_strata(table.reshape(len(table), -1).sum(axis=1), sizes, described if by_class else None)
    if by_class:
        table = np.eye(len(table), dtype=np.int64)[:, :, None] * table[:, None, :]  # (H, K, K): only its own row
    strata = _Strata(table, sizes, NormalDist().inv_cdf((1 + level) / 2))
    of_map, of_reference = strata.shares.sum(axis=2), strata.shares.sum(axis=1)  # (H, K)
    right = np.diagonal(strata.shares, axis1=1, axis2=2)  # (H, K)
    number, total = len(described), float(sizes.sum())
    return AreaEstimates(
        counts=table.sum(axis=0),
        classes=described,
        unit=unit,
        level=level,
        proportions=np.tensordot(strata.weights, strata.shares, axes=1),
        mapped=strata.weights @ of_map * total,
        overall_accuracy=strata.mean(right.sum(axis=1)),
        users_accuracy=tuple(strata.ratio(right[:, k], of_map[:, k]) for k in range(number)),
        producers_accuracy=tuple(strata.ratio(right[:, k], of_reference[:, k]) for k in range(number)),
        areas=tuple(strata.mean(of_reference[:, k]).times(total) for k in range(number)),
    )


def sample_size(
    areas: Sequence[float], users_accuracy: Sequence[float], standard_error: float, *, units: int | None = None
) -> int:
    """How many units to sample for a standard error of the overall accuracy (Olofsson et al. 2014, equation 13).

    Args:
        areas: Mapped area of each class, in any unit.
        users_accuracy: What is expected of each class, 0 to 1.
        standard_error: The one wanted, such as 0.01.
        units: Units (pixels) of the map; if not given, very many.

    Raises:
        SpectralMambaError: The lengths differ, or a number is out of range.
    """
    sizes, expected = np.asarray(areas, dtype=float), np.asarray(users_accuracy, dtype=float)
    _check_areas(sizes)
    if sizes.shape != expected.shape or not ((expected >= 0) & (expected <= 1)).all() or not standard_error > 0:
        raise SpectralMambaError(
            "the sample cannot be planned",
            found=f"{sizes.size} areas, accuracies {expected.tolist()} and a standard error of {standard_error}",
            expected="an accuracy of 0 to 1 for each area, and a standard error above 0",
        )
    weights, variances = sizes / sizes.sum(), expected * (1 - expected)
    finite = 0.0 if units is None else float(weights @ variances) / units
    return math.ceil(float(weights @ np.sqrt(variances)) ** 2 / (standard_error**2 + finite))


def allocate(total: int, areas: Sequence[float], *, minimum: int = 0) -> list[int]:
    """Divide a sample among the map classes: by area, but for rare classes, which get a minimum.

    Olofsson et al. 2014 (section 5.1.2) advise 50 to 100 for classes that are rare, and the rest by area.

    Args:
        total: Units to sample.
        areas: Mapped area of each class, in any unit.
        minimum: Least number of each class; 2 are needed for any standard error.

    Returns:
        The number of each class; they sum to `total`.

    Raises:
        SpectralMambaError: `total` is less than the minima together, or an area is not positive.
    """
    sizes = np.asarray(areas, dtype=float)
    _check_areas(sizes)
    if minimum < 0 or total < minimum * len(sizes) or not (sizes > 0).all():
        raise SpectralMambaError(
            "the sample cannot be divided so",
            found=f"{total} units for {len(sizes)} classes with at least {minimum} each",
            expected="enough for the minima, and an area above 0 for each class",
        )
    rare = np.zeros(len(sizes), bool)
    while True:
        rest = total - minimum * int(rare.sum())
        shares = np.where(rare, minimum, rest * sizes / max(sizes[~rare].sum(), np.finfo(float).tiny))
        more = ~rare & (shares < minimum)
        if not more.any():
            break
        rare |= more
    numbers = np.floor(shares).astype(int)
    largest_rests = np.argsort(numbers - shares, kind="stable")[: total - int(numbers.sum())]
    numbers[largest_rests] += 1
    return numbers.tolist()


class _Strata:
    """Means and ratios over strata, as Stehman 2014 estimates them (equations 2, 25, 27 and 28, without finite sizes)."""

    def __init__(self, table: NDArray[np.int64], sizes: NDArray[np.float64], z: float) -> None:
        there = sizes > 0
        table, self._z = table[there], z
        self._samples = table.sum(axis=(1, 2))
        self.weights = sizes[there] / sizes.sum()
        self.shares = table / self._samples[:, None, None]

    def mean(self, shares: NDArray[np.float64]) -> Estimate:
        """Share of the whole area with a property, from the share `(H,)` of each stratum's sample."""
        return self._estimate(float(self.weights @ shares), shares * (1 - shares), 1.0)

    def ratio(self, part: NDArray[np.float64], whole: NDArray[np.float64]) -> Estimate:
        """Share of the area of `whole` that is also `part`, from the shares `(H,)` of each stratum's sample."""
        base = float(self.weights @ whole)
        if base == 0:
            return Estimate(None, None, None)
        ratio = float(self.weights @ part) / base
        # Of y − R x, where y is 1 only where x is: its mean and the mean of its square.
        mean, square = part - ratio * whole, part - 2 * ratio * part + ratio**2 * whole
        return self._estimate(ratio, square - mean**2, base)

    def _estimate(self, value: float, spread: NDArray[np.float64], base: float) -> Estimate:
        variance = float((self.weights**2 * np.maximum(spread, 0) / (self._samples - 1)).sum()) / base**2
        error = math.sqrt(variance)
        return Estimate(value, error, self._z * error)


def _check_shapes(table: NDArray[np.int64], sizes: NDArray[np.float64], number: int) -> None:
    if table.ndim not in (2, 3) or table.shape[-2:] != (number, number) or sizes.shape != table.shape[:1]:
        raise LabelError(
            "error matrix, areas and classes do not fit",
            found=f"counts of shape {table.shape}, {sizes.size} areas and {number} classes",
            expected="(K, K) counts, K areas and K classes; or (H, K, K) counts, H areas and K classes",
        )
    _check_areas(sizes)


def _check_areas(sizes: NDArray[np.float64]) -> None:
    if sizes.ndim != 1 or not np.isfinite(sizes).all() or (sizes < 0).any() or not sizes.sum() > 0:
        raise LabelError("areas are out of range", found=sizes.tolist(), expected="numbers of at least 0, not all 0")


def _check_strata(
    samples: NDArray[np.int64], sizes: NDArray[np.float64], classes: Sequence[Mapping[str, Any]] | None
) -> None:
    names = [f"stratum {k + 1}" for k in range(len(sizes))] if classes is None else [str(c["name"]) for c in classes]
    few = [f"{name} ({count})" for name, count, size in zip(names, samples, sizes, strict=True) if size and count < 2]
    if few:
        raise LabelError(
            "too few reference samples in a stratum",
            found=", ".join(few),
            expected="at least 2 in each mapped class, drawn at random",
            remedy="Sample more there, or merge the class with another one.",
        )
    lost = [name for name, count, size in zip(names, samples, sizes, strict=True) if count and not size]
    if lost:
        raise LabelError(
            "there are reference samples in a stratum without area", found=", ".join(lost), expected="its mapped area"
        )
