"""How far test pixels are from training pixels, and which patches see the other side."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage

from spectralmamba.splits.labelled import Mask

# Halves keep the whole distances 1, 2, 3, 5, 10, 20, 50 clear of the edges; the first bin holds the four direct
# neighbours and the diagonal ones.
_DISTANCE_EDGES = (0.0, 1.5, 2.5, 3.5, 5.5, 10.5, 20.5, 50.5)


def distance_record(train: Mask, test: Mask) -> dict[str, Any]:
    """Euclidean distances from test pixels to their nearest training pixel."""
    distance = np.asarray(ndimage.distance_transform_edt(~train))[test]
    histogram, _ = np.histogram(distance, bins=[*_DISTANCE_EDGES, math.inf])
    return {
        "unit": "pixels",
        "minimum": float(distance.min()),
        "median": float(np.median(distance)),
        "bin_edges": [*_DISTANCE_EDGES, None],
        "histogram": histogram.tolist(),
    }


def count_leaks(train: Mask, test: Mask, patch: int) -> dict[str, Any]:
    """Pixels of one side whose P × P patch holds a pixel of the other, for the record."""
    near_training = int((test & within_reach(train, patch // 2)).sum())
    near_test = int((train & within_reach(test, patch // 2)).sum())
    share = near_training / int(test.sum())
    return {"test_near_training": near_training, "training_near_test": near_test, "share_of_test": share}


def within_reach(mask: Mask, reach: int) -> Mask:
    """Pixels whose square of 2 · `reach` + 1 pixels holds a pixel of `mask`."""
    size = 2 * min(reach, max(mask.shape)) + 1
    return ndimage.maximum_filter(mask.view(np.uint8), size=size, mode="constant", cval=0).view(bool)
