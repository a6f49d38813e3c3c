"""What a classifier says of a scene, from the scene: `scene.spectralmamba.predict(classifier)`.

Importing this module registers the accessor at xarray. `open_scene`, `simulate_scene` and `load_dataset` do so; for scenes from
elsewhere there is `import spectralmamba.accessor`. torch is imported when something is predicted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import xarray as xr

from spectralmamba.errors import ClassifierError, SceneError

if TYPE_CHECKING:
    from spectralmamba.classifier import Classifier
    from spectralmamba.scenes.describe import SceneDescription

_COORDINATES = ("wavelength", "fwhm", "good")


@xr.register_dataarray_accessor("spectralmamba")
class SceneAccessor:
    """Classifies a scene `(band, y, x)`; of one that Dask holds lazily, chunk by chunk with halos of the patch's reach.

    A classifier is a `Classifier`, the path of its file, or a `SpectralMambaClassifier` that has been fitted.
    """

    def __init__(self, scene: xr.DataArray) -> None:
        self._scene = scene

    def predict(self, classifier: Any, *, allow_missing_range: bool = False) -> xr.DataArray:
        """Return the class id of each pixel, `(y, x)` uint16 with 0 for nodata, on the scene's grid.

        `attrs` has `class_names` and `class_colors` by id, `.rio` georeference and nodata, so `.rio.to_raster` writes a map.

        Args:
            classifier: What classifies.
            allow_missing_range: Take a scene that does not measure in a range that the classifier uses.

        Raises:
            ClassifierError: It is no classifier, or does not fit the scene.
            SceneError: This is not a scene.
        """
        scene = self._checked()
        found = _classifier(classifier).predict(scene, allow_missing_range=allow_missing_range)
        return found.rio.write_nodata(0)

    def predict_proba(self, classifier: Any, *, allow_missing_range: bool = False) -> xr.DataArray:
        """Return class probabilities, `(class, y, x)` float32 with NaN for nodata, on the scene's grid.

        The coordinate `class` has the ids, `class_name` the names.

        Args:
            classifier: What classifies.
            allow_missing_range: Take a scene that does not measure in a range that the classifier uses.

        Raises:
            ClassifierError: It is no classifier, or does not fit the scene.
            SceneError: This is not a scene.
        """
        scene, known = self._checked(), _classifier(classifier)
        found = known.predict_proba(scene, allow_missing_range=allow_missing_range)
        names = [known.class_names[id_] for id_ in known.classes.tolist()]
        return found.assign_coords(class_name=("class", names))

    def info(self) -> SceneDescription:
        """Return the scene in numbers, as `spectralmamba info` prints them: size, bands, wavelengths, nodata, values.

        Raises:
            SceneError: This is not a scene.
        """
        from spectralmamba.scenes.describe import describe_scene

        return describe_scene(self._checked())

    def _checked(self) -> xr.DataArray:
        """Return the scene.

        Raises:
            SceneError: It is not one, or lacks what bands need to have.
        """
        import rioxarray  # noqa: F401  registers `.rio`

        scene = self._scene
        missing = [name for name in _COORDINATES if name not in scene.coords]
        if scene.dims != ("band", "y", "x") or missing:
            raise SceneError(
                "this array is not a scene",
                file=scene.attrs.get("source"),
                found=f"dimensions {', '.join(map(str, scene.dims))}" + "".join(f", no {name}" for name in missing),
                expected=f"dimensions band, y, x and coordinates {', '.join(_COORDINATES)} of band",
                remedy="Open the file with spectralmamba.open_scene, or add the coordinates: NaN where a wavelength is not known.",
            )
        return scene


def _classifier(given: Any) -> Classifier:
    """Return the classifier that is given, read from its file, or inside a fitted estimator.

    Raises:
        ClassifierError: It is none of these.
    """
    from spectralmamba.classifier import Classifier

    if isinstance(given, str | os.PathLike):
        return Classifier.load(given)
    found = getattr(given, "classifier_", given)
    if not isinstance(found, Classifier):
        raise ClassifierError(
            "this does not classify scenes",
            found=type(given).__name__,
            expected="a Classifier, the path of its file, or a fitted SpectralMambaClassifier",
        )
    return found
