"""The op table: one row says everything about one op. Verifier, printer, parser, evaluator and lowerings read it.

Every op is total: shifts take their amount modulo the width, division by zero and overflow have results (those of
the RISC-V M extension, unprivileged specification 2.3, "Division operations"), so no guest value can trap the host.

Memory is little-endian. Signatures are written over the letters T (the op's own type, its suffix in the text form),
A (an address, as wide as the guest's registers), S (any narrower integer), L (any wider integer).
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

TRAP_KINDS = ("fetch", "misaligned_fetch", "misaligned_access")
