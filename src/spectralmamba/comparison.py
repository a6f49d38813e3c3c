"""Is one classifier better than another: tests of paired results, and their correction for number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from spectralmamba.errors import LabelError, SpectralMambaError
from spectralmamba.evaluation import as_counts, check_level, paired_difference, wilson_interval
from spectralmamba.splits import class_ids

LEVEL = 0.95
FEWEST_FOR_CHI_SQUARE = 25  # discordant pixels; below, the binomial distribution itself is used
MOST_FOR_EXACT_RANKS = 200  # pairs; the exact distribution takes some milliseconds up to here
ROUNDING = 12  # decimals: what differs by less is a tie, such as 0.768 − 0.763 and 0.936 − 0.931

Score = float | None


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same test pixels (McNemar 1947, Psychometrika 12, 153–157).

    Neighbouring pixels are not independent, as the test takes them to be, so p is smaller and the interval narrower than
    another scene would bear out.

    Attributes:
        both: Pixels that both have right.
        b: Pixels that only the first has right.
        c: Pixels that only the second has right.
        neither: Pixels that both have wrong.
        method: "exact binomial", or "chi-square with continuity correction" from 25 discordant pixels (b + c) on.
        statistic: Chi-square of one degree of freedom; None where the test is exact.
        p: Two-sided, of the hypothesis that both have the same accuracy.
        difference: Accuracy of the first less that of the second, (b − c) / n.
        interval: Of the difference, from Wilson's intervals of both accuracies and their correlation (Newcombe 1998,
            Statistics in Medicine 17, 2635–2650, method 10).
        level: Its confidence level.
    """

    both: int
    b: int
    c: int
    neither: int
    method: str
    statistic: float | None
    p: float
    difference: float
    interval: tuple[float, float]
    level: float = LEVEL

    @classmethod
    def from_counts(cls, both: int, b: int, c: int, neither: int, *, level: float = LEVEL) -> McNemar:
        """The test of four counts of pixels.

        Raises:
            LabelError: A count is negative or fractional.
            SpectralMambaError: There is no pixel, or `level` is not between 0 and 1.
        """
        check_level(level)
        both, b, c, neither = (int(count) for count in as_counts([both, b, c, neither]))
        total = both + b + c + neither
        if total == 0:
            raise SpectralMambaError("there is no pixel to compare", expected="at least one")
        method, statistic, p = _discordant(b, c)
        interval = _paired_interval((both, b, c, neither), level)
        return cls(both, b, c, neither, method, statistic, p, (b - c) / total, interval, level)

    @property
    def pixels(self) -> int:
        """All pixels compared."""
        return self.both + self.b + self.c + self.neither

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self) | {"interval": list(self.interval), "pixels": self.pixels}


def mcnemar(
    first: np.ndarray | xr.DataArray,
    second: np.ndarray | xr.DataArray,
    labels: np.ndarray | xr.DataArray,
    *,
    where: np.ndarray | xr.DataArray | None = None,
    level: float = LEVEL,
) -> McNemar:
    """Compare two maps on the same labelled pixels.

    Args:
        first: Class ids of any shape, commonly `(H, W)`; 0, which is no prediction, counts as wrong.
        second: Those of the other map, of the same shape.
        labels: Class ids of the same shape, 0 unlabelled.
        where: Bool of the same shape: the pixels to compare, a test mask as a rule.
        level: Confidence level of the difference's interval.

    Raises:
        LabelError: Shapes differ, an array is not class ids, or no labelled pixel is left to compare.
        SpectralMambaError: `level` is not between 0 and 1.
    """
    one, other, reference = class_ids(first), class_ids(second), class_ids(labels)
    selected = np.ones(reference.shape, bool) if where is None else np.asarray(where).astype(bool)
    shapes = {one.shape, other.shape, reference.shape, selected.shape}
    if len(shapes) > 1:
        raise LabelError("maps, labels and mask differ in shape", found=sorted(shapes), expected="one shape")
    compared = selected & (reference > 0)
    if not compared.any():
        raise LabelError("there is nothing to compare", found="no labelled pixel", expected="at least one")
    right, right_too = (found[compared] == reference[compared] for found in (one, other))
    counts = np.bincount(2 * right + right_too, minlength=4).tolist()
    return McNemar.from_counts(counts[3], counts[2], counts[1], counts[0], level=level)


@dataclass(frozen=True)
class PairedTests:
    """Two classifiers over the same seeds or data sets.

    Attributes:
        n: Pairs compared.
        dropped: Pairs left out, because one of the two has no score.
        mean: Of the differences, first − second.
        sd: Of the differences, of the sample; None for one pair.
        interval: Student's, of the mean; None for one pair.
        level: Its confidence level.
        t: Student's t; None for one pair, or where all differences are equal.
        t_p: Its two-sided p.
        rank_sums: Wilcoxon's sums of ranks for the first and for the second; a difference of 0 gives half of its rank to
            each (Demšar 2006, section 3.1.3).
        wilcoxon_p: Two-sided p of the smaller sum: exact, ties and all, up to 200 pairs, then by the normal distribution.
        differences: The single differences.
    """

    n: int
    dropped: int
    mean: float
    sd: float | None
    interval: list[float] | None
    level: float
    t: float | None
    t_p: float | None
    rank_sums: tuple[float, float]
    wilcoxon_p: float
    differences: list[float]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self) | {"rank_sums": list(self.rank_sums)}


def paired_tests(first: Sequence[Score], second: Sequence[Score], *, level: float = LEVEL) -> PairedTests:
    """Test whether two classifiers differ over the same seeds or data sets, by Student's t and by Wilcoxon's signed ranks.

    Over seeds of one scene both speak of this scene alone; over data sets Wilcoxon's test is the one to report, since
    differences of different data sets are hardly normal (Demšar 2006, JMLR 7, 1–30).

    Args:
        first: A score of each seed or data set, None or NaN where it is missing.
        second: The same score of the other classifier, in the same order.
        level: Confidence level of the mean difference's interval.

    Raises:
        SpectralMambaError: The lengths differ, no pair is complete, or `level` is not between 0 and 1.
    """
    if len(first) != len(second):
        raise SpectralMambaError(
            "the values cannot be paired", found=f"{len(first)} and {len(second)} values", expected="one for each seed"
        )
    pairs = [pair for pair in zip(first, second, strict=True) if all(_is_there(value) for value in pair)]
    if not pairs:
        raise SpectralMambaError("no pair is complete", found=f"{len(first)} pairs", expected="a score of both in one")
    found = paired_difference([float(a) for a, _ in pairs], [float(b) for _, b in pairs], level=level)  # type: ignore[arg-type]
    differences, sd = np.round(found["differences"], ROUNDING), found["sd"]
    t = t_p = None
    if sd is not None and np.ptp(differences) > 0:
        t = found["mean"] / (sd / math.sqrt(len(pairs)))
        t_p = float(2 * stats.t.sf(abs(t), len(pairs) - 1))
    rank_sums, wilcoxon_p = _signed_ranks(differences)
    return PairedTests(
        n=len(pairs),
        dropped=len(first) - len(pairs),
        **{name: found[name] for name in ("mean", "sd", "interval", "level", "differences")},
        t=t,
        t_p=t_p,
        rank_sums=rank_sums,
        wilcoxon_p=wilcoxon_p,
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct a family of p-values for their number (Holm 1979, Scandinavian Journal of Statistics 6, 65–70).

    Whoever rejects what is at most α here errs anywhere in the family with a probability of at most α, whatever the
    dependence between the tests.

    Args:
        p_values: Of all tests that were made; None where there was none, which does not count.

    Returns:
        The corrected p-values in the same order, None where there was none.

    Raises:
        SpectralMambaError: A p-value is not between 0 and 1.
    """
    known = [(p, index) for index, p in enumerate(p_values) if p is not None]
    wrong = [p for p, _ in known if not 0 <= p <= 1]
    if wrong:
        raise SpectralMambaError("a p-value is out of range", found=wrong[0], expected="0 to 1")
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for step, (p, index) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, (len(known) - step) * p))
        corrected[index] = largest
    return corrected


def _discordant(b: int, c: int) -> tuple[str, float | None, float]:
    """Method, statistic and p of so many pixels that only one of the two has right."""
    if b + c < FEWEST_FOR_CHI_SQUARE:
        return "exact binomial", None, 1.0 if b == c else float(stats.binomtest(b, b + c).pvalue)
    statistic = max(abs(b - c) - 1, 0) ** 2 / (b + c)
    return "chi-square with continuity correction", statistic, float(stats.chi2.sf(statistic, 1))


def _paired_interval(table: tuple[int, ...], level: float) -> tuple[float, float]:
    both, b, c, neither = table
    total = sum(table)
    first, second = (both + b) / total, (both + c) / total
    (low, high), (low_too, high_too) = (
        wilson_interval(right, total, level) or (0.0, 1.0) for right in (both + b, both + c)
    )
    margins = (both + b) * (c + neither) * (both + c) * (b + neither)
    agreement = both * neither - b * c
    shrunk = max(agreement - total / 2, 0.0) if agreement > 0 else float(agreement)
    correlation = shrunk / math.sqrt(margins) if margins else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one * one - 2 * correlation * one * other + other * other, 0.0))

    difference = (b - c) / total
    return (
        max(difference - reach(first - low, high_too - second), -1.0),
        min(difference + reach(second - low_too, high - first), 1.0),
    )


def _is_there(value: Score) -> bool:
    return value is not None and math.isfinite(value)


def _signed_ranks(differences: NDArray[np.float64]) -> tuple[tuple[float, float], float]:
    """Wilcoxon's sums of ranks, and the two-sided p of the smaller one given the ranks, whatever their ties."""
    ranks = stats.rankdata(np.abs(differences))
    tied = float(ranks[differences == 0].sum()) / 2
    signed = ranks[differences != 0]
    sums = tied + float(ranks[differences > 0].sum()), tied + float(ranks[differences < 0].sum())
    smaller = min(sums) - tied
    if len(signed) <= MOST_FOR_EXACT_RANKS:
        return sums, min(1.0, 2 * _share_of_sums_up_to(smaller, signed))
    z = (smaller - signed.sum() / 2) / math.sqrt((signed**2).sum() / 4)
    return sums, min(1.0, 2 * float(stats.norm.cdf(z)))


def _share_of_sums_up_to(limit: float, ranks: NDArray[np.float64]) -> float:
    """Of all choices of signs, the share whose positive ranks sum to no more than this; midranks are doubled to be whole."""
    doubled = np.rint(2 * ranks).astype(int)
    chances = np.ones(1)
    for rank in doubled.tolist():
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return float(chances[: round(2 * limit) + 1].sum())
