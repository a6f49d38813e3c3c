"""Public data sets in miniature: files in the publishers' layout, and a web server on this machine that has them."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import scipy.io
from rasterio.errors import NotGeoreferencedWarning

from spectralmamba.catalog import DataFile, Entry, dataset

ROWS, COLUMNS, BANDS = 12, 10, 7


@dataclass
class Page:
    """What the server has at an address.

    Attributes:
        body: The file.
        status: Another answer than 200.
        cut: After how many bytes each answer ends, the first of them first; None sends all.
        ranges: Whether parts can be asked for.
        tag: The file's version; empty sends none.
        silent: Whether it waits, until the server is closed, before it answers.
        kind: The content type.
    """

    body: bytes = b""
    status: int = 200
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    tag: str = '"1"'
    silent: bool = False
    kind: str = "application/octet-stream"


class Site:
    """The server: its pages by name, and which parts were asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.closing = threading.Event()
        self.address = ""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def add(self, name: str, body: bytes = b"", **how: Any) -> str:
        self.pages[name] = Page(body, **how)
        return self.url(name)


@contextmanager
def serving() -> Iterator[Site]:
    """Serve a site on the loopback until the block is left."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, site)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, site: Site) -> None:
    name, wanted = handler.path.lstrip("/"), handler.headers.get("Range")
    site.asked.append((name, wanted))
    page = site.pages.get(name, Page(status=404))
    handler.close_connection = True
    if page.silent:
        site.closing.wait()
        return
    if page.status != 200:
        handler.send_error(page.status)
        return
    start = 0
    if wanted and page.ranges and handler.headers.get("If-Range", page.tag) == page.tag:
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(page.body):
            handler.send_error(416)
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}")
    else:
        handler.send_response(200)
    if page.tag:
        handler.send_header("ETag", page.tag)
    handler.send_header("Content-Type", page.kind)
    handler.send_header("Content-Length", str(len(page.body) - start))
    handler.end_headers()
    length = page.cut.pop(0) if page.cut else None
    handler.wfile.write(page.body[start:] if length is None else page.body[start : start + length])


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def git_blob(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def cube(dtype: str = "uint16") -> np.ndarray:
    """A scene (rows, columns, bands) whose values are all different."""
    return (np.arange(ROWS * COLUMNS * BANDS).reshape(ROWS, COLUMNS, BANDS) + 1).astype(dtype)


def ground_truth(*ids: int) -> np.ndarray:
    """Class ids (rows, columns): stripes of three rows each, the last column unlabelled."""
    truth = np.zeros((ROWS, COLUMNS), np.uint8)
    for stripe, id_ in enumerate(ids):
        truth[3 * stripe : 3 * stripe + 3, :-1] = id_
    return truth


def matlab(path: Path, **variables: np.ndarray) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables, do_compression=True)
    return path.read_bytes()


def pavia(folder: Path) -> dict[str, bytes]:
    """Write Pavia University as it is published; one training pixel has no label in the ground truth."""
    truth = ground_truth(1, 2, 3, 9)
    train = np.where(np.arange(COLUMNS) < 2, truth, 0)
    train[0, COLUMNS - 1] = 1
    test = np.where(train > 0, 0, truth)
    return {
        "PaviaU.mat": matlab(folder / "PaviaU.mat", paviaU=cube()),
        "PaviaU_gt.mat": matlab(folder / "PaviaU_gt.mat", paviaU_gt=truth),
        "TRpavia_fixed.mat": matlab(folder / "TRpavia_fixed.mat", TRpavia_fixed=train.astype(float)),
        "TSpavia_fixed.mat": matlab(folder / "TSpavia_fixed.mat", TSpavia_fixed=test.astype(float)),
    }


def small(name: str, change: Callable[[DataFile], DataFile] = lambda file: file, **facts: Any) -> Entry:
    """The catalogue's entry, of the size of the files here, each file changed."""
    entry = dataset(name)
    facts = {"shape": (ROWS, COLUMNS), "bands": BANDS, "wavelengths": None} | facts
    return replace(entry, files=tuple(change(unchecked(file)) for file in entry.files), **facts)


def unchecked(file: DataFile) -> DataFile:
    """A file without checksum and address."""
    return replace(file, urls=(), sha256=None, git_blob=None, size=None)


def on_site(entry: str, site: Site, files: dict[str, bytes], **facts: Any) -> Entry:
    """The entry with these files on the site, and their checksums."""

    def change(file: DataFile) -> DataFile:
        if file.name not in files:
            return file
        body = files[file.name]
        return replace(file, urls=(site.add(file.name, body),), sha256=sha256(body))

    return small(entry, change, **facts)


def envi(path: Path, values: np.ndarray, *lines: str) -> None:
    """Write values (bands, rows, columns) as ENVI, its header beside it."""
    path.write_bytes(np.ascontiguousarray(values).tobytes())
    bands, rows, columns = values.shape
    kind = {"uint8": 1, "uint16": 12, "float32": 4}[values.dtype.name]
    entries = (
        *("ENVI", f"samples = {columns}", f"lines = {rows}", f"bands = {bands}", "header offset = 0"),
        *(f"data type = {kind}", "interleave = bsq", "byte order = 0", *lines),
    )
    path.with_suffix(".hdr").write_text("\n".join(entries) + "\n")


def geotiff(path: Path, values: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        _write(path, values)


def _write(path: Path, values: np.ndarray) -> None:
    count, height, width = values.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype) as file:
        file.write(values)
