"""Assembles a small part of WebAssembly's text format: functions of folded instructions over one imported memory.

It knows what `src/kernels.wat` needs and refuses anything else. Opcodes: WebAssembly core specification, appendix A.7.
"""

from __future__ import annotations

import re
import struct
from typing import Any

_TYPES = {"i32": 0x7F, "f32": 0x7D, "v128": 0x7B}
_PLAIN = {
    "i32.lt_u": 0x49,
    "i32.add": 0x6A,
    "i32.sub": 0x6B,
    "i32.mul": 0x6C,
    "i32.shl": 0x74,
    "f32.add": 0x92,
    "f32.mul": 0x94,
    "f32.max": 0x97,
}
_VECTOR = {
    "i32x4.splat": 0x11,
    "f32x4.splat": 0x13,
    "f32x4.nearest": 0x6A,
    "i32x4.shl": 0xAB,
    "i32x4.add": 0xAE,
    "f32x4.abs": 0xE0,
    "f32x4.neg": 0xE1,
    "f32x4.add": 0xE4,
    "f32x4.sub": 0xE5,
    "f32x4.mul": 0xE6,
    "f32x4.div": 0xE7,
    "f32x4.min": 0xE8,
    "f32x4.max": 0xE9,
    "i32x4.trunc_sat_f32x4_s": 0xF8,
}
_MEMORY = {"f32.load": b"\x2a\x02", "f32.store": b"\x38\x02"}
_VECTOR_MEMORY = {"v128.load": b"\xfd\x00\x00", "v128.load32_splat": b"\xfd\x09\x00", "v128.store": b"\xfd\x0b\x00"}


def assemble(text: str) -> bytes:
    """Return the binary module of a text.

    Raises:
        ValueError: The text holds something that is not known here.
    """
    ((head, *fields),) = _parse(re.sub(r";;.*", "", text))
    if head != "module" or fields[0][0] != "import":
        raise ValueError("a module that begins with the import of its memory")
    functions = [_Function(field) for field in fields[1:]]
    numbers = {function.name: number for number, function in enumerate(functions)}
    _, module, name, memory = fields[0]
    imported = _text(module) + _text(name) + b"\x02\x00" + _unsigned(int(memory[1]))
    exports = [_text(f.export) + b"\x00" + _unsigned(numbers[f.name]) for f in functions if f.export]
    sections = (
        (1, _vector([function.type for function in functions])),
        (2, _vector([imported])),
        (3, _vector([_unsigned(number) for number in range(len(functions))])),
        (7, _vector(exports)),
        (10, _vector([function.code(numbers) for function in functions])),
    )
    return b"\0asm\x01\0\0\0" + b"".join(bytes([id_]) + _sized(content) for id_, content in sections)


class _Function:
    """A function: `(func $name [(export "name")] (param $name type)* [(result type)] (local $name type)* instruction*)`."""

    def __init__(self, field: list[Any]) -> None:
        kind, self.name, *rest = field
        if kind != "func":
            raise ValueError(f"{kind} instead of a function")
        self.export, parameters, results, self._locals, self._body = "", [], [], [], []
        for part in rest:
            match part[0]:
                case "export":
                    self.export = part[1]
                case "param":
                    parameters.append(part[1:])
                case "result":
                    results.append(part[1])
                case "local":
                    self._locals.append(part[1:])
                case _:
                    self._body.append(part)
        names = [name for name, _ in (*parameters, *self._locals)]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name} has a name twice")
        self._places = {name: place for place, name in enumerate(names)}
        self.type = b"\x60" + b"".join(
            _vector([bytes([_TYPES[kind]]) for kind in kinds]) for kinds in ([k for _, k in parameters], results)
        )

    def code(self, numbers: dict[str, int]) -> bytes:
        """Return its locals and instructions."""
        local_types = _vector([b"\x01" + bytes([_TYPES[kind]]) for _, kind in self._locals])
        body = b"".join(self._instruction(part, numbers, ()) for part in self._body)
        return _sized(local_types + body + b"\x0b")

    def _instruction(self, instruction: list[Any], numbers: dict[str, int], labels: tuple[str, ...]) -> bytes:
        name, *rest = instruction

        def operands(parts: list[Any]) -> bytes:
            return b"".join(self._instruction(part, numbers, labels) for part in parts)

        if name in _PLAIN:
            return operands(rest) + bytes([_PLAIN[name]])
        if name in _VECTOR:
            return operands(rest) + b"\xfd" + _unsigned(_VECTOR[name])
        if name in _MEMORY or name in _VECTOR_MEMORY:
            offset = int(rest.pop(0).removeprefix("offset=")) if isinstance(rest[0], str) else 0
            return operands(rest) + (_MEMORY | _VECTOR_MEMORY)[name] + _unsigned(offset)
        match name:
            case "local.get":
                return b"\x20" + _unsigned(self._places[rest[0]])
            case "local.set":
                return operands(rest[1:]) + b"\x21" + _unsigned(self._places[rest[0]])
            case "i32.const":
                return b"\x41" + _signed(int(rest[0]))
            case "f32.const":
                return b"\x43" + struct.pack("<f", float(rest[0]))
            case "f32x4.extract_lane":
                return operands(rest[1:]) + b"\xfd\x1f" + bytes([int(rest[0])])
            case "call":
                return operands(rest[1:]) + b"\x10" + _unsigned(numbers[rest[0]])
            case "loop":
                inside = (rest[0], *labels)
                return b"\x03\x40" + b"".join(self._instruction(p, numbers, inside) for p in rest[1:]) + b"\x0b"
            case "br_if":
                return operands(rest[1:]) + b"\x0d" + _unsigned(labels.index(rest[0]))
        raise ValueError(f"{name} is not known here")


def _parse(text: str) -> list[Any]:
    """Return nested lists of words."""
    stack: list[list[Any]] = [[]]
    for word in re.findall(r'[()]|"[^"]*"|[^\s()]+', text):
        if word == "(":
            stack.append([])
        elif word == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(word.strip('"'))
    if len(stack) != 1:
        raise ValueError("a bracket is never closed")
    return stack[0]


def _unsigned(value: int) -> bytes:
    """Return a number in LEB128."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _signed(value: int) -> bytes:
    """Return a number in signed LEB128."""
    digits = bytearray()
    while not -64 <= value < 64:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value & 0x7F])


def _sized(content: bytes) -> bytes:
    return _unsigned(len(content)) + content


def _vector(parts: list[bytes]) -> bytes:
    return _unsigned(len(parts)) + b"".join(parts)


def _text(text: str) -> bytes:
    return _sized(text.encode())
