"""Ops and blocks made from the op table's signatures, for the tests of the IR."""

from __future__ import annotations

from vmjit.decoders.riscv import REGISTERS
from vmjit.ir import (
    I1,
    I8,
    I16,
    I32,
    I64,
    OPS,
    TERMINATORS,
    Block,
    Const,
    GuestInstruction,
    Op,
    Operand,
    Register,
    Temp,
    Terminator,
    Type,
)
from vmjit.ir.ops import TRAP_KINDS

INTEGERS = (I8, I16, I32, I64)
FLOATS = (I16, I32, I64)
PC = 0x1000
FLAG = Temp(0, I1)


def types_of(name: str) -> tuple[Type, ...]:
    """The types that an op has as its own: from its narrowest on, and such that there is one wider where it wants that."""
    operands = OPS[name].operands
    return tuple(t for t in INTEGERS if t.bits >= OPS[name].least_bits and not ("L" in operands and t is I64))


def sources_of(letter: str, own: Type, xlen: Type) -> tuple[Type, ...]:
    """The types that an operand may have at a place with this letter."""
    if letter == "S":
        return tuple(t for t in (I1, *INTEGERS) if t.bits < own.bits)
    if letter == "L":
        return tuple(t for t in INTEGERS if t.bits > own.bits)
    if letter == "F":
        return FLOATS
    return ({"T": own, "A": xlen, "i1": I1}[letter],)


def definition(temp: Temp) -> Op:
    """An op that defines a temporary of any type."""
    if temp.type is I1:
        return Op("eq", I32, temp, (Const(1, I32), Const(2, I32)))
    return Op("copy", temp.type, temp, (Const(temp.index, temp.type),))


def ops_with(name: str, own: Type, xlen: Type) -> list[Op]:
    """Definitions of the operands and the op itself, with temporaries as operands and as the destination.

    At places that allow several types the narrowest, or for `trunc` the widest, is taken.
    """
    spec = OPS[name]
    temps = []
    for i, letter in enumerate(spec.operands):
        sources = sources_of(letter, own, xlen)
        temps.append(Temp(i, sources[-1] if letter == "L" else sources[0]))
    dest = Temp(len(temps), I1 if spec.result == "i1" else own) if spec.result else None
    kind = TRAP_KINDS[0] if name == "trap_if" else ""
    return [*map(definition, temps), Op(name, own, dest, tuple(temps), kind)]


def block_of(ops: list[Op], xlen: int = 64, terminator: Terminator | None = None) -> Block:
    """A block of one instruction."""
    registers = REGISTERS[xlen, False]
    jump = Terminator("jump", (), (Const(PC + 4, registers.type),))
    return Block(PC, registers, [GuestInstruction(PC, 4, 0x13, ops, "nop")], terminator or jump)


def terminator_of(name: str, xlen: Type, condition: Operand = FLAG) -> Terminator:
    """A terminator with operands and targets as its row wants them."""
    spec = TERMINATORS[name]
    args = tuple(condition if letter == "i1" else Register(10) for letter in spec.operands)
    targets = tuple(Const(PC + 8 * i, xlen) for i in range(spec.targets))
    data = {"trap": TRAP_KINDS[0], "indirect": "call", "unsupported": "13051500"}.get(name, "")
    return Terminator(name, args, targets, data)
