"""The public data sets: what they are, how they are had, and how they are opened."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectralmamba.catalog.checksums import UnverifiedDataWarning
    from spectralmamba.catalog.downloads import fetch
    from spectralmamba.catalog.entry import Class, DataFile, Entry, Layout, Masks
    from spectralmamba.catalog.loading import Dataset, load_dataset
    from spectralmamba.catalog.registry import dataset, list_datasets

_HOMES = {
    "Class": "entry",
    "DataFile": "entry",
    "Dataset": "loading",
    "Entry": "entry",
    "Layout": "entry",
    "Masks": "entry",
    "UnverifiedDataWarning": "checksums",
    "dataset": "registry",
    "fetch": "downloads",
    "list_datasets": "registry",
    "load_dataset": "loading",
}

__all__ = [
    "Class",
    "DataFile",
    "Dataset",
    "Entry",
    "Layout",
    "Masks",
    "UnverifiedDataWarning",
    "dataset",
    "fetch",
    "list_datasets",
    "load_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
