"""Products in HDF5, which netCDF-4 is too: windows, attributes, and errors that name what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectralmamba.errors import MissingPackageError, SceneError
from spectralmamba.scenes.sources import NamedSource, unreadable

_WITHOUT_CHUNKS = 1, 1 << 20


class Hdf5Cube(NamedSource):
    """A dataset with three axes; each read opens the file and decodes the chunks of its window."""

    def read_stored(self, window: tuple[slice, slice, slice]) -> np.ndarray:
        """Return a window of the dataset."""
        try:
            with h5py_package(self.path).File(self.path, "r") as file:
                dataset = file[self.name]
                if dataset.shape != self.stored_shape:
                    raise ValueError(f"an array of shape {dataset.shape} where it was {self.stored_shape}")
                return dataset[window]
        except MissingPackageError:
            raise
        except Exception as error:  # every filter raises errors of its own
            raise unreadable(self.path, error) from error


def h5py_package(path: Path) -> Any:
    """Return the package h5py, which is imported when it is needed.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError.of("HDF5 and netCDF-4 files need", "h5py", "3.10", "hdf5", path) from error
    return h5py


@dataclass(frozen=True)
class Hdf5File:
    """An open file that names what it lacks.

    Attributes:
        path: The file.
        file: h5py's.
    """

    path: Path
    file: Any

    def __contains__(self, name: str) -> bool:
        return self.file.get(name) is not None

    def dataset(self, name: str, axes: int) -> Any:
        """Return a dataset with so many axes, none of which is empty.

        Raises:
            SceneError: It is not there, or has others.
        """
        dataset = self.file.get(name)
        shape = getattr(dataset, "shape", None)
        if dataset is None or shape is None:
            group = name.rpartition("/")[0] or "/"
            inside = self.file.get(group)
            raise self.error(
                "a part of the product is missing",
                f"no {name}" + ("" if inside is None or not hasattr(inside, "keys") else _listed(inside)),
                f"the dataset {name}",
            )
        if len(shape) != axes or 0 in shape:
            raise self.error(f"{name} has another shape", shape, f"{axes} axes")
        return dataset

    def cube(self, name: str, axes: tuple[int, int, int]) -> Hdf5Cube:
        """Return a dataset as a cube whose bands, rows and columns are these axes."""
        dataset = self.dataset(name, 3)
        chunks = dataset.chunks or tuple(_WITHOUT_CHUNKS[axis == axes[2]] for axis in range(3))
        block = tuple(min(chunks[axis], dataset.shape[axis]) for axis in axes[1:])
        return Hdf5Cube(self.path, name, dataset.dtype, dataset.shape, axes, block)  # type: ignore[arg-type]

    def numbers(self, name: str, count: int) -> np.ndarray:
        """Return a dataset with one axis of so many numbers as float64."""
        dataset = self.dataset(name, 1)
        return self._numbers(name, dataset[()], count)

    def attribute_numbers(self, name: str, count: int | None = None) -> np.ndarray:
        """Return a root attribute's numbers as float64, so many of them if that is known.

        Raises:
            SceneError: It is not there, or holds something else.
        """
        if name not in self.file.attrs:
            raise self.error("a part of the product is missing", f"no attribute {name}", f"the attribute {name}")
        return self._numbers(name, self.file.attrs[name], count)

    def attribute_number(self, name: str) -> float:
        """Return a root attribute's only number, which is finite."""
        (value,) = self.attribute_numbers(name, 1).tolist()
        if not np.isfinite(value):
            raise self.error(f"{name} is no number", value, "a finite number")
        return value

    def attribute_text(self, name: str) -> str | None:
        """Return a root attribute's text, None if it is not there."""
        return text_of(self.file.attrs.get(name))

    def error(self, problem: str, found: object, expected: object, remedy: str | None = None) -> SceneError:
        """Return the error for this file."""
        return SceneError(
            problem,
            file=self.path,
            found=found,
            expected=expected,
            remedy=remedy or "The file is damaged, or another product; download it again.",
        )

    def _numbers(self, name: str, value: Any, count: int | None) -> np.ndarray:
        try:
            numbers = np.atleast_1d(np.asarray(value)).astype(np.float64).ravel()
        except (TypeError, ValueError) as error:
            raise self.error(f"{name} holds no numbers", str(value)[:40], "numbers") from error
        if count is not None and len(numbers) != count:
            raise self.error(f"{name} has another length", len(numbers), count)
        return numbers


def text_of(value: Any) -> str | None:
    """Return an attribute or a name as text, None if it is empty or not there."""
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\0 \n") or None


@contextmanager
def opened_hdf5(path: Path) -> Iterator[Hdf5File]:
    """Open a file to look into it.

    Raises:
        SceneError: It is damaged or cut off.
        MissingPackageError: h5py is not installed.
    """
    h5py = h5py_package(path)
    try:
        with h5py.File(path, "r") as file:
            yield Hdf5File(path, file)
    except (SceneError, MissingPackageError):
        raise
    except Exception as error:  # damaged files lead h5py to errors of many kinds
        raise unreadable(path, error) from error


def _listed(group: Any) -> str:
    names = list(group.keys())
    return f", only {', '.join(names[:8])}{' …' if len(names) > 8 else ''}" if names else ", nothing at all"
