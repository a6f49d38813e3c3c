"""Libraries in C beside the modules that call them, built by setup.py where there is a compiler."""

from __future__ import annotations

import ctypes
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch  # noqa: F401 - loads the OpenMP runtime that the libraries take their symbols from


def load(module: str, functions: dict[str, tuple[int, int]]) -> ctypes.CDLL | None:
    """Load the library beside a module and declare its functions, which return an int.

    Args:
        module: The module's file.
        functions: How many tensors each function takes, and how many sizes behind them.

    Returns:
        The library; None if it was not built, does not load, or `SPECTRALMAMBA_NATIVE=0` turns it off.
    """
    if os.environ.get("SPECTRALMAMBA_NATIVE") == "0":
        return None
    for suffix in EXTENSION_SUFFIXES:
        path = Path(module).with_name(f"_native{suffix}")
        if path.exists():
            try:
                library = ctypes.CDLL(str(path))
                declared = [(getattr(library, name), *counts) for name, counts in functions.items()]
            except (OSError, AttributeError):
                continue
            for function, tensors, sizes in declared:
                function.argtypes = [ctypes.c_void_p] * tensors + [ctypes.c_int64] * sizes
                function.restype = ctypes.c_int
            return library
    return None
