from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from report_example import Example, make_run
from viewer_browser import Viewer, launched

from spectralmamba import Classifier, Settings, open_labels, open_scene, simulate_scene, split_random
from spectralmamba.errors import OutputError
from spectralmamba.report import pixel_files, write_report
from spectralmamba.report.pixel_files import LEVELS, NOTHING, Explanations, PixelValues, find_step, quantise
from spectralmamba.runs import Run

LARGEST_PAGE = 15_000_000
HOSTILE = "</script><b>bold</b>"


def read_band(path: Path, band: int = 1) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(band)


def trained_run(folder: Path, scene: xr.DataArray, labels: xr.DataArray, settings: Settings) -> Classifier:
    """Train, map, explain, score and report into a folder."""
    folder.mkdir(parents=True)
    run, split = Run(folder), split_random(labels, per_class=8, patch=settings.patch)
    classifier = run.train(scene, labels, split, settings, device="cpu")
    run.map(classifier, scene)
    run.explain(classifier, scene, labels, split)
    run.evaluate(classifier, scene, labels, split)
    run.report()
    return classifier


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xr.DataArray, Classifier]:
    """A run's folder, the scene, some bands of which are not good, and the classifier, which has learned next to nothing."""
    scene, labels = simulate_scene(rows=24, columns=30, bands=40, classes=4)
    labels.attrs["class_names"] = labels.attrs["class_names"] | {1: HOSTILE}
    folder = tmp_path_factory.mktemp("viewer") / "run"
    return folder, scene, trained_run(folder, scene, labels, Settings(steps=6, patch=3, self_training_rounds=0))


@pytest.fixture
def folder(made: tuple[Path, xr.DataArray, Classifier], tmp_path: Path) -> Path:
    """A copy of the run's folder, to be changed."""
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


def page_of(folder: Path) -> str:
    write_report(folder)
    return (folder / "viewer.html").read_text(encoding="utf-8")


def layer(page: str, name: str, dtype: str) -> np.ndarray:
    found = re.search(f'id="layer-{name}">([^<]*)<', page)
    assert found
    return np.frombuffer(base64.b64decode(found[1]), dtype)


def facts(page: str) -> dict[str, Any]:
    found = re.search('id="facts">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


# Packing -------------------------------------------------------------------------------------------


def test_quantised_values_are_off_by_half_a_level_at_most() -> None:
    values = np.random.default_rng(0).normal(5000, 900, (7, 9, 5)).astype(np.float32)
    values[..., 4] = 17.25
    values[2, 3] = np.nan
    levels, offset, scale = quantise(values)
    assert levels.dtype == np.uint16
    assert (levels[2, 3] == NOTHING).all()
    assert (np.delete(levels.reshape(-1, 5), 2 * 9 + 3, 0) <= LEVELS).all()
    error = np.abs(offset + levels * scale - values)
    assert (error[np.isfinite(values)] <= np.broadcast_to(scale / 2 + 1e-9, values.shape)[np.isfinite(values)]).all()
    assert offset[4] == 17.25
    assert scale[4] == 0


@pytest.mark.parametrize(
    ("shape", "bands", "classes"), [((83, 86), 224, 6), ((610, 340), 103, 9), ((5000, 1), 200, 3), ((9000, 7000), 0, 0)]
)
def test_as_many_pixels_are_shown_as_the_page_can_hold(shape: tuple[int, int], bands: int, classes: int) -> None:
    step = find_step(shape, bands, classes)
    sizes = [
        np.prod(pixel_files.every_nth(shape, each)) * (pixel_files.BYTES_BESIDE + 2 * (bands + classes))
        for each in (step, step - 1)
        if each
    ]
    assert sizes[0] <= pixel_files.MOST_BYTES
    assert step == 1 or sizes[1] > pixel_files.MOST_BYTES


@pytest.mark.parametrize("kind", [PixelValues, Explanations])
def test_what_is_kept_for_the_viewer_comes_back(made: tuple[Path, Any, Any], tmp_path: Path, kind: Any) -> None:
    name = "pixels.npz" if kind is PixelValues else "why.npz"
    kept = kind.load(made[0] / name, (24, 30))
    kept.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == (made[0] / name).read_bytes()


@pytest.mark.parametrize("name", ["pixels.npz", "why.npz"])
def test_a_damaged_or_foreign_file_is_refused_and_named(folder: Path, name: str) -> None:
    path, load = folder / name, {"pixels.npz": PixelValues, "why.npz": Explanations}[name].load
    whole = path.read_bytes()
    for wrong in (b"", whole[: len(whole) // 2], b"no file of arrays"):
        path.write_bytes(wrong)
        with pytest.raises(OutputError, match=rf"{name}: this file cannot be used for the report.*no whole \.npz file"):
            write_report(folder)
    path.write_bytes(whole)
    with pytest.raises(OutputError, match=name):
        load(path, (12, 12))
    np.savez(path, step=np.array([object()], dtype=object))
    with pytest.raises(OutputError, match=name):
        write_report(folder)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("pixels.npz", {"bands": np.full(35, 99)}, "a band that the scene does not have"),
        ("pixels.npz", {"step": np.array(0)}, "a step of 0"),
        ("pixels.npz", {"levels": np.zeros((24, 30, 35))}, "levels of float64"),
        ("why.npz", {"effects": np.zeros((2, 2))}, r"effects of shape \(2, 2\)"),
        ("why.npz", {"gates": np.full((1, 3, 3), np.nan)}, "gates of shape|NaN or infinity"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(folder: Path, name: str, wrong: dict[str, Any], said: str) -> None:
    with np.load(folder / name) as file:
        arrays = dict(file) | wrong
    np.savez(folder / name, **arrays)
    with pytest.raises(OutputError, match=said):
        write_report(folder)


def test_the_kept_spectra_and_probabilities_are_those_of_scene_and_classifier(
    made: tuple[Path, xr.DataArray, Classifier],
) -> None:
    folder, scene, classifier = made
    kept = PixelValues.load(folder / "pixels.npz", (24, 30))
    assert kept.step == 1
    assert kept.bands.tolist() == (classifier.bands + 1).tolist()
    values = np.moveaxis(scene.values[classifier.bands], 0, -1)
    there = np.isfinite(values).all(-1)
    assert 0 < there.sum() < there.size
    assert ((kept.levels == NOTHING).all(-1) == ~there).all()
    error = np.abs(kept.offset + kept.levels[there] * kept.scale - values[there])
    assert (error <= kept.scale / 2 + 1e-6 * np.abs(values[there])).all()
    expected = np.moveaxis(classifier.predict_proba(scene).values, 0, -1)[there]
    assert kept.probabilities[there] / LEVELS == pytest.approx(expected, abs=1e-4)


# The page without a browser --------------------------------------------------------------------------


def test_report_and_viewer_link_to_each_other_and_are_the_same_each_time(folder: Path) -> None:
    page = page_of(folder)
    assert '<a href="report.html">' in page
    assert '<a href="viewer.html">' in (folder / "report.html").read_text(encoding="utf-8")
    assert page_of(folder) == page


def test_a_hostile_class_name_is_text_everywhere(folder: Path) -> None:
    page = page_of(folder)
    assert HOSTILE not in page
    assert html.escape(HOSTILE) in page
    assert page.count("<script") == page.count("</script>") == 2 + len(re.findall('id="layer-', page))
    assert HOSTILE in [each["name"] for each in facts(page)["classes"]]


def test_the_policy_lets_only_the_page_s_own_style_and_script_in(folder: Path) -> None:
    page = page_of(folder)
    policy = re.search('Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    for text in (
        re.search("<style>(.*?)</style>", page, re.DOTALL),
        re.search("<script>(.*?)</script>", page, re.DOTALL),
    ):
        assert text
        assert "sha256-" + base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode() in policy[1]
    assert "eval(" not in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("pixels.npz", ['id="spectrum"', 'id="layer-spectra"']),
        ("why.npz", ['id="effects"', 'id="gate"', 'id="explained"']),
        ("overview.tif", ['id="swipe"', 'id="layer-picture"']),
        ("map_confidence.tif", ['id="layer-confidence"']),
        ("map_areas.csv", ["Hectares"]),
    ],
)
def test_what_a_folder_lacks_is_left_out(folder: Path, name: str, gone: list[str]) -> None:
    assert all(each in page_of(folder) for each in gone)
    (folder / name).unlink()
    page = page_of(folder)
    assert not [each for each in gone if each in page]


@pytest.mark.parametrize(
    ("name", "text"), [("map_areas.csv", "id,mapped_hectares\nfour,1.5\n"), ("map_areas.csv", "class\nmeadow\n")]
)
def test_a_damaged_table_of_areas_is_refused(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(OutputError, match=f"{name}: this file cannot be used for the report"):
        write_report(folder)


@pytest.mark.parametrize("name", ["map_confidence.tif", "overview.tif"])
def test_a_raster_of_another_scene_is_refused(run_folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(make_run(tmp_path / "other", Example(height=31, width=50)) / name, run_folder / name)
    with pytest.raises(OutputError, match=name):
        write_report(run_folder)


def test_of_a_large_scene_every_nth_pixel_is_shown_and_the_page_says_so(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_files, "MOST_BYTES", 60 * 80 * pixel_files.BYTES_BESIDE // 8)
    page = page_of(run_folder)
    assert "every 3th" not in page
    assert "every third row and column" in page
    assert (facts(page)["step"], facts(page)["height"], facts(page)["width"]) == (3, 20, 27)
    shown = layer(page, "class", "<u2").reshape(20, 27)
    assert (shown == read_band(run_folder / "map.tif")[::3, ::3]).all()
    picture = layer(page, "picture", "u1").reshape(20, 27, 4)
    assert (picture[..., 1] == read_band(run_folder / "overview.tif", 2)[::3, ::3]).all()


def test_leaks_are_the_test_pixels_with_a_training_pixel_in_their_patch(folder: Path) -> None:
    page = page_of(folder)
    role = layer(page, "role", "u1").reshape(24, 30)
    record = json.loads((folder / "scores.json").read_text())["split"]
    assert (role == 6).sum() == record["leaks"]["test_near_training"] > 0
    assert ((role & 3) == read_band(folder / "split.tif")).all()


# In a browser ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture
def open_viewer(browser: Any) -> Iterator[Callable[..., Viewer]]:
    contexts, viewers = [], []

    def opened(folder: Path, width: int = 1280, height: int = 1100, **options: Any) -> Viewer:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        viewers.append(Viewer(contexts[-1].new_page()))
        return viewers[-1].open(folder / "viewer.html")

    yield opened
    for context in contexts:
        context.close()
    for viewer in viewers:
        assert viewer.messages == []
        assert [url for url in viewer.requests if not url.startswith("file://")] == []


def wrong_pixels(folder: Path) -> np.ndarray:
    role, reference = (read_band(folder / "split.tif", band) for band in (1, 2))
    return (role == 2) & (read_band(folder / "map.tif") != reference)


def test_a_hovered_pixel_tells_what_the_files_hold(
    made: tuple[Path, xr.DataArray, Classifier], open_viewer: Callable[..., Viewer]
) -> None:
    folder, scene, classifier = made
    viewer = open_viewer(folder)
    mapped, confidence = read_band(folder / "map.tif"), read_band(folder / "map_confidence.tif")
    probable, kept = classifier.predict_proba(scene).values, PixelValues.load(folder / "pixels.npz", (24, 30))
    rng = np.random.default_rng(1)
    for row, column in zip(rng.integers(0, 24, 100).tolist(), rng.integers(0, 30, 100).tolist(), strict=True):
        viewer.hover(row, column)
        assert viewer.told("place") == f"{row}, {column}"
        x, y = (float(each) for each in (viewer.told("coordinates") or "").split(","))
        assert (x, y) == pytest.approx((float(scene.x[column]), float(scene.y[row])), abs=0.01)
        told = viewer.spectrum()
        if not mapped[row, column]:
            assert viewer.told("class") == "nodata"
            assert told == [None] * 40
            continue
        assert viewer.told("class") == classifier.class_names[int(mapped[row, column])]
        assert float(viewer.told("confidence") or "") == pytest.approx(confidence[row, column], abs=1e-4)
        shown = viewer.probabilities()
        assert shown == {
            int(id_): pytest.approx(100 * probable[index, row, column], abs=0.06)
            for index, id_ in enumerate(classifier.classes)
        }
        assert [index for index, value in enumerate(told) if value is not None] == classifier.bands.tolist()
        values = scene.values[classifier.bands, row, column]
        error = np.abs(np.array([value for value in told if value is not None]) - values)
        assert (error <= kept.scale / 2 + 1e-6 * np.abs(values)).all()  # told with seven digits


def test_classes_are_hidden_and_shown(made: tuple[Path, Any, Classifier], open_viewer: Callable[..., Viewer]) -> None:
    folder, _, classifier = made
    viewer, mapped = open_viewer(folder), read_band(folder / "map.tif")
    id_ = int(np.bincount(mapped[mapped > 0]).argmax())
    row, column = np.argwhere(mapped == id_)[5].tolist()
    color = tuple(int(classifier.class_colors[id_][at : at + 2], 16) for at in (1, 3, 5))
    assert viewer.color(row, column)[:3] == color
    viewer.page.uncheck(f".toggle[data-id='{id_}']")
    assert viewer.color(row, column)[:3] != color
    viewer.page.check(f".toggle[data-id='{id_}']")
    assert viewer.color(row, column)[:3] == color
    viewer.page.click("#none")
    assert viewer.color(row, column)[:3] != color
    viewer.page.click("#all")
    assert viewer.color(row, column)[:3] == color
    viewer.page.locator("#swipe").fill("100")
    assert viewer.color(row, column)[:3] != color
    viewer.page.locator("#swipe").fill("0")
    viewer.page.locator("#opacity").fill("0")
    assert viewer.color(row, column)[:3] != color


def test_errors_only_leaves_the_test_pixels_that_are_mapped_wrong(
    made: tuple[Path, Any, Classifier], open_viewer: Callable[..., Viewer]
) -> None:
    folder, _, classifier = made
    viewer, mapped, wrong = open_viewer(folder), read_band(folder / "map.tif"), wrong_pixels(folder)
    assert 0 < wrong.sum() < (mapped > 0).sum()
    viewer.page.click("#errors")
    assert viewer.page.get_attribute("#errors", "aria-pressed") == "true"
    for row, column in np.argwhere(mapped > 0)[::17].tolist():
        color = classifier.class_colors[int(mapped[row, column])]
        channels = tuple(int(color[at : at + 2], 16) for at in (1, 3, 5))
        assert (viewer.color(row, column) == (*channels, 255)) == wrong[row, column]


def test_overlays_show_training_test_and_leaks(made: tuple[Path, Any, Any], open_viewer: Callable[..., Viewer]) -> None:
    folder = made[0]
    viewer, role = open_viewer(folder), read_band(folder / "split.tif")
    viewer.page.check("#split")
    row, column = np.argwhere(role == 1)[0].tolist()
    assert viewer.color(row, column)[:3] == (213, 94, 0)
    viewer.page.check("#leaks")
    near = [
        (r, c)
        for r, c in np.argwhere(role == 2).tolist()
        if (role[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2] == 1).any()
    ]
    assert viewer.color(*near[0])[:3] == (204, 0, 160)
    assert viewer.color(row, column)[:3] == (213, 94, 0)


def test_the_keyboard_does_what_the_mouse_does(made: tuple[Path, Any, Any], open_viewer: Callable[..., Viewer]) -> None:
    viewer = open_viewer(made[0])
    page = viewer.page
    page.focus("#canvas")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.fill("#row", "5")
    page.fill("#column", "7")
    page.press("#column", "Enter")
    assert viewer.told("place") == "5, 7"
    assert "Row 5, column 7" in page.inner_text("#said")
    for key, place in (("ArrowRight", "5, 8"), ("ArrowDown", "6, 8"), ("ArrowLeft", "6, 7"), ("Shift+ArrowUp", "0, 7")):
        page.press("#canvas", key)
        assert viewer.told("place") == place
    for key, told in (("o", "50"), ("o", "0"), ("o", "100")):
        page.press("#canvas", key)
        assert page.input_value("#opacity") == told
    page.press("#canvas", "e")
    assert page.get_attribute("#errors", "aria-pressed") == "true"
    for key, box in (("l", "#leaks"), ("s", "#split")):
        page.press("#canvas", key)
        assert page.is_checked(box)

    def scale() -> float:
        viewer.settle()
        return float(page.get_attribute("#canvas", "data-view").split(",")[0])

    fitted = scale()
    page.press("#canvas", "+")
    assert scale() == pytest.approx(1.5 * fitted)
    page.press("#canvas", "-")
    assert scale() == pytest.approx(fitted)
    page.mouse.move(*viewer.position(12, 12))
    page.mouse.wheel(0, -400)
    assert scale() > 2 * fitted
    page.press("#canvas", "0")
    assert scale() == pytest.approx(fitted)
    page.press("#canvas", "w")
    assert (viewer.told("role") or "").startswith("test")


def test_the_why_is_of_the_pixel_or_of_the_nearest_that_has_one(
    made: tuple[Path, Any, Any], open_viewer: Callable[..., Viewer]
) -> None:
    folder = made[0]
    viewer, why = open_viewer(folder), Explanations.load(folder / "why.npz", (24, 30))
    page = viewer.page
    index = len(why.rows) // 2
    page.fill("#row", str(why.rows[index]))
    page.fill("#column", str(why.columns[index]))
    page.click("#goto button")
    assert page.inner_text("#why-place").startswith("Of this pixel")
    gates = page.eval_on_selector_all("#gate title", "all => all.map(each => Number(each.textContent))")
    assert gates == pytest.approx(why.gates[index].ravel().tolist(), abs=6e-4)
    assert page.locator("#effects rect").count() == why.effects.shape[1]
    apart = np.hypot(
        *(np.indices((24, 30)) - np.stack([why.rows, why.columns])[:, :, None, None].swapaxes(0, 1)).swapaxes(0, 1)
    )
    row, column = np.argwhere(apart.min(0) > 0)[0].tolist()
    viewer.page.press("#canvas", "Escape")
    viewer.hover(row, column)
    nearest = int(apart[:, row, column].argmin())
    assert f"row {why.rows[nearest]}, column {why.columns[nearest]}" in page.inner_text("#why-place")
    page.click("#nearest")
    assert viewer.told("place") == f"{why.rows[nearest]}, {why.columns[nearest]}"


def test_a_tap_keeps_a_pixel_and_hovering_leaves_it(
    made: tuple[Path, Any, Any], open_viewer: Callable[..., Viewer]
) -> None:
    viewer = open_viewer(made[0], 390, 844, has_touch=True)
    viewer.page.touchscreen.tap(*viewer.position(4, 9))
    assert viewer.told("place") == "4, 9"
    assert viewer.page.inner_text("#kept") == "kept"
    viewer.hover(10, 10)
    assert viewer.told("place") == "4, 9"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (768, 1024), (390, 844)])
def test_text_is_readable_and_fits_the_width(
    made: tuple[Path, Any, Any], open_viewer: Callable[..., Viewer], scheme: str, size: tuple[int, int]
) -> None:
    viewer = open_viewer(made[0], *size, color_scheme=scheme)
    for details in viewer.page.query_selector_all("summary"):
        details.click()
    found = viewer.contrasts()
    assert len(found) > 60
    assert min(found.values()) >= 4.5, [each for each in found.items() if each[1] < 4.5]
    assert viewer.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    viewer.page.click("#theme")
    assert viewer.page.get_attribute("html", "data-theme") == {"light": "dark", "dark": "light"}[scheme]
    assert min(viewer.contrasts().values()) >= 4.5


def test_every_control_has_a_name(made: tuple[Path, Any, Any], open_viewer: Callable[..., Viewer]) -> None:
    viewer = open_viewer(made[0])
    unnamed = """() => [...document.querySelectorAll("button, input, canvas, svg[role=img]")].filter((each) =>
      !(each.getAttribute("aria-label") || each.textContent.trim() || (each.labels && each.labels.length)))
      .map((each) => each.outerHTML)"""
    assert viewer.page.evaluate(unnamed) == []


@pytest.mark.parametrize("name", ["pixels.npz", "why.npz", "overview.tif", "map_confidence.tif", "spectra.json"])
def test_the_page_works_without_what_a_folder_lacks(
    folder: Path, open_viewer: Callable[..., Viewer], name: str
) -> None:
    (folder / name).unlink()
    write_report(folder)
    viewer = open_viewer(folder)
    viewer.hover(20, 20)
    assert viewer.told("place") == "20, 20"


@pytest.mark.parametrize(
    ("scene", "labels"),
    [
        ("salinas_a/salinasA.mat", "salinas_a/salinasA_gt.mat"),
        ("enmap_potsdam/enmap_potsdam_west.tif", "enmap_potsdam/landcover_west.tif"),
    ],
)
def test_real_scenes_are_shown_whole_in_a_page_of_fifteen_megabytes(
    shared_data: Path, tmp_path: Path, open_viewer: Callable[..., Viewer], scene: str, labels: str, record_property: Any
) -> None:
    opened = open_scene(shared_data / scene)
    settings = Settings(model="logistic_regression", patch=1, self_training_rounds=0, set_coverage=0)
    trained_run(tmp_path / "run", opened, open_labels(shared_data / labels, opened), settings)
    size = (tmp_path / "run" / "viewer.html").stat().st_size
    assert size <= LARGEST_PAGE
    viewer = open_viewer(tmp_path / "run")
    assert viewer.facts()["step"] == 1
    record_property("megabytes", size / 1e6)
    record_property("milliseconds", viewer.milliseconds)
    assert viewer.milliseconds < 20_000  # 2 000 on a machine that does nothing else; it says whether the page hangs
