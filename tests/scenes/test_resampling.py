from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from spectralmamba import open_scene, resample_scene, simulate_scene
from spectralmamba.errors import OutputError, SceneError
from spectralmamba.scenes import valid_mask, writing
from spectralmamba.scenes.geotiff import GeoTiffSource
from spectralmamba.scenes.resampling import LARGEST_GAP, find_resampling, resampled_in_words
from spectralmamba.scenes.sensors import SENSORS, SpectralBands, sensor_bands
from spectralmamba.scenes.writing import write_large_scene, write_scene


def bands(wavelength: object, fwhm: object = 10.0, good: object = True) -> SpectralBands:
    centres = np.asarray(wavelength, np.float64)
    widths, use = np.broadcast_to(fwhm, centres.shape).astype(float), np.broadcast_to(good, centres.shape)  # type: ignore[arg-type]
    return SpectralBands("a sensor", centres, widths, use.astype(bool), "a test")


def scene_of(at: SpectralBands, spectrum: object, shape: tuple[int, int] = (3, 4)) -> xr.DataArray:
    """A scene of one spectrum."""
    values = np.broadcast_to(np.asarray(spectrum, np.float32)[:, None, None], (len(at.wavelength), *shape)).copy()
    coordinates = {
        "band": np.arange(1, len(at.wavelength) + 1),
        "wavelength": ("band", at.wavelength),
        "fwhm": ("band", at.fwhm),
        "good": ("band", at.good),
    }
    return xr.DataArray(values, dims=("band", "y", "x"), coords=coordinates, attrs={"source": "in memory"})


EVEN = bands(np.arange(400.0, 1001, 8), 9.0)


@pytest.fixture(scope="module")
def fine() -> xr.DataArray:
    return simulate_scene(rows=24, columns=20, bands=211, classes=4)[0]


def test_the_own_bands_change_nothing(fine: xr.DataArray):
    same = resample_scene(fine, fine)
    good = fine["good"].values
    # Pixels are measured in all good bands or in none here, so that not even one becomes nodata.
    np.testing.assert_array_equal(same.values[good], fine.values[good])
    np.testing.assert_array_equal(same["good"], good)
    assert same.attrs["resampled"]["largest_distance"] == 0


@pytest.mark.parametrize("width", [3.0, 9.0, 25.0, 80.0])
@pytest.mark.parametrize("step", [2.5, 8.0, 31.0])
def test_a_straight_spectrum_stays_straight_and_rows_sum_to_one(width: float, step: float):
    target = bands(np.arange(400.0, 1000.5, step), width)
    found = find_resampling(EVEN, target)
    assert not found.missing.any()
    np.testing.assert_allclose(found.matrix.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(found.matrix @ EVEN.wavelength, target.wavelength, rtol=1e-12)
    assert found.matrix.toarray().min() > -1e-12


def test_a_wider_band_sees_what_a_gaussian_of_its_width_sees():
    """A narrow line through the source is as wide as the target's response: widths add as squares."""
    at, line = np.arange(400.0, 1001, 2), np.arange(400.0, 1001, 0.05)
    response = np.exp(-4 * np.log(2) * ((line - at[:, None]) / 5) ** 2)
    source = response @ np.exp(-4 * np.log(2) * ((line - 700) / 5) ** 2)  # fwhm 5 · √2
    target = bands(np.arange(600.0, 801, 5), 20.0)
    found = find_resampling(bands(at, 5.0), target).matrix @ source
    expected = np.exp(-4 * np.log(2) * (target.wavelength - 700) ** 2 / (5**2 + 20**2))
    np.testing.assert_allclose(found / found.max(), expected, atol=0.01)


def test_a_narrower_band_lies_on_the_line_between_the_nearest_two():
    found = find_resampling(EVEN, bands([402.0, 999.0], 4.0)).matrix.toarray()
    np.testing.assert_allclose(found[0, :3], [0.75, 0.25, 0])
    np.testing.assert_allclose(found[1, -3:], [0, 0.125, 0.875])
    assert ((found > 0).sum(1) == 2).all()


def test_gaps_are_bridged_up_to_the_stated_distance_and_named_beyond():
    for gap, missing in ((LARGEST_GAP, []), (LARGEST_GAP + 2, ["506-526 nm (6 bands)"])):
        source = bands([*np.arange(400, 501, 10.0), *np.arange(500 + gap, 600, 10.0)])
        target = bands(np.arange(402.0, 560, 4), 10.0)
        found = find_resampling(source, target)
        assert found.ranges(target, found.missing) == missing
    assert found.matrix.toarray()[found.missing].sum() == 0


def test_a_band_beyond_the_last_good_one_is_covered_up_to_half_a_width():
    found = find_resampling(EVEN, bands([395.0, 396.0, 1004.9, 1005.1], [9.0, 9.0, 10.0, 10.0]))
    np.testing.assert_array_equal(found.missing, [True, False, False, True])
    assert found.matrix[1, 0] == 1


def test_bands_that_are_not_good_are_not_used_and_missing_bands_are_not_good():
    at = bands(np.arange(400.0, 601, 10), good=(np.arange(21) < 8) | (np.arange(21) > 13))
    scene = scene_of(at, np.where(at.good, 0.3, 99))
    scene[10] = np.nan  # in a band that is not good
    result = resample_scene(scene, bands(np.arange(400.0, 601, 5)))
    inside = (result["wavelength"] > 475) & (result["wavelength"] < 535)
    np.testing.assert_array_equal(result["good"], ~inside)
    assert np.isnan(result.values[inside]).all()
    np.testing.assert_allclose(result.values[~inside], 0.3, rtol=1e-6)
    assert set(result.attrs["bad_band_reasons"]) == set((np.flatnonzero(inside) + 1).tolist())
    assert "missing and not good: 480-530 nm (11 bands)" in str(resampled_in_words(result))


def test_a_pixel_that_lacks_one_good_band_is_nodata_in_all(fine: xr.DataArray):
    holed = fine.copy(deep=True)
    holed[7, 20, 15], holed[8, 21, 15] = np.nan, np.inf
    for like in ("EnMAP", "DESIS", bands([2000.0])):
        result = resample_scene(holed, like)
        np.testing.assert_array_equal(valid_mask(result), valid_mask(holed))
        assert np.isnan(result.values[:, 20, 15]).all()


def test_unsorted_and_duplicate_bands_are_taken_as_they_lie():
    order = np.random.default_rng(0).permutation(len(EVEN.wavelength))
    shuffled = bands(EVEN.wavelength[order], 9.0)
    target = bands([777.0, 450.0, 450.0], [20.0, 5.0, 5.0])
    found, plain = find_resampling(shuffled, target).matrix.toarray(), find_resampling(EVEN, target).matrix.toarray()
    np.testing.assert_array_equal(found, plain[:, order])
    doubled = find_resampling(bands([*EVEN.wavelength, 448.0], 9.0), target).matrix.toarray()
    np.testing.assert_allclose(doubled.sum(1), 1)
    np.testing.assert_allclose(doubled[1, [6, -1]], plain[1, 6] / 2)


def test_without_fwhm_bands_are_as_wide_as_the_next_is_away_and_that_is_said():
    centres = [*np.arange(400.0, 501, 8), *np.arange(600.0, 701, 8)]
    unknown, known = (scene_of(bands(centres, width), np.sin(np.array(centres) / 40)) for width in (np.nan, 8.0))
    target = bands(np.arange(420.0, 480, 15), 20.0)
    found, expected = resample_scene(unknown, target), resample_scene(known, target)
    np.testing.assert_array_equal(found.values, expected.values)
    assert "without fwhm" in found.attrs["notes"][0]
    assert expected.attrs["notes"] == []
    assert find_resampling(
        SpectralBands.of_scene(unknown), bands([550.0])
    ).missing.all()  # widths do not bridge the gap


def test_scenes_and_sensors_without_wavelengths_are_refused(fine: xr.DataArray):
    unknown = fine.assign_coords(wavelength=("band", np.full(len(fine), np.nan)))
    for scene, like in ((unknown, fine), (fine, unknown)):
        with pytest.raises(SceneError, match=r"without wavelengths.*found 0 wavelengths of"):
            resample_scene(scene, like)
    with pytest.raises(SceneError, match=r"no such sensor; found 'Hyperion'; expected EnMAP, PRISMA"):
        resample_scene(fine, "Hyperion")
    with pytest.raises(SceneError, match=r"measures in no band.*400-2500 nm.*8000-9000 nm"):
        resample_scene(fine, bands([8000.0, 9000.0]))


@pytest.mark.parametrize("name", SENSORS)
def test_each_sensor_has_ascending_bands_and_says_where_they_come_from(name: str):
    found = sensor_bands(name.lower().replace("-", " "))
    assert found.name == name
    assert found.source
    assert (np.diff(found.wavelength) > 0).all()
    assert found.wavelength.shape == found.fwhm.shape == found.good.shape
    assert 375 < found.wavelength[0] < 420
    assert 3 < found.fwhm.min() <= found.fwhm.max() < 15


def test_lazy_values_equal_eager_ones_for_any_window(fine: xr.DataArray, tmp_path: Path):
    opened = open_scene(write_scene(fine, tmp_path / "fine.tif", as_integer=False))
    eager = resample_scene(fine, "PRISMA")
    whole = eager.values
    lazy = resample_scene(opened, "PRISMA")
    assert not lazy.variable._in_memory
    np.testing.assert_array_equal(lazy.values, whole)
    np.testing.assert_array_equal(lazy[[5, 2], 3:9, ::3].values, whole[[5, 2], 3:9, ::3])
    np.testing.assert_array_equal(lazy.isel(band=40, y=7).values, whole[40, 7])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy))[:, 2:4].values, whole[:, 2:4])
    chunked = resample_scene(opened.chunk({"band": 50, "y": 10, "x": 7}), "PRISMA")
    assert chunked.chunks is not None
    np.testing.assert_array_equal(chunked.values, whole)


def test_the_grid_and_what_is_known_of_the_scene_stay(fine: xr.DataArray):
    fine = fine.assign_attrs(sensor="AVIRIS-NG", acquisition_time="2019-06-24")
    result = resample_scene(fine, "EnMAP")
    assert result.rio.crs == fine.rio.crs
    assert result.rio.transform() == fine.rio.transform()
    assert result.rio.encoded_nodata == fine.rio.encoded_nodata
    assert result.attrs["acquisition_time"] == "2019-06-24"
    assert result.attrs["resampled"]["from"] == "AVIRIS-NG"
    assert result.attrs["resampled"]["to"] == "EnMAP"


@pytest.mark.parametrize("shape", [(24, 20), (300, 270)], ids=["strips", "tiles"])
def test_a_scene_is_written_window_by_window(shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scene = simulate_scene(rows=shape[0], columns=shape[1], bands=30, classes=2)[0]
    opened = open_scene(write_scene(scene, tmp_path / "scene.tif", as_integer=False))
    monkeypatch.setattr(writing, "BLOCK_VALUES", 22 * shape[1] * 10)
    largest, read = [0], GeoTiffSource.read

    def count(self: GeoTiffSource, numbers: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        largest.append((rows.stop - rows.start) * (columns.stop - columns.start))
        return read(self, numbers, rows, columns)

    monkeypatch.setattr(GeoTiffSource, "read", count)
    resampled, done = resample_scene(opened, bands(np.arange(450.0, 1300, 40), 60.0)), []
    write_large_scene(resampled, tmp_path / "out.tif", lambda *at: done.append(at))
    assert max(largest) == (256 * 256 if shape[0] > 256 else 10 * shape[1])
    again = open_scene(tmp_path / "out.tif")
    np.testing.assert_array_equal(again.values, resampled.values)
    np.testing.assert_array_equal(again["wavelength"], resampled["wavelength"])
    np.testing.assert_array_equal(again["fwhm"], resampled["fwhm"])
    np.testing.assert_array_equal(again["good"], resampled["good"])
    assert again.rio.transform() == scene.rio.transform()
    assert done[-1] == (shape[0] * shape[1],) * 2
    assert len(done) > 1


def test_a_scene_that_cannot_be_written_leaves_nothing(fine: xr.DataArray, tmp_path: Path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resampled = resample_scene(fine, "DESIS")
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write|no space left"):
            write_large_scene(resampled, tmp_path / "out.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
