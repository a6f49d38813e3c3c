"""How much memory this process has."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from spectralmamba.errors import SettingsError

_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def bytes_of(text: str) -> int:
    """Return the bytes that a text such as "512MB", "2 GB" or "1.5GiB" means.

    Raises:
        SettingsError: It means none.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    if found is None or found[2] not in _UNITS:
        raise SettingsError(
            "this is no amount of memory", found=text, expected="a number and a unit: 512MB, 2GB, 1.5GiB"
        )
    return int(float(found[1]) * _UNITS[found[2]])


def peak_memory() -> int | None:
    """Return the most memory that this process has held, in bytes; None where the system does not tell."""
    try:
        # Linux begins the count of `getrusage` with what the parent had.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(found[1]) * 1024
    except OSError:  # not Linux
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_taken() -> int:
    """Return the memory that this process holds now, in bytes; the most it has held where the system tells no more, else 0."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return peak_memory() or 0


def memory_free() -> int | None:
    """Return the memory that this machine could give, in bytes; None where the system does not tell."""
    try:
        status = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:  # not Linux
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
