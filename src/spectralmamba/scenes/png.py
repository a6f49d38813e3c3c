"""Pictures as PNG."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile


def png_bytes(picture: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG.

    Args:
        picture: uint8 `(H, W, 4)`, red, green, blue, alpha.
    """
    height, width, _ = picture.shape
    profile = {"driver": "PNG", "width": width, "height": height, "count": 4, "dtype": "uint8", "zlevel": 9}
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(**profile) as dataset:
            dataset.write(np.moveaxis(picture, -1, 0))
        return bytes(memory.read())
