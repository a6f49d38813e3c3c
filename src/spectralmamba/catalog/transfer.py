"""One file from one address, resumed where it was cut."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spectralmamba.errors import MissingPackageError, OutputError

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, bytes done, and bytes in all if the server says."""

_CHUNK = 1 << 14
"""Bytes read at once, of which the last are lost when a transfer is cut."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def pooch_package() -> Any:
    """Return the package pooch, which is imported when it is needed.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import pooch
    except ImportError as error:
        raise MissingPackageError.of("downloads of public data sets need", "pooch", "1.8", "data") from error
    return pooch


class Downloader:
    """Downloads for pooch, by HTTP, into a `.part` file beside the final name that a later call goes on with.

    A part is continued if the server still has the same version of the file (its ETag or date), or if a checksum will
    tell; otherwise it is begun again.

    Args:
        part: The unfinished file; what it is of stands in `PART.from` beside it.
        verified: Whether the finished file is compared with a known checksum.
        progress: What to call as bytes come in.
        timeout: Seconds without any byte, after which the address counts as silent.
        attempts: How often a cut transfer is continued at once, if no byte came.
    """

    def __init__(
        self,
        part: Path,
        *,
        verified: bool,
        progress: Progress | None = None,
        timeout: float = 60.0,
        attempts: int = 3,
    ) -> None:
        self.part, self.verified, self.progress = part, verified, progress
        self.timeout, self.attempts = timeout, attempts
        self._source = part.with_name(part.name + ".from")

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        """Download `url` to `output_file`, which is replaced in one step.

        Raises:
            OutputError: There is no room for it.
            requests.RequestException: The address does not give it.
        """
        import requests

        idle = 0
        while True:
            before = self._done()
            try:
                self._transfer(requests, url)
                break
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                idle = 0 if self._done() > before else idle + 1
                if idle >= self.attempts:
                    raise
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                name = self.part.name.removesuffix(".part")
                raise _no_room(self.part.with_name(name), f"more than the {self._done()} that fitted") from error
        os.replace(self.part, output_file)
        self._source.unlink(missing_ok=True)

    def _done(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _transfer(self, requests: Any, url: str) -> None:
        done = self._done() if self._may_continue(url) else 0
        headers = {"Accept-Encoding": "identity"} | self._range(url, done)
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable and done:
                self.part.unlink()  # longer than the file is now: begin again
                raise requests.ConnectionError("the unfinished file is no part of what is published now")
            response.raise_for_status()
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise requests.RequestException("a web page instead of the file")
            if not _continues(response, done):
                done = 0
            self._note_source(url, response)
            total = _total(response, done)
            self._refuse_if_full(total, done)
            with self.part.open("r+b" if done else "wb") as file:
                file.seek(done)
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    if self.progress is not None:
                        self.progress(self.part.name.removesuffix(".part"), done, total)

    def _may_continue(self, url: str) -> bool:
        known, version = self._known_source()
        return self.verified or (known == url and bool(version))

    def _range(self, url: str, done: int) -> dict[str, str]:
        if not done:
            return {}
        known, version = self._known_source()
        condition = {"If-Range": version} if known == url and version else {}
        return {"Range": f"bytes={done}-"} | condition

    def _known_source(self) -> tuple[str, str]:
        if not self._source.is_file():
            return "", ""
        url, _, version = self._source.read_text(encoding="utf-8").partition("\n")
        return url, version.strip()

    def _note_source(self, url: str, response: Any) -> None:
        tag = response.headers.get("ETag", "")
        version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
        self._source.write_text(f"{url}\n{version}\n", encoding="utf-8")

    def _refuse_if_full(self, total: int | None, done: int) -> None:
        if total is not None:
            require_space(self.part.with_name(self.part.name.removesuffix(".part")), total - done)


def require_space(path: Path, needed: int) -> None:
    """Check that the disk of `path` has room for so many bytes.

    Raises:
        OutputError: It has not.
    """
    if needed > shutil.disk_usage(path.parent).free:
        raise _no_room(path, f"{needed} bytes for it")


def _no_room(path: Path, expected: str) -> OutputError:
    return OutputError(
        "no space left in the cache",
        file=path,
        found=f"{shutil.disk_usage(path.parent).free} bytes free",
        expected=expected,
        remedy="Free some space, or choose another folder with --cache; a download goes on where it stopped.",
    )


def _continues(response: Any, done: int) -> bool:
    """Tell whether the answer begins where the part ends."""
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")


def _total(response: Any, done: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return done + int(length) if length.isdigit() else None
