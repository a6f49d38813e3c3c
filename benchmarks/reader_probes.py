"""What a public reader makes of a file, as JSON: run by benchmarks/readers.py in the Python that has the reader.

    python benchmarks/reader_probes.py spectral|rioxarray|gdal FILE WORD

WORD is in the name of the array that is meant, where a file holds several.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")


def of_spectral(path: str, word: str) -> dict[str, Any]:
    """Spectral Python, by what it opens all files with."""
    import numpy as np
    import spectral

    image = spectral.open_image(path)
    rows, columns, bands = image.shape
    return {
        "version": spectral.__version__,
        "shape": [bands, rows, columns],
        "values": np.moveaxis(np.asarray(image.load()), 2, 0),
        "wavelength": image.bands.centers,
        "told_place": image.metadata.get("map info"),
    }


def of_rioxarray(path: str, word: str) -> dict[str, Any]:
    """Rioxarray, with masks and scales, as it offers them."""
    import rasterio
    import rioxarray
    import xarray

    found = rioxarray.open_rasterio(path, mask_and_scale=True)
    found = found if isinstance(found, list) else [found]
    arrays = {}
    for each in found:
        arrays |= {each.name or "": each} if isinstance(each, xarray.DataArray) else dict(each.data_vars)
    array = next(array for name, array in arrays.items() if word in str(name) or len(arrays) == 1)
    # Of ENVI files an attribute of the same name holds the first band's alone.
    told = array.coords["wavelength"].values if "wavelength" in array.coords else array.attrs.get("wavelength")
    transform, crs = array.rio.transform(), array.rio.crs
    return {
        "version": f"{rioxarray.__version__}, rasterio {rasterio.__version__}",
        "shape": list(array.shape),
        "values": array.values,
        "wavelength": numbers(told),
        "transform": None if transform.is_identity else list(transform)[:6],
        "epsg": crs.to_epsg() if crs else None,
    }


def of_gdal(path: str, word: str) -> dict[str, Any]:
    """GDAL's own drivers: the file, or of its subdatasets the one that is meant."""
    from osgeo import gdal, osr

    gdal.UseExceptions()
    dataset = gdal.Open(path)
    if dataset.GetSubDatasets() and not dataset.RasterCount:
        dataset = gdal.Open(next(name for name, _ in dataset.GetSubDatasets() if word in name))
    bands = [dataset.GetRasterBand(number + 1) for number in range(dataset.RasterCount)]
    tags = [band.GetMetadataItem("wavelength") or "" for band in bands]
    tags = tags if all(tags) else (dataset.GetMetadataItem("wavelength", "ENVI") or "").strip("{}").split(",")
    values = dataset.ReadAsArray()
    epsg = None
    if dataset.GetProjection():
        reference = osr.SpatialReference(wkt=dataset.GetProjection())
        reference.AutoIdentifyEPSG()
        epsg = reference.GetAuthorityCode(None)
    left, width, row_x, top, column_y, height = dataset.GetGeoTransform()
    place = [width, row_x, left, column_y, height, top]
    return {
        "version": gdal.__version__,
        "shape": list(values.shape),
        "values": values,
        "scale": [band.GetScale() for band in bands],
        "offset": [band.GetOffset() for band in bands],
        "wavelength": numbers(tags),
        "transform": None if place == [1, 0, 0, 0, 1, 0] else place,
        "epsg": None if epsg is None else int(epsg),
    }


def numbers(values: Any) -> list[float] | None:
    """Return them as floats, None if they are none."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return None


def main() -> None:
    """Print what is found, or why nothing is."""
    reader, path, word = sys.argv[1:]
    try:
        found = globals()[f"of_{reader}"](path, word)
        found["values"] = found["values"].astype(float).tolist()
    except Exception as error:  # of a foreign reader, whatever it raises
        found = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
