from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from spectralmamba.errors import LabelError, SpectralMambaError
from spectralmamba.evaluation import Scores, calibration, evaluate, paired_difference, summarize, wilson_interval

# Both sides add up the same few hundred fractions in double precision, in another order.
ROUNDING = 1e-12


@st.composite
def maps(draw):
    """A map and its reference, flat; 0 in the map is unclassified, in the reference unlabelled."""
    size = draw(st.integers(1, 200))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reference = generator.choice(draw(st.lists(st.sampled_from([0, 1, 4, 7, 30]), min_size=1)), size)
    guess = generator.choice([0, 1, 4, 7, 30, 31], size)
    predicted = np.where(generator.random(size) < draw(st.floats(0, 1)), reference, guess)
    reference[0] = 4
    return predicted, reference


@pytest.mark.filterwarnings("ignore:A single label:UserWarning")
@given(maps())
@settings(deadline=None, max_examples=60)
def test_scores_are_those_of_scikit_learn(pair):
    predicted, reference = pair
    scores = evaluate(predicted, reference)
    known = reference > 0
    y, p = reference[known], predicted[known]
    assert scores.overall_accuracy == pytest.approx(metrics.accuracy_score(y, p), abs=ROUNDING)
    occurring = np.union1d(y, p[p > 0])
    f1 = metrics.f1_score(y, p, average="macro", labels=occurring, zero_division=0)
    assert scores.macro_f1 == pytest.approx(f1, abs=ROUNDING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes predicted that no reference pixel has
        assert scores.average_accuracy == pytest.approx(metrics.balanced_accuracy_score(y, p), abs=ROUNDING)
        if scores.kappa is None:
            assert len(np.union1d(y, p)) == 1
        else:
            assert scores.kappa == pytest.approx(metrics.cohen_kappa_score(y, p), abs=ROUNDING)
    ids = [entry["id"] for entry in scores.classes]
    np.testing.assert_array_equal(scores.confusion, metrics.confusion_matrix(y, p, labels=ids))


@given(maps())
@settings(deadline=None, max_examples=20)
def test_no_test_pixel_vanishes_and_json_takes_the_scores(pair):
    predicted, reference = pair
    found = evaluate(predicted, reference).to_dict()
    assert found["test_pixels"] == (reference > 0).sum() == sum(row["reference"] for row in found["per_class"])
    assert found["unclassified"] == ((reference > 0) & (predicted == 0)).sum()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in ("overall_accuracy", "average_accuracy", "kappa", "macro_f1"):
        if found["intervals"][name] is not None:
            low, high = found["intervals"][name]
            assert low <= high


def test_unclassified_pixels_count_as_errors():
    scores = evaluate(np.array([1, 1, 0, 2]), np.array([1, 1, 1, 2]))
    assert scores.unclassified == 1
    assert scores.overall_accuracy == 0.75
    assert scores.per_class[0]["recall"] == pytest.approx(2 / 3)
    assert scores.per_class[0]["precision"] == 1
    assert scores.per_class[0]["reference"] == 3


def test_nan_in_a_map_is_unclassified():
    assert evaluate(np.array([np.nan, 2.0]), np.array([1, 2])).unclassified == 1


def test_only_labelled_pixels_inside_the_mask_count():
    labels = np.array([[1, 2], [0, 2]])
    predicted = np.array([[2, 2], [9, 1]])
    scores = evaluate(predicted, labels, where=np.array([[False, True], [True, True]]))
    assert scores.test_pixels == 2
    assert [entry["id"] for entry in scores.classes] == [1, 2]
    assert scores.confusion.tolist() == [[0, 0], [1, 1]]


def test_class_without_test_pixels_has_no_recall_and_does_not_lower_the_average():
    labels = np.array([1, 2, 2, 3])
    found = evaluate(np.array([1, 2, 2, 3]), labels, where=labels != 3).to_dict()
    row = found["per_class"][2]
    assert (row["reference"], row["predicted"]) == (0, 0)
    assert all(row[name] is None for name in ("precision", "recall", "f1", "precision_interval", "recall_interval"))
    assert found["average_accuracy"] == found["macro_f1"] == 1


def test_names_and_colours_come_from_the_labels_and_arguments_go_first():
    labels = xr.DataArray(
        np.array([[3, 10]]),
        dims=("y", "x"),
        attrs={"class_names": {3: "corn", 10: "lettuce", 12: "stubble"}, "class_colors": {3: "#ffd300", 10: "#267000"}},
    )
    classes = evaluate(np.array([[3, 11]]), labels, class_names={3: "maize"}).to_dict()["classes"]
    assert [(entry["id"], entry["name"]) for entry in classes] == [
        (3, "maize"),
        (10, "lettuce"),
        (11, "class 11"),
        (12, "stubble"),
    ]
    colors = [entry["color"] for entry in classes]
    assert colors[:2] == ["#ffd300", "#267000"]
    assert len(set(colors)) == 4


def test_kappa_is_undefined_where_chance_agrees_fully_and_zero_for_two_constants():
    assert evaluate(np.array([4, 4]), np.array([4, 4])).to_dict()["kappa"] is None
    assert evaluate(np.array([4, 4]), np.array([4, 4])).intervals["kappa"] is None
    assert evaluate(np.array([5, 5]), np.array([4, 4])).kappa == 0


def test_cohens_own_example():
    """The proportions of Cohen 1960, table 1, of 200 cases: 70 % agree, 41 % by chance, κ = .492."""
    table = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
    scores = Scores.from_confusion(table, [1, 2, 3])
    assert scores.overall_accuracy == pytest.approx(0.70)
    assert scores.kappa == pytest.approx(0.492, abs=5e-4)


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_is_the_published_one(successes, total, low, high):
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3; four decimals."""
    assert wilson_interval(successes, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
@settings(deadline=None)
def test_wilson_interval_is_scipys_and_holds_the_share(total, share, level):
    successes = round(share * total)
    low, high = wilson_interval(successes, total, level) or (2, -1)
    wanted = stats.binomtest(successes, total).proportion_ci(level, method="wilson")
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)  # scipy's normal quantile is not Python's
    assert 0 <= low <= successes / total <= high <= 1


def test_nothing_tried_has_no_interval():
    assert wilson_interval(0, 0) is None
    with pytest.raises(SpectralMambaError, match="3 of 2"):
        wilson_interval(3, 2)
    with pytest.raises(SpectralMambaError, match="found 95"):
        wilson_interval(1, 2, level=95)


def test_bootstrap_intervals_are_repeatable_and_as_wide_as_theory_says():
    table = [[450, 30, 20], [40, 430, 30], [10, 60, 430]]
    first, second = (Scores.from_confusion(table, [1, 2, 3]) for _ in range(2))
    assert first.intervals == second.intervals
    variance = sum(row["recall"] * (1 - row["recall"]) / row["reference"] for row in first.per_class) / 9
    low, high = first.intervals["average_accuracy"]
    # 2 000 replicates fix a 95 % width to about 3 %; 10 % is three times that.
    assert high - low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.1)
    for name in ("average_accuracy", "kappa", "macro_f1"):
        low, high = first.intervals[name]
        assert low < getattr(first, name) < high
    assert first.intervals["method"]["overall_accuracy"] == "Wilson"
    assert "bootstrap" in first.intervals["method"]["kappa"]


def test_scores_of_an_empty_matrix_are_undefined_not_nan():
    found = Scores.from_confusion([[0, 0], [0, 0]], [1, 2]).to_dict()
    assert [found[name] for name in ("overall_accuracy", "average_accuracy", "kappa", "macro_f1")] == [None] * 4
    assert found["intervals"]["kappa"] is None
    json.dumps(found, allow_nan=False)


@given(maps())
@settings(deadline=None, max_examples=10)
def test_scores_read_back_from_their_matrix_are_the_same(pair):
    scores = evaluate(*pair)
    again = Scores.from_confusion(scores.confusion.tolist(), scores.classes, scores.unclassified_by_class)
    assert again.to_dict() == scores.to_dict()


@pytest.mark.parametrize(
    ("table", "missed", "message"),
    [
        ([[1, 2]], None, r"\(1, 2\)"),
        ([[1, 2], [3, 4]], [1], r"\(1,\)"),
        ([[1, -2], [3, 4]], None, "counts"),
        ([[1, 0.5], [3, 4]], None, "counts"),
        ([[1, np.nan], [3, 4]], None, "counts"),
    ],
)
def test_impossible_matrices_are_refused(table, missed, message):
    with pytest.raises(LabelError, match=message):
        Scores.from_confusion(table, [1, 2], missed)


def test_nothing_to_compare_is_refused():
    labels = np.array([[0, 1]])
    with pytest.raises(LabelError, match="differ in shape"):
        evaluate(np.array([1, 1]), labels)
    with pytest.raises(LabelError, match="no labelled pixel inside the mask"):
        evaluate(labels, labels, where=labels == 0)
    with pytest.raises(LabelError, match="negative"):
        evaluate(-labels, labels)


def test_several_seeds_are_summarised_with_the_sample_deviation():
    tables = ([[9, 1], [2, 8]], [[10, 0], [3, 7]], [[8, 2], [0, 10]])
    scores = [Scores.from_confusion(table, [1, 2]) for table in tables]
    found = summarize(scores, seeds=[3, 4, 5])
    values = [0.85, 0.85, 0.9]
    assert found["seeds"] == [3, 4, 5]
    assert found["overall_accuracy"]["values"] == values
    assert found["overall_accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert found["overall_accuracy"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert found["per_class"][1]["recall"]["values"] == [0.8, 0.7, 1.0]
    json.dumps(found, allow_nan=False)


def test_one_seed_has_no_deviation_and_undefined_scores_stay_out_of_the_mean():
    single = summarize([Scores.from_confusion([[1, 0], [0, 1]], [1, 2])])
    assert single["seeds"] == [0]
    assert single["kappa"] == {"mean": 1.0, "sd": None, "values": [1.0]}
    mixed = summarize([Scores.from_confusion([[2]], [1]), Scores.from_confusion([[1, 0], [1, 2]], [1, 2])])
    assert mixed["kappa"]["values"][0] is None
    assert mixed["kappa"]["mean"] == mixed["kappa"]["values"][1]
    assert mixed["per_class"][1]["recall"] == {"mean": pytest.approx(2 / 3), "sd": None, "values": [None, 2 / 3]}
    with pytest.raises(SpectralMambaError, match="0 scores"):
        summarize([])


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=10))
@settings(deadline=None)
def test_paired_difference_is_students_interval(pairs):
    first, second = zip(*pairs, strict=True)
    found = paired_difference(first, second, level=0.9)
    wanted = stats.ttest_rel(first, second) if found["sd"] else None
    assert found["n"] == len(pairs)
    assert found["mean"] == pytest.approx(np.mean(first) - np.mean(second), abs=ROUNDING)
    low, high = found["interval"]
    assert low <= found["mean"] <= high
    if wanted is not None and found["sd"] > 1e-6:  # below, scipy loses the deviation to cancellation
        assert (low, high) == pytest.approx(tuple(wanted.confidence_interval(0.9)), abs=1e-9)


def test_a_single_pair_has_a_difference_but_no_interval():
    found = paired_difference([0.9], [0.8])
    assert found["mean"] == pytest.approx(0.1)
    assert found["sd"] is None
    assert found["interval"] is None


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [([0.9], [0.8, 0.7], "1 and 2"), ([], [], "0 and 0"), ([0.9], [None], "undefined"), ([np.nan], [0.1], "undefined")],
)
def test_values_that_do_not_pair_are_refused(first, second, message):
    with pytest.raises(SpectralMambaError, match=message):
        paired_difference(first, second)


def test_confidence_that_is_right_as_often_as_it_says_has_no_calibration_error() -> None:
    confidence = np.repeat([0.5, 0.75, 1.0], 400)
    predicted = np.ones(1200, int)
    labels = np.ones(1200, int)
    labels[:200] = 2  # half of the first, a quarter of the second, none of the third are wrong
    labels[400:500] = 2
    found = calibration(predicted, confidence, labels)
    assert found["expected_calibration_error"] == pytest.approx(0, abs=1e-12)
    assert sum(found["pixels"]) == 1200
    assert [value for value in found["accuracy"] if value is not None] == [0.5, 0.75, 1.0]


def test_the_calibration_error_is_the_mean_distance_of_confidence_and_accuracy() -> None:
    confidence = np.repeat([0.9, 0.6], [300, 100])
    labels = np.ones(400, int)
    labels[:150] = 2  # half of the sure ones are wrong, all of the others right
    found = calibration(np.ones(400, int), confidence, labels)
    assert found["expected_calibration_error"] == pytest.approx((300 * 0.4 + 100 * 0.4) / 400)


def test_calibration_leaves_out_what_has_no_label_no_prediction_or_lies_outside_the_mask() -> None:
    predicted, labels = np.array([1, 0, 1, 1]), np.array([1, 1, 0, 2])
    confidence, where = np.array([0.8, np.nan, 0.8, 0.8]), np.array([True, True, True, False])
    assert calibration(predicted, confidence, labels, where=where)["expected_calibration_error"] == pytest.approx(0.2)
    nothing = calibration(predicted, confidence, labels, where=np.zeros(4, bool))
    assert nothing["expected_calibration_error"] is None
    with pytest.raises(LabelError, match="differ in shape"):
        calibration(predicted, confidence[:2], labels)
