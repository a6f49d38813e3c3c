"""Fixtures of the tests of sharing."""

from __future__ import annotations

import pytest
import xarray as xr
from sharing_example import IDS, Made

from spectralmamba import simulate_scene


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    scene, labels = simulate_scene(rows=30, columns=30, bands=20, classes=3)
    assert not scene["good"].all()
    ids = xr.zeros_like(labels)
    for old, new in IDS.items():
        ids = ids.where(labels != old, new)
    for what in ("class_names", "class_colors"):
        ids.attrs[what] = {IDS[id_]: text for id_, text in labels.attrs[what].items()}
    scene.values[:, 3:5, 8:11] = float("nan")
    ids = ids.where(scene.notnull().any("band"), 0).astype("int32")
    return Made(scene, ids, tmp_path_factory.mktemp("sharing"))
