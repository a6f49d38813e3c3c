"""docs/performance.md: sections that the benchmarks write, and what they were measured on."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"


def write_section(name: str, parts: Iterable[str]) -> None:
    """Replace what is between a section's markers, or append it."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else "# Performance\n"
    before, found, rest = text.partition(start)
    after = rest.partition(end)[2] if found else "\n"
    before = before if found else before.rstrip("\n") + "\n\n"
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n\n".join((before + start, *parts, end + after)), encoding="utf-8")


def commit() -> str:
    """Return the commit that is measured; COMMIT names it where there is no repository."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return os.environ.get("COMMIT") or found.stdout.strip() or "unknown"


def provenance(device: str | None = None) -> dict[str, str]:
    """Return date, commit and machine of what is measured now, by default on a GPU if there is one."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    where = cpu_model() if device == "cpu" else torch.cuda.get_device_name(device)
    machine = f"{where}, {os.cpu_count()} cores, torch {torch.__version__}"
    return {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine}


def cpu_model() -> str:
    """Return the processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
