"""Several classifiers over the same data sets or seeds: their mean ranks, and whether these differ."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spectralmamba.comparison import LEVEL, ROUNDING, Score
from spectralmamba.errors import SpectralMambaError
from spectralmamba.evaluation import check_level

REPLICATES = 2000
BOOTSTRAP_SEED = 0
_ALL_AGREE = 1e-9  # of Friedman's statistic below its maximum: rounding


@dataclass(frozen=True)
class Ranks:
    """Several classifiers over the same blocks, which are data sets or seeds; all by mean rank, 1 is best.

    Sources: Demšar 2006, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 1–30; Iman and
    Davenport 1980, Communications in Statistics A 9, 571–595; Nemenyi 1963, by Demšar.

    Attributes:
        blocks: Blocks ranked.
        dropped: Blocks (with `groups`, seeds) left out, because a classifier has no score there.
        mean_ranks: Of each classifier, best first; ties share their mean rank.
        intervals: Of each mean rank: percentile bootstrap, 2000 redrawings of the blocks.
        level: Confidence level of the intervals and, as 1 − α, of the critical difference.
        chi_square: Friedman's statistic of K − 1 degrees of freedom, not corrected for ties.
        chi_square_p: Its p.
        tie_correction: What divides the statistic to correct it for ties, 1 without ties; None if all is tied.
        f: Iman and Davenport's statistic of K − 1 and (K − 1)(N − 1) degrees of freedom, less conservative; None where it is
            infinite, since all blocks agree.
        f_p: Its p.
        critical_difference: Mean ranks that lie further apart differ at `level` by Nemenyi's test.
        pairs: Nemenyi's p of each pair of classifiers, the better one first.
        groups: Classifiers that do not differ, the largest such sets of at least two.
    """

    blocks: int
    dropped: int
    mean_ranks: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    level: float
    chi_square: float
    chi_square_p: float
    tie_correction: float | None
    f: float | None
    f_p: float
    critical_difference: float
    pairs: dict[tuple[str, str], float]
    groups: list[tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; pairs as a list."""
        return asdict(self) | {
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "pairs": [{"first": one, "second": other, "p": p} for (one, other), p in self.pairs.items()],
            "groups": [list(group) for group in self.groups],
        }


def compare_ranks(
    scores: Mapping[str, Sequence[Score]],
    *,
    groups: Sequence[Hashable] | None = None,
    higher_is_better: bool = True,
    level: float = LEVEL,
) -> Ranks:
    """Rank several classifiers block by block, and test whether their mean ranks differ.

    A block that lacks one classifier's score is left out for all, and counted.

    Args:
        scores: For each classifier its score on every block, None or NaN where it is missing.
        groups: The data set of every block, if blocks are seeds of data sets: scores are averaged over the seeds, and a data
            set is one block, since seeds of one data set are no independent evidence.
        higher_is_better: False for errors and seconds.
        level: Confidence level.

    Raises:
        SpectralMambaError: There are fewer than two classifiers or complete blocks, the lengths differ, or `level` is not
            between 0 and 1.
    """
    check_level(level)
    table, dropped = _complete(scores, groups)
    ranks = _ranks(table if not higher_is_better else -table)  # (N, K)
    blocks, number = ranks.shape
    mean = ranks.mean(axis=0)
    order = np.argsort(mean, kind="stable")
    names = [list(scores)[index] for index in order]
    mean, ranks = mean[order], ranks[:, order]
    scale = math.sqrt(number * (number + 1) / (6 * blocks))
    difference = _nemenyi_quantile(number, level) * scale
    return Ranks(
        blocks=blocks,
        dropped=dropped,
        mean_ranks=dict(zip(names, mean.tolist(), strict=True)),
        intervals=dict(zip(names, _rank_intervals(ranks, level), strict=True)),
        level=level,
        **_friedman(mean, ranks),
        critical_difference=difference,
        pairs={
            (names[i], names[j]): _nemenyi_p((mean[j] - mean[i]) / scale, number)
            for i, j in combinations(range(number), 2)
        },
        groups=_cliques(names, mean, difference),
    )


def _complete(
    scores: Mapping[str, Sequence[Score]], groups: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], int]:
    """Scores `(N, K)` of the blocks that lack none, averaged within groups, and how many blocks were left out."""
    lengths = {len(values) for values in scores.values()} | (set() if groups is None else {len(groups)})
    if len(scores) < 2 or len(lengths) > 1:
        raise SpectralMambaError(
            "the scores cannot be compared",
            found=f"{len(scores)} classifiers with {', '.join(map(str, sorted(lengths))) or 'no'} scores",
            expected="two or more classifiers with a score, or None, for each of the same blocks",
        )
    table = np.array([[np.nan if value is None else value for value in values] for values in scores.values()], float).T
    complete = np.asarray(np.isfinite(table).all(axis=1))
    dropped = int((~complete).sum())
    table = table[complete]
    if groups is not None:
        kept = [group for group, there in zip(groups, complete.tolist(), strict=True) if there]
        members = [[index for index, one in enumerate(kept) if one == group] for group in dict.fromkeys(kept)]
        table = np.array([table[chosen].mean(axis=0) for chosen in members])
    if len(table) < 2:
        raise SpectralMambaError(
            "too few blocks have a score of every classifier",
            found=f"{len(table)}, after {dropped} were left out",
            expected="at least 2",
            remedy="Leave out the classifiers that are missing most often.",
        )
    return table, dropped


def _ranks(table: NDArray[np.float64]) -> NDArray[np.float64]:
    return stats.rankdata(np.round(table, ROUNDING), axis=1)


def _friedman(mean: NDArray[np.float64], ranks: NDArray[np.float64]) -> dict[str, Any]:
    blocks, number = ranks.shape
    chi_square = 12 * blocks / (number * (number + 1)) * float((mean**2).sum() - number * (number + 1) ** 2 / 4)
    chi_square = max(chi_square, 0.0)
    repeats = np.concatenate([np.unique(row, return_counts=True)[1] for row in ranks]).astype(float)
    tied = float((repeats**3 - repeats).sum())
    correction = 1 - tied / (blocks * number * (number**2 - 1))
    rest = blocks * (number - 1) - chi_square
    f = (blocks - 1) * chi_square / rest if rest > _ALL_AGREE else None
    return {
        "chi_square": chi_square,
        "chi_square_p": float(stats.chi2.sf(chi_square, number - 1)),
        "tie_correction": correction if correction > 0 else None,
        "f": f,
        "f_p": 0.0 if f is None else float(stats.f.sf(f, number - 1, (number - 1) * (blocks - 1))),
    }


def _rank_intervals(ranks: NDArray[np.float64], level: float) -> list[tuple[float, float]]:
    blocks = len(ranks)
    drawn = np.random.default_rng(BOOTSTRAP_SEED).multinomial(blocks, np.full(blocks, 1 / blocks), size=REPLICATES)
    limits = np.quantile(drawn @ ranks / blocks, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [(float(low), float(high)) for low, high in limits.T]


def _nemenyi_quantile(number: int, level: float) -> float:
    """The studentised range divided by √2, as Demšar's table 5 has it."""
    return float(stats.studentized_range.ppf(level, number, math.inf)) / math.sqrt(2)


def _nemenyi_p(distance: float, number: int) -> float:
    return min(1.0, float(stats.studentized_range.sf(distance * math.sqrt(2), number, math.inf)))


def _cliques(names: Sequence[str], mean: NDArray[np.float64], difference: float) -> list[tuple[str, ...]]:
    """The longest runs of classifiers, best first, whose first and last do not differ."""
    last = [int(np.searchsorted(mean, rank + difference, side="right")) for rank in mean]
    return [
        tuple(names[start:end])
        for start, end in enumerate(last)
        if end - start > 1 and (start == 0 or end > last[start - 1])
    ]
