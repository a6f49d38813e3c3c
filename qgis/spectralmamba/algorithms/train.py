"""`spectralmamba train` in QGIS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback, QgsProcessingOutputFile

from ..algorithm import TrainingAlgorithm
from ..tables import TRAIN


class Train(TrainingAlgorithm):
    """Train a classifier."""

    table = TRAIN
    outputs = ((QgsProcessingOutputFile, "CLASSIFIER", "Classifier"),)

    def results(
        self, values: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Return the folder and the classifier in it."""
        return {"OUT": values["OUT"], "CLASSIFIER": str(Path(values["OUT"]) / "model.safetensors")}
