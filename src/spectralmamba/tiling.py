"""How much of a scene is read at a time: whole blocks of its file, and no more than the memory holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import xarray as xr

from spectralmamba import inference
from spectralmamba.errors import OutputError
from spectralmamba.inference import whole_blocks
from spectralmamba.memory import memory_free, memory_taken

if TYPE_CHECKING:
    from spectralmamba.classifier import Classifier

_USUAL, _MOST = 1 << 30, 16 << 30
"""Bytes for tiles if nothing is said; and with a GPU, whose blocks of whole lines are large, at most."""

_ON_GPU = 1 << 20
"""Pixels of a tile that employ a GPU long enough to read the next one."""

_FLOAT = 4
# Copies of a tile's values in memory at once: the tile, the next one, and that as its file has it and on the way to float32.
_COPIES = 4
# Copies of a block's values that a thread works with: image, normalised image, sums, mixed and gated images.
_BLOCK_COPIES = 9
# Bytes for each pixel of a batch, measured: what the network and the companion have in memory at once.
_BATCH_BYTES = 64 << 10


def choose_tile(
    classifier: Classifier, scene: xr.DataArray, memory: int | None = None, workers: int | None = None
) -> tuple[int, int]:
    """Choose rows and columns of tiles: whole blocks of the scene's file, as many as the memory holds.

    Args:
        classifier: What classifies.
        scene: `(band, y, x)`; its encoding's `preferred_chunks` tell the file's blocks.
        memory: Bytes that the process may take altogether; None keeps tiles to 1 GB, with a GPU to a quarter of what
            is free there and here.
        workers: Threads that compute; as many as torch has if None.

    Raises:
        OutputError: The memory does not hold the least tile.
    """
    _, height, width = scene.shape
    grain, bands = inference.block_width(classifier), len(classifier.bands)
    reach, classes = classifier.patch // 2, len(classifier.classes)

    def need(rows: int, columns: int) -> int:
        values = bands * (rows + 2 * reach) * (columns + 2 * reach) * _FLOAT
        return _COPIES * values + rows * columns * (classes * (_FLOAT + 1) + 2 * _FLOAT)

    free = (
        _usual(classifier.device)
        if memory is None
        else memory - memory_taken() - _computing(classifier, grain, bands, workers)
    )
    if need(grain, grain) > free and memory is not None:
        least = memory - free + need(grain, grain)
        raise OutputError(
            "the memory is too little to map this scene",
            found=f"{memory / 1e6:.0f} MB",
            expected=f"at least {least / 1e6:.0f} MB",
            remedy="Give more with --memory, or fewer --workers.",
        )
    chunks = scene.encoding.get("preferred_chunks", {})
    most_rows, most_columns = whole_blocks(height, grain), whole_blocks(width, grain)
    rows = min(whole_blocks(int(chunks.get("y", 1)), grain), most_rows)
    columns = min(whole_blocks(int(chunks.get("x", 1)), grain), most_columns)
    while need(rows, columns) > free and columns > grain:
        columns = whole_blocks(columns // 2, grain)
    while need(rows, columns) > free and rows > grain:
        rows = whole_blocks(rows // 2, grain)
    # More rows of whole lines, or more of both where the file has tiles; but a GPU waits for the first tile to be there.
    most = math.inf if classifier.device.type == "cpu" else _ON_GPU
    while columns < width and 2 * rows * columns <= most and need(rows, 2 * columns) <= free // 2:
        columns *= 2
    while rows < height and 2 * rows * columns <= most and need(2 * rows, columns) <= free // 2:
        rows *= 2
    return min(rows, most_rows), min(columns, most_columns)


def _usual(device: torch.device) -> int:
    """Return the bytes that tiles may take if nothing is said."""
    if device.type != "cuda":
        return _USUAL
    free = min(torch.cuda.mem_get_info(device)[0], memory_free() or 0)
    return max(_USUAL, min(free // 4, _MOST))


def _computing(classifier: Classifier, grain: int, bands: int, workers: int | None) -> int:
    """Return the bytes that threads work with beside tiles."""
    block = (grain + classifier.patch) ** 2 * bands * _FLOAT * _BLOCK_COPIES
    threads = (workers or torch.get_num_threads()) if classifier.device.type == "cpu" else 1
    return threads * (block + inference.BATCH * _BATCH_BYTES)
