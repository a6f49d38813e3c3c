"""A classifier of one sensor, and scenes of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr

from cli_example import Example, assert_refused, command_line, example, trained
from spectralmamba import (
    Classifier,
    Settings,
    evaluate,
    fit,
    map_scene,
    open_scene,
    resample_scene,
    simulate_scene,
    split_random,
)
from spectralmamba.errors import ClassifierError, SceneError
from spectralmamba.scenes.sensors import SpectralBands, sensor_bands
from spectralmamba.scenes.writing import write_scene

__all__ = ["example", "trained"]

# Where products measure next to nothing: `good_wavelengths` of EMIT, `bands.WATER_ABSORPTION`, and what EnMAP leaves out.
WATER = {
    "EnMAP": ((1391, 1461), (1760, 1939)),
    "PRISMA": ((1340, 1460), (1790, 1960)),
    "AVIRIS-NG": ((1340, 1460), (1790, 1960)),
    "EMIT": ((1325, 1435), (1770, 1962)),
}


def observed(fine: xr.DataArray, sensor: str, seed: int, noise: float = 3.0) -> xr.DataArray:
    """What a sensor sees of a ground that is simulated every 2.5 nm: through Gaussians of its widths, with noise of its own."""
    bands = sensor_bands(sensor)
    seen = (bands.wavelength > 402) & (bands.wavelength < 2498)
    for low, high in WATER[sensor]:
        seen &= ~((bands.wavelength > low) & (bands.wavelength < high))
    centre, fwhm = bands.wavelength[seen], bands.fwhm[seen]
    response = np.exp(-4 * np.log(2) * ((fine["wavelength"].values - centre[:, None]) / fwhm[:, None]) ** 2)
    response /= response.sum(1, keepdims=True)
    values = np.tensordot(response, fine.values, 1)
    level = noise * 0.006 * (1 + 2.5 * np.exp(-(centre - 400) / 60))  # as the simulator's, which grows towards the blue
    values += np.random.default_rng(seed).normal(size=values.shape) * level[:, None, None]
    coordinates = {"band": np.arange(1, len(centre) + 1), "wavelength": ("band", centre), "fwhm": ("band", fwhm)}
    coordinates |= {"good": ("band", np.ones(len(centre), bool)), "x": fine["x"], "y": fine["y"]}
    coordinates["spatial_ref"] = fine["spatial_ref"]
    return xr.DataArray(
        values.astype(np.float32), dims=fine.dims, coords=coordinates, attrs={"source": "in memory", "sensor": sensor}
    )


@pytest.fixture(scope="module")
def ground() -> tuple[xr.DataArray, xr.DataArray]:
    return simulate_scene(rows=40, columns=40, bands=841, classes=12, seed=1, noise=0)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings(steps=10, patch=3, batch_size=32, self_training_rounds=0, set_coverage=0, seed=1)


@pytest.fixture(scope="module")
def of_enmap(ground: tuple[xr.DataArray, xr.DataArray], settings: Settings) -> Classifier:
    fine, labels = ground
    return fit(
        observed(fine, "EnMAP", 1), labels, split_random(labels, per_class=5, patch=3, seed=1), settings, device="cpu"
    )


@pytest.mark.parametrize("sensor", ["PRISMA", "AVIRIS-NG", "EMIT"])
def test_a_classifier_of_enmap_is_as_good_on_another_sensor_as_one_of_that_sensor(
    sensor: str, ground: tuple[xr.DataArray, xr.DataArray], of_enmap: Classifier, settings: Settings
):
    """Both look at a scene that neither has seen: the noise of the training scene is known to its own classifier alone."""
    fine, labels = ground
    split = split_random(labels, per_class=5, patch=3, seed=1)
    native = fit(observed(fine, sensor, 20), labels, split, settings, device="cpu")
    scene = observed(fine, sensor, 10)
    here, there = (
        evaluate(classifier.predict(scene, allow_missing_range=True), labels, where=split.test).to_dict()[
            "overall_accuracy"
        ]
        for classifier in (native, of_enmap)
    )
    assert there > here - 0.02
    assert here > 0.8


def test_a_missing_range_is_refused_unless_it_is_allowed_and_the_map_tells(
    ground: tuple[xr.DataArray, xr.DataArray], of_enmap: Classifier, tmp_path: Path
):
    emit = observed(ground[0], "EMIT", 10)
    with pytest.raises(
        ClassifierError, match=r"no good band at 1331-1391 nm \(6 bands\), 1939-1958 nm \(3 bands\)"
    ) as refused:
        map_scene(of_enmap, emit, tmp_path / "map.tif")
    assert "--allow-missing-range" in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    files = map_scene(of_enmap, emit, tmp_path / "map.tif", allow_missing_range=True)
    with rasterio.open(files.classes) as raster:
        text = raster.tags()["RESAMPLED"]
        np.testing.assert_array_equal(raster.read(1) > 0, np.isfinite(emit.values).all(0))
    assert text.startswith("resampled from EMIT (")
    assert "of the classifier; the nearest good band is 2.1 nm away in the median, 3.7 nm at most" in text
    assert "filled from the other bands as the training scene suggests: 1331-1391 nm (6 bands)" in text


def test_tiles_of_any_size_and_any_way_of_holding_the_scene_give_the_same_map(
    ground: tuple[xr.DataArray, xr.DataArray], of_enmap: Classifier, tmp_path: Path, small_blocks: int
):
    emit = observed(ground[0], "EMIT", 10)
    opened = open_scene(write_scene(emit, tmp_path / "emit.tif", as_integer=False))
    whole = of_enmap.predict_proba(emit, allow_missing_range=True).values
    for scene in (opened, opened.chunk(y=16, x=12)):
        found = of_enmap.predict_proba(scene, allow_missing_range=True)
        assert (found.chunks is None) == (scene is opened)
        np.testing.assert_array_equal(found.values, whole)
    for tile in (small_blocks, 3 * small_blocks):
        files = map_scene(of_enmap, opened, tmp_path / f"{tile}.tif", tile=tile, allow_missing_range=True)
        with rasterio.open(files.confidence) as raster:
            np.testing.assert_array_equal(raster.read(1), whole.max(0))


def test_what_is_filled_makes_the_normalised_spectrum_shortest(of_enmap: Classifier):
    transform = of_enmap.transform
    missing = torch.arange(len(transform.mean)) % 9 == 2
    weights, offset = transform.completion(missing)
    assert not weights[:, missing].any()
    spectra = transform.mean + 0.1 * torch.randn(20, len(missing), generator=torch.Generator().manual_seed(0))
    spectra[:, missing] = (spectra.double() @ weights.mT + offset).float()
    length = (transform(spectra) - transform(transform.mean[None])).norm(dim=1)
    for change in (0.01, -0.01):
        other = spectra + change * missing
        assert ((transform(other) - transform(transform.mean[None])).norm(dim=1) > length).all()


def test_plain_standardisation_fills_with_the_training_mean(
    ground: tuple[xr.DataArray, xr.DataArray], settings: Settings
):
    fine, labels = ground
    scene = observed(fine, "EnMAP", 1)
    plain = fit(scene, labels, None, settings.replace(normalisation="standard", steps=1), device="cpu")
    kept = scene["wavelength"].values < 2000
    found = plain.adapt_scene(scene[kept], allow_missing_range=True).values
    valid = np.isfinite(found).all(0)
    np.testing.assert_array_equal(found[kept], scene.values[kept])
    filled = np.broadcast_to(plain.transform.mean.numpy()[~kept, None], (int((~kept).sum()), valid.sum()))
    np.testing.assert_allclose(found[~kept][:, valid], filled, rtol=1e-6)


def test_other_units_and_other_light_are_refused(ground: tuple[xr.DataArray, xr.DataArray], of_enmap: Classifier):
    prisma = observed(ground[0], "PRISMA", 10)
    with pytest.raises(ClassifierError, match=r"other units.*found values of about .*e\+03; expected about 0\.2"):
        of_enmap.predict(prisma.copy(data=prisma.values * 10_000), allow_missing_range=True)
    thermal = prisma.assign_coords(wavelength=prisma["wavelength"] + 7000)
    with pytest.raises(SceneError, match="measures in no band of the classifier"):
        of_enmap.predict(thermal, allow_missing_range=True)


def test_the_commands_resample_and_say_so(trained: Path, example: Example, tmp_path: Path):
    model = trained / "model.safetensors"
    scene = open_scene(example.scene)
    finer = SpectralBands("finer", np.linspace(420, 2450, 60), np.full(60, 60.0), np.ones(60, bool), "a test")
    other = write_scene(resample_scene(scene, finer), tmp_path / "other.tif", as_integer=False)
    answer = command_line("map", model, other, "--out", tmp_path / "map.tif")
    assert answer.code == 0, answer
    assert "Resampled from other.tif (" in answer.out
    assert "bands of the classifier; the nearest good band is" in answer.out
    answer = command_line("evaluate", model, other, example.labels, "--all")
    assert answer.code == 0, answer
    assert "Resampled from other.tif (" in answer.out
    for like in (model, example.scene, "emit"):
        out = tmp_path / "resampled.tif"
        answer = command_line("resample", other, "--like", like, "--out", out, "--overwrite")
        assert answer.code == 0, answer
        assert f"Scene: {out}" in answer.out
        assert "Resampled from other.tif (" in answer.out
        with rasterio.open(out) as raster:
            assert raster.count == (285 if like == "emit" else 12)
            assert raster.tags()["RESAMPLED"].startswith("resampled from other.tif")
    command_line("resample", other, "--like", model, "--out", tmp_path / "resampled.tif", "--overwrite")
    with rasterio.open(tmp_path / "map.tif") as raster:
        mapped = raster.read()
    answer = command_line("map", model, tmp_path / "resampled.tif", "--out", tmp_path / "map.tif", "--overwrite")
    assert answer.code == 0, answer
    with rasterio.open(tmp_path / "map.tif") as raster:
        np.testing.assert_array_equal(raster.read(), mapped)


def test_a_file_with_missing_bands_is_not_mapped_as_nodata_but_refused(trained: Path, example: Example, tmp_path: Path):
    model = trained / "model.safetensors"
    visible = open_scene(example.scene)
    visible = visible[visible["wavelength"].values < 1200]
    part = write_scene(visible, tmp_path / "part.tif", as_integer=False)
    answer = command_line("resample", part, "--like", example.scene, "--out", tmp_path / "whole.tif")
    assert answer.code == 0, answer
    assert "missing and not good: " in answer.out
    for scene in (part, tmp_path / "whole.tif"):
        words = ("map", model, scene, "--out", tmp_path / f"map_of_{scene.name}")
        assert_refused(command_line(*words), scene.name, "does not measure", "2500 nm", "--allow-missing-range")
        answer = command_line(*words, "--allow-missing-range")
        assert answer.code == 0, answer
        assert "filled from the other bands" in answer.out
        with rasterio.open(words[-1]) as raster:
            np.testing.assert_array_equal(raster.read(1) > 0, np.isfinite(visible.values).all(0))


def test_the_resample_command_refuses_what_it_cannot_do(trained: Path, example: Example, tmp_path: Path):
    out = tmp_path / "out.tif"
    words = ("resample", example.scene, "--out", out, "--like")
    assert_refused(command_line(*words, "Hyperion"), "no such sensor", "EnMAP, PRISMA, DESIS")
    assert_refused(command_line(*words, "EMIT", "--allow-missing-range"), "--like with a classifier")
    assert_refused(command_line(*words[:3], tmp_path / "out.img", "--like", "EMIT"), "ends with .tif")
    assert_refused(command_line(*words[:3], tmp_path / "none" / "o.tif", "--like", "EMIT"), "does not exist")
    assert_refused(command_line(*words[:3], example.scene, "--like", "EMIT", "--overwrite"), "would replace")
    np.save(tmp_path / "cube.npy", example.cube.transpose(1, 2, 0))
    bare = ("resample", tmp_path / "cube.npy", "--out", out, "--like", "EMIT")
    assert_refused(command_line(*bare), "without wavelengths", "found 0 wavelengths")
    assert not out.exists()
    out.write_text("here")
    assert_refused(command_line(*words, "EMIT"), "this file exists", "--overwrite")
    assert out.read_text() == "here"
