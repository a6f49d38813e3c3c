"""The critical-difference picture: mean ranks, their intervals, and which classifiers do not differ, as one SVG.

Each classifier has a row of its own, so that no text meets another, however close the ranks lie.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from spectralmamba import files
from spectralmamba.ranks import Ranks
from spectralmamba.report import words
from spectralmamba.report.charts import Axis, round_ticks
from spectralmamba.report.templates import render

LONGEST_NAME = 40  # characters; longer ones are cut, and whole in the tooltip
CHARACTER = 9.5  # px: wider than all but a few letters of the font at its size, so that names stay inside the picture
PLOT, ROW, GROUP, MARGIN = 420, 30, 14, 24  # px
CAPTION_AT, BAR_AT, AXIS_AT = 18, 38, 82  # px from the top
VALUE = 150  # px for "1.96 (1.50–2.46)"
MOST_TICKS = 10


@dataclass(frozen=True)
class Row:
    """A classifier's line: its name whole and as it is written, px of rank and interval, and both in words."""

    name: str
    label: str
    y: float
    x: float
    low: float
    high: float
    value: str


@dataclass(frozen=True)
class GroupBar:
    """A bar beside the rows of classifiers that do not differ, in px."""

    x: float
    top: float
    bottom: float


@dataclass(frozen=True)
class RankTick:
    """A rank on the axis, in px."""

    x: float
    label: str


def critical_difference_svg(ranks: Ranks) -> str:
    """Draw mean ranks, best first, with their intervals, the critical difference, and bars beside classifiers that do not differ.

    Returns:
        An SVG that follows the reader's light or dark mode, to be kept as a file or to stand in a page.
    """
    number = len(ranks.mean_ranks)
    left = MARGIN + 16 + max(_width(_shortened(name)) for name in ranks.mean_ranks)
    axis = Axis(1, number)

    def place(rank: float) -> float:
        return round(left + PLOT * float(axis.share(rank)), 1)

    ticks = [
        RankTick(place(rank), words.short(rank)) for rank in round_ticks(1, number, MOST_TICKS) if rank == int(rank)
    ]
    values = left + PLOT + MARGIN + GROUP * len(ranks.groups)
    return render(
        "critical_difference.html",
        width=round(values + VALUE),
        height=AXIS_AT + ROW * number + 8,
        left=round(left, 1),
        values=round(values, 1),
        caption=CAPTION_AT,
        bar_at=BAR_AT,
        axis=AXIS_AT,
        bar=round(PLOT * min(1.0, ranks.critical_difference / (number - 1)), 1),
        legend=_legend(ranks),
        description=_description(ranks),
        ticks=ticks,
        rows=[
            Row(
                name,
                _shortened(name),
                _row_at(index),
                place(mean),
                place(ranks.intervals[name][0]),
                place(ranks.intervals[name][1]),
                f"{words.decimal(mean, 2)} ({words.decimal_range(list(ranks.intervals[name]), 2)})",
            )
            for index, (name, mean) in enumerate(ranks.mean_ranks.items())
        ],
        groups=_group_bars(ranks, left + PLOT + MARGIN),
    )


def write_critical_difference(ranks: Ranks, path: str | Path) -> Path:
    """Write the picture as an SVG file, and return its path.

    Raises:
        OutputError: It cannot be written.
    """
    files.write_text(path, critical_difference_svg(ranks))
    return Path(path)


def _row_at(index: int) -> float:
    return AXIS_AT + ROW * (index + 0.5)


def _group_bars(ranks: Ranks, start: float) -> list[GroupBar]:
    order = list(ranks.mean_ranks)
    return [
        GroupBar(
            round(start + GROUP * index, 1),
            _row_at(order.index(group[0])) - 0.3 * ROW,
            _row_at(order.index(group[-1])) + 0.3 * ROW,
        )
        for index, group in enumerate(ranks.groups)
    ]


def _legend(ranks: Ranks) -> str:
    beyond = " (longer than the axis)" if ranks.critical_difference > len(ranks.mean_ranks) - 1 else ""
    return f"critical difference {words.decimal(ranks.critical_difference, 2)}{beyond} of {words.counted(ranks.blocks, 'block')}"


def _description(ranks: Ranks) -> str:
    listed = ", ".join(f"{name} {words.decimal(mean, 2)}" for name, mean in ranks.mean_ranks.items())
    alike = "; ".join(", ".join(group) for group in ranks.groups)
    return f"Mean ranks: {listed}. {_legend(ranks).capitalize()}. " + (
        f"Not different: {alike}." if alike else "All differ."
    )


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _width(text: str) -> float:
    return CHARACTER * sum(2 if unicodedata.east_asian_width(letter) in "FW" else 1 for letter in text)
