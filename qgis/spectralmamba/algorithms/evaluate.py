"""`spectralmamba evaluate` in QGIS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback, QgsProcessingOutputNumber

from ..algorithm import CommandAlgorithm
from ..tables import EVALUATE

_SCORES = {
    "OVERALL_ACCURACY": "Overall accuracy",
    "AVERAGE_ACCURACY": "Average accuracy",
    "KAPPA": "Kappa",
}


class Evaluate(CommandAlgorithm):
    """Score a classifier."""

    table = EVALUATE
    outputs = tuple((QgsProcessingOutputNumber, name, title) for name, title in _SCORES.items())

    def results(
        self, values: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Return the file of the scores, and those that models of QGIS go on with."""
        scores = json.loads(Path(values["OUT"]).read_text(encoding="utf-8"))
        return {"OUT": values["OUT"]} | {name: scores[name.lower()] for name in _SCORES}
