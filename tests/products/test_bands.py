from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectralmamba.errors import SceneError
from spectralmamba.scenes.products.bands import SWIR, VNIR, BandTable, joined

centres = st.lists(st.floats(300, 1200), min_size=1, max_size=20, unique=True)


def table(wavelength: list[float]) -> BandTable:
    return BandTable.of_one_cube(np.array(wavelength), np.full(len(wavelength), 5.0))


@given(centres, centres)
def test_the_good_bands_of_two_detectors_ascend_and_do_not_interleave(vnir, swir):
    vnir = [value for value in vnir if value not in swir] or [299.0]
    bands = joined([table(vnir), table(swir)])
    detector = np.where(bands.cube == 0, VNIR, SWIR)
    arranged = bands.without_overlap(detector).arranged(Path("x"), True)
    assert (np.diff(arranged.wavelength) >= 0).all()
    good = arranged.good
    if min(swir) <= max(vnir):
        assert (np.diff(arranged.cube[good]) >= 0).all()
    np.testing.assert_array_equal(
        arranged.wavelength, np.where(arranged.cube == 0, np.array([*vnir, *swir])[arranged.index], 0)
        + np.where(arranged.cube == 1, np.array([*swir, *vnir])[arranged.index % (len(swir) + len(vnir))], 0),
    )  # fmt: skip


def test_a_bad_band_may_share_a_wavelength_and_a_good_one_may_not():
    double = table([500.0, 600.0, 600.0])
    assert double.marked(np.array([False, True, False]), "why").arranged(Path("x"), False).reasons == {1: "why"}
    with pytest.raises(SceneError, match="two good bands have the same wavelength"):
        double.arranged(Path("x"), False)


@pytest.mark.parametrize("wavelength", [0.0, -5.0, np.nan, np.inf, 1e9])
def test_impossible_wavelengths_are_refused(wavelength):
    with pytest.raises(SceneError, match="impossible wavelengths"):
        table([500.0, wavelength]).arranged(Path("x"), False)
