"""The verifier: holds a block against the op table."""

from __future__ import annotations

from vmjit.errors import IRError
from vmjit.ir.block import Block
from vmjit.ir.ops import OPS, TERMINATORS, TRAP_KINDS
from vmjit.ir.registers import RegisterFile
from vmjit.ir.types import I1, Type
from vmjit.ir.values import Const, ConstSlot, Op, Operand, Register, Temp


def verify_block(block: Block) -> None:
    """Raise `IRError` naming the instruction's pc and the fault, or return nothing.

    Checks: known ops and terminators, operand counts and types, temps defined before use within their instruction,
    register indices in range, contiguous instructions.
    """
    xlen = block.registers.type
    if not block.instructions:
        _verify_terminator(block, set(), block.pc)
    expected_pc = block.pc
    for instruction in block.instructions:
        if instruction.pc != expected_pc:
            raise IRError(f"instruction at {instruction.pc:#x} does not follow {expected_pc:#x}", pc=instruction.pc)
        expected_pc = (instruction.pc + instruction.size) & xlen.mask
        last = instruction is block.instructions[-1]
        defined: set[Temp] = set()
        for op in instruction.ops:
            _verify_op(op, defined, block, instruction.pc)
        if last:
            _verify_terminator(block, defined, instruction.pc)


def _fail(pc: int, message: str) -> IRError:
    return IRError(message, pc=pc)


def _type_of(value: Operand, registers: RegisterFile) -> Type:
    if isinstance(value, Register):
        return registers.type_of(value.index)
    return value.type or registers.type


def _check_operand(value: Operand, defined: set[Temp], block: Block, pc: int) -> None:
    if isinstance(value, Temp) and value not in defined:
        raise _fail(pc, f"temporary %{value.index} is used before it is defined")
    if isinstance(value, Register) and not 0 <= value.index < len(block.registers):
        raise _fail(pc, f"register index {value.index} is outside {block.registers.name}")


def _check_type(letter: str, value: Operand, own: Type, registers: RegisterFile, pc: int, name: str) -> None:
    actual = _type_of(value, registers)
    if letter in "SLF" and isinstance(value, Const):
        raise _fail(pc, f"{name}.{own}: a constant needs no conversion, and the text form cannot say its type")
    wanted = {"T": own, "A": registers.type, "i1": I1}.get(letter)
    good = {"S": actual.bits < own.bits, "L": actual.bits > own.bits, "F": actual.bits >= 16}.get(
        letter, actual == wanted
    )
    if not good:
        raise _fail(pc, f"{name}.{own}: operand of type {actual} where {letter} is wanted")


def _verify_op(op: Op, defined: set[Temp], block: Block, pc: int) -> None:
    registers = block.registers
    spec = OPS.get(op.name)
    if spec is None:
        raise _fail(pc, f"unknown op {op.name!r}")
    if len(op.args) != len(spec.operands):
        raise _fail(pc, f"{op.name} takes {len(spec.operands)} operands, got {len(op.args)}")
    if op.type.bits < spec.least_bits:
        raise _fail(pc, f"{op.name} is for {spec.least_bits} bits and more, not for {op.type}")
    for letter, value in zip(spec.operands, op.args, strict=True):
        _check_operand(value, defined, block, pc)
        _check_type(letter, value, op.type, registers, pc, op.name)
    if (op.dest is None) != (spec.result == ""):
        raise _fail(pc, f"{op.name} {'needs a destination' if spec.result else 'has no result'}")
    if op.dest is not None:
        result = I1 if spec.result == "i1" else op.type
        if _type_of(op.dest, registers) != result:
            raise _fail(pc, f"{op.name}.{op.type} gives {result}, its destination holds {_type_of(op.dest, registers)}")
        if isinstance(op.dest, Temp):
            defined.add(op.dest)
        else:
            _check_operand(op.dest, defined, block, pc)
    if (op.name == "trap_if") != bool(op.kind) or (op.kind and op.kind not in TRAP_KINDS):
        raise _fail(pc, f"{op.name}: trap kind {op.kind!r} is not one of {', '.join(TRAP_KINDS)}")


def _verify_terminator(block: Block, defined: set[Temp], pc: int) -> None:
    registers = block.registers
    xlen = registers.type
    terminator = block.terminator
    spec = TERMINATORS.get(terminator.name)
    if spec is None:
        raise _fail(pc, f"unknown terminator {terminator.name!r}")
    if len(terminator.args) != len(spec.operands) or len(terminator.targets) != spec.targets:
        raise _fail(pc, f"{terminator.name} takes {len(spec.operands)} operands and {spec.targets} targets")
    for letter, value in zip(spec.operands, terminator.args, strict=True):
        _check_operand(value, defined, block, pc)
        _check_type(letter, value, xlen, registers, pc, terminator.name)
    for target in terminator.targets:
        if not isinstance(target, Const | ConstSlot) or target.type != xlen:
            raise _fail(pc, f"{terminator.name}: a target must be a constant of type {xlen}")
    if terminator.name == "trap" and terminator.data not in TRAP_KINDS:
        raise _fail(pc, f"trap kind {terminator.data!r} is not one of {', '.join(TRAP_KINDS)}")
