"""What public readers make of the products, beside this one: do they open, with wavelengths, masks, reflectance and place?

    python benchmarks/readers.py [--spectral PYTHON] [--gdal PYTHON] [--write-docs]

The products are the small synthetic ones of tests/products, one of each sensor, with a pixel that the product calls cloud
or saturated where it can. Each reader opens the file that a user would name, by its usual call, in the Python that has it:
rioxarray and rasterio's GDAL in this one, GDAL's bindings in `--gdal`, Spectral Python in `--spectral`; without it a reader is left
out. EnMAP-Box runs in QGIS only: what it does is read from its source, and not run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio

from performance_page import ROOT, provenance
from results_page import table
from spectralmamba import __version__, open_scene
from spectralmamba.files import with_section, write_text

sys.path.insert(0, str(ROOT / "tests" / "products"))

from all_products import KNOWN
from make_desis import make_desis
from make_emit import make_emit, make_mask
from make_enmap import make_enmap
from make_prisma import make_prisma

PAGE = ROOT / "docs" / "formats.md"
PROBES = Path(__file__).with_name("reader_probes.py")
MASKED = 3, 4  # row and column of the pixel that is cloud or saturated
COLUMNS = ("product", "reader", "opens", "wavelengths", "masks", "reflectance", "place")


class Given(NamedTuple):
    """A product, and what readers are given of it.

    Attributes:
        key: Its name among the products of the tests.
        file: The file that is named, as a pattern.
        header: That for Spectral Python, which opens headers.
        word: What is in the name of the array that is meant.
    """

    key: str
    file: str
    header: str
    word: str = ""


PRODUCTS = {
    "EnMAP L2A, GeoTIFF": Given("enmap", "*-SPECTRAL_IMAGE.TIF", "*-SPECTRAL_IMAGE.TIF"),
    "PRISMA L2D": Given("prisma", "*.he5", "*.he5", "VNIR_Cube"),
    "EMIT L2A": Given("emit", "EMIT_L2A_RFL*.nc", "EMIT_L2A_RFL*.nc", "reflectance"),
    "DESIS L2A": Given("desis", "*-SPECTRAL_IMAGE.tif", "*-SPECTRAL_IMAGE.hdr"),
    "AVIRIS-NG, ENVI": Given("aviris-ng", "*_img", "*.hdr"),
    "AVIRIS-3, netCDF-4": Given("aviris-3", "*.nc", "*.nc", "reflectance"),
    "AVIRIS-5, netCDF-4": Given("aviris-5", "*.nc", "*.nc", "reflectance"),
}

ENMAP_BOX = "EnMAP-Box 3.17.8 (source, commit f9e8f486)"
OF_ENMAP_BOX = {
    "EnMAP L2A, GeoTIFF": ("yes", "yes", "no", "scale and offset", "yes"),
    "PRISMA L2D": ("yes", "yes", "as a layer", "raw / 65535, without L2Scale", "30 m, north up"),
    "EMIT L2A": ("yes, warped whole", "yes", "no", "yes", "corners, not geotransform"),
    "DESIS L2A": ("yes", "yes", "no", "scale and offset", "yes"),
}
"""By enmapboxprocessing/algorithm/import{enmapl2a,prismal2d,emitl2a,desisl2a}algorithm.py; AVIRIS has no import there."""


class Truth(NamedTuple):
    """What a maker wrote.

    Attributes:
        wavelength: nm, ascending `(L,)`.
        reflectance: `(L, H, W)`, NaN where nothing was measured.
    """

    wavelength: np.ndarray
    reflectance: np.ndarray


def make(key: str, folder: Path) -> Truth:
    """Write a product with a masked pixel, where it has masks."""
    spot = np.zeros((8, 10), np.uint8)
    spot[MASKED] = 1
    if key == "enmap":
        enmap = make_enmap(folder, layers={"CLOUD": spot})
        return Truth(enmap.wavelength, np.where(enmap.dn == -32768, np.nan, enmap.dn * 1e-4))
    if key == "prisma":
        prisma = make_prisma(folder, errors={("Vnir", 30, *MASKED): 4})
        return Truth(prisma.wavelength, prisma.reflectance)
    if key == "emit":
        emit = make_emit(folder)
        make_mask(folder, {"Cloud flag": MASKED})
        return Truth(emit.wavelength, emit.reflectance)
    if key == "desis":
        desis = make_desis(folder, flags={"cloud land": MASKED})
        return Truth(desis.wavelength, desis.reflectance)
    _, cube, wavelength = KNOWN[key].make(folder)
    return Truth(wavelength, np.where(cube == -9999, np.nan, cube))


def ours(folder: Path) -> dict[str, Any]:
    """Return what this package makes of a product, as `ask` has it."""
    scene = open_scene(folder)
    ortho = scene.attrs.get("ortho")
    crs = rasterio.CRS.from_wkt(ortho["crs"]) if ortho else scene.rio.crs
    return {
        "version": __version__,
        "shape": list(scene.shape),
        "values": scene.values,
        "wavelength": scene["wavelength"].values,
        "transform": ortho["transform"] if ortho else list(scene.rio.transform())[:6],
        "epsg": crs.to_epsg(),
    }


def ask(python: str, reader: str, path: Path, word: str) -> dict[str, Any]:
    """Return what a reader makes of a file."""
    words = [python, str(PROBES), reader, str(path), word]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def judged(found: dict[str, Any], truth: Truth, key: str) -> list[str]:
    """Return the cells on a reader's answer, by what the maker wrote; what an answer does not let judge stays empty."""
    if "error" in found:
        return ["no", "", "", "", ""]
    place = "yes" if _placed(found, key) else "as text" if found.get("told_place") else "no"
    told = np.sort(np.asarray(found.get("wavelength") if found.get("wavelength") is not None else [], float))
    same_bands = told.shape == truth.wavelength.shape and np.allclose(told, truth.wavelength, atol=0.01)
    wavelengths = "yes" if same_bands else "no"
    if found["shape"] != list(truth.reflectance.shape):
        lengths = " × ".join(map(str, found["shape"]))
        return [f"as {lengths} bands, rows, columns", wavelengths, "", "", place]
    values = np.asarray(found["values"], float)
    where = np.isfinite(truth.reflectance)
    if not key.startswith("aviris"):
        where[:, *MASKED] = False
    told_scale = None not in found.get("scale", [None])
    if told_scale:
        scale, offset = (np.array(found[name], float)[:, None, None] for name in ("scale", "offset"))
        values = values * scale + offset
    right = np.allclose(values[where], truth.reflectance[where], rtol=1e-5, atol=1e-6)
    masked = "yes" if np.isnan(values[:, *MASKED]).all() else "no"
    return ["yes", wavelengths, "none" if key.startswith("aviris") else masked, "yes" if right else "raw values", place]


def _placed(found: dict[str, Any], key: str) -> bool:
    """Tell whether the four corners lie within a hundredth of a pixel, in the right coordinate system."""
    if not found.get("transform"):
        return False
    wanted = np.array(KNOWN[key].transform[:6])
    return found["epsg"] == KNOWN[key].epsg and bool(np.allclose(found["transform"], wanted, rtol=1e-9, atol=0.01))


def rows_of(title: str, given: Given, pythons: dict[str, str]) -> tuple[list[list[str]], dict[str, str]]:
    """Return a row a reader on a product, and the readers' versions."""
    rows, versions = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = make(given.key, folder)
        rows.append([title, "spectralmamba", *judged(ours(folder), truth, given.key)])
        for reader, python in pythons.items():
            path = next(folder.glob(given.header if reader == "spectral" else given.file))
            found = ask(python, reader, path, given.word)
            versions |= {reader: found["version"]} if "version" in found else {}
            rows.append([title, reader, *judged(found, truth, given.key)])
    box = OF_ENMAP_BOX.get(title, ("no import of its own", "", "", "", ""))
    return [*rows, [title, "EnMAP-Box", *box]], versions


def main() -> None:
    """Ask all readers, print, and write docs/formats.md if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectral", help="a Python with Spectral Python (pip install spectral)")
    parser.add_argument("--gdal", default="/usr/bin/python3", help="a Python with GDAL's bindings; empty for none")
    parser.add_argument("--write-docs", action="store_true", help="write the section of docs/formats.md")
    arguments = parser.parse_args()
    pythons = {"spectral": arguments.spectral, "rioxarray": sys.executable, "gdal": arguments.gdal}
    pythons = {reader: python for reader, python in pythons.items() if python}
    rows, versions = [], {}
    for title, given in PRODUCTS.items():
        more, seen = rows_of(title, given, pythons)
        rows += more
        versions |= seen
    where = provenance("cpu")
    said = "; ".join(f"{reader} {version}" for reader, version in versions.items())
    print(json.dumps(where | versions), table(list(COLUMNS), rows), sep="\n\n")
    if arguments.write_docs:
        parts = (
            "## Other readers",
            f"Written by `python benchmarks/readers.py --write-docs` on {where['date']}, commit {where['commit']}: what readers "
            "make of small synthetic products, all judged by what the maker wrote, one usual call each; "
            f"spectralmamba {__version__}; {said}. "
            f"EnMAP-Box is judged by its source and was not run: {ENMAP_BOX.partition(' ')[2]}. Wavelengths: "
            "is one told a band, where the reader has its place for them? Masks: is a pixel that the product calls cloud or "
            "saturated left out; AVIRIS has none. Reflectance: values from 0 to 1, or scale and offset told. Place: corners within "
            "a hundredth of a pixel; of EMIT those of the map grid. Empty: not judged. Products as delivered have netCDF "
            "dimensions and attributes that the synthetic ones lack, so of EMIT and AVIRIS in netCDF-4 a reader may tell more.",
            table(list(COLUMNS), rows),
        )
        write_text(PAGE, with_section(PAGE.read_text(encoding="utf-8"), "other readers", parts))


if __name__ == "__main__":
    main()
