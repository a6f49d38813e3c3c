from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spectralmamba import compare_ranks, holm, mcnemar, paired_tests
from spectralmamba.comparison import McNemar
from spectralmamba.errors import LabelError, SpectralMambaError

# Demšar 2006, table 6, as scipy's own tests have it: the table rounds two AUCs of `voting` to 0.975, but ranks them apart.
VARIANTS = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
AUC = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.9751 0.975
0.957 0.978 0.946 0.970
"""
ROWS = [[float(text) for text in line.split()] for line in AUC.split("\n") if line]
DEMSAR = {name: [row[index] for row in ROWS] for index, name in enumerate(VARIANTS)}


# Two maps ----------------------------------------------------------------------------------------


def test_mcnemar_counts_pixels_that_only_one_map_has_right() -> None:
    labels = np.array([[1, 1, 2], [2, 0, 2]])
    first, second = np.array([[1, 1, 2], [1, 9, 0]]), np.array([[1, 2, 1], [2, 9, 1]])
    found = mcnemar(first, second, labels)
    assert (found.both, found.b, found.c, found.neither, found.pixels) == (1, 2, 1, 1, 5)
    assert found.difference == pytest.approx(0.2)
    assert found.method == "exact binomial"
    masked = mcnemar(first, second, labels, where=labels == 1)
    assert (masked.both, masked.b, masked.c, masked.neither) == (1, 1, 0, 0)


def test_agresti_s_survey_has_the_chi_square_of_r() -> None:
    """Agresti 1990, p. 350, the example of R's mcnemar.test: 16.818 and p = 4.115e-05 with continuity correction."""
    found = McNemar.from_counts(794, 150, 86, 570)
    assert found.statistic == pytest.approx(16.818, abs=5e-4)
    assert found.p == pytest.approx(4.115e-05, abs=5e-9)
    assert found.method.startswith("chi-square")


def test_the_interval_of_the_difference_is_newcombe_s() -> None:
    """Cavo et al. 2012 in the R package contingencytables (Fagerland, Lydersen and Laake 2017, chapter 8)."""
    found = McNemar.from_counts(59, 6, 16, 80)
    assert found.difference == pytest.approx(-0.0621, abs=5e-5)
    assert found.interval == pytest.approx((-0.1186, -0.0046), abs=5e-5)


@given(st.integers(0, 24), st.integers(0, 24))
@settings(deadline=None)
def test_few_discordant_pixels_are_tested_exactly(b: int, c: int) -> None:
    found = McNemar.from_counts(100, b, c, 3)
    if b + c >= 25:
        assert found.statistic is not None
    else:
        assert found.statistic is None
        assert found.p == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1)


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4).filter(any))
@settings(deadline=None)
def test_exchanging_the_maps_turns_the_difference_and_its_interval(counts: list[int]) -> None:
    both, b, c, neither = counts
    one, other = McNemar.from_counts(both, b, c, neither), McNemar.from_counts(both, c, b, neither)
    assert one.p == other.p
    low, high = one.interval
    assert -1 <= low <= one.difference <= high <= 1
    assert other.interval == pytest.approx((-high, -low))
    assert json.loads(json.dumps(one.to_dict()))["pixels"] == sum(counts)


def test_maps_that_do_not_fit_are_refused() -> None:
    labels = np.array([1, 2])
    with pytest.raises(LabelError, match="differ in shape"):
        mcnemar(np.array([1]), labels, labels)
    with pytest.raises(LabelError, match="no labelled pixel"):
        mcnemar(labels, labels, labels, where=labels > 2)
    with pytest.raises(LabelError, match="counts"):
        McNemar.from_counts(1, -1, 0, 0)
    with pytest.raises(SpectralMambaError, match="no pixel"):
        McNemar.from_counts(0, 0, 0, 0)
    with pytest.raises(SpectralMambaError, match="found 95"):
        mcnemar(labels, labels, labels, level=95)


# Two classifiers, several seeds or data sets -------------------------------------------------------


def test_demsar_s_wilcoxon_example_has_the_sums_of_ranks_of_the_article() -> None:
    """Demšar 2006, table 2 and section 3.1.3: R+ = 93, R− = 12, below the critical value 21 for α = 0.05 and 14 data sets."""
    found = paired_tests(DEMSAR["C4.5+m"], DEMSAR["C4.5"])
    assert found.rank_sums == (93, 12)
    assert found.wilcoxon_p < 0.05
    assert found.n == 14


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_without_ties_both_tests_are_scipy_s(number: int, seed: int) -> None:
    first, second = np.random.default_rng(seed).normal(size=(2, number))
    found = paired_tests(first.tolist(), second.tolist())
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(first, second, method="exact").pvalue)
    assert found.t_p == pytest.approx(stats.ttest_rel(first, second).pvalue)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
@settings(deadline=None, max_examples=40)
def test_with_ties_wilcoxon_s_p_is_the_share_of_all_signs(differences: list[int]) -> None:
    found = paired_tests([float(d) for d in differences], [0.0] * len(differences))
    ranks = stats.rankdata(np.abs(differences))
    signed = ranks[np.array(differences) != 0]
    zeros = ranks.sum() - signed.sum()
    sums = [zeros / 2 + float(np.dot(signs, signed)) for signs in itertools.product((0, 1), repeat=len(signed))]
    share = float(np.mean(np.array(sums) <= min(found.rank_sums) + 1e-9))
    assert found.wilcoxon_p == pytest.approx(min(1.0, 2 * share))
    assert sum(found.rank_sums) == pytest.approx(len(differences) * (len(differences) + 1) / 2)


def test_many_pairs_are_tested_by_the_normal_distribution() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 300))
    found = paired_tests(first.tolist(), second.tolist()).wilcoxon_p
    assert found == pytest.approx(stats.wilcoxon(first, second, method="approx", correction=False).pvalue)


def test_pairs_that_lack_a_score_are_left_out_and_counted() -> None:
    found = paired_tests([0.9, None, 0.8, float("nan")], [0.8, 0.7, 0.8, 0.1])
    assert (found.n, found.dropped) == (2, 2)
    assert found.mean == pytest.approx(0.05)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["rank_sums"] == [2.5, 0.5]


def test_equal_differences_have_no_t_and_one_pair_no_interval() -> None:
    alike = paired_tests([0.9, 0.8, 0.7], [0.8, 0.7, 0.6])
    assert alike.t is alike.t_p is None
    assert alike.wilcoxon_p == 0.25
    single = paired_tests([0.9], [0.8])
    assert single.interval is single.t is None
    assert paired_tests([0.5, 0.5], [0.5, 0.5]).wilcoxon_p == 1


def test_lists_that_do_not_pair_are_refused() -> None:
    with pytest.raises(SpectralMambaError, match="1 and 2 values"):
        paired_tests([0.9], [0.8, 0.7])
    with pytest.raises(SpectralMambaError, match="no pair is complete"):
        paired_tests([None, 0.3], [0.8, None])


# Many tests ----------------------------------------------------------------------------------------


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    corrected = holm([0.05, 0.01, None, 0.03, 0.001])
    assert corrected == [pytest.approx(0.06), pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.004)]
    assert holm([]) == []
    with pytest.raises(SpectralMambaError, match=r"found 1\.5"):
        holm([0.5, 1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_stays_between_plain_and_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    assert all(a <= b for a, b in itertools.pairwise(corrected[i] for i in order))
    for p, found in zip(p_values, corrected, strict=True):
        assert p <= found <= min(1.0, len(p_values) * p)


# Several classifiers -------------------------------------------------------------------------------


def test_demsar_s_example_of_ranks_is_reproduced() -> None:
    """Demšar 2006, section 3.2.2: mean ranks, χ² = 9.28, F = 3.69, CD = 1.25; not even best and worst differ."""
    found = compare_ranks(DEMSAR)
    assert list(found.mean_ranks) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    assert list(found.mean_ranks.values()) == pytest.approx([1.964, 2.000, 2.893, 3.143], abs=5e-4)
    assert found.chi_square == pytest.approx(9.28, abs=5e-3)
    assert found.f == pytest.approx(3.69, abs=5e-3)
    assert found.f_p < 0.05
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert found.groups == [tuple(found.mean_ranks)]
    assert (found.blocks, found.dropped) == (14, 0)


def test_demsar_s_two_groups_at_ten_percent_are_reproduced() -> None:
    """Demšar 2006, section 3.2.2: with CD = 1.12 C4.5 is worse than C4.5+m and C4.5+m+cf, and C4.5+cf in both groups."""
    found = compare_ranks(DEMSAR, level=0.9)
    assert found.critical_difference == pytest.approx(1.12, abs=5e-3)
    assert found.groups == [("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5")]
    assert {pair for pair, p in found.pairs.items() if p <= 0.1} == {("C4.5+m+cf", "C4.5"), ("C4.5+m", "C4.5")}


def test_friedman_s_statistic_corrected_for_ties_is_scipy_s() -> None:
    found = compare_ranks(DEMSAR)
    wanted = stats.friedmanchisquare(*DEMSAR.values()).statistic
    assert wanted == pytest.approx(10.228, abs=5e-4)  # what scipy's own tests have checked with R
    assert found.chi_square / found.tie_correction == pytest.approx(wanted)


@pytest.mark.parametrize(("number", "quantile"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_are_those_of_demsar_s_table_5(number: int, quantile: float) -> None:
    scores = {str(k): [float(k), float(k)] for k in range(number)}
    scale = math.sqrt(number * (number + 1) / 12)
    # The table's last digit is cut off here and there: q of three classifiers is 2.3437.
    assert compare_ranks(scores).critical_difference / scale == pytest.approx(quantile, abs=1e-3)


def test_bootstrap_intervals_hold_the_mean_rank_and_repeat() -> None:
    first, second = compare_ranks(DEMSAR), compare_ranks(DEMSAR)
    assert first == second
    for name, (low, high) in first.intervals.items():
        assert 1 <= low < first.mean_ranks[name] < high <= 4
    ranks = np.array([stats.rankdata([-score for score in row]) for row in ROWS])
    low, high = first.intervals["C4.5"]
    error = ranks[:, 0].std() / math.sqrt(14)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)  # 2 000 redrawings of 14 coarse ranks


def test_blocks_that_lack_a_classifier_are_left_out_for_all_and_counted() -> None:
    scores = {"a": [0.9, None, 0.9, 0.7], "b": [0.8, 0.9, 0.8, 0.6], "c": [0.7, 0.8, float("nan"), 0.5]}
    found = compare_ranks(scores)
    assert (found.blocks, found.dropped) == (2, 2)
    assert found.mean_ranks == {"a": 1, "b": 2, "c": 3}
    assert found.f is None
    assert found.f_p == 0
    json.dumps(found.to_dict(), allow_nan=False)


def test_seeds_of_a_data_set_are_averaged_and_count_once() -> None:
    scores = {"a": [0.9, 0.5, 0.6, None, 0.7], "b": [0.8, 0.8, 0.5, 0.4, 0.6]}
    found = compare_ranks(scores, groups=["x", "x", "y", "y", "z"])
    assert (found.blocks, found.dropped) == (3, 1)
    assert found.mean_ranks == pytest.approx({"a": 4 / 3, "b": 5 / 3})


def test_errors_rank_the_other_way() -> None:
    assert list(compare_ranks({"a": [1, 2], "b": [2, 3]}, higher_is_better=False).mean_ranks) == ["a", "b"]


def test_ties_everywhere_are_no_difference() -> None:
    found = compare_ranks({"a": [0.1 + 0.2, 0.5], "b": [0.3, 0.5]})
    assert found.mean_ranks == {"a": 1.5, "b": 1.5}
    assert (found.chi_square, found.chi_square_p, found.tie_correction) == (0, 1, None)
    assert found.groups == [("a", "b")]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": [1.0, 2.0]}, "1 classifiers"),
        ({"a": [1.0, 2.0], "b": [1.0]}, "1, 2 scores"),
        ({"a": [1.0, None], "b": [1.0, 2.0]}, "1, after 1 were left out"),
        ({}, "no scores"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(scores: dict, message: str) -> None:
    with pytest.raises(SpectralMambaError, match=message):
        compare_ranks(scores)
