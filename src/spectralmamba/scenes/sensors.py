"""Bands of sensors: their centres and widths, of scenes and, by name, nominal ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from spectralmamba.errors import SceneError


@dataclass(frozen=True)
class SpectralBands:
    """Where the bands of a scene, a sensor or a classifier lie, a value a band `(L,)` each.

    Attributes:
        name: Whose bands they are.
        wavelength: Centres in nm, NaN where unknown.
        fwhm: Full widths at half maximum in nm, NaN where unknown.
        good: Which bands count.
        source: Where the numbers come from.
    """

    name: str
    wavelength: np.ndarray
    fwhm: np.ndarray
    good: np.ndarray
    source: str

    @classmethod
    def of_scene(cls, scene: xr.DataArray) -> SpectralBands:
        """Return the bands of a scene `(band, y, x)`."""
        file = str(scene.attrs.get("source", "in memory"))
        name = str(scene.attrs.get("sensor") or file.replace("\\", "/").rstrip("/").rpartition("/")[2])
        wavelength, fwhm = (np.asarray(scene[each].values, np.float64) for each in ("wavelength", "fwhm"))
        return cls(name, wavelength, fwhm, np.asarray(scene["good"].values, bool), file)


def sensor_bands(name: str) -> SpectralBands:
    """Return the nominal bands of a sensor. Products have their own, which differ by some nanometres.

    Args:
        name: One of `SENSORS`; capitals, spaces and hyphens do not matter.

    Raises:
        SceneError: No sensor has this name.
    """
    known = {_plain(each): each for each in SENSORS}
    if _plain(name) not in known:
        raise SceneError("there is no such sensor", found=repr(name), expected=", ".join(SENSORS))
    sensor = known[_plain(name)]
    make, source = SENSORS[sensor]
    wavelength, fwhm = make()
    return SpectralBands(sensor, wavelength, fwhm, np.ones(len(wavelength), bool), source)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _even(first: float, last: float, bands: int, fwhm: float) -> tuple[np.ndarray, np.ndarray]:
    return np.linspace(first, last, bands), np.full(bands, fwhm)


def _prisma() -> tuple[np.ndarray, np.ndarray]:
    """Return the bands of both detectors, each up to the middle of their overlap, as the reader of its products uses them."""
    vnir, swir = np.linspace(400, 1010, 66), np.linspace(920, 2505, 173)
    middle = (swir[0] + vnir[-1]) / 2
    wavelength = np.concatenate([vnir[vnir <= middle], swir[swir > middle]])
    return wavelength, np.full(len(wavelength), 12.0)


def _enmap() -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array([pair.split("/") for pair in _ENMAP.split()], np.float64)
    return pairs[:, 0], pairs[:, 1]


_ENMAP = """
418.2/7.0 423.9/6.7 429.3/6.4 434.5/6.3 439.6/6.1 444.5/6.1 449.4/6.0 454.2/6.0 458.9/6.0 463.6/5.9 468.3/5.9
472.9/5.9 477.6/5.8 482.3/5.8 486.9/5.8 491.6/5.8 496.3/5.8 501.1/5.8 505.9/5.9 510.7/5.9 515.5/6.0 520.4/6.0
525.3/6.1 530.3/6.1 535.3/6.2 540.3/6.2 545.4/6.3 550.5/6.4 555.7/6.4 560.9/6.5 566.2/6.5 571.6/6.6 577.0/6.6
582.5/6.7 588.0/6.8 593.6/6.8 599.3/6.9 605.0/6.9 610.8/7.0 616.7/7.1 622.7/7.2 628.8/7.3 634.9/7.3 641.1/7.4
647.3/7.5 653.6/7.5 660.0/7.6 666.4/7.7 672.9/7.8 679.5/7.8 686.1/7.9 692.8/8.0 699.6/8.0 706.4/8.1 713.3/8.2
720.3/8.3 727.3/8.4 734.4/8.5 741.6/8.6 748.8/8.6 756.1/8.7 763.5/8.8 770.9/8.9 778.3/9.0 785.8/9.0 793.4/9.1
801.0/9.2 808.7/9.2 816.4/9.3 824.1/9.4 831.9/9.4 839.7/9.5 847.6/9.6 855.5/9.7 863.5/9.7 871.4/9.8 879.4/9.9
887.5/10.0 895.5/10.1 903.6/10.2 911.7/10.3 919.8/10.3 928.0/10.4 936.1/10.5 944.2/10.6 951.7/9.8 961.9/9.9
972.3/10.1 982.9/10.2 993.5/10.3 1004.2/10.4 1015.0/10.5 1026.0/10.6 1037.0/10.7 1048.2/10.8 1059.4/10.9
1070.7/10.9 1082.1/11.0 1093.6/11.1 1105.2/11.1 1116.8/11.2 1128.5/11.2 1140.2/11.3 1152.0/11.3 1163.8/11.3
1175.7/11.4 1187.6/11.4 1199.5/11.4 1211.4/11.4 1223.4/11.4 1235.3/11.4 1247.3/11.4 1259.3/11.4 1271.3/11.4
1283.3/11.4 1295.3/11.4 1307.3/11.4 1319.2/11.4 1331.2/11.4 1343.2/11.4 1355.1/11.3 1367.1/11.3 1379.0/11.3
1390.8/11.3 1461.5/11.1 1473.1/11.1 1484.7/11.0 1496.2/11.0 1507.8/10.9 1519.2/10.9 1530.6/10.9 1542.0/10.8
1553.4/10.8 1564.7/10.7 1575.9/10.7 1587.1/10.6 1598.3/10.6 1609.4/10.6 1620.4/10.5 1631.4/10.5 1642.4/10.4
1653.3/10.4 1664.2/10.3 1675.0/10.3 1685.8/10.2 1696.5/10.2 1707.2/10.1 1717.8/10.1 1728.4/10.1 1738.9/10.0
1749.4/10.0 1759.8/9.9 1939.4/9.2 1949.0/9.1 1958.5/9.1 1968.0/9.0 1977.4/9.0 1986.7/9.0 1996.1/8.9 2005.4/8.9
2014.6/8.9 2023.8/8.8 2033.0/8.8 2042.1/8.7 2051.2/8.7 2060.2/8.7 2069.2/8.6 2078.2/8.6 2087.1/8.6 2096.0/8.5
2104.9/8.5 2113.7/8.4 2122.4/8.4 2131.2/8.4 2139.9/8.3 2148.5/8.3 2157.2/8.3 2165.7/8.2 2174.3/8.2 2182.8/8.2
2191.3/8.1 2199.7/8.1 2208.1/8.1 2216.5/8.0 2224.8/8.0 2233.1/8.0 2241.4/7.9 2249.7/7.9 2257.9/7.9 2266.0/7.8
2274.2/7.8 2282.3/7.8 2290.4/7.8 2298.4/7.7 2306.4/7.7 2314.4/7.7 2322.4/7.6 2330.3/7.6 2338.2/7.6 2346.1/7.6
2353.9/7.5 2361.7/7.5 2369.4/7.5 2377.2/7.4 2384.9/7.4 2392.6/7.4 2400.2/7.4 2407.8/7.3 2415.4/7.3 2423.0/7.3
2430.6/7.2 2438.1/7.2 2445.5/7.2
"""
"""Centre/width in nm of the bands of an EnMAP L2A product, each detector up to the middle of their overlap."""

SENSORS: dict[str, tuple[Callable[[], tuple[np.ndarray, np.ndarray]], str]] = {
    "EnMAP": (_enmap, "metadata of an L2A product of 2022-07-24 (DLR), to 0.1 nm"),
    "PRISMA": (
        _prisma,
        "nominal: 66 bands of 400-1010 nm and 173 of 920-2505 nm, evenly spaced, 12 nm wide "
        "(ASI, PRISMA Products Specification Document)",
    ),
    "DESIS": (
        lambda: _even(402, 1000, 235, 3.5),
        "nominal: 235 bands of 402-1000 nm, 2.55 nm apart, 3.5 nm wide (Krutz et al. 2019, Sensors 19, 1622)",
    ),
    "EMIT": (
        lambda: _even(381, 2493, 285, 8.5),
        "nominal: 285 bands of 381-2493 nm, 7.4 nm apart, 8.5 nm wide (EMIT L2A User Guide)",
    ),
    "AVIRIS-NG": (
        lambda: _even(377, 2500, 425, 5.6),
        "nominal: 425 bands of 377-2500 nm, 5 nm apart, 5.6 nm wide (Chapman et al. 2019, Remote Sensing 11, 2129)",
    ),
    "AVIRIS-3": (lambda: _even(380, 2500, 284, 7.4), "nominal: 284 bands of 380-2500 nm, 7.4 nm apart and as wide"),
    "AVIRIS-5": (lambda: _even(380, 2500, 284, 7.4), "nominal, as AVIRIS-3, which it follows"),
}
"""Sensors by name: what makes centres and widths in nm, and where these come from."""
