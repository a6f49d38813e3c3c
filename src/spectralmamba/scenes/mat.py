"""MATLAB files: version 5 through scipy, version 7.3 (HDF5) through h5py."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectralmamba.errors import MissingPackageError, SceneError
from spectralmamba.scenes.numpy_file import not_a_cube
from spectralmamba.scenes.scene import RawScene, check_dtype
from spectralmamba.scenes.sources import ArraySource, NamedSource, cube_axes, unreadable

NUMERIC_CLASSES = frozenset(
    ("double", "single", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
)
"""The MATLAB classes that can hold a cube."""

HEADER_BYTES = 128
"""Length of the header of a version 5 file (MAT-File Format, 1-3)."""

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Variable:
    """A variable of a MATLAB file.

    Attributes:
        shape: Its lengths in MATLAB's order.
        kind: Its MATLAB class.
    """

    shape: tuple[int, ...]
    kind: str

    def __str__(self) -> str:
        return f"{' × '.join(map(str, self.shape))} {self.kind}".strip()


def read_mat(path: Path, *, variable: str | None = None, band_axis: int | None = None) -> RawScene:
    """Open a cube in a MATLAB file of version 5 or 7.3.

    Args:
        path: The file.
        variable: The name of the cube; None takes the only numeric variable with three axes.
        band_axis: The axis of the bands, counted as MATLAB shows the variable, from 0; None is the last.

    Raises:
        SceneError: The file is damaged or cut off, or the cube is not there, not numeric, or one of several.
        MissingPackageError: The file has version 7.3 and h5py is not installed.
    """
    axes = cube_axes(path, band_axis)
    if is_hdf5(path):
        return RawScene.without_metadata(_open_version_73(path, variable, axes))
    cube = _load_version_5(path, variable).transpose(axes)
    cube.flags.writeable = False
    return RawScene.without_metadata(ArraySource(path, cube))


def is_hdf5(path: Path) -> bool:
    """Tell whether the file is HDF5, which MATLAB begins at byte 512 and others at 0."""
    with path.open("rb") as file:
        head = file.read(512 + len(HDF5_SIGNATURE))
    return head.startswith(HDF5_SIGNATURE) or head[512:] == HDF5_SIGNATURE


def choose_variable(
    path: Path, variables: Mapping[str, Variable], wanted: str | None, kinds: Collection[str] = NUMERIC_CLASSES
) -> str:
    """Return the name of the cube, which is of one of these kinds.

    Raises:
        SceneError: It is not there, not a numeric array with three axes, or one of several.
    """
    contents = ", ".join(f"{name} ({entry})" for name, entry in variables.items()) or "no variables"
    cubes = [name for name, entry in variables.items() if len(entry.shape) == 3 and entry.kind in kinds]
    if wanted is not None and wanted not in variables:
        raise SceneError(
            f"has no variable {wanted!r}", file=path, found=contents, remedy="Give --variable one of these."
        )
    if wanted is not None and wanted not in cubes:
        raise not_a_cube(path, f"{wanted} ({variables[wanted]})")
    if not cubes:
        raise not_a_cube(path, contents)
    if wanted is None and len(cubes) > 1:
        raise SceneError(
            "holds several cubes",
            file=path,
            found=contents,
            expected="one numeric variable with three axes",
            remedy=f"Name the one to open with --variable, for instance --variable {cubes[0]}.",
        )
    return wanted or cubes[0]


def _load_version_5(path: Path, wanted: str | None) -> np.ndarray:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    _check_elements(path)
    try:
        variables = {name: Variable(tuple(shape), kind) for name, shape, kind in whosmat(path)}
        name = choose_variable(path, variables, wanted)
        cube = loadmat(path, variable_names=[name])[name]
    except (MatReadError, OSError, ValueError, TypeError, KeyError, EOFError, zlib.error, struct.error) as error:
        raise unreadable(path, error) from error
    check_dtype(path, cube.dtype)
    return cube


def _check_elements(path: Path) -> None:
    """Follow the lengths of the top elements of a version 5 file to its end (MAT-File Format, 1-9).

    scipy takes an element that runs past the end of the file for the end of the list.

    Raises:
        SceneError: An element lies partly beyond the end of the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        order = "<" if header[126:128] == b"IM" else ">"
        position = HEADER_BYTES
        while position < size:
            file.seek(position)
            tag = file.read(8)
            position += 8 + (struct.unpack(f"{order}4xI", tag)[0] if len(tag) == 8 else 0)
    if position != size or size <= HEADER_BYTES:
        raise SceneError(
            "the MATLAB file is cut off or damaged",
            file=path,
            found=f"{size} bytes",
            expected=f"{position} bytes" if position > HEADER_BYTES else "variables after the header",
            remedy="Copy or download the file again.",
        )


class Hdf5Source(NamedSource):
    """A dataset of a version 7.3 file, whose axes are those of MATLAB in reverse."""

    def read_stored(self, window: tuple[slice, slice, slice]) -> np.ndarray:
        """Return a window of the dataset."""
        h5py = _h5py(self.path)
        try:
            with h5py.File(self.path, "r") as file:
                return file[self.name][window]
        except (OSError, KeyError) as error:
            raise unreadable(self.path, error) from error


def _open_version_73(path: Path, wanted: str | None, axes: tuple[int, int, int]) -> Hdf5Source:
    h5py = _h5py(path)
    reversed_axes = tuple(2 - axis for axis in axes)
    try:
        with h5py.File(path, "r") as file:
            variables = {name: _describe(h5py, item) for name, item in file.items() if not name.startswith("#")}
            name = choose_variable(path, variables, wanted)
            dataset = file[name]
            chunks = dataset.chunks or (1, 128, 128)
            block_shape = chunks[reversed_axes[1]], chunks[reversed_axes[2]]
            return Hdf5Source(path, name, dataset.dtype, dataset.shape, reversed_axes, block_shape)  # type: ignore[arg-type]
    except OSError as error:
        raise unreadable(path, error) from error


def _describe(h5py: Any, item: Any) -> Variable:
    """Return shape and MATLAB class of a top-level member of a version 7.3 file."""
    named = item.attrs.get("MATLAB_class", b"")
    named = named.decode() if isinstance(named, bytes) else str(named)
    if not isinstance(item, h5py.Dataset):
        return Variable((), named or "struct")
    if h5py.check_ref_dtype(item.dtype) is not None:
        return Variable(item.shape[::-1], f"{named or 'array'} of object references")
    if item.dtype.names == ("real", "imag"):
        return Variable(item.shape[::-1], f"complex {named or 'array'}")
    usual = {"float64": "double", "float32": "single"}.get(item.dtype.name) or str(item.dtype)
    return Variable(item.shape[::-1], named or usual)


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError.of("MATLAB 7.3 files need", "h5py", "3.10", "hdf5", path) from error
    return h5py
