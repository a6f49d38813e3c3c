"""The page that maps scenes in a browser, against what Python says of the same files."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.transform import Affine
from scipy.io import loadmat

from spectralmamba import Classifier, Settings, fit, map_scene, open_labels, open_scene, simulate_scene, split_random
from spectralmamba.scenes.writing import write_scene

CHROMIUM = Path("/usr/bin/chromium")
WEB = Path(__file__).parents[1] / "web"
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"needs {CHROMIUM}")

SAME_LABELS, CONFIDENCE = 0.999, 1e-3  # float32 sums in another order
RARELY = 0.05  # where the nearest of two spectra that are equally near is another one
QUICK = Settings(steps=4, patch=3, batch_size=8, self_training_rounds=0)
LONG = 240_000  # ms that a map may take on a busy machine


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "spectralmamba.html"
    subprocess.run([sys.executable, str(WEB / "build.py"), "--out", str(file)], check=True)
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Page:
    """The page in a browser, and what it said and asked for besides."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def choose(self, scene: Path | list[Path] | None = None, model: Path | None = None) -> None:
        for what, files in (("scene", scene), ("model", model)):
            if files is not None:
                self.page.set_input_files(f"#{what}-file", files)
                playwright.expect(self.page.locator(f"#{what}-status")).to_contain_text(re.compile(r"\.(\s|$)"))

    def says(self, what: str, text: str) -> None:
        playwright.expect(self.page.locator(f"#{what}-status")).to_contain_text(text, timeout=30_000)

    def map(self) -> None:
        self.page.click("#map")
        playwright.expect(self.page.locator("#run-status")).to_contain_text("a second", timeout=LONG)

    def save(self, what: str, folder: Path) -> Path:
        with self.page.expect_download() as download:
            self.page.click(f"#save-{what}")
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def saved(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        """Class ids and confidences."""
        rasters = []
        for what in ("classes", "confidence"):
            with rasterio.open(self.save(what, folder)) as raster:
                rasters.append(raster.read(1))
        return rasters[0], rasters[1]


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Callable[..., Page]]:
    contexts, pages = [], []

    def open_page(**options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = Page(context.new_page())
        pages.append(page)
        page.page.on("console", lambda m: page.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "blob:"))
                else page.complaints.append(f"asks for {request.url}")
            ),
        )
        page.page.goto(page_file.as_uri())
        return page

    yield open_page
    for page in pages:
        assert page.complaints == []
    for context in contexts:
        context.close()


@pytest.fixture
def page(opened: Callable[..., Page]) -> Page:
    return opened()


def assert_like_python(page: Page, classifier: Classifier, scene: xr.DataArray, folder: Path) -> None:
    ids, confidence = page.saved(folder)
    probabilities = classifier.predict_proba(scene).values  # NaN where there is no data
    missing = np.isnan(probabilities[0])
    expected = np.where(missing, 0, classifier.classes[np.nan_to_num(probabilities).argmax(0)])
    probability = probabilities.max(0)
    np.testing.assert_array_equal(ids == 0, expected == 0)
    assert np.mean(ids == expected) >= SAME_LABELS
    np.testing.assert_array_equal(np.isnan(confidence), missing)
    apart = np.abs(confidence - probability)[~missing]
    assert np.mean(apart <= CONFIDENCE) >= SAME_LABELS
    assert apart.max() <= RARELY


def learned(
    scene: xr.DataArray, labels: xr.DataArray, folder: Path, settings: Settings = QUICK
) -> tuple[Classifier, Path]:
    split = split_random(labels, per_class=8, patch=settings.patch)
    classifier = fit(scene, labels, split, settings, device="cpu")
    classifier.save(folder / "model.safetensors")
    return classifier, folder / "model.safetensors"


@pytest.fixture(scope="module")
def simulated() -> tuple[xr.DataArray, xr.DataArray]:
    return simulate_scene(rows=28, columns=24, bands=20, classes=3)


@pytest.fixture(scope="module")
def trained(
    simulated: tuple[xr.DataArray, xr.DataArray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Classifier, Path]:
    return learned(*simulated, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def scene_file(simulated: tuple[xr.DataArray, xr.DataArray], tmp_path: Path) -> Path:
    return write_scene(simulated[0], tmp_path / "scene.tif")


# Labels and confidence


def simulated_files(_: Path, folder: Path) -> tuple[Path, xr.DataArray, xr.DataArray]:
    scene, labels = simulate_scene(rows=80, columns=100, bands=40, classes=4)
    file = write_scene(scene, folder / "simulated.tif")
    return file, open_scene(file), labels


def salinas_files(data: Path, folder: Path) -> tuple[Path, xr.DataArray, xr.DataArray]:
    np.save(folder / "salinas_a.npy", np.ascontiguousarray(loadmat(data / "salinas_a/salinasA.mat")["salinasA"]))
    scene = open_scene(folder / "salinas_a.npy")
    return folder / "salinas_a.npy", scene, open_labels(data / "salinas_a/salinasA_gt.mat", scene)


def potsdam_files(data: Path, _: Path) -> tuple[Path, xr.DataArray, xr.DataArray]:
    file = data / "enmap_potsdam/enmap_potsdam_west.tif"
    scene = open_scene(file)
    return file, scene, open_labels(data / "enmap_potsdam/landcover_west.tif", scene)


CORNER = {"y": slice(20, 60), "x": slice(20, 60)}  # is learned from, which is quick; the whole is mapped


@pytest.mark.parametrize("patch", [1, 7])
@pytest.mark.parametrize("files", [simulated_files, salinas_files, potsdam_files])
def test_says_of_a_scene_what_python_says(
    page: Page, files: Callable[..., Any], patch: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = None if files is simulated_files else request.getfixturevalue("shared_data")
    file, scene, labels = files(data, tmp_path)
    corner = scene.isel(CORNER), labels.isel(CORNER)
    classifier, model = learned(*corner, tmp_path, QUICK.replace(patch=patch))
    page.choose(file, model)
    page.map()
    assert_like_python(page, classifier, scene, tmp_path)
    begun = time.perf_counter()
    classifier.predict(scene)
    seconds = time.perf_counter() - begun
    pixels = scene.sizes["y"] * scene.sizes["x"]
    print(f"{file.name}, P = {patch}: {page.page.inner_text('#run-status')} Python: {pixels / seconds:.0f} a second.")


MODELS: dict[str, dict[str, Any]] = {
    "paper": {"preset": "paper", "companion": "none"},
    "pieces": {
        "model_options": {"orientation": "pieces", "piece": 3, "linear_path": "mean"},
        "normalisation": "standard",
    },
    "shared gate": {"model_options": {"gate": "shared", "blocks": 2, "states": 6, "width": 20}, "patch": 5},
    "mean": {"model_options": {"gate": "mean", "block": "mlp", "linear_path": "centre", "convolution": 2}},
    "centre": {
        "model_options": {"gate": "centre", "block": "none", "expansion": 1},
        "companion": "logistic regression",
    },
    "support vectors beside": {"companion": "support vectors", "patch": 1, "model_options": {"piece": 5}},
    "label_propagation": {"model": "label_propagation", "patch": 5},
    "support_vectors": {"model": "support_vectors"},
    "logistic_regression": {"model": "logistic_regression", "patch": 1},
}


@pytest.mark.parametrize("name", MODELS)
def test_computes_all_that_may_decide(
    page: Page, simulated: tuple[xr.DataArray, xr.DataArray], scene_file: Path, name: str, tmp_path: Path
) -> None:
    classifier, model = learned(*simulated, tmp_path, QUICK.replace(**MODELS[name]))
    page.choose(scene_file, model)
    page.map()
    assert_like_python(page, classifier, open_scene(scene_file), tmp_path)


def test_missing_pixels_in_the_middle_are_left_out(
    page: Page, simulated: tuple[xr.DataArray, xr.DataArray], trained: tuple[Classifier, Path], tmp_path: Path
) -> None:
    scene = simulated[0].copy(deep=True)
    scene[:, 10:13, 20] = np.nan
    scene[3, 20, 9] = np.nan
    file = write_scene(scene, tmp_path / "holes.tif", as_integer=False)
    page.choose(file, trained[1])
    page.map()
    assert_like_python(page, trained[0], open_scene(file), tmp_path)


# Files


def raw_values(scene: xr.DataArray, dtype: str) -> tuple[np.ndarray, float]:
    """Values of a type and their scale."""
    kind = np.dtype(dtype)
    scale = 1.0 if kind.kind == "f" else {1: 100.0, 2: 10_000.0, 4: 1e6}[kind.itemsize]
    values = np.nan_to_num(scene.values.astype(np.float64) * scale, nan=0 if kind.kind != "f" else -1)
    return (values if kind.kind == "f" else np.round(values)).astype(kind), 1 / scale


TIFFS: dict[str, dict[str, Any]] = {
    "uint8 strips, no compression": {"dtype": "uint8"},
    "uint8 chunky deflate": {"dtype": "uint8", "interleave": "pixel", "compress": "deflate", "predictor": 2},
    "int16 planar LZW": {"dtype": "int16", "interleave": "band", "compress": "lzw", "predictor": 1, "blockysize": 7},
    "int16 chunky tiles LZW": {
        "dtype": "int16",
        "interleave": "pixel",
        "compress": "lzw",
        "predictor": 2,
        "tiled": True,
    },
    "uint16 big-endian": {"dtype": "uint16", "ENDIANNESS": "BIG", "compress": "deflate", "predictor": 2, "tiled": True},
    "uint16 BigTIFF": {"dtype": "uint16", "BIGTIFF": "YES", "interleave": "band", "tiled": True},
    "uint16 big-endian BigTIFF strips": {"dtype": "uint16", "BIGTIFF": "YES", "ENDIANNESS": "BIG", "blockysize": 5},
    "int32 LZW": {"dtype": "int32", "compress": "lzw", "predictor": 2, "interleave": "band"},
    "uint32 deflate": {"dtype": "uint32", "compress": "deflate", "predictor": 1, "tiled": True},
    "float32 predictor 3": {"dtype": "float32", "compress": "deflate", "predictor": 3, "interleave": "pixel"},
    "float32 predictor 2": {"dtype": "float32", "compress": "lzw", "predictor": 2, "interleave": "band"},
    "float32 predictor 3 big-endian": {
        "dtype": "float32",
        "compress": "lzw",
        "predictor": 3,
        "ENDIANNESS": "BIG",
        "tiled": True,
    },
    "float64 predictor 3": {
        "dtype": "float64",
        "compress": "deflate",
        "predictor": 3,
        "interleave": "band",
        "tiled": True,
    },
    "float64": {"dtype": "float64", "interleave": "pixel"},
    "sparse": {"dtype": "int16", "tiled": True, "compress": "deflate", "SPARSE_OK": "TRUE"},
}


@pytest.mark.parametrize("name", TIFFS)
def test_reads_geotiffs(
    page: Page,
    simulated: tuple[xr.DataArray, xr.DataArray],
    trained: tuple[Classifier, Path],
    name: str,
    tmp_path: Path,
) -> None:
    scene, options = simulated[0], dict(TIFFS[name])
    if options.get("tiled"):
        options |= {"blockxsize": 16, "blockysize": 16}
    values, scale = raw_values(scene, options["dtype"])
    if name == "sparse":
        values[:, :16, 16:] = -1
    nodata = -1 if values.dtype.kind != "u" else 0
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", "GTiff", scene.sizes["x"], scene.sizes["y"], scene.sizes["band"], scene.rio.crs, scene.rio.transform(),
        nodata=nodata, **options,
    ) as raster:  # fmt: skip
        raster.write(values)
        raster.scales, raster.offsets = (scale,) * raster.count, (0.001,) * raster.count
        for band in raster.indexes:
            raster.update_tags(band, wavelength=str(float(scene.wavelength[band - 1])), wavelength_units="Nanometers")
    page.choose(path, trained[1])
    page.says("scene", "20 bands, 400 to 2500 nm")
    page.map()
    assert_like_python(page, trained[0], open_scene(path), tmp_path)


def write_envi(path: Path, values: np.ndarray, interleave: str, *lines: str) -> list[Path]:
    """Write header and data of values `(L, H, W)`."""
    types = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12}
    axes = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}[interleave]
    path.write_bytes(b"12345" + values.transpose(axes).tobytes())
    bands, rows, columns = values.shape
    header = [
        "ENVI", f"samples = {columns}", f"lines = {rows}", f"bands = {bands}", "header offset = 5",
        f"data type = {types[values.dtype.str[1:]]}", f"interleave = {interleave}",
        f"byte order = {int(values.dtype.str[0] == '>')}", *lines, "",
    ]  # fmt: skip
    path.with_suffix(".hdr").write_text("\n".join(header), encoding="utf-8")
    return [path.with_suffix(".hdr"), path]


@pytest.mark.parametrize(
    ("interleave", "dtype"),
    [("bsq", "u1"), ("bil", "<i2"), ("bip", ">i2"), ("bsq", ">i4"), ("bil", "<f4"), ("bip", ">f8"), ("bsq", "<u2")],
)
def test_reads_envi(
    page: Page,
    simulated: tuple[xr.DataArray, xr.DataArray],
    trained: tuple[Classifier, Path],
    interleave: str,
    dtype: str,
    tmp_path: Path,
) -> None:
    values, scale = raw_values(simulated[0], dtype)
    micrometres = ", ".join(str(value / 1000) for value in simulated[0].wavelength.values)
    nodata = "0" if values.dtype.kind != "f" else "-1"
    lines = [f"wavelength = {{{micrometres}}}", "wavelength units = Micrometers", f"data ignore value = {nodata}"]
    files = write_envi(
        tmp_path / "scene.img", values, interleave, *lines, f"reflectance scale factor = {1 / scale}", "; a remark"
    )
    page.choose(files, trained[1])
    page.says("scene", "20 bands, 400 to 2500 nm")
    page.map()
    assert_like_python(page, trained[0], open_scene(files[0]), tmp_path)


@pytest.mark.parametrize(("bands_first", "dtype"), [(True, "<f4"), (False, ">f8"), (False, "<f4")])
def test_reads_npy(
    page: Page,
    simulated: tuple[xr.DataArray, xr.DataArray],
    trained: tuple[Classifier, Path],
    bands_first: bool,
    dtype: str,
    tmp_path: Path,
) -> None:
    classifier, _ = trained
    no_wavelengths = simulated[0].assign_coords(wavelength=("band", np.full(20, np.nan)))
    values = no_wavelengths.values.astype(dtype)
    np.save(tmp_path / "scene.npy", values if bands_first else np.ascontiguousarray(values.transpose(1, 2, 0)))
    page.choose(tmp_path / "scene.npy", trained[1])
    playwright.expect(page.page.locator("#axis")).to_be_hidden()
    page.map()
    scene = open_scene(tmp_path / "scene.npy", band_axis=0 if bands_first else 2)
    assert_like_python(page, classifier, scene, tmp_path)


def test_asks_which_axis_holds_the_bands(
    page: Page, simulated: tuple[xr.DataArray, xr.DataArray], trained: tuple[Classifier, Path], tmp_path: Path
) -> None:
    square = np.ascontiguousarray(
        simulated[0].values[:, :10, :20].transpose(1, 2, 0).transpose(1, 0, 2)
    )  # (20, 10, 20)
    np.save(tmp_path / "scene.npy", square)
    page.choose(model=trained[1])
    page.page.set_input_files("#scene-file", tmp_path / "scene.npy")
    page.says("scene", "Which axis holds the bands?")
    playwright.expect(page.page.locator("#map")).to_be_disabled()
    page.page.get_by_label("last (20)").check()
    page.says("scene", "20 rows, 10 columns, 20 bands")
    page.map()
    assert_like_python(page, trained[0], open_scene(tmp_path / "scene.npy"), tmp_path)


# The saved map


def grid(path: Path) -> tuple[Any, ...]:
    with rasterio.open(path) as raster:
        return raster.crs, raster.transform, raster.shape, raster.dtypes, raster.nodata, raster.colormap(1)


PLACES = {
    "UTM": ("EPSG:32633", Affine(30, 0, 364095, 0, -30, 5809965)),
    "south, from the middle of a pixel": ("EPSG:32719", Affine(12.5, 0, 500000.25, 0, -12.5, 7200000.75)),
    "degrees": ("EPSG:4326", Affine(0.001, 0, 12.3456789, 0, -0.001, 52.1)),
    "equal area": ("EPSG:3035", Affine(20, 0, 4321000, 0, -20, 3210000)),
    "rotated": ("EPSG:32633", Affine.translation(364095, 5809965) * Affine.rotation(30) * Affine.scale(30, -30)),
    "nowhere": (None, Affine(2, 0, 5, 0, -2, 8)),
}


@pytest.mark.parametrize("driver", ["GTiff", "ENVI"])
@pytest.mark.parametrize("name", PLACES)
def test_the_saved_map_has_the_grid_of_pythons(
    page: Page,
    simulated: tuple[xr.DataArray, xr.DataArray],
    trained: tuple[Classifier, Path],
    name: str,
    driver: str,
    tmp_path: Path,
) -> None:
    crs, transform = PLACES[name]
    values = np.nan_to_num(simulated[0].values, nan=-1)
    path = tmp_path / ("scene.tif" if driver == "GTiff" else "scene")
    with rasterio.open(path, "w", driver, 24, 28, 20, crs, transform, dtype="float32", nodata=-1) as raster:
        raster.write(values)
    if driver == "ENVI":
        header = path.with_suffix(".hdr")
        names = ", ".join(map(str, simulated[0].wavelength.values))
        header.write_text(f"{header.read_text()}\nwavelength = {{{names}}}\nwavelength units = Nanometers\n")
    else:
        with rasterio.open(path, "r+") as raster:
            raster.update_tags(wavelength=",".join(map(str, simulated[0].wavelength.values)), wavelength_units="nm")
    page.choose([path] if driver == "GTiff" else [path.with_suffix(".hdr"), path], trained[1])
    page.map()
    scene = open_scene(path)
    expected = map_scene(trained[0], scene, tmp_path / "python.tif").classes
    saved = page.save("classes", tmp_path)
    found, wanted = grid(saved), grid(expected)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-12)  # a rotation comes by its sine and cosine
    if name != "rotated":
        assert found[1] == wanted[1]
    if name in ("equal area", "nowhere") and driver == "ENVI":
        assert found[0] is None  # a text without an EPSG number, and ENVI's "Arbitrary", which GDAL makes a system of
        if name == "equal area":
            page.says("scene", "coordinates without it")
    else:
        assert found[0] == wanted[0]
    assert found[2:] == wanted[2:]
    with rasterio.open(saved) as ours, rasterio.open(expected) as theirs:
        for tag in ("CLASS_NAMES", "CLASS_COLORS"):
            assert json.loads(ours.tags()[tag]) == json.loads(theirs.tags()[tag])


def test_saves_a_picture_and_ids_above_255(
    page: Page, simulated: tuple[xr.DataArray, xr.DataArray], scene_file: Path, tmp_path: Path
) -> None:
    scene, labels = simulated
    renamed = labels.where(labels != 3, 300)
    renamed.attrs = labels.attrs | {
        which: {(300 if id_ == 3 else id_): text for id_, text in labels.attrs[which].items()}
        for which in ("class_names", "class_colors")
    }
    classifier, model = learned(scene, renamed, tmp_path)
    page.choose(scene_file, model)
    page.map()
    assert_like_python(page, classifier, open_scene(scene_file), tmp_path)
    assert grid(page.save("classes", tmp_path)) == grid(
        map_scene(classifier, open_scene(scene_file), tmp_path / "map.tif").classes
    )
    picture = page.save("picture", tmp_path)
    with rasterio.open(picture) as raster:
        assert (raster.driver, raster.shape) == ("PNG", (28, 24))
        shown = raster.read()
    ids = page.saved(tmp_path)[0]
    color = classifier.class_colors[300]
    assert all((shown[place][ids == 300] == int(color[1 + 2 * place : 3 + 2 * place], 16)).all() for place in range(3))


# What people do


def test_names_are_shown_as_they_are(
    page: Page, simulated: tuple[xr.DataArray, xr.DataArray], scene_file: Path, tmp_path: Path
) -> None:
    scene, labels = simulated
    name = '<img src=x onerror=alert(1)> & "co"'
    labels = labels.copy()
    labels.attrs = labels.attrs | {"class_names": labels.attrs["class_names"] | {1: name}}
    _, model = learned(scene, labels, tmp_path)
    page.choose(scene_file, model)
    page.map()
    assert page.page.locator("#legend th").first.inner_text() == name
    assert page.page.locator("#legend img").count() == 0
    with rasterio.open(page.save("classes", tmp_path)) as raster:
        assert json.loads(raster.tags()["CLASS_NAMES"])["1"] == name


def test_keys_and_pointer_tell_class_and_confidence(
    page: Page, scene_file: Path, trained: tuple[Classifier, Path], tmp_path: Path
) -> None:
    page.choose(scene_file, trained[1])
    page.page.locator("#map").focus()
    page.page.keyboard.press("Enter")
    playwright.expect(page.page.locator("#run-status")).to_contain_text("a second", timeout=LONG)
    ids, confidence = page.saved(tmp_path)
    stack = page.page.locator("#stack")
    stack.press("ArrowDown")
    stack.press("Shift+ArrowRight")

    def expected(row: int, column: int) -> str:
        id_ = int(ids[row, column])
        what = f"{trained[0].class_names[id_]}, confidence {confidence[row, column]:.2f}" if id_ else "no data"
        return f"Row {row + 1}, column {column + 1}: {what}"

    assert page.page.inner_text("#seen") == expected(15, 22)
    box = stack.bounding_box()
    stack.hover(position={"x": box["width"] * 5.5 / 24, "y": box["height"] * 20.5 / 28})
    assert page.page.inner_text("#seen") == expected(20, 5)
    counts = [int(text.replace(",", "")) for text in page.page.locator("#legend tr td:nth-child(3)").all_inner_texts()]
    assert counts[:3] == [int((ids == id_).sum()) for id_ in trained[0].classes]
    page.page.locator("#opacity").fill("30")
    assert page.page.locator("#above").get_attribute("style") == "opacity: 0.3;"


def test_files_can_be_dropped(opened: Callable[..., Page], scene_file: Path, trained: tuple[Classifier, Path]) -> None:
    page = opened(bypass_csp=True)  # the test makes the files by a script of its own
    files = [(path.name, list(path.read_bytes())) for path in (scene_file, trained[1])]
    page.page.evaluate(
        """files => {
            const dataTransfer = new DataTransfer();
            for (const [name, bytes] of files) dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
            document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
        }""",
        files,
    )
    page.says("scene", "28 rows, 24 columns")
    page.says("model", "3 classes, 20 bands")
    playwright.expect(page.page.locator("#map")).to_be_enabled()


def test_header_and_data_may_come_one_after_the_other(
    page: Page, simulated: tuple[xr.DataArray, xr.DataArray], tmp_path: Path
) -> None:
    header, data = write_envi(tmp_path / "scene.img", simulated[0].values, "bsq")
    page.choose(data)
    page.says("scene", "Choose the .hdr file, too")
    page.choose(header)
    page.says("scene", "28 rows, 24 columns, 20 bands")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_narrow_and_wide_screens(
    opened: Callable[..., Page], scene_file: Path, trained: tuple[Classifier, Path], width: int, scheme: str
) -> None:
    page = opened(color_scheme=scheme)
    page.page.set_viewport_size({"width": width, "height": 844})
    page.choose(scene_file, trained[1])
    page.map()
    for name in ("#stack", "#legend", "#save-picture", "#map"):
        box = page.page.locator(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


# What goes wrong


def test_a_scene_of_many_gigabytes_is_read_by_slices_and_can_be_cancelled(
    page: Page, trained: tuple[Classifier, Path], tmp_path: Path
) -> None:
    data, rows, columns = tmp_path / "large.bsq", 600_000, 100
    with data.open("wb") as file:
        file.truncate(20 * rows * columns * 4)  # 4.8 GB that take no room
    header = [
        "ENVI",
        f"samples = {columns}",
        f"lines = {rows}",
        "bands = 20",
        "data type = 4",
        "interleave = bsq",
        "byte order = 0",
    ]
    (tmp_path / "large.hdr").write_text("\n".join(header))
    _, model = trained
    card_free = tmp_path / "model.safetensors"
    rewrite_card(model, card_free, lambda card: card["bands"].update(wavelength=[None] * 20))
    page.choose([tmp_path / "large.hdr", data], card_free)
    page.says("scene", "600,000 rows, 100 columns")
    page.page.click("#map")
    playwright.expect(page.page.locator("#run-status")).to_contain_text("of 60,000,000 pixels", timeout=LONG)
    page.page.click("#cancel")
    page.says("run", "Cancelled.")
    playwright.expect(page.page.locator("#map")).to_be_enabled()


def rewrite_card(model: Path, to: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    content = model.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    card = json.loads(header["__metadata__"]["card"])
    change(card)
    header["__metadata__"]["card"] = json.dumps(card)
    text = json.dumps(header).encode()
    to.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return to


CARDS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "network": (lambda card: card["model"].update(name="hybridsn"), "cannot compute the network 'hybridsn'"),
    "companion": (
        lambda card: card["model"]["companion"].update(kind="oracle"),
        "cannot compute the companion 'oracle'",
    ),
    "option": (lambda card: card["model"].update(options={"heads": 4}), "cannot compute the option heads = 4"),
    "gate": (lambda card: card["model"].update(options={"gate": "lock"}), "cannot compute the option gate = lock"),
    "preset": (lambda card: card["model"].update(preset="huge"), "cannot compute the preset 'huge'"),
    "shape": (lambda card: card["model"].update(options={"width": 64}), "does not fit the card"),
    "part": (lambda card: card["model"].update(options={"linear_path": "none"}), "parts that this page cannot compute"),
    "format": (lambda card: card.update(format="other/2"), "unknown kind of classifier"),
    "classes": (lambda card: card.update(classes=[]), "does not describe a classifier"),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_model_that_cannot_be_computed_is_refused(
    page: Page, trained: tuple[Classifier, Path], name: str, tmp_path: Path
) -> None:
    change, message = CARDS[name]
    page.choose(model=rewrite_card(trained[1], tmp_path / "model.safetensors", change))
    page.says("model", message)
    page.says("model", "model.safetensors")


def test_files_that_are_no_models_are_refused(
    page: Page, trained: tuple[Classifier, Path], scene_file: Path, tmp_path: Path
) -> None:
    whole = trained[1].read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    large = tmp_path / "large.safetensors"
    with large.open("wb") as file:
        file.truncate(4 << 30)
    broken = bytearray(whole)
    broken[-4:] = struct.pack("<f", float("nan"))  # the last tensor in the file is the transform's
    for name, content, message in (
        ("empty", b"", "not a whole model file"),
        ("cut in the header", whole[: length // 2], "not a whole model file"),
        ("cut in the values", whole[:-100], "not a whole model file"),
        ("no card", struct.pack("<Q", 2) + b"{}", "has no card"),
        ("nan", bytes(broken), "NaN or infinity"),
    ):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        page.choose(model=path)
        page.says("model", message)
    page.choose(model=large)
    page.says("model", "not a whole model file")
    page.choose(model=scene_file)
    page.says("model", "not a whole model file")


def test_scenes_that_cannot_be_read_are_refused(page: Page, scene_file: Path, tmp_path: Path) -> None:
    whole = scene_file.read_bytes()
    cube = np.ones((4, 5, 6), np.float32)
    complex_file, packed, fortran = tmp_path / "complex.tif", tmp_path / "packed.tif", tmp_path / "fortran.npy"
    with rasterio.open(complex_file, "w", "GTiff", 6, 5, 4, dtype="complex64") as raster:
        raster.write(cube.astype(np.complex64))
    with rasterio.open(packed, "w", "GTiff", 6, 5, 4, dtype="float32", compress="packbits") as raster:
        raster.write(cube)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "mask.tif", "w", "GTiff", 6, 5, 4, dtype="float32") as raster,
    ):
        raster.write(cube)
        raster.write_mask(np.ones((5, 6), bool))
    (tmp_path / "cut.tif").write_bytes(whole[:-500])
    (tmp_path / "head.tif").write_bytes(whole[:4])
    (tmp_path / "text.txt").write_text("no scene")
    np.save(fortran, np.asfortranarray(cube))
    np.save(tmp_path / "flat.npy", cube[0])
    np.save(tmp_path / "complex.npy", cube.astype(np.complex64))
    for name, message in (
        ("complex.tif", "these values are not read"),
        ("packed.tif", "this compression is not read"),
        ("mask.tif", "has a mask inside"),
        ("cut.tif", "cut off"),
        ("head.tif", "cut off"),
        ("text.txt", "no scene that can be read here"),
        ("fortran.npy", "Fortran's order"),
        ("flat.npy", "no hyperspectral cube"),
        ("complex.npy", "these values are not read"),
    ):
        page.choose(tmp_path / name)
        page.says("scene", message)
    for number, (line, message) in enumerate(
        (
            ("samples = 7", "given twice"),
            ("file compression = 1", "compressed ENVI files"),
            ("wavelength = {1, 2}", "not one entry a band"),
            ("reflectance scale factor = -1", "impossible scale"),
            ("wavelength = {1", "never closed"),
        )
    ):
        page.choose(write_envi(tmp_path / f"scene{number}.img", cube, "bil", line))
        page.says("scene", message)
    files = write_envi(tmp_path / "scene.img", cube, "bip")
    files[1].write_bytes(b"short")
    page.choose(files)
    page.says("scene", "does not have the size that its header promises")


def test_a_scene_in_other_bands_is_refused(
    page: Page, simulated: tuple[xr.DataArray, xr.DataArray], trained: tuple[Classifier, Path], tmp_path: Path
) -> None:
    scene = simulated[0]
    fewer = write_scene(scene.isel(band=slice(0, 19)), tmp_path / "fewer.tif")
    moved = write_scene(scene.assign_coords(wavelength=scene.wavelength + 5), tmp_path / "moved.tif")
    for path, message in ((fewer, "another number of bands"), (moved, "20 bands lie at other wavelengths")):
        page.choose(path, trained[1])
        page.says("run", message)
        playwright.expect(page.page.locator("#map")).to_be_disabled()


def test_damaged_blocks_and_empty_scenes_end_the_map_with_a_sentence(
    page: Page,
    simulated: tuple[xr.DataArray, xr.DataArray],
    trained: tuple[Classifier, Path],
    scene_file: Path,
    tmp_path: Path,
) -> None:
    content = bytearray(scene_file.read_bytes())
    with rasterio.open(scene_file) as raster:
        offset = int(raster.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content[offset : offset + 400] = bytes(400)
    (tmp_path / "damaged.tif").write_bytes(content)
    page.choose(tmp_path / "damaged.tif", trained[1])
    page.page.click("#map")
    page.says("run", "the values cannot be read")
    empty = write_envi(tmp_path / "empty.img", np.full((20, 28, 24), np.nan, np.float32), "bsq")
    free = rewrite_card(
        trained[1], tmp_path / "free.safetensors", lambda card: card["bands"].update(wavelength=[None] * 20)
    )
    page.choose(empty, free)
    page.page.click("#map")
    page.says("run", "no pixel has values in all bands that the model needs")


def test_the_page_holds_all_it_needs(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|fetch\(|XMLHttpRequest|WebSocket|sendBeacon", text)
