"""Opening scenes and labels; simulating them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectralmamba.scenes.labels import open_labels
    from spectralmamba.scenes.opening import open_scene
    from spectralmamba.scenes.resampling import resample_scene
    from spectralmamba.scenes.scene import good_values, has_georeference, valid_mask
    from spectralmamba.scenes.simulate import simulate_scene

__all__ = [
    "good_values",
    "has_georeference",
    "open_labels",
    "open_scene",
    "resample_scene",
    "simulate_scene",
    "valid_mask",
]

_ROOMS = {
    "good_values": "scene",
    "has_georeference": "scene",
    "open_labels": "labels",
    "open_scene": "opening",
    "resample_scene": "resampling",
    "simulate_scene": "simulate",
    "valid_mask": "scene",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
