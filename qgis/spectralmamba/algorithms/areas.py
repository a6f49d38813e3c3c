"""`spectralmamba areas` in QGIS."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback

from ..algorithm import CommandAlgorithm
from ..tables import AREAS


class Areas(CommandAlgorithm):
    """Estimate class areas and accuracies."""

    table = AREAS

    def results(
        self, values: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Return the file."""
        return {"OUT": values["OUT"]}
