"""The pictures of docs/splits.md: what a split lets the test see of the training, on a simulated scene.

    python docs/make_pictures.py

Training pixels are black; test pixels are red where a training pixel lies in their patch of 7 × 7, else in the pale colour of
their class; labels that neither train nor test are grey. Frames are patches of test pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

import spectralmamba as sm
from spectralmamba.scenes.palette import rgb
from spectralmamba.scenes.png import png_bytes

IMAGES = Path(__file__).resolve().parent / "images"
PATCH = 7
_ZOOM = 8  # screen pixels a pixel of the scene
_FRAMES = 3
_TRAINING, _LEAKING, _DROPPED, _UNLABELLED = (0, 0, 0), (214, 39, 40), (150, 150, 150), (238, 238, 238)


def example_splits() -> tuple[NDArray[np.int32], dict[int, str], dict[str, sm.Split]]:
    """Return the labels `(H, W)` of the scene, the colours of its classes, and its splits by the names of their pictures."""
    _, labels = sm.simulate_scene(rows=72, columns=72, bands=8, classes=5)
    splits = {
        "split_random": sm.split_random(labels, per_class=20, patch=PATCH),
        "split_blocks": sm.split_disjoint(labels, method="blocks", block_size=18, per_class=20, patch=PATCH),
        "split_regions": sm.split_disjoint(labels, method="regions", per_class=20, patch=PATCH),
    }
    return labels.values, labels.attrs["class_colors"], splits


def picture(ids: NDArray[np.int32], colors: dict[int, str], split: sm.Split) -> NDArray[np.uint8]:
    """Draw a split as `(H, W, 4)` uint8."""
    drawn = np.full((*ids.shape, 3), _UNLABELLED, np.uint8)
    for id_, color in colors.items():
        drawn[ids == id_] = np.round(np.array(rgb(color)) * 0.35 + 255 * 0.65)
    seen = split.test & np.asarray(binary_dilation(split.train, np.ones((PATCH, PATCH))), bool)
    drawn[(ids > 0) & ~split.train & ~split.test] = _DROPPED
    drawn[seen], drawn[split.train] = _LEAKING, _TRAINING
    enlarged = drawn.repeat(_ZOOM, 0).repeat(_ZOOM, 1)
    for row, column in _examples(seen if seen.any() else split.test):
        _frame(enlarged, row, column)
    return np.dstack([enlarged, np.full(enlarged.shape[:2], 255, np.uint8)])


def _examples(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Some pixels `(n, 2)` of the mask whose patches lie in the scene."""
    inner = np.zeros_like(mask)
    reach = PATCH // 2
    inner[reach:-reach, reach:-reach] = mask[reach:-reach, reach:-reach]
    places = np.argwhere(inner)
    return places[np.linspace(0, len(places) - 1, _FRAMES + 2).astype(int)[1:-1]]


def _frame(enlarged: NDArray[np.uint8], row: int, column: int) -> None:
    """Draw the outline of a patch, two screen pixels wide."""
    top, left = ((centre - PATCH // 2) * _ZOOM for centre in (row, column))
    size = PATCH * _ZOOM
    patch = enlarged[top : top + size, left : left + size]
    inside = patch[2:-2, 2:-2].copy()
    patch[:] = (31, 60, 200)
    patch[2:-2, 2:-2] = inside


def main() -> None:
    """Write the pictures, and say what share of the test pixels has a training pixel in its patch."""
    ids, colors, splits = example_splits()
    for name, split in splits.items():
        file = IMAGES / f"{name}.png"
        file.write_bytes(png_bytes(picture(ids, colors, split)))
        print(
            f"{file.name}: {file.stat().st_size} bytes, {split.record['leaks']['share_of_test']:.1%} of the test pixels"
        )


if __name__ == "__main__":
    main()
