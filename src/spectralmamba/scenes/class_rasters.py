"""Class rasters in every format we read: ids, and the names, colours and georeference that the file gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from spectralmamba.errors import LabelError, MissingPackageError, SceneError
from spectralmamba.scenes.envi import EnviHeader, find_header, read_envi, read_header
from spectralmamba.scenes.mat import is_hdf5
from spectralmamba.scenes.palette import hex_color, rgb
from spectralmamba.scenes.raster_files import opened_raster

HIGHEST_ID = 65535  # what a map of 16 bits can hold
_MATLAB_NUMBERS = {"double", "single", "logical", "sparse"} | {f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)}
_MEANS_UNLABELLED = {"", "0", "unclassified", "unlabelled", "unlabeled", "background", "nodata", "no data", "none"}


@dataclass(frozen=True)
class ClassRaster:
    """What a file of class ids says.

    Attributes:
        ids: (H, W) int32, 0 unlabelled.
        names: Class names the file gives, not always for all ids.
        colors: Class colours ("#rrggbb") the file gives, not always for all ids.
        crs: Reference system, None if the file has none.
        transform: From pixel to map coordinates, None if the file has none.
        notes: What the user should know, sentences.
    """

    ids: np.ndarray
    names: dict[int, str] = field(default_factory=dict)
    colors: dict[int, str] = field(default_factory=dict)
    crs: CRS | None = None
    transform: Affine | None = None
    notes: list[str] = field(default_factory=list)

    def present(self) -> dict[int, str]:
        """Name of each class that has a pixel, by ascending id."""
        return {int(id_): self.names.get(id_) or f"class {id_}" for id_ in np.unique(self.ids) if id_ > 0}


def read_class_raster(path: Path, variable: str | None = None) -> ClassRaster:
    """Read a class raster: .mat, .npy, ENVI classification, GeoTIFF, PNG or whatever else GDAL opens.

    Args:
        path: The file; for ENVI the data file or its header.
        variable: The variable of a .mat file; needed if it holds several two-dimensional ones.

    Raises:
        LabelError: The file cannot be read, has several bands, or holds values that are no class ids.
        MissingPackageError: It is a MATLAB 7.3 file and h5py is not installed.
    """
    if not path.is_file():
        raise LabelError("there is no such label file", file=path, remedy="Check the path.")
    suffix = path.suffix.lower()
    if variable is not None and suffix != ".mat":
        raise LabelError("a variable can be chosen in .mat files only", file=path, found=f"--label-variable {variable}")
    if suffix == ".mat":
        return ClassRaster(_class_ids(_single_band(_read_mat(path, variable), path), path))
    if suffix == ".npy":
        return ClassRaster(_class_ids(_single_band(_read_npy(path), path), path))
    header = _envi_header(path)
    return _read_gdal(path) if header is None else _read_envi(path, header)


def _single_band(values: np.ndarray, file: Path) -> np.ndarray:
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2:
        raise LabelError(
            "labels are one band of class ids",
            file=file,
            found=f"an array of shape {values.shape}",
            expected="(rows, columns)",
            remedy="Give the class raster, not a picture of it (RGB) or the scene itself.",
        )
    return values


def _class_ids(values: np.ndarray, file: Path, nodata: float | None = None) -> np.ndarray:
    """Check that all values are class ids; nodata and NaN become 0."""
    if values.dtype.kind not in "biuf":
        raise LabelError("class ids are whole numbers", file=file, found=f"values of type {values.dtype}")
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    unlabelled = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if nodata is not None:
        unlabelled |= values == nodata
    labelled = values[~unlabelled]
    for problem, wrong in (
        ("class ids are whole numbers", labelled != np.round(labelled)),
        ("a class id is negative", labelled < 0),
        (f"a class id is larger than {HIGHEST_ID}", labelled > HIGHEST_ID),
    ):
        if wrong.any():
            raise LabelError(
                problem,
                file=file,
                found=f"{labelled[wrong][0]} and {int(wrong.sum()) - 1} more such pixels",
                expected=f"1 to {HIGHEST_ID}, and 0 or the file's nodata value ({nodata}) where there is no label",
                remedy="Is this the class raster? If so, give its unlabelled pixels the value 0.",
            )
    return np.where(unlabelled, 0, values).astype(np.int32)


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise LabelError("not a NumPy array of numbers", file=path, found=str(error)) from error


def _read_mat(path: Path, variable: str | None) -> np.ndarray:
    if is_hdf5(path):
        return _read_mat_hdf5(path, variable)
    import scipy.io
    import scipy.sparse

    try:
        shapes = {name: shape for name, shape, type_ in scipy.io.whosmat(path) if type_ in _MATLAB_NUMBERS}
        chosen = _choose_variable(shapes, variable, path)
        values = scipy.io.loadmat(path, variable_names=[chosen])[chosen]
    except LabelError:
        raise
    except Exception as error:  # scipy raises a different kind for every way in which a file can be damaged
        raise LabelError(
            "not a MATLAB file, or a damaged one", file=path, found=f"{type(error).__name__}: {error}"
        ) from error
    return values.toarray() if scipy.sparse.issparse(values) else values


def _read_mat_hdf5(path: Path, variable: str | None) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError(
            "MATLAB 7.3 files need the package h5py",
            file=path,
            remedy='Install it: pip install "spectralmamba[hdf5]"; or save the file in MATLAB with -v7.',
        ) from error
    try:
        with h5py.File(path, "r") as file:
            arrays: dict[str, Any] = {
                name: item
                for name, item in file.items()
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf"
            }
            # MATLAB writes columns first, so that HDF5 shows every axis in reverse.
            shapes = {name: item.shape[::-1] for name, item in arrays.items()}
            return arrays[_choose_variable(shapes, variable, path)][()].T
    except OSError as error:
        raise LabelError("not a MATLAB 7.3 file, or a damaged one", file=path, found=str(error)) from error


def _choose_variable(shapes: Mapping[str, tuple[int, ...]], variable: str | None, file: Path) -> str:
    listed = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes.items()) or "no numeric variable"
    if variable is not None:
        if variable not in shapes:
            raise LabelError(
                f"there is no numeric variable {variable!r}",
                file=file,
                found=listed,
                remedy="Choose one of them with --label-variable.",
            )
        return variable
    planes = [name for name, shape in shapes.items() if len(shape) == 2 and min(shape) > 1]
    if len(planes) != 1:
        raise LabelError(
            "cannot tell which variable holds the labels",
            file=file,
            found=listed,
            expected="one two-dimensional variable",
            remedy="Name it with --label-variable.",
        )
    return planes[0]


def _read_gdal(path: Path) -> ClassRaster:
    try:
        with opened_raster(path) as dataset:
            if dataset.count == 0 and dataset.subdatasets:
                raise LabelError(
                    "the file holds several rasters",
                    file=path,
                    found=", ".join(dataset.subdatasets),
                    remedy="Save the one that holds the labels as GeoTIFF.",
                )
            return _from_dataset(dataset, path)
    except RasterioError as error:
        raise LabelError(
            "no format that can be read as labels",
            file=path,
            found=str(error),
            expected="GeoTIFF, ENVI, .mat, .npy or .png of class ids, or GeoPackage, GeoJSON or Shapefile",
        ) from error


def _from_dataset(dataset: DatasetReader, path: Path) -> ClassRaster:
    if dataset.count != 1:
        raise LabelError(
            "labels are one band of class ids",
            file=path,
            found=f"{dataset.count} bands ({', '.join(color.name for color in dataset.colorinterp[:4])} …)",
            expected="1 band",
            remedy="Give the class raster, not a picture of it (RGB) or the scene itself.",
        )
    ids = _class_ids(dataset.read(1), path, dataset.nodata)
    names, colors = names_and_colors(dataset, path)
    located = dataset.transform != Affine.identity()
    return ClassRaster(
        ids, names, colors, dataset.crs or None, dataset.transform if located else None, _note_on_class_0(names)
    )


def names_and_colors(dataset: DatasetReader, path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Class names and colours ("#rrggbb") that an open raster gives, by its tags, colour table and the `.aux.xml` beside it.

    Raises:
        LabelError: A tag is damaged.
    """
    names, colors = _names_in_sidecar(path.with_name(path.name + ".aux.xml"))
    colors = _colors_in_table(dataset) | colors
    tags = dataset.tags() | dataset.tags(1)
    names |= _read_tag(tags, "CLASS_NAMES", path)
    colors |= _read_tag(tags, "CLASS_COLORS", path)
    for color in colors.values():
        _check_color(color, path)
    return names, colors


def _note_on_class_0(names: Mapping[int, str]) -> list[str]:
    if names.get(0, "").strip(" ()").lower() in _MEANS_UNLABELLED:
        return []
    return [f'The file names class 0 "{names[0]}", but id 0 means unlabelled here: its pixels are not used.']


def _check_color(color: str, file: Path) -> None:
    try:
        rgb(color)
    except ValueError as error:
        raise LabelError(
            "the tag CLASS_COLORS is damaged", file=file, found=repr(color), expected='"#rrggbb"'
        ) from error


def _read_tag(tags: Mapping[str, str], tag: str, file: Path) -> dict[int, str]:
    """A tag as this package writes it: a JSON object from class id to text."""
    try:
        return {int(id_): str(text) for id_, text in json.loads(tags.get(tag, "{}")).items()}
    except (ValueError, AttributeError) as error:
        raise LabelError(
            f"the tag {tag} is damaged", file=file, found=tags[tag][:80], expected='JSON such as {"1": "corn"}'
        ) from error


def _colors_in_table(dataset: DatasetReader) -> dict[int, str]:
    try:
        table = dataset.colormap(1)
    except ValueError:
        return {}
    # GDAL fills a table up with black; black is therefore no colour that somebody chose.
    return {id_: hex_color(*color[:3]) for id_, color in table.items() if any(color[:3])}


def _names_in_sidecar(sidecar: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Names and colours from GDAL's persistent auxiliary metadata (PAM): attribute table before category names."""
    try:
        root = ElementTree.parse(sidecar).getroot()
    except (OSError, ElementTree.ParseError):
        return {}, {}
    band = root.find("PAMRasterBand[@band='1']")
    if band is None:
        return {}, {}
    categories = [(item.text or "").strip() for item in band.iterfind("CategoryNames/Category")]
    names = {id_: name for id_, name in enumerate(categories) if name}
    table = band.find("GDALRasterAttributeTable")
    named, colored = ({}, {}) if table is None else _read_attribute_table(table)
    return names | named, colored


def _read_attribute_table(table: ElementTree.Element) -> tuple[dict[int, str], dict[int, str]]:
    usage = [item.findtext("Usage", "0").strip() for item in table.iterfind("FieldDefn")]
    titles = [item.findtext("Name", "").strip().lower() for item in table.iterfind("FieldDefn")]

    def column(codes: tuple[str, ...], title_words: tuple[str, ...]) -> int | None:
        """GDALRATFieldUsage first, the column's title second."""
        by_usage = [i for i, code in enumerate(usage) if code in codes]
        by_title = [i for i, title in enumerate(titles) if title in title_words]
        return next(iter(by_usage + by_title), None)

    value = column(("5", "3"), ("value", "id", "class id"))
    name = column(("2",), ("class name", "class_name", "classname", "name", "class", "label"))
    channels = [column((code,), (title,)) for code, title in (("6", "red"), ("7", "green"), ("8", "blue"))]
    names, colors = {}, {}
    for row in table.iterfind("Row"):
        cells = [cell.text or "" for cell in row.iterfind("F")]
        try:
            id_ = int(float(cells[value])) if value is not None else int(row.get("index", ""))
            if name is not None and cells[name].strip():
                names[id_] = cells[name].strip()
            if None not in channels:
                colors[id_] = hex_color(*(int(float(cells[i])) for i in channels if i is not None))
        except (ValueError, IndexError):
            continue  # a row that says nothing about a class
    return names, colors


def _envi_header(path: Path) -> Path | None:
    """The ENVI header that `path` is, or that lies beside it."""
    if path.suffix.lower() in (".tif", ".tiff", ".png"):
        return None
    header = path if path.suffix.lower() == ".hdr" else find_header(path)
    if header is None or not header.read_bytes()[:4] == b"ENVI":
        return None
    return header


def _read_envi(path: Path, header_path: Path) -> ClassRaster:
    """Values and georeference as of a scene, and `class names` and `class lookup` (ENVI header files)."""
    try:
        raw, header = read_envi(path), read_header(header_path)
        bands, rows, columns = raw.source.shape
        values = raw.source.read(np.arange(bands), slice(0, rows), slice(0, columns))
    except SceneError as error:
        raise LabelError(str(error).removesuffix(".")) from error
    ids = _class_ids(_single_band(values, path), path, raw.calibration.nodata)
    names = {id_: name for id_, name in enumerate(header.texts("class names") or []) if name}
    return ClassRaster(ids, names, _class_lookup(header), raw.crs, raw.transform, _note_on_class_0(names))


def _class_lookup(header: EnviHeader) -> dict[int, str]:
    try:
        components = [int(float(text)) for text in header.texts("class lookup") or []]
    except ValueError as error:
        raise LabelError(
            "the colours of the ENVI header cannot be understood",
            file=header.path,
            found=str(error),
            expected="numbers",
        ) from error
    triples = [components[i : i + 3] for i in range(0, len(components) - 2, 3)]
    return {id_: hex_color(*triple) for id_, triple in enumerate(triples) if all(0 <= part <= 255 for part in triple)}
