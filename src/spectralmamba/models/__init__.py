"""Networks that classify a spectrum or a patch of spectra."""

from spectralmamba.models.baselines import AUTHOR_SETTINGS
from spectralmamba.models.counting import ModelSize, model_size
from spectralmamba.models.registry import create_model, list_models, list_options, list_presets, register_model
from spectralmamba.models.spectral_mamba import SpectralMamba

__all__ = [
    "AUTHOR_SETTINGS",
    "ModelSize",
    "SpectralMamba",
    "create_model",
    "list_models",
    "list_options",
    "list_presets",
    "model_size",
    "register_model",
]
