from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from all_products import KNOWN, SEVEN, pack
from make_aviris import make_aviris_envi
from make_desis import make_desis
from make_emit import NAME as EMIT_NAME
from make_emit import make_emit
from make_enmap import STEM, make_enmap
from make_prisma import NAME, make_prisma

from spectralmamba import fit, split_random
from spectralmamba.archive import find_scenes, map_scenes, names_several
from spectralmamba.cli import main
from spectralmamba.errors import SceneError
from spectralmamba.scenes import open_scene
from spectralmamba.scenes.scene import file_state


def command_line(capsys, monkeypatch, *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["spectralmamba", *map(str, words)])
    monkeypatch.setenv("COLUMNS", "300")
    try:
        main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0
    read = capsys.readouterr()
    return code, " ".join((read.out + read.err).split())


def cloud() -> np.ndarray:
    layer = np.zeros((8, 10), np.uint8)
    layer[2, 2:5] = 1
    return layer


def test_info_says_sensor_level_and_what_is_masked(tmp_path, capsys, monkeypatch):
    make_enmap(tmp_path, layers={"CLOUD": cloud()})
    code, out = command_line(capsys, monkeypatch, "info", tmp_path)
    assert code == 0
    for words in (
        "sensor EnMAP L2A",
        "background 8, cloud 3, shadow 0",
        "absorbed by water vapour",
        "the other detector",
    ):
        assert words in out
    code, out = command_line(
        capsys, monkeypatch, "info", tmp_path, "--keep", "cloud", "--keep", "snow", "--water-bands"
    )
    assert "kept: cloud, snow" in out
    assert "absorbed by water vapour" not in out
    code, out = command_line(capsys, monkeypatch, "info", tmp_path, "--json")
    found = json.loads(out)
    assert (found["sensor"], found["product_level"], found["masks"]["cloud"]) == ("EnMAP", "L2A", 3)


def test_info_says_where_the_maps_of_a_swath_lie(tmp_path, capsys, monkeypatch):
    make_emit(tmp_path)
    assert "maps are put on the product's map grid" in command_line(capsys, monkeypatch, "info", tmp_path)[1]


def test_what_is_no_product_takes_no_masks(tmp_path):
    np.save(tmp_path / "scene.npy", np.random.default_rng(0).normal(size=(3, 4, 5)))
    for options in ({"keep": ["cloud"]}, {"water_bands": True}):
        with pytest.raises(SceneError, match="masks and water bands are those of products"):
            open_scene(tmp_path / "scene.npy", **options)
    with pytest.raises(SceneError, match="there is no such mask; found 'clouds'; expected cloud, shadow"):
        open_scene(tmp_path / "scene.npy", keep=["clouds"])
    make_enmap(tmp_path / "enmap")
    with pytest.raises(SceneError, match="a variable means nothing for this file"):
        open_scene(tmp_path / "enmap", variable="x")


def test_a_folder_without_product_and_a_foreign_hdf5_file_are_refused(tmp_path):
    import h5py

    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SceneError, match="is a folder"):
        open_scene(tmp_path)
    with pytest.raises(SceneError, match="is a folder"):
        open_scene(tmp_path, format="enmap")
    with h5py.File(tmp_path / "scene.h5", "w") as file:
        file["something"] = [1]
    with pytest.raises(SceneError, match="this HDF5 file is of no known product; found something"):
        open_scene(tmp_path / "scene.h5")
    with pytest.raises(SceneError, match="this is not EnMAP L2A"):
        open_scene(tmp_path / "scene.h5", format="enmap")


def test_a_scene_is_known_by_its_main_file(tmp_path):
    made = make_enmap(tmp_path)
    state = file_state(open_scene(tmp_path))
    assert state["source"] == str(made.image)
    assert state["bytes"] == made.image.stat().st_size


def test_folders_of_products_are_scenes_and_their_other_files_are_none(tmp_path):
    make_enmap(tmp_path / "flat")
    make_enmap(tmp_path / "flat", stem=STEM.replace("_002_", "_003_"))
    make_prisma(tmp_path / "flat")
    make_emit(tmp_path / "flat")
    make_aviris_envi(tmp_path / "flat")
    found = [path.rpartition("/")[2] for path in find_scenes([tmp_path / "flat"])]
    assert len(found) == 5
    assert not [name for name in found if "QL_" in name or "METADATA" in name]
    for name in ("a", "b"):
        make_desis(tmp_path / "archive" / name)
    assert find_scenes([tmp_path / "archive"]) == [str(tmp_path / "archive" / name) for name in ("a", "b")]
    assert not names_several(tmp_path / "archive" / "a")
    assert names_several(tmp_path / "archive")


def test_zips_of_products_are_scenes_of_a_folder_unless_they_lie_there_unpacked(tmp_path):
    folder = tmp_path / "archive"
    make_desis(folder / "desis")
    pack(folder / "desis.zip", folder / "desis")  # unpacked beside it
    make_emit(folder)
    make_prisma(folder)
    pack(folder / "flat.zip", make_prisma(tmp_path / "same").path.parent)  # unpacked into the folder itself
    pack(folder / "enmap.zip", make_enmap(tmp_path / "enmap").folder)
    pack(folder / "twice.zip", tmp_path / "enmap", inside="")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "fields.shp").write_bytes(b"x")
    pack(folder / "fields.zip", tmp_path / "others")
    (folder / "cut.zip").write_bytes((folder / "enmap.zip").read_bytes()[:5000])
    found = [path.rpartition("/")[2] for path in find_scenes([folder])]
    assert sorted(found) == sorted([f"{EMIT_NAME}.nc", f"{NAME}.he5", "cut.zip", "desis", "enmap.zip"])


def labelled(scene):
    labels = scene[0].copy(data=np.zeros(scene.shape[1:], np.int32)).drop_vars("band")
    labels.values[:, 1:5], labels.values[:, 5:] = 1, 2
    labels.attrs = {"class_names": {1: "a", 2: "b"}, "class_colors": {1: "#ff0000", 2: "#00ff00"}, "report": {}}
    return labels


def test_a_map_of_a_product_lies_where_it_lies_and_leaves_out_what_is_masked(tmp_path, quick):
    make_enmap(tmp_path / "archive" / "scene", layers={"CLOUD": cloud()})
    scene = open_scene(tmp_path / "archive" / "scene", keep=["cloud"])
    classifier = fit(scene, labelled(scene), split_random(labelled(scene), per_class=4, patch=3), quick, device="cpu")
    (outcome,) = map_scenes(classifier, find_scenes([tmp_path / "archive"]), tmp_path / "maps")
    assert outcome.outcome == "mapped", outcome.reason
    with rasterio.open(outcome.map) as raster:
        ids = raster.read(1)
        assert raster.transform == scene.rio.transform()
    np.testing.assert_array_equal(ids == 0, (cloud() == 1) | (np.arange(10) == 0))
    (tmp_path / "zips").mkdir()
    pack(tmp_path / "zips" / "scene.zip", tmp_path / "archive" / "scene")
    (zipped,) = map_scenes(classifier, find_scenes([tmp_path / "zips"]), tmp_path / "maps of zips")
    assert zipped.outcome == "mapped", zipped.reason
    with rasterio.open(zipped.map) as raster:
        np.testing.assert_array_equal(raster.read(1), ids)


@pytest.mark.parametrize("name", SEVEN)
def test_two_products_in_one_folder_are_refused_and_named(tmp_path, name):
    KNOWN[name].make(tmp_path)
    for path in list(tmp_path.iterdir()):  # another acquisition
        other = (
            path.name.replace("2022", "2021").replace("2019", "2018").replace("2020", "2021").replace("2025", "2024")
        )
        assert other != path.name
        shutil.copy(path, tmp_path / other)
    with pytest.raises(SceneError, match=r"holds several products; found .*, .*; expected one product"):
        open_scene(tmp_path)


def call_all_bands_bad(name, folder):
    """Let the product itself say so."""
    import h5py

    if name == "enmap":
        (path,) = folder.glob("*METADATA.XML")
        path.write_text(path.read_text().replace("<stdDeviation>800.5<", "<stdDeviation>0<"))
    elif name == "aviris-ng":
        (path,) = folder.glob("*.hdr")
        path.write_text(path.read_text() + f"bbl = {{{', '.join(['0'] * 425)}}}\n")
    else:
        path = max(folder.glob("*.nc"), key=lambda file: "RFL" in file.name)
        with h5py.File(path, "r+") as file:
            group = file["sensor_band_parameters" if name == "emit" else "reflectance"]
            group.pop("good_wavelengths", None)
            group["good_wavelengths"] = np.zeros(len(group["fwhm"]), np.float32)


@pytest.mark.parametrize("name", ["enmap", "emit", "aviris-ng", "aviris-3", "aviris-5"])
def test_a_product_whose_bands_are_all_bad_is_refused(tmp_path, name):
    KNOWN[name].make(tmp_path)
    call_all_bands_bad(name, tmp_path)
    with pytest.raises(SceneError, match="no band of the scene can be used"):
        open_scene(tmp_path)


@pytest.mark.parametrize("name", ["enmap", "desis"])
def test_metadata_without_a_band_are_refused(tmp_path, name):
    KNOWN[name].make(tmp_path)
    (path,) = (path for path in tmp_path.iterdir() if "METADATA" in path.name)
    text = path.read_text()
    start, end = text.index("<bandCharacterisation>"), text.index("</bandCharacterisation>")
    path.write_text(text[:start] + "<bandCharacterisation>" + text[end:])
    with pytest.raises(SceneError, match="describes no band; found no specific/bandCharacterisation"):
        open_scene(tmp_path)


def test_importing_the_package_and_opening_a_tiff_import_no_hdf5(tmp_path):
    make_enmap(tmp_path)
    check = (
        "import sys; from spectralmamba.scenes import open_scene\n"
        f"open_scene({str(tmp_path)!r})\n"
        "print([name for name in ('h5py', 'torch', 'zarr', 'scipy.io') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
