"""Rasters of products, GeoTIFF or ENVI, in a folder or a zip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from affine import Affine

from spectralmamba.errors import SceneError
from spectralmamba.scenes.envi import read_envi
from spectralmamba.scenes.geotiff import TIFF_STARTS, GeoTiffSource, check_parts, check_positions
from spectralmamba.scenes.products.cube import check_grid
from spectralmamba.scenes.products.files import ProductFiles
from spectralmamba.scenes.scene import Place
from spectralmamba.scenes.sources import RawSource

TIFF_SUFFIXES = (".tif", ".tiff", ".geotiff")
ENVI_SUFFIXES = (".bsq", ".bil", ".bip")
RASTER_SUFFIXES = TIFF_SUFFIXES + ENVI_SUFFIXES
JPEG2000_SUFFIXES = (".jp2", ".jpeg2000", ".j2k")


@dataclass(frozen=True)
class Raster:
    """A raster of a product.

    Attributes:
        path: Its file.
        source: Its raw values.
        place: Where it lies.
    """

    path: Path
    source: RawSource
    place: Place


def open_raster_file(files: ProductFiles, name: str) -> Raster:
    """Open a raster by the reader for the end of its name.

    Raises:
        SceneError: It is damaged, or its header is missing.
    """
    if Path(name).suffix.lower() in ENVI_SUFFIXES:
        files.path(files.find(name, ("",), (".hdr",)) or files.need(Path(name).stem, ("",), (".hdr",)))
        raw = read_envi(files.path(name))
        return Raster(files.path(name), raw.source, Place(raw.crs, raw.transform))
    source = _tiff_in_zip(files, name)
    if source is None:
        path = files.path(name)
        _check_is_tiff(path, path)
        check_positions(path)
        source = GeoTiffSource(path)
    dataset = source.dataset()
    transform = None if dataset.transform == Affine.identity() else dataset.transform
    return Raster(source.path, source, Place(dataset.crs, transform))


def open_layer(
    files: ProductFiles,
    stem: str,
    names: tuple[str, ...],
    suffixes: tuple[str, ...],
    shape: tuple[int, int],
    remedy: str | None,
) -> Raster:
    """Open a raster of a product that lies on the grid of its image.

    Args:
        files: The product's.
        stem: The beginning of its files' names.
        names: What may follow it, one of these.
        suffixes: How its name may end.
        shape: Rows and columns of the image.
        remedy: What to do if the layer is missing.

    Raises:
        SceneError: It is missing, damaged, or of another size than the image.
    """
    name = files.need(stem, names, suffixes, remedy)
    layer = open_raster_file(files, name)
    check_grid(layer.path, name, layer.source.shape[1:], shape)
    return layer


def check_placed(raster: Raster) -> None:
    """Refuse an image without coordinates, which these products always have: its header has been cut off.

    Raises:
        SceneError: It has no transform or no coordinate system.
    """
    if raster.place.transform is None or raster.place.crs is None:
        raise SceneError(
            "the image has no georeference",
            file=raster.path,
            found="no map info" if raster.place.transform is None else "no coordinate system",
            expected="an image on a map grid",
            remedy="Its header is damaged or cut off; download the product again.",
        )


def _tiff_in_zip(files: ProductFiles, name: str) -> GeoTiffSource | None:
    """Open a GeoTIFF that a zip stores as it is, without unpacking it; None if it has to be unpacked."""
    section = files.section(name)
    if section is None:
        return None
    member = f"/vsisubfile/{section.start}_{section.size},{section.path.absolute()}"
    with section.path.open("rb") as file:
        part = _Part(file, section.start, section.size)
        if part.read(4) not in TIFF_STARTS:
            raise _not_tiff(section.path / name)
        part.seek(0)
        check_parts(section.path / name, part, section.size)  # type: ignore[arg-type]
    return GeoTiffSource(Path(member))


@dataclass
class _Part:
    """A part of an open file as a file of its own."""

    file: IO[bytes]
    start: int
    size: int
    position: int = 0

    def seek(self, position: int) -> None:
        self.position = position

    def read(self, count: int) -> bytes:
        self.file.seek(self.start + self.position)
        read = self.file.read(max(0, min(count, self.size - self.position)))
        self.position += len(read)
        return read


def _check_is_tiff(path: Path, named: Path) -> None:
    with path.open("rb") as file:
        if file.read(4) not in TIFF_STARTS:
            raise _not_tiff(named)


def _not_tiff(path: Path) -> SceneError:
    return SceneError(
        "this is no GeoTIFF",
        file=path,
        found="other first bytes",
        expected="a TIFF or BigTIFF file",
        remedy="The file is damaged or incomplete; download the product again.",
    )


def read_layer(raster: Raster, band: int = 0, rows: slice | None = None) -> np.ndarray:
    """Return rows `(h, W)` of one band of a raster, all if None."""
    _, height, width = raster.source.shape
    return raster.source.read(np.array([band]), rows or slice(0, height), slice(0, width))[0]
