"""DESIS L2A: an image, its metadata in XML, and rasters of quality."""

from __future__ import annotations

import numpy as np

from spectralmamba.errors import SceneError
from spectralmamba.scenes.envi import EnviHeader, read_header
from spectralmamba.scenes.products.bands import BandTable
from spectralmamba.scenes.products.cube import check_cube, product_scene
from spectralmamba.scenes.products.files import ProductFiles
from spectralmamba.scenes.products.masks import Choices, PixelMask, bands_flagged
from spectralmamba.scenes.products.rasters import (
    TIFF_SUFFIXES,
    Raster,
    check_placed,
    open_layer,
    open_raster_file,
    read_layer,
)
from spectralmamba.scenes.products.xml import XmlFile, read_xml
from spectralmamba.scenes.scene import RawScene, to_nanometres

IMAGE, METADATA = ("-SPECTRAL_IMAGE",), ("-METADATA",)

FLAGS, FLAG_BANDS = "QL_QUALITY-2", {"shadow": (0,), "snow": (2,), "haze": (3, 4), "cloud": (5, 6)}
"""Bands from 0: shadow, land, snow, haze over land and over water, cloud over land and over water, water (PAV-DLR-ICD-003)."""

BAND_QUALITY, BAND_GOOD = "QL_QUALITY", 0
"""One band a channel, 0 for good values."""

LAYER_BACKGROUND = 255

BACKGROUND_VALUE = -32768

_BANDS = "specific/bandCharacterisation/band"
_COLUMNS = ("wavelengthCenterOfBand", "wavelengthWidthOfBand", "gainOfBand", "offsetOfBand")


def read_desis(files: ProductFiles, stem: str, choices: Choices) -> RawScene:
    """Open a DESIS L2A product.

    Wavelengths and gains are those of the header beside the image if there is one, else those of the metadata.

    Args:
        files: Its folder or zip.
        stem: The beginning of its files' names.
        choices: What is masked.

    Raises:
        SceneError: A file is missing, damaged, or does not fit the others.
    """
    metadata = read_xml(files.path(files.need(stem, METADATA, (".xml",))))
    image_name = files.need(stem, IMAGE, TIFF_SUFFIXES)
    image = open_raster_file(files, image_name)
    header_name = files.find(stem, IMAGE, (".hdr",))
    header = None if header_name is None else read_header(files.path(header_name))
    table, notes = _bands(metadata, header)
    check_cube(image.path, image_name, image.source, "iu", len(table.index), "16-bit integers")
    bands = table.arranged(metadata.path, choices.water_bands)
    mask = _mask(files, stem, image, bands, choices)
    check_placed(image)
    attributes = {"sensor": "DESIS", "product_level": "L2A", "product": stem, "notes": notes}
    start = metadata.text("base/temporalCoverage/startTime")
    if start:
        attributes["acquisition_time"] = start
    nodata = image.source.dataset().nodata  # type: ignore[attr-defined]
    return product_scene(
        files,
        image_name,
        (image.source,),
        bands,
        mask,
        image.place,
        BACKGROUND_VALUE if nodata is None else nodata,
        attributes,
    )


def _bands(metadata: XmlFile, header: EnviHeader | None) -> tuple[BandTable, list[str]]:
    """Return the bands in the order of the file, and notes on what was assumed."""
    table = metadata.table(_BANDS, "bandNumber", _COLUMNS)
    if header is None:
        return BandTable.of_one_cube(*(table[:, column] for column in range(4))), []
    if header.shape[0] != len(table):
        raise header.error("header and metadata describe different bands", str(header.shape[0]), str(len(table)))
    names = ("wavelength", "fwhm", "data gain values", "data offset values")
    columns = [header.numbers(name) for name in names]
    filled = [
        table[:, number] if column is None or not np.isfinite(column).all() else column
        for number, column in enumerate(columns)
    ]
    if columns[0] is None:
        return BandTable.of_one_cube(*filled), []
    centres, widths, notes = to_nanometres(filled[0], filled[1], header.entries.get("wavelength units"))
    if np.isnan(centres).any():
        raise header.error(
            "the wavelengths have no known unit", str(header.entries.get("wavelength units")), "nm or µm"
        )
    return BandTable.of_one_cube(centres, widths if columns[1] is not None else table[:, 1], *filled[2:]), notes


def _mask(files: ProductFiles, stem: str, image: Raster, bands: BandTable, choices: Choices) -> PixelMask:
    shape = image.source.shape[1:]
    mask = PixelMask(shape, choices)
    if choices.masks(*FLAG_BANDS):
        layer = _layer(files, stem, FLAGS, shape, " --keep ".join(FLAG_BANDS))
        last = max(band for places in FLAG_BANDS.values() for band in places)
        if layer.source.shape[0] <= last:
            raise SceneError(
                f"{FLAGS} has too few bands",
                file=layer.path,
                found=layer.source.shape[0],
                expected=f"at least {last + 1}",
                remedy="Download the product again.",
            )
        for kind, places in FLAG_BANDS.items():
            mask.add(kind, np.any([_flagged(read_layer(layer, band)) for band in places], axis=0))
    if choices.masks("defective"):
        layer = _layer(files, stem, BAND_QUALITY, shape, "defective")
        check_cube(layer.path, BAND_QUALITY, layer.source, "iu", len(bands.index), "8-bit integers")
        good = bands.index[bands.good]

        def defective(rows: slice) -> np.ndarray:
            return bands_flagged(_flagged(layer.source.read(good, rows, slice(0, shape[1]))))

        mask.add_defective(defective, len(good), layer.source.block_shape[0])
    return mask


def _flagged(values: np.ndarray) -> np.ndarray:
    return (values != BAND_GOOD) & (values != LAYER_BACKGROUND)


def _layer(files: ProductFiles, stem: str, name: str, shape: tuple[int, int], kept: str) -> Raster:
    remedy = f"Download it, or do without it: --keep {kept}."
    return open_layer(files, stem, (f"-{name}",), TIFF_SUFFIXES, shape, remedy)
