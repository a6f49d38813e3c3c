"""Charts of the classes' mean spectra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectralmamba.report import words
from spectralmamba.report.charts import (
    HEIGHT,
    WIDTH,
    Axis,
    Box,
    Chart,
    Line,
    area_path,
    axis_around,
    line_path,
    runs_of,
)
from spectralmamba.report.folder import MappedClass, mapped_class

POINTS_TOGETHER, POINTS_ALONE = 500, 160  # of a curve: more than the pixels of its chart would show


@dataclass(frozen=True)
class _Spectrum:
    """A class's mean and standard deviation `(L,)`, NaN at bands that are not good."""

    owner: MappedClass
    pixels: Any
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]


@dataclass(frozen=True)
class _Frame:
    """The axes that all charts share."""

    x: NDArray[np.float64]
    x_axis: Axis
    y_axis: Axis
    x_title: str
    gaps: list[Box]
    bands: str

    def y(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return HEIGHT * (1 - self.y_axis.share(values))


def spectra_charts(content: dict[str, Any]) -> tuple[Chart, list[Chart]] | None:
    """One chart of all means, and one chart a class of its mean ± sd; None if there is nothing to draw.

    Args:
        content: `spectra.json`.
    """
    good = np.array(content["good"], dtype=bool)
    position, x_title, order = _positions(content.get("wavelength"), len(good))
    good = good[order]
    spectra = [_spectrum(entry, good, order) for entry in content["classes"]]
    spectra = [spectrum for spectrum in spectra if np.isfinite(spectrum.mean).any()]
    if not spectra or not good.any():
        return None
    frame = _frame(spectra, position, x_title, good)
    return _together(spectra, frame), [_alone(spectrum, frame) for spectrum in spectra]


def _positions(wavelength: Any, bands: int) -> tuple[NDArray[np.float64], str, NDArray[np.int64]]:
    """Where the bands lie on the x axis and their order there: by wavelength if all have one, else by number."""
    known = np.array([np.nan if value is None else value for value in wavelength or []], dtype=float)
    if len(known) == bands and np.isfinite(known).all():
        order = np.argsort(known, kind="stable")
        return known[order], "wavelength (nm)", order
    return np.arange(1.0, bands + 1), "band number", np.arange(bands)


def _spectrum(entry: dict[str, Any], good: NDArray[np.bool_], order: NDArray[np.int64]) -> _Spectrum:
    mean = _curve(entry.get("mean"), good, order)
    sd = _curve(entry.get("sd"), good, order)
    return _Spectrum(mapped_class(entry), entry.get("pixels"), mean, sd)


def _curve(values: Any, good: NDArray[np.bool_], order: NDArray[np.int64]) -> NDArray[np.float64]:
    if values is None or len(values) != len(good):
        return np.full(len(good), np.nan)
    curve = np.array([np.nan if value is None else value for value in values], dtype=float)[order]
    return np.where(good, curve, np.nan)


def _frame(spectra: list[_Spectrum], position: NDArray[np.float64], x_title: str, good: NDArray[np.bool_]) -> _Frame:
    means = np.stack([spectrum.mean for spectrum in spectra])
    spread = np.nan_to_num(np.stack([spectrum.sd for spectrum in spectra]))
    x_axis = axis_around(position, margin=0.01)
    x = WIDTH * x_axis.share(position)
    gaps = [_gap(x, start, end) for start, end in runs_of(~good)]
    bands = f"{words.count(int(good.sum()))} of {words.count(len(good))} bands"
    return _Frame(x, x_axis, axis_around(np.stack([means - spread, means + spread])), x_title, gaps, bands)


def _gap(x: NDArray[np.float64], start: int, end: int) -> Box:
    """From half-way to the last good band to half-way to the next one."""
    left = (x[start] + x[start - 1]) / 2 if start else 0.0
    right = (x[end - 1] + x[end]) / 2 if end < len(x) else float(WIDTH)
    return Box(round(float(left), 1), 0, round(max(1.0, float(right - left)), 1), HEIGHT)


def _together(spectra: list[_Spectrum], frame: _Frame) -> Chart:
    means = np.stack([spectrum.mean for spectrum in spectra])
    low, high = words.short(float(np.nanmin(means))), words.short(float(np.nanmax(means)))
    count = words.counted(len(spectra), "class", "classes")
    return Chart(
        description=f"Mean spectra of {count} over {frame.bands}, with values from {low} to {high}.",
        x_title=frame.x_title,
        y_title="mean value of the training pixels",
        x_ticks=frame.x_axis.ticks(6),
        y_ticks=frame.y_axis.ticks(4, upwards=True),
        lines=[
            Line(line_path(frame.x, frame.y(each.mean), POINTS_TOGETHER), "mean", each.owner.color) for each in spectra
        ],
        gaps=frame.gaps,
    )


def _alone(spectrum: _Spectrum, frame: _Frame) -> Chart:
    mean, sd = spectrum.mean, spectrum.sd
    pixels = words.counted(spectrum.pixels, "training pixel")
    low, high = words.short(float(np.nanmin(mean))), words.short(float(np.nanmax(mean)))
    return Chart(
        title=spectrum.owner.name,
        note=pixels,
        color=spectrum.owner.color,
        description=f"Mean spectrum of {spectrum.owner.name}, {pixels}, from {low} to {high}, "
        "with one standard deviation around it.",
        x_title="",
        y_title="",
        x_ticks=frame.x_axis.ticks(3),
        y_ticks=frame.y_axis.ticks(2, upwards=True),
        lines=[Line(line_path(frame.x, frame.y(mean), POINTS_ALONE), "mean", spectrum.owner.color)],
        areas=[
            Line(
                area_path(frame.x, frame.y(mean - sd), frame.y(mean + sd), POINTS_ALONE), "spread", spectrum.owner.color
            )
        ],
        gaps=frame.gaps,
    )
