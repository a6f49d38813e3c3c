"""Builds the page that maps scenes in a browser: one HTML file without anything to load, `dist/spectralmamba.html`."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
from pathlib import Path

from wat import assemble

SOURCES = Path(__file__).parent / "src"
OUTPUT = Path(__file__).parents[1] / "dist" / "spectralmamba.html"
_IMPORT = re.compile(r'^import \{ ([^}]*) \} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let) (\w+))", re.MULTILINE)


def build(output: Path = OUTPUT) -> Path:
    """Write the page.

    Args:
        output: The file to write; folders are made as needed.

    Raises:
        ValueError: A source has an import or export of another form, or would end the page's script.
    """
    kernels = base64.b64encode(assemble((SOURCES / "kernels.wat").read_text(encoding="utf-8"))).decode()
    script = "\n".join(
        (
            f'const KERNELS = Uint8Array.from(atob("{kernels}"), (letter) => letter.charCodeAt(0));',
            f"const WORKER = {_as_literal(bundle('worker'))};",
            bundle("page"),
        )
    )
    if "</script" in script:
        raise ValueError("a source holds the end of a script")
    parts = {"script": script, "style": (SOURCES / "style.css").read_text(encoding="utf-8")}
    parts |= {f"{name}-hash": _hash(text) for name, text in parts.items()}
    template = (SOURCES / "page.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{([\w-]+)\}\}", lambda found: parts[found[1]], template)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    return output


def bundle(name: str) -> str:
    """Return a module and all that it imports as one script: each becomes a function that returns what it exports."""
    return "\n".join(_wrapped(module) for module in _ordered(name, []))


def _ordered(name: str, before: list[str]) -> list[str]:
    """Return modules, each after those that it imports."""
    for _, other in _IMPORT.findall(_source(name)):
        if other not in before:
            before = _ordered(other, before)
    return [*before, name]


def _wrapped(name: str) -> str:
    text = _IMPORT.sub(r"const { \1 } = \2_module;", _source(name))
    exported = ", ".join(_EXPORT.findall(text))
    text = _EXPORT.sub("", text)
    if re.search(r"^(import|export)\b", text, re.MULTILINE):
        raise ValueError(f"{name}.js has an import or export that is not known here")
    return f"const {name}_module = (() => {{\n{text}return {{ {exported} }};\n}})();"


def _source(name: str) -> str:
    return (SOURCES / f"{name}.js").read_text(encoding="utf-8")


def _as_literal(text: str) -> str:
    return json.dumps(text).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUTPUT, help="The file to write.")
    print(build(parser.parse_args().out))
