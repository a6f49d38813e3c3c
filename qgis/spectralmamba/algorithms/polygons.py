"""`spectralmamba polygons` in QGIS."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback

from ..algorithm import CommandAlgorithm, with_own_style
from ..tables import POLYGONS


class Polygons(CommandAlgorithm):
    """Map to polygons."""

    table = POLYGONS

    def results(
        self, values: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Return the file."""
        with_own_style(values["OUT"], context)
        return {"OUT": values["OUT"]}
