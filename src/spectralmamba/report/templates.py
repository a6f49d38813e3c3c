"""The templates' surroundings: escaping on, undefined names refused, filters for numbers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spectralmamba.report import words

HERE = Path(__file__).parent


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count=words.count,
        counted=words.counted,
        decimal=words.decimal,
        percent=words.percent,
        percent_range=words.percent_range,
        value=words.value,
    )
    return environment


def asset(name: str) -> Markup:
    """A style sheet or script that lies beside the templates, to be put into a page as it is."""
    return Markup((HERE / name).read_text(encoding="utf-8"))


def render(template: str, **content: Any) -> str:
    """Fill in a template; all text of `content` is escaped."""
    return _environment().get_template(template).render(css=asset("page.css"), **content)
