"""Disassembly: a row's assembly template filled with a word's operands."""

from __future__ import annotations

import re

from vmjit.decoders.riscv.registers import ABI_NAMES
from vmjit.decoders.riscv.row import REGISTER_OPERANDS, Row

_WORD = re.compile(r"[a-z][a-z0-9]*")
_TARGETS = frozenset({"jal", "c.jal", "c.j", "beq", "bne", "blt", "bge", "bltu", "bgeu", "c.beqz", "c.bnez"})
_UPPER = frozenset({"lui", "auipc", "c.lui"})


def format_instruction(row: Row, raw: int, pc: int, xlen: int) -> str:
    """`addi a0, a0, -1`. Branch and jump targets are absolute addresses, upper immediates their 20 bits."""
    values = {field.name: field.extract(raw) for field in row.pattern.fields}

    def word(match: re.Match[str]) -> str:
        name = match.group()
        if name not in values:
            return ABI_NAMES[int(name[1:])] if re.fullmatch(r"x\d+", name) else name
        if name in REGISTER_OPERANDS:
            return ABI_NAMES[values[name]]
        if name == "imm" and row.name in _TARGETS:
            return f"{(pc + values[name]) & ((1 << xlen) - 1):#x}"
        if name == "imm" and row.name in _UPPER:
            return f"{(values[name] >> 12) & 0xFFFFF:#x}"
        if name == "csr":
            return f"{values[name]:#x}"
        return str(values[name])

    operands = _WORD.sub(word, row.assembly)
    return f"{row.name} {operands}".rstrip()
