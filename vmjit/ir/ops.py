"""The op table: one row says everything about one op. Verifier, printer, parser, evaluator and lowerings read it.

Every op is total: shifts take their amount modulo the width, division by zero and overflow have results (those of
the RISC-V M extension, unprivileged specification 2.3, "Division operations"), so no guest value can trap the host.

Memory is little-endian. Signatures are written over the letters T (the op's own type, its suffix in the text form),
A (an address, as wide as the guest's registers), S (any narrower integer), L (any wider integer), F (a float of any
format, or an integer to be converted).

Float ops work on the bits of IEEE 754 numbers: i16, i32 and i64 are binary16, binary32 and binary64. Their last two
operands are the rounding mode (a number of `vmjit.ir.floats.Rounding`) and the status register, as that of RISC-V: five
exception flags, lowest inexact, and above them the dynamic rounding mode. `accrued` behind a float op is that register
with the exceptions that the op raised. Every NaN result is the canonical one. Floats are exact: rounded once, tininess
detected after rounding (IEEE 754-2019; RISC-V unprivileged specification 2.3, chapters "F", "D" and "Zfh").
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OpSpec:
    name: str
    operands: tuple[str, ...]
    result: str  # "T", "i1", or "" when the op has none
    pure: bool
    doc: str
    least_bits: int = 1  # the narrowest type it is for


@dataclass(frozen=True, slots=True)
class TerminatorSpec:
    name: str
    operands: tuple[str, ...]
    targets: int
    doc: str


def _op(name: str, signature: str, doc: str, *, pure: bool = True, least_bits: int = 1) -> OpSpec:
    left, _, right = signature.partition("->")
    return OpSpec(name, tuple(left.split()), right.strip(), pure, doc, least_bits)


_ROWS = (
    _op("copy", "T -> T", "the operand itself"),
    _op("add", "T T -> T", "sum modulo 2^bits"),
    _op("sub", "T T -> T", "difference modulo 2^bits"),
    _op("mul", "T T -> T", "low half of the product"),
    _op("mulhs", "T T -> T", "high half of the product, both signed", least_bits=8),
    _op("mulhu", "T T -> T", "high half of the product, both unsigned", least_bits=8),
    _op("mulhsu", "T T -> T", "high half of the product, first signed, second unsigned", least_bits=8),
    _op("divs", "T T -> T", "signed quotient towards zero; x/0 = -1, min/-1 = min", least_bits=8),
    _op("divu", "T T -> T", "unsigned quotient; x/0 = all ones", least_bits=8),
    _op("rems", "T T -> T", "signed remainder; x%0 = x, min%-1 = 0", least_bits=8),
    _op("remu", "T T -> T", "unsigned remainder; x%0 = x", least_bits=8),
    _op("and", "T T -> T", "bitwise and"),
    _op("or", "T T -> T", "bitwise or"),
    _op("xor", "T T -> T", "bitwise exclusive or"),
    _op("shl", "T T -> T", "left shift, amount modulo bits", least_bits=8),
    _op("shr", "T T -> T", "logical right shift, amount modulo bits", least_bits=8),
    _op("sar", "T T -> T", "arithmetic right shift, amount modulo bits", least_bits=8),
    _op("rotl", "T T -> T", "left rotation, amount modulo bits", least_bits=8),
    _op("rotr", "T T -> T", "right rotation, amount modulo bits", least_bits=8),
    _op("clz", "T -> T", "count of leading zeros; bits for zero", least_bits=8),
    _op("ctz", "T -> T", "count of trailing zeros; bits for zero", least_bits=8),
    _op("popcount", "T -> T", "count of one bits", least_bits=8),
    _op("bswap", "T -> T", "bytes reversed", least_bits=16),
    _op("clmul", "T T -> T", "low half of the carry-less product", least_bits=8),
    _op("clmulh", "T T -> T", "high half of the carry-less product", least_bits=8),
    _op("eq", "T T -> i1", "equal"),
    _op("ne", "T T -> i1", "not equal"),
    _op("lts", "T T -> i1", "signed less than"),
    _op("ltu", "T T -> i1", "unsigned less than"),
    _op("ges", "T T -> i1", "signed greater or equal"),
    _op("geu", "T T -> i1", "unsigned greater or equal"),
    _op("select", "i1 T T -> T", "second operand if the first is true, else the third"),
    _op("zext", "S -> T", "zero extension from a narrower type"),
    _op("sext", "S -> T", "sign extension from a narrower type"),
    _op("trunc", "L -> T", "low bits of a wider value"),
    _op(
        "load", "A -> T", "little-endian load at any alignment; a bad address stops the lane", pure=False, least_bits=8
    ),
    _op(
        "store",
        "A T ->",
        "little-endian store at any alignment; a bad address stops the lane",
        pure=False,
        least_bits=8,
    ),
    _op(
        "store_if", "i1 A T ->", "store when the condition holds; otherwise no access at all", pure=False, least_bits=8
    ),
    _op("trap_if", "i1 T ->", "stop the lane here with the op's kind and address when the condition holds", pure=False),
    _op("fadd", "T T A A -> T", "sum of floats", pure=False, least_bits=16),
    _op("fsub", "T T A A -> T", "difference of floats", pure=False, least_bits=16),
    _op("fmul", "T T A A -> T", "product of floats", pure=False, least_bits=16),
    _op("fdiv", "T T A A -> T", "quotient of floats", pure=False, least_bits=16),
    _op("fsqrt", "T A A -> T", "square root of a float", pure=False, least_bits=16),
    _op("fma", "T T T A A -> T", "product of two floats plus a third, rounded once", pure=False, least_bits=16),
    _op("fmin", "T T A A -> T", "smaller float (minimumNumber); -0 is below +0", pure=False, least_bits=16),
    _op("fmax", "T T A A -> T", "larger float (maximumNumber)", pure=False, least_bits=16),
    _op("feq", "T T A A -> i1", "equal floats; a quiet comparison", pure=False, least_bits=16),
    _op("flt", "T T A A -> i1", "less; signals for every NaN", pure=False, least_bits=16),
    _op("fle", "T T A A -> i1", "less or equal; signals for every NaN", pure=False, least_bits=16),
    _op("fcvt", "F A A -> T", "a float of another format", pure=False, least_bits=16),
    _op("ftos", "F A A -> T", "a float as a signed integer; saturates, NaN is the largest", pure=False, least_bits=32),
    _op(
        "ftou", "F A A -> T", "a float as an unsigned integer; saturates, NaN is the largest", pure=False, least_bits=32
    ),
    _op("stof", "F A A -> T", "a signed integer as a float", pure=False, least_bits=16),
    _op("utof", "F A A -> T", "an unsigned integer as a float", pure=False, least_bits=16),
    _op("accrued", "-> T", "the status register after the float op before this one", pure=False),
    _op("retired", "-> T", "instructions this lane retired before this one", pure=False),
)

OPS: dict[str, OpSpec] = {row.name: row for row in _ROWS}

_TERMINATOR_ROWS = (
    TerminatorSpec("jump", (), 1, "go to a static address"),
    TerminatorSpec("branch", ("i1",), 2, "go to the first target if the condition holds, else to the second"),
    TerminatorSpec("indirect", ("A",), 0, "go to a computed address; data is the hint call, return or nothing"),
    TerminatorSpec("ecall", (), 1, "ask the environment; the target is where the lane goes on"),
    TerminatorSpec("ebreak", (), 0, "stop for a debugger"),
    TerminatorSpec("fence_i", (), 1, "make stores to code visible to later fetches, then go on at the target"),
    TerminatorSpec("trap", ("A",), 0, "stop the lane with data as the kind and the operand as the address"),
    TerminatorSpec("unsupported", (), 0, "no meaning is known for these bytes; data carries them in hex"),
)

TERMINATORS: dict[str, TerminatorSpec] = {row.name: row for row in _TERMINATOR_ROWS}

FLOAT_OPS = frozenset("fadd fsub fmul fdiv fsqrt fma fmin fmax feq flt fle fcvt ftos ftou stof utof".split())
"""Ops that read the status register and raise exceptions. One whose rounding mode is none stops the lane."""

TRAP_KINDS = ("fetch", "misaligned_fetch", "misaligned_access")
