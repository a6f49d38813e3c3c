"""EnMAP L2A: an image, its metadata in XML, and rasters of what is cloud, shadow, cirrus, haze, snow or defective."""

from __future__ import annotations

import numpy as np

from spectralmamba.errors import SceneError
from spectralmamba.scenes.products.bands import SWIR, VNIR, BandTable
from spectralmamba.scenes.products.cube import check_cube, product_scene
from spectralmamba.scenes.products.files import ProductFiles, time_in_name
from spectralmamba.scenes.products.masks import BACKGROUND, Choices, PixelMask, bands_flagged
from spectralmamba.scenes.products.rasters import (
    JPEG2000_SUFFIXES,
    RASTER_SUFFIXES,
    Raster,
    check_placed,
    open_layer,
    open_raster_file,
    read_layer,
)
from spectralmamba.scenes.products.xml import XmlFile, read_xml
from spectralmamba.scenes.scene import RawScene

IMAGE = ("-SPECTRAL_IMAGE", "-SPECTRAL_IMAGE_COG")
METADATA = ("-METADATA",)

LAYERS = {
    "cloud": "QL_QUALITY_CLOUD",
    "shadow": "QL_QUALITY_CLOUDSHADOW",
    "cirrus": "QL_QUALITY_CIRRUS",
    "haze": "QL_QUALITY_HAZE",
    "snow": "QL_QUALITY_SNOW",
}
"""The raster of each kind of pixel; whatever is neither of these two values is flagged."""

CLEAR, LAYER_BACKGROUND = 0, 255

CLASSES, CLASS_BACKGROUND = "QL_QUALITY_CLASSES", 3
"""1 land, 2 water, 3 background."""

PIXELMASK, PIXELMASK_GOOD = "QL_PIXELMASK", 0
"""One band a channel: 0 good, 1 defective (EN-PCV-ICD-2009-2)."""

BACKGROUND_VALUE = -32768
"""What stands for nothing measured where the metadata do not say."""

_BANDS = "specific/bandCharacterisation/bandID"
_COLUMNS = ("wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand")


def read_enmap(files: ProductFiles, stem: str, choices: Choices) -> RawScene:
    """Open an EnMAP L2A product.

    The bands of a band's detector are listed in `expectedChannelsList`; in their overlap each is used to half-way. A band that
    the statistics call empty (standard deviation 0) is not good.

    Args:
        files: Its folder or zip.
        stem: The beginning of its files' names.
        choices: What is masked.

    Raises:
        SceneError: A file is missing, damaged, or does not fit the others.
    """
    metadata = read_xml(files.path(files.need(stem, METADATA, (".xml",))))
    _check_level(metadata)
    image_name = _image_name(files, stem)
    image = open_raster_file(files, image_name)
    table = metadata.table(_BANDS, "number", _COLUMNS)
    check_cube(image.path, image_name, image.source, "iu", len(table), "16-bit integers")
    bands = _bands(metadata, table).arranged(metadata.path, choices.water_bands)
    mask = _mask(files, stem, image, bands, choices)
    check_placed(image)
    nodata = metadata.number("specific/backgroundValue")
    attributes = {"sensor": "EnMAP", "product_level": "L2A", "product": stem}
    if start := metadata.text("base/temporalCoverage/startTime") or time_in_name(stem, "_{}Z"):
        attributes["acquisition_time"] = start
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


def _image_name(files: ProductFiles, stem: str) -> str:
    compressed = files.find(stem, IMAGE, JPEG2000_SUFFIXES)
    found = files.find(stem, IMAGE, RASTER_SUFFIXES)
    if found is None and compressed is not None:
        raise SceneError(
            "JPEG 2000 is not read",
            file=files.place / compressed,
            found="a JPEG 2000 image",
            expected="GeoTIFF, or ENVI as BSQ, BIL or BIP",
            remedy="Order the product in one of these formats, or convert the image with gdal_translate -of GTiff.",
        )
    return found or files.need(stem, IMAGE, RASTER_SUFFIXES)


def _check_level(metadata: XmlFile) -> None:
    level = metadata.text("base/level") or metadata.text("metadata/schema/processingLevel")
    if level is not None and level.upper() != "L2A":
        raise SceneError(
            "this is another product level",
            file=metadata.path,
            found=level,
            expected="L2A, surface reflectance",
            remedy="Download the L2A product of the scene.",
        )


def _bands(metadata: XmlFile, table: np.ndarray) -> BandTable:
    """Return the bands in the order of the file, with the empty and the overlapping ones marked."""
    count = len(table)
    bands = BandTable.of_one_cube(*(table[:, column] for column in range(4)))
    empty = np.zeros(count, bool)
    for band in metadata.root.findall("product/bandStatistics/bandID"):
        number = band.get("number", "")
        deviation = (band.findtext("stdDeviation") or "").strip()
        if number.isascii() and number.isdigit() and 1 <= int(number[:9]) <= count and _is_zero(deviation):
            empty[int(number) - 1] = True
    bands = bands.marked(empty, "the product calls it empty (standard deviation 0)")
    detector = np.full(count, -1)
    for number, place in ((VNIR, "specific/vnirProductQuality"), (SWIR, "specific/swirProductQuality")):
        channels = np.array(metadata.integers(f"{place}/expectedChannelsList"), int)
        if ((channels < 1) | (channels > count)).any():
            raise metadata.error("a channel is listed that is not there", channels.max(), f"channels 1 to {count}")
        detector[channels - 1] = number
    if (detector >= 0).any():
        bands = bands.marked(detector < 0, "in no list of expected channels")
    return bands.without_overlap(detector)


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False


def _mask(files: ProductFiles, stem: str, image: Raster, bands: BandTable, choices: Choices) -> PixelMask:
    shape = image.source.shape[1:]
    mask = PixelMask(shape, choices)
    if files.find(stem, _parts(CLASSES), RASTER_SUFFIXES):
        mask.add(BACKGROUND, read_layer(_layer(files, stem, CLASSES, shape, "")) == CLASS_BACKGROUND)
    for kind, name in LAYERS.items():
        if choices.masks(kind):
            values = read_layer(_layer(files, stem, name, shape, kind))
            mask.add(kind, (values != CLEAR) & (values != LAYER_BACKGROUND))
    if choices.masks("defective"):
        layer = _layer(files, stem, PIXELMASK, shape, "defective")
        check_cube(layer.path, PIXELMASK, layer.source, "iu", len(bands.index), "8-bit integers")
        good = bands.index[bands.good]

        def defective(rows: slice) -> np.ndarray:
            values = layer.source.read(good, rows, slice(0, shape[1]))
            return bands_flagged((values != PIXELMASK_GOOD) & (values != LAYER_BACKGROUND))

        mask.add_defective(defective, len(good), layer.source.block_shape[0])
    return mask


def _layer(files: ProductFiles, stem: str, name: str, shape: tuple[int, int], kind: str) -> Raster:
    remedy = f"Download it, or do without it: --keep {kind}." if kind else None
    return open_layer(files, stem, _parts(name), RASTER_SUFFIXES, shape, remedy)


def _parts(name: str) -> tuple[str, str]:
    return f"-{name}", f"-{name}_COG"
