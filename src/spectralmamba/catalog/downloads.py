"""Getting the files of a data set into the cache: by download, or from a folder that somebody filled by hand."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from spectralmamba.catalog import archives, checksums
from spectralmamba.catalog.entry import DataFile, Entry, Layout
from spectralmamba.catalog.places import cache_folder, files_in
from spectralmamba.catalog.transfer import Downloader, Progress, pooch_package, require_space
from spectralmamba.errors import DataError, OutputError
from spectralmamba.files import atomic_output, locked

T = TypeVar("T")

_ARRIVING = ".arriving-"
"""How folders begin in which downloads are looked at; killed processes leave them."""


def fetch(
    entry: Entry,
    *,
    cache: str | os.PathLike[str] | None = None,
    from_folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Put the files of a data set into the cache; those that are there stay.

    Of the forms in which it is passed on, the first is taken whose scene and labels can be had. Masks that have no
    address are left out if they are not in `from_folder`.

    Args:
        entry: The data set.
        cache: The folder of downloads.
        from_folder: A folder, looked through with all folders in it, of files or archives downloaded by hand; what is
            not there is downloaded.
        progress: Called with a file's name, bytes done, and bytes in all if they are known.

    Returns:
        The files in the cache.

    Raises:
        DataError: A file cannot be had, or is not what was published.
        OutputError: The cache cannot be written, is full, or another process is filling this folder of it.
        MissingPackageError: pooch is not installed.
    """
    folder = _make(cache_folder(cache) / entry.name)
    with _alone(folder):
        shelf = _Shelf(entry, folder, Path(from_folder) if from_folder else None, progress)
        layout = shelf.choose_layout()
        if layout is None:
            raise _by_hand(entry, shelf)
        names = [*layout.required, *(name for name in layout.optional if shelf.has_source(name))]
        got = [shelf.get(name) for name in names]
        shelf.clear_archives()
    return got


def how_to_get(entry: Entry) -> str:
    """Say what to do to have a data set, a sentence or two."""
    if not any(all(entry.downloadable(name) for name in layout.required) for layout in entry.layouts):
        if not entry.files:
            return f"It has no address; see {entry.page}, and give the folder that holds it with --data-root."
        return (
            f"Download it by hand from {entry.page} (terms: {entry.terms}), then: "
            f"spectralmamba data get {entry.name} --from-folder FOLDER"
        )
    return f"Get it with: spectralmamba data get {entry.name} (terms: {entry.terms}; {entry.page})"


class _Shelf:
    """The folder of one data set in the cache, and where its files may come from."""

    def __init__(self, entry: Entry, folder: Path, by_hand: Path | None, progress: Progress | None) -> None:
        self.entry, self.folder, self.progress = entry, folder, progress
        self.given = _Given(by_hand) if by_hand is not None else None

    def choose_layout(self) -> Layout | None:
        """Return the first form that can be had, but rather one whose scene need not be downloaded."""
        possible = [layout for layout in self.entry.layouts if all(map(self.has_source, layout.required))]
        here = [layout for layout in possible if self._is_here(layout.scene)]
        return next(iter(here + possible), None)

    def _is_here(self, name: str) -> bool:
        return name.lower() in files_in(self.folder) or (
            self.given is not None and self.given.holds(self.entry.file(name))
        )

    def has_source(self, name: str) -> bool:
        return self._is_here(name) or self.entry.downloadable(name)

    def get(self, name: str) -> Path:
        file = self.entry.file(name)
        target = self.folder / file.name
        if target.is_file():
            checksums.check_unchanged(target)
            if not checksums.record_path(target).is_file():  # put there by hand, or the process was killed just then
                _check(file, target, target)
                checksums.record(file, target)
            return target
        if self.given is not None and self.given.holds(file):
            self.given.take(file, target)
        elif file.urls:
            _download(file, target, self.progress)
        else:
            self._unpack(file, target)
        checksums.record(file, target)
        return target

    def clear_archives(self) -> None:
        """Remove downloaded archives, of which all that is needed has been taken."""
        for name in {file.archive for file in self.entry.files if file.archive is not None}:
            for path in (self.folder / name, checksums.record_path(self.folder / name)):
                path.unlink(missing_ok=True)

    def _unpack(self, file: DataFile, target: Path) -> None:
        assert file.archive is not None  # has_source() was asked
        archive = self.get(file.archive)
        _Given(archive).take(file, target)


class _Given:
    """Files and archives that are there, under a folder or in one archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            found = [entry for entry in sorted(path.rglob("*")) if entry.is_file()]
        elif path.is_file():
            found = [path]
        else:
            raise DataError("there is no such folder", file=path, remedy="Name the folder of the downloaded files.")
        self.plain = [entry for entry in found if not archives.is_archive(entry)]
        self.packed = {entry: archives.members(entry) for entry in found if archives.is_archive(entry)}

    def holds(self, file: DataFile) -> bool:
        return bool(self._plain(file) or self._packed(file))

    def take(self, file: DataFile, target: Path) -> None:
        """Copy or unpack the file to `target`.

        Raises:
            DataError: It is not there, there are several, or it is not what was published.
        """
        plain, packed = self._plain(file), [] if self._plain(file) else self._packed(file)
        if len(plain) + len(packed) != 1:
            found = [str(path) for path in plain] + [f"{path}: {member.path}" for path, member in packed]
            raise DataError(
                f"{'several files are' if found else 'no file is'} called {file.name}",
                file=self.path,
                found="; ".join(found) or None,
                expected="one of this name",
                remedy="Give the folder of this data set alone." if found else None,
            )
        if plain:
            _check(file, plain[0], plain[0])
            require_space(target, plain[0].stat().st_size)
            with atomic_output(target) as temporary:
                shutil.copyfile(plain[0], temporary)
            return
        with _arriving(target) as arrived:
            archives.extract(*packed[0], arrived)
            _check(file, arrived, packed[0][0])

    def _plain(self, file: DataFile) -> list[Path]:
        found = [path for path in self.plain if path.name.lower() == file.name.lower()]
        return _nearest(found, file, lambda path: path.relative_to(self.path).as_posix())

    def _packed(self, file: DataFile) -> list[tuple[Path, archives.Member]]:
        found = [
            (path, member)
            for path, inside in self.packed.items()
            for member in inside
            if member.name.lower() == file.name.lower()
        ]
        return _nearest(found, file, lambda item: f"{item[0].name}/{item[1].path}")


def _nearest(found: list[T], file: DataFile, path: Callable[[T], str]) -> list[T]:
    """Of several files of one name, return those whose path says that they are this data set's."""
    if len(found) < 2:
        return found
    return [item for item in found if file.inside.lower() in path(item).lower()]


def _check(file: DataFile, path: Path, source: Path) -> None:
    if wrong := checksums.difference(file, path):
        raise DataError(
            f"{file.name} is not the file that was published", file=source, **wrong, remedy="Download it again."
        )


@contextmanager
def _arriving(target: Path) -> Iterator[Path]:
    """Yield where to put a file that is to be looked at; on success it gets its final name, else it is removed.

    Raises:
        OutputError: The cache cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=_ARRIVING) as folder:
            arrived = Path(folder) / target.name
            yield arrived
            with atomic_output(target) as temporary:
                os.replace(arrived, temporary)
    except PermissionError as error:
        raise OutputError(
            "cannot write to the cache",
            file=target,
            found=error.strerror,
            remedy="Check the folder's permissions or choose another one with --cache.",
        ) from error


def _download(file: DataFile, target: Path, progress: Progress | None) -> None:
    """Try one address after the other.

    Raises:
        DataError: None gives the file; the message says what each of them said.
    """
    pooch = pooch_package()
    import requests

    said: list[str] = []
    rejected: DataError | None = None
    part = target.with_name(target.name + ".part")
    for url in file.urls:
        downloader = Downloader(part, verified=checksums.is_known(file), progress=progress)
        try:
            with _quiet(pooch), _arriving(target) as arrived:
                pooch.retrieve(url, None, fname=arrived.name, path=arrived.parent, downloader=downloader)
                _keep_aside_if_wrong(file, arrived, target, url)
            return
        except DataError as error:
            rejected = error
            said.append(f"{url}: another file ({error.found})")
        except requests.RequestException as error:
            said.append(f"{url}: {_in_words(error)}")
    if rejected is not None and len(file.urls) == 1:
        raise rejected
    raise DataError(
        "the file cannot be downloaded",
        file=target,
        found="; ".join(said),
        expected=rejected.expected if rejected is not None else None,
        remedy="Try again later, or download it by hand and give its folder with --from-folder.",
    )


def _keep_aside_if_wrong(file: DataFile, arrived: Path, target: Path, url: str) -> None:
    if wrong := checksums.difference(file, arrived):
        aside = target.with_name(target.name + ".rejected")
        os.replace(arrived, aside)
        raise DataError(
            "the downloaded file is not the one that was published",
            file=aside,
            **wrong,
            remedy=f"It came from {url}, and is kept for you to look at.",
        )


def _in_words(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {response.reason}"
    words = {
        "ReadTimeout": "no answer in time",
        "ConnectTimeout": "no answer in time",
        "ConnectionError": "no connection, or it was closed",
        "ChunkedEncodingError": "the transfer was cut again and again",
    }
    return words.get(type(error).__name__, str(error))


@contextmanager
def _quiet(pooch: Any) -> Iterator[None]:
    """Keep pooch from telling of downloads; whoever asked for one is told in our words."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder of the cache, and remove what a killed process left there."""
    if os.name == "nt":  # which opens no folders
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not locked(descriptor):
            raise OutputError("another process is getting this data set", file=folder, remedy="Wait for it.")
        for left in folder.glob(f"{_ARRIVING}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "cannot make the folder of the cache",
            file=folder,
            found=error.strerror,
            remedy="Choose another one with --cache.",
        ) from error
    return folder


def _by_hand(entry: Entry, shelf: _Shelf) -> DataError:
    forms = [
        ", ".join(name for name in layout.required if not shelf.has_source(name))
        for layout in entry.layouts
        if all(entry.file(name) in entry.files for name in layout.required)
    ]
    where = "among the files in the folder" if shelf.given is not None else "without a download by hand"
    return DataError(
        f"{entry.title} cannot be had {where}",
        file=shelf.given.path if shelf.given is not None else None,
        found=f"missing: {'; or '.join(dict.fromkeys(forms))}" if forms else None,
        remedy=how_to_get(entry),
    )
