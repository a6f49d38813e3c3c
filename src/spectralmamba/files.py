"""Files appear whole under their final name, or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from spectralmamba.errors import OutputError


@contextmanager
def atomic_output(path: str | os.PathLike[str], folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path; on success it is flushed to disk and renamed to `path`, else it is removed.

    A reader, also one after a power cut, sees the old file or the whole new one.

    Args:
        path: The final name; its folder must exist.
        folder: Where it is until then, on the same disk; beside `path` if None. What a killed process leaves there stays.

    Raises:
        OutputError: The folder is missing or not writable, or the disk is full.
    """
    final = Path(path)
    temporary = (folder or final.parent) / f".{final.stem}.part-{os.getpid()}{final.suffix}"
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        _flush_to_disk(temporary)
        os.replace(temporary, final)
        _flush_to_disk(final.parent)
    except OSError as error:
        raise _output_error(final, temporary, error) from error
    finally:
        with suppress(OSError):  # where it could not be made, it cannot be removed
            temporary.unlink()


@contextmanager
def atomic_folder(path: str | os.PathLike[str], folder: Path) -> Iterator[Path]:
    """Yield the name of a folder to make; on success it is flushed to disk and renamed to `path`, else it is removed.

    A folder that has the final name is moved away just before, because no folder can be replaced in one step: a process that is
    killed between the two leaves it in `folder`.

    Args:
        path: The final name; its folder must exist.
        folder: Where it is until then, on the same disk; no other process writes there.

    Raises:
        OutputError: The folder is missing or not writable, or the disk is full.
    """
    final = Path(path)
    temporary, replaced = (folder / f".{final.stem}.{what}{final.suffix}" for what in ("part", "replaced"))
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
        yield temporary
        for entry in (*temporary.rglob("*"), temporary):
            _flush_to_disk(entry)
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            os.replace(final, replaced)
        try:
            os.replace(temporary, final)
        except OSError:
            if replaced.exists():
                os.replace(replaced, final)
            raise
        _flush_to_disk(final.parent)
    except OSError as error:
        raise _output_error(final, temporary, error) from error
    finally:
        for left in (temporary, replaced):
            shutil.rmtree(left, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` atomically as JSON; NaN and infinity are refused, because no JSON reader takes them."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def locked(file: int | IO[Any]) -> bool:
    """Lock an open file or folder for this process, until it is closed; return whether no other process holds it.

    Args:
        file: A file, or the descriptor of a folder. On Windows it is not locked.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def with_section(text: str, name: str, parts: Iterable[str]) -> str:
    """Return a Markdown text with what is between a section's markers replaced, or with the section behind it."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(start)
    after = rest.partition(end)[2] if found else "\n"
    before = before if found else before.rstrip("\n") + "\n\n"
    return "\n\n".join((before + start, *parts, end + after))


def numbers_or_none(values: Iterable[float]) -> list[float | None]:
    """Return plain numbers for JSON, None where they are NaN or infinite."""
    return [float(value) if math.isfinite(value) else None for value in values]


def _umask() -> int:
    """Return the file mode bits that the user takes away; some writers make files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _output_error(final: Path, temporary: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        written = sum(file.stat().st_size for file in (temporary, *temporary.rglob("*")) if file.is_file())
        free = shutil.disk_usage(final.parent).free
        return OutputError(
            "no space left to write this file",
            file=final,
            found=f"{free} bytes free after {written} bytes were written",
            remedy="Free some space or choose another folder with --out; nothing was left under the final name.",
        )
    if not final.parent.is_dir():
        return OutputError("the output folder does not exist", file=final.parent, remedy="Create it first.")
    return OutputError(
        "cannot write this file",
        file=final,
        found=error.strerror or str(error),
        remedy="Check the folder's permissions or choose another one with --out.",
    )
