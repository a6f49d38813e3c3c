"""`spectralmamba run` in QGIS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputFile,
    QgsProcessingOutputHtml,
    QgsProcessingOutputRasterLayer,
)

from ..algorithm import TrainingAlgorithm, load_layer, load_layers
from ..tables import RUN


class Run(TrainingAlgorithm):
    """Train, map and report."""

    table = RUN
    outputs = (
        (QgsProcessingOutputRasterLayer, "MAP", "Map"),
        (QgsProcessingOutputFile, "CLASSIFIER", "Classifier"),
        (QgsProcessingOutputHtml, "REPORT", "Report"),
    )

    def results(
        self, values: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Return the folder and what is in it, and have the map loaded."""
        folder = Path(values["OUT"])
        map_file = folder / "map.tif"
        if values["LAYERS"]:
            load_layers(map_file, context)
        load_layer(map_file, "Map", "MAP", context)
        if values["POLYGONS"]:
            load_layer(folder / "map_polygons.gpkg", "Polygons", "POLYGONS", context)
        return {
            "OUT": str(folder),
            "MAP": str(map_file),
            "CLASSIFIER": str(folder / "model.safetensors"),
            "REPORT": str(folder / "report.html"),
        }
