"""`scene.spectralmamba`: what a classifier says of a scene, from the scene."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rioxarray
import xarray as xr

from spectralmamba import Classifier, SpectralMambaClassifier, simulate_scene
from spectralmamba.errors import ClassifierError, SceneError
from spectralmamba.scenes.describe import describe_scene


@pytest.fixture
def wide_scene() -> xr.DataArray:
    """A scene of the small scene's bands, of more than one block."""
    return simulate_scene(rows=80, columns=140, bands=20, classes=3, seed=1)[0]


def test_a_prediction_is_the_classifiers_with_georeference_names_and_nodata(
    small_scene: xr.DataArray, classifier: Classifier
):
    found = small_scene.spectralmamba.predict(classifier)
    expected = classifier.predict(small_scene)
    np.testing.assert_array_equal(found.values, expected.values)
    assert (found.dims, found.dtype) == (("y", "x"), np.dtype(np.uint16))
    assert found.attrs["class_names"] == classifier.class_names
    assert found.attrs["class_colors"] == classifier.class_colors
    assert found.rio.crs == small_scene.rio.crs
    assert found.rio.transform() == small_scene.rio.transform()
    assert found.rio.nodata == 0


def test_probabilities_sum_to_one_and_know_their_classes(small_scene: xr.DataArray, classifier: Classifier):
    found = small_scene.spectralmamba.predict_proba(classifier)
    np.testing.assert_array_equal(found.values, classifier.predict_proba(small_scene).values)
    assert found.sel({"class": 2}).class_name.item() == classifier.class_names[2]
    sums = found.sum("class", skipna=False).values
    nodata = small_scene.isnull().any("band").values
    assert nodata.any()
    np.testing.assert_allclose(sums[~nodata], 1, rtol=1e-6)  # float32
    assert np.isnan(sums[nodata]).all()


def test_of_a_scene_that_dask_holds_it_is_lazy_and_the_same(wide_scene: xr.DataArray, classifier: Classifier):
    chunked = wide_scene.chunk({"band": 7, "y": 30, "x": 50})
    found, shares = (
        chunked.spectralmamba.predict(classifier),
        chunked.spectralmamba.predict_proba(classifier),
    )
    assert found.chunks is not None
    assert shares.chunks is not None
    assert len(found.chunks[1]) > 1
    np.testing.assert_array_equal(found.values, classifier.predict(wide_scene).values)
    np.testing.assert_array_equal(shares.values, classifier.predict_proba(wide_scene).values)
    assert found.rio.crs == wide_scene.rio.crs


def test_a_classifiers_file_and_a_fitted_estimator_will_do(
    small_scene: xr.DataArray, small_labels: xr.DataArray, classifier: Classifier, classifier_file: Path
):
    expected = small_scene.spectralmamba.predict(classifier)
    for path in (classifier_file, str(classifier_file)):
        xr.testing.assert_identical(small_scene.spectralmamba.predict(path), expected)
    labelled = small_labels.values > 0
    spectra, names = small_scene.values[:, labelled].T, small_labels.values[labelled]
    wavelengths = small_scene.wavelength.values
    estimator = SpectralMambaClassifier(steps=6, wavelengths=wavelengths, random_state=0, device="cpu")
    estimator.fit(spectra, names)
    found = small_scene.spectralmamba.predict(estimator)
    # The same numbers up to the order in which they are added up, so labels of pixels on the edge may differ.
    assert (found.values[labelled] == estimator.predict(spectra)).mean() > 0.99


def test_what_is_no_classifier_or_no_scene_is_refused(small_scene: xr.DataArray, classifier: Classifier):
    with pytest.raises(ClassifierError, match=r"does not classify scenes; found int; expected a Classifier"):
        small_scene.spectralmamba.predict(3)
    with pytest.raises(ClassifierError, match="SpectralMambaClassifier"):
        small_scene.spectralmamba.predict(SpectralMambaClassifier())
    with pytest.raises(SceneError, match=r"not a scene; found dimensions band, y, x, no good; expected .*open_scene"):
        small_scene.drop_vars("good").spectralmamba.predict(classifier)
    with pytest.raises(SceneError, match="found dimensions y, x"):
        small_scene[0].spectralmamba.info()


def test_info_is_that_of_the_command_line(small_scene: xr.DataArray):
    assert small_scene.spectralmamba.info() == describe_scene(small_scene)
    assert small_scene.spectralmamba.info().bands == 20


def test_a_prediction_is_written_as_a_map_by_rioxarray(
    small_scene: xr.DataArray, classifier: Classifier, tmp_path: Path
):
    found = small_scene.chunk({"y": 5}).spectralmamba.predict(classifier)
    found.rio.to_raster(tmp_path / "map.tif")
    with rioxarray.open_rasterio(tmp_path / "map.tif") as written:
        np.testing.assert_array_equal(written.values[0], found.values)
        assert (written.rio.crs, written.rio.nodata) == (small_scene.rio.crs, 0)
        assert written.rio.transform() == small_scene.rio.transform()


def test_a_range_that_the_scene_lacks_is_taken_if_asked(small_scene: xr.DataArray, classifier: Classifier):
    narrow = small_scene.isel(band=slice(0, 15))
    with pytest.raises(ClassifierError, match="allow_missing_range"):
        narrow.spectralmamba.predict(classifier)
    found = narrow.spectralmamba.predict(classifier, allow_missing_range=True)
    np.testing.assert_array_equal(found.values, classifier.predict(narrow, allow_missing_range=True).values)
    shares = narrow.spectralmamba.predict_proba(classifier, allow_missing_range=True)
    np.testing.assert_array_equal(shares.values, classifier.predict_proba(narrow, allow_missing_range=True).values)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "importing",
    [
        "import spectralmamba.accessor",
        "from spectralmamba import open_scene; open_scene.__module__",
        "from spectralmamba import load_dataset",
        "from spectralmamba import simulate_scene",
    ],
)
def test_the_accessor_is_there_without_torch(importing: str):
    code = f"import sys\n{importing}\nimport xarray\nprint(hasattr(xarray.DataArray, 'spectralmamba'), 'torch' in sys.modules)"
    assert run(code).split() == ["True", "False"]


def test_the_package_alone_imports_neither_xarray_nor_scikit_learn_nor_torch():
    code = "import sys, spectralmamba\nprint([name for name in ('xarray', 'sklearn', 'torch') if name in sys.modules])"
    assert run(code).strip() == "[]"
    estimator = "import sys\nfrom spectralmamba import SpectralMambaClassifier\nprint('torch' in sys.modules)"
    assert run(estimator).strip() == "False"
