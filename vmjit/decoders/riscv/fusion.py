"""Pairs of instructions that compiled code often has next to each other: the interpreter runs such a pair as one.

What is fused decides only about speed. The pairs are those of C compiled with `-O2`: addresses formed and used,
rotations from shifts, counters and loops, several registers saved or restored, values moved before a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

from vmjit.decoders.riscv.decoder import Template, row_template, rows_for
from vmjit.decoders.riscv.row import REGISTER_SLOTS
from vmjit.ir.registers import RegisterFile

# First instruction: what often follows it, by the names of rows. A name that an ISA lacks makes no pair there.
# `xor/rs1` follows where its rs1 is what the first instruction wrote: the value need not go through memory then.
FUSED_PAIRS = {
    "addi": "addi addiw add xor slli lw ld lbu sw sd beq bne bne/rs1 blt bltu bgeu jal jalr",
    "addiw": "addi addiw addw bne/rs1 beq bltu bgeu jalr",
    "add": "add add/rs1 addi addiw lw lw/rs1 ld/rs1 lbu/rs1 sw sw/rs1 srli/rs1 bne beq jal",
    "slli": "add/rs1 add/rs2 xor/rs1 xor/rs2 or or/rs1 srli srli/rs1 srliw",
    "slliw": "xor/rs1 xor/rs2 or",
    "srli": "xor/rs1 xor/rs2 or add/rs1 mul andi/rs1 sb srli slli",
    "srliw": "xor/rs2 or addi addiw slli slli/rs1",
    "xor": "xor slli/rs1 srli/rs1 srliw/rs1 bne",
    "or": "or",
    "and": "xor xor/rs1 or or/rs1",
    "andi": "slli/rs1 beq/rs1 bne/rs1",
    "mul": "add/rs1 add/rs2 mul",
    "lw": "lw addi slli",
    "ld": "ld addi",
    "lbu": "lbu addi xor/rs1 beq bne",
    "sw": "sw addi",
    "sd": "sd addi",
    "sb": "sb addi add bne",
    "sltu": "add addi",
    "lui": "addi/rs1 addiw/rs1",
    "auipc": "addi/rs1 jalr/rs1",
}


@dataclass(frozen=True)
class TemplatePair:
    """Two templates to run as one. `passed` is the register slot of the second that names what the first writes, None
    for any registers."""

    first: Template
    second: Template
    passed: int | None


@cache
def fused_templates(registers: RegisterFile) -> tuple[TemplatePair, ...]:
    """The pairs for these registers. The first of a pair never ends a block."""
    templates: dict[str, list[Template]] = {}
    for row in rows_for(registers):
        # A jump that discards its return address is another template.
        unwanted = (False, True) if row.name in ("jal", "jalr") else (False,)
        templates.setdefault(row.name, []).extend(row_template(row, registers, zero, False) for zero in unwanted)
    pairs = []
    for name, followers in FUSED_PAIRS.items():
        for follower in followers.split():
            second, _, operand = follower.partition("/")
            passed = REGISTER_SLOTS[operand] if operand else None
            both = product(templates.get(name, ()), templates.get(second, ()))
            pairs += [TemplatePair(first, following, passed) for first, following in both]
    return tuple(pairs)
