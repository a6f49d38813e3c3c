"""Tensors and one JSON document in a safetensors file or its bytes: what classifiers and checkpoints are kept in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from spectralmamba.files import atomic_output


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], key: str, document: Any) -> None:
    """Write tensors, and `document` as JSON under `key` of the file's header, atomically; raises as `atomic_output` does."""
    content = pack_tensors(tensors, key, document)
    with atomic_output(path) as temporary:
        temporary.write_bytes(content)


def pack_tensors(tensors: Mapping[str, Tensor], key: str, document: Any) -> bytes:
    """Return what `write_tensors` writes."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(contiguous, {key: json.dumps(document, allow_nan=False)})


def read_tensors(path: str | os.PathLike[str], key: str) -> tuple[str | None, dict[str, Tensor]]:
    """Return the text under `key` of the header, None if there is none, and all tensors.

    Raises:
        SafetensorError, OSError, ValueError: It is no whole safetensors file.
    """
    with safe_open(path, framework="pt") as opened:
        text = (opened.metadata() or {}).get(key)
        return text, {name: opened.get_tensor(name) for name in opened.keys()}


def unpack_tensors(content: bytes, key: str) -> tuple[str | None, dict[str, Tensor]]:
    """Return what `read_tensors` does of a file of these bytes.

    Raises:
        SafetensorError, ValueError: They are no whole safetensors file.
    """
    tensors = load(content)
    length = int.from_bytes(content[:8], "little")  # of the header, which is JSON
    return json.loads(content[8 : 8 + length]).get("__metadata__", {}).get(key), tensors


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under names that begin with `prefix`."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
