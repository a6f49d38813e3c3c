"""The selective scan as Triton kernels for short sequences.

A warp takes a block of channels of one sequence, T is a loop, the states stay in registers. Rows of u, Δ and y are read and
written along the channels, side by side, and the next token's rows are loaded while this one is computed. What bounds the
forward is either memory or the special-function units, which take one exponential for each of B·T·E·N. Tiles are (N, E), E
dense: Triton then gives a thread four neighbouring channels of a quarter of the states, which keeps both sums short, those
over states and those over channels.

The backward reads a sequence twice: forwards, keeping the state before every second token, then backwards, two tokens at a
time. Its programs go on from one sequence to the next, so that these states need room for the running programs alone, and
gradients of A, D and the bias are summed in a fixed order: no atomics, the same bits every time.

Long sequences are cut into chunks when there are too few of them to fill the device: every chunk is scanned from zero for
its last state, a small kernel carries these over the chunks, and then every chunk is scanned from its true first state.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # kernels then run on the CPU
_FORWARD_BLOCK, _BACKWARD_BLOCK = 64, 32  # channels of a program; measured on an H100, as what follows
_RUNNING = 8  # programs of the backward for each multiprocessor: what its registers allow
_WANTED = 32  # programs for each multiprocessor below which long sequences are cut
_SHORTEST_CHUNK, _LONGEST_CHUNK = 128, 256  # tokens; the longest in the backward, for the memory of states

# One compiled kernel serves all shapes: rows are read an element a thread, so that nothing is won by knowing divisors.
_STRIDES = [f"{name}_{part}" for name in ("grad_y", "u", "delta", "B", "C") for part in ("sequence", "token")]
_SIZES = [*_STRIDES, "tokens", "chunks", "chunk_tokens", "states", "group_size"]
_LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
_LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def softplus(x):
    """log(1 + eˣ) to a few units in the last place, also where it is small: log1p(w) = 2 artanh(w / (2 + w)), w = e^−|x|."""
    w = tl.exp2(-tl.abs(x) * _LOG2E)
    s = w / (2.0 + w)
    q = s * s
    series = 1 / 15 + q * (1 / 17)
    series = 1 / 13 + q * series
    series = 1 / 11 + q * series
    series = 1 / 9 + q * series
    series = 1 / 7 + q * series
    series = 1 / 5 + q * series
    series = 1 / 3 + q * series
    return tl.where(x > 0, x, 0.0) + 2.0 * s * (1.0 + q * series)


@triton.jit
def _load(pointer, stride, t, offsets, there, EVEN: tl.constexpr):
    """Load the row of token t as float32; `EVEN`: the block is filled, nothing needs masking."""
    row = pointer + t * stride + offsets
    if EVEN:
        value = tl.load(row)
    else:
        value = tl.load(row, mask=there, other=0.0)
    return value.to(tl.float32)


@triton.jit
def _step_size(raw, SOFTPLUS: tl.constexpr):
    """Return Δ."""
    if SOFTPLUS:
        raw = softplus(raw)
    return raw


@triton.jit
def _advance(h, u, delta, B, A):
    """Return the state after a token."""
    return tl.exp2(delta[None, :] * A) * h + (delta * u)[None, :] * B[:, None]


@triton.jit(do_not_specialize=_SIZES)
def _forward_kernel(
    u_ptr,
    delta_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,
    bias_ptr,
    start_ptr,
    y_ptr,
    last_ptr,
    steps_ptr,
    u_sequence,
    u_token,
    delta_sequence,
    delta_token,
    B_sequence,
    B_token,
    C_sequence,
    C_token,
    tokens,
    chunks,
    chunk_tokens,
    channels,
    states,
    group_size,
    SOFTPLUS: tl.constexpr,
    EVEN: tl.constexpr,
    HAS_D: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_START: tl.constexpr,
    WRITE_Y: tl.constexpr,
    WRITE_LAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Scan one chunk of a sequence: y, or the last state of a chunk and its sum of Δ."""
    item = tl.program_id(0).to(tl.int64)  # (sequence, chunk)
    sequence, chunk = item // chunks, (item % chunks).to(tl.int32)
    group = sequence // group_size
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    e_there, n_there = e < channels, n < states
    there = n_there[:, None] & e_there[None, :]
    u_ptr += sequence * u_sequence
    delta_ptr += sequence * delta_sequence
    B_ptr += sequence * B_sequence
    C_ptr += sequence * C_sequence
    if WRITE_Y:
        y_ptr += sequence * tokens * channels
    tile = n[:, None] * channels + e[None, :]
    A = tl.load(A_ptr + group * channels * states + tile, mask=there, other=0.0) * _LOG2E
    D = tl.zeros([BLOCK_E], tl.float32)
    bias = tl.zeros([BLOCK_E], tl.float32)
    if HAS_D:
        D = tl.load(D_ptr + group * channels + e, mask=e_there, other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + group * channels + e, mask=e_there, other=0.0)
    h = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    if HAS_START:
        h = tl.load(start_ptr + item * channels * states + tile, mask=there, other=0.0)
    first = chunk * chunk_tokens
    end = tl.minimum(first + chunk_tokens, tokens)
    steps = tl.zeros([BLOCK_E], tl.float32)
    # The next token is loaded while this one is computed.
    u_next = _load(u_ptr, u_token, first, e, e_there, EVEN)
    delta_next = _load(delta_ptr, delta_token, first, e, e_there, EVEN)
    B_next = _load(B_ptr, B_token, first, n, n_there, EVEN)
    C_next = B_next
    if WRITE_Y:
        C_next = _load(C_ptr, C_token, first, n, n_there, EVEN)
    for t in range(first, end):
        u, delta, B, C = u_next, delta_next, B_next, C_next
        following = tl.minimum(t + 1, end - 1)
        u_next = _load(u_ptr, u_token, following, e, e_there, EVEN)
        delta_next = _load(delta_ptr, delta_token, following, e, e_there, EVEN)
        B_next = _load(B_ptr, B_token, following, n, n_there, EVEN)
        if WRITE_Y:
            C_next = _load(C_ptr, C_token, following, n, n_there, EVEN)
        delta = _step_size(delta + bias, SOFTPLUS)
        h = _advance(h, u, delta, B, A)
        if WRITE_Y:
            y = tl.sum(h * C[:, None], 0) + D * u
            tl.store(y_ptr + t * channels + e, y.to(y_ptr.dtype.element_ty), mask=e_there)
        else:
            steps += delta
    if WRITE_LAST:
        tl.store(last_ptr + item * channels * states + tile, h, mask=there)
    if not WRITE_Y:
        tl.store(steps_ptr + item * channels + e, steps, mask=e_there)


@triton.jit(do_not_specialize=_SIZES)
def _reverse_kernel(
    grad_y_ptr,
    delta_ptr,
    A_ptr,
    C_ptr,
    bias_ptr,
    ends_ptr,
    grad_y_sequence,
    grad_y_token,
    delta_sequence,
    delta_token,
    C_sequence,
    C_token,
    tokens,
    chunks,
    chunk_tokens,
    channels,
    states,
    group_size,
    SOFTPLUS: tl.constexpr,
    EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Go backwards through one chunk for the gradient that it hands to the state before it, if none comes from behind."""
    item = tl.program_id(0).to(tl.int64)
    sequence, chunk = item // chunks, (item % chunks).to(tl.int32)
    group = sequence // group_size
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    e_there, n_there = e < channels, n < states
    there = n_there[:, None] & e_there[None, :]
    grad_y_ptr += sequence * grad_y_sequence
    delta_ptr += sequence * delta_sequence
    C_ptr += sequence * C_sequence
    tile = n[:, None] * channels + e[None, :]
    A = tl.load(A_ptr + group * channels * states + tile, mask=there, other=0.0) * _LOG2E
    bias = tl.zeros([BLOCK_E], tl.float32)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + group * channels + e, mask=e_there, other=0.0)
    first = chunk * chunk_tokens
    end = tl.minimum(first + chunk_tokens, tokens)
    g = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    for back in range(0, end - first):
        t = end - 1 - back
        grad_y = _load(grad_y_ptr, grad_y_token, t, e, e_there, EVEN)
        C = _load(C_ptr, C_token, t, n, n_there, EVEN)
        delta = _step_size(_load(delta_ptr, delta_token, t, e, e_there, EVEN) + bias, SOFTPLUS)
        g = tl.exp2(delta[None, :] * A) * (g + grad_y[None, :] * C[:, None])
    tl.store(ends_ptr + item * channels * states + tile, g, mask=there)


@triton.jit(do_not_specialize=["chunks", "states", "group_size"])
def _carry_kernel(
    ends_ptr,
    steps_ptr,
    A_ptr,
    carried_ptr,
    result_ptr,
    chunks,
    channels,
    states,
    group_size,
    HAS_CARRIED: tl.constexpr,
    REVERSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Turn what each chunk ends with into what each chunk starts with, in place; what is left over is the result.

    A program takes `BLOCK` of a sequence's E·N elements.
    """
    sequence = tl.program_id(0).to(tl.int64)
    group = sequence // group_size
    size = channels * states
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = place < size
    e = place % channels
    A = tl.load(A_ptr + group * size + place, mask=there, other=0.0) * _LOG2E
    h = tl.zeros([BLOCK], tl.float32)
    if HAS_CARRIED:
        h = tl.load(carried_ptr + sequence * size + place, mask=there, other=0.0)
    first = sequence * chunks
    at = first + (chunks - 1 if REVERSE else 0)
    end_next = tl.load(ends_ptr + at * size + place, mask=there, other=0.0)
    steps_next = tl.load(steps_ptr + at * channels + e, mask=there, other=0.0)
    for index in range(0, chunks):
        at = first + (chunks - 1 - index if REVERSE else index)
        following = at - 1 if REVERSE else at + 1
        more = place < tl.where(index + 1 < chunks, size, 0)
        end, steps = end_next, steps_next
        end_next = tl.load(ends_ptr + following * size + place, mask=more, other=0.0)
        steps_next = tl.load(steps_ptr + following * channels + e, mask=more, other=0.0)
        tl.store(ends_ptr + at * size + place, h, mask=there)
        h = tl.exp2(steps * A) * h + end
    tl.store(result_ptr + sequence * size + place, h, mask=there)


@triton.jit
def _go_back(g, grad_y, u, raw, delta, B, C, A, D, before, after, grad_A, SOFTPLUS: tl.constexpr):
    """Return what a token adds to every gradient, and the gradient of the state before it."""
    g += grad_y[None, :] * C[:, None]
    grad_C = tl.sum(grad_y[None, :] * after, 1)
    grad_B = tl.sum(g * (delta * u)[None, :], 1)
    driven = tl.sum(g * B[:, None], 0)
    g = g * tl.exp2(delta[None, :] * A)
    exponent = g * before
    grad_A += exponent * delta[None, :]
    grad_delta = tl.sum(exponent * A, 0) * _LN2 + driven * u
    if SOFTPLUS:
        grad_delta = grad_delta / (1.0 + tl.exp2(-raw * _LOG2E))
    return g, driven * delta + D * grad_y, grad_delta, grad_B, grad_C, grad_A


@triton.jit
def _load_pair(pointer, stride, row, other, offsets, there, EVEN: tl.constexpr):
    """Load the rows of two tokens."""
    return _load(pointer, stride, row, offsets, there, EVEN), _load(pointer, stride, other, offsets, there, EVEN)


@triton.jit
def _store_pair(pointer, stride, t, first, second, first_there, second_there):
    """Write the rows of tokens t and t + 1."""
    tl.store(pointer + t * stride, first.to(pointer.dtype.element_ty), mask=first_there)
    tl.store(pointer + (t + 1) * stride, second.to(pointer.dtype.element_ty), mask=second_there)


@triton.jit(do_not_specialize=[*_SIZES, "batch"])
def _backward_kernel(
    grad_y_ptr,
    u_ptr,
    delta_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,
    bias_ptr,
    start_ptr,
    end_ptr,
    grad_u_ptr,
    grad_delta_ptr,
    grad_BC_ptr,
    sums_ptr,
    grad_start_ptr,
    kept_ptr,
    grad_y_sequence,
    grad_y_token,
    u_sequence,
    u_token,
    delta_sequence,
    delta_token,
    B_sequence,
    B_token,
    C_sequence,
    C_token,
    batch,
    tokens,
    chunks,
    chunk_tokens,
    channels,
    states,
    group_size,
    SOFTPLUS: tl.constexpr,
    EVEN: tl.constexpr,
    HAS_D: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_START: tl.constexpr,
    HAS_END: tl.constexpr,
    WRITE_START: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Take chunks of one group in turn, for a block of channels, and write every gradient.

    Gradients of B and C `(2, blocks, B, T, N)` are parts over the blocks of channels; sums `(groups, programs, N + 2, E)`
    are parts of the gradients of A, D and the bias.
    """
    program, programs = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    block, blocks = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    group = tl.program_id(2).to(tl.int64)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    e_there, n_there = e < channels, n < states
    there = n_there[:, None] & e_there[None, :]
    tile = n[:, None] * channels + e[None, :]
    A = tl.load(A_ptr + group * channels * states + tile, mask=there, other=0.0) * _LOG2E
    D = tl.zeros([BLOCK_E], tl.float32)
    bias = tl.zeros([BLOCK_E], tl.float32)
    if HAS_D:
        D = tl.load(D_ptr + group * channels + e, mask=e_there, other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + group * channels + e, mask=e_there, other=0.0)
    grad_A = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    grad_D = tl.zeros([BLOCK_E], tl.float32)
    grad_bias = tl.zeros([BLOCK_E], tl.float32)
    size: tl.constexpr = BLOCK_N * BLOCK_E
    kept_ptr += ((group * blocks + block) * programs + program) * ((chunk_tokens + 1) // 2) * size
    own = n[:, None] * BLOCK_E + tl.arange(0, BLOCK_E)[None, :]
    for index in range(program, group_size * chunks, programs):
        item = group * group_size * chunks + index
        sequence, chunk = item // chunks, (item % chunks).to(tl.int32)
        first = chunk * chunk_tokens
        end = tl.minimum(first + chunk_tokens, tokens)
        grad_y = grad_y_ptr + sequence * grad_y_sequence
        u = u_ptr + sequence * u_sequence
        delta = delta_ptr + sequence * delta_sequence
        B = B_ptr + sequence * B_sequence
        C = C_ptr + sequence * C_sequence
        grad_u = grad_u_ptr + sequence * tokens * channels + e
        grad_delta = grad_delta_ptr + sequence * tokens * channels + e
        grad_B = grad_BC_ptr + (block * batch + sequence) * tokens * states + n
        grad_C = grad_BC_ptr + ((blocks + block) * batch + sequence) * tokens * states + n
        h = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
        g = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
        if HAS_START:
            h = tl.load(start_ptr + item * channels * states + tile, mask=there, other=0.0)
        if HAS_END:
            g = tl.load(end_ptr + item * channels * states + tile, mask=there, other=0.0)

        # Forwards; h becomes the state after the last token.
        u_next = _load(u, u_token, first, e, e_there, EVEN)
        raw_next = _load(delta, delta_token, first, e, e_there, EVEN)
        B_next = _load(B, B_token, first, n, n_there, EVEN)
        for t in range(first, end):
            if (t - first) % 2 == 0:
                tl.store(kept_ptr + (t - first) // 2 * size + own, h)
            u_t, raw_t, B_t = u_next, raw_next, B_next
            row = tl.minimum(t + 1, end - 1)
            u_next = _load(u, u_token, row, e, e_there, EVEN)
            raw_next = _load(delta, delta_token, row, e, e_there, EVEN)
            B_next = _load(B, B_token, row, n, n_there, EVEN)
            h = _advance(h, u_t, _step_size(raw_t + bias, SOFTPLUS), B_t, A)
        tl.debug_barrier()

        # Backwards, tokens 0 and 1 of a pair at a time; the very last 1 may lie beyond the end, and then changes nothing.
        pairs = (end - first + 1) // 2
        row = first + (pairs - 1) * 2
        other = tl.minimum(row + 1, end - 1)
        u0_next, u1_next = _load_pair(u, u_token, row, other, e, e_there, EVEN)
        raw0_next, raw1_next = _load_pair(delta, delta_token, row, other, e, e_there, EVEN)
        y0_next, y1_next = _load_pair(grad_y, grad_y_token, row, other, e, e_there, EVEN)
        B0_next, B1_next = _load_pair(B, B_token, row, other, n, n_there, EVEN)
        C0_next, C1_next = _load_pair(C, C_token, row, other, n, n_there, EVEN)
        before_next = tl.load(kept_ptr + (pairs - 1) * size + own)
        for back in range(0, pairs):
            pair = pairs - 1 - back
            t = first + pair * 2
            both = t + 1 < end
            before = before_next
            before_next = tl.load(kept_ptr + tl.maximum(pair - 1, 0) * size + own)
            u0, u1, B0, B1, C0, C1 = u0_next, u1_next, B0_next, B1_next, C0_next, C1_next
            raw0, raw1, y0, y1 = raw0_next + bias, raw1_next + bias, y0_next, tl.where(both, y1_next, 0.0)
            row = tl.maximum(t - 2, first)
            other = tl.minimum(row + 1, end - 1)
            u0_next, u1_next = _load_pair(u, u_token, row, other, e, e_there, EVEN)
            raw0_next, raw1_next = _load_pair(delta, delta_token, row, other, e, e_there, EVEN)
            y0_next, y1_next = _load_pair(grad_y, grad_y_token, row, other, e, e_there, EVEN)
            B0_next, B1_next = _load_pair(B, B_token, row, other, n, n_there, EVEN)
            C0_next, C1_next = _load_pair(C, C_token, row, other, n, n_there, EVEN)
            step0, step1 = _step_size(raw0, SOFTPLUS), tl.where(both, _step_size(raw1, SOFTPLUS), 0.0)
            between = _advance(before, u0, step0, B0, A)
            g, grad_u1, grad_raw1, grad_B1, grad_C1, grad_A = _go_back(
                g, y1, u1, raw1, step1, B1, C1, A, D, between, h, grad_A, SOFTPLUS
            )
            g, grad_u0, grad_raw0, grad_B0, grad_C0, grad_A = _go_back(
                g, y0, u0, raw0, step0, B0, C0, A, D, before, between, grad_A, SOFTPLUS
            )
            h = before
            grad_bias += grad_raw0 + tl.where(both, grad_raw1, 0.0)
            grad_D += y0 * u0 + y1 * u1
            e_second, n_second = e < tl.where(both, channels, 0), n < tl.where(both, states, 0)
            _store_pair(grad_u, channels, t, grad_u0, grad_u1, e_there, e_second)
            _store_pair(grad_delta, channels, t, grad_raw0, grad_raw1, e_there, e_second)
            _store_pair(grad_B, states, t, grad_B0, grad_B1, n_there, n_second)
            _store_pair(grad_C, states, t, grad_C0, grad_C1, n_there, n_second)
        if WRITE_START:
            tl.store(grad_start_ptr + sequence * channels * states + tile, g, mask=there)
        tl.debug_barrier()
    sums_ptr += (group * programs + program) * (states + 2) * channels
    tl.store(sums_ptr + tile, grad_A, mask=there)
    tl.store(sums_ptr + states * channels + e, grad_D, mask=e_there)
    tl.store(sums_ptr + (states + 1) * channels + e, grad_bias, mask=e_there)


def _ceil(dividend: int, divisor: int) -> int:
    """Divide and round up; triton.cdiv takes microseconds."""
    return -(-dividend // divisor)


@lru_cache
def _processors(device: torch.device) -> int:
    """Return how many multiprocessors a device has; the interpreter is given few, so that its programs loop, too."""
    return 1 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count


def _rows(tensor: Tensor) -> Tensor:
    """Return the tensor with its last dimension dense."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _states_first(state: Tensor | None) -> Tensor | None:
    """Return a state `(B, E, N)` as the kernels have it, `(B, N, E)`; what they gave out is not copied."""
    return None if state is None else state.mT.contiguous()


class _Launch:
    """What the kernels of a call have in common."""

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        delta_bias: Tensor | None,
        softplus: bool,
        block: int,
    ) -> None:
        self.u, self.delta, self.B, self.C = (_rows(tensor) for tensor in (u, delta, B, C))
        self.A, self.bias = A.mT.contiguous(), None if delta_bias is None else delta_bias.contiguous()  # A (G, N, E)
        self.batch, self.tokens, self.channels = u.shape
        self.groups, _, self.states = A.shape
        self.group_size = self.batch // self.groups
        self.processors = _processors(u.device)
        waste = -self.channels % block
        self.block = block if waste * 8 <= self.channels and self.batch > self.processors else 32
        self.blocks = _ceil(self.channels, self.block)
        block_n = 1 << (self.states - 1).bit_length()
        self.options: dict[str, Any] = {
            "SOFTPLUS": softplus,
            "HAS_BIAS": delta_bias is not None,
            "EVEN": self.channels % self.block == 0 and block_n == self.states,
            "BLOCK_E": self.block,
            "BLOCK_N": block_n,
            "num_warps": 1,
        }

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.u.device)

    def chunks(self, longest: int) -> tuple[int, int]:
        """Return how many chunks a sequence is cut into, and their tokens."""
        wanted = _ceil(_WANTED * self.processors, self.batch * self.blocks)
        size = min(max(_SHORTEST_CHUNK, _ceil(self.tokens, wanted)), longest, self.tokens)
        return _ceil(self.tokens, size), size

    def scan(
        self,
        D: Tensor | None,
        start: Tensor | None,
        y: Tensor | None,
        last: Tensor | None,
        steps: Tensor | None,
        chunks: int,
        chunk_tokens: int,
    ) -> None:
        """Scan every chunk from its own start."""
        u, delta, B, C = self.u, self.delta, self.B, self.C
        kernel: Any = _forward_kernel
        kernel[(self.batch * chunks, self.blocks)](
            u, delta, self.A, B, C, D, self.bias, start, y, last, steps,
            u.stride(0), u.stride(1), delta.stride(0), delta.stride(1), B.stride(0), B.stride(1), C.stride(0), C.stride(1),
            self.tokens, chunks, chunk_tokens, self.channels, self.states, self.group_size,
            HAS_D=D is not None, HAS_START=start is not None, WRITE_Y=y is not None, WRITE_LAST=last is not None,
            **self.options,
        )  # fmt: skip

    def carry(self, ends: Tensor, steps: Tensor, carried: Tensor | None, reverse: bool) -> Tensor:
        """Make the chunks' ends `(B, chunks, N, E)` their starts; return what the last one ends with, `(B, N, E)`."""
        result = self.empty(self.batch, self.states, self.channels)
        kernel: Any = _carry_kernel
        kernel[(self.batch, _ceil(self.channels * self.states, 128))](
            ends, steps, self.A, carried, result, ends.shape[1], self.channels, self.states, self.group_size,
            HAS_CARRIED=carried is not None, REVERSE=reverse, BLOCK=128, num_warps=4,
        )  # fmt: skip
        return result

    def starts(self, state: Tensor | None, chunks: int, chunk_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the state before each chunk `(B, chunks, N, E)`, its sum of Δ `(B, chunks, E)` and the last state."""
        ends = self.empty(self.batch, chunks, self.states, self.channels)
        steps = self.empty(self.batch, chunks, self.channels)
        self.scan(None, None, None, ends, steps, chunks, chunk_tokens)
        return ends, steps, self.carry(ends, steps, state, reverse=False)

    def reverse(self, grad_y: Tensor, chunks: int, chunk_tokens: int) -> Tensor:
        """Return the gradient that each chunk by itself hands to the state before it, `(B, chunks, N, E)`."""
        ends = self.empty(self.batch, chunks, self.states, self.channels)
        delta, C = self.delta, self.C
        kernel: Any = _reverse_kernel
        kernel[(self.batch * chunks, self.blocks)](
            grad_y, delta, self.A, C, self.bias, ends,
            grad_y.stride(0), grad_y.stride(1), delta.stride(0), delta.stride(1), C.stride(0), C.stride(1),
            self.tokens, chunks, chunk_tokens, self.channels, self.states, self.group_size,
            **self.options,
        )  # fmt: skip
        return ends


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    final_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return y and, if asked for, the last state; arguments as `operator.scan` has them."""
    launch = _Launch(u, delta, A, B, C, delta_bias, delta_softplus, _FORWARD_BLOCK)
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    D, state = None if D is None else D.contiguous(), _states_first(initial_state)
    chunks, chunk_tokens = launch.chunks(longest=launch.tokens)
    if chunks == 1:
        last = launch.empty(launch.batch, launch.states, launch.channels) if final_state else None
        launch.scan(D, state, y, last, None, 1, chunk_tokens)
    else:
        start, _, last = launch.starts(state, chunks, chunk_tokens)
        launch.scan(D, start, y, None, None, chunks, chunk_tokens)
    return y, last.mT if final_state and last is not None else None


def backward(
    grad_y: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, ...]:
    """Return the gradients of u, Δ, A, B, C, D, the bias and the initial state; arguments as `operator.scan` has them."""
    launch = _Launch(u, delta, A, B, C, delta_bias, delta_softplus, _BACKWARD_BLOCK)
    u, delta, B, C, grad_y = launch.u, launch.delta, launch.B, launch.C, _rows(grad_y)
    chunks, chunk_tokens = launch.chunks(longest=_LONGEST_CHUNK)
    start, end, has_state = _states_first(initial_state), _states_first(grad_last), initial_state is not None
    if chunks == 1:
        grad_start = launch.empty(launch.batch if has_state else 0, launch.states, launch.channels)
    else:
        start, steps, _ = launch.starts(start, chunks, chunk_tokens)
        carried, end = end, launch.reverse(grad_y, chunks, chunk_tokens)
        grad_start = launch.carry(end, steps, carried, reverse=True)
    running = _ceil(_RUNNING * launch.processors, launch.blocks * launch.groups)
    programs = min(launch.group_size * chunks, running)
    grad_u, grad_delta = (torch.empty(tensor.shape, dtype=tensor.dtype, device=u.device) for tensor in (u, delta))
    grad_BC = launch.empty(2, launch.blocks, launch.batch, launch.tokens, launch.states)
    sums = launch.empty(launch.groups, programs, launch.states + 2, launch.channels)
    block_n = launch.options["BLOCK_N"]
    kept = launch.empty(launch.groups * launch.blocks * programs, (chunk_tokens + 1) // 2, block_n, launch.block)
    kernel: Any = _backward_kernel
    kernel[(programs, launch.blocks, launch.groups)](
        grad_y, u, delta, launch.A, B, C, None if D is None else D.contiguous(), launch.bias, start, end,
        grad_u, grad_delta, grad_BC, sums, grad_start, kept,
        grad_y.stride(0), grad_y.stride(1), u.stride(0), u.stride(1), delta.stride(0), delta.stride(1),
        B.stride(0), B.stride(1), C.stride(0), C.stride(1),
        launch.batch, launch.tokens, chunks, chunk_tokens, launch.channels, launch.states, launch.group_size,
        HAS_D=D is not None, HAS_START=start is not None, HAS_END=end is not None, WRITE_START=chunks == 1 and has_state,
        **launch.options,
    )  # fmt: skip
    grad_A, grad_D, grad_bias = sums.sum(1).split([launch.states, 1, 1], 1)
    grad_B, grad_C = grad_BC[:, 0] if launch.blocks == 1 else grad_BC.sum(1)
    grads = grad_u, grad_delta, grad_A.mT, grad_B.to(B.dtype), grad_C.to(C.dtype)
    return *grads, grad_D[:, 0], grad_bias[:, 0], grad_start.mT if has_state else grad_start.new_empty(0)
