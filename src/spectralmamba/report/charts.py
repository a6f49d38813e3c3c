"""Charts as the coordinates of an SVG that stretches with the page, with their ticks in percent.

The drawing lives in `parts.html`: lines keep their width whatever the stretch, and tick labels are HTML text, so that a
phone shows them as large as a desk does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectralmamba.report import words
from spectralmamba.report.networks import TrainedNetwork

WIDTH, HEIGHT = 1000, 400  # units of the SVG's own coordinates
DECADES_FOR_LOG = 2  # a loss that falls by more than this many powers of ten is drawn on a logarithmic axis
LOG_POINTS = 600
MOST_BIN_LABELS = 10  # side by side on a phone
MOST_MARK_LABELS = 6  # likewise, in two lines
SMOOTHING_SHARE = 0.05  # of the curve: wide enough to quiet single batches, narrow enough to show a plateau


@dataclass(frozen=True)
class Tick:
    """A label at so many percent of an axis, from the left or from the top."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A path of the SVG; `color` None takes the page's accent, `kind` is one of `mean`, `raw`, `smooth`."""

    path: str
    kind: str
    color: str | None = None


@dataclass(frozen=True)
class Mark:
    """A part of the x axis, in percent, that has a name; a line stands where it begins, if not at the axis itself."""

    at: float
    width: float
    label: str = ""


@dataclass(frozen=True)
class Box:
    """A rectangle in SVG units with an optional label, for bars and for bands left out."""

    x: float
    y: float
    width: float
    height: float
    label: str = ""

    @property
    def centre(self) -> float:
        """Percent of the x axis."""
        return round(100 * (self.x + self.width / 2) / WIDTH, 2)

    @property
    def top(self) -> float:
        """Percent of the y axis, from the top."""
        return round(100 * self.y / HEIGHT, 2)


@dataclass(frozen=True)
class Chart:
    """All that the template draws."""

    description: str
    x_title: str
    y_title: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line] = ()
    areas: Sequence[Line] = ()
    gaps: Sequence[Box] = ()
    bars: Sequence[Box] = ()
    marks: Sequence[Mark] = ()
    title: str = ""
    note: str = ""
    color: str | None = None


@dataclass(frozen=True)
class Axis:
    """A range of values; `logarithmic` places powers of ten evenly."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, values: Any) -> NDArray[np.float64]:
        """Where values lie, 0 at the low end and 1 at the high end."""
        values = np.asarray(values, dtype=float)
        low, high = self.low, self.high
        if self.logarithmic:
            values, low, high = np.log10(values), math.log10(low), math.log10(high)
        return (values - low) / (high - low)

    def ticks(self, wanted: int, *, upwards: bool = False) -> list[Tick]:
        """Labels at round values; `upwards` counts percent from the top."""
        values = decade_ticks(self.low, self.high) if self.logarithmic else round_ticks(self.low, self.high, wanted)
        shares = self.share(values)
        return [
            Tick(round(100 * float(1 - share if upwards else share), 2), words.short(value))
            for value, share in zip(values, shares, strict=True)
        ]


def axis_around(values: NDArray[np.float64], *, logarithmic: bool = False, margin: float = 0.04) -> Axis:
    """An axis that holds all finite values, with a margin for linear ones."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if logarithmic:
        return Axis(low * 0.9, high * 1.1, logarithmic=True)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    room = margin * (high - low)
    return Axis(low - room, high + room)


def round_ticks(low: float, high: float, wanted: int) -> list[float]:
    """About so many multiples of 1, 2, 2.5 or 5 times a power of ten between two values."""
    rough = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, last + 1)]


def decade_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two positive values, at most eight of them."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, math.ceil((last - first + 1) / 8))
    return [10.0**power for power in range(first, last + 1, stride)]


def runs_of(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def thinned(start: int, end: int, stride: float) -> NDArray[np.int64]:
    """Indices of a run, one in `stride`, both ends kept."""
    length = end - start
    return np.unique(
        np.linspace(start, end - 1, min(length, max(2, math.ceil(length / stride)))).round().astype(np.int64)
    )


def line_path(x: NDArray[np.float64], y: NDArray[np.float64], most_points: int) -> str:
    """An SVG path through points in SVG units that lifts the pen where y is NaN."""
    stride = max(1.0, len(x) / most_points)
    return "".join(
        "M" + "L".join(_points(x, y, thinned(start, end, stride))) + ("h0" if end - start == 1 else "")
        for start, end in runs_of(np.isfinite(y))
    )


def area_path(x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], most_points: int) -> str:
    """An SVG path around the area between two curves."""
    stride = max(1.0, len(x) / most_points)
    parts = []
    for start, end in runs_of(np.isfinite(low) & np.isfinite(high)):
        chosen = thinned(start, end, stride)
        parts.append("M" + "L".join(_points(x, high, chosen) + _points(x, low, chosen[::-1])) + "Z")
    return "".join(parts)


def _points(x: NDArray[np.float64], y: NDArray[np.float64], chosen: NDArray[np.int64]) -> list[str]:
    return [f"{x[index]:.0f},{y[index]:.0f}" for index in chosen]


def training_charts(log: Sequence[dict[str, Any]], networks: Sequence[TrainedNetwork] = ()) -> list[Chart]:
    """The curves of loss and of accuracy in the training batches, those that the log holds; broken where a network begins."""
    charts = [
        _curve(log, networks, "loss", "Loss", "training loss"),
        _curve(log, networks, "accuracy", "Accuracy in the batch", "accuracy of the training batches"),
    ]
    return [chart for chart in charts if chart is not None]


def _curve(
    log: Sequence[dict[str, Any]], networks: Sequence[TrainedNetwork], name: str, title: str, noun: str
) -> Chart | None:
    points = [
        (step["step"], step[name]) for step in log if words.is_number(step["step"]) and words.is_number(step.get(name))
    ]
    if len(points) < 2:
        return None
    steps, values = np.array(points, dtype=float).T
    logarithmic = bool(values.min() > 0 and values.max() / values.min() >= 10**DECADES_FOR_LOG)
    x_axis = axis_around(steps, margin=0)
    y_axis = axis_around(values, logarithmic=logarithmic)
    x, y = WIDTH * x_axis.share(steps), HEIGHT * (1 - y_axis.share(values))
    start, end = (f"{words.short(values[at])} at step {words.count(steps[at])}" for at in (0, -1))
    cuts = np.searchsorted(steps, [network.start for network in networks[1:]], side="right")
    return Chart(
        description=f"Curve of the {noun}: from {start} to {end}.{_anew(networks)}",
        x_title="step",
        y_title=title + (" (logarithmic)" if logarithmic else ""),
        x_ticks=x_axis.ticks(5),
        y_ticks=y_axis.ticks(4, upwards=True),
        lines=[
            Line(line_path(np.insert(x, cuts, np.nan), np.insert(part, cuts, np.nan), LOG_POINTS), kind)
            for part, kind in ((y, "raw"), (smoothed(y, cuts), "smooth"))
        ],
        marks=_marks(x_axis, networks),
    )


def _anew(networks: Sequence[TrainedNetwork]) -> str:
    starts = [words.count(network.start) for network in networks[1:]]
    return f" A new network begins after step {words.value(starts)}." if starts else ""


def _marks(axis: Axis, networks: Sequence[TrainedNetwork]) -> list[Mark]:
    """What part of the axis each network takes, with its name if there is room for all of them."""
    named = len(networks) <= MOST_MARK_LABELS
    edges = np.clip(axis.share([*(network.start for network in networks), axis.high]), 0, 1) * 100
    return [
        Mark(round(float(start), 2), round(float(end - start), 2), network.name if named else "")
        for network, (start, end) in zip(networks, pairwise(edges), strict=True)
        if end > start
    ]


def smoothed(values: NDArray[np.float64], cuts: Sequence[int] | NDArray[np.int64] = ()) -> NDArray[np.float64]:
    """Moving average over a twentieth of the curve, narrower at its ends and at cuts, over which it does not reach."""
    half = max(1, round(len(values) * SMOOTHING_SHARE / 2))
    return np.concatenate([_averaged(part, half) for part in np.split(values, cuts)])


def _averaged(values: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    sums = np.concatenate(([0.0], np.cumsum(values)))
    index = np.arange(len(values))
    reach = np.minimum(half, np.minimum(index, len(values) - 1 - index))
    return (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)


def distance_chart(distance: dict[str, Any]) -> Chart | None:
    """The histogram of the test pixels' distances, None if the record holds none."""
    edges, counts = distance.get("bin_edges") or [], distance.get("histogram") or []
    if not counts or len(edges) != len(counts) + 1 or max(counts) <= 0:
        return None
    unit = str(distance.get("unit", "pixels"))
    slot, tallest, total = WIDTH / len(counts), max(counts), sum(counts)
    few, bars = len(counts) <= MOST_BIN_LABELS, []
    for index, number in enumerate(counts):
        height = 0.92 * HEIGHT * number / tallest
        bars.append(
            Box(
                slot * (index + 0.08),
                HEIGHT - height,
                slot * 0.84,
                height,
                words.percent(number / total, 0) if number and few else "",
            )
        )
    labels = [_bin_label(low, high) for low, high in pairwise(edges)]
    every = math.ceil(len(bars) / MOST_BIN_LABELS)
    most = int(np.argmax(counts))
    return Chart(
        description=f"Histogram of the distance from each test pixel to the nearest training pixel: most, "
        f"{words.count(counts[most])} of {words.count(total)}, lie in the bin {labels[most]} {unit}.",
        x_title=f"{unit} to the nearest training pixel",
        y_title="share of the test pixels",
        x_ticks=[
            Tick(round(100 * index / len(counts), 2), "∞" if edges[index] is None else words.short(edges[index]))
            for index in range(0, len(edges), every)
        ],
        y_ticks=[],
        bars=bars,
    )


def _bin_label(low: Any, high: Any) -> str:
    return f"≥ {words.short(low)}" if high is None else f"{words.short(low)}–{words.short(high)}"
