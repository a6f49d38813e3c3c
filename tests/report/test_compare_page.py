from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from report_example import HOSTILE, Example, make_run
from report_reader import Reader, read
from test_report_page import pixels_of

from spectralmamba.comparison import mcnemar
from spectralmamba.errors import OutputError, SpectralMambaError
from spectralmamba.ranks import compare_ranks
from spectralmamba.report import critical_difference_svg, write_comparison, write_critical_difference, write_report
from spectralmamba.report.differences import BOTH, NEITHER
from spectralmamba.report.pictures import CORRECT, WRONG, rgba

SECTIONS = [
    "Scores",
    "Which is better",
    "Where the maps differ",
    "F1 of the classes",
    "What was set otherwise",
    "Cost",
    "How to cite",
]


def change_map(folder: Path, share: float, seed: int = 1) -> None:
    """Make a share of the map's pixels another class."""
    generator = np.random.default_rng(seed)
    with rasterio.open(folder / "map.tif", "r+") as file:
        ids = file.read(1)
        changed = (generator.random(ids.shape) < share) & (ids > 0)
        ids[changed] = ids[changed] % 50 + 10
        file.write(ids, 1)


def change_scores(folder: Path, **changes: object) -> None:
    path = folder / "scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three runs of one scene and split; the second and third have more errors."""
    made = [make_run(tmp_path / name, Example()) for name in ("good", "fair", "poor")]
    change_map(made[1], 0.002)
    change_map(made[2], 0.1, seed=2)
    return made


def layers(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Role, reference and map of a run."""
    with rasterio.open(folder / "split.tif") as split, rasterio.open(folder / "map.tif") as mapped:
        return split.read(1), split.read(2), mapped.read(1)


def test_the_page_has_every_section_and_loads_nothing_from_elsewhere(folders: list[Path], tmp_path: Path) -> None:
    path = write_comparison(folders, tmp_path / "compare.html")
    page = read(path)
    assert path == tmp_path / "compare.html"
    assert page.headings == SECTIONS
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    loads = [value for _, name, value in page.attributes if name in ("src", "srcset", "data", "xlink:href")]
    assert len(loads) == 3
    assert all(value.startswith("data:image/png;base64,") for value in loads)
    assert HOSTILE in page.text
    assert path.read_bytes() == write_comparison(folders, path).read_bytes()


def test_each_pair_is_tested_and_corrected_for_the_number_of_pairs(folders: list[Path], tmp_path: Path) -> None:
    text = read(write_comparison(folders, tmp_path / "compare.html")).text
    role, reference, first = layers(folders[0])
    second = layers(folders[1])[2]
    test = mcnemar(first, second, reference, where=role == 2)
    assert test.statistic is None
    row = re.search(r"good and fair (\d+) (\d+) \+\S+ \S+ to \S+ ([\d.]+) \(exact\) ([\d.]+) (\D+?) ", text)
    assert row, text
    assert (int(row[1]), int(row[2])) == (test.b, test.c)
    assert float(row[3]) == pytest.approx(test.p, abs=5e-5)
    assert float(row[4]) == pytest.approx(test.p, abs=5e-5)  # the least of three p-values is not this one: factor 1
    assert "corrected by Holm for 3 pairs" in text
    assert "good has the most test pixels right" in text
    assert "Its lead over poor is more than chance" in text


def test_the_scores_are_those_of_the_common_test_pixels(folders: list[Path], tmp_path: Path) -> None:
    role, reference, mapped = layers(folders[2])
    right = (mapped == reference)[role == 2]
    text = read(write_comparison(folders, tmp_path / "compare.html")).text
    assert f"{100 * right.mean():.2f}\u202f%" in text
    assert "the same in all runs" in text


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_picture_has_a_colour_for_each_case(folders: list[Path], tmp_path: Path) -> None:
    page = read(write_comparison([folders[0], folders[2]], tmp_path / "compare.html"))
    (image,) = page.images
    role, reference, first = layers(folders[0])
    right, right_too = first == reference, layers(folders[2])[2] == reference
    shown, tested = pixels_of(image["src"]), role == 2
    for case, color in (
        (right & right_too, BOTH),
        (right & ~right_too, CORRECT),
        (~right & right_too, WRONG),
        (~right & ~right_too, NEITHER),
    ):
        assert (shown[tested & case] == rgba(color)).all()
    assert (shown[first == 0, 3] == 0).all()
    differing = int((first != layers(folders[2])[2]).sum())
    assert f"The maps differ on {differing} of" in image["alt"]
    styles = [value for _, name, value in page.attributes if name == "style"]
    assert all(f"background:{color}" in styles for color in (BOTH, CORRECT, WRONG, NEITHER))


def test_a_large_scene_mixes_the_colours_of_a_spot(tmp_path: Path) -> None:
    made = [make_run(tmp_path / name, Example(height=1300, width=40)) for name in ("one", "other")]
    change_map(made[1], 0.1)
    page = read(write_comparison(made, tmp_path / "compare.html"))
    assert page.images[0]["height"] == "650"
    assert "A spot of the picture stands for 2 × 2 pixels" in page.text.replace("\u202f", " ")


def test_what_was_set_otherwise_is_listed_and_nothing_else(folders: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    assert "Settings, split, model and versions are the same." in read(write_comparison(folders, path)).text
    settings = folders[1] / "settings.toml"
    settings.write_text(settings.read_text().replace("200", "300"))
    change_scores(folders[2], model={"name": "support_vectors", "patch": 3, "parameters": 12})
    text = read(write_comparison(folders, path)).text
    assert "training.epochs 200 300 200" in text
    assert "model.name spectral_mamba spectral_mamba support_vectors" in text
    assert "learning_rate" not in text
    assert "parameters 142\u202f331 142\u202f331 12" in text


def test_runs_with_other_test_pixels_are_compared_on_the_common_ones(folders: list[Path], tmp_path: Path) -> None:
    with rasterio.open(folders[1] / "split.tif", "r+") as file:
        role = file.read(1)
        role[:, :40] = np.where(role[:, :40] == 2, 0, role[:, :40])
        file.write(role, 1)
    common = int(((layers(folders[0])[0] == 2) & (role == 2)).sum())
    text = read(write_comparison(folders[:2], tmp_path / "compare.html")).text.replace("\u202f", "")
    assert f"On the {common} pixels that all runs test" in text
    assert f"{common} in fair" in text


def test_links_lead_to_the_reports_that_exist(folders: list[Path], tmp_path: Path) -> None:
    write_report(folders[1])
    page = read(write_comparison(folders, tmp_path / "compare.html"))
    links = [value for tag, name, value in page.attributes if tag == "a" and name == "href"]
    assert "fair/report.html" in links
    assert "good/report.html" not in links


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    made = [make_run(tmp_path / name / "seed-0", Example()) for name in ("one", "other")]
    text = read(write_comparison(made, tmp_path / "compare.html")).text
    assert "one/seed-0" in text
    assert "other/seed-0" in text
    assert "no difference shown" in text


def test_of_many_runs_pictures_are_shown_of_the_best_alone(tmp_path: Path) -> None:
    made = [make_run(tmp_path / f"run-{seed}", Example(height=20, width=20)) for seed in range(5)]
    change_map(made[0], 0.2)
    page = read(write_comparison(made, tmp_path / "compare.html"))
    assert len(page.images) == 4
    assert "only pairs with the most accurate one" in page.text


# Runs that do not fit together ---------------------------------------------------------------------


def refused(folders: list[Path], page: Path, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        write_comparison(folders, page)
    assert not page.exists()


def test_runs_on_other_grids_are_refused(folders: list[Path], tmp_path: Path) -> None:
    other = make_run(tmp_path / "small", Example(height=30))
    refused([folders[0], other], tmp_path / "c.html", r"different grids; found 30 × 80 .* expected 60 × 80")
    with rasterio.open(folders[1] / "map.tif", "r+") as file:
        file.transform = rasterio.Affine(10, 0, 5e5 + 10, 0, -10, 5e6)
    refused(folders, tmp_path / "c.html", r"different grids; found .*500010")


def test_runs_with_other_labels_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with rasterio.open(folders[1] / "split.tif", "r+") as file:
        reference = file.read(2)
        reference[reference == 10] = 20
        file.write(reference, 2)
    refused(folders, tmp_path / "c.html", "different labels; found .* common test pixels")


def test_runs_without_common_test_pixels_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with rasterio.open(folders[1] / "split.tif", "r+") as file:
        file.write(np.where(file.read(1) == 2, 1, 2 * (file.read(1) == 1)), 1)
    refused(folders, tmp_path / "c.html", r"no test pixel in common; found \d+ in good")


def test_one_run_or_the_same_twice_is_refused(folders: list[Path], tmp_path: Path) -> None:
    for given in (folders[:1], [folders[0], folders[0]]):
        refused(given, tmp_path / "c.html", "two or more runs")


def test_a_folder_of_seeds_is_refused_with_a_hint(folders: list[Path], tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    (seeds / "summary.json").write_text("{}")
    refused([folders[0], seeds], tmp_path / "c.html", "several seeds.*seed-0")


@pytest.mark.parametrize("name", ["scores.json", "split.tif", "map.tif", "settings.toml"])
def test_a_missing_file_is_named(folders: list[Path], tmp_path: Path, name: str) -> None:
    (folders[1] / name).unlink()
    with pytest.raises(SpectralMambaError, match=rf"fair/{re.escape(name)}.*spectralmamba run"):
        write_comparison(folders, tmp_path / "c.html")


# The critical-difference picture -------------------------------------------------------------------


def test_the_picture_of_ranks_has_a_row_each_and_no_text_meets_another(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    scores = {f"method <{k}> & Sons": (generator.random(9) + 0.01 * k).tolist() for k in range(8)}
    scores["名" * 60] = generator.random(9).tolist()
    ranks = compare_ranks(scores)
    path = write_critical_difference(ranks, tmp_path / "ranks.svg")
    svg = Reader(path.read_text(encoding="utf-8"))
    rows = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="end">([^<]+)<', path.read_text(encoding="utf-8"))
    assert len(rows) == 9
    heights = [float(y) for _, y, _ in rows]
    assert np.diff(heights).min() >= 20  # px, of a font of 14 px
    # A letter takes 8.5 px of 14 px text on average, a wide one 14 px: names end inside the picture.
    assert all(sum(14 if ord(c) > 0x2E80 else 8.5 for c in name) < float(x) for x, _, name in rows)
    assert "method &lt;0&gt; &amp; Sons" in path.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in critical_difference_svg(ranks)
    label = next(value for tag, name, value in svg.attributes if name == "aria-label")
    assert f"{ranks.critical_difference:.2f}" in label
    assert "9 blocks" in label


def test_the_bars_stand_beside_the_classifiers_that_do_not_differ() -> None:
    scores = {name: [level + 0.001 * k for k in range(40)] for name, level in (("a", 3.0), ("b", 2.0), ("c", 1.0))}
    assert 'class="group"' not in critical_difference_svg(compare_ranks(scores))
    alike = {"a": [1.0, 2.0], "b": [2.0, 1.0]}
    assert critical_difference_svg(compare_ranks(alike)).count('class="group"') == 1
    assert "longer than the axis" in critical_difference_svg(compare_ranks(alike))
