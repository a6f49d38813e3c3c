"""A scene in the bands of another sensor, resampled window by window as it is read.

A band of the target sees the spectrum through a Gaussian about its centre. The source has blurred the spectrum already, so what is
left to blur is σ² = target² − source². The spectrum between the source's good bands is taken as straight lines: where the target is
no wider than the source, this is linear interpolation, and with the scene's own bands it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import erf, exp, pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy import sparse
from xarray.core import indexing

from spectralmamba.errors import SceneError
from spectralmamba.scenes.scene import BLOCK_VALUES, Calibration, PhysicalArray
from spectralmamba.scenes.sensors import SpectralBands, sensor_bands
from spectralmamba.scenes.sources import RawSource, contiguous

LARGEST_GAP, WIDTHS_OF_GAP = 30.0, 1.5
"""Two good bands are joined by a line if they are at most so many nm apart, or so many times the wider one's fwhm."""

_REACH = 3.0  # standard deviations at which Gaussians are cut off
_SHARPEST = 1e-3  # nm; a Gaussian that is narrower is its centre
_FWHM = 2 * sqrt(2 * np.log(2))  # full width at half maximum of a Gaussian with σ = 1


@dataclass(frozen=True)
class Resampling:
    """How spectra in the bands of a source become those in the bands of a target.

    Attributes:
        matrix: Weights `(target, source)`; each row sums to 1, or is empty where the band is missing.
        offset: Summands `(target,)`, 0 unless missing bands are filled.
        missing: Bands of the target in whose range the source has no good band `(target,)`, which become NaN.
        filled: Bands that would be missing and are made of the target's others `(target,)`.
        distance: From each band of the target to the nearest good band of the source in nm `(target,)`.
        measured: Which bands of the source count `(source,)`: a pixel that lacks one of them is nodata.
        notes: What was assumed.
    """

    matrix: sparse.csr_array
    offset: np.ndarray
    missing: np.ndarray
    filled: np.ndarray
    distance: np.ndarray
    measured: np.ndarray
    notes: tuple[str, ...] = ()

    def fill(self, bands: np.ndarray, weights: np.ndarray, offset: np.ndarray) -> Resampling:
        """Return it with bands that are missing made of those that are not.

        Args:
            bands: Which are filled `(target,)`.
            weights: Of the bands of the target in each of them `(filled, target)`, 0 for those that are missing.
            offset: Summands `(filled,)`.
        """
        rows = self.matrix.tolil()
        rows[np.flatnonzero(bands)] = sparse.csr_array(weights) @ self.matrix
        summands = self.offset.copy()
        summands[bands] = offset
        return replace(self, matrix=rows.tocsr(), offset=summands, missing=self.missing & ~bands, filled=bands)

    def ranges(self, target: SpectralBands, bands: np.ndarray) -> list[str]:
        """Return where some of the target's bands `(target,)` lie, a text for each run of them by ascending wavelength."""
        order = np.argsort(target.wavelength, kind="stable")
        order = order[target.good[order]]
        runs = np.split(order, np.flatnonzero(np.diff(bands[order].astype(int))) + 1)
        return [_range(target.wavelength[run]) for run in runs if len(run) and bands[run[0]]]


def resample_scene(scene: xr.DataArray, like: SpectralBands | xr.DataArray | str) -> xr.DataArray:
    """Bring a scene to the bands of another sensor.

    Nothing is read before values are asked for, and then no more than their window. A pixel that is nodata in any good band is
    nodata in all. Bands of the target in whose range the scene has no good band are not good and hold NaN: a band is covered if its
    centre lies between two good bands that are at most `LARGEST_GAP` nm or `WIDTHS_OF_GAP` widths apart, or no further
    beyond a good band than half of the wider one's fwhm.

    Args:
        scene: `(band, y, x)`, with wavelengths. Bands without fwhm are taken to be as wide as the next good band is away.
        like: What has the bands: a scene, the name of a sensor (`sensors.SENSORS`), or the bands themselves.

    Returns:
        The scene in those bands, lazy, with the attributes of the scene but for what is said of bands; `resampled` tells from
        what to what.

    Raises:
        SceneError: Wavelengths are missing, no sensor has this name, or the scene covers no band.
    """
    if isinstance(like, str):
        target = sensor_bands(like)
    else:
        target = SpectralBands.of_scene(like) if isinstance(like, xr.DataArray) else like
    source = SpectralBands.of_scene(scene)
    return apply_resampling(scene, target, find_resampling(source, target))


def find_resampling(source: SpectralBands, target: SpectralBands) -> Resampling:
    """Find the weights by which bands of a source become those of a target.

    Raises:
        SceneError: A good band of the target has no wavelength, or no good band of the source has one.
    """
    known = source.good & np.isfinite(source.wavelength)
    _check_known(source, bool(known.any()))
    _check_known(target, bool(target.good.any() and np.isfinite(target.wavelength[target.good]).all()))
    notes = [
        f"bands of {bands.name} without fwhm are taken to be as wide as the next band is away"
        for bands in (source, target)
        if (~_has_width(bands) & bands.good).any()
    ]
    if unknown := int((source.good & ~known).sum()):
        notes.append(f"{unknown} good bands of {source.name} without wavelength are left out")
    nodes, owners = np.unique(source.wavelength[known], return_inverse=True)
    # Of several bands at one wavelength the mean counts.
    shares = sparse.csr_array((np.ones(len(owners)), (owners, np.flatnonzero(known))), (len(nodes), len(known)))
    shares = sparse.diags_array(1 / np.bincount(owners)) @ shares
    line = _Line.through(nodes, shares @ np.where(known, _widths(source), 0))
    weights, missing = np.zeros((len(target.wavelength), len(nodes))), np.ones(len(target.wavelength), bool)
    distance = np.full(len(missing), np.nan)
    for band, (centre, width) in enumerate(zip(target.wavelength, _widths(target), strict=True)):
        if np.isfinite(centre):
            distance[band] = np.abs(nodes - centre).min()
            missing[band] = not line.weigh(centre, width, weights[band])
    matrix = sparse.csr_array(sparse.csr_array(weights) @ shares)
    nothing = np.zeros(len(missing))
    return Resampling(matrix, nothing, missing, nothing.astype(bool), distance, source.good, tuple(notes))


@dataclass(frozen=True)
class _Line:
    """A spectrum of straight lines between good bands.

    Attributes:
        nodes: Their centres `(n,)`, ascending.
        widths: Their fwhm `(n,)`.
        start: Where the run of joined bands begins that each belongs to `(n,)`.
        end: Where it ends `(n,)`.
    """

    nodes: np.ndarray
    widths: np.ndarray
    start: np.ndarray
    end: np.ndarray

    @classmethod
    def through(cls, nodes: np.ndarray, widths: np.ndarray) -> _Line:
        """Return the line through bands; those too far apart are not joined."""
        most = np.maximum(LARGEST_GAP, WIDTHS_OF_GAP * np.maximum(widths[1:], widths[:-1]))
        runs = np.cumsum([0, *(np.diff(nodes) > most)])
        first, last = np.searchsorted(runs, runs), np.searchsorted(runs, runs, side="right") - 1
        return cls(nodes, widths, nodes[first], nodes[last])

    def weigh(self, centre: float, width: float, weights: np.ndarray) -> bool:
        """Write the weights `(n,)` of the bands in one of that centre and fwhm; return whether its range is covered."""
        near = int(np.abs(self.nodes - centre).argmin())
        within = self.start[near] <= centre <= self.end[near]
        if not within or self.start[near] == self.end[near]:
            weights[near] = covered = abs(self.nodes[near] - centre) <= max(width, self.widths[near]) / 2
            return bool(covered)
        blurred = np.interp(centre, self.nodes, self.widths)
        sigma = sqrt(max(width**2 - blurred**2, 0)) / _FWHM
        # As far to both sides, so that a straight spectrum keeps its value.
        reach = min(_REACH * sigma, centre - self.start[near], self.end[near] - centre)
        if reach <= _SHARPEST:
            right = max(int(np.searchsorted(self.nodes, centre)), 1)
            left = right - 1
            share = (centre - self.nodes[left]) / (self.nodes[right] - self.nodes[left])
            weights[[left, right]] = 1 - share, share
            return True
        for left in range(np.searchsorted(self.nodes, centre - reach, side="right") - 1, len(self.nodes) - 1):
            below, above = self.nodes[left] - centre, self.nodes[left + 1] - centre
            if below >= reach:
                break
            mass, moment = _moments(max(below, -reach) / sigma, min(above, reach) / sigma)
            weights[left] += (above * mass - sigma * moment) / (above - below)
            weights[left + 1] += (sigma * moment - below * mass) / (above - below)
        weights /= weights.sum()
        return True


def _moments(low: float, high: float) -> tuple[float, float]:
    """Return ∫ g and ∫ u g of the normal density between two bounds."""
    mass = (erf(high / sqrt(2)) - erf(low / sqrt(2))) / 2
    return mass, (exp(-low * low / 2) - exp(-high * high / 2)) / sqrt(2 * pi)


def _has_width(bands: SpectralBands) -> np.ndarray:
    return np.isfinite(bands.fwhm) & (bands.fwhm > 0)


def _widths(bands: SpectralBands) -> np.ndarray:
    """Return the fwhm of bands, where it is unknown the distance to the next good band; 0 for a band alone."""
    known = np.unique(bands.wavelength[bands.good & np.isfinite(bands.wavelength)])
    apart = np.full(len(known) + 1, np.inf)
    apart[1:-1] = np.diff(known)
    nearest = np.minimum(apart[1:], apart[:-1]) if len(known) > 1 else np.zeros(1)
    return np.where(_has_width(bands), bands.fwhm, np.interp(bands.wavelength, known, nearest))


def _check_known(bands: SpectralBands, known: bool) -> None:
    if not known:
        raise SceneError(
            "without wavelengths bands cannot be resampled",
            file=bands.source,
            found=f"{np.isfinite(bands.wavelength[bands.good]).sum()} wavelengths of {bands.good.sum()} good bands",
            expected="the wavelength of each good band",
            remedy="Write them into the ENVI header (wavelength) or the tags of the GeoTIFF's bands.",
        )


@dataclass(frozen=True, eq=False)
class ResampledSource(RawSource):
    """Physical values of a scene in other bands.

    Attributes:
        path: The scene's file.
        values: The scene's bands, lazy, float32 `(L, H, W)`.
        measured: Which of them count.
        matrix: Weights of these `(target, measured)`.
        offset: Summands `(target,)`.
        missing_bands: Bands that are NaN `(target,)`.
        block_shape: Rows and columns of the scene's file that are cheap to read together.
    """

    path: Path
    values: xr.Variable
    measured: np.ndarray | slice
    matrix: sparse.csr_array
    offset: np.ndarray
    missing_bands: np.ndarray
    block_shape: tuple[int, int]

    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """Bands, rows and columns."""
        _, height, width = self.values.shape
        return len(self.offset), height, width

    def read(self, bands: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return values `(len(bands), h, w)` of a window, some rows of the scene's at a time."""
        found = np.empty((len(bands), rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for lines in self._pieces(rows, columns):
            read = np.asarray(self.values[self.measured, lines, columns].values, np.float32)
            found[:, lines.start - rows.start : lines.stop - rows.start] = self.resampled(read, bands)
        return found

    def resampled(self, values: np.ndarray, bands: np.ndarray | None = None) -> np.ndarray:
        """Return the scene's values `(measured, h, w)` in some bands, or all: each pixel by itself, to the last bit."""
        some = np.arange(len(self.offset)) if bands is None else bands
        found = self.matrix[some] @ values.reshape(len(values), -1)
        found += self.offset[some, None]
        found[self.missing_bands[some]] = np.nan
        found = found.reshape(len(some), *values.shape[1:])
        found[:, ~np.isfinite(values).all(0)] = np.nan
        return found

    def _pieces(self, rows: slice, columns: slice) -> Iterator[slice]:
        """Yield rows of which the scene's values have a bounded size, whole blocks of its file at least."""
        block = self.block_shape[0]
        lines = max(1, BLOCK_VALUES // (len(self.values) * (columns.stop - columns.start)) // block) * block
        for first in range(rows.start - rows.start % block, rows.stop, lines):
            yield slice(max(first, rows.start), min(first + lines, rows.stop))


def apply_resampling(scene: xr.DataArray, target: SpectralBands, resampling: Resampling) -> xr.DataArray:
    """Return a scene `(band, y, x)` in the bands of a target, lazy; of a scene that Dask holds, so is this.

    Raises:
        SceneError: The scene covers none of the good bands.
    """
    good = target.good & ~resampling.missing
    if not good.any():
        raise SceneError(
            f"the scene measures in no band of {target.name}",
            file=scene.attrs.get("source"),
            found=f"good bands at {_range(scene['wavelength'].values[resampling.measured])}",
            expected=f"some of {_range(target.wavelength[target.good])}",
        )
    measured = np.flatnonzero(resampling.measured)
    chunks = scene.encoding.get("preferred_chunks", {})
    source = ResampledSource(
        Path(str(scene.attrs.get("source", "in memory"))),
        scene.variable,
        contiguous(measured),
        sparse.csr_array(resampling.matrix[:, measured], dtype=np.float32),
        resampling.offset.astype(np.float32),
        resampling.missing,
        (int(chunks.get("y", 1)), int(chunks.get("x", scene.sizes["x"]))),
    )
    count = len(target.wavelength)
    coordinates = {name: scene[name] for name in scene.coords if "band" not in scene[name].dims}
    coordinates |= {
        "band": np.arange(1, count + 1),
        "wavelength": ("band", target.wavelength),
        "fwhm": ("band", target.fwhm),
        "good": ("band", good),
    }
    told = {name: value for name, value in scene.attrs.items() if name != "statistics"}
    reasons = {int(band) + 1: f"not good in {target.name}" for band in np.flatnonzero(~target.good)}
    reasons |= {int(band) + 1: MISSING for band in np.flatnonzero(resampling.missing)}
    told |= {
        "raw_dtype": "float32",
        "bad_band_reasons": dict(sorted(reasons.items())),
        "notes": [*told.get("notes", []), *resampling.notes],
        "resampled": _told(SpectralBands.of_scene(scene), target, resampling, good),
    }
    result = xr.DataArray(xr.Variable(("band", "y", "x"), _lazy(source)), coordinates, attrs=told)
    result.encoding = {name: scene.encoding[name] for name in ("_FillValue", "grid_mapping") if name in scene.encoding}
    if chunks:
        result.encoding["preferred_chunks"] = chunks | {"band": count}
    return result


MISSING = "only nodata: the scene has no good band in its range"
"""Why a band of a resampled scene is not good."""


def resampled_in_words(scene: xr.DataArray) -> str | None:
    """Return a sentence on what a scene was resampled from and to; None if it was not."""
    told = scene.attrs.get("resampled")
    if told is None:
        return None
    text = (
        f"resampled from {told['from']} ({told['from_bands']} good bands) to {told['bands']} bands of {told['to']}; the nearest "
        f"good band is {told['median_distance']:.1f} nm away in the median, {told['largest_distance']:.1f} nm at most"
    )
    if told["missing"]:
        text += f"; missing and not good: {', '.join(told['missing'])}"
    if told["filled"]:
        text += f"; missing and filled from the other bands as the training scene suggests: {', '.join(told['filled'])}"
    return text


def _told(source: SpectralBands, target: SpectralBands, resampling: Resampling, good: np.ndarray) -> dict[str, Any]:
    filled = good & resampling.filled
    distance = resampling.distance[good & ~filled]
    return {
        "from": source.name,
        "from_bands": int(source.good.sum()),
        "to": target.name,
        "bands": int(good.sum()),
        "median_distance": round(float(np.median(distance)), 3),
        "largest_distance": round(float(distance.max()), 3),
        "missing": resampling.ranges(target, resampling.missing & target.good),
        "filled": resampling.ranges(target, filled),
    }


def _lazy(source: ResampledSource) -> Any:
    """Return the values of a source, by Dask if it holds them."""
    if source.values.chunks is None:
        bands = source.shape[0]
        unchanged = Calibration(np.ones(bands), np.zeros(bands))
        return indexing.LazilyIndexedArray(PhysicalArray(source, unchanged))
    from dask import array

    held: Any = source.values.data
    held = held[source.measured].rechunk({0: -1})
    bare = replace(source, values=xr.Variable(source.values.dims, np.empty((0, 0, 0))))  # values come by themselves
    return array.map_blocks(
        bare.resampled,
        held,
        dtype=np.float32,
        chunks=((source.shape[0],), *held.chunks[1:]),
        meta=np.empty((0, 0, 0), np.float32),
    )


def _range(wavelength: np.ndarray) -> str:
    low, high = float(np.nanmin(wavelength)), float(np.nanmax(wavelength))
    if len(wavelength) == 1:
        return f"{low:.0f} nm"
    return f"{low:.0f}-{high:.0f} nm ({len(wavelength)} bands)"
