"""`spectralmamba resample` in QGIS."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback

from ..algorithm import CommandAlgorithm
from ..tables import RESAMPLE


class Resample(CommandAlgorithm):
    """Resample a scene to other bands."""

    table = RESAMPLE

    def results(
        self, values: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Return the file."""
        return {"OUT": values["OUT"]}
