"""What a classifier says of a whole scene: read tile by tile, computed block by block, by as many threads as there are cores.

A scene is divided into blocks by its own rows and columns. Each is computed by itself, by one thread, with a halo of the patch's
reach: over the whole block at once where nothing is missing, patch by patch elsewhere. So the answer has the same bits whatever is
read at a time and however many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from spectralmamba.models.committee import Committee
from spectralmamba.models.patches import ImagePatches, Patches, box_sums, takes_patches
from spectralmamba.pixels import Pixels, as_input

if TYPE_CHECKING:
    from spectralmamba.classifier import Classifier

BLOCK = 64
"""Rows and columns of a block on the CPU: small enough for its caches, large enough that halos cost little."""

_GPU_BLOCK = 256
BATCH, _GPU_BATCH = 256, 16384  # pixels that a network takes at a time
# Cutting patches out pays where fewer than this share of a block's pixels is asked for.
_FEW = 1 / 8


class Tile(NamedTuple):
    """A part of a map.

    Attributes:
        rows: Where it lies.
        columns: Where it lies.
        ids: Class ids `(h, w)`, 0 nodata.
        probabilities: `(K, h, w)`, NaN nodata.
        novelty: How unlike all classes, `(h, w)` in 0 to 1, NaN nodata; None if the classifier cannot tell.
        sets: Which classes are in the prediction set, bool `(K, h, w)`, none at nodata; None if the classifier has no sets.
    """

    rows: slice
    columns: slice
    ids: np.ndarray
    probabilities: np.ndarray
    novelty: np.ndarray | None
    sets: np.ndarray | None


class Seen(NamedTuple):
    """What a classifier says of m pixels: probabilities `(m, K)`, novelty `(m,)` and sets `(m, K)`, None where it has none."""

    probabilities: Tensor
    novelty: Tensor | None
    sets: Tensor | None


class _Window(NamedTuple):
    """A part of a scene, and what lies around it as far as patches reach.

    Attributes:
        rows: Rows of the part in the scene.
        columns: Columns of the part in the scene.
        outer_rows: Rows of the part with its halo.
        outer_columns: Columns of the part with its halo.
    """

    rows: slice
    columns: slice
    outer_rows: slice
    outer_columns: slice

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the part lies in itself with halo."""
        return _within(self.rows, self.outer_rows), _within(self.columns, self.outer_columns)


def look_at(classifier: Classifier, pixels: Pixels, positions: Tensor, batch_size: int) -> Seen:
    """Return what a classifier says of normalised pixels at `positions` `(m,)`, each of whose patches is gathered."""
    patches = (as_input(spectra) for spectra in pixels.patches(positions, classifier.patch, batch_size))
    return _look(classifier, patches, pixels.values)


@torch.inference_mode()
def _look(classifier: Classifier, batches: Iterator[Tensor | Patches], like: Tensor) -> Seen:
    """Return what a classifier says of patches, so many at a time."""
    found = [like.new_zeros(0, len(classifier.classes))]
    novelty = [like.new_zeros(0)]
    sets = [torch.zeros(0, len(classifier.classes), dtype=torch.bool, device=like.device)]
    with exact_convolutions() if like.is_cuda else nullcontext():
        for patches in batches:
            if isinstance(classifier.network, Committee):
                logits, known = classifier.network.judge(patches)
            else:
                logits = known = classifier.network(patches)
            found.append(logits.softmax(1))
            if classifier.sets is not None:
                propagation = classifier.sets.propagation
                sets.append(classifier.sets(known if propagation is None else propagation(patches)))
            if classifier.novelty is not None:
                novelty.append(classifier.novelty(patches))
    return Seen(
        torch.cat(found),
        None if classifier.novelty is None else torch.cat(novelty),
        None if classifier.sets is None else torch.cat(sets),
    )


def tiles(
    classifier: Classifier,
    scene: xr.DataArray,
    size: tuple[int, int],
    batch_size: int | None,
    where: np.ndarray | None,
    workers: int | None,
    skip: Callable[[slice, slice], bool] | None,
) -> Iterator[Tile]:
    """Classify a scene that fits the classifier; see `Classifier.tiles`."""
    wanted = [
        (window, asked)
        for window in windows(classifier, scene.shape[1:], size)
        if np.any(asked := True if where is None else where[window.rows, window.columns])
        and not (skip is not None and skip(window.rows, window.columns))
    ]

    def read(window: _Window) -> np.ndarray:
        part = scene.isel(band=classifier.bands, y=window.outer_rows, x=window.outer_columns)
        return np.asarray(part.values, np.float32)

    yield from _tiles(classifier, scene.shape[1:], wanted, read, batch_size, workers)


def tile_alone(
    classifier: Classifier,
    shape: tuple[int, ...],
    rows: slice,
    columns: slice,
    values: np.ndarray,
    workers: int = 1,
) -> Tile:
    """Classify a part of a scene: to the last bit what `tiles` says of it.

    Args:
        classifier: What classifies.
        shape: Rows and columns of the scene.
        rows: Rows of the part, from a multiple of the blocks' width.
        columns: Columns of the part, from a multiple of the blocks' width.
        values: The classifier's bands of the part, with a halo of the patch's reach where the scene goes on, `(L, h, w)`.
        workers: Threads that compute on a CPU.
    """
    window = _with_halo(rows, columns, shape, classifier.patch // 2)
    with nullcontext() if classifier.device.type == "cpu" else _ON_GPU:
        (tile,) = _tiles(classifier, shape, [(window, True)], lambda _: np.asarray(values, np.float32), None, workers)
    return tile


_ON_GPU = Lock()  # what is set for a part's convolutions holds for all threads


def _tiles(
    classifier: Classifier,
    shape: tuple[int, ...],
    wanted: Sequence[tuple[_Window, np.ndarray | bool]],
    read: Callable[[_Window], np.ndarray],
    batch_size: int | None,
    workers: int | None,
) -> Iterator[Tile]:
    """Classify what is asked for of windows of a scene of that shape; the next one is read while one is computed."""
    classifier.network.eval()
    block, on_cpu = block_width(classifier), classifier.device.type == "cpu"
    batch_size = batch_size or (BATCH if on_cpu else _GPU_BATCH)
    workers = (workers or torch.get_num_threads()) if on_cpu else 1
    with _threads(workers) as pool, ThreadPoolExecutor(1, "reader") as reader:
        ahead: Future[np.ndarray] | None = reader.submit(read, wanted[0][0]) if wanted else None
        try:
            for number, (window, asked) in enumerate(wanted):
                assert ahead is not None
                values = ahead.result()
                ahead = reader.submit(read, wanted[number + 1][0]) if number + 1 < len(wanted) else None
                yield _tile(classifier, shape, window, values, asked, block, batch_size, pool)
        finally:
            pool.shutdown(cancel_futures=True)


def windows(classifier: Classifier, shape: tuple[int, ...], size: tuple[int, int]) -> Iterator[_Window]:
    """Yield the tiles that a scene of that shape is read by: whole blocks of at least so many rows and columns."""
    block = block_width(classifier)
    return _windows(shape, (whole_blocks(size[0], block), whole_blocks(size[1], block)), classifier.patch // 2)


def block_width(classifier: Classifier) -> int:
    """Return the rows and columns of a block."""
    return BLOCK if classifier.device.type == "cpu" else _GPU_BLOCK


def whole_blocks(size: int, block: int) -> int:
    """Return the least multiple of a block's width that is no less than a size."""
    return -(-size // block) * block


def _windows(shape: tuple[int, ...], size: tuple[int, int], reach: int) -> Iterator[_Window]:
    """Yield the windows of so many rows and columns that cover a scene, row by row, with a halo where the scene goes on."""
    (height, width), (rows, columns) = shape, size
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            inner = slice(top, min(top + rows, height)), slice(left, min(left + columns, width))
            yield _with_halo(*inner, shape, reach)


def _with_halo(rows: slice, columns: slice, shape: tuple[int, ...], reach: int) -> _Window:
    return _Window(
        rows,
        columns,
        slice(max(0, rows.start - reach), min(rows.stop + reach, shape[0])),
        slice(max(0, columns.start - reach), min(columns.stop + reach, shape[1])),
    )


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _tile(
    classifier: Classifier,
    shape: tuple[int, ...],
    window: _Window,
    values: np.ndarray,
    asked: np.ndarray | bool,
    block: int,
    batch_size: int,
    pool: ThreadPoolExecutor,
) -> Tile:
    """Classify a window of a scene of that shape, `values` `(L, h, w)` with its halo, block by block."""
    size = (window.rows.stop - window.rows.start, window.columns.stop - window.columns.start)
    classes = len(classifier.classes)
    tile = Tile(
        window.rows,
        window.columns,
        np.zeros(size, np.uint16),
        np.full((classes, *size), np.nan, np.float32),
        None if classifier.novelty is None else np.full(size, np.nan, np.float32),
        None if classifier.sets is None else np.zeros((classes, *size), bool),
    )

    def classify(part: _Window) -> None:
        to = _within(part.rows, window.rows), _within(part.columns, window.columns)
        here = values[:, _within(part.outer_rows, window.outer_rows), _within(part.outer_columns, window.outer_columns)]
        of_part = asked if isinstance(asked, bool) else asked[to]
        if not np.any(of_part):
            return
        rows, columns, seen = _classify(classifier, here, part.inner, of_part, batch_size)
        at = rows + to[0].start, columns + to[1].start
        tile.ids[at] = classifier.classes[seen.probabilities.argmax(1).cpu().numpy()]
        for grid, found in (
            (tile.probabilities, seen.probabilities),
            (tile.novelty, seen.novelty),
            (tile.sets, seen.sets),
        ):
            if grid is not None and found is not None:
                grid[..., *at] = found.cpu().numpy().T

    jobs = []
    for top in range(window.rows.start, window.rows.stop, block):
        for left in range(window.columns.start, window.columns.stop, block):
            rows, columns = (
                slice(top, min(top + block, window.rows.stop)),
                slice(left, min(left + block, window.columns.stop)),
            )
            jobs.append(pool.submit(classify, _with_halo(rows, columns, shape, classifier.patch // 2)))
    for job in jobs:
        job.result()
    return tile


@torch.inference_mode()
def _classify(
    classifier: Classifier, values: np.ndarray, inner: tuple[slice, slice], asked: np.ndarray | bool, batch_size: int
) -> tuple[np.ndarray, np.ndarray, Seen]:
    """Classify what is asked for of the inner part of a block with halo, `values` `(L, h, w)`.

    Returns:
        Rows and columns of the classified pixels in the inner part, each `(m,)`, and what there is to say of them.
    """
    pixels = Pixels.from_values(values, classifier.device)
    pixels = pixels.with_values(classifier.transform(pixels.values))
    mask = np.zeros(values.shape[1:], bool)
    mask[inner] = asked
    whole = np.zeros_like(mask)
    if classifier.patch > 1 and takes_patches(classifier.network):
        found = _whole(pixels.grid >= 0, classifier.patch).cpu().numpy() & mask
        if found.sum() >= _FEW * mask.size:
            whole = found
    positions = torch.cat([in_image := pixels.at(whole), alone := pixels.at(mask & ~whole)])
    parts = []
    if len(in_image):
        image = pixels.values.new_zeros(pixels.grid.numel(), pixels.values.shape[1])
        image[pixels.grid.flatten() >= 0] = pixels.values
        image = image.unflatten(0, pixels.grid.shape)
        patches = ImagePatches(image, pixels.rows[in_image], pixels.columns[in_image], classifier.patch)
        parts.append(_look(classifier, patches.split(batch_size), image))
    parts.append(look_at(classifier, pixels, alone, batch_size))
    seen = Seen(
        torch.cat([part.probabilities for part in parts]),
        None if classifier.novelty is None else torch.cat([part.novelty for part in parts if part.novelty is not None]),
        None if classifier.sets is None else torch.cat([part.sets for part in parts if part.sets is not None]),
    )
    rows, columns = (index[positions].cpu().numpy() for index in (pixels.rows, pixels.columns))
    return rows - inner[0].start, columns - inner[1].start, seen


def _whole(valid: Tensor, patch: int) -> Tensor:
    """Tell of which pixels `(H, W)` the whole patch lies in the grid and is valid."""
    whole, reach = torch.zeros_like(valid), patch // 2
    height, width = valid.shape
    if height >= patch and width >= patch:
        counts = box_sums(valid[:, :, None].to(torch.int32), patch)[:, :, 0]
        whole[reach : height - reach, reach : width - reach] = counts == patch * patch
    return whole


class _OneThread:
    """Lets torch compute with one thread in each of ours, while any classifier computes, and gives it its threads back afterwards.

    Of the libraries that torch calls some count threads of the whole process, so none that ends may set them for the others.
    """

    def __init__(self) -> None:
        self._lock, self._computing, self._before = Lock(), 0, 1

    def __enter__(self) -> None:
        with self._lock:
            if not self._computing:
                self._before = torch.get_num_threads()
            self._computing += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._computing -= 1
            if not self._computing:
                torch.set_num_threads(self._before)


_ONE_THREAD = _OneThread()


@contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of so many threads, in each of which torch computes with that one."""
    with _ONE_THREAD, ThreadPoolExecutor(workers, "classifier", torch.set_num_threads, (1,)) as pool:
        yield pool


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Let GPUs convolve in float32 rather than TF32, the same way every time, and give the caller's choice back afterwards."""
    library: Any = torch.backends.cudnn
    before = library.deterministic, library.allow_tf32
    library.deterministic, library.allow_tf32 = True, False
    try:
        yield
    finally:
        library.deterministic, library.allow_tf32 = before
