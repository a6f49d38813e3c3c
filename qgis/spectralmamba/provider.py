"""The provider: all algorithms, and the setting that says where the command is."""

from __future__ import annotations

from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms.areas import Areas
from .algorithms.evaluate import Evaluate
from .algorithms.map import Map
from .algorithms.polygons import Polygons
from .algorithms.report import Report
from .algorithms.resample import Resample
from .algorithms.run import Run
from .algorithms.train import Train
from .command import COMMAND_SETTING

ICON = Path(__file__).parent / "icon.svg"


class SpectralMambaProvider(QgsProcessingProvider):
    """SpectralMamba's algorithms."""

    def load(self) -> bool:
        """Make the setting known and load the algorithms."""
        ProcessingConfig.settingIcons[self.name()] = self.icon()
        ProcessingConfig.addSetting(
            Setting(
                self.name(),
                COMMAND_SETTING,
                "Command spectralmamba (empty: found on PATH)",
                "",
                valuetype=Setting.FILE,
            )
        )
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        """Forget the setting's definition; its value stays in the user's profile."""
        ProcessingConfig.removeSetting(COMMAND_SETTING)

    def loadAlgorithms(self) -> None:
        """Add every algorithm."""
        for algorithm in (Run, Train, Map, Evaluate, Areas, Resample, Polygons, Report):
            self.addAlgorithm(algorithm())

    def id(self) -> str:
        """Return the first half of the algorithms' ids, as in `spectralmamba:map`."""
        return "spectralmamba"

    def name(self) -> str:
        """Return what the toolbox shows."""
        return "SpectralMamba"

    def icon(self) -> QIcon:
        """Return the plugin's icon."""
        return QIcon(str(ICON))

    def svgIconPath(self) -> str:
        """Return the icon's file."""
        return str(ICON)

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """Return the one format that the commands write."""
        return ["tif"]

    def supportedOutputVectorLayerExtensions(self) -> list[str]:
        """Return the one format that the commands write."""
        return ["gpkg"]

    def defaultVectorFileExtension(self, hasGeometry: bool = True) -> str:
        """Return the one format that the commands write."""
        return "gpkg"

    def supportsNonFileBasedOutput(self) -> bool:
        """Say that commands write files, not layers in memory."""
        return False
