"""Pairs of instructions that compiled code often has next to each other: the interpreter runs such a pair as one.

What is fused decides only about speed. The pairs are those of C compiled with `-O2`: addresses formed and used,
rotations from shifts, counters and loops, several registers saved or restored, values moved before a call.
"""

from __future__ import annotations

from functools import cache
from itertools import product

from vmjit.decoders.riscv.decoder import Template, row_template
from vmjit.decoders.riscv.tables import ALL_ROWS

# First instruction: what often follows it, by the names of rows. A name that an ISA lacks makes no pair there.
FUSED_PAIRS = {
    "addi": "addi addiw add xor slli lw ld lbu sw sd beq bne blt bltu bgeu jal jalr",
    "addiw": "addi addw bne jalr",
    "add": "add addi addiw lw ld lbu sw srli beq bne jal",
    "slli": "add xor or srli srliw",
    "slliw": "xor or",
    "srli": "xor or mul andi sb srli slli",
    "srliw": "xor or addi slli",
    "xor": "xor srli srliw slli bne",
    "or": "or",
    "and": "xor or",
    "andi": "slli beq bne",
    "mul": "add",
    "lw": "lw addi slli",
    "ld": "ld addi",
    "lbu": "addi xor beq bne",
    "sw": "sw addi",
    "sd": "sd addi",
    "sb": "sb addi add bne",
    "sltu": "add addi",
    "lui": "addi addiw",
    "auipc": "addi jalr",
}


@cache
def fused_templates(xlen: int) -> tuple[tuple[Template, Template], ...]:
    """The pairs at this width. The first of a pair never ends a block."""
    templates: dict[str, list[Template]] = {}
    for row in ALL_ROWS:
        if xlen in row.xlens and row.meaning is not None:
            # A jump that discards its return address is another template.
            unwanted = (False, True) if row.name in ("jal", "jalr") else (False,)
            templates.setdefault(row.name, []).extend(row_template(row, xlen, zero, False) for zero in unwanted)
    return tuple(
        pair
        for first, followers in FUSED_PAIRS.items()
        for second in followers.split()
        for pair in product(templates.get(first, ()), templates.get(second, ()))
    )
