"""From values of parameters to the words of a command. Needs no QGIS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tables import Algorithm, Parameter


def check_values(algorithm: Algorithm, values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the values by themselves, or None: what several parameters may give is given once.

    Args:
        algorithm: What is to run.
        values: By name of the parameter; None and "" are not given.
    """
    for several in _by_option(algorithm).values():
        if len(several) == 1:  # QGIS asks for it
            continue
        given = [parameter for parameter in several if is_given(values.get(parameter.name))]
        if len(given) != 1:
            names = " or ".join(f"{parameter.label} ({parameter.name})" for parameter in several)
            return f"Give {names}." if not given else f"Give only one: {names}."
    return None


def command_words(algorithm: Algorithm, values: Mapping[str, Any]) -> list[str]:
    """Return the words of a command, without the program's name.

    Values that are the command's own defaults are left out, so that a newer command decides by itself.

    Args:
        algorithm: What is to run.
        values: By name of the parameter: a text, number or truth; for "texts" and "choices" a list. Paths are absolute.
    """
    words = [algorithm.command]
    for parameter in algorithm.parameters:
        value = values.get(parameter.name)
        if parameter.option is None or parameter.is_argument or not is_given(value) or value == parameter.default:
            continue
        if parameter.kind == "flag":
            words.append(parameter.option)
        else:
            several = value if parameter.kind in ("texts", "choices") else [value]
            words += [f"{parameter.option}={one}" for one in several]
    for several in _by_option(algorithm).values():
        words += [
            str(values[parameter.name])
            for parameter in several
            if parameter.is_argument and is_given(values.get(parameter.name))
        ]
    return [*words, *algorithm.always]


def split_texts(text: str) -> list[str]:
    """Return the parts of a text of several values, between semicolons or on lines of their own."""
    return [part.strip() for line in text.splitlines() for part in line.split(";") if part.strip()]


def is_given(value: Any) -> bool:
    """Tell whether a parameter has a value."""
    return value is not None and value is not False and value != "" and value != []


def _by_option(algorithm: Algorithm) -> dict[str, list[Parameter]]:
    """Return the parameters that may give each option or argument of the command, in the table's order."""
    found: dict[str, list[Parameter]] = {}
    for parameter in algorithm.parameters:
        if parameter.option is not None:
            found.setdefault(parameter.option, []).append(parameter)
    return found
