"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real reference data; tests that need it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("SPECTRALMAMBA_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder}; set SPECTRALMAMBA_DATA to its folder")
    return folder
