"""What files that are cut off have to lead to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from spectralmamba.errors import SceneError
from spectralmamba.scenes import open_scene


def check_refused_or_whole(product: Path, cut: Path, whole: np.ndarray) -> None:
    """Open a product with a cut file: an error names the file, or every value is as before."""
    refused, values = _read(product)
    if refused is None:
        np.testing.assert_array_equal(values, whole)
    else:
        assert cut.stem in str(refused)


def _read(product: Path) -> tuple[SceneError | None, np.ndarray | xr.DataArray | None]:
    try:
        return None, open_scene(product).values
    except SceneError as error:
        return error, None
