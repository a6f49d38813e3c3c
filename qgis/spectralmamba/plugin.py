"""What QGIS loads: it brings the provider to the Processing toolbox, and takes it away."""

from __future__ import annotations

from qgis.core import QgsApplication

from .provider import SpectralMambaProvider


class SpectralMambaPlugin:
    """The plugin: a Processing provider and nothing else."""

    def __init__(self) -> None:
        self.provider: SpectralMambaProvider | None = None

    def initProcessing(self) -> None:  # the name that qgis_process calls
        """Add the provider; `qgis_process` calls this alone."""
        self.provider = SpectralMambaProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        """Add the provider when QGIS has a window."""
        self.initProcessing()

    def unload(self) -> None:
        """Take the provider away."""
        QgsApplication.processingRegistry().removeProvider(self.provider)
