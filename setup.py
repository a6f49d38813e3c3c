"""Adds the optional CPU kernels to what pyproject.toml says.

Without a C compiler the installation goes on and all runs in torch alone.
"""

import sys

from setuptools import Extension, setup

FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
if sys.platform == "linux":
    # Compiled but not linked with OpenMP: its symbols are those of the runtime that torch has loaded, so that both
    # share one pool of threads.
    FLAGS += ["-fopenmp", "-g0"]

# The second is written with vector types that the compiler of Windows does not know.
OPERATIONS = ("selective_scan",) if sys.platform == "win32" else ("selective_scan", "dense")

setup(
    ext_modules=[
        Extension(
            f"spectralmamba.ops.{operation}._native",
            [f"src/spectralmamba/ops/{operation}/native.c"],
            extra_compile_args=["/O2"] if sys.platform == "win32" else FLAGS,
            extra_link_args=["-s"] if sys.platform == "linux" else [],  # symbols for debuggers are most of the file
            optional=True,
        )
        for operation in OPERATIONS
    ]
)
