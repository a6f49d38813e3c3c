"""The files of a product: in a folder, or in a zip of it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from spectralmamba.errors import SceneError


class Section(NamedTuple):
    """A part of a file that holds another one as it is.

    Attributes:
        path: The file around it.
        start: Its first byte.
        size: Its bytes.
    """

    path: Path
    start: int
    size: int


class ProductFiles(ABC):
    """Files by name, whatever the case of its letters.

    Attributes:
        place: The folder or zip, for messages.
        names: The names of the files.
    """

    place: Path
    names: list[str]

    @abstractmethod
    def path(self, name: str) -> Path:
        """Return where the file is on the disk."""

    def section(self, name: str) -> Section | None:
        """Return where the bytes of the file are in another, None if it has to be asked by its path."""
        return None

    def source(self, name: str) -> Path:
        """Return what stands for the product of which this is the main file."""
        return self.path(name)

    def find(self, stem: str, parts: tuple[str, ...], suffixes: tuple[str, ...]) -> str | None:
        """Return the file whose name is the stem, one of the parts and one of the suffixes; None if none is there.

        Raises:
            SceneError: There are two.
        """
        wanted = {f"{stem}{part}{suffix}".lower() for part in parts for suffix in suffixes}
        found = [name for name in self.names if name.lower() in wanted]
        if len(found) > 1:
            raise SceneError(
                "a file of the product is there twice",
                file=self.place,
                found=" and ".join(found),
                expected=f"one {stem}{parts[0]}{suffixes[0]}",
                remedy="Remove one of them, or move it elsewhere.",
            )
        return found[0] if found else None

    def need(self, stem: str, parts: tuple[str, ...], suffixes: tuple[str, ...], remedy: str | None = None) -> str:
        """Return what `find` does.

        Raises:
            SceneError: The file is not there.
        """
        found = self.find(stem, parts, suffixes)
        if found is None:
            raise SceneError(
                "a file of the product is missing",
                file=self.place,
                found=f"no {stem}{parts[0]}{suffixes[0]}",
                expected=" or ".join(f"{parts[0]}{suffix}" for suffix in suffixes),
                remedy=remedy or "Put all files of the product into one folder, or download it again.",
            )
        return found


@dataclass(frozen=True)
class FolderFiles(ProductFiles):
    """The files of a folder.

    Attributes:
        place: The folder.
        names: The names of its files.
        named: The file that the user named, which may be a link to anywhere.
    """

    place: Path
    names: list[str]
    named: str | None = None

    @classmethod
    def of(cls, folder: Path, named: str | None = None) -> FolderFiles:
        """Return the files of a folder, of which the user may have named one.

        Raises:
            SceneError: It cannot be read.
        """
        try:
            return cls(folder, sorted(entry.name for entry in folder.iterdir() if entry.is_file()), named)
        except OSError as error:
            raise SceneError(
                "the folder cannot be read", file=folder, found=error.strerror, remedy="Check its permissions."
            ) from error

    def path(self, name: str) -> Path:
        """Return where the file is on the disk.

        Raises:
            SceneError: It is a link that leads out of the folder.
        """
        path = self.place / name
        if path.is_symlink() and name != self.named and not path.resolve().is_relative_to(self.place.resolve()):
            raise SceneError(
                "a file of the product is a link that leads out of its folder",
                file=path,
                found=f"a link to {path.resolve()}",
                expected="the file itself, or a link within the folder",
                remedy="Copy the file into the folder, or name the folder that holds it.",
            )
        return path


def time_in_name(name: str, around: str = "{}") -> str | None:
    """Return the time in a product's name, 20240501T103000, as ISO 8601 writes it in UTC; None if there is none.

    Args:
        name: The name.
        around: What stands around the time, a regular expression with {} in its place.
    """
    found = re.search(around.format(r"(\d{4})(\d\d)(\d\d)[Tt](\d\d)(\d\d)(\d\d)"), name)
    return "{}-{}-{}T{}:{}:{}Z".format(*found.groups()) if found else None
