"""What results were made with: date, commit, machine, and a digest of the code that computes."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from spectralmamba import __version__

PACKAGE = Path(__file__).resolve().parents[1]
_WORDS = ("cli", "report", "catalog")  # rooms whose code changes no result
_COMPUTING = ("data.py", "execute.py", "simple.py", "tuning.py")  # of this room, those whose code does


@cache
def code_version() -> str:
    """Return the package's version and twelve digits of a SHA-256 over the sources that results follow from.

    These are all but `cli`, `report`, `catalog`, and of `experiments` what plans, keeps and tells results.
    """
    digest = hashlib.sha256()
    for path in sorted((*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.c"))):
        name = path.relative_to(PACKAGE)
        if name.parts[0] in _WORDS or (name.parts[0] == "experiments" and name.name not in _COMPUTING):
            continue
        digest.update(f"{name.as_posix()}\n".encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def commit() -> str:
    """Return the commit that runs, "unknown" outside of a checkout; the variable COMMIT names it where there is no repository."""
    if named := os.environ.get("COMMIT"):
        return named
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:  # installed, maybe inside of another repository
        return "unknown"
    return _git("rev-parse", "--short", "HEAD") or "unknown"


def _git(*words: str) -> str | None:
    try:
        found = subprocess.run(["git", *words], cwd=PACKAGE, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def provenance(device: str | None = None) -> dict[str, str]:
    """Return date, commit and machine of what is measured now, by default on a GPU if there is one."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_model()
    machine = f"{where}, {os.cpu_count()} cores, torch {torch.__version__}"
    return {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine}


def cpu_model() -> str:
    """Return the processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
