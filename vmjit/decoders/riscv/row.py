"""Rows: one row of a table says everything about one instruction.

A row drives matching, operand extraction, disassembly, test generation and, through its meaning, the IR. Compressed
rows have no meaning of their own: `expands` writes the instruction they stand for, in assembly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from vmjit.decoders.riscv.patterns import Pattern, parse_pattern
from vmjit.decoders.riscv.registers import FLOAT
from vmjit.ir.builder import Builder
from vmjit.ir.values import Operand


class Operands:
    """What a row's meaning may use: its registers and immediates, and the addresses that follow from them.

    `target` is pc + imm, `next_pc` the address behind the instruction, `rest` how many instructions of the block are
    left, this one included. `misaligned` says that `target` is not an address an instruction can start at.
    """

    rd: Operand
    rs1: Operand
    rs2: Operand
    fd: Operand
    fs1: Operand
    fs2: Operand
    fs3: Operand
    rm: Operand
    zimm: Operand
    imm: Operand
    uimm: Operand
    shamt: Operand
    target: Operand
    next_pc: Operand
    misaligned: bool

    def __init__(self, values: dict[str, Operand], *, misaligned: bool = False) -> None:
        self.__dict__.update(values)
        self.misaligned = misaligned


Meaning = Callable[[Builder, Operands], None]

# Which operands of an assembly template are registers, with the slot that each has; whether it is read or written there
# does not matter here.
REGISTER_SLOTS = {"rd": 0, "rs1": 1, "rs2": 2, "fd": 0, "fs1": 1, "fs2": 2, "fs3": 3}
INTEGER_OPERANDS = frozenset({"rd", "rs1", "rs2"})


def register_index(name: str, number: int) -> int:
    """The register that an operand of this name and number names."""
    return number if name in INTEGER_OPERANDS else FLOAT + number


DERIVED_OPERANDS = ("target", "next_pc")
IMMEDIATE_OPERANDS = ("imm", "uimm", "shamt", "rm", "zimm")

_ASSEMBLY_WORD = re.compile(r"[a-z][a-z0-9]*|-?\d+")


@dataclass(frozen=True)
class Expansion:
    """What a compressed row stands for: the base row's name, and each base operand as a field name or a number."""

    name: str
    operands: dict[str, str | int]


@dataclass(frozen=True, eq=False)
class Row:
    name: str
    pattern: Pattern
    assembly: str
    extensions: str  # as in Isa.has
    xlens: frozenset[int]
    meaning: Meaning | None = None
    expands: tuple[str, str] | None = None  # (base row name, its operands in assembly)

    @property
    def size(self) -> int:
        return self.pattern.size

    @cache
    def expansion(self, base: Row) -> Expansion:
        """The operands of `base` that this compressed row gives, matched by place in the assembly."""
        assert self.expands is not None
        places = _ASSEMBLY_WORD.findall(base.assembly)
        given = _ASSEMBLY_WORD.findall(self.expands[1])
        if len(places) != len(given):
            raise ValueError(f"{self.name}: {self.expands[1]!r} does not fit {base.name} {base.assembly!r}")
        operands: dict[str, str | int] = {}
        for place, word in zip(places, given, strict=True):
            register = re.fullmatch(r"x(\d+)", word)
            operands[place] = int(register[1]) if register else int(word) if word.lstrip("-").isdigit() else word
        return Expansion(base.name, operands)


BOTH = frozenset({32, 64})
RV32 = frozenset({32})
RV64 = frozenset({64})


class Table:
    """The rows of one extension, written with `row` and `compressed`."""

    def __init__(self, extensions: str) -> None:
        self.extensions = extensions
        self.rows: list[Row] = []

    def row(
        self,
        name: str,
        pattern: str,
        assembly: str,
        meaning: Meaning | None,
        *,
        xlens: frozenset[int] = BOTH,
        extensions: str = "",
    ) -> None:
        """A row; `meaning` None is an instruction that is known and has no meaning here (it stops the lane)."""
        self.rows.append(Row(name, parse_pattern(pattern), assembly, extensions or self.extensions, xlens, meaning))

    def compressed(
        self,
        name: str,
        pattern: str,
        assembly: str,
        expands: str,
        *,
        xlens: frozenset[int] = BOTH,
        extensions: str = "",
    ) -> None:
        base, _, operands = expands.partition(" ")
        self.rows.append(
            Row(name, parse_pattern(pattern), assembly, extensions or self.extensions, xlens, expands=(base, operands))
        )
