from __future__ import annotations

import json

import numpy as np
import xarray as xr

from spectralmamba.scenes import open_scene, statistics
from spectralmamba.scenes.describe import ClassDescription, describe_scene


def test_a_scene_is_described_in_full(write_tiff, cube):
    raw = cube.astype(np.float32)
    raw[:, 0, 0], raw[1, 0, 1], raw[2, 0, 2], raw[3] = -1, np.nan, np.inf, 9
    tags = {"wavelength": [400, 500, 600, 700], "wavelength_units": ["nm"] * 4, "fwhm": [5, 6, 7, 10]}
    described = describe_scene(open_scene(write_tiff(raw, nodata=-1, band_tags=tags)))
    good = raw[:3][np.isfinite(raw[:3]) & (raw[:3] != -1)]
    assert (described.rows, described.columns, described.bands, described.raw_dtype) == (6, 5, 4, "float32")
    assert (described.crs, described.epsg) == ("WGS 84 / UTM zone 33N", 32633)
    assert described.pixel_size == (30, 30)
    assert described.bounds == (364095, 5809785, 364245, 5809965)
    assert described.wavelength_range == (400, 700)
    assert described.mean_fwhm == 7
    assert described.bad_bands == {4: "one constant value, 9"}
    assert described.nodata_share == 1 - 27 / 30
    assert (described.nan_values, described.infinite_values) == (1, 1)
    assert (described.minimum, described.maximum) == (good.min(), good.max())
    assert list(described.percentiles.values()) == np.percentile(good, [2, 50, 98]).tolist()
    assert described.exact
    assert json.loads(json.dumps(described.to_dict(), allow_nan=False)) == described.to_dict()


def test_what_a_file_does_not_say_is_none(tmp_path, cube):
    np.save(tmp_path / "scene.npy", cube)
    described = describe_scene(open_scene(tmp_path / "scene.npy", band_axis=0)).to_dict()
    unknown = ("crs", "epsg", "pixel_size", "bounds", "wavelength_range", "mean_fwhm", "classes", "label_report")
    assert [described[name] for name in unknown] == [None] * len(unknown)


def test_a_sample_says_that_it_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "SAMPLE_VALUES", 2000)
    np.save(tmp_path / "scene.npy", np.random.default_rng(0).normal(size=(60, 70, 5)))
    described = describe_scene(open_scene(tmp_path / "scene.npy"))
    assert not described.exact
    assert 0 < described.pixels_examined <= 400


def test_classes_of_the_labels_are_counted(tmp_path, cube):
    np.save(tmp_path / "scene.npy", cube)
    ids = np.zeros((6, 5), np.int32)
    ids[0, :3], ids[1, :2] = 10, 3
    attributes = {"class_names": {10: "lettuce"}, "class_colors": {10: "#aabbcc"}, "report": {"on_nodata": 2}}
    labels = xr.DataArray(ids, dims=("y", "x"), attrs=attributes)
    described = describe_scene(open_scene(tmp_path / "scene.npy", band_axis=0), labels)
    assert described.classes == [ClassDescription(3, "class 3", None, 2), ClassDescription(10, "lettuce", "#aabbcc", 3)]
    assert described.label_report == {"on_nodata": 2}
    json.dumps(described.to_dict(), allow_nan=False)
