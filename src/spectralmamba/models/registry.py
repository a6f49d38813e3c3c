"""Models by name: `create_model("spectral_mamba", bands=145, classes=14, patch=3)`."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import nn

from spectralmamba.errors import ModelError

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

_builders: dict[str, Callable[..., nn.Module]] = {}
_presets: dict[str, tuple[str, ...]] = {}
_COMMON = ("bands", "classes", "patch", "preset")


def register_model(*, presets: Iterable[str]) -> Callable[[Builder], Builder]:
    """Make a builder available to `create_model` under its function's name.

    The builder takes the keyword arguments `bands`, `classes`, `patch` and `preset`, and whatever options the model has, and
    returns a module that maps `(B, L)` for patch 1, or `(B, L, P, P)`, to logits `(B, K)`.

    Args:
        presets: Names that its `preset` may have.
    """

    def register(builder: Builder) -> Builder:
        _builders[builder.__name__] = builder
        _presets[builder.__name__] = tuple(presets)
        return builder

    return register


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the models that match a shell pattern, in alphabetical order."""
    return sorted(fnmatch.filter(_builders, pattern))


def list_presets(name: str) -> tuple[str, ...]:
    """Return the presets of a model."""
    return _presets[name]


def list_options(name: str) -> tuple[str, ...]:
    """Return the options that a model's builder takes besides bands, classes, patch and preset."""
    return tuple(option for option in inspect.signature(_builders[name]).parameters if option not in _COMMON)


def create_model(name: str, *, bands: int, classes: int, patch: int = 1, **options: Any) -> nn.Module:
    """Build a model.

    Args:
        name: One of `list_models()`.
        bands: L, bands of a spectrum.
        classes: K, classes to tell apart.
        patch: P, odd width of the neighbourhood; 1 is pixelwise.
        **options: What the model's builder takes besides, such as `preset="paper"`.

    Returns:
        A module from `(B, L)` for `patch=1`, else `(B, L, P, P)`, to logits `(B, K)`.

    Raises:
        ModelError: Unknown name or option, or a shape that makes no sense.
    """
    if name not in _builders:
        raise ModelError(
            "unknown model", found=name, expected=" or ".join(list_models()), remedy=_nearest(name, _builders)
        )
    for what, value, least in (("bands", bands, 1), ("classes", classes, 2)):
        if value < least:
            raise ModelError(f"too few {what} for a model", found=value, expected=f"at least {least}")
    if patch < 1 or patch % 2 == 0:
        raise ModelError("the patch has no centre pixel", found=patch, expected="an odd width: 1, 3, 5, …")
    preset = options.get("preset", _presets[name][0])
    if preset not in _presets[name]:
        raise ModelError(f"{name} has no such preset", found=preset, expected=" or ".join(_presets[name]))
    builder = _builders[name]
    known = set(inspect.signature(builder).parameters) - {"bands", "classes", "patch"}
    for option in options:
        if option not in known:
            raise ModelError(
                f"{name} has no option {option!r}", expected=", ".join(sorted(known)), remedy=_nearest(option, known)
            )
    try:
        return builder(bands=bands, classes=classes, patch=patch, **options)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ModelError(f"{name} cannot be built with these options", found=f"{options}: {error}") from error


def _nearest(word: str, known: Any) -> str | None:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else None
