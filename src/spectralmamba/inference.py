"""What a classifier says of a whole scene: read tile by tile, computed block by block, by as many threads as there are cores.

A scene is divided into blocks by its own rows and columns. Each is computed by itself, by one thread, with a halo of the patch's
reach: over the whole block at once where nothing is missing, patch by patch elsewhere. So the answer has the same bits whatever is
read at a time and however many threads there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from spectralmamba.errors import SettingsError
from spectralmamba.models.committee import Committee
from spectralmamba.models.fused import fused
from spectralmamba.models.patches import ImagePatches, Patches, box_sums, takes_patches
from spectralmamba.pixels import Pixels, as_input
from spectralmamba.scenes.sources import contiguous
from spectralmamba.stored import StoredScene

if TYPE_CHECKING:
    from spectralmamba.classifier import Classifier

BLOCK = 64
"""Rows and columns of a block on the CPU: small enough for its caches, large enough that halos cost little."""

_GPU_BLOCK = 512
_READERS, _STRIP = 8, 16  # threads that read for a GPU; rows that one reads at a time, at least
_PARTS = 32  # of a window that is copied as it is stored
# Pixels that a network takes at a time: with a companion as many as have their kernels in a CPU's cache.
BATCH, _LARGE_BATCH, _GPU_BATCH = 256, 1024, 65536
# Cutting patches out pays where fewer than this share of a block's pixels is asked for.
_FEW = 1 / 8


Precision = Literal["float32", "float16"]
"""Of matrix products in networks, on a GPU; all else, and on a CPU everything, is float32."""


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
def patch_logits(classifier: Classifier, patches: Tensor) -> Tensor:
    """Return the logits `(n, K)` of patches `(n, P, P, L)` or spectra `(n, L)`, as the scene has them; see `Classifier.logits`."""
    network = fused(classifier.network.eval())
    found = [classifier.transform.mean.new_zeros(0, len(classifier.classes))]
    width = classifier.patch**2
    with exact_convolutions():
        for batch in patches.split(BATCH):
            # Always as many: with another number of rows, matrix products add up in another order.
            full = batch.new_zeros(BATCH, width, patches.shape[-1])
            full[: len(batch)] = batch.reshape(len(batch), width, -1)
            spectra = classifier.transform(full.to(classifier.device).flatten(0, 1)).unflatten(0, (BATCH, width))
            found.append(network(as_input(spectra))[: len(batch)])
    return torch.cat(found)


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
    precision: Precision,
) -> Iterator[Tile]:
    """Classify a scene that fits the classifier; see `Classifier.tiles`."""
    wanted = [
        (window, asked)
        for window in windows(classifier, scene.shape[1:], size)
        if np.any(asked := True if where is None else where[window.rows, window.columns])
        and not (skip is not None and skip(window.rows, window.columns))
    ]

    bands = contiguous(classifier.bands)

    def read(window: _Window) -> np.ndarray:
        part = scene.isel(band=bands, y=window.outer_rows, x=window.outer_columns)
        return np.asarray(part.values, np.float32)

    rows_at_a_time = whole_blocks(_STRIP, max(1, int(scene.encoding.get("preferred_chunks", {}).get("y", 1))))
    if scene.variable._in_memory:
        rows_at_a_time = scene.sizes["y"]  # torch copies what is there with all its threads
    stored = None if classifier.device.type == "cpu" else StoredScene.of(scene.isel(band=bands))
    yield from _tiles(classifier, scene.shape[1:], wanted, read, rows_at_a_time, batch_size, workers, precision, stored)


def tile_alone(
    classifier: Classifier,
    shape: tuple[int, ...],
    rows: slice,
    columns: slice,
    values: np.ndarray,
    workers: int = 1,
    precision: Precision = "float32",
) -> Tile:
    """Classify a part of a scene: to the last bit what `tiles` says of it.

    Args:
        classifier: What classifies.
        shape: Rows and columns of the scene.
        rows: Rows of the part, from a multiple of the blocks' width.
        columns: Columns of the part, from a multiple of the blocks' width.
        values: The classifier's bands of the part, with a halo of the patch's reach where the scene goes on, `(L, h, w)`.
        workers: Threads that compute on a CPU.
        precision: Of matrix products.
    """
    window = _with_halo(rows, columns, shape, classifier.patch // 2)

    def read(part: _Window) -> np.ndarray:
        return values[:, _within(part.outer_rows, window.outer_rows)]

    with nullcontext() if classifier.device.type == "cpu" else _ON_GPU:
        (tile,) = _tiles(classifier, shape, [(window, True)], read, shape[0], None, workers, precision)
    return tile


_ON_GPU = Lock()  # what is set for a part's convolutions holds for all threads


def _tiles(
    classifier: Classifier,
    shape: tuple[int, ...],
    wanted: Sequence[tuple[_Window, np.ndarray | bool]],
    read: Callable[[_Window], np.ndarray],
    rows_at_a_time: int,
    batch_size: int | None,
    workers: int | None,
    precision: Precision,
    stored: StoredScene | None = None,
) -> Iterator[Tile]:
    """Classify what is asked for of windows of a scene of that shape; the next one is read while one is computed."""
    block, on_cpu = block_width(classifier), classifier.device.type == "cpu"
    check_precision(precision, classifier)
    classifier = replace(classifier, network=fused(classifier.network.eval(), half=precision == "float16"))
    if batch_size is None:
        batch_size = (BATCH if isinstance(classifier.network, Committee) else _LARGE_BATCH) if on_cpu else _GPU_BATCH
    workers = (workers or torch.get_num_threads()) if on_cpu else 1
    # On a GPU one thread launches kernels; torch keeps its threads for copies.
    pools = threads(workers) if on_cpu else ThreadPoolExecutor(1, "classifier")
    # One thread reads some million pixels a second: enough for a CPU, not for a GPU.
    readers = 1 if on_cpu else max(1, min(_READERS, (os.cpu_count() or 1) // 2))
    with pools as pool, ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(readers, "strips") as strips:
        load = _LoadOnCpu(classifier, read, rows_at_a_time, strips)
        if not on_cpu:
            load = _LoadOnGpu(classifier, read, rows_at_a_time, strips, stored)
        ahead: Future[_Loaded] | None = reader.submit(load, wanted[0][0]) if wanted else None
        computed: tuple[_Window, _Outputs] | None = None
        try:
            for number, (window, asked) in enumerate(wanted):
                assert ahead is not None
                loaded = ahead.result()
                ahead = reader.submit(load, wanted[number + 1][0]) if number + 1 < len(wanted) else None
                outputs = _compute(classifier, shape, window, loaded, asked, block, batch_size, pool)
                if on_cpu:
                    yield outputs.tile(classifier, window)
                    continue
                if computed is not None:  # the GPU computes this tile while the last one is written
                    yield computed[1].tile(classifier, computed[0])
                computed = window, outputs
            if computed is not None:
                yield computed[1].tile(classifier, computed[0])
        finally:
            pool.shutdown(cancel_futures=True)


def windows(classifier: Classifier, shape: tuple[int, ...], size: tuple[int, int]) -> Iterator[_Window]:
    """Yield the tiles that a scene of that shape is read by: whole blocks of at least so many rows and columns."""
    block = block_width(classifier)
    return _windows(shape, (whole_blocks(size[0], block), whole_blocks(size[1], block)), classifier.patch // 2)


def check_precision(precision: str, classifier: Classifier) -> None:
    """Check that a precision is one, and that the classifier's device has it.

    Raises:
        SettingsError: It is not.
    """
    here = ("float32",) if classifier.device.type == "cpu" else get_args(Precision)
    if precision not in here:
        raise SettingsError(
            f"this precision is not to be had on {classifier.device.type}", found=precision, expected=" or ".join(here)
        )


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


class _Loaded(NamedTuple):
    """What was read of a window, on the device.

    Attributes:
        values: `(L, h, w)`, as the scene has them.
        valid: Which pixels are finite in all bands, `(h, w)`, and of which the whole patch is, on the CPU; None: not looked at yet.
    """

    values: Tensor
    valid: tuple[Tensor, Tensor] | None

    def part(self, rows: slice, columns: slice) -> _Loaded:
        valid = None if self.valid is None else (self.valid[0][rows, columns], self.valid[1][rows, columns])
        return _Loaded(self.values[:, rows, columns], valid)


class _LoadOnCpu:
    """Reads windows some rows at a time, into memory that is used again: that of large new arrays takes longer to get than to fill.

    Args:
        classifier: What classifies.
        read: Reads the classifier's bands of a window with its halo, `(L, h, w)`.
        rows_at_a_time: So many, from multiples of it: blocks of the file.
        strips: Threads that read.
    """

    def __init__(
        self,
        classifier: Classifier,
        read: Callable[[_Window], np.ndarray],
        rows_at_a_time: int,
        strips: ThreadPoolExecutor,
    ) -> None:
        self._bands, self._read, self._rows, self._strips = len(classifier.bands), read, rows_at_a_time, strips
        # One is read into while the other is computed with.
        self._spare = [torch.empty(0), torch.empty(0)]

    def __call__(self, window: _Window) -> _Loaded:
        """Read a window."""
        return _Loaded(self._fill(window, self._memory(self._size(window))), None)

    def _memory(self, size: int) -> Tensor:
        """Return memory for so many values, not that of the window before."""
        memory = self._spare.pop(0)
        if len(memory) < size:
            memory = torch.empty(size)
        self._spare.append(memory)
        return memory[:size]

    def _size(self, window: _Window) -> int:
        rows, columns = window.outer_rows, window.outer_columns
        return self._bands * (rows.stop - rows.start) * (columns.stop - columns.start)

    def _fill(self, window: _Window, memory: Tensor) -> Tensor:
        """Read a window into memory, and return it as `(L, h, w)`."""
        rows, columns = window.outer_rows, window.outer_columns
        values = memory.view(self._bands, rows.stop - rows.start, columns.stop - columns.start)
        if rows.stop <= self._rows:
            return values.copy_(torch.from_numpy(self._read(window)))
        target = values.numpy()

        def fill(first: int) -> None:
            strip = slice(max(first, rows.start), min(first + self._rows, rows.stop))
            target[:, _within(strip, rows)] = self._read(window._replace(outer_rows=strip))

        list(self._strips.map(fill, range(rows.start - rows.start % self._rows, rows.stop, self._rows)))
        return values


class _LoadOnGpu(_LoadOnCpu):
    """Copies windows to a GPU while it computes others, and looks there for what is missing in them.

    Args:
        classifier: As above.
        read: As above.
        rows_at_a_time: As above.
        strips: As above.
        stored: What to copy instead, and to make physical values of there.
    """

    def __init__(
        self,
        classifier: Classifier,
        read: Callable[[_Window], np.ndarray],
        rows_at_a_time: int,
        strips: ThreadPoolExecutor,
        stored: StoredScene | None,
    ) -> None:
        super().__init__(classifier, read, rows_at_a_time, strips)
        self.device, self.patch, self._stored = classifier.device, classifier.patch, stored
        self.stream, self.computing = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)

    def __call__(self, window: _Window) -> _Loaded:
        """Read a window and copy it."""
        stored = self._stored  # torch keeps pinned memory
        if stored is None:
            pinned = self._fill(window, torch.empty(self._size(window), pin_memory=True))
        else:
            pinned = stored.read(window.outer_rows, window.outer_columns, _pinned_bytes, self._strips, _PARTS)
        with torch.cuda.stream(self.stream):
            there = pinned.to(self.device, non_blocking=True)
            if stored is not None:
                there = stored.physical(there)
            valid = _validity(there, self.patch)
            on_cpu = valid[0].cpu(), valid[1].cpu()  # waits for the copy
        there.record_stream(self.computing)
        return _Loaded(there, on_cpu)


def _pinned_bytes(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, pin_memory=True)


def _validity(values: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Tell which pixels of `(L, h, w)` are finite in all bands, `(h, w)`, and of which the whole patch is."""
    valid = values.sum(0).isfinite()  # one pass; only a sum of finite values can be finite
    if not valid.all():
        valid[~valid] = values[:, ~valid].isfinite().all(0)
    return valid, _whole(valid, patch)


@dataclass
class _Outputs:
    """What there is to say of a window, on the device.

    Attributes:
        numbers: Positions among the classes, int32 `(h, w)`, -1 nodata.
        probabilities: As a `Tile` has them.
        novelty: As a `Tile` has it.
        sets: As a `Tile` has them.
        fetched: When it is on the CPU, if a GPU computes it.
    """

    numbers: Tensor
    probabilities: Tensor
    novelty: Tensor | None
    sets: Tensor | None
    fetched: torch.cuda.Event | None = None

    @classmethod
    def of(cls, classifier: Classifier, window: _Window) -> _Outputs:
        """Return nodata for a window."""
        size = (window.rows.stop - window.rows.start, window.columns.stop - window.columns.start)
        like, classes = classifier.transform.mean, len(classifier.classes)
        return cls(
            torch.full(size, -1, dtype=torch.int32, device=like.device),
            like.new_full((classes, *size), torch.nan),
            None if classifier.novelty is None else like.new_full(size, torch.nan),
            None if classifier.sets is None else like.new_zeros((classes, *size), dtype=torch.bool),
        )

    def part(self, rows: slice, columns: slice) -> _Outputs:
        """Return a part of it, in the same memory."""
        part = [
            None if values is None else values[..., rows, columns]
            for values in (self.numbers, self.probabilities, self.novelty, self.sets)
        ]
        return _Outputs(*part)  # type: ignore[arg-type]

    def put(self, place: tuple[Any, Any], seen: Seen) -> None:
        """Take what there is to say of some pixels: those at rows and columns, or all of a part, row by row."""
        numbers = seen.probabilities.argmax(1).to(torch.int32)
        shape = self.numbers[place].shape if isinstance(place[0], slice) else numbers.shape
        self.numbers[place] = numbers.view(shape)
        for grid, found in (
            (self.probabilities, seen.probabilities),
            (self.novelty, seen.novelty),
            (self.sets, seen.sets),
        ):
            if grid is not None and found is not None:
                grid[(..., *place)] = found.movedim(0, -1).unflatten(-1, shape)

    def fetch(self) -> None:
        """Begin to copy it from a GPU, behind what computes it."""
        if not self.numbers.is_cuda:
            return

        def pinned(values: Tensor | None) -> Any:
            return (
                None if values is None else torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, True)
            )

        self.numbers, self.probabilities = pinned(self.numbers), pinned(self.probabilities)
        self.novelty, self.sets = pinned(self.novelty), pinned(self.sets)
        self.fetched = torch.cuda.Event()
        self.fetched.record()

    def tile(self, classifier: Classifier, window: _Window) -> Tile:
        """Return it as a part of a map, when it is computed."""
        if self.fetched is not None:
            self.fetched.synchronize()
        return Tile(
            window.rows,
            window.columns,
            np.append(classifier.classes, 0).astype(np.uint16)[self.numbers.numpy()],  # -1 is the last: nodata
            self.probabilities.numpy(),
            None if self.novelty is None else self.novelty.numpy(),
            None if self.sets is None else self.sets.numpy(),
        )


def _compute(
    classifier: Classifier,
    shape: tuple[int, ...],
    window: _Window,
    loaded: _Loaded,
    asked: np.ndarray | bool,
    block: int,
    batch_size: int,
    pool: ThreadPoolExecutor,
) -> _Outputs:
    """Classify a window of a scene of that shape block by block."""
    outputs = _Outputs.of(classifier, window)

    def classify(part: _Window) -> None:
        rows, columns = _within(part.rows, window.rows), _within(part.columns, window.columns)
        here = loaded.part(
            _within(part.outer_rows, window.outer_rows), _within(part.outer_columns, window.outer_columns)
        )
        of_part = asked if isinstance(asked, bool) else asked[rows, columns]
        if np.any(of_part):
            within = outputs.part(rows, columns)
            for place, seen in _classify(classifier, here, part.inner, of_part, batch_size):
                within.put(place, seen)

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
    outputs.fetch()
    return outputs


@torch.inference_mode()
def _classify(
    classifier: Classifier,
    loaded: _Loaded,
    inner: tuple[slice, slice],
    asked: np.ndarray | bool,
    batch_size: int,
) -> Iterator[tuple[tuple[Any, Any], Seen]]:
    """Classify what is asked for of the inner part of a block with halo.

    Yields:
        Rows and columns of classified pixels in the inner part, each `(m,)`, or two slices for all pixels in them, row by row; and
        what there is to say of them.
    """
    valid, whole = _validity(loaded.values, classifier.patch) if loaded.valid is None else loaded.valid
    mask = torch.zeros_like(valid)
    mask[inner] = torch.as_tensor(asked)
    mask &= valid
    if not mask.any():
        return
    image = classifier.transform.of_image(loaded.values)  # (h, w, L)
    there = _sent(valid, image.device)
    if not valid.all():
        image = image.where(there[:, :, None], 0)
    top, left = inner[0].start, inner[1].start
    whole = whole & mask
    if not takes_patches(classifier.network) or whole.sum() < _FEW * mask.numel():
        whole = torch.zeros_like(mask)
    inside = _inside(whole.shape, classifier.patch)
    if whole[inside].all() and whole.any():
        # All that has its patch in the block: nothing is looked up pixel by pixel.
        patches = ImagePatches(image, None, None, classifier.patch)
        yield (
            (_within(inside[0], inner[0]), _within(inside[1], inner[1])),
            _look(classifier, patches.split(batch_size), image),
        )
    elif whole.any():
        rows, columns = _positions(whole, image.device)
        patches = ImagePatches(image, rows, columns, classifier.patch)
        yield (rows - top, columns - left), _look(classifier, patches.split(batch_size), image)
    if (alone := mask & ~whole).any():
        rows, columns = _positions(alone, image.device)
        seen = look_at(classifier, Pixels.of_image(image, there), rows * image.shape[1] + columns, batch_size)
        yield (rows - top, columns - left), seen


def _inside(shape: tuple[int, ...], patch: int) -> tuple[slice, slice]:
    """Return rows and columns of the pixels of a block that have their patch in it."""
    reach = patch // 2
    return slice(reach, max(reach, shape[0] - reach)), slice(reach, max(reach, shape[1] - reach))


def _positions(mask: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the pixels under a mask on the CPU, row by row, on a device."""
    rows, columns = mask.nonzero(as_tuple=True)
    return _sent(rows, device), _sent(columns, device)


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """Return what is on the CPU on a device, without waiting for what the device computes."""
    return values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)


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
def threads(workers: int) -> Iterator[ThreadPoolExecutor]:
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
