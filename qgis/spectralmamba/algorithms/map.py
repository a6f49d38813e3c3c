"""`spectralmamba map` in QGIS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback

from ..algorithm import CommandAlgorithm, load_layers, remove_unfinished, with_own_style
from ..tables import MAP


class Map(CommandAlgorithm):
    """Map a scene."""

    table = MAP

    def results(
        self, values: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Return the map and its polygons, and have them and the layers loaded."""
        if values["LAYERS"]:
            load_layers(Path(values["OUT"]), context)
        outputs = {name: values[name] for name in ("OUT", "POLYGONS") if values[name] is not None}
        for file in outputs.values():
            with_own_style(file, context)
        return outputs

    def clean_up(self, values: dict[str, Any], feedback: QgsProcessingFeedback) -> None:
        """Remove what is classified so far, unless the user wants to go on from it."""
        if not values["RESUME"]:
            remove_unfinished(Path(values["OUT"]))
