"""Tiles of a scene as tasks of a Dask cluster, and scenes that Dask holds, classified when somebody asks for the values."""

from __future__ import annotations

import os
import shutil
import socket
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from importlib import metadata
from itertools import islice
from pathlib import Path
from queue import Empty, Queue
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar
from uuid import uuid4

import numpy as np
import xarray as xr
from xarray.core import indexing

from spectralmamba import inference
from spectralmamba.classifier import Classifier
from spectralmamba.errors import ClusterError, MissingPackageError, OutputError, SceneError, SpectralMambaError
from spectralmamba.inference import Precision, Tile, whole_blocks
from spectralmamba.scenes.scene import Calibration, PhysicalArray, file_state
from spectralmamba.scenes.sources import FileSource, contiguous
from spectralmamba.sharing.onnx_classifier import load_classifier

if TYPE_CHECKING:
    from distributed import Client, Future

_P = ParamSpec("_P")
_R = TypeVar("_R")

_PATIENCE = 10  # seconds in which a scheduler has to answer
_SHARE = 4  # tiles that each thread of the cluster gets at least, so that all end at about the same time
_AHEAD = 3  # tiles at the scheduler for each thread
_LEAST_AHEAD = 32  # and in any case, so that a cluster that grows with its work begins to
_ATTEMPTS = 4  # for a tile that Dask gives up because its workers die; each is of several deaths
_DESCRIPTION = 1 << 20  # bytes of a scene's description; what takes more is its values
_FOLDER, _MODEL, _SCENE = "cluster-", "model.safetensors", "scene.raw"


class Part(NamedTuple):
    """What a worker found out of a tile.

    Attributes:
        rows: Where it lies.
        columns: Where it lies.
        layers: Values `(h, w)` by layer.
        pixels: How many pixels are not nodata.
    """

    rows: slice
    columns: slice
    layers: Mapping[str, np.ndarray | None]
    pixels: int


@dataclass(frozen=True)
class _Job:
    """What all tasks of a map have in common.

    Attributes:
        version: Of this package.
        folder: Where the classifier is and the parts go to; workers see it under the same path.
        fingerprint: Of the classifier.
        device: The kind of device that computes.
        shape: Rows and columns of the scene.
        source: The scene's file and its size, if workers read it.
        workers: Threads that compute a tile.
        layers: Makes the values of the layers from a tile.
        precision: Of matrix products.
    """

    version: str
    folder: Path
    fingerprint: str
    device: str
    shape: tuple[int, ...]
    source: tuple[Path, int] | None
    workers: int
    layers: Callable[[Tile], dict[str, Any]]
    precision: Precision


def takes_address(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function whose option `dask` is a client take a scheduler's address, too: the connection lasts as long as the call."""
    takes_client: Callable[..., _R] = function

    @wraps(function)
    def connected(*args: Any, **options: Any) -> _R:
        address = options.get("dask")
        if not isinstance(address, str):
            return takes_client(*args, **options)
        with connect(address) as client:
            return takes_client(*args, **options | {"dask": client})

    return connected


@contextmanager
def connect(address: str) -> Iterator[Client]:
    """Connect to a scheduler.

    Raises:
        ClusterError: None answers there.
        MissingPackageError: distributed is not installed.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingPackageError.of("a Dask cluster needs", "distributed", "2024.8", "cluster") from error
    try:
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            "no Dask scheduler answers",
            found=f"{address!r}: {error}",
            expected="the address of a running one, such as tcp://host:8786",
            remedy="Start one with `dask scheduler`, or check the address and the firewall.",
        ) from error
    with client:
        yield client


def smaller_tiles(
    client: Client, classifier: Classifier, shape: tuple[int, ...], size: tuple[int, int]
) -> tuple[int, int]:
    """Return rows and columns of tiles, no more than `size`, of which all threads of a cluster get some."""
    rows, columns = size
    block, wanted = inference.block_width(classifier), _SHARE * _threads_of(client)
    while -(-shape[0] // rows) * -(-shape[1] // columns) < wanted and max(rows, columns) > block:
        if rows > block:  # whole lines as long as possible
            rows = whole_blocks(rows // 2, block)
        else:
            columns = whole_blocks(columns // 2, block)
    return rows, columns


def parts(
    client: Client,
    classifier: Classifier,
    scene: xr.DataArray,
    size: tuple[int, int],
    workers: int | None,
    folder: Path,
    skip: Callable[[slice, slice], bool],
    layers: Callable[[Tile], dict[str, Any]],
    precision: Precision = "float32",
) -> Generator[Part, None, None]:
    """Yield what the tiles of a scene hold as the workers of a cluster finish them, in any order.

    Workers take classifier and scene from storage and leave the values of each tile there; nothing large passes the scheduler.
    Tiles of workers that die are computed again.

    Args:
        client: Of the cluster.
        classifier: What classifies.
        scene: `(band, y, x)`, fit for the classifier.
        size: Rows and columns of tiles.
        workers: Threads that compute a tile on a CPU; 1 if None, because Dask runs a task in each of a worker's threads.
        folder: What workers share; a folder is made in it, and removed at the end.
        skip: Tells by its rows and columns whether a tile is not wanted.
        layers: Makes what to keep of a tile; workers get it pickled.
        precision: Of matrix products.

    Raises:
        ClusterError: Workers have another version or do not see the folder, or the cluster is gone.
        SceneError: Workers do not see the scene's file, cannot read it, or die of a tile again and again.
        OutputError: Workers cannot write.
    """
    for left in folder.glob(f"{_FOLDER}*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    # Of this run alone: tasks of a killed run may still be writing to theirs.
    shared = folder.absolute() / f"{_FOLDER}{uuid4().hex}"
    shared.mkdir()
    try:
        classifier.save(shared / _MODEL)
        values, source = _for_workers(scene, classifier.bands, shared)
        job = _Job(
            metadata.version("spectralmamba"),
            shared,
            classifier.fingerprint(),
            classifier.device.type,
            scene.shape[1:],
            source,
            workers or 1,
            layers,
            precision,
        )
        _check_workers(client, job)

        def submit(rows: slice, columns: slice, outer: dict[str, slice]) -> Future:
            part: Any = values.isel(outer)
            if scene.chunks is not None:
                part = client.compute(part.data)
            return client.submit(_classify_tile, job, rows, columns, part, pure=False)

        wanted = (
            (window.rows, window.columns, {"y": window.outer_rows, "x": window.outer_columns})
            for window in inference.windows(classifier, scene.shape[1:], size)
            if not skip(window.rows, window.columns)
        )
        for (rows, columns, _), (name, pixels) in _results(client, submit, wanted, scene):
            file = shared / name
            with np.load(file) as found:
                yield Part(rows, columns, dict(found), pixels)
            file.unlink()
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def _results(
    client: Client, submit: Callable[..., Future], wanted: Iterator[tuple[Any, ...]], scene: xr.DataArray
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Submit a task for the arguments that are wanted, so many at a time, and yield arguments and results as they come."""
    from distributed import KilledWorker

    done: Queue[Future] = Queue()
    running: dict[Any, tuple[Future, tuple[Any, ...], int]] = {}

    def start(arguments: tuple[Any, ...], attempt: int) -> None:
        future = submit(*arguments)
        running[future.key] = future, arguments, attempt
        future.add_done_callback(done.put)

    try:
        while True:
            with _while_connected():
                for arguments in islice(wanted, max(0, _room(client) - len(running))):
                    start(arguments, 1)
            if not running:
                return
            future, arguments, attempt = running.pop(_next(client, done).key)
            try:
                with _while_connected():
                    result = future.result()
            except KilledWorker as error:
                if attempt == _ATTEMPTS:
                    raise SceneError(
                        "workers died of the same tile again and again",
                        file=scene.attrs.get("source"),
                        found=error,
                        remedy="Give workers more memory, or choose a smaller --tile.",
                    ) from error
                start(arguments, attempt + 1)
                continue
            except SpectralMambaError as error:
                raise _of_words(error) from error
            except ImportError as error:
                raise _other_version(str(error), metadata.version("spectralmamba")) from error
            yield arguments, result
    finally:
        with suppress(Exception):  # of a cluster that is gone there is nothing to cancel
            client.cancel([future for future, _, _ in running.values()])


def _next(client: Any, done: Queue[Future]) -> Future:
    """Return the next task that ends; tell if there is nobody to end one."""
    seconds = 0
    while True:
        try:
            return done.get(timeout=1)
        except Empty:
            seconds += 1
        if seconds == _PATIENCE:
            with _while_connected():
                if not client.nthreads():
                    message = "the Dask cluster has no workers; the map waits for some"
                    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _room(client: Client) -> int:
    """Return how many tiles may be at the scheduler."""
    return max(_LEAST_AHEAD, _AHEAD * _threads_of(client))


def _threads_of(client: Any) -> int:
    """Return the threads of a cluster, at least 1: workers may come later."""
    with _while_connected():
        return max(1, sum(client.nthreads().values()))


@contextmanager
def _while_connected() -> Iterator[None]:
    """Tell in words if the connection breaks."""
    from distributed.comm.core import CommClosedError

    try:
        yield
    except (CancelledError, CommClosedError, TimeoutError) as error:
        raise ClusterError(
            "the Dask cluster is gone, or somebody has cancelled the tasks",
            found=error,
            remedy="When it is there again, the same command with --resume goes on.",
        ) from error


def _for_workers(scene: xr.DataArray, bands: np.ndarray, folder: Path) -> tuple[xr.Variable, tuple[Path, int] | None]:
    """Return the values of bands so that parts of them can be sent to workers as descriptions, and the file that those read.

    What is in memory is written to the folder. What Dask holds stays so: the cluster computes it.
    """
    bare = xr.Variable(scene.dims, scene.variable._data)
    values = bare.isel(band=contiguous(bands))
    if scene.chunks is not None:
        return values, None
    if not _is_described(values):
        return _written(values, folder / _SCENE), None
    state = file_state(scene)
    return values, (Path(scene.attrs["source"]).absolute(), state["bytes"]) if "bytes" in state else None


def _is_described(values: xr.Variable) -> bool:
    """Tell whether what Dask would send of values is a description of them."""
    from distributed.protocol.pickle import dumps

    if values._in_memory:
        return False
    arrays: list[Any] = []
    try:
        text = dumps(values, buffer_callback=arrays.append)
    except Exception:  # whatever it is, it cannot be sent
        return False
    return len(text) + sum(array.raw().nbytes for array in arrays) < _DESCRIPTION


def _written(values: xr.Variable, file: Path) -> xr.Variable:
    """Write values band by band to a file, and return them as lying there."""
    with file.open("wb") as raw:
        for band in range(len(values)):
            raw.write(np.ascontiguousarray(values[band].values, np.float32).data)
    bands, rows, columns = values.shape
    source = FileSource(file, np.dtype(np.float32), (bands, rows, columns), (0, 1, 2))
    unchanged = Calibration(np.ones(bands), np.zeros(bands))
    return xr.Variable(values.dims, indexing.LazilyIndexedArray(PhysicalArray(source, unchanged)))


def _check_workers(client: Any, job: _Job) -> None:
    """Check that the workers that are there can do the work; those that come later do so in each task."""
    with _while_connected():
        # A function that workers without this package know, too.
        versions = client.run(metadata.version, "spectralmamba", on_error="return")
        for worker, found in versions.items():
            if isinstance(found, metadata.PackageNotFoundError):
                raise _other_version(f"none on {worker}", job.version)
            if isinstance(found, str) and found != job.version:
                raise _other_version(f"{found} on {worker}", job.version)
        for worker, found in client.run(_check, job, on_error="return").items():
            if isinstance(found, SpectralMambaError):
                raise _of_words(found)
            if isinstance(found, ImportError | AttributeError):
                raise _other_version(f"{found} on {worker}", job.version)
            # Anything else is that the worker has died meanwhile.


def _other_version(found: str, expected: str) -> ClusterError:
    return ClusterError(
        "a worker does not have this version of spectralmamba",
        found=found,
        expected=expected,
        remedy="Install the same version for the workers, and start them again.",
    )


def _check(job: _Job) -> None:
    """Check on a worker that it has the version of the job, and sees its folder and the scene's file."""
    here = socket.gethostname()
    version = metadata.version("spectralmamba")
    if version != job.version:
        raise _other_version(f"{version} on {here}", job.version)
    model = job.folder / _MODEL
    if not model.is_file() or not os.access(job.folder, os.W_OK):
        raise ClusterError(
            "a worker cannot write to the folder of the unfinished map",
            file=job.folder.parent,
            found=f"{'no right to write' if model.is_file() else 'no such folder'} on {here}",
            expected="a folder that all workers see under this path",
            remedy="Choose an --out in storage that they share.",
        )
    if job.source is not None:
        path, size = job.source
        try:
            # Of a store, counting all chunks for each tile would take longer than the tile.
            found = size if path.is_dir() else path.stat().st_size
        except OSError as error:
            raise _unseen(job.source, f"{error.strerror} on {here}") from error
        if found != size:
            raise _unseen(job.source, f"{found} bytes on {here}")


def _unseen(source: tuple[Path, int], found: str) -> SceneError:
    return SceneError(
        "a worker does not see the scene's file as it is here",
        file=source[0],
        found=found,
        expected=f"{source[1]} bytes under this path",
        remedy="Put the file into storage that all workers share.",
    )


def _of_words(error: SpectralMambaError) -> SpectralMambaError:
    """Return an error with the message that it was made with, and nothing that cannot travel between processes."""
    details = {name: getattr(error, name) for name in ("file", "found", "expected", "remedy")}
    return type(error)(
        error.problem, **{name: None if value is None else str(value) for name, value in details.items()}
    )


def _classify_tile(job: _Job, rows: slice, columns: slice, values: Any) -> tuple[str, int]:
    """Classify a tile on a worker from its values with halo; return the file of the part, and its pixels that are not nodata."""
    try:
        _check(job)
        read = np.asarray(getattr(values, "values", values))
        tile = inference.tile_alone(_load(job), job.shape, rows, columns, read, job.workers, job.precision)
        return _write_part(job, tile), int((tile.ids > 0).sum())
    except SpectralMambaError as error:
        travelling = _of_words(error)
    raise travelling  # without its cause, which may not be one that can


def _write_part(job: _Job, tile: Tile) -> str:
    # Nobody knows the name before the part is whole, and no other task has it: Dask may run one twice.
    part = job.folder / f"{uuid4().hex}.npz"
    try:
        np.savez(part, allow_pickle=False, **job.layers(tile))
    except OSError as error:
        raise OutputError(
            "a worker cannot write its part of the map",
            file=part,
            found=f"{error.strerror} on {socket.gethostname()}",
            remedy="Free some space, or choose another folder with --out.",
        ) from error
    return part.name


_loaded: dict[tuple[str, str], Classifier] = {}
_loading = Lock()


def _load(job: _Job) -> Classifier:
    """Return a job's classifier, which each worker process loads once."""
    key = job.fingerprint, job.device
    with _loading:
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = load_classifier(job.folder / _MODEL, job.device)
        return _loaded[key]


def lazily(classifier: Classifier, scene: xr.DataArray, name: str, dtype: type, of_classes: bool) -> Any:
    """Return what a classifier says of a scene that Dask holds, as a Dask array that computes when it is asked to.

    Chunks become whole blocks, so that values have the same bits as those of the scene in memory.

    Args:
        classifier: What classifies.
        scene: `(band, y, x)`, fit for the classifier.
        name: The attribute of a `Tile` that is wanted.
        dtype: Of its values.
        of_classes: Whether it is `(K, H, W)` rather than `(H, W)`.
    """
    from dask import array
    from dask.delayed import delayed

    block, reach = inference.block_width(classifier), classifier.patch // 2
    rows, columns = (_whole_chunks(scene.chunksizes[axis], block, reach) for axis in ("y", "x"))
    values = scene.data[contiguous(classifier.bands)].rechunk({0: -1, 1: rows, 2: columns})
    depth = {0: 0, 1: reach if len(rows) > 1 else 0, 2: reach if len(columns) > 1 else 0}
    with_halo = array.overlap.overlap(values, depth, boundary="none", allow_rechunk=False)
    once = delayed(  # a key of its own, which all chunks take it from
        classifier, name=f"classifier-{classifier.fingerprint()}-{classifier.device}", traverse=False
    )
    classes = ((len(classifier.classes),),) if of_classes else ()
    return array.map_blocks(
        _of_chunk,
        with_halo,
        classifier=once,
        attribute=name,
        rows=rows,
        columns=columns,
        drop_axis=[] if of_classes else [0],
        chunks=(*classes, rows, columns),
        meta=np.empty((0,) * (2 + len(classes)), dtype),
    )


def _of_chunk(
    values: np.ndarray,
    classifier: Classifier,
    attribute: str,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    block_id: tuple[int, ...],
) -> np.ndarray:
    """Classify a chunk with its halo in a scene of chunks of so many rows and columns."""
    top, left = (sum(sizes[:number]) for sizes, number in zip((rows, columns), block_id[-2:], strict=True))
    here = slice(top, top + rows[block_id[-2]]), slice(left, left + columns[block_id[-1]])
    tile = inference.tile_alone(classifier, (sum(rows), sum(columns)), *here, values)
    return getattr(tile, attribute)


def _whole_chunks(sizes: tuple[int, ...], block: int, reach: int) -> tuple[int, ...]:
    """Return chunks like those, but of whole blocks, and none smaller than a patch reaches."""
    step = whole_blocks(max(*sizes, reach, 1), block)
    many, rest = divmod(sum(sizes), step)
    if many and rest < reach:
        return (*(step,) * (many - 1), step + rest)
    return (step,) * many + (rest,) * bool(rest)
