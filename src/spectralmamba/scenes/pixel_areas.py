"""How large pixels are on the ground."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine

from spectralmamba.errors import LabelError


def pixel_areas(transform: Affine, crs: CRS, rows: int) -> NDArray[np.float64]:
    """Area of the pixels of each row `(rows,)` in m².

    In degrees it is the area between meridians and parallels on the CRS's ellipsoid, by the closed form that authalic latitude
    rests on (Snyder 1987, "Map Projections: A Working Manual", equation 3-12).

    Raises:
        LabelError: The map is in degrees and rotated.
    """
    _, factor = crs.units_factor
    if not crs.is_geographic:
        return np.full(rows, abs(transform.a * transform.e - transform.b * transform.d) * factor**2)
    if transform.b or transform.d:
        raise LabelError(
            "pixels of a rotated map in degrees have no common area in a row",
            remedy="Warp the map to an equal-area projection (gdalwarp -r near -t_srs EPSG:6933).",
        )
    import pyproj

    ellipsoid = pyproj.CRS.from_wkt(crs.to_wkt()).ellipsoid
    assert ellipsoid is not None
    edges = (transform.f + transform.e * np.arange(rows + 1)) * factor
    zone = _area_to_equator(np.sin(np.clip(edges, -math.pi / 2, math.pi / 2)), ellipsoid)
    return np.abs(np.diff(zone)) * abs(transform.a) * factor


def _area_to_equator(sine: NDArray[np.float64], ellipsoid: Any) -> NDArray[np.float64]:
    """Area in m² between the equator and a latitude, for one radian of longitude."""
    a, b = ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre
    eccentricity = math.sqrt(max(0.0, 1 - (b / a) ** 2))
    if eccentricity == 0:
        return a * a * sine
    within = eccentricity * sine
    return b * b / 2 * (sine / (1 - within**2) + np.arctanh(within) / eccentricity)
