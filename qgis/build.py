"""Makes dist/spectralmamba-qgis.zip, which QGIS installs: Plugins > Manage and Install Plugins > Install from ZIP.

python qgis/build.py
"""

from __future__ import annotations

import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "qgis" / "spectralmamba"
ARCHIVE = ROOT / "dist" / "spectralmamba-qgis.zip"
_SUFFIXES = {".py", ".svg", ".txt"}
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows, so that the same files give the same bytes


def contents() -> dict[str, Path]:
    """Return the files of the plugin by their names in the zip; QGIS wants one folder with all of it."""
    files = (file for file in sorted(PLUGIN.rglob("*")) if file.suffix in _SUFFIXES)
    named = {str(Path(PLUGIN.name, file.relative_to(PLUGIN)).as_posix()): file for file in files}
    return named | {f"{PLUGIN.name}/LICENSE": ROOT / "LICENSE"}


def build(archive: Path = ARCHIVE) -> Path:
    """Write the zip and return its path."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for name, file in contents().items():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return archive


if __name__ == "__main__":
    print(build())
