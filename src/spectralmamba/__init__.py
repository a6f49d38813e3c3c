"""SpectralMamba: light state-space classification of hyperspectral scenes.

The names below are what a user needs; each is imported when it is first used, so that `import spectralmamba` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from spectralmamba.archive import map_scenes
    from spectralmamba.areas import estimate_areas
    from spectralmamba.assessment import assess
    from spectralmamba.catalog import dataset, list_datasets, load_dataset
    from spectralmamba.classifier import Classifier
    from spectralmamba.comparison import holm, mcnemar, paired_tests
    from spectralmamba.errors import SpectralMambaError
    from spectralmamba.estimator import SpectralMambaClassifier
    from spectralmamba.evaluation import Scores, evaluate
    from spectralmamba.mapping import map_scene
    from spectralmamba.models import create_model, list_models
    from spectralmamba.ranks import compare_ranks
    from spectralmamba.scenes import open_labels, open_scene, resample_scene, simulate_scene
    from spectralmamba.settings import Settings
    from spectralmamba.splits import Split, split_disjoint, split_masks, split_random
    from spectralmamba.suggestions import suggest
    from spectralmamba.training import fit, fit_seeds, recommend_settings

_HOMES = {
    "Classifier": "classifier",
    "Scores": "evaluation",
    "Settings": "settings",
    "SpectralMambaClassifier": "estimator",
    "SpectralMambaError": "errors",
    "Split": "splits",
    "assess": "assessment",
    "compare_ranks": "ranks",
    "create_model": "models",
    "estimate_areas": "areas",
    "evaluate": "evaluation",
    "fit": "training",
    "fit_seeds": "training",
    "holm": "comparison",
    "dataset": "catalog",
    "list_datasets": "catalog",
    "list_models": "models",
    "load_dataset": "catalog",
    "map_scene": "mapping",
    "map_scenes": "archive",
    "mcnemar": "comparison",
    "open_labels": "scenes",
    "open_scene": "scenes",
    "paired_tests": "comparison",
    "recommend_settings": "training",
    "resample_scene": "scenes",
    "simulate_scene": "scenes",
    "split_disjoint": "splits",
    "split_masks": "splits",
    "split_random": "splits",
    "suggest": "suggestions",
}

__all__ = [
    "Classifier",
    "Scores",
    "Settings",
    "SpectralMambaClassifier",
    "SpectralMambaError",
    "Split",
    "assess",
    "compare_ranks",
    "create_model",
    "dataset",
    "estimate_areas",
    "evaluate",
    "fit",
    "fit_seeds",
    "holm",
    "list_datasets",
    "list_models",
    "load_dataset",
    "map_scene",
    "map_scenes",
    "mcnemar",
    "open_labels",
    "open_scene",
    "paired_tests",
    "recommend_settings",
    "resample_scene",
    "simulate_scene",
    "split_disjoint",
    "split_masks",
    "split_random",
    "suggest",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
