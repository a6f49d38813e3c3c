"""Small DESIS L2A products in the layout in which they are delivered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from raster_files import map_info, write_tiff

STEM = "DESIS-HSI-L2A-DT0483531728_001-20200804T234520-V0210"
CRS = "EPSG:32611"
TRANSFORM = Affine(30, 0, 300015, 0, -30, 3750015)
FLAGS = (
    "shadow",
    "land",
    "snow",
    "haze land",
    "haze water",
    "cloud land",
    "cloud water",
    "water",
    "aot",
    "water vapour",
)


@dataclass
class Desis:
    """A product and what is in it."""

    folder: Path
    stem: str
    image: Path
    reflectance: np.ndarray
    wavelength: np.ndarray

    def file(self, part: str) -> Path:
        return next(path for path in self.folder.iterdir() if path.name.startswith(f"{self.stem}-{part}."))


def metadata_xml(wavelength: np.ndarray, fwhm: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> str:
    spectral = "".join(
        f"<band><bandNumber>{band + 1}</bandNumber><wavelengthCenterOfBand>{wavelength[band]:.3f}</wavelengthCenterOfBand>"
        f"<wavelengthWidthOfBand>{fwhm[band]:.3f}</wavelengthWidthOfBand><response>0.1, 0.9</response>"
        f"<gainOfBand>{float(gain[band])!r}</gainOfBand><offsetOfBand>{float(offset[band])!r}</offsetOfBand></band>\n"
        for band in range(len(wavelength))
    )
    geometric = "".join(f"<band><bandNumber>{band + 1}</bandNumber></band>" for band in range(len(wavelength)))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<hsi_doc><metadata><schema>x</schema></metadata>
<base><temporalCoverage><startTime>2020-08-04T23:45:20.123Z</startTime></temporalCoverage></base>
<specific><interiorOrientation>{geometric}</interiorOrientation><bandCharacterisation>{spectral}</bandCharacterisation></specific>
</hsi_doc>
"""


def make_desis(
    folder: Path,
    *,
    shape: tuple[int, int] = (8, 9),
    bands: int = 235,
    flags: dict[str, tuple[int, int]] | None = None,
    quality: np.ndarray | None = None,
    header: bool = True,
    transform: Affine = TRANSFORM,
    stem: str = STEM,
    nodata: int | None = -32768,
) -> Desis:
    """Write a product, pixel-interleaved, with other gains and offsets in each band; its last column is off the swath."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(11)
    wavelength = np.round(np.linspace(401.25, 999.5, bands), 3)
    fwhm, gain = np.full(bands, 3.5), 0.0001 * (1 + np.arange(bands) / 1000)
    offset = np.arange(bands) * 1e-5
    dn = rng.integers(50, 7000, (bands, *shape)).astype(np.int16)
    dn[:, :, -1] = -32768
    place = {"crs": rasterio.CRS.from_string(CRS), "transform": transform}
    image = write_tiff(folder / f"{stem}-SPECTRAL_IMAGE.tif", dn, nodata=nodata, interleave="pixel", **place)
    (folder / f"{stem}-METADATA.xml").write_text(metadata_xml(wavelength, fwhm, gain, offset), encoding="utf-8")
    if header:
        lists = {"wavelength": wavelength, "fwhm": fwhm, "data gain values": gain, "data offset values": offset}
        text = "\n".join(
            f"{key} = {{{', '.join(repr(float(value)) for value in values)}}}" for key, values in lists.items()
        )
        (folder / f"{stem}-SPECTRAL_IMAGE.hdr").write_text(
            f"ENVI\nsamples = {shape[1]}\nlines = {shape[0]}\nbands = {bands}\nheader offset = 0\ndata type = 2\n"
            f"interleave = bip\nbyte order = 0\n{map_info(transform, 11)}\nwavelength units = nanometers\n{text}\n"
        )
    layers = np.zeros((10, *shape), np.uint8)
    layers[1], layers[8], layers[9] = 1, 12, 84  # land, and two that are no flags
    for name, spot in (flags or {}).items():
        layers[(FLAGS.index(name), *spot)] = 1
    write_tiff(folder / f"{stem}-QL_QUALITY-2.tif", layers, **place)
    write_tiff(
        folder / f"{stem}-QL_QUALITY.tif", np.zeros((bands, *shape), np.uint8) if quality is None else quality, **place
    )
    physical = dn * gain[:, None, None] + offset[:, None, None]
    return Desis(folder, stem, image, np.where(dn == -32768, np.nan, physical), wavelength)
