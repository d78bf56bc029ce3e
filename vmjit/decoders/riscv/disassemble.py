"""Disassembly: a row's assembly template filled with a word's operands."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from vmjit.decoders.riscv.registers import ABI_NAMES, FLOAT_ABI_NAMES
from vmjit.decoders.riscv.row import INTEGER_OPERANDS, REGISTER_SLOTS, Row

_PIECE = re.compile(r"[a-z][a-z0-9]*|[^a-z]+")
_REGISTER = re.compile(r"x(\d+)")
_TARGETS = frozenset({"jal", "c.jal", "c.j", "beq", "bne", "blt", "bge", "bltu", "bgeu", "c.beqz", "c.bnez"})
_MODES = {0: "rne", 1: "rtz", 2: "rdn", 3: "rup", 4: "rmm", 7: "dyn"}
_DYNAMIC = ", dyn"
# Conversions that never round: assemblers write "nearest" into them.
_EXACT = frozenset({"fcvt.d.w", "fcvt.d.wu", "fcvt.d.s", "fcvt.s.h", "fcvt.d.h"})
_NEAREST = ", rne"
_UPPER = frozenset({"lui", "auipc", "c.lui"})


def format_instruction(row: Row, raw: int, pc: int, xlen: int) -> str:
    """`addi a0, a0, -1`. Branch and jump targets are absolute addresses, upper immediates their 20 bits; the rounding
    mode is left out where it is what assemblers take by themselves."""
    text = "".join([piece if isinstance(piece, str) else piece(raw, pc, xlen) for piece in _pieces(row)])
    return text.removesuffix(_NEAREST if row.name in _EXACT else _DYNAMIC)


@cache
def _pieces(row: Row) -> tuple[str | Callable[[int, int, int], str], ...]:
    """What stands in every word's text, and functions of (word, pc, xlen) for what differs."""
    operands = (_piece(row, text) for text in _PIECE.findall(row.assembly))
    return (f"{row.name} ", *operands) if row.assembly else (row.name,)


def _piece(row: Row, text: str) -> str | Callable[[int, int, int], str]:
    extract = next((field.extract for field in row.pattern.fields if field.name == text), None)
    if extract is None:
        fixed = _REGISTER.fullmatch(text)
        return ABI_NAMES[int(fixed[1])] if fixed else text
    if text in REGISTER_SLOTS:
        names = ABI_NAMES if text in INTEGER_OPERANDS else FLOAT_ABI_NAMES
        return lambda raw, pc, xlen: names[extract(raw)]
    if text == "rm":
        return lambda raw, pc, xlen: _MODES[extract(raw)]
    if text == "imm" and row.name in _TARGETS:
        return lambda raw, pc, xlen: f"{(pc + extract(raw)) & ((1 << xlen) - 1):#x}"
    if text == "imm" and row.name in _UPPER:
        return lambda raw, pc, xlen: f"{(extract(raw) >> 12) & 0xFFFFF:#x}"
    if text == "csr":
        return lambda raw, pc, xlen: f"{extract(raw):#x}"
    return lambda raw, pc, xlen: str(extract(raw))
