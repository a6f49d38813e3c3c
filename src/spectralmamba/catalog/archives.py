"""Single files out of archives that somebody else made."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from spectralmamba.catalog.transfer import require_space
from spectralmamba.errors import DataError
from spectralmamba.files import atomic_output

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""How the names of archives end that are looked into."""

SIZE_LIMIT = 16 << 30
"""Bytes that a member may have; the largest scene of the catalogue has less than 1 GB."""

_CHUNK = 1 << 20
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, NotImplementedError)


@dataclass(frozen=True)
class Member:
    """A regular file in an archive.

    Attributes:
        path: Its path there.
        size: Bytes, as the archive says.
    """

    path: str
    size: int

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path.replace("\\", "/")).name


def is_archive(path: Path) -> bool:
    """Tell by its name whether a file is an archive that is looked into."""
    return path.name.lower().endswith(ENDINGS)


def members(path: Path) -> list[Member]:
    """Return the regular files of an archive: no links, no devices.

    Raises:
        DataError: It is damaged, or no archive.
    """
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                return [Member(item.filename, item.file_size) for item in archive.infolist() if _is_regular(item)]
        with tarfile.open(path) as archive:
            return [Member(item.name, item.size) for item in archive if item.isreg()]
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def extract(path: Path, member: Member, target: Path) -> None:
    """Write one member to `target`, whatever path the archive gives it.

    Raises:
        DataError: Its path leads out of the archive, it is too large or encrypted, or the archive is damaged.
        OutputError: `target` cannot be written.
    """
    parts = PurePosixPath(member.path.replace("\\", "/")).parts
    if ".." in parts or parts[:1] == ("/",) or ":" in parts[0]:
        raise DataError("the archive is not safe", file=path, found=f"a member that leads out of it, {member.path!r}")
    if member.size > SIZE_LIMIT:
        raise _too_large(path, member, member.size)
    require_space(target, member.size)
    with atomic_output(target) as temporary, temporary.open("wb") as output, _open(path, member) as source:
        written = 0
        while chunk := _read(path, source):
            written += len(chunk)
            if written > min(member.size, SIZE_LIMIT):
                raise _too_large(path, member, written)
            output.write(chunk)


def _is_regular(item: zipfile.ZipInfo) -> bool:
    mode = item.external_attr >> 16
    return not item.is_dir() and (stat.S_IFMT(mode) in (0, stat.S_IFREG))


@contextmanager
def _open(path: Path, member: Member) -> Iterator[IO[bytes]]:
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive, archive.open(member.path) as source:
                yield source
            return
        with tarfile.open(path) as archive:
            source = archive.extractfile(member.path)
            assert source is not None  # members() lists regular files only
            with source:
                yield source
    except RuntimeError as error:
        raise DataError(
            "the archive is encrypted",
            file=path,
            found=str(error),
            remedy="Unpack it yourself, and give the folder of the unpacked files.",
        ) from error
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError) as error:
        raise _damaged(path, error) from error


def _read(path: Path, source: IO[bytes]) -> bytes:
    try:
        return source.read(_CHUNK)
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(
        "the archive is damaged, or not one of the kinds that are read",
        file=path,
        found=str(error) or type(error).__name__,
        expected=" or ".join(ENDINGS),
        remedy="Download it again, or unpack it yourself and give the folder of the unpacked files.",
    )


def _too_large(path: Path, member: Member, size: int) -> DataError:
    return DataError(
        "a member of the archive is too large",
        file=path,
        found=f"{member.path!r} with {size} bytes or more",
        expected=f"at most {min(member.size, SIZE_LIMIT)} bytes",
        remedy="Is this the publisher's archive?",
    )
