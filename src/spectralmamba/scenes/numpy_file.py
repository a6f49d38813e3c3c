"""NumPy's .npy files, read window by window; pickled objects are never loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spectralmamba.errors import SceneError
from spectralmamba.scenes.scene import RawScene, check_dtype
from spectralmamba.scenes.sources import FileSource, cube_axes, unreadable


def read_numpy(path: Path, *, band_axis: int | None = None) -> RawScene:
    """Open a cube in a .npy file (NumPy Enhancement Proposal 1).

    Args:
        path: The file.
        band_axis: The axis of the bands; None is the last, as in (row, column, band).

    Raises:
        SceneError: The file is damaged or cut off, or does not hold one real-valued array with three axes.
    """
    axes = cube_axes(path, band_axis)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
            stored_shape, fortran_order, dtype = read_header(file)
            offset = file.tell()
    except (ValueError, KeyError, EOFError) as error:
        raise unreadable(path, error) from error
    check_dtype(path, dtype)
    if len(stored_shape) != 3 or 0 in stored_shape:
        raise not_a_cube(path, f"an array of shape {stored_shape}")
    if fortran_order:
        stored_shape, axes = stored_shape[::-1], (2 - axes[0], 2 - axes[1], 2 - axes[2])
    source = FileSource(path, dtype, stored_shape, axes, offset)  # type: ignore[arg-type]
    source.check_size()
    return RawScene.without_metadata(source)


def not_a_cube(path: Path, found: str) -> SceneError:
    """Return the error for an array that has not three axes."""
    return SceneError(
        "there is no hyperspectral cube in this file",
        file=path,
        found=found,
        expected="a numeric array with three axes, (row, column, band)",
        remedy="A list of spectra or a mask is not a scene: save the whole cube; a scene of one band needs a third axis"
        " of length 1.",
    )
