"""Code blocks of the documentation's pages, run as they stand there."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from spectralmamba.cli import app

ROOT = Path(__file__).resolve().parents[1]
# A training that learns next to nothing, on a scene that is quickly mapped.
SHORTER: Mapping[str, tuple[str, ...]] = {
    "run": ("--steps", "2"),
    "train": ("--steps", "2"),
    "simulate": ("--rows", "48", "--columns", "48", "--bands", "20", "--classes", "3"),
}
_BLOCK = re.compile(
    r"""^(?:<!--\ not\ run:\ (?P<reason>[^\n]+)\ -->\n)?
    ```(?P<language>\w*)(?:\ title="(?P<file>[^"\n]+)")?\n(?P<code>.*?)^```$""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands in it, the file that it shows, and why it is not run if it is not."""

    language: str
    code: str
    file: str | None
    reason: str | None

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line of a shell block."""
        return [words for line in self.code.splitlines() if (words := shlex.split(line, comments=True))]


def code_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in their order."""
    return [
        Block(found["language"], found["code"], found["file"], found["reason"])
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def run_block(block: Block, page: str, names: dict[str, Any]) -> None:
    """Run a block in the working folder; `names` holds what the page's Python has defined. A block that shows a file is written."""
    if block.file is not None:
        Path(block.file).write_text(block.code, encoding="utf-8")
    elif block.language == "python":
        exec(compile(block.code, page, "exec"), names)
    else:
        for words in block.commands:
            run_command(words)


def run_command(words: list[str]) -> None:
    """Run a line of a shell block, shortened; it has to succeed and to write what it says."""
    (program, *arguments), line = words, shlex.join(words)
    shorter = () if "--help" in arguments else next((SHORTER[word] for word in arguments if word in SHORTER), ())
    if program == "python":
        ended = subprocess.run(
            [sys.executable, *arguments, *shorter],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{line}: {ended.stderr}"
    else:
        assert program == "spectralmamba", line
        result = CliRunner().invoke(app, [*arguments, *shorter])
        assert result.exit_code == 0, f"{line}: {result.output}{result.exception!r}"
    for option, value in itertools.pairwise(arguments):
        assert option != "--out" or "--list" in arguments or Path(value).exists(), f"{line} wrote no {value}"
