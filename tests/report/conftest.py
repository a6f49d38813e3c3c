"""The fixture that the report's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_example import Example, make_run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", Example())
