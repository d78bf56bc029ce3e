"""Float instructions as words, written from the specification apart from the decoder's tables, with what each computes.

`INSTRUCTIONS` has every F, D and Zfh instruction that computes: its encoding, and its result by the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmjit.ir import floats
from vmjit.ir.floats import FORMATS, Exceptions, Rounding

_FMT = {32: 0, 64: 1, 16: 2}
_SUFFIX = {32: "s", 64: "d", 16: "h"}
_NONE = Exceptions(0)
_ONES = (1 << 64) - 1

Compute = Callable[[list[int], Rounding], tuple[int, Exceptions]]


@dataclass(frozen=True)
class FloatInstruction:
    """`operands` has a letter for each: f for a float register, x for an integer one; `result` says which that is.

    `compute` takes the registers' 64-bit contents (integer ones cut to the guest's width) and gives the result's.
    """

    name: str
    word: int  # without registers and rounding mode
    operands: str
    result: str
    compute: Compute
    rounds: bool
    only64: bool = False

    def encode(self, rd: int, sources: list[int], mode: int = 7) -> bytes:
        places = (15, 20, 27)
        word = self.word | rd << 7 | (mode << 12 if self.rounds else 0)
        for register, place in zip(sources, places, strict=False):
            word |= register << place
        return word.to_bytes(4, "little")


def unboxed(bits: int, register: int) -> int:
    """The number of a format in a register: the canonical NaN where it is not boxed."""
    if register >> bits != _ONES >> bits:
        return FORMATS[bits].nan
    return register & ((1 << bits) - 1)


def boxed(bits: int, value: int) -> int:
    return value | _ONES << bits & _ONES


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _arithmetic(name: str, bits: int, negate: tuple[bool, bool] = (False, False)) -> Compute:
    def compute(registers: list[int], mode: Rounding) -> tuple[int, Exceptions]:
        operands = [unboxed(bits, r) for r in registers]
        f = FORMATS[bits]
        if negate[0] and not f.is_nan(operands[0]):
            operands[0] ^= f.sign
        if negate[1] and not f.is_nan(operands[2]):
            operands[2] ^= f.sign
        result, flags = floats.compute(name, bits, bits, operands, mode)
        return (result if name in ("feq", "flt", "fle") else boxed(bits, result)), flags

    return compute


def _sign(bits: int, change: Callable[[int, int], int]) -> Compute:
    def compute(registers: list[int], mode: Rounding) -> tuple[int, Exceptions]:
        x, y = (unboxed(bits, r) for r in registers)
        sign = FORMATS[bits].sign
        return boxed(bits, x & ~sign | change(x, y) & sign), _NONE

    return compute


def _class(bits: int) -> Compute:
    def compute(registers: list[int], mode: Rounding) -> tuple[int, Exceptions]:
        f, x = FORMATS[bits], unboxed(bits, registers[0])
        if f.is_nan(x):
            return (1 << 8 if f.is_signaling(x) else 1 << 9), _NONE
        magnitude = x & ~f.sign
        distance = 0 if magnitude == 0 else 1 if magnitude < 1 << f.fraction else 2 if magnitude < f.infinity else 3
        return 1 << (3 - distance if x & f.sign else 4 + distance), _NONE

    return compute


def _to_integer(source: int, bits: int, *, signed: bool) -> Compute:
    def compute(registers: list[int], mode: Rounding) -> tuple[int, Exceptions]:
        result, flags = floats.to_integer(FORMATS[source], bits, signed, unboxed(source, registers[0]), mode)
        return _signed(result, bits), flags  # also the unsigned ones are sign-extended

    return compute


def _from_integer(target: int, bits: int, *, signed: bool) -> Compute:
    def compute(registers: list[int], mode: Rounding) -> tuple[int, Exceptions]:
        value = registers[0] & ((1 << bits) - 1)
        result, flags = floats.from_integer(FORMATS[target], bits, signed, value, mode)
        return boxed(target, result), flags

    return compute


def _convert(source: int, target: int) -> Compute:
    def compute(registers: list[int], mode: Rounding) -> tuple[int, Exceptions]:
        result, flags = floats.convert(FORMATS[source], FORMATS[target], unboxed(source, registers[0]), mode)
        return boxed(target, result), flags

    return compute


def _all() -> list[FloatInstruction]:
    found: list[FloatInstruction] = []

    def add(name: str, word: int, operands: str, result: str, compute: Compute, **kind: bool) -> None:
        found.append(FloatInstruction(name, word, operands, result, compute, kind.get("rounds", False),
                                      kind.get("only64", False)))  # fmt: skip

    for bits, fmt in _FMT.items():
        s, base = _SUFFIX[bits], 0x53 | fmt << 25
        for name, opcode, negate in (
            ("fmadd", 0x43, (False, False)),
            ("fmsub", 0x47, (False, True)),
            ("fnmsub", 0x4B, (True, False)),
            ("fnmadd", 0x4F, (True, True)),
        ):
            add(f"{name}.{s}", opcode | fmt << 25, "fff", "f", _arithmetic("fma", bits, negate), rounds=True)
        for name, funct5 in (("fadd", 0), ("fsub", 1), ("fmul", 2), ("fdiv", 3)):
            add(f"{name}.{s}", base | funct5 << 27, "ff", "f", _arithmetic(name, bits), rounds=True)
        add(f"fsqrt.{s}", base | 11 << 27, "f", "f", _arithmetic("fsqrt", bits), rounds=True)
        for number, (name, change) in enumerate(
            (("fsgnj", lambda x, y: y), ("fsgnjn", lambda x, y: ~y), ("fsgnjx", lambda x, y: x ^ y))
        ):
            add(f"{name}.{s}", base | 4 << 27 | number << 12, "ff", "f", _sign(bits, change))
        for number, name in enumerate(("fmin", "fmax")):
            add(f"{name}.{s}", base | 5 << 27 | number << 12, "ff", "f", _arithmetic(name, bits))
        for number, name in enumerate(("fle", "flt", "feq")):
            add(f"{name}.{s}", base | 20 << 27 | number << 12, "ff", "x", _arithmetic(name, bits))
        add(f"fclass.{s}", base | 28 << 27 | 1 << 12, "f", "x", _class(bits))
        for number, (letter, width, signed) in enumerate(
            (("w", 32, True), ("wu", 32, False), ("l", 64, True), ("lu", 64, False))
        ):
            add(f"fcvt.{letter}.{s}", base | 24 << 27 | number << 20, "f", "x",
                _to_integer(bits, width, signed=signed), rounds=True, only64=width == 64)  # fmt: skip
            add(f"fcvt.{s}.{letter}", base | 26 << 27 | number << 20, "x", "f",
                _from_integer(bits, width, signed=signed), rounds=True, only64=width == 64)  # fmt: skip
        for other, code in _FMT.items():
            if other != bits:
                add(f"fcvt.{s}.{_SUFFIX[other]}", base | 8 << 27 | code << 20, "f", "f", _convert(other, bits),
                    rounds=True)  # fmt: skip
        letter = {32: "w", 64: "d", 16: "h"}[bits]
        only64 = bits == 64
        add(f"fmv.x.{letter}", base | 28 << 27, "f", "x",
            lambda r, mode, bits=bits: (_signed(r[0] & (1 << bits) - 1, bits), _NONE), only64=only64)  # fmt: skip
        add(f"fmv.{letter}.x", base | 30 << 27, "x", "f",
            lambda r, mode, bits=bits: (boxed(bits, r[0] & (1 << bits) - 1), _NONE), only64=only64)  # fmt: skip
    return found


INSTRUCTIONS = _all()


def load(rd: int, rs1: int, offset: int) -> bytes:
    """fld"""
    return ((offset & 0xFFF) << 20 | rs1 << 15 | 3 << 12 | rd << 7 | 0x07).to_bytes(4, "little")


def store(rs2: int, rs1: int, offset: int) -> bytes:
    """fsd"""
    word = (offset >> 5 & 0x7F) << 25 | rs2 << 20 | rs1 << 15 | 3 << 12 | (offset & 31) << 7 | 0x27
    return word.to_bytes(4, "little")


def write_status(rs1: int) -> bytes:
    """csrrw x0, fcsr, rs1"""
    return (3 << 20 | rs1 << 15 | 1 << 12 | 0x73).to_bytes(4, "little")


def read_status(rd: int) -> bytes:
    """csrrs rd, fcsr, x0"""
    return (3 << 20 | 2 << 12 | rd << 7 | 0x73).to_bytes(4, "little")
