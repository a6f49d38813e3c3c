"""One score against one cost of several classifiers, as one SVG of numbered points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectralmamba.report import words
from spectralmamba.report.charts import Axis, Tick, axis_around
from spectralmamba.report.templates import render

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 360, 64, 20, 40, 52  # px
_FEW = 2.0  # a factor below which an axis between powers of ten would have no label


@dataclass(frozen=True)
class Point:
    """A classifier.

    Attributes:
        mark: A number or two letters that stand in the point.
        name: What the mark stands for.
        x: Its cost, above 0.
        y: Its score, a fraction.
    """

    mark: str
    name: str
    x: float
    y: float


@dataclass(frozen=True)
class _Placed:
    """A point in px."""

    mark: str
    name: str
    value: str
    x: float
    y: float


def scatter_svg(points: Sequence[Point], x_title: str, y_title: str) -> str:
    """Draw points over a logarithmic axis of cost.

    Returns:
        An SVG to be kept as a file or to stand in a page.
    """
    x_axis = axis_around(np.array([point.x for point in points]), logarithmic=True)
    x_axis = Axis(x_axis.low / _FEW, x_axis.high * _FEW, logarithmic=True)
    y_axis = axis_around(np.array([point.y for point in points]), margin=0.12)

    def across(percent: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * percent / 100, 1)

    def down(percent: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * percent / 100, 1)

    placed = [
        _Placed(
            point.mark,
            point.name,
            f"{words.percent(point.y)} at {words.short(point.x)}",
            across(100 * float(x_axis.share(point.x))),
            down(100 * (1 - float(y_axis.share(point.y)))),
        )
        for point in points
    ]
    listed = "; ".join(f"{point.mark} {point.name}: {point.value}" for point in placed)
    return render(
        "scatter.html",
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
        x_title=x_title,
        y_title=y_title,
        x_ticks=[Tick(across(tick.at), tick.label) for tick in _decades(x_axis)],
        y_ticks=[Tick(down(tick.at), tick.label) for tick in y_axis.ticks(5, upwards=True)],
        points=placed,
        description=f"{y_title} against {x_title}. {listed}.",
    )


def _decades(axis: Axis) -> list[Tick]:
    """Return powers of ten, or both ends where the axis lies between two of them."""
    ticks = axis.ticks(8)
    if ticks:
        return ticks
    return [Tick(0.0, words.short(float(f"{axis.low:.2g}"))), Tick(100.0, words.short(float(f"{axis.high:.2g}")))]
