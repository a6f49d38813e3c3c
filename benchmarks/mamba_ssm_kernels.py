"""The CUDA kernels of mamba-ssm's selective scan, built from its source distribution for comparison.

    python benchmarks/mamba_ssm_kernels.py SOURCE

SOURCE is the unpacked source distribution; only its csrc/selective_scan is read. Float32 and bfloat16 with real A are built,
for B and C that differ from token to token and without a gate: the kernels that run are those of mamba-ssm, unchanged, and
what is never called is left out, so that the build takes a minute. Everything generated goes to a build folder.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NVCC_FLAGS = [
    "-O3",
    "-U__CUDA_NO_HALF_OPERATORS__",
    "-U__CUDA_NO_HALF_CONVERSIONS__",
    "-U__CUDA_NO_BFLOAT16_OPERATORS__",
    "-U__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-U__CUDA_NO_BFLOAT162_OPERATORS__",
    "-U__CUDA_NO_BFLOAT162_CONVERSIONS__",
    "--expt-relaxed-constexpr",
    "--expt-extended-lambda",
    "--use_fast_math",
    "-lineinfo",
    "-gencode=arch=compute_90,code=sm_90",
]
# What is looked for in the launchers, and the value that is known when building.
KNOWN_CONDITIONS = {
    "BOOL_SWITCH(params.is_variable_B,": "FIXED_SWITCH(true,",
    "BOOL_SWITCH(params.is_variable_C,": "FIXED_SWITCH(true,",
    "BOOL_SWITCH(params.z_ptr != nullptr ,": "FIXED_SWITCH(false,",
}
FIXED_SWITCH = """#pragma once
#define FIXED_SWITCH(VALUE, NAME, ...) [&] { constexpr bool NAME = VALUE; return __VA_ARGS__(); }()
"""
PARAMETERS = {"fwd": "SSMParamsBase", "bwd": "SSMParamsBwd"}
BUILT = {"fp32": "float", "bf16": "at::BFloat16"}
LEFT_OUT = [
    ("at::Half", "float"),
    *((type_, "c10::complex<float>") for type_ in ("float", "at::Half", "at::BFloat16")),
]


def generate(source: Path, build: Path) -> list[Path]:
    """Write what is compiled into the build folder and return the source files; csrc/selective_scan gives the headers."""
    folder = source / "csrc" / "selective_scan"
    binding = folder / "selective_scan.cpp"
    assert binding.is_file(), f"{binding} is missing: {source} is not an unpacked mamba-ssm"
    build.mkdir(parents=True, exist_ok=True)
    _write(build / "fixed_switch.h", FIXED_SWITCH)
    sources = [binding]
    stubs = ["#include <c10/util/BFloat16.h>", "#include <c10/util/Exception.h>", "#include <c10/util/Half.h>"]
    stubs += ["#include <c10/util/complex.h>", "#include <cuda_runtime_api.h>", '#include "selective_scan.h"']
    for direction, parameters in PARAMETERS.items():
        function = f"selective_scan_{direction}_cuda"
        declared = f"{function}({parameters} &params, cudaStream_t stream);"
        assert declared in binding.read_text(encoding="utf-8"), f"{binding} does not declare {declared}"
        header = folder / f"selective_scan_{direction}_kernel.cuh"
        text = header.read_text(encoding="utf-8")
        for found, replacement in KNOWN_CONDITIONS.items():
            assert text.count(found) == 1, f"{header} has {text.count(found)} times “{found}”, expected once"
            text = text.replace(found, replacement)
        _write(build / f"{direction}.cuh", text)
        for name, type_ in BUILT.items():
            lines = ['#include "fixed_switch.h"', f'#include "{direction}.cuh"']
            lines.append(f"template void {function}<{type_}, float>({parameters} &, cudaStream_t);")
            sources.append(_write(build / f"{direction}_{name}.cu", "\n".join(lines) + "\n"))
        stubs.append(f"template <typename input_t, typename weight_t> void {function}({parameters} &, cudaStream_t);")
        for types in LEFT_OUT:
            signature = f"template <> void {function}<{', '.join(types)}>({parameters} &, cudaStream_t)"
            stubs.append(f'{signature} {{ TORCH_CHECK(false, "not built"); }}')
    sources.append(_write(build / "left_out.cpp", "\n".join(stubs) + "\n"))
    return sources


def _write(path: Path, text: str) -> Path:
    """Write a file unless it is there already, so that nothing is compiled twice."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def load(source: Path, build: Path | None = None, verbose: bool = False) -> Kernels:
    """Build the kernels, or take them as built before, and load them.

    Args:
        source: The unpacked source distribution.
        build: Folder to build in; one in the temporary folder if None.
        verbose: Whether to print the compiler's output.
    """
    from torch.utils.cpp_extension import load as load_extension

    source = source.resolve()
    build = Path(tempfile.gettempdir(), "mamba_ssm_kernels") if build is None else build.resolve()
    sources = generate(source, build)
    os.environ.setdefault("MAX_JOBS", "16")
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "9.0")
    extension = load_extension(
        name="mamba_ssm_selective_scan",
        sources=[str(path) for path in sources],
        extra_cflags=["-O3"],
        extra_cuda_cflags=NVCC_FLAGS,
        extra_include_paths=[str(build), str(source / "csrc" / "selective_scan")],
        build_directory=str(build),
        with_cuda=True,
        verbose=verbose,
    )
    return Kernels(extension.fwd, extension.bwd)


class Kernels:
    """The loaded kernels.

    All of it in mamba-ssm's layout: u and delta `(B, E, T)`, B and C `(B, 1, N, T)`, the last dimension contiguous; u, delta,
    B and C of one dtype, float32 or bfloat16; A, D and delta_bias float32. `to_layout` and `from_layout` go between the
    layouts.
    """

    def __init__(self, fwd: Callable[..., list[Tensor]], bwd: Callable[..., list[Tensor]]) -> None:
        self.fwd = fwd
        self.bwd = bwd

    def scan(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        delta_bias: Tensor,
        softplus: bool = True,
    ) -> Tensor:
        """Return the output `(B, E, T)`, differentiable."""
        return _Scan.apply(self, u, delta, A, B, C, D, delta_bias, softplus)  # pyright: ignore


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, *inputs: Any) -> Tensor:
        *tensors, softplus = inputs
        u, delta, A, B, C, D, delta_bias = tensors
        assert B.dim() == C.dim() == 4, "only B and C of (B, 1, N, T) are built"
        output, states = kernels.fwd(u, delta, A, B, C, D, None, delta_bias, softplus)
        ctx.kernels, ctx.softplus = kernels, softplus
        ctx.save_for_backward(*tensors, states)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        u, delta, A, B, C, D, delta_bias, states = ctx.saved_tensors
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()
        # Gate, output and its gradient are needed with a gate only; no output is computed again.
        results = ctx.kernels.bwd(u, delta, A, B, C, D, None, delta_bias, grad, states, None, None, ctx.softplus, False)
        return None, *results[:7], None


def to_layout(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return inputs in mamba-ssm's layout, given those of `spectralmamba.ops.selective_scan` by name."""
    moved = {name: inputs[name].mT.contiguous() for name in ("u", "delta", "B", "C")}
    return {**inputs, **moved, "B": moved["B"][:, None], "C": moved["C"][:, None]}


def from_layout(tensor: Tensor) -> Tensor:
    """Return an output, or a gradient of u, delta, B or C, in our layout."""
    return (tensor[:, 0] if tensor.dim() == 4 else tensor).mT


def main() -> None:
    """Build, then compare values and gradients with the definition."""
    from scan import Shape, make_inputs, relative_errors

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the unpacked source distribution")
    parser.add_argument("--build", type=Path, default=None, help="folder to build in")
    arguments = parser.parse_args()
    kernels = load(arguments.source, arguments.build, verbose=True)
    for dtype, bound in ((torch.float32, 1e-3), (torch.bfloat16, 2e-2)):
        for shape in (Shape(16, 24, 32, 16), Shape(2, 4100, 32, 16)):
            inputs, grad = make_inputs(shape, dtype, torch.device("cuda"))
            errors = relative_errors(mamba_ssm_call(kernels), inputs, grad)
            print(shape.label, dtype, ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
            assert max(errors.values()) < bound, errors
    print("OK")


def mamba_ssm_call(kernels: Kernels) -> Callable[[dict[str, Tensor]], Tensor]:
    """Return the scan as a function of inputs in our layout, differentiable, the layouts changed on the way."""

    def call(inputs: dict[str, Tensor]) -> Tensor:
        return from_layout(kernels.scan(**to_layout(inputs)))

    return call


if __name__ == "__main__":
    main()
