"""Small files of the names that the documentation's pages use."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

import spectralmamba as sm
from shown_code import ROOT
from spectralmamba.scenes.writing import write_labels, write_large_scene, write_scene


def write_example_files(folder: Path) -> None:
    """Write the scenes and labels that most pages speak of."""
    import geopandas
    from rasterio.features import shapes
    from shapely.geometry import shape

    scene, labels = sm.simulate_scene(rows=48, columns=48, bands=20, classes=3)
    for name in ("scene.tif", "another.tif", "large.tif"):
        write_scene(scene, folder / name)
    write_labels(labels, folder / "labels.tif")
    ids = labels.values.astype(np.int32)
    fields = list(shapes(ids, mask=ids > 0, transform=labels.rio.transform()))
    crops = [labels.attrs["class_names"][int(id_)] for _, id_ in fields]
    outlines = [shape(outline) for outline, _ in fields]
    geopandas.GeoDataFrame({"crop": crops}, geometry=outlines, crs=labels.rio.crs).to_file(folder / "fields.gpkg")


def quick_classifier() -> sm.Classifier:
    scene, labels = sm.open_scene("scene.tif"), sm.open_labels("labels.tif", sm.open_scene("scene.tif"))
    settings = sm.Settings(patch=1, steps=2, self_training_rounds=0)
    return sm.fit(scene, labels, sm.split_random(labels, per_class=10), settings, device="cpu")


def prepare_arrays() -> None:
    import scipy.io

    cube = np.random.default_rng(0).random((6, 12, 10)).astype(np.float32)
    np.save("bands_first.npy", cube)
    scipy.io.savemat("cube.mat", {"reflectance": np.moveaxis(cube, 0, -1), "other": np.zeros((3, 4, 5))})


def prepare_products() -> None:
    import geopandas
    from shapely.geometry import box

    sys.path.insert(0, str(ROOT / "tests" / "products"))
    try:
        from make_aviris import make_aviris_envi
        from make_desis import make_desis
        from make_emit import make_emit
        from make_enmap import CRS, TRANSFORM, make_enmap
        from make_prisma import make_prisma
    finally:
        sys.path.pop(0)

    make_enmap(Path("enmap"), shape=(24, 24))
    make_prisma(Path("prisma"))
    make_desis(Path("desis"))
    make_emit(Path("emit"))
    make_aviris_envi(Path("aviris"))
    corners = [TRANSFORM * (column, row) for row in (2, 10, 18) for column in (4, 14)]
    fields = [box(x, y - 150, x + 150, y) for x, y in corners]
    crops = ["maize", "fallow", "fallow", "maize", "maize", "fallow"]
    geopandas.GeoDataFrame({"crop": crops}, geometry=fields, crs=CRS).to_file("fields.gpkg")


def prepare_lan() -> None:
    """GDAL writes the file, so that the page's reader is not measured by itself."""
    values = sm.simulate_scene(rows=14, columns=12, bands=5, classes=2)[0].fillna(0).values * 10_000
    with rasterio.open(
        "scene.lan",
        "w",
        driver="LAN",
        width=12,
        height=14,
        count=5,
        dtype="int16",
        transform=rasterio.Affine(10, 0, 4000, 0, -10, 9000),
    ) as file:
        file.write(values.astype(np.int16))


def prepare_scenes_that_lack_something() -> None:
    scene = sm.open_scene("scene.tif")
    unknown = scene.assign_coords(wavelength=("band", np.full(scene.sizes["band"], np.nan)))
    write_large_scene(unknown, "without_wavelengths.tif")
    write_large_scene(scene.drop_vars("spatial_ref").rio.write_transform(scene.rio.transform()), "without_crs.tif")


def prepare_classifier() -> None:
    quick_classifier().save("model.safetensors")


def prepare_map() -> None:
    Path("fields.gpkg").unlink()
    sm.map_scene(quick_classifier(), sm.open_scene("scene.tif"), "map.tif")


def prepare_other_sensors() -> None:
    Path("enmap_run").mkdir()
    quick_classifier().save("enmap_run/model.safetensors")
    values = np.random.default_rng(0).random((12, 4, 5)).astype(np.float32)
    values.tofile("other_scene.img")
    wavelengths = ", ".join(map(str, np.linspace(420, 2400, 12)))
    Path("other_scene.hdr").write_text(
        "ENVI\nsamples = 5\nlines = 4\nbands = 12\ndata type = 4\ninterleave = bsq\nbyte order = 0\nheader offset = 0\n"
        f"wavelength units = Nanometers\nwavelength = {{{wavelengths}}}\nfwhm = {{{', '.join(['180'] * 12)}}}\n"
    )


def prepare_two_maps() -> dict[str, Any]:
    import geopandas
    from shapely.geometry import Point

    prepare_map()
    mapped = quick_classifier().predict(sm.open_scene("scene.tif"))
    labels = sm.open_labels("labels.tif", sm.open_scene("scene.tif"))
    split = sm.split_random(labels, per_class=10)
    shifted = mapped.copy(data=np.roll(mapped.values, 5, 0))
    rows, columns = _sample(mapped.values)
    points = [Point(mapped.x.values[column], mapped.y.values[row]) for row, column in zip(rows, columns, strict=True)]
    crops = [labels.attrs["class_names"][int(id_)] for id_ in mapped.values[rows, columns]]
    geopandas.GeoDataFrame({"crop": crops}, geometry=points, crs=labels.rio.crs).to_file("reference.gpkg")
    other = sm.mcnemar(mapped, shifted, labels, where=split.test)
    return {
        "first_map": mapped,
        "second_map": shifted,
        "labels": labels,
        "split": split,
        "other": other,
        "third": other,
    }


def _sample(mapped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows and columns of ten pixels of each mapped class."""
    rng = np.random.default_rng(0)
    drawn = [rng.choice(np.argwhere(mapped == id_), 10) for id_ in np.unique(mapped[mapped > 0])]
    rows, columns = np.concatenate(drawn).T
    return rows, columns


def prepare_plans() -> None:
    shutil.copytree(ROOT / "experiments", "experiments")


PREPARATIONS: dict[str, Callable[[], dict[str, Any] | None]] = {
    "add_reader.md": prepare_lan,
    "for_a_gis.md": prepare_classifier,
    "faq.md": prepare_scenes_that_lack_something,
    "gis.md": prepare_map,
    "own_scene.md": prepare_arrays,
    "paper_tables.md": prepare_plans,
    "products.md": prepare_products,
    "sensors.md": prepare_other_sensors,
    "statistics.md": prepare_two_maps,
}
"""What a page needs besides, by its name; some give names to its Python, too."""
