"""An ONNX model maps scenes as its classifier does; other files and other scenes are refused."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from sharing_example import IDS, KINDS, Made

from cli_example import assert_refused, command_line
from spectralmamba import Classifier, map_scene
from spectralmamba.errors import ClassifierError, MissingPackageError, SettingsError
from spectralmamba.scenes.writing import write_scene
from spectralmamba.sharing import OnnxClassifier, load_classifier

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

KIND = "default, label propagation beside"


def read(file: Path) -> np.ndarray:
    with rasterio.open(file) as opened:
        return opened.read(1)


@pytest.fixture
def changed(made: Made, tmp_path: Path) -> Callable[[Callable[[Any, dict[str, Any]], None]], Path]:
    """Writes an ONNX model with another graph or card."""

    def write(change: Callable[[Any, dict[str, Any]], None]) -> Path:
        model = onnx.load(made.onnx("support vectors"))
        card = json.loads(model.metadata_props[0].value)
        change(model, card)
        if model.metadata_props:
            model.metadata_props[0].value = json.dumps(card)
        file = tmp_path / "changed.onnx"
        file.write_bytes(model.SerializeToString())
        return file

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_its_maps_are_those_of_the_classifier(made: Made, kind: str, tmp_path: Path, small_blocks: int):
    expected = map_scene(made.classifier(kind), made.scene, tmp_path / "torch.tif")
    files = map_scene(load_classifier(made.onnx(kind)), made.scene, tmp_path / "onnx.tif", tile=8)
    assert np.mean(read(files.classes) == read(expected.classes)) >= 0.9999
    np.testing.assert_allclose(read(files.confidence), read(expected.confidence), atol=1e-4)
    assert set(np.unique(read(files.classes))) <= {0, *IDS.values()}
    assert not read(files.classes)[3:5, 8:11].any()
    assert files.novelty is files.set_size is None
    again = map_scene(load_classifier(made.onnx(kind)), made.scene, tmp_path / "again.tif", workers=2)
    assert again.classes.read_bytes() == files.classes.read_bytes()
    assert again.confidence.read_bytes() == files.confidence.read_bytes()


def test_the_command_line_maps_with_it_and_says_what_it_does_not_tell(made: Made, tmp_path: Path):
    write_scene(made.scene, tmp_path / "scene.tif")
    model = tmp_path / "model.onnx"
    made.classifier(KIND).save(tmp_path / "model.safetensors")
    answer = command_line(
        "export", tmp_path / "model.safetensors", "--onnx", model, "--torch-export", tmp_path / "m.pt2"
    )
    assert answer.code == 0, answer
    assert (tmp_path / "m.pt2").is_file()
    answer = command_line("map", model, tmp_path / "scene.tif", "--out", tmp_path / "map.tif")
    assert answer.code == 0, answer
    assert "no novelty and no prediction sets" in answer.out
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), made.classifier(KIND).predict(made.scene))
    assert not (tmp_path / "map_novelty.tif").exists()


def test_the_command_line_exports_over_no_file_and_not_nothing(made: Made, tmp_path: Path):
    model = tmp_path / "model.safetensors"
    made.classifier(KIND).save(model)
    before = model.read_bytes()
    assert_refused(command_line("export", model), "nothing is asked for", "--onnx")
    assert_refused(command_line("export", model, "--onnx", model, "--overwrite"), "would replace the classifier")
    (tmp_path / "there.onnx").write_text("precious")
    assert_refused(command_line("export", model, "--onnx", tmp_path / "there.onnx"), "exists", "--overwrite")
    assert_refused(command_line("export", model, "--onnx", tmp_path / "none" / "a.onnx"), "folder does not exist")
    assert model.read_bytes() == before


def test_a_scene_of_another_sensor_is_resampled_and_one_without_wavelengths_is_refused(made: Made):
    torch_model, model = made.classifier(KIND), load_classifier(made.onnx(KIND))
    coarse = made.scene.isel(band=slice(None, None, 2))
    options = {"allow_missing_range": True}
    expected = torch_model.predict_proba(coarse, **options)
    np.testing.assert_allclose(model.predict_proba(coarse, **options), expected, atol=1e-4)
    nameless = coarse.assign_coords(wavelength=("band", np.full(coarse.sizes["band"], np.nan)))
    with pytest.raises(ClassifierError, match="another number of bands"):
        model.predict(nameless)
    with pytest.raises(ClassifierError, match="other units"):
        model.predict((coarse * 1e4).assign_attrs(coarse.attrs), **options)


def test_what_it_is_stays_with_it(made: Made, tmp_path: Path):
    model, original = load_classifier(made.onnx(KIND)), made.classifier(KIND)
    assert isinstance(model, OnnxClassifier)
    assert model.card == original.card
    assert model.class_colors == original.class_colors
    model.save(tmp_path / "model.safetensors")  # as a cluster's workers find it
    again = load_classifier(tmp_path / "model.safetensors")
    assert again.fingerprint() == model.fingerprint() != load_classifier(made.onnx("support vectors")).fingerprint()
    sent = pickle.loads(pickle.dumps(model))
    xr.testing.assert_identical(sent.predict_proba(made.scene), model.predict_proba(made.scene))
    with pytest.raises(ClassifierError, match="no prediction sets"):
        model.predict_sets(made.scene)
    with pytest.raises(ClassifierError, match="not pushed"):
        model.push_to_hub("owner/name")


def test_a_scene_that_dask_holds_is_classified_when_it_is_asked_for(made: Made):
    pytest.importorskip("dask")
    model = load_classifier(made.onnx(KIND))
    lazy = model.predict(made.scene.chunk({"y": 16, "x": 16}))
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy, model.predict(made.scene))


def test_files_of_another_kind_are_refused(tmp_path: Path, made: Made):
    (tmp_path / "text.onnx").write_text("no model")
    for file, words in (
        (tmp_path / "text.onnx", "not an ONNX model that can be run"),
        (tmp_path / "none.onnx", "cannot read the model"),
        (tmp_path / "none.safetensors", "no such file"),
    ):
        with pytest.raises(ClassifierError, match=words) as refused:
            load_classifier(file)
        assert str(file) in str(refused.value)
    content = made.onnx(KIND).read_bytes()
    for length in (0, 8, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.onnx").write_bytes(content[:length])
        with pytest.raises(ClassifierError):
            load_classifier(tmp_path / "cut.onnx")
    assert type(load_classifier(made.folder / f"{KIND}.safetensors", "cpu")) is Classifier


def _without_card(model: Any, card: dict[str, Any]) -> None:
    del model.metadata_props[:]


def _other_card(model: Any, card: dict[str, Any]) -> None:
    card["format"] = "another/1"


def _fewer_bands(model: Any, card: dict[str, Any]) -> None:
    card["bands"]["used"] = card["bands"]["used"][1:]


def _fewer_classes(model: Any, card: dict[str, Any]) -> None:
    card["classes"] = card["classes"][1:]


def _other_patch(model: Any, card: dict[str, Any]) -> None:
    card["model"]["patch"] = 3


def _unsorted_classes(model: Any, card: dict[str, Any]) -> None:
    card["classes"].reverse()


def _other_input(model: Any, card: dict[str, Any]) -> None:
    for node in model.graph.node:
        node.input[:] = ["image" if name == "spectra" else name for name in node.input]
    model.graph.input[0].name = "image"


def _without_transform(model: Any, card: dict[str, Any]) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "transform.mean":
            tensor.name = "renamed"
    for node in model.graph.node:
        node.input[:] = ["renamed" if name == "transform.mean" else name for name in node.input]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_card, "the file has no card.*spectralmamba export"),
        (_other_card, "unknown kind of classifier.*another/1"),
        (_fewer_bands, "does not describe the model"),
        (_fewer_classes, "does not fit its card.*'classes': 3.*'classes': 2"),
        (_other_patch, "does not fit its card.*'patch': 1.*'patch': 3"),
        (_unsorted_classes, "does not describe the model.*class ids"),
        (_other_input, "does not fit its card"),
        (_without_transform, "does not describe the model.*mean"),
    ],
)
def test_a_model_that_does_not_fit_its_card_is_refused(
    changed: Callable[[Callable[[Any, dict[str, Any]], None]], Path], change: Callable[..., None], words: str
):
    with pytest.raises(ClassifierError, match=f"(?s)changed.onnx: .*{words}"):
        load_classifier(changed(change))


def test_it_computes_on_the_cpu_alone(made: Made):
    for device in ("cuda", "mps"):
        with pytest.raises(SettingsError, match="ONNX model computes on the CPU"):
            load_classifier(made.onnx(KIND), device)
        with pytest.raises(SettingsError, match="ONNX model computes on the CPU"):
            load_classifier(made.onnx(KIND)).to(device)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(made: Made, package: str, monkeypatch: pytest.MonkeyPatch):
    file = made.onnx(KIND)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"package {package};.*spectralmamba\[onnx\]"):
        load_classifier(file)
