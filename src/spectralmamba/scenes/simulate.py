"""A hyperspectral scene made by code: farmland under a noisy sensor, for tests, examples and first steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter, gaussian_filter1d, maximum_filter, minimum_filter
from scipy.spatial import KDTree

import spectralmamba.accessor  # noqa: F401  registers .spectralmamba
from spectralmamba.scenes.palette import default_colors

NODATA = -9999.0
PIXEL_SIZE = 10.0  # m
WATER_VAPOUR = ((1350.0, 1430.0), (1800.0, 1950.0))  # nm; the air lets next to no light through
_UPPER_LEFT = (390_000.0, 5_820_000.0)
_FIELD_WIDTH = 13  # pixels, on average
_SUBPIXELS = 3  # along each side of a pixel, for the mixture at field borders
_FIELD_SPREAD, _PIXEL_SPREAD = 0.06, 0.11  # standard deviation of the log abundance from field to field, pixel to pixel


def _dip(w: np.ndarray, centre: float, width: float, depth: float) -> np.ndarray:
    """Transmission of an absorption band: 1 − depth at its centre (nm), Gaussian of this standard deviation (nm)."""
    return 1 - depth * np.exp(-0.5 * ((w - centre) / width) ** 2)


def _rise(w: np.ndarray, centre: float, width: float) -> np.ndarray:
    return 1 / (1 + np.exp((centre - w) / width))


def _liquid_water(w: np.ndarray, amount: float) -> np.ndarray:
    """Transmission of leaf water: its bands near 970, 1190, 1450 and 1940 nm and the slope towards 2500 nm."""
    depth = 0.08 * np.exp(-0.5 * ((w - 970) / 30) ** 2) + 0.17 * np.exp(-0.5 * ((w - 1190) / 45) ** 2)
    depth += 1.1 * np.exp(-0.5 * ((w - 1460) / 75) ** 2) + 1.6 * np.exp(-0.5 * ((w - 1945) / 100) ** 2)
    return np.exp(-amount * (depth + 0.55 * _rise(w, 1400, 60) + 1.0 * _rise(w, 2350, 150)))


def _canopy(w: np.ndarray, red_edge: float, green: float, plateau: float, water: float) -> np.ndarray:
    visible = 0.025 + green * np.exp(-0.5 * ((w - 552) / 32) ** 2)
    return (visible + plateau * _rise(w, red_edge, 14)) * _liquid_water(w, water)


def _dry_plant(w: np.ndarray) -> np.ndarray:
    return (
        (0.06 + 0.36 * (1 - np.exp(-(w - 380) / 420)))
        * _dip(w, 1730, 25, 0.06)
        * _dip(w, 2100, 60, 0.22)
        * _dip(w, 2310, 45, 0.15)
    )


def _soil(w: np.ndarray, brightness: float, iron: float, clay: float, carbonate: float) -> np.ndarray:
    continuum = brightness * (1 - np.exp(-(w - 330) / 600))
    return (
        continuum
        * _dip(w, 490, 60, iron)
        * _dip(w, 880, 80, iron / 2)
        * _dip(w, 2205, 22, clay)
        * _dip(w, 2340, 25, carbonate)
    )


MATERIALS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cereal leaves": lambda w: _canopy(w, 716, 0.055, 0.46, 0.65),
    "ripening leaves": lambda w: _canopy(w, 706, 0.085, 0.42, 0.30),
    "broad leaves": lambda w: _canopy(w, 719, 0.060, 0.52, 0.85),
    "waxy leaves": lambda w: _canopy(w, 725, 0.048, 0.49, 1.05),
    "grass": lambda w: _canopy(w, 712, 0.070, 0.44, 0.70),
    "needles": lambda w: _canopy(w, 714, 0.025, 0.28, 0.80),
    "dry plants": _dry_plant,
    "loam": lambda w: _soil(w, 0.30, 0.12, 0.10, 0.0),
    "red clay": lambda w: _soil(w, 0.34, 0.35, 0.22, 0.0),
    "chalky soil": lambda w: _soil(w, 0.46, 0.06, 0.06, 0.18),
    "water": lambda w: 0.055 * np.exp(-0.5 * ((w - 520) / 110) ** 2) + 0.004,
    "asphalt": lambda w: 0.07 + 0.05 * (w - 400) / 2100 + 0 * w,
    "concrete": lambda w: 0.30 * (1 - np.exp(-(w - 250) / 250)) * _dip(w, 2340, 40, 0.10),
    "clay tiles": lambda w: 0.05 + 0.33 * _rise(w, 585, 25) * _dip(w, 870, 70, 0.12) * _dip(w, 2205, 25, 0.05),
}
"""Reflectance of each material as a function of wavelength (nm)."""

CLASSES: dict[str, dict[str, float]] = {
    "winter wheat": {"cereal leaves": 0.56, "ripening leaves": 0.10, "dry plants": 0.10, "loam": 0.24},
    "winter barley": {"cereal leaves": 0.44, "ripening leaves": 0.22, "dry plants": 0.12, "loam": 0.22},
    "maize": {"broad leaves": 0.50, "cereal leaves": 0.06, "loam": 0.44},
    "sugar beet": {"broad leaves": 0.10, "waxy leaves": 0.48, "loam": 0.42},
    "stubble": {"dry plants": 0.46, "loam": 0.38, "red clay": 0.08, "grass": 0.08},
    "bare soil": {"dry plants": 0.30, "loam": 0.50, "red clay": 0.14, "grass": 0.06},
    "grassland": {"grass": 0.72, "dry plants": 0.16, "loam": 0.12},
    "fallow": {"grass": 0.52, "dry plants": 0.28, "loam": 0.20},
    "forest": {"needles": 0.72, "broad leaves": 0.22, "dry plants": 0.06},
    "open water": {"water": 0.94, "grass": 0.06},
    "chalk field": {"chalky soil": 0.66, "dry plants": 0.22, "grass": 0.12},
    "settlement": {"asphalt": 0.32, "concrete": 0.26, "clay tiles": 0.26, "grass": 0.16},
}
"""Mean share of each material in a class; neighbours in this list are hard to tell apart."""


def simulate_scene(
    *, rows: int = 96, columns: int = 96, bands: int = 120, classes: int = 6, seed: int = 0, noise: float = 1.0
) -> tuple[xr.DataArray, xr.DataArray]:
    """Make a scene of farmland and its ground truth.

    Fields are Voronoi cells of one class each. A field's mixture of materials varies about its class, a pixel's about
    its field; pixels at field borders hold both neighbours. Illumination varies smoothly, the sensor's noise is
    correlated between bands and strongest at both ends of the spectrum, the swath's edge cuts off a corner.

    At the default settings, a support vector machine on single spectra that learned 10 pixels of each class classifies
    about 0.8 of the others correctly, on 3 × 3 means about 0.9.

    Args:
        rows: Height H.
        columns: Width W.
        bands: L, evenly spaced from 400 to 2500 nm.
        classes: K, 2 to 12.
        seed: The same seed gives the same scene to the last bit.
        noise: Factor on the sensor's noise; 0 leaves it out.

    Returns:
        The scene (band, y, x), reflectance, in memory; and the labels (y, x) of all field interiors.

    Raises:
        ValueError: A number is out of range.
    """
    if not (2 <= classes <= len(CLASSES) and min(rows, columns) >= 8 and bands >= 2 and noise >= 0):
        raise ValueError(f"needs 2 to {len(CLASSES)} classes, 8 rows and columns, 2 bands and no negative noise")
    random = np.random.default_rng(seed)
    wavelength = np.linspace(400, 2500, bands)
    good = ~np.any([(wavelength >= low) & (wavelength <= high) for low, high in WATER_VAPOUR], axis=0)
    field, class_of_field = _lay_out_fields(rows, columns, classes, random)
    spectra = np.stack([material(wavelength) for material in MATERIALS.values()])
    reflectance = _mix(field, class_of_field, random) @ spectra
    reflectance *= _illumination(rows, columns, random)[..., None]
    reflectance += noise * _sensor_noise((rows, columns), wavelength, good, random)
    outside = _outside_swath(rows, columns)
    reflectance[outside] = np.nan
    ids = np.where(outside, 0, _label_interiors(field, class_of_field))
    source = f"simulated, seed {seed}"
    return _as_scene(reflectance, wavelength, good, source), _as_labels(ids, source)


def _lay_out_fields(
    rows: int, columns: int, classes: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Field number of every subpixel (H·s, W·s), and class number from 0 of every field, all classes about as often."""
    down, across = (max(2, round(size / _FIELD_WIDTH)) for size in (rows, columns))
    down = max(down, -(-2 * classes // across))
    grid = np.stack(np.meshgrid(np.arange(down), np.arange(across), indexing="ij"), axis=-1).reshape(-1, 2)
    centres = (grid + 0.5 + random.uniform(-0.32, 0.32, grid.shape)) * [rows / down, columns / across]
    subpixels = np.indices((rows * _SUBPIXELS, columns * _SUBPIXELS)).reshape(2, -1).T
    _, field = KDTree(centres).query((subpixels + 0.5) / _SUBPIXELS)
    class_of_field = random.permutation(np.arange(len(centres)) % classes)
    return np.asarray(field).reshape(rows * _SUBPIXELS, columns * _SUBPIXELS), class_of_field


def _mix(field: np.ndarray, class_of_field: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Abundances (H, W, materials), each pixel's sum is 1."""
    names = list(MATERIALS)
    mean = np.array([[mixture.get(name, 0.0) for name in names] for mixture in CLASSES.values()])
    of_field = mean[class_of_field] * np.exp(random.normal(0, _FIELD_SPREAD, (len(class_of_field), len(names))))
    fine = of_field[field]
    height, width = (size // _SUBPIXELS for size in field.shape)
    mixed = fine.reshape(height, _SUBPIXELS, width, _SUBPIXELS, -1).mean(axis=(1, 3))
    mixed *= np.exp(random.normal(0, _PIXEL_SPREAD, mixed.shape))
    return mixed / mixed.sum(axis=-1, keepdims=True)


def _illumination(rows: int, columns: int, random: np.random.Generator) -> np.ndarray:
    """Factor (H, W) about 1: thin cloud and relief, smooth, and a little texture."""
    smooth = gaussian_filter(random.normal(size=(rows, columns)), 12, mode="reflect")
    return 1 + 0.08 * smooth / smooth.std() + random.normal(0, 0.03, (rows, columns))


def _sensor_noise(
    shape: tuple[int, int], wavelength: np.ndarray, good: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Noise (H, W, L) in reflectance: half white, half shared by neighbouring bands."""
    white = random.normal(size=(*shape, len(wavelength)))
    shared = gaussian_filter1d(random.normal(size=white.shape), 2, axis=-1, mode="reflect")
    level = 0.006 * (1 + 2.5 * np.exp(-(wavelength - 400) / 60) + 1.5 * _rise(wavelength, 2250, 100))
    level[~good] *= 8
    return level * np.sqrt(0.5) * (white + shared / shared.std())


def _outside_swath(rows: int, columns: int) -> np.ndarray:
    """Pixels (H, W) left of the swath's slanted edge, which leaves the scene below two thirds of its height."""
    edge = 0.16 * columns * (1 - 1.5 * np.arange(rows) / rows)
    return np.arange(columns) < edge[:, None]


def _label_interiors(field: np.ndarray, class_of_field: np.ndarray) -> np.ndarray:
    """Class ids (H, W), 0 wherever another field is nearer than about a pixel."""
    reach = 2 * _SUBPIXELS + 1
    uniform = minimum_filter(field, reach) == maximum_filter(field, reach)
    middle = slice(_SUBPIXELS // 2, None, _SUBPIXELS)
    return np.where(uniform[middle, middle], class_of_field[field[middle, middle]] + 1, 0).astype(np.int32)


def _transform() -> Affine:
    return Affine(PIXEL_SIZE, 0, _UPPER_LEFT[0], 0, -PIXEL_SIZE, _UPPER_LEFT[1])


def _located(array: xr.DataArray) -> xr.DataArray:
    x = _UPPER_LEFT[0] + PIXEL_SIZE * (np.arange(array.sizes["x"]) + 0.5)
    y = _UPPER_LEFT[1] - PIXEL_SIZE * (np.arange(array.sizes["y"]) + 0.5)
    return array.assign_coords(x=x, y=y).rio.write_transform(_transform()).rio.write_crs("EPSG:32633")


def _as_scene(reflectance: np.ndarray, wavelength: np.ndarray, good: np.ndarray, source: str) -> xr.DataArray:
    numbers = np.arange(1, len(wavelength) + 1)
    width = 1.2 * (wavelength[1] - wavelength[0])
    scene = xr.DataArray(
        np.ascontiguousarray(reflectance.transpose(2, 0, 1), dtype=np.float32),
        dims=("band", "y", "x"),
        coords={
            "band": numbers,
            "wavelength": ("band", wavelength),
            "fwhm": ("band", np.full(len(wavelength), width)),
            "good": ("band", good),
        },
        attrs={
            "source": source,
            "raw_dtype": "float32",
            "bad_band_reasons": {int(number): "water vapour" for number in numbers[~good]},
        },
    )
    return _located(scene).rio.write_nodata(NODATA, encoded=True)


def _as_labels(ids: np.ndarray, source: str) -> xr.DataArray:
    present = [int(id_) for id_ in np.unique(ids) if id_ > 0]
    names = dict(enumerate(CLASSES, start=1))
    attributes = {
        "class_names": {id_: names[id_] for id_ in present},
        "class_colors": default_colors(present),
        "report": {"outside_scene": 0, "on_nodata": 0, "conflicting_pixels": 0},
        "source": source,
        "notes": [],
    }
    return _located(xr.DataArray(ids, dims=("y", "x"), attrs=attributes))
