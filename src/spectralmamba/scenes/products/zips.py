"""Zips of products: read in place where members are stored as they are, else only what is needed is unpacked."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import struct
import tempfile
import weakref
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from spectralmamba.errors import SceneError
from spectralmamba.files import locked
from spectralmamba.scenes.products.files import ProductFiles, Section

ZIP_STARTS = (b"PK\3\4", b"PK\5\6")

MOST_MEMBERS = 10_000
MOST_BYTES = 32 << 30
"""Bytes of all members together; a product has at most 5 GB."""

MOST_RATIO = 200
"""Bytes of all members together for each byte of the zip; reflectance packs to about half."""

_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature, lengths of name and extra field (APPNOTE.TXT, 4.3.7)."""

_PREFIX = "spectralmamba-zip-"
"""How the names of folders begin that hold what is unpacked."""

_ENCRYPTED = 1
_DAMAGED = (zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, NotImplementedError, ValueError)
_DAMAGED_TOO = (RuntimeError, struct.error, IndexError, OverflowError, UnicodeError, MemoryError)


@dataclass
class ZipFiles(ProductFiles):
    """The files of one folder in a zip.

    Attributes:
        place: The zip.
        names: The names of the files, without their folder.
        members: The members, by these names.
    """

    place: Path
    names: list[str]
    members: dict[str, zipfile.ZipInfo]
    _folder: Path | None = field(default=None, init=False)

    def source(self, name: str) -> Path:
        """Return the zip, which stands for the product."""
        return self.place

    def section(self, name: str) -> Section | None:
        """Return where the bytes of a member are that is stored as it is, None if it is compressed."""
        member = self.members[name]
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            return None
        with self.place.open("rb") as file:
            file.seek(member.header_offset)
            head = file.read(_LOCAL_HEADER.size)
        if len(head) < _LOCAL_HEADER.size or not head.startswith(b"PK\3\4"):
            raise _damaged(self.place, "no member where the directory says")
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(head)
        start = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        if start + member.file_size > self.place.stat().st_size:
            raise _damaged(self.place, f"{member.filename} ends beyond the end of the zip")
        return Section(self.place, start, member.file_size)

    def path(self, name: str) -> Path:
        """Return the unpacked member, in a folder that is removed with the last scene that needs it."""
        if self._folder is None:
            self._folder = _temporary_folder(self)
        target = self._folder / name
        if not target.exists():
            _unpack(self.place, self.members[name], target)
        return target


def zip_folders(path: Path) -> list[ZipFiles]:
    """Return the folders of a zip that hold files.

    Raises:
        SceneError: It is damaged, not safe, too large, or needs a password.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (*_DAMAGED, *_DAMAGED_TOO) as error:
        raise _damaged(path, str(error) or type(error).__name__) from error
    _check(path, members)
    folders: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for member in members:
        parts = PurePosixPath(member.filename).parts
        if member.is_dir() or "__MACOSX" in parts or not parts:
            continue
        folder = folders.setdefault("/".join(parts[:-1]), {})
        if parts[-1] in folder:
            raise _unsafe(path, f"the member {member.filename!r} twice", "each member once")
        folder[parts[-1]] = member
    return [ZipFiles(path, sorted(folder), folder) for folder in folders.values()]


def is_zip(path: Path) -> bool:
    """Tell by its first bytes whether a file is a zip."""
    with path.open("rb") as file:
        return file.read(4) in ZIP_STARTS


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MOST_MEMBERS:
        raise _unsafe(path, f"{len(members)} members", f"at most {MOST_MEMBERS}")
    for member in members:
        name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        if ".." in PurePosixPath(name).parts or name.startswith("/") or "\\" in name or ":" in name or "\0" in name:
            raise _unsafe(path, f"a member that leads out of it, {name!r}", "names within the zip")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(path, f"a link or device, {name!r}", "files")
        if member.flag_bits & _ENCRYPTED:
            raise SceneError(
                "the zip needs a password",
                file=path,
                found=f"{name!r}, encrypted",
                expected="a zip without password",
                remedy="Unpack it yourself and name the folder.",
            )
    size, packed = sum(member.file_size for member in members), path.stat().st_size
    if size > MOST_BYTES or size > MOST_RATIO * packed:
        raise _unsafe(
            path, f"{size} bytes in a zip of {packed}", f"at most {MOST_BYTES} bytes, {MOST_RATIO} times the zip"
        )


def _temporary_folder(owner: ZipFiles) -> Path:
    """Make a folder in the cache that goes with its owner or the process; after a kill, when the next one is made."""
    cache = os.environ.get("SPECTRALMAMBA_CACHE")
    place = Path(cache or tempfile.gettempdir())
    try:
        place.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(place)
        folder, lock = _locked_folder(place)
    except OSError as error:
        raise SceneError(
            "there is no room to unpack the zip",
            file=owner.place,
            found=error,
            expected="a folder that can be written",
            remedy="Name one in SPECTRALMAMBA_CACHE, or unpack the zip yourself.",
        ) from error
    weakref.finalize(owner, _remove, folder, lock, os.getpid())
    return folder


def _locked_folder(place: Path) -> tuple[Path, int | None]:
    """Make a folder that this process holds; return it and the descriptor that does."""
    new = Path(tempfile.mkdtemp(prefix=".spectralmamba-new-", dir=place))
    lock = _descriptor(new)
    if lock is not None:
        locked(lock)
    # Only by its last name can it be taken for one that was left behind.
    folder = new.with_name(_PREFIX + new.name.rpartition("-")[2])
    new.rename(folder)
    return folder, lock


def _remove_left_behind(place: Path) -> None:
    """Remove what processes that were killed have unpacked: folders that no process holds."""
    for folder in place.glob(f"{_PREFIX}*"):
        lock = _descriptor(folder)
        if lock is not None:
            if locked(lock):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _descriptor(folder: Path) -> int | None:
    """Open a folder to lock it, None where that cannot be done: on Windows, or of another user."""
    try:
        return os.open(folder, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None


def _remove(folder: Path, lock: int | None, process: int) -> None:
    if os.getpid() == process:  # not in a forked one
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _unpack(path: Path, member: zipfile.ZipInfo, target: Path) -> None:
    """Write a member under a name without folders; never more bytes than the directory promises."""
    free = shutil.disk_usage(target.parent).free
    if free < member.file_size:
        raise SceneError(
            "there is no room to unpack the zip",
            file=path,
            found=f"{free} bytes free in {target.parent}",
            expected=f"{member.file_size} bytes for {member.filename}",
            remedy="Name a folder with more room in SPECTRALMAMBA_CACHE, or unpack the zip yourself.",
        )
    partial = target.with_name(target.name + ".part")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as source, partial.open("wb") as output:
            written = 0
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                if written > member.file_size:
                    raise zipfile.BadZipFile(f"{member.filename} is larger than its directory says")
                output.write(chunk)
        if written != member.file_size:
            raise zipfile.BadZipFile(f"{member.filename} is smaller than its directory says")
        partial.rename(target)
    except (*_DAMAGED, *_DAMAGED_TOO) as error:
        raise _damaged(path, str(error) or type(error).__name__) from error


def _damaged(path: Path, found: str) -> SceneError:
    return SceneError(
        "the zip is damaged, or packed in a way that is not read",
        file=path,
        found=found,
        expected="a whole zip",
        remedy="Download it again, or unpack it yourself and name the folder.",
    )


def _unsafe(path: Path, found: str, expected: str) -> SceneError:
    return SceneError(
        "the zip is not safe",
        file=path,
        found=found,
        expected=expected,
        remedy="It is not what the publisher packs; download it again.",
    )
