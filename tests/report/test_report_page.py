from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from report_example import HOSTILE, Example, make_run
from report_reader import Reader, read

from spectralmamba.errors import OutputError, SpectralMambaError
from spectralmamba.report import words, write_report
from spectralmamba.report.pictures import SET_COLORS, rgba

SECTIONS = (
    "Scores",
    "Pictures",
    "Classes",
    "Confusion matrix",
    "Mean spectra of the training pixels",
    "Training",
    "Split",
    "Settings and cost",
    "How to cite",
)


@pytest.fixture
def page(run_folder: Path) -> Reader:
    return read(write_report(run_folder))


def change_scores(folder: Path, **changes: object) -> None:
    path = folder / "scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_report_lies_in_the_folder_and_has_every_section(run_folder: Path) -> None:
    path = write_report(str(run_folder))
    assert path == run_folder / "report.html"
    assert read(path).headings == list(SECTIONS)


def test_nothing_is_loaded_from_elsewhere_and_no_script_runs(page: Reader) -> None:
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    loads = [value for _, name, value in page.attributes if name in ("src", "srcset", "data", "xlink:href")]
    assert loads
    assert all(value.startswith("data:image/png;base64,") for value in loads)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    styles = [value for _, name, value in page.attributes if name == "style"]
    assert not [style for style in styles if "url(" in style]


def test_every_picture_says_in_words_and_numbers_what_it_shows(page: Reader) -> None:
    assert len(page.images) == 7
    assert all(re.search(r"\d", image["alt"]) for image in page.images)
    charts = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(charts) == 1 + 5 + 2 + 1
    assert all(re.search(r"\d", chart) for chart in charts)


def test_a_hostile_class_name_is_text_not_markup(run_folder: Path) -> None:
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert "<script" not in html
    assert HOSTILE in Reader(html).text


def test_a_hostile_colour_does_not_reach_the_style(run_folder: Path) -> None:
    classes = json.loads((run_folder / "scores.json").read_text())["classes"]
    classes[0]["color"] = "red;background:url(https://example.org/x)"
    change_scores(run_folder, classes=classes)
    assert "example.org" not in write_report(run_folder).read_text(encoding="utf-8")


def test_the_same_folder_gives_the_same_bytes(run_folder: Path) -> None:
    assert write_report(run_folder).read_bytes() == write_report(run_folder).read_bytes()


def test_the_headline_shows_the_scores_of_the_file(run_folder: Path) -> None:
    change_scores(run_folder, overall_accuracy=0.98766, kappa=0.91234)
    text = read(write_report(run_folder)).text
    assert "98.77\u202f%" in text
    assert "0.9123" in text


def test_undefined_scores_are_shown_as_not_available_and_never_as_nan(run_folder: Path) -> None:
    per_class = json.loads((run_folder / "scores.json").read_text())["per_class"]
    per_class[0] |= {
        "precision": None,
        "precision_interval": None,
        "recall": float("nan"),
        "recall_interval": [None, None],
    }
    change_scores(run_folder, macro_f1=None, kappa=float("nan"), per_class=per_class)
    page = read(write_report(run_folder))
    assert "n/a" in page.text
    assert not re.search(r"\b(nan|NaN|None|inf|Infinity)\b", page.text)
    assert not [value for _, _, value in page.attributes if value in ("nan", "None")]


@pytest.mark.parametrize("name", ["map_confidence.tif", "spectra.json", "overview.tif", "log.jsonl"])
def test_a_missing_optional_file_is_said_in_its_section(run_folder: Path, name: str) -> None:
    (run_folder / name).unlink()
    page = read(write_report(run_folder))
    assert f"The folder has no {name}" in page.text
    assert page.headings == list(SECTIONS)


def test_where_no_network_was_trained_no_curve_is_missed(run_folder: Path) -> None:
    (run_folder / "log.jsonl").unlink()
    change_scores(run_folder, model={"name": "label_propagation", "patch": 3, "parameters": 0, "size": 3000})
    page = read(write_report(run_folder))
    assert "Nothing was trained step by step, so there is no curve." in page.text
    assert "log.jsonl" not in page.text
    assert "label propagation · patch 3 × 3" in page.text


def test_what_was_chosen_and_why_is_told_once(run_folder: Path) -> None:
    reason = "spectral_mamba: of 180 labels left out <block> by block, spectral_mamba 0.9 were told rightly."
    model = json.loads((run_folder / "scores.json").read_text())["model"]
    plain = read(write_report(run_folder)).text
    assert "Chosen" not in plain
    change_scores(run_folder, model=model | {"choice": {"model": "spectral_mamba", "labels": 180, "reason": reason}})
    assert read(write_report(run_folder)).text.count(reason) == 1
    for damaged in ("spectral_mamba", [], {"reason": None}, None):
        change_scores(run_folder, model=model | {"choice": damaged})
        assert "Chosen" not in read(write_report(run_folder)).text


NOVELTY = "test pixels are less like any class than 99\u202f% of the training side's pixels"


def test_novelty_has_a_picture_and_a_sentence(page: Reader) -> None:
    (picture,) = [image["alt"] for image in page.images if "unlike all classes" in image["alt"]]
    assert re.search(r"above 0\.99 in \d+\.\d\u202f% of the pixels", picture)
    assert "12.3\u202f% of the " + NOVELTY in page.text
    assert "the share of the training side's pixels that are less so" in page.text


def test_a_run_of_before_novelty_says_nothing_of_it(run_folder: Path) -> None:
    (run_folder / "map_novelty.tif").unlink()
    scores = json.loads((run_folder / "scores.json").read_text())
    del scores["novelty"]
    (run_folder / "scores.json").write_text(json.dumps(scores))
    page = read(write_report(run_folder))
    assert len(page.images) == 6
    assert "novelty" not in page.text.lower()
    assert "unlike" not in page.text
    assert page.headings == list(SECTIONS)


@pytest.mark.parametrize("novelty", [None, {}, {"level": 0.99, "share_of_test": None}], ids=str)
def test_novelty_that_was_not_measured_on_test_pixels_is_not_said(run_folder: Path, novelty: object) -> None:
    change_scores(run_folder, novelty=novelty)
    assert "less like any class" not in read(write_report(run_folder)).text


def test_a_novelty_layer_without_values_is_said(run_folder: Path) -> None:
    with rasterio.open(run_folder / "map_novelty.tif", "r+") as file:
        file.write(np.full(file.shape, np.nan, np.float32), 1)
    page = read(write_report(run_folder))
    assert "map_novelty.tif holds no value" in page.text
    assert len(page.images) == 6


def pixels_of(uri: str) -> np.ndarray:
    """The picture of a data URI, `(H, W, 4)`."""
    with MemoryFile(base64.b64decode(uri.split(",")[1])) as memory, memory.open() as picture:
        return np.moveaxis(picture.read(), 0, -1)


def set_picture(page: Reader) -> dict[str, str]:
    (picture,) = [image for image in page.images if "prediction set" in image["alt"]]
    return picture


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_each_number_of_classes_in_a_set_has_its_colour_and_nodata_none(run_folder: Path, page: Reader) -> None:
    with rasterio.open(run_folder / "map_set_size.tif") as file:
        sizes = file.read(1)
    shown = pixels_of(set_picture(page)["src"])
    assert shown.shape[:2] == sizes.shape
    for size, color in enumerate((*SET_COLORS, SET_COLORS[-1])):
        assert (shown[sizes == size] == rgba(color)).all()
    assert (shown[sizes == 255, 3] == 0).all()


def test_the_picture_of_sets_says_how_many_pixels_have_how_many_classes(run_folder: Path, page: Reader) -> None:
    with rasterio.open(run_folder / "map_set_size.tif") as file:
        sizes = file.read(1)[file.read_masks(1) > 0]
    shares = [100 * np.mean(chosen) for chosen in (sizes == 0, sizes == 1, sizes == 2, sizes >= 3)]
    meanings = ("none", "one", "two", "three or more")
    spread = ", ".join(f"{what} in {share:.1f}\u202f%" for what, share in zip(meanings, shares, strict=True))
    assert f"{spread} of {words.count(len(sizes))} pixels" in set_picture(page)["alt"]
    assert f"prediction set: {spread}." in page.text


def test_the_key_of_sets_shows_only_colours_of_the_picture(run_folder: Path) -> None:
    with rasterio.open(run_folder / "map_set_size.tif", "r+") as file:
        file.write(np.where(file.read(1) == 255, 255, 1).astype(np.uint8), 1)
    page = read(write_report(run_folder))
    assert "one in 100.0\u202f%" in page.text
    styles = [value for _, name, value in page.attributes if name == "style"]
    assert [f"background:{color}" in styles for color in SET_COLORS] == [False, True, False, False]


def test_a_layer_of_sets_without_values_is_said(run_folder: Path) -> None:
    with rasterio.open(run_folder / "map_set_size.tif", "r+") as file:
        file.write(np.full(file.shape, 255, np.uint8), 1)
    page = read(write_report(run_folder))
    assert "map_set_size.tif holds no value" in page.text
    assert len(page.images) == 6


def test_sets_have_a_sentence_and_two_columns_of_each_class(page: Reader) -> None:
    assert "hold the reference class of 91.2\u202f% of the test pixels" in page.text
    assert "F1 In its set Set size Training" in page.text
    assert page.text.count("87.50\u202f% 80.0–92.5\u202f% 1.23") == 4
    assert page.text.count("n/a n/a") == 1  # the class without test pixels


def test_a_run_without_sets_says_nothing_of_them(run_folder: Path) -> None:
    (run_folder / "map_set_size.tif").unlink()
    change_scores(run_folder, prediction_sets=None)
    page = read(write_report(run_folder))
    assert len(page.images) == 6
    assert "prediction set" not in page.text.lower()
    assert "set size" not in page.text.lower()
    assert page.headings == list(SECTIONS)


def test_a_run_of_before_sets_of_each_class_has_their_sentence_alone(run_folder: Path) -> None:
    found = json.loads((run_folder / "scores.json").read_text())["prediction_sets"]
    del found["of_test"]["per_class"]
    change_scores(run_folder, prediction_sets=found)
    page = read(write_report(run_folder))
    assert "hold the reference class of 91.2\u202f%" in page.text
    assert "In its set" not in page.text


def test_a_missing_classifier_leaves_out_its_card_alone(run_folder: Path) -> None:
    assert "Card of the classifier" in read(write_report(run_folder)).text
    (run_folder / "model.safetensors").unlink()
    assert "Card of the classifier" not in read(write_report(run_folder)).text


@pytest.mark.parametrize("name", ["scores.json", "split.tif", "map.tif", "settings.toml"])
def test_a_missing_required_file_is_named_with_the_command_that_makes_it(run_folder: Path, name: str) -> None:
    (run_folder / name).unlink()
    with pytest.raises(SpectralMambaError, match=rf"{re.escape(name)}.*spectralmamba run"):
        write_report(run_folder)
    assert not (run_folder / "report.html").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere: there is no such folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_scores_are_an_error_that_names_the_file(run_folder: Path, content: str) -> None:
    (run_folder / "scores.json").write_text(content)
    with pytest.raises(OutputError, match=r"scores\.json"):
        write_report(run_folder)


def test_a_confusion_matrix_of_another_size_is_an_error(run_folder: Path) -> None:
    change_scores(run_folder, confusion=[[1, 2]])
    with pytest.raises(OutputError, match="confusion"):
        write_report(run_folder)


def test_a_map_on_another_grid_is_an_error(run_folder: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", Example(height=30))
    (other / "map.tif").replace(run_folder / "map.tif")
    with pytest.raises(OutputError, match=r"30 × 80 pixels.*60 × 80"):
        write_report(run_folder)


def test_the_confusion_matrix_is_a_table_with_row_and_column_headers(page: Reader) -> None:
    scopes = [value for tag, name, value in page.attributes if tag == "th" and name == "scope"]
    assert scopes.count("row") == 5 + 5 + 1
    assert scopes.count("col") == 10 + 1 + 5 + 1


def test_sixty_classes_and_two_thousand_bands_make_a_page_of_bearable_size(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "large", Example(classes=60, bands=2000))
    path = write_report(folder)
    assert read(path).headings == list(SECTIONS)
    assert path.stat().st_size < 3_000_000  # bytes: the polylines undecimated would take 4 MB alone


def test_a_run_without_wavelengths_numbers_its_bands(run_folder: Path) -> None:
    path = run_folder / "spectra.json"
    spectra = json.loads(path.read_text())
    path.write_text(json.dumps(spectra | {"wavelength": [None] * len(spectra["good"])}))
    text = read(write_report(run_folder)).text
    assert "band number" in text
    assert "wavelength (nm)" not in text
