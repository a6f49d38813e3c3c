"""What tests of stopped and killed maps share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of all files of a folder and what lies in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def after(tiles: int, do: Callable[[], object]) -> Callable[[int, int], None]:
    """Do something after so many tiles, counted by calls."""
    calls: list[int] = []

    def on_tile(done: int, _: int) -> None:
        calls.append(done)
        if len(calls) == tiles:
            do()

    return on_tile


def stop() -> None:
    raise KeyboardInterrupt
