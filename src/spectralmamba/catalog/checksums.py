"""Whether a file is what was published, or at least what it was."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

from spectralmamba.catalog.entry import DataFile
from spectralmamba.errors import DataError
from spectralmamba.files import write_text

_CHUNK = 1 << 20


class UnverifiedDataWarning(UserWarning):
    """A file was downloaded that nobody has published a checksum of."""


def digests(path: Path) -> tuple[str, str]:
    """Return the SHA-256 of a file and its Git object id."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            blob.update(chunk)
    return sha256.hexdigest(), blob.hexdigest()


def difference(file: DataFile, path: Path) -> dict[str, Any] | None:
    """Return what is found and what was expected, None if the file is what the catalogue says or the catalogue says nothing."""
    sha256, blob = digests(path)
    for kind, found, expected in (("SHA-256", sha256, file.sha256), ("Git object id", blob, file.git_blob)):
        if expected is not None and found != expected:
            return {"found": f"{kind} {found}, {path.stat().st_size} bytes", "expected": f"{kind} {expected}"}
    return None


def is_known(file: DataFile) -> bool:
    """Tell whether the catalogue knows a checksum of the file."""
    return file.sha256 is not None or file.git_blob is not None


def record(file: DataFile, path: Path) -> None:
    """Write the file's SHA-256 beside it, and warn if there was nothing to compare it with."""
    sha256, _ = digests(path)
    write_text(record_path(path), f"{sha256}  {path.name}\n")
    if not is_known(file):
        message = f"{path.name} is unverified: no checksum of it is known. Its SHA-256 {sha256} was recorded beside it."
        warnings.warn(message, UnverifiedDataWarning, stacklevel=2)


def check_unchanged(path: Path) -> None:
    """Compare a file with the SHA-256 that was recorded beside it.

    Raises:
        DataError: They differ.
    """
    beside = record_path(path)
    if not beside.is_file():
        return
    expected = beside.read_text(encoding="utf-8").split(maxsplit=1)[0]
    found, _ = digests(path)
    if found != expected:
        raise DataError(
            "the file has changed since it was downloaded",
            file=path,
            found=f"SHA-256 {found}",
            expected=f"SHA-256 {expected}",
            remedy=f"Remove it and {beside.name}, and get the data set again.",
        )


def record_path(path: Path) -> Path:
    """Return the name of the file that holds the checksum of `path`, in the form of sha256sum."""
    return path.with_name(path.name + ".sha256")
