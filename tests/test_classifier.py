from __future__ import annotations

import ast
import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import spectralmamba
from spectralmamba import Classifier
from spectralmamba.classifier import FORMAT
from spectralmamba.errors import ClassifierError, SettingsError
from spectralmamba.runs import peak_memory

Card = dict[str, Any]


def read(path: Path) -> tuple[Card, dict[str, Tensor]]:
    with safe_open(path, framework="pt") as opened:
        return json.loads(opened.metadata()["card"]), {name: opened.get_tensor(name) for name in opened.keys()}


@pytest.fixture
def damage(classifier_file: Path) -> Callable[[Callable[[Card, dict[str, Tensor]], None]], Path]:
    """Rewrites a classifier's file with changed parts."""

    def rewrite(change: Callable[[Card, dict[str, Tensor]], None]) -> Path:
        card, tensors = read(classifier_file)
        change(card, tensors)
        save_file(tensors, classifier_file, {"card": json.dumps(card)})
        return classifier_file

    return rewrite


def assert_refused(path: Path) -> ClassifierError:
    with pytest.raises(ClassifierError) as refused:
        Classifier.load(path, "cpu")
    assert str(path) in str(refused.value)
    return refused.value


def test_a_loaded_classifier_predicts_the_same_and_is_saved_as_the_same_bytes(
    classifier: Classifier, classifier_file: Path, small_scene: xr.DataArray, tmp_path: Path
):
    again = Classifier.load(classifier_file, "cpu")
    xr.testing.assert_identical(again.predict_proba(small_scene), classifier.predict_proba(small_scene))
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == classifier_file.read_bytes()
    assert again.card == classifier.card
    assert not again.network.training


def test_the_card_tells_what_the_classifier_is(classifier: Classifier):
    card = classifier.card
    assert card["format"] == FORMAT
    assert [entry["name"] for entry in card["classes"]] == ["winter wheat", "winter barley", "maize"]
    assert card["bands"]["count"] == 20
    assert card["settings"]["steps"] == 6
    assert card["split"]["method"] == "random"
    assert card["model"]["parameters"] == sum(p.numel() for p in classifier.network.parameters())
    json.dumps(card, allow_nan=False)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    assert "no such file" in str(assert_refused(tmp_path / "none.safetensors"))
    assert "folder" in str(assert_refused(tmp_path))


@pytest.mark.parametrize("content", [b"", b"x", b"This is a text file, not a classifier.\n" * 10, b"\xff" * 64])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert_refused(path)


def test_a_pickle_under_the_name_is_refused_and_not_run(tmp_path: Path):
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was run",))

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Harmful()))
    assert_refused(path)
    torch.save({"weights": Harmful()}, path)
    assert_refused(path)
    assert not (tmp_path / "was run").exists()


def test_a_file_cut_anywhere_is_refused(classifier_file: Path):
    content = classifier_file.read_bytes()
    for sixteenth in range(16):
        classifier_file.write_bytes(content[: len(content) * sixteenth // 16])
        assert_refused(classifier_file)
    classifier_file.write_bytes(content[:-1])
    assert_refused(classifier_file)
    classifier_file.write_bytes(content + b"x")
    assert_refused(classifier_file)


NAME = "network.network.head.bias"


def _nothing(_: Card, tensors: dict[str, Tensor]) -> None:
    del tensors[NAME]


def _spoilt(value: float) -> Callable[[Card, dict[str, Tensor]], None]:
    def change(_: Card, tensors: dict[str, Tensor]) -> None:
        tensors[NAME][0] = value

    return change


def _without(name: str) -> Callable[[Card, dict[str, Tensor]], None]:
    return lambda _, tensors: tensors.__delitem__(name)


def _replaced(name: str, tensor: Tensor) -> Callable[[Card, dict[str, Tensor]], None]:
    return lambda _, tensors: tensors.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_nothing, NAME),
        (_spoilt(np.nan), "NaN"),
        (_spoilt(np.inf), "infinity"),
        (_replaced(NAME, torch.zeros(4)), NAME),
        (_replaced(NAME, torch.zeros(3, dtype=torch.int64)), NAME),
        (_replaced(NAME, torch.zeros(3, dtype=torch.float16)), NAME),
        (_replaced("network.more", torch.zeros(1)), "network.more"),
        (_replaced("transform.more", torch.zeros(1)), "transform.more"),
        (_replaced("more", torch.zeros(1)), "more"),
        (_replaced("transform.mean", torch.full((17,), torch.nan)), "NaN"),
        (_replaced("network.companion.blunt.support", torch.zeros(1, 17)), "network.companion.blunt.support"),
        (_replaced("network.companion.sharp.gamma", torch.tensor(torch.nan)), "NaN"),
        (_without("novelty.levels"), "novelty.levels"),
        (_without("novelty.means"), "novelty.means"),
        (_without("novelty.projection"), "novelty.projection"),
        (_replaced("novelty.levels", torch.zeros(1000)), "novelty.levels"),
        (_replaced("novelty.means", torch.zeros(4, 17)), "novelty.means"),
        (_replaced("novelty.projection", torch.zeros(17, 18)), "novelty.projection"),
        (_replaced("novelty.levels", torch.zeros(1001, dtype=torch.float64)), "novelty.levels"),
        (_replaced("novelty.more", torch.zeros(1)), "novelty.more"),
        (_replaced("novelty.means", torch.full((3, 17), torch.nan)), "NaN"),
        (_without("sets.threshold"), "sets.threshold"),
        (_replaced("sets.threshold", torch.tensor(torch.nan)), "NaN"),
        (_replaced("sets.more", torch.zeros(1)), "sets.more"),
    ],
    ids=["missing", "NaN", "infinity", "shape", "integer", "half", "network", "transform", "stranger", "NaN mean",
         "companion", "NaN companion", "no levels", "no means", "no projection", "levels", "means", "projection", "double",
         "novelty", "NaN novelty", "no threshold", "NaN threshold", "sets"],
)  # fmt: skip
def test_tensors_that_do_not_fit_the_card_are_refused(damage: Any, change: Any, told: str):
    assert told in str(assert_refused(damage(change)))


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"card"', "[" * 100_000, '{"format": "other/1"}', "{}"])
def test_a_card_that_is_not_one_is_refused(classifier_file: Path, text: str):
    _, tensors = read(classifier_file)
    save_file(tensors, classifier_file, {"card": text})
    assert_refused(classifier_file)


def test_a_safetensors_file_without_card_is_refused(classifier_file: Path):
    _, tensors = read(classifier_file)
    save_file(tensors, classifier_file)
    assert "no card" in str(assert_refused(classifier_file))


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in nested JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [deeper for key, part in inner for deeper in paths_of(part, (*path, key))]


NEEDED = ("format", "classes", "bands", "model", "versions", "prediction_sets")


def test_a_card_without_any_of_its_keys_is_refused(classifier_file: Path):
    card, tensors = read(classifier_file)
    for key in card.keys() - {"self_training", "choice", "labels"}:  # which older files lack
        save_file(tensors, classifier_file, {"card": json.dumps({k: v for k, v in card.items() if k != key})})
        assert_refused(classifier_file)


@pytest.mark.parametrize("value", [None, -1, "x", [], {}, 1.5, 10**9], ids=repr)
def test_a_card_with_a_wrong_value_anywhere_is_refused_or_still_maps(
    classifier_file: Path, small_scene: xr.DataArray, value: Any
):
    card, tensors = read(classifier_file)
    refusals: dict[tuple[Any, ...], str] = {}
    for place in paths_of({key: card[key] for key in NEEDED}):
        if len(place) > 2 and place[1] in ("fwhm", "wavelength") and place[2] > 0:
            continue  # one of each will do
        changed = copy.deepcopy(card)
        part = changed
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value
        save_file(tensors, classifier_file, {"card": json.dumps(changed)})
        try:
            classifier = Classifier.load(classifier_file, "cpu")
        except ClassifierError as error:
            refusals[place] = str(error)
            continue
        try:
            classifier.predict(small_scene)
        except ClassifierError:
            assert place[:2] in {("bands", "wavelength")}, place
    assert refusals
    assert {place for place, told in refusals.items() if str(classifier_file) not in told} == set()


def test_absurd_sizes_are_refused_without_being_allocated(damage: Any, classifier_file: Path):
    before = peak_memory()
    original = classifier_file.read_bytes()
    for where, value in (
        (("bands", "count"), 10**9),
        (("bands", "used"), [10**9]),
        (("model", "options"), {"width": 10**9}),
        (("model", "options"), {"states": 10**12}),
        (("model", "options"), {"expansion": 10**15}),
        (("model", "patch"), 10**9),
    ):
        classifier_file.write_bytes(original)
        assert_refused(damage(lambda card, _, where=where, value=value: card[where[0]].update({where[1]: value})))
    after = peak_memory()
    if before is not None and after is not None:
        assert after - before < 100 << 20  # 10⁹ float32 values would be 4 GB


def test_a_scene_with_other_bands_is_refused(classifier: Classifier, small_scene: xr.DataArray):
    with pytest.raises(ClassifierError, match="found 19; expected 20"):
        classifier.check_scene(small_scene[:-1])
    other = small_scene.assign_coords(wavelength=("band", small_scene["wavelength"].values + 1.5))
    with pytest.raises(ClassifierError, match=r"20 bands lie at other wavelengths.*band 1.*401\.50 nm.*400\.00 nm"):
        classifier.check_scene(other)
    unknown = small_scene.assign_coords(wavelength=("band", np.full(20, np.nan)))
    with pytest.raises(ClassifierError, match=r"found 19; expected 20.*need wavelengths"):
        classifier.predict(unknown[:-1])


def test_wavelengths_within_a_nanometre_or_unknown_pass(classifier: Classifier, small_scene: xr.DataArray):
    near = small_scene.assign_coords(wavelength=("band", small_scene["wavelength"].values + 0.9))
    unknown = small_scene.assign_coords(wavelength=("band", np.full(20, np.nan)))
    expected = classifier.predict(small_scene).values
    for scene in (near, unknown):
        np.testing.assert_array_equal(classifier.predict(scene).values, expected)


def test_a_scene_whose_needed_band_holds_no_data_is_refused(classifier: Classifier, small_scene: xr.DataArray):
    bad = next(int(number) for number in np.flatnonzero(~small_scene["good"].values) + 1)
    small_scene.attrs["bad_band_reasons"] = {bad: "only nodata"}
    classifier.predict(small_scene)  # a band that it does not use
    small_scene.attrs["bad_band_reasons"] = {2: "only nodata"}
    small_scene = small_scene.assign_coords(wavelength=("band", np.full(20, np.nan)))  # else it would be resampled
    with pytest.raises(ClassifierError, match=r"hold no data.*\[2\]"):
        classifier.predict(small_scene)


def test_prediction_lies_on_the_scenes_grid(classifier: Classifier, small_scene: xr.DataArray):
    classes, probabilities = classifier.predict(small_scene), classifier.predict_proba(small_scene)
    for result in (classes, probabilities):
        assert result.rio.crs == small_scene.rio.crs
        assert result.rio.transform() == small_scene.rio.transform()
        np.testing.assert_array_equal(result["x"], small_scene["x"])
        np.testing.assert_array_equal(result["y"], small_scene["y"])
    assert classes.dims == ("y", "x")
    assert classes.dtype == np.uint16
    assert probabilities.dims == ("class", "y", "x")
    assert probabilities["class"].values.tolist() == [1, 2, 3]
    assert classes.attrs["class_names"][3] == "maize"


def test_probabilities_sum_to_one_and_are_nan_exactly_at_nodata(classifier: Classifier, small_scene: xr.DataArray):
    probabilities, classes = classifier.predict_proba(small_scene), classifier.predict(small_scene)
    valid = np.isfinite(small_scene.values).all(0)
    assert 0 < valid.sum() < valid.size
    np.testing.assert_array_equal(np.isfinite(probabilities.values), np.broadcast_to(valid, probabilities.shape))
    # Three float32 summands.
    np.testing.assert_allclose(probabilities.values[:, valid].sum(0), 1, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(classes.values > 0, valid)
    best = probabilities["class"].values[probabilities.values[:, valid].argmax(0)]
    np.testing.assert_array_equal(classes.values[valid], best)


@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_the_batch_size_does_not_matter(classifier: Classifier, small_scene: xr.DataArray, batch_size: int):
    (tile,) = classifier.tiles(small_scene, batch_size=batch_size)
    # Matrix products of another size add in another order: float32's 6e-8 times some dozen summands.
    np.testing.assert_allclose(tile.probabilities, classifier.predict_proba(small_scene).values, rtol=0, atol=1e-6)


def novelty_of(classifier: Classifier, scene: xr.DataArray, **options: int) -> np.ndarray:
    found = np.full(scene.shape[1:], -1, np.float32)
    for tile in classifier.tiles(scene, **options):
        assert tile.novelty is not None
        found[tile.rows, tile.columns] = tile.novelty
    return found


def test_novelty_is_a_share_and_nan_exactly_at_nodata(classifier: Classifier, small_scene: xr.DataArray):
    found, valid = novelty_of(classifier, small_scene), np.isfinite(small_scene.values).all(0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(found), valid)
    assert (found[valid].min(), found[valid].max()) == (
        0,
        1,
    )  # of the scene's pixels some are the least and the most novel


@pytest.mark.parametrize(
    "options", [{"size": 1}, {"size": 5}, {"size": 12}, {"batch_size": 1}, {"batch_size": 7}], ids=str
)
@pytest.mark.usefixtures("small_blocks")
def test_novelty_does_not_depend_on_tiles_and_batches(
    classifier: Classifier, small_scene: xr.DataArray, options: dict[str, int]
):
    # Products of another size add up in another order, in float32, which may miss by one level of a thousand.
    found, expected = novelty_of(classifier, small_scene, **options), novelty_of(classifier, small_scene)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.5e-3)
    assert (found == expected)[np.isfinite(expected)].mean() > 0.95


def test_novelty_is_kept_bit_for_bit(classifier: Classifier, classifier_file: Path, small_scene: xr.DataArray):
    again = Classifier.load(classifier_file, "cpu")
    assert classifier.novelty is not None
    assert again.novelty is not None
    tensors = again.novelty.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in classifier.novelty.state_dict().items())
    np.testing.assert_array_equal(novelty_of(again, small_scene), novelty_of(classifier, small_scene))


@pytest.mark.usefixtures("small_blocks")
def test_a_classifier_of_before_novelty_is_read_and_tells_the_same_classes(
    classifier: Classifier, small_scene: xr.DataArray, tmp_path: Path
):
    classes, probabilities = classifier.predict(small_scene), classifier.predict_proba(small_scene)
    classifier.novelty = None
    classifier.save(tmp_path / "older.safetensors")
    _, tensors = read(tmp_path / "older.safetensors")
    assert not [name for name in tensors if name.startswith("novelty")]
    older = Classifier.load(tmp_path / "older.safetensors", "cpu")
    assert older.novelty is None
    assert [tile.novelty for tile in older.tiles(small_scene, size=6)] == [None] * 4
    xr.testing.assert_identical(older.predict(small_scene), classes)
    xr.testing.assert_identical(older.predict_proba(small_scene), probabilities)


def test_a_scene_of_nodata_alone_gives_nodata_alone(classifier: Classifier, small_scene: xr.DataArray):
    small_scene.values[:] = np.nan
    assert not classifier.predict(small_scene).values.any()
    assert np.isnan(classifier.predict_proba(small_scene).values).all()
    assert np.isnan(novelty_of(classifier, small_scene)).all()


def test_an_unknown_device_is_refused(classifier_file: Path):
    with pytest.raises(SettingsError, match="not available"):
        Classifier.load(classifier_file, "abacus")


def test_a_full_disk_is_told_in_one_sentence(classifier_file: Path, tmp_path: Path):
    pytest.importorskip("resource")
    code = (
        "import resource, sys\nfrom spectralmamba import Classifier, SpectralMambaError\n"
        "classifier = Classifier.load(sys.argv[1], 'cpu')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    classifier.save(sys.argv[2])\nexcept SpectralMambaError as error:\n    print(error)\n"
    )
    arguments = [sys.executable, "-c", code, str(classifier_file), str(tmp_path / "model.safetensors")]
    assert "no space left" in subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_the_package_unpickles():
    sources = sorted(Path(spectralmamba.__file__).parent.rglob("*.py"))
    assert len(sources) > 30
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "cloudpickle", "joblib", "dill", "shelve"} & {m.split(".")[0] for m in modules}, (
                    source
                )
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), source
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, source  # noqa: PT018
