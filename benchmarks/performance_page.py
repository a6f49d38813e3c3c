"""docs/performance.md: sections that the benchmarks write, and what they were measured on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spectralmamba.experiments.provenance import commit, cpu_model, provenance
from spectralmamba.files import with_section

__all__ = ["PAGE", "ROOT", "commit", "cpu_model", "provenance", "write_section"]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"


def write_section(name: str, parts: Iterable[str]) -> None:
    """Replace what is between a section's markers, or append it."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else "# Performance\n"
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(with_section(text, name, parts), encoding="utf-8")
