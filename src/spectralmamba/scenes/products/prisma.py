"""PRISMA L2D: two cubes in an HDF-EOS5 file, on a map grid."""

from __future__ import annotations

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from spectralmamba.scenes.products.bands import SWIR, VNIR, BandTable, joined
from spectralmamba.scenes.products.cube import check_cube, check_grid, product_scene
from spectralmamba.scenes.products.files import ProductFiles
from spectralmamba.scenes.products.hdf5 import Hdf5Cube, Hdf5File, opened_hdf5
from spectralmamba.scenes.products.masks import Choices, PixelMask, bands_flagged, strips
from spectralmamba.scenes.scene import Place, RawScene

SWATH = "HDFEOS/SWATHS/PRS_L2D_HCO"
DETECTORS = ("Vnir", "Swir")

AXES = (1, 0, 2)
"""Which axis of a cube holds the bands, the rows and the columns."""

FILL, LARGEST = 0, 65535
"""Raw values: nothing measured, and the end of the scale."""

INVALID, NEGATIVE, SATURATED = 1, 2, 4
"""Bits of the error matrices. Negative values are values, and not masked."""

CORNERS_ARE_CENTRES = True
"""The corner coordinates are those of the corner pixels' centres: so say Latitude and Longitude of products."""

_PLAINLY, _ABOUT = 0.25, 0.1
"""Pixels between Latitude and Longitude and what the corners say: the other convention is right; this one is."""

_CORNERS = ("UL", "UR", "LL", "LR")
_SAMPLE_ROWS = 5


def read_prisma(files: ProductFiles, main: str, choices: Choices) -> RawScene:
    """Open a PRISMA L2D product.

    Bands with flag 0 or wavelength 0 were not measured and are left out; the others are put in ascending order. In the overlap of
    the detectors each is used to half-way.

    Args:
        files: Its folder or zip.
        main: The .he5 file.
        choices: What is masked.

    Raises:
        SceneError: The file is damaged, of another level, or lacks a part.
        MissingPackageError: h5py is not installed.
    """
    path = files.path(main)
    with opened_hdf5(path) as product:
        _check_level(product)
        cubes = tuple(product.cube(f"{SWATH}/Data Fields/{name.upper()}_Cube", AXES) for name in DETECTORS)
        tables = [_bands(product, name, cube) for name, cube in zip(DETECTORS, cubes, strict=True)]
        check_grid(path, cubes[1].name, cubes[1].shape[1:], cubes[0].shape[1:])
        bands = joined(tables)
        detector = np.where(bands.cube == 0, VNIR, SWIR)
        bands = bands.without_overlap(detector).arranged(path, choices.water_bands)
        place, notes = _place(product, cubes[0].shape[1:])
        mask = _mask(product, cubes, bands, choices)
        attributes = {
            "sensor": "PRISMA",
            "product_level": "L2D",
            "product": main.rpartition(".")[0],
            "notes": notes,
        }
        if time := product.attribute_text("Product_StartTime"):
            attributes["acquisition_time"] = time
    return product_scene(files, main, cubes, bands, mask, place, FILL, attributes)


def _check_level(product: Hdf5File) -> None:
    swaths = product.file.get("HDFEOS/SWATHS")
    level = product.attribute_text("Processing_Level")
    others = [] if swaths is None else sorted(name for name in swaths if name.startswith("PRS_"))
    if SWATH not in product and (others or (level and level != "2D")):
        raise product.error(
            "this is another product level",
            f"{', '.join(others[:4]) or 'no swath'}, level {level or 'unknown'}",
            "L2D, surface reflectance on a map grid (PRS_L2D_HCO)",
            "Download the L2D product of the scene.",
        )


def _bands(product: Hdf5File, name: str, cube: Hdf5Cube) -> BandTable:
    """Return the bands of a detector that were measured, in the order of the file."""
    count = cube.shape[0]
    check_cube(product.path, cube.name, cube, "u", count, "16-bit unsigned integers")
    centres = product.attribute_numbers(f"List_Cw_{name}", count)
    widths = product.attribute_numbers(f"List_Fwhm_{name}", count)
    flags = product.attribute_numbers(f"List_Cw_{name}_Flags", count)
    lowest, highest = (product.attribute_number(f"L2Scale{name}{end}") for end in ("Min", "Max"))
    if not highest > lowest:
        raise product.error("impossible scale", f"{lowest:g} to {highest:g}", "a maximum above the minimum")
    measured = np.flatnonzero((flags != 0) & (centres != 0))
    factor = np.full(len(measured), (highest - lowest) / LARGEST)
    return BandTable(
        centres[measured],
        widths[measured],
        factor,
        np.full(len(measured), lowest),
        np.zeros(len(measured), int),
        measured,
    )


def _mask(product: Hdf5File, cubes: tuple[Hdf5Cube, ...], bands: BandTable, choices: Choices) -> PixelMask:
    """Mask saturated pixels and defective ones; what lies off the swath is `FILL` in all bands."""
    shape = cubes[0].shape[1:]
    mask = PixelMask(shape, choices)
    good = bands.good
    places = [bands.index[good & (bands.cube == number)] for number in range(len(cubes))]
    errors = []
    for name, cube in zip(DETECTORS, cubes, strict=True) if choices.masks("saturated", "defective") else ():
        field = f"{SWATH}/Data Fields/{name.upper()}_PIXEL_L2_ERR_MATRIX"
        errors.append(product.cube(field, AXES))
        check_cube(product.path, field, errors[-1], "u", cube.shape[0], "8-bit unsigned integers")
        check_grid(product.path, field, errors[-1].shape[1:], shape)
    if not errors:
        return mask
    saturated = np.zeros(shape, bool)
    block = max(error.block_shape[0] for error in errors)
    for rows in strips(shape, int(good.sum()), block):
        saturated[rows] = _flags(errors, places, rows, SATURATED).any(axis=0)
    mask.add("saturated", saturated)
    mask.add_defective(lambda rows: bands_flagged(_flags(errors, places, rows, INVALID)), int(good.sum()), block)
    return mask


def _flags(errors: list[Hdf5Cube], places: list[np.ndarray], rows: slice, bit: int) -> np.ndarray:
    """Return where rows of the chosen bands of the error matrices have a bit, `(L, h, W)`."""
    columns = slice(0, errors[0].shape[2])
    parts = [
        error.read(bands, rows, columns) & bit != 0 for error, bands in zip(errors, places, strict=True) if bands.size
    ]
    return np.concatenate(parts) if parts else np.zeros((0, rows.stop - rows.start, columns.stop), bool)


def _place(product: Hdf5File, shape: tuple[int, int]) -> tuple[Place, list[str]]:
    """Return where the product lies, and notes if its coordinates contradict each other."""
    code = int(product.attribute_number("Epsg_Code"))
    try:
        crs = CRS.from_epsg(code)
    except CRSError as error:
        raise product.error("the coordinate system is unknown", f"Epsg_Code {code}", "an EPSG code") from error
    corners = {
        corner: np.array(
            [product.attribute_number(f"Product_{corner}corner_{axis}") for axis in ("easting", "northing")]
        )
        for corner in _CORNERS
    }
    transforms = {centres: _transform(product, corners, shape, centres) for centres in (True, False)}
    chosen, notes = CORNERS_ARE_CENTRES, []
    beside = _beside(product, shape, crs, transforms)
    if beside is not None and beside[chosen] > _PLAINLY:
        if beside[not chosen] < _ABOUT:
            chosen = not chosen
            notes = ["corner coordinates taken as those of outer edges, because Latitude and Longitude say so"]
        else:
            notes = [f"Latitude and Longitude lie {beside[chosen]:.1f} pixels beside the corner coordinates"]
    return Place(crs, transforms[chosen]), notes


def _transform(product: Hdf5File, corners: dict[str, np.ndarray], shape: tuple[int, int], centres: bool) -> Affine:
    """Return the transform through three corners, which the fourth has to fit."""
    height, width = (size - centres for size in shape)
    if min(height, width) < 1:
        raise product.error("too small for its corners to tell the pixel size", f"{shape[0]} × {shape[1]}", "2 × 2")
    along, down = (corners["UR"] - corners["UL"]) / width, (corners["LL"] - corners["UL"]) / height
    area = abs(along[0] * down[1] - along[1] * down[0])
    missed = np.abs(corners["UR"] + corners["LL"] - corners["UL"] - corners["LR"]).max()
    if not area > 0 or missed > np.sqrt(area):
        raise product.error(
            "the corners are not those of a grid", {k: v.tolist() for k, v in corners.items()}, "a parallelogram"
        )
    first = corners["UL"] - (along + down) / 2 if centres else corners["UL"]
    return Affine(along[0], down[0], first[0], along[1], down[1], first[1])


def _beside(
    product: Hdf5File, shape: tuple[int, int], crs: CRS, transforms: dict[bool, Affine]
) -> dict[bool, float] | None:
    """Return by how many pixels Latitude and Longitude lie beside each transform's pixel centres, None if they are not there."""
    from pyproj import Transformer

    names = [f"{SWATH}/Geolocation Fields/{name}" for name in ("Longitude", "Latitude")]
    if not all(name in product for name in names):
        return None
    datasets = [product.dataset(name, 2) for name in names]
    for name, dataset in zip(names, datasets, strict=True):
        check_grid(product.path, name, dataset.shape, shape)
    rows = np.unique(np.linspace(0, shape[0] - 1, _SAMPLE_ROWS).astype(int))
    longitude, latitude = (
        np.concatenate([dataset[row : row + 1] for row in rows.tolist()]).astype(np.float64) for dataset in datasets
    )
    known = np.isfinite(longitude) & np.isfinite(latitude) & ((longitude != 0) | (latitude != 0))
    known &= (np.abs(latitude) <= 90) & (np.abs(longitude) <= 180)
    if not known.any():
        return None
    to_map = Transformer.from_crs(4326, crs.to_wkt(), always_xy=True)
    x, y = to_map.transform(longitude[known], latitude[known])
    places = np.argwhere(known)
    beside = {}
    for centres, transform in transforms.items():
        columns, lines = _pixels(transform, np.asarray(x), np.asarray(y))
        squares = (columns - places[:, 1] - 0.5) ** 2 + (lines - rows[places[:, 0]] - 0.5) ** 2
        beside[centres] = float(np.sqrt(np.median(squares)))
    return beside


def _pixels(transform: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inverse = ~transform
    return inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
