"""What a run keeps for the viewer: `pixels.npz`, values of every n-th pixel, and `why.npz`, what decided in some of them."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectralmamba.files import atomic_output
from spectralmamba.report.folder import damaged

LEVELS = 65534
"""The highest level of a quantised value."""
NOTHING = 65535
"""The level where there is no value."""
BYTES_BESIDE = 13
"""Bytes that the page holds of a pixel besides spectrum and probabilities: class, reference, confidence, split, picture, margin."""
MOST_BYTES = 10_500_000
"""Of pixels in the page: as text, which takes four thirds of it, and with all else, the page stays below 15 MB."""


@dataclass(frozen=True)
class PixelValues:
    """Spectra and class probabilities of every n-th row and column, from the first.

    Attributes:
        step: n.
        bands: Numbers of the bands that the classifier uses, counted from 1, int32 `(G,)`.
        wavelength: Of all bands of the scene in nm, NaN where unknown, float64 `(L,)`.
        offset: What level 0 of each band stands for, float64 `(G,)`.
        scale: What a step from one level to the next is, float64 `(G,)`; values are rounded by up to half of it.
        levels: Spectra as levels, `NOTHING` at nodata, uint16 `(h, w, G)`.
        classes: Ids of the classes that have probabilities, int32 `(K,)`.
        probabilities: In units of 1 / `LEVELS`, `NOTHING` at nodata, uint16 `(h, w, K)`.
    """

    step: int
    bands: NDArray[np.int32]
    wavelength: NDArray[np.float64]
    offset: NDArray[np.float64]
    scale: NDArray[np.float64]
    levels: NDArray[np.uint16]
    classes: NDArray[np.int32]
    probabilities: NDArray[np.uint16]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to one .npz file, atomically."""
        _save(path, asdict(self))

    @classmethod
    def load(cls, path: Path, shape: tuple[int, int]) -> PixelValues:
        """Read what `save` wrote of a scene of so many rows and columns.

        Raises:
            OutputError: The file is damaged, or of another scene.
        """
        found = _load(path, cls)
        if found["step"].shape != () or not 1 <= int(found["step"]) <= max(shape):
            raise damaged(path, f"a step of {found['step']}", f"one of 1 to {max(shape)} pixels")
        step, used, bands, classes = (
            int(found["step"]),
            *(found[name].size for name in ("bands", "wavelength", "classes")),
        )
        pixels = every_nth(shape, step)
        expected: dict[str, tuple[int, ...]] = {name: (used,) for name in ("bands", "offset", "scale")}
        expected |= {"wavelength": (bands,), "levels": (*pixels, used)}
        expected |= {"classes": (classes,), "probabilities": (*pixels, classes)}
        _check_shapes(path, found, expected)
        if np.any(found["bands"] < 1) or np.any(found["bands"] > bands):
            raise damaged(path, "a band that the scene does not have", f"bands from 1 to {bands}")
        if found["levels"].dtype != np.uint16 or found["probabilities"].dtype != np.uint16:
            raise damaged(path, f"levels of {found['levels'].dtype}", "uint16")
        return cls(**{**found, "step": step})


@dataclass(frozen=True)
class Explanations:
    """What decided in m pixels.

    Attributes:
        rows: Their rows, int32 `(m,)`.
        columns: Their columns, int32 `(m,)`.
        classes: Ids of the classes that they got, int32 `(m,)`.
        first: First band of each block, its number counted from 1, int32 `(J,)`.
        last: Last band of each block, int32 `(J,)`.
        effects: By how much the probability of the class falls if a block is replaced by the training mean, float32 `(m, J)`.
        gates: Gate of each pixel of the patch, the mean over the bands, float32 `(m, P, P)`; `(m, 0, 0)` of a network without one.
    """

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    classes: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    effects: NDArray[np.float32]
    gates: NDArray[np.float32]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to one .npz file, atomically."""
        _save(path, asdict(self))

    @classmethod
    def load(cls, path: Path, shape: tuple[int, int]) -> Explanations:
        """Read what `save` wrote of a scene of so many rows and columns.

        Raises:
            OutputError: The file is damaged, or of another scene.
        """
        found = _load(path, cls)
        pixels, blocks, patch = found["rows"].size, found["first"].size, found["gates"].shape[-1:]
        expected = {name: (pixels,) for name in ("rows", "columns", "classes")}
        expected |= {"first": (blocks,), "last": (blocks,), "effects": (pixels, blocks), "gates": (pixels, *patch * 2)}
        _check_shapes(path, found, expected)
        for name, size in zip(("rows", "columns"), shape, strict=True):
            if pixels and not 0 <= found[name].min() <= found[name].max() < size:
                raise damaged(path, f"{name} up to {found[name].max()}", f"{name} of a scene of {size}")
        if not (np.isfinite(found["effects"]).all() and np.isfinite(found["gates"]).all()):
            raise damaged(path, "NaN or infinity", "finite numbers")
        return cls(**found)


def every_nth(shape: tuple[int, ...], step: int) -> tuple[int, int]:
    """How many rows and columns are every n-th of a scene's, from the first."""
    return -(-shape[0] // step), -(-shape[1] // step)


def find_step(shape: tuple[int, ...], bands: int, classes: int) -> int:
    """The least n of which every n-th pixel of a scene, with spectrum and probabilities, fits into the page."""
    of_pixel = BYTES_BESIDE + 2 * (bands + classes)
    step = 1
    while np.prod(every_nth(shape, step)) * of_pixel > MOST_BYTES:
        step += 1
    return step


def quantise(
    values: NDArray[np.floating],
) -> tuple[NDArray[np.uint16], NDArray[np.float64], NDArray[np.float64]]:
    """Levels of values `(…, G)`, and offset and scale `(G,)` of each band; values are rounded by up to half of its scale."""
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    there = np.isfinite(flat)
    some = there.any(axis=0)
    low = np.where(some, np.min(flat, axis=0, where=there, initial=np.inf), 0)
    high = np.where(some, np.max(flat, axis=0, where=there, initial=-np.inf), 0)
    scale = (high - low) / LEVELS
    levels = np.rint((np.where(there, flat, low) - low) / np.where(scale > 0, scale, 1))
    return np.where(there, levels, NOTHING).astype(np.uint16).reshape(values.shape), low, scale


def share_levels(shares: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Shares of 0 to 1 in units of 1 / `LEVELS`, `NOTHING` where they are NaN."""
    there = np.isfinite(shares)
    return np.where(there, np.rint(np.where(there, shares, 0) * LEVELS), NOTHING).astype(np.uint16)


def _save(path: str | os.PathLike[str], arrays: dict[str, Any]) -> None:
    with atomic_output(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _load(path: Path, kind: type[PixelValues | Explanations]) -> dict[str, NDArray[Any]]:
    """Read the arrays that the fields of a class are saved as."""
    names = [field.name for field in fields(kind)]
    expected = f"a file of arrays, {', '.join(names)}"
    if not zipfile.is_zipfile(path):
        raise damaged(path, "no whole .npz file", expected)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in names}
    except (ValueError, KeyError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, str(error), expected) from error
    for name, values in found.items():
        if values.dtype.kind not in "iuf":
            raise damaged(path, f"{name} of {values.dtype}", "numbers")
    return found


def _check_shapes(path: Path, found: dict[str, NDArray[Any]], expected: dict[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise damaged(path, f"{name} of shape {found[name].shape}", f"{shape}")
