"""Small EnMAP L2A products in the layout in which they are delivered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from raster_files import write_envi, write_tiff

STEM = "ENMAP01-____L2A-DT0000001053_20220611T072305Z_002_V010400_20231221T134421Z"
TRANSFORM = Affine(30, 0, 283455, 0, -30, 2786715)
CRS = "EPSG:32640"
LAYERS = ("CLOUD", "CLOUDSHADOW", "CIRRUS", "HAZE", "SNOW", "TESTFLAGS")
VNIR = np.linspace(418.2, 993.3, 91)
SWIR = np.linspace(902.7, 2445.3, 133)


@dataclass
class EnMap:
    """A product and what is in it."""

    folder: Path
    stem: str
    image: Path
    dn: np.ndarray
    wavelength: np.ndarray
    swir: np.ndarray
    empty: np.ndarray

    def file(self, part: str) -> Path:
        return next(path for path in self.folder.iterdir() if path.name.startswith(f"{self.stem}-{part}."))


def band_layout() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wavelengths in ascending order, which are of the SWIR detector, and which are empty."""
    wavelength = np.concatenate([VNIR, SWIR])
    order = np.argsort(wavelength)
    wavelength, swir = wavelength[order], (np.arange(224) >= 91)[order]
    return wavelength, swir, (wavelength > 1343) & (wavelength < 1391)


def metadata_xml(
    wavelength: np.ndarray, swir: np.ndarray, empty: np.ndarray, level: str = "L2A", background: str = "-32768"
) -> str:
    bands = range(len(wavelength))
    characterisation = "".join(
        f'<bandID number="{band + 1}"><wavelengthCenterOfBand>{wavelength[band]:.4f}</wavelengthCenterOfBand>'
        f"<FWHMOfBand>{7 + band / 100:.3f}</FWHMOfBand><GainOfBand>0.0001</GainOfBand><OffsetOfBand>0</OffsetOfBand></bandID>\n"
        for band in bands
    )
    statistics = "".join(
        f'<bandID number="{band + 1}"><mean>{-1000000 if empty[band] else 2500}</mean>'
        f"<stdDeviation>{0 if empty[band] else 800.5}</stdDeviation></bandID>\n"
        for band in bands
    )
    others = "".join(f'<bandID number="{band + 1}"><deadPixels>3</deadPixels></bandID>' for band in bands)
    lists = [", ".join(str(band + 1) for band in bands if swir[band] == which) for which in (False, True)]
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<level_X xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<metadata><schema><processingLevel>{level}</processingLevel></schema></metadata>
<base><level>{level}</level><temporalCoverage><startTime>2022-06-11T07:23:05.123Z</startTime></temporalCoverage>
<spatialCoverage><boundingPolygon><point><frame>upper_left</frame><latitude>25.1</latitude><longitude>54.8</longitude></point>
</boundingPolygon></spatialCoverage></base>
<specific><quality>{others}</quality><backgroundValue>{background}</backgroundValue>
<vnirProductQuality><expectedChannelsList>{lists[0]}</expectedChannelsList></vnirProductQuality>
<swirProductQuality><expectedChannelsList>{lists[1]}</expectedChannelsList></swirProductQuality>
<bandCharacterisation>{characterisation}</bandCharacterisation></specific>
<product><bandStatistics>{statistics}</bandStatistics></product>
</level_X>
"""


def make_enmap(
    folder: Path,
    *,
    shape: tuple[int, int] = (8, 10),
    image_format: str = "TIF",
    xml_suffix: str = ".XML",
    stem: str = STEM,
    level: str = "L2A",
    layers: dict[str, np.ndarray] | None = None,
    pixelmask: np.ndarray | None = None,
    transform: Affine = TRANSFORM,
    off_swath: bool = True,
    **creation: object,
) -> EnMap:
    """Write a product; its first column is off the swath, and what `layers` names is flagged so."""
    folder.mkdir(parents=True, exist_ok=True)
    wavelength, swir, empty = band_layout()
    rng = np.random.default_rng(7)
    dn = np.empty((224, *shape), np.int16)
    for band in dn:  # whole products are made with this, too
        band[...] = rng.integers(100, 6000, shape)
    dn[empty] = -32768
    background = np.zeros(shape, bool)
    background[:, 0] = off_swath
    dn[:, background] = -32768
    place = {"crs": rasterio.CRS.from_string(CRS), "transform": transform}
    name = f"{stem}-SPECTRAL_IMAGE"
    if image_format in ("BSQ", "BIL", "BIP"):
        image = write_envi(
            folder / f"{name}.{image_format}", dn, image_format.lower(), CRS, transform, header_suffix=".HDR"
        )
    else:
        image = write_tiff(
            folder / f"{name}{image_format if '.' in image_format else '.' + image_format}",
            dn,
            nodata=-32768,
            **place,
            **creation,
        )
    (folder / f"{stem}-METADATA{xml_suffix}").write_text(metadata_xml(wavelength, swir, empty, level), encoding="utf-8")
    classes = np.where(background, 3, 1).astype(np.uint8)
    write_tiff(folder / f"{stem}-QL_QUALITY_CLASSES.TIF", classes[None], **place)
    for layer in LAYERS:
        flagged = (layers or {}).get(layer, np.zeros(shape, np.uint8)).astype(np.uint8)
        write_tiff(
            folder / f"{stem}-QL_QUALITY_{layer}.TIF",
            np.where(background, 255, flagged)[None].astype(np.uint8),
            **place,
        )
    defects = np.zeros((224, *shape), np.uint8) if pixelmask is None else pixelmask.astype(np.uint8)
    write_tiff(folder / f"{stem}-QL_PIXELMASK.TIF", defects, **place)
    for quicklook in ("VNIR", "SWIR"):
        write_tiff(folder / f"{stem}-QL_{quicklook}.TIF", dn[:3], **place)
    return EnMap(folder, stem, image, dn, wavelength, swir, empty)
