"""Which product a path is: a folder of one, a file of one, or a zip of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from spectralmamba.errors import SceneError
from spectralmamba.scenes.mat import is_hdf5
from spectralmamba.scenes.products.files import FolderFiles, ProductFiles
from spectralmamba.scenes.products.masks import Choices
from spectralmamba.scenes.products.zips import is_zip, zip_folders
from spectralmamba.scenes.scene import RawScene

_RASTERS = r"-(?:SPECTRAL_IMAGE|METADATA|QL_|HISTORY|THUMBNAIL)"


@dataclass(frozen=True)
class Kind:
    """A kind of product.

    Attributes:
        title: Its name.
        name: How the names of its files are: `key` is what those of one product have in common, `level` its level if that is told.
        loose: How they are at least, where the user has said what it is.
        main: How the name of the file is that stands for it.
        level: The level that is read.
        by_key: Whether the reader takes the key, rather than the name of the main file.
    """

    title: str
    name: re.Pattern[str]
    loose: re.Pattern[str]
    main: re.Pattern[str]
    level: str
    by_key: bool


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


KINDS = {
    "enmap": Kind(
        "EnMAP L2A",
        _pattern(rf"(?P<key>ENMAP\d\d-_*(?P<level>L\d[A-C]?)-.+?){_RASTERS}"),
        _pattern(rf"(?P<key>.+?){_RASTERS}"),
        _pattern(r".+-SPECTRAL_IMAGE.*(?<!hdr)(?<!xml)$"),
        "L2A",
        True,
    ),
    "prisma": Kind(
        "PRISMA L2D",
        _pattern(r"(?P<key>PRS_(?P<level>L\d[A-D]?)_.+)\.he5$"),
        _pattern(r"(?P<key>.+)\.(?:he5|h5|hdf5?)$"),
        _pattern(r".+\.(?:he5|h5|hdf5?)$"),
        "L2D",
        False,
    ),
    "emit": Kind(
        "EMIT L2A reflectance",
        _pattern(r"EMIT_(?P<level>L\d[A-C]?)_[A-Z]+_\d+_(?P<key>\d{8}T\d{6}.*)\.nc$"),
        _pattern(r"(?P<key>.+)\.(?:nc|h5)$"),
        _pattern(r"(?:EMIT_L2A_RFL_.*|(?!EMIT_).*)\.(?:nc|h5)$"),
        "L2A",
        False,
    ),
    "desis": Kind(
        "DESIS L2A",
        _pattern(rf"(?P<key>DESIS-HSI-(?P<level>L\d[A-C]?)-.+?){_RASTERS}"),
        _pattern(rf"(?P<key>.+?){_RASTERS}"),
        _pattern(r".+-SPECTRAL_IMAGE\.(?:tiff?|geotiff)$"),
        "L2A",
        True,
    ),
    "aviris": Kind(
        "AVIRIS reflectance",
        _pattern(
            r"(?P<key>(?:ang|av3|av5)\d{8}t\d{6}.*?(?:_rfl|_corr|_rdn|_rad).*?)(?:\.(?:hdr|nc|img|dat|bil|bip|bsq))?$"
        ),
        _pattern(r"(?P<key>.+?)(?:\.(?:hdr|nc|h5|img|dat|bil|bip|bsq))?$"),
        _pattern(r".*(?:\.hdr|\.nc|\.h5)$"),
        "L2A",
        False,
    ),
}
"""The kinds of products, by the names of `format=` and `--format`."""

_OTHERS = _pattern(r".*(?:_unc|_qa|_ql|_obs|_loc|_glt|_igm|_h2o|_mask|_atm|_state)(?:[_.].*)?$")
"""AVIRIS files of other things than reflectance."""


@dataclass(frozen=True)
class Product:
    """A product that was found.

    Attributes:
        format: Its kind.
        key: What the names of its files have in common.
        level: The level that the name tells, if any.
        files: Its folder or zip.
        names: The names of its files.
    """

    format: str
    key: str
    level: str | None
    files: ProductFiles
    names: tuple[str, ...]

    @property
    def identity(self) -> tuple[str, str, str]:
        """Kind, key and level, which a product has in a folder and in a zip alike."""
        return self.format, self.key.lower(), (self.level or "").upper()

    def read(self, choices: Choices) -> RawScene:
        """Open it.

        Raises:
            SceneError: It has another level, lacks a file, or is damaged.
            MissingPackageError: A package is needed that is not installed.
        """
        kind = KINDS[self.format]
        if self.level is not None and self.level.upper() != kind.level:
            raise SceneError(
                "this is another product level",
                file=self.files.place / self.names[0],
                found=self.level.upper(),
                expected=f"{kind.level} ({kind.title})",
                remedy=f"Download the {kind.level} product of the scene.",
            )
        module = import_module(f"spectralmamba.scenes.products.{self.format}")
        read: Callable[[ProductFiles, str, Choices], RawScene] = getattr(module, f"read_{self.format}")
        return read(self.files, self.key if kind.by_key else self._main(), choices)

    def _main(self) -> str:
        """Return the name of the file that stands for the product."""
        kind = KINDS[self.format]
        mains = [name for name in self.names if kind.main.match(name)]
        if not mains:
            raise SceneError(
                "a file of the product is missing",
                file=self.files.place,
                found=", ".join(self.names),
                expected=f"the main file of {kind.title}",
                remedy="Put all files of the product into one folder, or download it again.",
            )
        return mains[0]


def find_product(path: Path, wanted: str | None = None) -> Product | None:
    """Return the product that a path is, None if it is none.

    Args:
        path: A folder, a file or a zip that exists.
        wanted: The kind that the user says it is.

    Raises:
        SceneError: Of several products none is named, a zip is not read or holds none, or it is not of the kind that is wanted.
    """
    if path.is_dir():
        return _only(path, [FolderFiles.of(path)], wanted)
    if is_zip(path) and path.suffix.lower() not in (".npz", ".docx", ".xlsx"):
        return _in_zip(path, wanted)
    for format_, kind in _kinds(wanted).items():
        if key := _key(kind, path.name, wanted is not None):
            return _named(FolderFiles.of(path.parent, path.name), format_, kind, key, path.name, wanted is not None)
    return _by_content(path) if wanted is None else _refuse(path, wanted)


def stands_for_product(name: str) -> bool | None:
    """Tell by its name whether a file stands for a product, or only belongs to one (False); None if it is of no product."""
    for kind in KINDS.values():
        if _key(kind, name, False):
            return kind.main.match(name) is not None and not _OTHERS.match(name)
    return None


def find_in_zip(path: Path) -> Product | None:
    """Return the product that a zip holds, None if it holds none.

    Raises:
        SceneError: It is damaged, not safe, needs a password, or holds several.
    """
    return _only(path, zip_folders(path), None)


def _kinds(wanted: str | None) -> dict[str, Kind]:
    return KINDS if wanted is None else {wanted: KINDS[wanted]}


def _key(kind: Kind, name: str, loose: bool) -> str | None:
    found = kind.name.match(name) or (kind.loose.match(name) if loose else None)
    return found["key"] if found else None


def _level(kind: Kind, name: str) -> str | None:
    found = kind.name.match(name)
    return found["level"] if found and "level" in kind.name.groupindex else None


def _named(files: ProductFiles, format_: str, kind: Kind, key: str, name: str, loose: bool) -> Product:
    """Return the product of a file that the user named; the file itself comes first."""
    level = _level(kind, name)
    if format_ == "emit" and level != kind.level:  # its radiance has the key of the reflectance
        return Product(format_, key, level, files, (name,))
    others = [
        each
        for each in files.names
        if each != name and (_key(kind, each, loose) or "").lower() == key.lower() and _level(kind, each) == level
    ]
    return Product(format_, key, level, files, (name, *others))


def _only(path: Path, folders: Sequence[ProductFiles], wanted: str | None) -> Product | None:
    """Return the only product of these folders, None if there is none."""
    found: dict[tuple[int, str, str], Product] = {}
    for number, files in enumerate(folders):
        for format_, kind in _kinds(wanted).items():
            for name in files.names:
                key = _key(kind, name, wanted is not None)
                if not key or (format_ == "aviris" and _OTHERS.match(name)):
                    continue
                level = _level(kind, name)
                place = number, format_, f"{key.lower()} {level}"
                earlier = found.get(place)
                names = (*(earlier.names if earlier else ()), name)
                found[place] = Product(format_, earlier.key if earlier else key, level, files, names)
    fitting = {
        place: product
        for place, product in found.items()
        if product.level is None or product.level.upper() == KINDS[product.format].level
    }
    whole = [p for p in fitting.values() if any(KINDS[p.format].main.match(name) for name in p.names)]
    products = whole or list(fitting.values()) or list(found.values())
    if len(products) > 1:
        raise SceneError(
            "holds several products",
            file=path,
            found=", ".join(product.key for product in products[:4]),
            expected="one product",
            remedy="Name a file of the one to open, or put each into a folder of its own.",
        )
    return products[0] if products else None


def _in_zip(path: Path, wanted: str | None) -> Product:
    folders = zip_folders(path)
    found = _only(path, folders, wanted)
    if found is not None:
        return found
    names = [name for folder in folders for name in folder.names]
    inside = [name for name in names if name.lower().endswith((".zip", ".tar", ".gz", ".tgz"))]
    if inside:
        raise SceneError(
            "the zip holds another archive",
            file=path,
            found=", ".join(inside[:4]),
            expected="the files of a product",
            remedy="Unpack it, and open the archive inside.",
        )
    raise SceneError(
        "the zip holds no product",
        file=path,
        found=", ".join(names[:4]) or "nothing",
        expected=", ".join(kind.title for kind in _kinds(wanted).values()),
        remedy="Unpack it, and open the scene's file.",
    )


def _by_content(path: Path) -> Product | None:
    """Tell products in HDF5 by what is inside, whatever their names."""
    if path.suffix.lower() == ".mat" or not is_hdf5(path):
        return None
    with path.open("rb") as file:
        if file.read(6) == b"MATLAB":
            return None
    from spectralmamba.scenes.products.hdf5 import opened_hdf5

    with opened_hdf5(path) as product:
        if "HDFEOS/SWATHS" in product:
            format_ = "prisma"
        elif "sensor_band_parameters" in product:
            format_ = "emit"
        elif "reflectance/reflectance" in product or "radiance/radiance" in product:
            format_ = "aviris"
        else:
            raise product.error(
                "this HDF5 file is of no known product",
                ", ".join(list(product.file)[:8]) or "nothing",
                "PRISMA L2D, EMIT L2A, AVIRIS reflectance, or a MATLAB file that ends with .mat",
                "Name what it is with --format, or convert it to GeoTIFF.",
            )
    return Product(format_, path.stem, None, FolderFiles.of(path.parent, path.name), (path.name,))


def _refuse(path: Path, wanted: str) -> Product:
    raise SceneError(
        f"this is not {KINDS[wanted].title}",
        file=path,
        found=path.name,
        expected=f"a name of {KINDS[wanted].title}",
        remedy="Leave out --format, or name another file.",
    )
