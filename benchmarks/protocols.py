"""The protocols that accuracies are reported on: real scenes, their labels and their named splits."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import xarray as xr

from spectralmamba import load_dataset, split_disjoint, split_random
from spectralmamba.splits import Split


def data_folder() -> Path:
    """Return the folder of reference data: SPECTRALMAMBA_DATA, or ../shared/data beside the checkout."""
    return Path(os.environ.get("SPECTRALMAMBA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@cache
def salinas_a() -> tuple[xr.DataArray, xr.DataArray]:
    """Salinas-A, AVIRIS, 83 × 86 pixels, 6 classes."""
    return _loaded("salinas-a")


@cache
def botswana() -> tuple[xr.DataArray, xr.DataArray]:
    """Botswana, EO-1 Hyperion, the 3 248 labelled pixels of 1476 × 256; all others are nodata."""
    return _loaded("botswana")


@cache
def enmap_potsdam() -> tuple[xr.DataArray, xr.DataArray]:
    """Part of an EnMAP scene of Potsdam, 160 × 96 pixels of 30 m, 6 classes."""
    return _loaded("enmap-potsdam")


def _loaded(name: str) -> tuple[xr.DataArray, xr.DataArray]:
    found = load_dataset(name, root=data_folder())
    return found.scene.load(), found.labels


@dataclass(frozen=True)
class Protocol:
    """A scene with its labels and a split for each seed, the same for all methods.

    Attributes:
        name: As reported, "salinas-a/5".
        data: Returns scene and labels.
        split: Makes the split of labels and seed.
        apart: Whether training and test lie in different areas of the scene.
        seeded: Whether another seed is another split.
    """

    name: str
    data: Callable[[], tuple[xr.DataArray, xr.DataArray]]
    split: Callable[[xr.DataArray, int], Split]
    apart: bool = False
    seeded: bool = True


_REACH = 3  # pixels, of the widest patch; the buffer for narrower ones, too, so that all methods test the same pixels


def _random(per_class: int) -> Callable[[xr.DataArray, int], Split]:
    return lambda labels, seed: split_random(labels, per_class=per_class, seed=seed)


def _regions(per_class: int) -> Callable[[xr.DataArray, int], Split]:
    return lambda labels, seed: split_disjoint(labels, method="regions", per_class=per_class, buffer=_REACH, seed=seed)


def _blocks(labels: xr.DataArray, seed: int) -> Split:
    """Blocks, since each class of Salinas-A is one connected field, which cannot be left out whole."""
    return split_disjoint(labels, method="blocks", block_size=16, per_class=5, buffer=_REACH, seed=seed)


def _columns(labels: xr.DataArray, seed: int) -> Split:
    return split_disjoint(labels, method="columns", boundary=64, buffer=0, seed=seed)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("salinas-a/5", salinas_a, _random(5)),
        Protocol("botswana/5", botswana, _random(5)),
        Protocol("botswana/10", botswana, _random(10)),
        Protocol("botswana/30", botswana, _random(30)),
        Protocol("salinas-a/5-blocks", salinas_a, _blocks, apart=True),
        Protocol("botswana/5-regions", botswana, _regions(5), apart=True),
        Protocol("botswana/10-regions", botswana, _regions(10), apart=True),
        Protocol("botswana/30-regions", botswana, _regions(30), apart=True),
        Protocol("enmap-potsdam/columns", enmap_potsdam, _columns, apart=True, seeded=False),
    )
}
