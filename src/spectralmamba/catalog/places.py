"""Where the files of data sets lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spectralmamba.catalog.entry import Entry, Layout

CACHE_VARIABLE, ROOT_VARIABLE = "SPECTRALMAMBA_CACHE", "SPECTRALMAMBA_DATA"


@dataclass(frozen=True)
class Found:
    """A data set whose files are here.

    Attributes:
        layout: In which form.
        files: Name in the catalogue → path, of scene and labels, and of the masks that are here, too.
        cached: Whether they lie in the cache, where checksums are beside them.
    """

    layout: Layout
    files: dict[str, Path]
    cached: bool


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of downloads: the argument, `SPECTRALMAMBA_CACHE`, or the system's folder for caches.

    Raises:
        MissingPackageError: None is named, and pooch, which knows the system's, is not installed.
    """
    named = cache or os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    from spectralmamba.catalog.transfer import pooch_package

    return Path(pooch_package().os_cache("spectralmamba"))


def root_folder(root: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder of reference data: the argument, or `SPECTRALMAMBA_DATA`, None if neither is given."""
    named = root or os.environ.get(ROOT_VARIABLE)
    return Path(named).expanduser() if named else None


def find(
    entry: Entry, *, root: str | os.PathLike[str] | None = None, cache: str | os.PathLike[str] | None = None
) -> Found | None:
    """Look for a data set in the folder of reference data, then in the cache.

    Args:
        entry: The data set.
        root: A folder of reference data, with a folder for each data set or with its files themselves.
        cache: The folder of downloads.

    Returns:
        The first form of which scene and labels are here, None if none is.
    """
    for folder, cached in _folders(entry, root, cache):
        here = files_in(folder)
        for layout in entry.layouts:
            if all(name.lower() in here for name in layout.required):
                names = (*layout.required, *layout.optional)
                files = {name: here[name.lower()] for name in names if name.lower() in here}
                return Found(layout, files, cached)
    return None


def searched(
    entry: Entry, *, root: str | os.PathLike[str] | None = None, cache: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Return the folders in which `find` looks."""
    return [folder for folder, _ in _folders(entry, root, cache)]


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by their names in lower case."""
    if not folder.is_dir():
        return {}
    return {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True) if path.is_file()}


def _folders(
    entry: Entry, root: str | os.PathLike[str] | None, cache: str | os.PathLike[str] | None
) -> Iterator[tuple[Path, bool]]:
    from spectralmamba.errors import MissingPackageError

    reference = root_folder(root)
    if reference is not None:
        yield from (
            (folder, False) for folder in dict.fromkeys((reference / entry.folder, reference / entry.name, reference))
        )
    try:
        yield cache_folder(cache) / entry.name, True
    except MissingPackageError:
        return  # without pooch nothing was downloaded to the system's folder
