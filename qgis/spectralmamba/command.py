"""The installed command `spectralmamba`: where it is, which version, and how it runs beside QGIS. Needs no QGIS."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

MINIMUM = (0, 1, 0)
"""The oldest version of the command that has all options of the tables, and progress in lines."""
COMMAND_SETTING = "SPECTRALMAMBA_COMMAND"
"""Name of the setting among QGIS's Processing options."""

# QGIS sets these for its own libraries and Python; another Python with its own GDAL and PROJ breaks on them.
_OF_QGIS = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONEXECUTABLE",
    "GDAL_DATA",
    "GDAL_DRIVER_PATH",
    "PROJ_LIB",
    "PROJ_DATA",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "DYLD_LIBRARY_PATH",
    "DYLD_INSERT_LIBRARIES",
)
_PROGRESS_LINE = re.compile(r"progress (\d\.\d\d) (\w+)")
_LONGEST_STOP = (
    30  # seconds that the command has to stop by itself: the most that one step of training takes on a slow CPU
)
_LONGEST_VERSION = 120  # seconds; the first start of an environment on a cold disk takes some
_INSTALL = """Install it in a Python environment of its own, outside of QGIS:

    python -m venv spectralmamba
    spectralmamba/bin/pip install "spectralmamba[vector]"

(on Windows spectralmamba\\Scripts\\pip), then choose spectralmamba/bin/spectralmamba (on Windows
spectralmamba\\Scripts\\spectralmamba.exe) in Settings > Options > Processing > Providers > SpectralMamba > Command."""

_versions: dict[tuple[str, float], tuple[int, ...]] = {}


class CommandError(Exception):
    """The command is missing, too old, or said no; the message is for the user."""


class Cancelled(Exception):
    """The user stopped the command."""


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what QGIS sets for itself, and with what the plugin wants of the command."""
    kept = {name: value for name, value in environment.items() if name.upper() not in _OF_QGIS}
    return kept | {"SPECTRALMAMBA_PROGRESS": "lines", "NO_COLOR": "1", "PYTHONUTF8": "1"}


def find_command(setting: str | None) -> Path:
    """Return the command's file: the one that the setting names, or else the one on PATH.

    Raises:
        CommandError: It is not there, or no program.
    """
    wanted = (setting or "").strip()
    found = shutil.which(wanted or "spectralmamba")
    if found is None:
        problem = (
            f"The command {wanted} is no program that can be started."
            if wanted
            else "There is no spectralmamba on PATH."
        )
        raise CommandError(f"{problem}\n\n{_INSTALL}")
    return Path(found)


def check_version(command: Path) -> tuple[int, ...]:
    """Return the command's version; it is asked once for each file.

    Raises:
        CommandError: It does not tell its version, or is too old.
    """
    key = (str(command), command.stat().st_mtime)
    if key not in _versions:
        _versions[key] = _ask_version(command)
    version = _versions[key]
    if version < MINIMUM:
        have, need = (".".join(map(str, each)) for each in (version, MINIMUM))
        raise CommandError(
            f"{command} is version {have}, and this plugin needs {need} or newer.\n\nUpdate it in its environment:\n\n"
            f'    {command.with_name("pip")} install --upgrade "spectralmamba[vector]"'
        )
    return version


def _ask_version(command: Path) -> tuple[int, ...]:
    try:
        answer = subprocess.run(
            [str(command), "--version"],
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_LONGEST_VERSION,
            **_own_group(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{command} cannot be started: {error}\n\n{_INSTALL}") from error
    told = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?.*", answer.stdout.strip())
    if answer.returncode or not told:
        said = (answer.stderr or answer.stdout).strip()[-500:]
        raise CommandError(f"{command} does not tell its version, so it is no spectralmamba: {said}\n\n{_INSTALL}")
    return tuple(int(part or 0) for part in told.groups())


def run_command(
    command: Path,
    words: Sequence[str],
    *,
    say: Callable[[str], None],
    complain: Callable[[str], None],
    progress: Callable[[float, str], None],
    cancelled: Callable[[], bool],
    folder: Path | None = None,
) -> None:
    """Run the command to its end, or until the user cancels.

    Args:
        command: What `find_command` found.
        words: Its arguments.
        say: Called with each line of its output.
        complain: Called with each line of its errors.
        progress: Called with the share done, from 0 to 1, and what of: "train", "map" or "resample".
        cancelled: Asked some times a second.
        folder: Where it writes, to remove files that it had begun when it had to be killed.

    Raises:
        CommandError: It left with an error; the message is what it said.
        Cancelled: The user stopped it; it has ended.
    """
    before = _begun_files(folder)
    with subprocess.Popen(
        [str(command), *words],
        env=clean_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        **_own_group(),
    ) as process:
        lines: queue.Queue[tuple[bool, str]] = queue.Queue()
        readers = [
            threading.Thread(target=_read, args=(pipe, is_error, lines), daemon=True)
            for pipe, is_error in ((process.stdout, False), (process.stderr, True))
        ]
        for reader in readers:
            reader.start()
        complaints: list[str] = []
        stopped = False
        while any(reader.is_alive() for reader in readers) or not lines.empty():
            if not stopped and cancelled():
                stopped = True
                _stop(process)
            try:
                is_error, line = lines.get(timeout=0.1)
            except queue.Empty:
                continue
            told = _PROGRESS_LINE.fullmatch(line)
            if is_error:
                complaints.append(line)
                complain(line)
            elif told:
                progress(float(told[1]), told[2])
            else:
                say(line)
    if stopped:
        for left in _begun_files(folder) - before:
            left.unlink(missing_ok=True)
        raise Cancelled
    if process.returncode:
        said = "\n".join(complaints).strip() or f"{command} ended with code {process.returncode} and said nothing."
        raise CommandError(said)


def _read(pipe: IO[str], is_error: bool, lines: queue.Queue[tuple[bool, str]]) -> None:
    for line in pipe:
        lines.put((is_error, line.rstrip("\n")))


def _own_group() -> dict[str, int | bool]:
    """Return how a program starts so that it can be stopped with all that it started, and without a window."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _stop(process: subprocess.Popen[str]) -> None:
    """End the command: as Ctrl-C does, so that it removes what it has begun, and for good where it does not listen."""
    if sys.platform == "win32":  # a window's program cannot send Ctrl-C to one without
        process.kill()
        return
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + _LONGEST_STOP
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is not None:
            return


def _begun_files(folder: Path | None) -> set[Path]:
    """Return the files of a folder that have no final name yet; the command calls them so."""
    return set() if folder is None else set(folder.glob(".*.part-*"))
