"""The picture in the README: false colour, labels with the split, map, and confidence of a run, side by side.

    python benchmarks/picture.py [demo/result] [docs/images/report.png]

Labels: test pixels in the colour of their class, training pixels black, labels that are left out pale.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

# Dark is uncertain, bright is sure: anchors of cividis (Nuñez, Anderton and Renslow 2018).
_RAMP = np.array([(0, 34, 78), (67, 78, 108), (125, 124, 120), (188, 174, 108), (254, 232, 56)], float)
_RAMP_COLOURS = 32  # finer steps are not seen and make the file large
_PANEL = 400  # pixels on a side at most
_GAP = 12


def panels(folder: Path) -> list[np.ndarray]:
    """Return four pictures `(H, W, 4)` uint8 of a run's folder."""
    with rasterio.open(folder / "overview.tif") as file:
        scene = np.moveaxis(file.read(), 0, -1)
    with rasterio.open(folder / "map.tif") as file:
        ids, table = file.read(1), np.zeros((256, 4), np.uint8)
        for id_, color in file.colormap(1).items():
            table[id_] = color
    with rasterio.open(folder / "split.tif") as file:
        role, labels = file.read([1, 2])
    with rasterio.open(folder / "map_confidence.tif") as file:
        confidence = file.read(1)
    reference = table[labels]
    unused = (labels > 0) & (role == 0)
    reference[unused, :3] = (reference[unused, :3] * 0.3 + 255 * 0.7).astype(np.uint8)
    reference[role == 1] = (0, 0, 0, 255)
    reference[labels == 0] = (128, 128, 128, 48)
    return [scene, reference, table[ids], _ramp(confidence)]


def _ramp(share: np.ndarray) -> np.ndarray:
    anchors = np.linspace(0, 1, len(_RAMP))
    level = np.round(np.nan_to_num(share) * (_RAMP_COLOURS - 1)) / (_RAMP_COLOURS - 1)
    channels = [np.interp(level, anchors, _RAMP[:, channel]) for channel in range(3)]
    return np.stack([*channels, np.where(np.isnan(share), 0, 255)], -1).astype(np.uint8)


def strip(pictures: list[np.ndarray]) -> np.ndarray:
    """Enlarge the pictures by whole pixels and put them side by side."""
    zoom = max(1, _PANEL // max(pictures[0].shape[:2]))
    enlarged = [picture.repeat(zoom, 0).repeat(zoom, 1) for picture in pictures]
    gap = np.zeros((enlarged[0].shape[0], _GAP, 4), np.uint8)
    parts = [part for picture in enlarged for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo/result"))
    parser.add_argument("out", nargs="?", type=Path, default=Path("docs/images/report.png"))
    arguments = parser.parse_args()
    picture = strip(panels(arguments.folder))
    height, width, _ = picture.shape
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"driver": "PNG", "width": width, "height": height, "count": 4, "dtype": "uint8", "zlevel": 9}
        with rasterio.open(arguments.out, "w", **profile) as file:
            file.write(np.moveaxis(picture, -1, 0))
    print(f"{arguments.out}: {width} × {height} pixels, {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
