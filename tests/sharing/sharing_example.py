"""Classifiers of each kind that is exported, of a scene with bad bands, nodata and class ids with gaps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from spectralmamba import Classifier, Settings, fit, split_random

IDS = {1: 2, 2: 7, 3: 300}
_SMALL = {"model_options": {"width": 8, "states": 2}}
KINDS: dict[str, dict[str, Any]] = {
    "paper, pixelwise": {"preset": "paper", "patch": 1, "companion": "none", **_SMALL},
    "paper, support vectors beside": {"preset": "paper", "patch": 3, "companion": "support vectors", **_SMALL},
    "default, label propagation beside": {"patch": 7, **_SMALL},
    "label propagation": {"model": "label_propagation", "patch": 3},
    "support vectors": {"model": "support_vectors", "patch": 1},
}


@dataclass(frozen=True)
class Made:
    """A scene, its labels, and the folder for classifiers and models."""

    scene: xr.DataArray
    labels: xr.DataArray
    folder: Path

    def classifier(self, kind: str) -> Classifier:
        """Return the classifier of a kind, trained when first asked for."""
        file = self.folder / f"{kind}.safetensors"
        if not file.is_file():
            settings = replace(Settings(steps=6, batch_size=8, self_training_rounds=0), **KINDS[kind])
            split = split_random(self.labels, per_class=6, patch=settings.patch)
            fit(self.scene, self.labels, split, settings, device="cpu").save(file)
        return Classifier.load(file, "cpu")

    def onnx(self, kind: str) -> Path:
        """Return the ONNX model of a kind, exported when first asked for."""
        from spectralmamba.sharing import export_onnx

        file = self.folder / f"{kind}.onnx"
        if not file.is_file():
            export_onnx(self.classifier(kind), file)
        return file
