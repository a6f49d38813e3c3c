"""What files that are cut off have to lead to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from spectralmamba.errors import SceneError
from spectralmamba.scenes import open_scene


def check_refused_or_whole(product: Path, cut: Path, whole: xr.DataArray) -> None:
    """Open a product with a cut file: an error names the file, or values, bands and place are as before."""
    scene, refused = _read(product)
    if refused is not None:
        assert cut.stem in str(refused)
        return
    assert scene is not None
    np.testing.assert_array_equal(scene.values, whole.values)
    for name in ("wavelength", "fwhm", "good"):
        np.testing.assert_array_equal(scene[name], whole[name], err_msg=name)
    assert scene.rio.transform() == whole.rio.transform()
    assert scene.rio.crs == whole.rio.crs
    assert scene.attrs.get("masks") == whole.attrs.get("masks")
    assert scene.attrs.get("ortho") == whole.attrs.get("ortho")


def _read(product: Path) -> tuple[xr.DataArray | None, SceneError | None]:
    try:
        return open_scene(product).load(), None
    except SceneError as error:
        return None, error
