"""Speed, memory and errors of the selective scan, beside other implementations of it in the same run.

    python benchmarks/scan.py [--device auto] [--shapes 8192x24,64x24] [--mamba-ssm SOURCE] [--quick] [--write-docs]
    python benchmarks/scan.py --lines FILE --write-docs

Every machine, shape and dtype is a line of docs/results/scan.jsonl, which a new run replaces; --lines takes the lines of another
file, of another machine say, instead of measuring. --write-docs writes the part of docs/performance.md between the markers.
Needs torch and numpy only; triton (for the rate of exponentials), mambapy and mamba-ssm are left out where they are missing.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from performance_page import ROOT, commit, cpu_model, write_section
from spectralmamba.ops import selective_scan

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

LINES = ROOT / "docs" / "results" / "scan.jsonl"

# H100 data used for the limits, beside the ceilings measured in the run.
H100_EXPS = 3.6e12  # exponentials a second
H100_BANDWIDTH = 3e12  # bytes a second

ROUNDS = 7
ROUND_SECONDS = 0.02  # repeats of a quick call fill this
SLOW = 0.25  # seconds; from here on three rounds
VERY_SLOW = 2.0  # seconds; from here on the first call is the measurement, and no gradients are taken
LONGEST_LOOP = 4096  # tokens
LONGEST_COMPILED_LOOP = 37
MAMBAPY_BYTES = 60e9
GRADIENTS = ("u", "delta", "A", "B", "C", "D", "delta_bias")
MODES = {"forward": "Forward", "both": "Forward and backward"}
OURS = "spectralmamba"
LARGEST_GRAPH = 300_000  # tokens

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Batch, tokens, channels and states of a scan."""

    batch: int
    tokens: int
    channels: int
    states: int = 16

    @property
    def label(self) -> str:
        """As reported: 8192 × 24, E = 128."""
        return f"{self.batch} × {self.tokens}, E = {self.channels}"

    @property
    def elements(self) -> int:
        """Elements (batch, token, channel, state)."""
        return self.batch * self.tokens * self.channels * self.states

    def bytes_of(self, dtype: torch.dtype) -> int:
        """Bytes that a forward has to move: u, delta and y, B and C."""
        return self.batch * self.tokens * (3 * self.channels + 2 * self.states) * dtype.itemsize


GPU_SHAPES = [
    Shape(batch, tokens, 128)
    for batch, tokens in ((64, 24), (8192, 24), (8192, 36), (4096, 145), (256, 4096), (1, 65536))
]
CPU_SHAPES = [Shape(2048, 25, 64), Shape(64, 37, 64)]
ACCURACY = Shape(256, 24, 128)


def make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, seed: int = 0) -> tuple[Inputs, Tensor]:
    """Return inputs by name and a gradient of the output; steps are 0.001 … 0.1, A is near -1 … -N, weights are float32."""
    generator = torch.Generator(device).manual_seed(seed)
    normal = partial(torch.randn, generator=generator, device=device)
    uniform = partial(torch.rand, generator=generator, device=device)
    outer = shape.batch, shape.tokens, shape.channels
    inner = shape.batch, shape.tokens, shape.states
    bias = _before_softplus(_steps(uniform(shape.channels)))
    integers = torch.arange(1, shape.states + 1, device=device)
    inputs = {
        "u": normal(outer).to(dtype),
        "delta": (_before_softplus(_steps(uniform(outer))) - bias).to(dtype),
        "A": -integers * (1 + 0.1 * (uniform(shape.channels, shape.states) - 0.5)),
        "B": normal(inner).to(dtype),
        "C": normal(inner).to(dtype),
        "D": normal(shape.channels),
        "delta_bias": bias,
    }
    return inputs, normal(outer).to(dtype)


def _steps(uniform: Tensor) -> Tensor:
    return torch.exp(math.log(1e-3) + uniform * math.log(1e2))


def _before_softplus(step: Tensor) -> Tensor:
    return step + torch.log(-torch.expm1(-step))


# What is compared ----------------------------------------------------------------------------------------------------


@dataclass
class Contestant:
    """An implementation of the scan.

    Attributes:
        name: As reported.
        scan: The differentiable scan of inputs by name.
        obstacle: Says why a shape is not run on a device, None if it is.
        moved: Changes inputs to the implementation's own layout, outside of what is timed.
        moved_output: Changes a gradient of the output likewise.
        compiles: Whether the first call compiles something.
        spent: Is told the seconds that preparing took.
        graph: Whether its calls are captured in a CUDA graph, whose replays are timed: what the device takes by itself.
    """

    name: str
    scan: Callable[[Inputs], Tensor]
    obstacle: Callable[[Shape, torch.device], str | None] = lambda shape, device: None
    moved: Callable[[Inputs], Inputs] = lambda inputs: inputs
    moved_output: Callable[[Tensor], Tensor] = lambda output: output
    compiles: bool = False
    spent: Callable[[float], None] = lambda seconds: None
    graph: bool = False


def ours(inputs: Inputs, backend: Any = "auto") -> Tensor:
    """Scan by a backend of spectralmamba."""
    return selective_scan(**inputs, delta_softplus=True, backend=backend)


def mambapy(inputs: Inputs) -> Tensor:
    """Scan as mambapy's block does it: whole decays and inputs (B, T, E, N), then its parallel scan."""
    from mambapy.pscan import pscan

    u, delta, A, B, C, D, bias = (inputs[name] for name in GRADIENTS)
    delta = softplus(delta + bias.to(delta.dtype))
    decay = torch.exp(delta[..., None] * A)
    driven = delta[..., None] * B[:, :, None] * u[..., None]
    output = (pscan(decay, driven) @ C[..., None])[..., 0]
    return (output + D * u).to(u.dtype)


def _mambapy_obstacle(shape: Shape, device: torch.device) -> str | None:
    try:
        import mambapy.pscan  # noqa: F401
    except ImportError:
        return "not installed"
    return "needs too much memory" if shape.elements * 4 * 8 > MAMBAPY_BYTES else None


class CompiledLoop:
    """The eager loop through torch.compile, as long as compiling has not taken too much time."""

    def __init__(self, seconds: float) -> None:
        self.seconds_left = seconds
        self.compiled = torch.compile(partial(ours, backend="reference"), fullgraph=True, dynamic=False)

    def obstacle(self, shape: Shape, device: torch.device) -> str | None:
        if shape.tokens > LONGEST_COMPILED_LOOP:
            return "too many tokens to compile"
        return None if self.seconds_left > 0 else "the time for compiling is used up"

    def spend(self, seconds: float) -> None:
        self.seconds_left -= seconds


def contestants(mamba_ssm: Path | None, compile_seconds: float) -> list[Contestant]:
    """Return what is compared, ours first."""

    def loop_obstacle(shape: Shape, device: torch.device) -> str | None:
        return "too many tokens for a loop" if shape.tokens > LONGEST_LOOP else None

    loop = CompiledLoop(compile_seconds)
    found = [
        Contestant(OURS, ours, compiles=True),
        Contestant("spectralmamba, torch", partial(ours, backend="torch")),
        Contestant("eager loop", partial(ours, backend="reference"), loop_obstacle),
        Contestant("compiled loop", loop.compiled, loop.obstacle, compiles=True, spent=loop.spend),
        Contestant("mamba-ssm", _missing, lambda shape, device: "not built"),
        Contestant("mambapy", mambapy, _mambapy_obstacle),
    ]
    if mamba_ssm is not None:
        found[4] = _mamba_ssm(mamba_ssm)
    return [*found, _captured(found[0]), _captured(found[4])]


def _captured(contestant: Contestant) -> Contestant:
    def obstacle(shape: Shape, device: torch.device) -> str | None:
        if device.type != "cuda" or shape.batch * shape.tokens > LARGEST_GRAPH:
            return "graphs are for small scans on a GPU"
        return contestant.obstacle(shape, device)

    return replace(contestant, name=f"{contestant.name}, graph", obstacle=obstacle, graph=True)


def _mamba_ssm(source: Path) -> Contestant:
    """Return mamba-ssm's kernels, or why they are not there."""
    from mamba_ssm_kernels import load, to_layout

    try:
        kernels = load(source)
    except Exception as error:
        print(f"mamba-ssm: {error}", file=sys.stderr)
        reason = f"not built: {type(error).__name__}"
        return Contestant("mamba-ssm", _missing, lambda shape, device: reason)

    def scan(inputs: Inputs) -> Tensor:
        return kernels.scan(**inputs)

    return Contestant("mamba-ssm", scan, moved=to_layout, moved_output=lambda output: output.mT.contiguous())


def _missing(inputs: Inputs) -> Tensor:
    raise NotImplementedError


# Measuring -----------------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """A contestant with inputs in its layout, in one mode."""

    contestant: Contestant
    call: Callable[[], Any]
    device: torch.device
    repeats: int = 1
    rounds: int = ROUNDS
    extra_bytes: int | None = None
    seconds: list[float] = field(default_factory=list)
    kept: Any = None

    def timed(self, repeats: int) -> float:
        """Return the seconds of a call, by events on a GPU."""
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(repeats):
                self.call()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) / 1e3 / repeats
        begin = time.perf_counter()
        for _ in range(repeats):
            self.call()
        return (time.perf_counter() - begin) / repeats

    def prepare(self, quick: bool) -> None:
        """Warm up, measure the memory, and choose repeats and rounds."""
        seconds = self._timed_with_memory()
        if self.contestant.graph:
            self._capture()
        if self.contestant.compiles or seconds < VERY_SLOW:
            seconds = self._timed_with_memory()
        if seconds > VERY_SLOW:
            self.rounds, self.seconds = 0, [seconds]
            return
        rounds, target = (3, ROUND_SECONDS / 4) if quick else (ROUNDS, ROUND_SECONDS)
        self.rounds = min(rounds, 3) if seconds > SLOW else rounds
        seconds = seconds if seconds > ROUND_SECONDS else self.timed(2)
        self.repeats = max(1, min(1000, math.ceil(target / seconds)))

    def _capture(self) -> None:
        """Replace the call by the replay of its graph, in which no time of the host is left."""
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            self.call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self.kept = self.call()
        self.call = graph.replay

    def _timed_with_memory(self) -> float:
        if self.device.type != "cuda" or self.contestant.graph:  # a graph keeps memory of its own
            return self.timed(1)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = self.timed(1)
        self.extra_bytes = torch.cuda.max_memory_allocated() - before
        return seconds

    def run_round(self) -> None:
        """Measure a round; an untimed call first gets memory and caches into the state that this contestant keeps them in."""
        try:
            self.timed(1)
        except torch.OutOfMemoryError:  # what the others left in the allocator's cache is in the way
            _free(self.device)
            self.timed(1)
        self.seconds.append(self.timed(self.repeats))


def measure(
    shape: Shape, dtype: torch.dtype, device: torch.device, found: list[Contestant], quick: bool
) -> dict[str, dict[str, Any]]:
    """Return per contestant: per mode the median milliseconds, the ratio to ours and the extra bytes; or why it did not run."""
    inputs, grad = make_inputs(shape, dtype, device)
    results: dict[str, dict[str, Any]] = {contestant.name: {} for contestant in found}
    torch.compiler.reset()
    for mode in MODES:
        trials = []
        for contestant in found:
            result = results[contestant.name]
            result.setdefault("not_run", contestant.obstacle(shape, device))
            if result["not_run"] is not None:
                continue
            before = time.perf_counter()
            trial = Trial(contestant, _call(contestant, inputs, grad, mode), device)
            try:
                trial.prepare(quick)
            except Exception as error:
                if contestant.name == OURS:
                    raise
                memory = isinstance(error, torch.OutOfMemoryError)
                result["not_run"] = "out of memory" if memory else f"{type(error).__name__}: {str(error)[:200]}"
            contestant.spent(time.perf_counter() - before)
            if result["not_run"] is not None:
                del trial
                _free(device)
                continue
            if trial.rounds == 0 and mode == "forward":
                result["not_run"] = "the forward is too slow"
            trials.append(trial)
        for number in range(ROUNDS):
            turn = number % len(trials)
            for trial in trials[turn:] + trials[:turn]:
                if number < trial.rounds:
                    trial.run_round()
        for trial in trials:
            results[trial.contestant.name][mode] = _summary(trial, trials[0])
        del trials
        _free(device)
    return results


def _call(contestant: Contestant, inputs: Inputs, grad: Tensor, mode: str) -> Callable[[], Any]:
    own = contestant.moved(inputs)
    if mode == "forward":

        def forward() -> Tensor:
            with torch.no_grad():
                return contestant.scan(own)

        return forward
    own = {name: tensor.detach().requires_grad_() for name, tensor in own.items()}
    leaves, own_grad = [own[name] for name in GRADIENTS], contestant.moved_output(grad)
    return lambda: torch.autograd.grad(contestant.scan(own), leaves, own_grad)


def _summary(trial: Trial, base: Trial) -> dict[str, Any]:
    pairs = zip(trial.seconds, base.seconds, strict=False)
    ratios = [mine / other for mine, other in pairs] if trial.rounds else []
    if not ratios:
        ratios = [trial.seconds[0] / statistics.median(base.seconds)]
    return {
        "ms": _significant(statistics.median(trial.seconds) * 1e3),
        "ratio": [_significant(value) for value in (statistics.median(ratios), min(ratios), max(ratios))],
        "rounds": len(trial.seconds),
        "repeats": trial.repeats,
        "extra_bytes": trial.extra_bytes,
    }


def _significant(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def relative_errors(scan: Callable[[Inputs], Tensor], inputs: Inputs, grad: Tensor) -> dict[str, float]:
    """Return the errors of the output and of each gradient, norm by norm, against the definition in float64."""
    computed = _values_and_gradients(scan, inputs, grad)
    exact_inputs = {name: tensor.double() for name, tensor in inputs.items()}
    exact = _values_and_gradients(partial(ours, backend="reference"), exact_inputs, grad.double())
    return {
        name: _significant(float((computed[name].double() - exact[name]).norm() / exact[name].norm()), 3)
        for name in exact
    }


def _values_and_gradients(scan: Callable[[Inputs], Tensor], inputs: Inputs, grad: Tensor) -> dict[str, Tensor]:
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in inputs.items()}
    output = scan(leaves)
    gradients = torch.autograd.grad(output, [leaves[name] for name in GRADIENTS], grad)
    return {"y": output.detach(), **dict(zip(GRADIENTS, gradients, strict=True))}


def measure_errors(dtype: torch.dtype, device: torch.device, found: list[Contestant]) -> dict[str, dict[str, float]]:
    """Return the errors of those that run, by name."""
    inputs, grad = make_inputs(ACCURACY, dtype, device, seed=1)
    errors = {}
    for contestant in found:
        same = contestant.name == "compiled loop" or contestant.graph  # as another contestant
        if same or contestant.obstacle(ACCURACY, device) is not None:
            continue

        def scan(leaves: Inputs, contestant: Contestant = contestant) -> Tensor:
            output = contestant.scan(contestant.moved(leaves))
            return output.mT if contestant.name == "mamba-ssm" else output

        try:
            errors[contestant.name] = relative_errors(scan, inputs, grad)
        except Exception as error:
            if contestant.name == OURS:
                raise
            print(f"{contestant.name}: {error}", file=sys.stderr)
    return errors


# Ceilings of a GPU ---------------------------------------------------------------------------------------------------


if triton is not None:

    @triton.jit
    def _exponentials(pointer, loops, block: tl.constexpr):  # noqa: ANN001, ANN202
        """Take exponentials of exponentials in registers, eight loops' worth a turn; only the last are written."""
        offsets = tl.program_id(0) * block + tl.arange(0, block)
        value = tl.load(pointer + offsets)
        for _ in range(loops):
            for _ in tl.static_range(8):
                value = tl.exp2(-value)
        tl.store(pointer + offsets, value)


def exponential_rate(device: torch.device) -> float | None:
    """Return the exponentials a second that a kernel which does nothing else reaches; None if it does not run."""
    if triton is None:
        return None
    block, loops = 1024, 512
    programs = 64 * torch.cuda.get_device_properties(device).multi_processor_count
    values = torch.rand(programs * block, device=device)
    try:
        seconds = _best(lambda: _exponentials[(programs,)](values, loops, block=block, num_warps=4), device)
    except Exception as error:
        print(f"rate of exponentials: {error}", file=sys.stderr)
        return None
    return values.numel() * loops * 8 / seconds


def bandwidth(device: torch.device) -> float:
    """Return the bytes a second of a large copy on the device, read and written."""
    source = torch.rand(1 << 29, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * source.itemsize / _best(lambda: target.copy_(source), device)


def _best(call: Callable[[], Any], device: torch.device) -> float:
    """Return the shortest time of a call of ten rounds: a ceiling is what can be reached."""
    trial = Trial(Contestant("ceiling", _missing), call, device)
    trial.timed(3)
    return min(trial.timed(5) for _ in range(10))


def limits(shape: Shape, dtype: torch.dtype, forward_ms: float, exps: float | None, bytes_: float) -> dict[str, Any]:
    """Return the milliseconds that exponentials and memory need, and the share of the larger that the forward reaches."""
    memory = shape.bytes_of(dtype) / bytes_ * 1e3
    exponentials = None if exps is None else shape.elements / exps * 1e3
    share = max(memory, exponentials or 0.0) / forward_ms
    return {
        "exponentials_ms": None if exponentials is None else _significant(exponentials),
        "memory_ms": _significant(memory),
        "share": _significant(share, 3),
    }


# Lines and pages -----------------------------------------------------------------------------------------------------


@cache
def where(device: torch.device) -> dict[str, str]:
    """Say what computes: date, commit, machine, versions."""
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        machine = f"{cpu_model()}, {torch.get_num_threads()} threads"
    return {
        "machine": machine,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "torch": torch.__version__,
        "triton": "none" if triton is None else triton.__version__,
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, none if it is missing."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def put_lines(path: Path, new: list[dict[str, Any]]) -> None:
    """Write lines to a file in place of those of the same machine, kind, shape and dtype."""

    def key(line: dict[str, Any]) -> tuple[str, ...]:
        return line["machine"], line["kind"], str(line["shape"]), line["dtype"]

    lines = {key(line): line for line in (*read_lines(path), *new)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines.values()), encoding="utf-8")


def _section(lines: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Selective scan"
    yield (
        "Written by `python benchmarks/scan.py --write-docs` from `docs/results/scan.jsonl`. All implementations of a row ran "
        "in one process on the same random inputs, round by round in turn. Times are medians over the rounds, in ms for a "
        "call; in brackets the ratio to ours of the same round: median, and the lowest to the highest (none after a single "
        f"round, which a call of more than {VERY_SLOW:g} s gets). N = 16 states, step softplus(Δ + bias), with D and without a "
        "gate; A, D and the bias are float32, everything else has the dtype of the row. The backward gives the gradients of u, "
        "Δ, A, B, C, D and the bias. “spectralmamba” is the backend that `auto` takes, “eager loop” the definition, "
        "“compiled loop” the same through `torch.compile`. mamba-ssm gets its inputs in its own layout; turning them is not "
        "timed. flash-linear-attention has no such operator: its gates decay a state alike for all channels, here each channel "
        "and state has a decay of its own."
    )
    for machine in dict.fromkeys(line["machine"] for line in lines):
        of_machine = [line for line in lines if line["machine"] == machine]
        yield f"### {machine}"
        yield _provenance(of_machine)
        speed = _sorted([line for line in of_machine if line["kind"] == "speed"])
        if speed:
            for mode, title in MODES.items():
                yield f"{title}:"
                yield _table(speed, lambda result, mode=mode: _time_cell(result, mode))
            if any(result.get("both", {}).get("extra_bytes") for result in speed[0]["results"].values()):
                yield "Peak memory beyond the inputs, results included, MiB, forward / forward and backward:"
                yield _table(speed, _memory_cell)
            if any(line.get("limits") for line in speed):
                yield from _limits(speed)
            reasons = _reasons(speed)
            if reasons:
                yield "Not run: " + reasons
        accuracy = [line for line in of_machine if line["kind"] == "accuracy"]
        if accuracy:
            yield (
                f"Errors against the float64 definition, as the ratio of norms, {ACCURACY.label}, inputs rounded to the dtype "
                "before:"
            )
            yield _error_table(accuracy)


def _provenance(lines: list[dict[str, Any]]) -> str:
    names = "date", "commit", "torch", "triton"
    seen = sorted({tuple(line[name] for name in names) for line in lines})
    return "\n".join(
        f"- {date}, commit {commit_}, torch {torch_}, triton {triton_}" for date, commit_, torch_, triton_ in seen
    )


def _shape(line: dict[str, Any]) -> Shape:
    return Shape(*line["shape"])


def _sorted(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    order = {shape: number for number, shape in enumerate((*GPU_SHAPES, *CPU_SHAPES))}
    return sorted(lines, key=lambda line: (line["dtype"] != "float32", order.get(_shape(line), len(order))))


def _table(lines: list[dict[str, Any]], cell: Callable[[dict[str, Any]], str]) -> str:
    names = list(dict.fromkeys(name for line in lines for name in line["results"]))
    rows = [f"| B × T | dtype | {' | '.join(names)} |", "| --- " * (len(names) + 2) + "|"]
    for line in lines:
        cells = [cell(line["results"].get(name, {})) for name in names]
        rows.append(f"| {_shape(line).label} | {line['dtype']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _time_cell(result: dict[str, Any], mode: str) -> str:
    if mode not in result:
        return "—"
    found = result[mode]
    ratio, low, high = found["ratio"]
    time_ = _number(found["ms"])
    if ratio == low == high == 1:
        return time_
    spread = f", {_number(low)}–{_number(high)}" if found["rounds"] > 1 else ""
    return f"{time_} ({_number(ratio)}×{spread})"


def _memory_cell(result: dict[str, Any]) -> str:
    found = [result.get(mode, {}).get("extra_bytes") for mode in MODES]
    if found == [None, None]:
        return "—"
    return " / ".join("—" if bytes_ is None else _number(bytes_ / 2**20) for bytes_ in found)


def _number(value: float) -> str:
    """Return three significant digits without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _limits(lines: list[dict[str, Any]]) -> Iterator[str]:
    ceilings = lines[0]["ceilings"]
    exps = ceilings["exponentials"]
    yield (
        "Limits of a forward: one exponential per batch, token, channel and state, and reading u, Δ, B and C and writing y once. "
        f"Measured in the run: {'—' if exps is None else f'{exps:.3g}'} exponentials/s and {ceilings['bandwidth']:.3g} bytes/s; "
        f"H100 data used for the limits beside them: {H100_EXPS:.3g} and {H100_BANDWIDTH:.3g}. The share is the larger limit "
        "over the measured time of ours, recorded in a graph where there is one:"
    )
    head = "| B × T | dtype | forward, ms | exponentials, ms | memory, ms | share of the limit | share by H100 data |"
    rows = [head, "| --- " * 7 + "|"]
    for line in lines:
        if not line.get("limits"):
            continue
        measured, data = line["limits"]["measured"], line["limits"]["h100_data"]
        recorded = line["results"].get(f"{OURS}, graph", {}).get("forward", {}).get("ms")
        times = (recorded or line["results"][OURS]["forward"]["ms"], measured["exponentials_ms"], measured["memory_ms"])
        cells = ["—" if value is None else _number(value) for value in times]
        shares = [f"{100 * found['share']:.0f} %" for found in (measured, data)]
        rows.append(f"| {' | '.join([_shape(line).label, line['dtype'], *cells, *shares])} |")
    yield "\n".join(rows)


def _reasons(lines: list[dict[str, Any]]) -> str:
    reasons: dict[str, list[str]] = {}
    for line in lines:
        for name, result in line["results"].items():
            if result.get("not_run"):
                rows = reasons.setdefault(f"{name}, {' '.join(result['not_run'].split())}", [])
                rows.append(f"{_shape(line).label} {line['dtype']}")
    return "; ".join(
        f"{reason} ({'everywhere' if len(rows) == len(lines) else ', '.join(rows)})" for reason, rows in reasons.items()
    )


def _error_table(lines: list[dict[str, Any]]) -> str:
    columns = ["y", *GRADIENTS]
    heads = ["y", *(f"∂{name}" for name in ("u", "Δ", "A", "B", "C", "D", "bias"))]
    rows = [f"| implementation | dtype | {' | '.join(heads)} |", "| --- " * (len(heads) + 2) + "|"]
    for line in sorted(lines, key=lambda line: line["dtype"] != "float32"):
        for name, errors in line["results"].items():
            rows.append(f"| {name} | {line['dtype']} | {' | '.join(f'{errors[column]:.1e}' for column in columns)} |")
    return "\n".join(rows)


def _print_line(line: dict[str, Any]) -> None:
    print(f"\n{line['machine']}, {_shape(line).label}, {line['dtype']}")
    for name, result in line["results"].items():
        if line["kind"] == "accuracy":
            print(f"  {name:22}" + "  ".join(f"{key} {error:.1e}" for key, error in result.items()))
        else:
            cells = [f"{MODES[mode].lower()} {_time_cell(result, mode)}" for mode in MODES]
            missing = f"  not run: {result['not_run']}" if result.get("not_run") else ""
            print(f"  {name:22}" + "  ".join(cells) + f"  memory, MiB {_memory_cell(result)}{missing}")
    if line.get("limits"):
        print(f"  limits {line['limits']}")
    sys.stdout.flush()


def run(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure everything that is asked for; yields lines."""
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(chosen if arguments.device == "auto" else arguments.device)
    cuda = device.type == "cuda"
    found = contestants(arguments.mamba_ssm, 0 if arguments.quick else arguments.compile_seconds)
    if not cuda and os.getloadavg()[0] > 0.5:
        print(f"the machine is not quiet: load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    ceilings = {"exponentials": exponential_rate(device), "bandwidth": bandwidth(device)} if cuda else None
    _free(device)
    wanted = [] if arguments.shapes is None else arguments.shapes.replace("×", "x").split(",")
    shapes = [
        shape
        for shape in (GPU_SHAPES if cuda else CPU_SHAPES)
        if (not wanted or f"{shape.batch}x{shape.tokens}" in wanted)
        and not (arguments.quick and shape.batch * shape.tokens > 200_000)
    ]
    dtypes = (torch.float32, torch.bfloat16) if cuda else (torch.float32,)
    common = {**where(device), "ceilings": ceilings}
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        results: dict[str, Any] = measure_errors(dtype, device, found)
        yield {**common, "kind": "accuracy", "shape": _list(ACCURACY), "dtype": name, "results": results}
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        for shape in shapes:
            results = measure(shape, dtype, device, found, arguments.quick)
            line = {**common, "kind": "speed", "shape": _list(shape), "dtype": name, "results": results}
            if ceilings is not None:
                recorded = results[f"{OURS}, graph"].get("forward", {}).get("ms")
                forward = recorded or results[OURS]["forward"]["ms"]
                line["limits"] = {
                    "measured": limits(shape, dtype, forward, ceilings["exponentials"], ceilings["bandwidth"]),
                    "h100_data": limits(shape, dtype, forward, H100_EXPS, H100_BANDWIDTH),
                }
            yield line


def _list(shape: Shape) -> list[int]:
    return [shape.batch, shape.tokens, shape.channels, shape.states]


def main() -> None:
    """Measure or take lines, keep them, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--shapes", default=None, help="only these of B × T, separated by commas: 8192x24,64x24")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no large shapes, nothing compiled or kept")
    parser.add_argument("--mamba-ssm", type=Path, default=None, help="unpacked source distribution of mamba-ssm")
    parser.add_argument("--compile-seconds", type=float, default=60, help="compile no loop after these")
    parser.add_argument("--lines", type=Path, default=None, help="take the lines of this file instead of measuring")
    parser.add_argument("--out", type=Path, default=None, help="keeps the lines; default docs/results/scan.jsonl")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md from the lines kept")
    arguments = parser.parse_args()
    out = arguments.out or (None if arguments.quick and arguments.lines is None else LINES)
    begin = time.perf_counter()
    for line in read_lines(arguments.lines) if arguments.lines is not None else run(arguments):
        _print_line(line)
        if out is not None:
            put_lines(out, [line])
    print(f"\n{time.perf_counter() - begin:.0f} s", file=sys.stderr)
    if arguments.write_docs:
        write_section("scan", _section(read_lines(out or LINES)))


if __name__ == "__main__":
    main()
