"""What the user gets wrong: one message, exit code 2, nothing left behind. What is odd but usable works."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import scipy.io

import cli_example
from cli_example import (
    NORTH_UP,
    QUICK,
    UTM,
    Answer,
    Example,
    assert_refused,
    command_line,
    run_program,
    temporary_files,
    write_envi,
    write_tiff,
)

example, trained, one_thread = cli_example.example, cli_example.trained, cli_example.one_thread

CUBE = np.random.default_rng(0).integers(1, 1000, (5, 24, 24)).astype(np.int16)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(scene: Path, labels: Path, out: Path, *options: object) -> Answer:
    return command_line("run", scene, labels, "--out", out, *QUICK, *options)


# Scenes ------------------------------------------------------------------------------------------


def missing(folder: Path) -> Path:
    (folder / "scene.tif").touch()
    return folder / "scnee.tif"


def a_folder(folder: Path) -> Path:
    return folder


def empty(folder: Path) -> Path:
    (folder / "empty.tif").touch()
    return folder / "empty.tif"


def text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("a scene, honestly")
    return folder / "notes.txt"


def mat_without_cube(folder: Path) -> Path:
    scipy.io.savemat(folder / "flat.mat", {"flat": CUBE[0]})
    return folder / "flat.mat"


def mat_with_two_cubes(folder: Path) -> Path:
    scipy.io.savemat(folder / "two.mat", {"raw": CUBE.transpose(1, 2, 0), "corrected": CUBE.transpose(1, 2, 0)})
    return folder / "two.mat"


def mat_of_references(folder: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "cells.mat", "w", userblock_size=512) as file:
        inner = file.create_dataset("#refs#/a", data=CUBE)
        cells = file.create_dataset("cells", (1, 1, 2), dtype=h5py.ref_dtype)
        cells[0, 0, :] = [inner.ref, inner.ref]
        cells.attrs["MATLAB_class"] = np.bytes_("cell")
    return folder / "cells.mat"


def envi_too_short(folder: Path) -> Path:
    return write_envi(folder / "short", CUBE, lines=30)


def envi_too_long(folder: Path) -> Path:
    return write_envi(folder / "long", CUBE, lines=20)


def envi_without_samples(folder: Path) -> Path:
    return write_envi(folder / "incomplete", CUBE, samples=None)


def envi_of_unknown_type(folder: Path) -> Path:
    return write_envi(folder / "strange", CUBE, data_type=77)


def envi_of_complex_type(folder: Path) -> Path:
    return write_envi(folder / "complex", CUBE, data_type=6)


def complex_tiff(folder: Path) -> Path:
    return write_tiff(folder / "complex.tif", CUBE.astype(np.complex64))


def truncated_tiff(folder: Path) -> Path:
    path = write_tiff(folder / "cut.tif", CUBE)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def only_nodata(folder: Path) -> Path:
    return write_tiff(folder / "blank.tif", np.zeros_like(CUBE), nodata=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing, ("scnee.tif", "no such file", "Did you mean scene.tif")),
        (a_folder, ("folder", "Name the file")),
        (empty, ("empty.tif", "0 bytes", "expected")),
        (text, ("notes.txt", "unknown format", "found", "GeoTIFF")),
        (mat_without_cube, ("flat.mat", "flat (24 × 24", "expected")),
        (mat_with_two_cubes, ("two.mat", "several cubes", "raw", "corrected", "--variable")),
        (mat_of_references, ("cells.mat", "object references", "expected")),
        (envi_too_short, ("short.img", "found 5760 bytes", "expected 7200 bytes")),
        (envi_too_long, ("long.img", "found 5760 bytes", "expected 4800 bytes")),
        (envi_without_samples, ("incomplete.hdr", "samples")),
        (envi_of_unknown_type, ("strange.hdr", "unknown data type", "77", "expected one of 1, 2")),
        (envi_of_complex_type, ("complex.hdr", "complex", "magnitude")),
        (complex_tiff, ("complex.tif", "complex", "magnitude")),
        (truncated_tiff, ("cut.tif", "cut off", "2000 bytes", "Copy or download")),
        (only_nodata, ("blank.tif", "no finite value", "nodata")),
    ],
)
def test_a_scene_that_cannot_be_used_is_refused(
    make: Callable[[Path], Path],
    words: tuple[str, ...],
    tmp_path: Path,
    out: Path,
    example: Example,
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    scene = make(folder)
    assert_refused(run(scene, example.labels, out), *words, out=out)
    assert_refused(command_line("info", scene), *words)


def test_nan_and_infinity_are_nodata_counted_by_info_and_left_out_of_the_map(
    tmp_path: Path,
    out: Path,
    example: Example,
) -> None:
    cube = np.nan_to_num(example.cube, nan=0.2).astype(np.float32)
    cube[:, 0, :3], cube[4, 1, 0] = np.nan, np.inf
    scene = write_tiff(tmp_path / "holes.tif", cube)
    facts = json.loads(command_line("info", scene, "--json").out)
    assert (facts["nan_values"], facts["infinite_values"]) == (36, 1)
    answer = run(scene, example.labels, out)
    assert answer.code == 0, answer
    with rasterio.open(out / "map.tif") as classes:
        mapped = classes.read(1)
    assert not mapped[0, :3].any()
    assert mapped[1, 0] == 0
    assert (mapped == 0).sum() == 4


def test_a_constant_band_is_named_and_the_run_goes_on(tmp_path: Path, out: Path, example: Example) -> None:
    cube = np.nan_to_num(example.cube, nan=0.2).astype(np.float32)
    cube[2] = 0.5
    scene = write_tiff(tmp_path / "constant.tif", cube)
    assert "3: one constant value, 0.5" in command_line("info", scene).out
    assert run(scene, example.labels, out).code == 0


@pytest.mark.parametrize("bands", [1, 2000])
def test_a_scene_of_any_number_of_bands_runs(bands: int, tmp_path: Path, out: Path, example: Example) -> None:
    base = np.nan_to_num(example.cube, nan=0.2).astype(np.float32)
    cube = np.resize(base, (bands, 24, 24)) + np.linspace(0, 1, bands, dtype=np.float32)[:, None, None]
    answer = run(write_tiff(tmp_path / "scene.tif", cube), example.labels, out, "--split", "blocks")
    assert answer.code == 0, answer


# Labels ------------------------------------------------------------------------------------------


def label_tiff(folder: Path, ids: np.ndarray, **profile: Any) -> Path:
    return write_tiff(folder / "labels.tif", ids[None], **profile)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ids: np.zeros_like(ids), ("labels.tif", "no labelled pixel", "class raster")),
        (lambda ids: (ids > 0).astype(np.uint8), ("one class", "at least two classes")),
        (lambda ids: ids + np.float32(0.5), ("labels.tif", "whole numbers", "0.5")),
        (lambda ids: ids.astype(np.int16) - 2, ("labels.tif", "negative", "-2", "value 0")),
        (lambda ids: ids.astype(np.int32) * 50_000, ("labels.tif", "larger than 65535")),
        (lambda ids: ids.astype(np.complex64), ("labels.tif", "complex")),
    ],
    ids=["all zero", "one class", "fractions", "negative", "too large", "complex"],
)
@pytest.mark.parametrize("split", ["random", "blocks"])
def test_labels_that_are_no_class_ids_are_refused(
    change: Callable[[np.ndarray], np.ndarray],
    words: tuple[str, ...],
    split: str,
    tmp_path: Path,
    out: Path,
    example: Example,
) -> None:
    labels = label_tiff(tmp_path, change(example.ids))
    assert_refused(run(example.scene, labels, out, "--split", split), *words, out=out)


def test_labels_of_one_class_are_refused_when_all_of_them_train(tmp_path: Path, out: Path, example: Example) -> None:
    labels = label_tiff(tmp_path, (example.ids > 0).astype(np.uint8))
    answer = command_line("train", example.scene, labels, "--out", out, *QUICK, "--split", "none")
    assert_refused(answer, "labels.tif", "one class", "at least two", out=out)


def test_labels_of_another_shape_are_refused(tmp_path: Path, out: Path, example: Example) -> None:
    np.save(tmp_path / "labels.npy", example.ids[:20])
    words = ("labels.npy", "found 20 rows × 24 columns", "expected 24 rows × 24 columns")
    assert_refused(run(example.scene, tmp_path / "labels.npy", out), *words, out=out)


def test_labels_beside_the_grid_are_refused(tmp_path: Path, out: Path, example: Example) -> None:
    labels = label_tiff(tmp_path, example.ids, transform=NORTH_UP @ NORTH_UP.translation(0.4, 0))
    assert_refused(run(example.scene, labels, out), "labels.tif", "grid", "found", "expected", "gdalwarp", out=out)


def test_missing_labels_are_refused(tmp_path: Path, out: Path, example: Example) -> None:
    assert_refused(run(example.scene, tmp_path / "none.tif", out), "none.tif", "no such label file", out=out)


def test_a_class_with_one_label_trains_and_is_not_tested(tmp_path: Path, out: Path, example: Example) -> None:
    ids = example.ids.copy()
    row, column = np.argwhere(ids == 1)[0]
    ids[row, column] = 7
    answer = run(example.scene, label_tiff(tmp_path, ids), out)
    assert answer.code == 0, answer
    assert "Note: class 7 has 1 label: 1 for training, none for testing." in answer.out
    assert (
        next(entry for entry in json.loads((out / "scores.json").read_text())["per_class"] if entry["id"] == 7)[
            "recall"
        ]
        is None
    )


def test_more_training_pixels_than_labels_are_refused_and_fewer_are_noted(out: Path, example: Example) -> None:
    counts = np.bincount(example.ids.ravel())[1:]
    answer = run(example.scene, example.labels, out, "--per-class", 10_000)
    assert_refused(answer, "10000", f"class 1: {counts[0]}", "fewer", out=out)
    some = int(counts.min() * 3 // 4)
    answer = run(example.scene, example.labels, out, "--per-class", some)
    assert answer.code == 0, answer
    assert f"has {counts.min()} labels: {counts.min() // 2} for training" in answer.out


@pytest.fixture
def polygons(tmp_path: Path) -> Callable[..., Path]:
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")

    def write(name: str, crs: str | None = UTM, east: float = 0) -> Path:
        left, top = NORTH_UP.c + east, NORTH_UP.f
        shapes = [shapely.box(left + x, top - 200, left + x + 60, top - 20) for x in (60, 140)]
        table = {"crop": ["maize", "wheat"], "field": [1, 2], "geometry": shapes}
        geopandas.GeoDataFrame(table, crs=crs).to_file(tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_features_that_cannot_be_placed_are_refused(
    polygons: Callable[..., Path],
    out: Path,
    example: Example,
) -> None:
    no_crs = run(example.scene, polygons("a.shp", crs=None), out, "--label-column", "crop")
    assert_refused(no_crs, "a.shp", "no coordinate reference system", ".prj", out=out)
    no_column = run(example.scene, polygons("b.gpkg"), out, "--label-column", "corp")
    assert_refused(no_column, "b.gpkg", 'no column "corp"', "crop (maize, wheat)", "--label-column", out=out)
    elsewhere = run(example.scene, polygons("c.gpkg", east=1e5), out, "--label-column", "crop")
    assert_refused(elsewhere, "c.gpkg", "lies in the scene", "found", "expected", out=out)
    undecided = run(example.scene, polygons("d.gpkg"), out)
    assert_refused(undecided, "d.gpkg", "which column", "crop", "field", "--label-column", out=out)
    no_layer = run(example.scene, polygons("e.gpkg"), out, "--layer", "roads")
    assert_refused(no_layer, "e.gpkg", "roads", "--layer", out=out)


def test_features_train_and_the_chosen_column_is_used(
    polygons: Callable[..., Path],
    out: Path,
    example: Example,
) -> None:
    words = (example.scene, polygons("fields.gpkg"), out, "--label-column", "crop")
    assert_refused(run(*words), "every class lies in a single field", "second polygon", "at random", out=out)
    answer = run(*words, "--split", "random")
    assert answer.code == 0, answer
    assert "maize" in answer.out


# Settings and options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--patch", 4), ("found 4", "odd")),
        (("--patch", 0), ("found 0", "odd")),
        (("--patch", 25), ("wider than the scene", "25 × 25", "24 × 24", "smaller odd --patch")),
        (("--steps", 0), ("steps", "found 0", "at least 1")),
        (("--rare-classes", "balanced"), ("rare_classes", "found 'balanced'", "'balanced batches' or 'balanced loss'")),
        (("--set", "model_options.piece=0"), ("piece size R", "found 0", "expected 1 to")),
        (("--set", "model_options.piece=400"), ("piece size R", "found 400", "expected 1 to")),
        (("--set", "model_options.piece=big"), ("big",)),
        (("--set", "model_options.peice=4"), ("peice", "Did you mean 'piece'")),
        (("--set", "model_options.bands=4"), ("bands",)),
        (("--set", "optimiser.rate=4"), ("optimiser.rate", "model_options.name")),
        (("--set", "nosie=0.1"), ("nosie", "Did you mean 'noise'")),
        (("--set", "noise"), ("name=value", "'noise'", "--set noise=0.3")),
        (("--set", "noise=loud"), ("noise", "'loud'", "float")),
        (("--set", "noise=nan"), ("noise", "nan")),
        (("--model", "resnet"), ("unknown model", "resnet", "spectral_mamba or", "label_propagation", "or auto")),
        (("--model", "support_vector"), ("unknown model", "Did you mean 'support_vectors'?")),
        (("--model", "auto", "--set", "model_options.peice=4"), ("peice", "Did you mean 'piece'")),
        (("--preset", "huge"), ("preset", "huge", "default or paper")),
        (("--device", "abacus"), ("device", "abacus", "cpu")),
        (("--split", "blokcs"), ("unknown split", "'blokcs'", "Did you mean blocks?")),
        (("--split", "none"), ("nothing is left to score", "spectralmamba train")),
        (("--split", "masks"), ("two rasters", "--train-mask and --test-mask")),
        (("--split", "masks", "--train-mask", "m.tif"), ("two rasters", "Add --test-mask.")),
        (("--train-mask", "m.tif"), ("--train-mask", "--split masks", "--split random")),
        (("--block-size", 8), ("--block-size does not go with --split random", "blocks")),
        (("--split", "blocks", "--fraction", 0.5), ("--fraction does not go with", "--train-fraction")),
        (("--split", "blocks", "--block-size", 0), ("block_size=0", "1 or more")),
        (("--split", "columns", "--boundary", 24), ("boundary=24", "expected 1 to 23")),
        (("--split", "blocks", "--buffer", -1), ("buffer=-1", "0 or more")),
        (("--split", "blocks", "--train-fraction", 1), ("train_fraction=1", "less than 1")),
        (("--per-class", 5, "--fraction", 0.1), ("--per-class and --fraction",)),
        (("--per-class", 0), ("per_class=0", "1 or more")),
        (("--fraction", 2), ("fraction=2", "less than 1")),
        (("--seeds", "0,x"), ("--seeds", "'0,x'", "0,1,2")),
        (("--seeds", "1,1"), ("--seeds", "'1,1'", "different")),
        (("--seeds", "0,1", "--seed", 3), ("--seed and --seeds",)),
        (("--overwrite", "--resume"), ("--overwrite and --resume",)),
        (("--settings", "nowhere.toml"), ("nowhere.toml",)),
        (("--variable", "cube"), ("scene.tif", "--variable")),
        (("--label-column", "crop"), ("labels.tif", "--label-column crop")),
        (("--seed", -1), ("--seed",)),
        (("--patch", "wide"), ("--patch", "integer")),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    options: tuple[object, ...],
    words: tuple[str, ...],
    out: Path,
    example: Example,
) -> None:
    assert_refused(run(example.scene, example.labels, out, *options), *words, out=out)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("pacth = 3", ("s.toml", "pacth", "Did you mean 'patch'")),
        ("patch = three", ("s.toml", "not valid TOML", "line 1")),
        ("patch = 4", ("s.toml", "odd")),
        ('noise = "much"', ("s.toml", "noise", "much")),
        ("[model_options]\npiece = []", ("s.toml", "piece")),
        ("[model_options]\npeice = 3", ("peice", "piece")),
    ],
)
def test_a_settings_file_that_is_wrong_is_refused_with_its_name(
    toml: str,
    words: tuple[str, ...],
    tmp_path: Path,
    out: Path,
    example: Example,
) -> None:
    (tmp_path / "s.toml").write_text(toml)
    answer = command_line("run", example.scene, example.labels, "--out", out, "--settings", tmp_path / "s.toml")
    assert_refused(answer, *words, out=out)


def test_masks_that_overlap_or_lie_elsewhere_are_refused(tmp_path: Path, out: Path, example: Example) -> None:
    mask = label_tiff(tmp_path, example.ids)
    answer = run(example.scene, example.labels, out, "--split", "masks", "--train-mask", mask, "--test-mask", mask)
    assert_refused(answer, "overlap", "pixels in both", out=out)
    answer = run(
        example.scene, example.labels, out, "--split", "masks", "--train-mask", mask, "--test-mask", tmp_path / "no.tif"
    )
    assert_refused(answer, "no.tif", "no such", out=out)


# Output folders ----------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_not_touched(out: Path, example: Example) -> None:
    out.mkdir()
    (out / "thesis.docx").write_text("years of work")
    answer = run(example.scene, example.labels, out)
    assert_refused(answer, str(out), "holds files already", "--overwrite", "--resume")
    assert [path.name for path in out.iterdir()] == ["thesis.docx"]


def test_an_output_folder_that_cannot_be_made_is_refused(tmp_path: Path, example: Example) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(run(example.scene, example.labels, tmp_path / "file"), "file", "--out")
    assert_refused(run(example.scene, example.labels, tmp_path / "file" / "below"), "below", "cannot make")
    assert_refused(command_line("simulate", "--out", tmp_path / "file" / "below"), "below", "--out")


def test_an_output_folder_without_write_permission_is_refused(
    out: Path,
    example: Example,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out.mkdir()
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != out or mode != os.W_OK
    )  # root may write everywhere
    assert_refused(run(example.scene, example.labels, out), str(out), "not writable", "--out", out=out)


def test_a_map_is_not_written_over_or_into_nowhere(tmp_path: Path, trained: Path, example: Example) -> None:
    model = trained / "model.safetensors"
    for name in ("map.tif", "map_confidence.tif", "map_novelty.tif", "map_set_size.tif"):
        (tmp_path / name).write_text("precious")
        assert_refused(command_line("map", model, example.scene, "--out", tmp_path / "map.tif"), name, "--overwrite")
        assert (tmp_path / name).read_text() == "precious"
        (tmp_path / name).unlink()
    answer = command_line("map", model, example.scene, "--out", tmp_path / "no" / "map.tif")
    assert_refused(answer, "does not exist", "Create it")
    answer = command_line("evaluate", model, example.scene, example.labels, "--out", tmp_path / "no" / "s.json")
    assert_refused(answer, "does not exist", "Create it")


# Classifiers -------------------------------------------------------------------------------------


def test_a_classifier_file_that_is_not_whole_is_refused(tmp_path: Path, trained: Path, example: Example) -> None:
    whole = (trained / "model.safetensors").read_bytes()
    for name, content in {
        "cut": whole[:-100],
        "short": whole[:5],
        "empty": b"",
        "text": b"hello, I am a model",
    }.items():
        model = tmp_path / f"{name}.safetensors"
        model.write_bytes(content)
        answer = command_line("map", model, example.scene, "--out", tmp_path / "map.tif")
        assert_refused(answer, model.name, "not a whole safetensors file", f"{len(content)} bytes", "train again")
    answer = command_line("map", tmp_path / "none.safetensors", example.scene, "--out", tmp_path / "map.tif")
    assert_refused(answer, "none.safetensors", "no such file", "expected a model.safetensors")
    assert_refused(command_line("map", tmp_path, example.scene, "--out", tmp_path / "map.tif"), "folder")
    assert not list(tmp_path.glob("*map*"))


def test_a_classifier_for_other_bands_is_refused(tmp_path: Path, trained: Path, example: Example) -> None:
    model = trained / "model.safetensors"
    fewer = write_tiff(tmp_path / "fewer.tif", np.nan_to_num(example.cube[:7]).astype(np.float32))
    for command in (("map", model, fewer, "--out", tmp_path / "map.tif"), ("evaluate", model, fewer, example.labels)):
        assert_refused(command_line(*command), "fewer.tif", "number of bands", "found 7", "expected 12")
    shifted = tmp_path / "shifted.tif"
    shutil.copy(example.scene, shifted)
    with rasterio.open(shifted, "r+") as dataset:
        for band in dataset.indexes:
            dataset.update_tags(band, wavelength=float(dataset.tags(band)["wavelength"]) + 140)
    answer = command_line("map", model, shifted, "--out", tmp_path / "map.tif")
    assert_refused(answer, "shifted.tif", "does not measure", "no good band at 400 nm", "--allow-missing-range")
    assert not list(tmp_path.glob("*map*"))


# Reports -----------------------------------------------------------------------------------------


def test_a_report_needs_a_run(tmp_path: Path, trained: Path) -> None:
    assert_refused(command_line("report", tmp_path), "scores.json", "spectralmamba run")
    assert_refused(command_line("report", tmp_path / "none"), "no such folder", "spectralmamba run")
    assert_refused(command_line("report", trained), "scores.json", "spectralmamba run")
    for broken in ("{", "[]", "{}", '{"overall_accuracy": 1}'):
        (tmp_path / "scores.json").write_text(broken)
        assert_refused(command_line("report", tmp_path), "scores.json", "cannot be used for the report")
    (tmp_path / "summary.json").write_text("{")
    assert_refused(command_line("report", tmp_path), "summary.json", "cannot be used for the report")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.json", "summary.json"]


# No space ----------------------------------------------------------------------------------------


def limited(size: int) -> Callable[[], None]:
    """No file may grow beyond `size` bytes, which programs see like a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_map_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path, trained: Path, example: Example) -> None:
    out = tmp_path / "out"
    out.mkdir()
    answer = run_program(
        "map", trained / "model.safetensors", example.scene, "--out", out / "map.tif", preexec_fn=limited(10_000)
    )
    assert_refused(answer, "map.tif", "bytes free", "Free some space", out=out)


def test_a_run_that_does_not_fit_on_the_disk_keeps_whole_files_only(out: Path, example: Example) -> None:
    answer = run_program("run", example.scene, example.labels, "--out", out, *QUICK, preexec_fn=limited(4000))
    assert_refused(answer, "Free some space")
    assert not (out / "model.safetensors").exists()
    assert not (out / "map.tif").exists()
    assert not temporary_files(out)


def test_a_simulated_scene_that_does_not_fit_on_the_disk_leaves_nothing(out: Path) -> None:
    size = ("--rows", 64, "--columns", 64, "--bands", 20)
    answer = run_program("simulate", "--out", out, *size, preexec_fn=limited(20_000))
    assert_refused(answer, "scene.tif", "no space left", "bytes free", "Free some space", out=out)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_nothing_under_a_final_name(small_disk: Path, trained: Path, example: Example) -> None:
    answer = command_line("map", trained / "model.safetensors", example.scene, "--out", small_disk / "map.tif")
    assert_refused(answer, "map.tif", "bytes free", "Free some space", out=small_disk)
    (small_disk / "ballast").write_bytes(bytes(small_disk_free(small_disk)))
    answer = run(example.scene, example.labels, small_disk / "out")
    assert_refused(answer, "space")
    assert [path.name for path in (small_disk / "out").iterdir() if path.stat().st_size == 0] in ([], ["log.jsonl"])
    assert not temporary_files(small_disk)


def small_disk_free(folder: Path) -> int:
    return shutil.disk_usage(folder).free - 8192


def test_a_defect_of_the_program_is_told_apart_from_a_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectralmamba.scenes.open_scene", lambda *_, **__: 1 / 0, raising=False)
    answer = command_line("info", "scene.tif")
    assert answer.code == 1
    assert "ZeroDivisionError" in answer.err
    assert "defect of spectralmamba" in answer.err
