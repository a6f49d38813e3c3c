"""SpectralMamba in QGIS: its commands as algorithms of the Processing toolbox.

The plugin starts the installed command `spectralmamba` as a program of its own and imports nothing of it, so that torch stays
out of QGIS's Python. `tables`, `words` and `command` need no QGIS.
"""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """Return the plugin; QGIS calls this when it loads the folder."""
    from .plugin import SpectralMambaPlugin

    return SpectralMambaPlugin()
