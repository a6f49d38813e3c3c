"""Bands of products: their order, and which of them say something about the ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from spectralmamba.errors import SceneError

WATER_ABSORPTION = ((1340.0, 1460.0), (1790.0, 1960.0))
"""Band centres in nm, ends included, where water vapour leaves next to no light from the ground: the windows that the products'
own flags mark in common. `water_bands=True` keeps them."""

SHORTEST, LONGEST = 200.0, 20_000.0
"""Band centres in nm that an optical sensor can have."""

VNIR, SWIR = 0, 1
"""Numbers of the two detectors of EnMAP and PRISMA."""

WATER_REASON = "absorbed by water vapour"
OVERLAP_REASON = "the other detector measures here"


@dataclass(frozen=True)
class BandTable:
    """The bands of a product, a value a band `(L,)` each.

    Attributes:
        wavelength: Centres in nm.
        fwhm: Full widths at half maximum in nm.
        scale: Factors from raw values to reflectance.
        offset: Summands.
        cube: Which cube of the product holds the band.
        index: Where it is in the cube, from 0.
        reasons: Why a band is bad, by its place here from 0.
    """

    wavelength: np.ndarray
    fwhm: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    cube: np.ndarray
    index: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of_one_cube(
        cls, wavelength: np.ndarray, fwhm: np.ndarray, scale: np.ndarray | float = 1.0, offset: np.ndarray | float = 0.0
    ) -> BandTable:
        """Return the bands of a product with one cube, in its order."""
        count = len(wavelength)
        return cls(
            np.asarray(wavelength, np.float64),
            np.asarray(fwhm, np.float64),
            np.broadcast_to(np.asarray(scale, np.float64), count).copy(),
            np.broadcast_to(np.asarray(offset, np.float64), count).copy(),
            np.zeros(count, int),
            np.arange(count),
        )

    @property
    def good(self) -> np.ndarray:
        """Which bands are not bad, bool `(L,)`."""
        good = np.ones(len(self.wavelength), bool)
        good[list(self.reasons)] = False
        return good

    def marked(self, bad: np.ndarray, reason: str) -> BandTable:
        """Return the table with more bad bands `(L,)`; those that are bad already keep their reason."""
        return replace(self, reasons=dict.fromkeys(np.flatnonzero(bad).tolist(), reason) | self.reasons)

    def without_overlap(self, detector: np.ndarray) -> BandTable:
        """Mark the bands of each detector `(L,)` that lie on the other's side of the middle of their overlap.

        Both are noisiest at their ends, so each is used up to half-way between the first good SWIR and the last good VNIR band.
        """
        good = self.good
        vnir, swir = self.wavelength[good & (detector == VNIR)], self.wavelength[good & (detector == SWIR)]
        if not (vnir.size and swir.size) or swir.min() > vnir.max():
            return self
        middle = (float(swir.min()) + float(vnir.max())) / 2
        beyond = np.where(detector == VNIR, self.wavelength > middle, self.wavelength <= middle)
        return self.marked(beyond, OVERLAP_REASON)

    def arranged(self, path: Path, water_bands: bool) -> BandTable:
        """Return the bands by ascending wavelength, those in `WATER_ABSORPTION` marked unless they are to be kept.

        Raises:
            SceneError: A wavelength is impossible, or two good bands have the same.
        """
        impossible = ~((self.wavelength >= SHORTEST) & (self.wavelength <= LONGEST))
        if impossible.any() or not len(impossible):
            raise SceneError(
                "impossible wavelengths",
                file=path,
                found=", ".join(f"{value:g} nm" for value in self.wavelength[impossible][:5]) or "no band",
                expected=f"{SHORTEST:g} to {LONGEST:g} nm",
                remedy="The metadata are damaged, or of another product; download the product again.",
            )
        water = np.zeros(len(self.wavelength), bool)
        for low, high in () if water_bands else WATER_ABSORPTION:
            water |= (self.wavelength >= low) & (self.wavelength <= high)
        marked = self.marked(water, WATER_REASON)
        order = np.argsort(self.wavelength, kind="stable")
        sorted_table = marked._taken(order)
        _check_ascending(path, sorted_table.wavelength[sorted_table.good])
        return sorted_table

    def _taken(self, order: np.ndarray) -> BandTable:
        places = {int(old): new for new, old in enumerate(order)}
        columns = {
            name: getattr(self, name)[order] for name in ("wavelength", "fwhm", "scale", "offset", "cube", "index")
        }
        reasons = {places[band]: reason for band, reason in self.reasons.items()}
        return BandTable(**columns, reasons=dict(sorted(reasons.items())))


def joined(tables: Sequence[BandTable]) -> BandTable:
    """Return the bands of several cubes, one table a cube, in their order."""
    columns = ("wavelength", "fwhm", "scale", "offset", "index")
    stacked = {name: np.concatenate([getattr(table, name) for table in tables]) for name in columns}
    cubes = np.concatenate([np.full(len(table.wavelength), number) for number, table in enumerate(tables)])
    starts = np.cumsum([0, *(len(table.wavelength) for table in tables)]).tolist()
    reasons = {
        start + band: reason
        for start, table in zip(starts, tables, strict=False)
        for band, reason in table.reasons.items()
    }
    return BandTable(**stacked, cube=cubes, reasons=reasons)


def _check_ascending(path: Path, wavelength: np.ndarray) -> None:
    equal = np.flatnonzero(np.diff(wavelength) <= 0)
    if equal.size:
        raise SceneError(
            "two good bands have the same wavelength",
            file=path,
            found=", ".join(f"{value:g} nm" for value in wavelength[equal][:5]),
            expected="wavelengths that ascend",
            remedy="The metadata are damaged, or of another product; download the product again.",
        )
