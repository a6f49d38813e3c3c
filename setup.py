"""Adds the optional CPU kernel of the selective scan to what pyproject.toml says.

Without a C compiler the installation goes on and the scan runs in torch alone.
"""

import sys

from setuptools import Extension, setup

FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
if sys.platform == "linux":
    # Compiled but not linked with OpenMP: its symbols are those of the runtime that torch has loaded, so that both
    # share one pool of threads.
    FLAGS.append("-fopenmp")

setup(
    ext_modules=[
        Extension(
            "spectralmamba.ops.selective_scan._native",
            ["src/spectralmamba/ops/selective_scan/native.c"],
            extra_compile_args=["/O2"] if sys.platform == "win32" else FLAGS,
            optional=True,
        )
    ]
)
