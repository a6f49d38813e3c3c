from __future__ import annotations

import base64
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from spectralmamba.report import charts, pictures
from spectralmamba.report.networks import TrainedNetwork
from spectralmamba.report.spectra import spectra_charts


def log_of(losses: list[float]) -> list[dict]:
    return [{"step": 10 * index, "loss": loss} for index, loss in enumerate(losses)]


def test_a_loss_over_decades_is_drawn_on_a_logarithmic_axis() -> None:
    (wide,) = charts.training_charts(log_of([10.0, 1.0, 0.1, 0.01]))
    (narrow,) = charts.training_charts(log_of([2.0, 1.5, 1.0]))
    assert "logarithmic" in wide.y_title
    assert "logarithmic" not in narrow.y_title


def test_losses_that_are_not_numbers_are_left_out() -> None:
    assert charts.training_charts([{"step": 0, "loss": None}, {"step": 1, "loss": 2.0}]) == []


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside_the_axis(low: float, width: float) -> None:
    ticks = charts.round_ticks(low, low + width, 5)
    assert len(ticks) <= 7
    assert all(low - 1e-6 * width <= tick <= low + 1.000001 * width for tick in ticks)


def test_a_line_is_broken_at_a_gap_and_a_lone_point_is_drawn() -> None:
    path = charts.line_path(np.arange(5.0), np.array([1.0, 2.0, np.nan, 3.0, np.nan]), 100)
    assert path == "M0,1L1,2M3,3h0"


def test_a_long_line_is_thinned_and_keeps_its_ends() -> None:
    path = charts.line_path(np.arange(10_000.0), np.zeros(10_000), 100)
    points = path.removeprefix("M").split("L")
    assert len(points) <= 101
    assert (points[0], points[-1]) == ("0,0", "9999,0")


def test_smoothing_leaves_a_straight_line_and_its_ends_as_they_are() -> None:
    line = np.linspace(3, 7, 101)
    assert charts.smoothed(line) == pytest.approx(line, abs=1e-12)  # float64 sums of a hundred terms


def test_the_last_bin_may_be_open() -> None:
    chart = charts.distance_chart({"unit": "m", "bin_edges": [0, 10, None], "histogram": [3, 1]})
    assert chart is not None
    assert [tick.label for tick in chart.x_ticks] == ["0", "10", "∞"]
    assert "3 of 4" in chart.description
    assert "0–10 m" in chart.description
    assert "m to the nearest" in chart.x_title


def test_bands_left_out_are_gaps_of_the_spectrum() -> None:
    spectrum = {"id": 1, "name": "a", "color": "#ffffff", "pixels": 2, "mean": [1, 2, 9, 4], "sd": [0, 0, 0, 0]}
    drawn = spectra_charts(
        {"wavelength": [400, 500, 600, 700], "good": [True, True, False, True], "classes": [spectrum]}
    )
    assert drawn is not None
    together, alone = drawn
    assert len(together.gaps) == 1
    assert together.lines[0].path.count("M") == 2
    assert "from 1 to 4" in alone[0].description


def test_a_png_holds_the_pixels_it_was_given() -> None:
    picture = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    data = base64.b64decode(pictures.png_uri(picture).split(",")[1])
    with warnings.catch_warnings(), MemoryFile(data) as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open() as dataset:
            assert np.array_equal(np.moveaxis(dataset.read(), 0, -1), picture)


def test_the_ramp_grows_brighter_and_nodata_is_transparent() -> None:
    colors = pictures.ramp_colors(np.array([[0.0, 0.25, 0.5, 0.75, 1.0, np.nan]])).astype(float)[0]
    brightness = colors[:5, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > 0).all()
    assert colors[5, 3] == 0


FIVE = [
    TrainedNetwork(100 * index, name)
    for index, name in enumerate(["teacher 7 × 7", "teacher 3 × 3"] * 2 + ["classifier"])
]


def humps() -> list[dict]:
    """A log of five networks of 100 steps, each falling from 1 to 0.1 anew."""
    return [{"step": step, "loss": 1 - 0.9 * ((step - 1) % 100 // 10) / 9} for step in range(10, 501, 10)]


def test_a_mark_stands_where_each_network_begins() -> None:
    (chart,) = charts.training_charts(humps(), FIVE)
    assert [mark.label for mark in chart.marks] == [network.name for network in FIVE]
    assert [mark.at for mark in chart.marks] == pytest.approx([0, 18.37, 38.78, 59.18, 79.59])  # of steps 10 to 500
    ends = [mark.at + mark.width for mark in chart.marks]
    assert ends == pytest.approx([*(mark.at for mark in chart.marks[1:]), 100], abs=0.02)  # two decimals
    assert chart.description.endswith("A new network begins after step 100, 200, 300, 400.")


def test_the_curve_is_broken_between_networks_and_its_average_does_not_reach_over() -> None:
    (chart,) = charts.training_charts(humps(), FIVE)
    for line in chart.lines:
        parts = [part.split("L") for part in line.path.removeprefix("M").split("M")]
        assert [len(part) for part in parts] == [10] * 5
        heights = [[float(point.split(",")[1]) for point in part] for part in parts]
        assert all(part == sorted(part) for part in heights)  # a falling loss; SVG counts from the top


def test_a_training_of_one_network_has_no_marks_and_one_line() -> None:
    (chart,) = charts.training_charts(humps())
    assert not chart.marks
    assert all(line.path.count("M") == 1 for line in chart.lines)
    assert "network" not in chart.description


def test_more_networks_than_names_fit_are_marked_without_names() -> None:
    many = [TrainedNetwork(50 * index, "teacher") for index in range(10)]
    (chart,) = charts.training_charts(humps(), many)
    assert len(chart.marks) == 10
    assert not any(mark.label for mark in chart.marks)


def test_networks_that_no_step_was_logged_of_have_no_mark() -> None:
    (chart,) = charts.training_charts(humps()[25:], FIVE)
    assert [(mark.at, mark.label) for mark in chart.marks] == [
        (0, FIVE[2].name),
        (pytest.approx(16.67), FIVE[3].name),
        (pytest.approx(58.33), FIVE[4].name),
    ]
    assert all(line.path.count("M") == 3 for line in chart.lines)
