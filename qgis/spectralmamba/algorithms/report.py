"""`spectralmamba report` in QGIS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback, QgsProcessingOutputHtml
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtGui import QDesktopServices
from qgis.utils import iface

from ..algorithm import CommandAlgorithm
from ..tables import REPORT


class Report(CommandAlgorithm):
    """Open a report."""

    table = REPORT
    outputs = ((QgsProcessingOutputHtml, "REPORT", "Report"),)

    def __init__(self) -> None:
        super().__init__()
        self._to_open: Path | None = None

    def results(
        self, values: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Return the report."""
        report = Path(values["FOLDER"]) / "report.html"
        if values["OPEN"]:
            self._to_open = report
        return {"REPORT": str(report)}

    def postProcessAlgorithm(self, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Open the report where QGIS has a window; browsers are opened from the window's thread alone."""
        if self._to_open is not None and iface is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._to_open)))
        return {}
