"""Maps to make GIS files of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

UTM, NORTH_UP = "EPSG:32633", Affine(10, 0, 390_000, 0, -10, 5_820_000)
# Two woods that touch at a corner alone, a field with a lake of one pixel, and a corner of nodata.
IDS = np.array(
    [
        [1, 1, 2, 2, 2, 2],
        [1, 1, 2, 7, 2, 2],
        [2, 2, 1, 2, 2, 2],
        [2, 2, 2, 2, 0, 0],
    ],
    np.uint8,
)
NAMES = {1: 'wood & "heath" <x>', 2: "field", 7: "lake\x07é"}
COLORS = {1: "#117733", 2: "#ddcc77", 7: "#332288"}
SAID = {
    "CLASS_NAMES": json.dumps(NAMES),
    "CLASS_COLORS": json.dumps(COLORS),
    "SOFTWARE": "spectralmamba 0.1.0",
    "MODEL": "spectral_mamba, patch 3",
    "SCENE": "field day.hdr",
}
MakeMap = Callable[..., Path]


@pytest.fixture
def make_map(tmp_path: Path) -> MakeMap:
    """Write a map: its ids, tags beside the usual ones, its confidence if any, and what rasterio takes."""

    def make(
        ids: np.ndarray = IDS, tags: dict[str, str] | None = None, confidence: np.ndarray | None = None, **profile: Any
    ) -> Path:
        path = tmp_path / "map.tif"
        place = {"crs": UTM, "transform": NORTH_UP, "driver": "GTiff", "count": 1}
        size = {"height": ids.shape[0], "width": ids.shape[1]}
        with rasterio.open(path, "w", **place | size | {"dtype": ids.dtype, "nodata": 0} | profile) as file:
            file.write(ids, 1)
            file.update_tags(**SAID | (tags or {}))
        if confidence is not None:
            layer = place | size | {"dtype": "float32", "nodata": np.nan} | profile
            with rasterio.open(tmp_path / "map_confidence.tif", "w", **layer) as file:
                file.write(confidence.astype(np.float32), 1)
        return path

    return make
