"""Every hyper-parameter in one frozen dataclass, read from and written to TOML."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from spectralmamba.errors import SettingsError
from spectralmamba.files import write_text


@dataclass(frozen=True)
class Settings:
    """What decides how a classifier is trained. Amplitudes of augmentations are in standard deviations of the normalised bands."""

    model: str = "spectral_mamba"
    """Name of the network, one of `list_models()`; or what decides without one, from the means of patches, "label_propagation",
    "support_vectors" or "logistic_regression"; or "auto", the best of "spectral_mamba" and these in blocks left out of the training
    labels."""
    preset: str = "default"
    """The network's preset: "default", or "paper" for the published size."""
    patch: int = 7
    """P, odd width of the neighbourhood that the network sees; 1 is pixelwise."""
    model_options: dict[str, Any] = field(default_factory=dict)
    """Further options of the network, such as `piece` or `orientation`."""
    seed: int = 0
    """Seed of initialisation, batches and augmentation."""

    normalisation: str = "whitening"
    """ "standard": bands standardised; "whitening": noise whitening on top, learned from differences of neighbours."""
    whitening_epsilon: float = 0.1
    """ε of the whitening (N + ε I)^(−1/2): how much of small differences is left alone."""
    statistics_from: str = "training side"
    """Pixels, never their labels, that normalisation is learned from: "training side" of the split, "scene", "training pixels"."""

    steps: int = 1000
    """Training steps."""
    batch_size: int = 64
    """Pixels a step."""
    learning_rate: float = 2e-3
    """Highest rate of the one-cycle schedule of AdamW."""
    weight_decay: float = 1e-2
    """Weight decay of AdamW."""
    label_smoothing: float = 0.05
    """Share of a label that is spread over all classes."""
    rare_classes: str = "as drawn"
    """What makes up for classes with few labels: "as drawn" nothing, "balanced batches", "balanced loss", "logit adjustment", or
    "prior correction" after training."""

    turns_and_flips: bool = True
    """Whether patches are turned by quarters and mirrored."""
    brightness: float = 0.05
    """Spectrum-wide factor 1 ± this."""
    offset: float = 0.1
    """Spectrum-wide offset ± this."""
    noise: float = 0.2
    """Standard deviation of noise added to every value."""
    neighbour_difference: float = 0.7
    """Factor of the spectral difference of a random pair of neighbouring pixels that is added to the whole patch."""
    class_difference: float = 0.0
    """Factor, drawn from ± this, of the difference of two training patches' means of one class that is added to the whole patch."""
    band_dropout: float = 0.1
    """Probability of a block of bands to be set to zero."""
    band_block: int = 6
    """Bands in such a block."""
    mixup: float = 0.0
    """α of mixup's Beta(α, α) (Zhang et al. 2018, arXiv 1710.09412); 0 is none."""

    self_training_rounds: int = 2
    """Rounds in which teachers label pixels of the training side that they are sure of, for the classifier to learn; 0 is none."""
    teacher_patch: int = 7
    """P of the widest teacher; label propagation stands beside it, and 3 × 3 if it is wider than 3."""
    pseudo_labels: int = 100
    """Training pixels that teachers fill each class up to."""
    pseudo_confidence: float = 0.6
    """Mean probability that teachers must give a pixel to label it."""
    companion: str = "label propagation"
    """What decides beside the network, from the means of patches: where labels are few "label propagation" or "support vectors",
    few or many "logistic regression"; or "none"."""

    set_coverage: float = 0.9
    """Share of pixels whose prediction set is to hold their class; 0 is no sets."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, _checked_type(entry.name, getattr(self, entry.name)))
        for patch in (self.patch, self.teacher_patch):
            if patch < 1 or patch % 2 == 0:
                raise SettingsError("the patch has no centre pixel", found=patch, expected="an odd width: 1, 3, 5, …")
        for name, allowed in _CHOICES.items():
            _check(name, getattr(self, name), getattr(self, name) in allowed, " or ".join(map(repr, allowed)))
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            expected = f"{least} to {most}" if most < math.inf else f"at least {least}"
            _check(name, value, least <= value <= most and value < math.inf, expected)
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "a number above 0")
        for name, value in self.model_options.items():
            plain = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
            _check(f"model_options.{name}", value, plain, "a text, a number, true or false")

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, file: str | os.PathLike[str] | None = None) -> Settings:
        """Make settings from a dictionary; what is left out keeps its default.

        Raises:
            SettingsError: An unknown key (the nearest one is suggested), a wrong type, a value out of range.
        """
        known = [entry.name for entry in fields(cls)]
        for key in values:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                remedy = f"Did you mean {close[0]!r}?" if close else f"Known are {', '.join(known)}."
                raise SettingsError(f"unknown setting {key!r}", file=file, remedy=remedy)
        try:
            return cls(**values)
        except SettingsError as error:
            raise SettingsError(error.problem, file=file, found=error.found, expected=error.expected) from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Settings:
        """Read settings from a TOML file.

        Raises:
            SettingsError: The file is missing or not TOML, or a setting is wrong.
        """
        try:
            content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError("cannot read the settings", file=path, found=error) from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError("this is not valid TOML", file=path, found=error) from error
        return cls.from_dict(content, file=path)

    def to_toml(self) -> str:
        """Return the settings as TOML text, every key included."""
        plain = {key: value for key, value in self.to_dict().items() if key != "model_options"}
        lines = [f"{key} = {_toml(value)}" for key, value in plain.items()]
        lines += [
            "",
            "[model_options]",
            *(f"{_toml_key(key)} = {_toml(value)}" for key, value in self.model_options.items()),
        ]
        return "\n".join(lines) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the settings to a TOML file, atomically."""
        write_text(path, self.to_toml())

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary that `from_dict` takes."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> Settings:
        """Return settings with some of them changed; raises as `from_dict` does."""
        return Settings.from_dict(self.to_dict() | changes)


_CHOICES = {
    "companion": ("label propagation", "support vectors", "logistic regression", "none"),
    "normalisation": ("standard", "whitening"),
    "rare_classes": ("as drawn", "balanced batches", "balanced loss", "logit adjustment", "prior correction"),
    "statistics_from": ("training side", "scene", "training pixels"),
}
_RANGES = {
    "seed": (0, 2**32 - 1),
    "steps": (1, math.inf),
    "batch_size": (1, math.inf),
    "weight_decay": (0, math.inf),
    "whitening_epsilon": (1e-9, 1e9),
    "label_smoothing": (0, 0.99),
    "brightness": (0, 1),
    "offset": (0, math.inf),
    "noise": (0, math.inf),
    "class_difference": (0, math.inf),
    "neighbour_difference": (0, math.inf),
    "band_dropout": (0, 0.99),
    "band_block": (1, math.inf),
    "mixup": (0, math.inf),
    "self_training_rounds": (0, 100),
    "set_coverage": (0, 0.999),
    "pseudo_labels": (1, math.inf),
    "pseudo_confidence": (0, 1),
}
_TYPES = get_type_hints(Settings)


def _check(name: str, value: object, fine: bool, expected: str) -> None:
    if not fine:
        raise SettingsError(f"the setting {name!r} is out of range", found=repr(value), expected=expected)


def _checked_type(name: str, value: Any) -> Any:
    wanted = dict if name == "model_options" else _TYPES[name]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise SettingsError(
            f"the setting {name!r} has the wrong type", found=repr(value), expected=f"a {wanted.__name__}"
        )
    return value


def _toml(value: Any) -> str:
    """Write a TOML value; JSON's strings, numbers and booleans are TOML's, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_key(key: str) -> str:
    return key if key.isascii() and key.isidentifier() else _toml(key)
