"""Networks that SpectralMamba is compared with, one family a file. docs/baselines.md says how each differs from its authors'."""

from typing import Any

from spectralmamba.models.baselines import (
    cascade,
    cnn,
    hybridsn,
    mambahsi,
    mlp,
    recurrent,
    spectralformer,
    ssftt,
    vit,
)

AUTHOR_SETTINGS: dict[str, dict[str, Any]] = {
    # DeepHyperX, "nn": Adam.
    "mlp": {"learning_rate": 1e-4, "batch_size": 100, "weight_decay": 0.0},
    # DeepHyperX, "hu". Its rate is one of plain gradient descent.
    "cnn1d": {"batch_size": 100, "weight_decay": 0.0},
    # Hong et al. 2022, the defaults of their code.
    "cnn2d": {"learning_rate": 5e-4, "batch_size": 64, "weight_decay": 0.0},
    # DeepHyperX, "li". Its rate is one of gradient descent with momentum.
    "cnn3d": {"batch_size": 100, "weight_decay": 5e-4},
    # Roy et al. 2020 and their notebook: 100 epochs of 2 049 pixels of Indian Pines.
    "hybridsn": {"learning_rate": 1e-3, "batch_size": 256, "weight_decay": 0.0, "steps": 900},
    # DeepHyperX, "mou". Its rate is one of Adadelta.
    "gru": {"batch_size": 100, "weight_decay": 0.0},
    "lstm": {"batch_size": 100, "weight_decay": 0.0},
    # Hang et al. 2019, their code: 300 epochs of the 695 pixels of Indian Pines.
    "cas_rnn": {"learning_rate": 1e-3, "batch_size": 64, "weight_decay": 0.0, "steps": 3300},
    # Hong et al. 2022, their code: 1 400 and 300 epochs of the 695 pixels of Indian Pines, the latter patchwise.
    "vit": {"learning_rate": 5e-4, "batch_size": 64, "weight_decay": 0.0, "steps": 15400},
    "spectralformer": {"learning_rate": 5e-4, "batch_size": 64, "weight_decay": 5e-3, "steps": 3300},
    # Sun et al. 2022, their code: 100 epochs of a tenth of Indian Pines, 1 024 pixels.
    "ssftt": {"learning_rate": 1e-3, "batch_size": 64, "weight_decay": 0.0, "steps": 1600},
    # Li et al. 2024, their code: the whole image in each of 200 steps.
    "mamba_hsi": {"learning_rate": 3e-4, "weight_decay": 0.0, "steps": 200},
}
"""Settings that a model's authors give and `Settings` has, by the model's name.

Their weight decay is Adam's, added to the gradient; here it is AdamW's. Epochs are given as steps on the scene that is named, and
rates are theirs where they train with Adam.
"""

__all__ = [
    "AUTHOR_SETTINGS",
    "cascade",
    "cnn",
    "hybridsn",
    "mambahsi",
    "mlp",
    "recurrent",
    "spectralformer",
    "ssftt",
    "vit",
]
