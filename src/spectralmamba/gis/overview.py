"""A map for people without a GIS: a picture with a legend, and an overlay for Google Earth."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from spectralmamba.errors import MissingPackageError, OutputError
from spectralmamba.files import atomic_output
from spectralmamba.gis.finished_map import FinishedMap, MappedClass, open_map
from spectralmamba.scenes.palette import rgb
from spectralmamba.scenes.png import png_bytes
from spectralmamba.scenes.raster_files import opened_raster
from spectralmamba.scenes.writing import one_line

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

LONGEST_SIDE = 1600  # pixels of the map in the picture
LARGEST_ZOOM = 24
SHORTEST_OVERLAY, LONGEST_OVERLAY = (
    1024,
    4096,
)  # pixels of the longer side; the latter is what graphics cards take as one texture
_TEXT, _FAINT, _PAPER = (34, 34, 34), (105, 105, 105), (255, 255, 255)
_NO_CLASS = "#ececec"
_MARGIN, _SWATCH, _LINE = 32, 22, 34  # pixels
_FONTS = ("DejaVuSans.ttf", "Arial.ttf", "Helvetica.ttc", "LiberationSans-Regular.ttf")
_EARTH_DEGREE = 111_320.0  # m of a degree along the equator


def write_picture(map_file: str | os.PathLike[str] | FinishedMap, path: str | os.PathLike[str]) -> Path:
    """Write a map as PNG with its scene's name, a legend with the share of each class, and a scale where there is a CRS.

    The map is no larger than 1600 pixels on a side, by the nearest pixel; pixels of a small one are enlarged.

    Args:
        map_file: The finished map.
        path: The file to write; it appears whole or not at all.

    Raises:
        LabelError: The map cannot be read.
        MissingPackageError: Pillow is not installed.
        OutputError: The file cannot be written.
    """
    path = check_picture_file(path)
    mapped = open_map(map_file)
    picture = _page(mapped)
    with atomic_output(path) as temporary:
        picture.save(temporary, "PNG", optimize=True)
    return path


def write_overlay(map_file: str | os.PathLike[str] | FinishedMap, path: str | os.PathLike[str]) -> Path:
    """Write a map as KMZ for Google Earth: a picture in longitude and latitude, transparent where no class is, and its legend.

    The map is sent to WGS 84 by the nearest pixel; its longer side has 1024 to 4096 pixels.

    Args:
        map_file: The finished map, with a CRS.
        path: The file to write; it appears whole or not at all.

    Raises:
        LabelError: The map cannot be read.
        MissingPackageError: Pillow is not installed.
        OutputError: The map has no CRS, or the file cannot be written.
    """
    path = check_picture_file(path)
    mapped = open_map(map_file)
    if mapped.crs is None:
        raise OutputError(
            "an overlay for Google Earth needs a map with coordinates", file=mapped.path, found="no CRS in the map"
        )
    ids, west, south, east, north = _in_degrees(mapped)
    parts = {
        "doc.kml": _kml(mapped, west, south, east, north).encode(),
        "map.png": png_bytes(colored(ids, mapped.classes)),
        "legend.png": _png(_legend(mapped, 18)),
    }
    with atomic_output(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # no time, for the same bytes
    return path


def check_picture_file(path: str | os.PathLike[str]) -> Path:
    """Return the path if Pillow, which draws the letters, is installed; MissingPackageError if not."""
    try:
        import PIL.ImageDraw  # noqa: F401
    except ImportError as error:
        raise MissingPackageError.of("the legend of an overview needs", "pillow", "10.1", "pictures", path) from error
    return Path(path)


def colored(ids: NDArray[Any], classes: Sequence[MappedClass]) -> NDArray[np.uint8]:
    """Return colours `(H, W, 4)` of class ids `(H, W)`; what is no class is transparent."""
    table = np.zeros((max((each.id for each in classes), default=0) + 1, 4), np.uint8)
    for each in classes:
        table[each.id] = (*rgb(each.color), 255)
    return table[np.where(ids < len(table), ids, 0)]


def _page(mapped: FinishedMap) -> Image:
    """Title above, map below it on the left, legend and scale on the right."""
    from PIL import Image, ImageDraw

    picture, scale = _enlarged(mapped)
    title, small = _font(26), _font(17)
    heading, notes = _heading(mapped), _notes(mapped)
    legend = _legend(mapped, 20, ((_NO_CLASS, "no class", ""),) if _has_nodata(mapped) else ())
    bar = _scale_bar(mapped, scale)
    side = max(legend.width, bar.width if bar else 0)
    words_width = max(title.getlength(heading), *(small.getlength(note) for note in notes), 0)
    top = _MARGIN + 40 + 24 * len(notes) + 12
    width = max(picture.width + side + 3 * _MARGIN, math.ceil(words_width) + 2 * _MARGIN)
    height = top + max(picture.height, legend.height + (bar.height + _MARGIN if bar else 0)) + _MARGIN
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN - 6), heading, _TEXT, title)
    for number, note in enumerate(notes):
        draw.text((_MARGIN, _MARGIN + 36 + 24 * number), note, _FAINT, small)
    frame = (_MARGIN - 1, top - 1, _MARGIN + picture.width, top + picture.height)
    draw.rectangle(frame, rgb(_NO_CLASS), _FAINT)
    page.paste(picture, (_MARGIN, top), picture)
    right = picture.width + 2 * _MARGIN
    page.paste(legend, (right, top))
    if bar:
        page.paste(bar, (right, top + max(legend.height + _MARGIN, picture.height - bar.height)))
    return page


def _enlarged(mapped: FinishedMap) -> tuple[Image, float]:
    """Return the map's picture, and how many pixels of the map one of it is wide."""
    from PIL import Image

    longest = max(mapped.shape)
    shape = mapped.shape
    if longest > LONGEST_SIDE:
        shape = tuple(max(1, round(side * LONGEST_SIDE / longest)) for side in mapped.shape)
    with opened_raster(mapped.path) as raster:
        ids = raster.read(1, out_shape=shape, resampling=Resampling.nearest)
    if mapped.nodata:
        ids[ids == mapped.nodata] = 0
    zoom = max(1, min(LARGEST_ZOOM, LONGEST_SIDE // 2 // max(shape)))
    picture = colored(ids, mapped.classes).repeat(zoom, 0).repeat(zoom, 1)
    return Image.fromarray(picture, "RGBA"), mapped.shape[1] / picture.shape[1]


def _heading(mapped: FinishedMap) -> str:
    scene = mapped.tags.get("SCENE")
    return one_line(f"Map of {scene}" if scene else mapped.path.stem)


def _notes(mapped: FinishedMap) -> list[str]:
    tags = mapped.tags
    made = ", ".join(tags[name] for name in ("MODEL", "SOFTWARE") if name in tags)
    acquired = [f"Acquired {tags['ACQUISITION_TIME']}"] if "ACQUISITION_TIME" in tags else []
    return [one_line(note) for note in (*acquired, f"Classified by {made}" if made else "") if note]


def _has_nodata(mapped: FinishedMap) -> bool:
    return sum(each.pixels for each in mapped.classes) < math.prod(mapped.shape)


def _legend(mapped: FinishedMap, size: int, more: Sequence[tuple[str, str, str]] = ()) -> Image:
    """Swatches, names and shares of the classes that are mapped, and more of them."""
    from PIL import Image, ImageDraw

    font = _font(size)
    total = sum(each.pixels for each in mapped.classes)
    lines = [
        *((each.color, one_line(each.name), f"{each.pixels / total:.1%}") for each in mapped.classes if each.pixels),
        *more,
    ]
    names = max((math.ceil(font.getlength(name)) for _, name, _ in lines), default=0)
    shares = max((math.ceil(font.getlength(share)) for *_, share in lines), default=0)
    image = Image.new("RGB", (_SWATCH + 12 + names + 24 + shares + 12, _LINE * max(1, len(lines)) + 8), _PAPER)
    draw = ImageDraw.Draw(image)
    for number, (color, name, share) in enumerate(lines):
        top = _LINE * number + 4
        draw.rectangle((4, top + 4, 4 + _SWATCH, top + 4 + _SWATCH), rgb(color), _FAINT)
        middle = top + 4 + _SWATCH / 2
        draw.text((_SWATCH + 16, middle), name, _TEXT, font, "lm")
        draw.text((image.width - 4, middle), share, _FAINT, font, "rm")
    return image


def _scale_bar(mapped: FinishedMap, scale: float) -> Image | None:
    """Return a bar of a round length; None where pixels have no length, or not one along rows."""
    from PIL import Image, ImageDraw

    metres = _pixel_width(mapped)
    if metres is None:
        return None
    metres *= scale
    length = _round_length(200 * metres)
    pixels, font = round(length / metres), _font(17)
    words = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    image = Image.new("RGB", (max(pixels, math.ceil(font.getlength(words))) + 8, 44), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.line((4, 22, 4, 38, 4 + pixels, 38, 4 + pixels, 22), _TEXT, 2)
    draw.text((4 + pixels / 2, 18), words, _TEXT, font, "ms")
    return image


def _pixel_width(mapped: FinishedMap) -> float | None:
    """Return how wide a pixel is on the ground, in m, in the middle of the map; None if it is not known."""
    if mapped.crs is None or mapped.row_areas is None:
        return None
    transform, (_, factor) = mapped.transform, mapped.crs.units_factor
    if not mapped.crs.is_geographic:
        return math.hypot(transform.a, transform.d) * factor
    latitude = transform.f + transform.e * mapped.shape[0] / 2
    return math.degrees(abs(transform.a) * factor) * _EARTH_DEGREE * math.cos(math.radians(latitude))


def _round_length(most: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most)


def _font(size: int) -> FreeTypeFont:
    """Return a font of the system that has more than English letters, or else Pillow's own."""
    from PIL import ImageFont

    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    font: Any = ImageFont.load_default(size)
    return font


def _png(image: Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def _in_degrees(mapped: FinishedMap) -> tuple[NDArray[Any], float, float, float, float]:
    """Return class ids in WGS 84, and west, south, east and north of them.

    Twice as fine as the map, if that is not too large, so that few pixels are lost on the other grid; and not very coarse, because
    Google Earth blurs a small picture.
    """
    with opened_raster(mapped.path) as raster:
        # A file without nodata value has 0 for it.
        options: dict[str, Any] = {"crs": "EPSG:4326", "resampling": Resampling.nearest, "nodata": 0}
        if mapped.nodata:
            options["src_nodata"] = mapped.nodata
        with WarpedVRT(raster, **options) as warped:
            height, width, transform = warped.height, warped.width, warped.transform
        longest = min(LONGEST_OVERLAY, max(SHORTEST_OVERLAY, 2 * max(mapped.shape)))
        rows, columns = (max(1, round(side * longest / max(height, width))) for side in (height, width))
        grid = transform @ Affine.scale(width / columns, height / rows)
        with WarpedVRT(raster, transform=grid, height=rows, width=columns, **options) as warped:
            return warped.read(1), *warped.bounds


def _kml(mapped: FinishedMap, west: float, south: float, east: float, north: float) -> str:
    """The text of doc.kml (OGC KML 2.3)."""
    root = Element("kml", xmlns="http://www.opengis.net/kml/2.2")
    document = SubElement(root, "Document")
    SubElement(document, "name").text = _heading(mapped)
    SubElement(document, "description").text = "\n".join(_notes(mapped))
    ground = SubElement(document, "GroundOverlay")
    SubElement(ground, "name").text = "Classes"
    SubElement(SubElement(ground, "Icon"), "href").text = "map.png"
    box = SubElement(ground, "LatLonBox")
    for name, degrees in (("north", north), ("south", south), ("east", east), ("west", west)):
        SubElement(box, name).text = f"{degrees:.9f}"
    screen = SubElement(document, "ScreenOverlay")
    SubElement(screen, "name").text = "Legend"
    SubElement(SubElement(screen, "Icon"), "href").text = "legend.png"
    for name, x, y in (("overlayXY", "0", "1"), ("screenXY", "0.01", "0.99"), ("size", "0", "0")):
        SubElement(screen, name, x=x, y=y, xunits="fraction", yunits="fraction")
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"
