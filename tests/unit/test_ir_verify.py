"""The verifier: accepts all that the op table allows, and refuses each kind of wrong IR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.ir_samples import PC, block_of, definition, ops_with, sources_of, terminator_of, types_of
from vmjit.decoders.riscv import REGISTERS
from vmjit.errors import IRError
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
    ConstSlot,
    GuestInstruction,
    Op,
    Register,
    RegisterSlot,
    Temp,
    Terminator,
    Type,
    verify_block,
)

X10 = Register(10)
ONE = Const(1, I64)
T0, FLAG = Temp(0, I64), Temp(0, I1)


@pytest.mark.parametrize("xlen", [32, 64])
@pytest.mark.parametrize("name", OPS)
def test_ops_of_the_table_are_accepted(name: str, xlen: int) -> None:
    for own in types_of(name):
        verify_block(block_of(ops_with(name, own, REGISTERS[xlen, False].type), xlen))


@pytest.mark.parametrize("name", TERMINATORS)
def test_terminators_of_the_table_are_accepted(name: str) -> None:
    verify_block(block_of([definition(FLAG)], terminator=terminator_of(name, I64)))


def test_slots_are_accepted() -> None:
    """Templates are verified in the same way as instructions."""
    ops = [Op("add", I64, RegisterSlot(0), (RegisterSlot(1), ConstSlot(0, I64)))]
    verify_block(block_of(ops, terminator=Terminator("jump", (), (ConstSlot(1, I64),))))


@pytest.mark.parametrize("name", ["zext", "sext", "trunc"])
def test_conversions_take_every_narrower_or_wider_type(name: str) -> None:
    (letter,) = OPS[name].operands
    for own in types_of(name):
        for source in sources_of(letter, own, I64):
            verify_block(block_of([definition(Temp(0, source)), Op(name, own, Temp(1, own), (Temp(0, source),))]))


# Each: what is wrong, the op or ops in a block for 64-bit registers, words of the message.
WRONG_OPS: tuple[tuple[str, list[Op], str], ...] = (
    ("unknown op", [Op("plus", I64, X10, (X10, ONE))], "unknown op 'plus'"),
    ("too few operands", [Op("add", I64, X10, (X10,))], "add takes 2 operands, got 1"),
    ("too many operands", [Op("copy", I64, X10, (X10, ONE))], "copy takes 1 operands, got 2"),
    ("undefined temporary", [Op("copy", I64, X10, (T0,))], "%0 is used before it is defined"),
    (
        "temporary defined later",
        [Op("copy", I64, X10, (T0,)), Op("copy", I64, T0, (X10,))],
        "%0 is used before it is defined",
    ),
    ("own result", [Op("add", I64, T0, (T0, ONE))], "%0 is used before it is defined"),
    (
        "temporary of another type",
        [Op("copy", I32, Temp(0, I32), (Const(1, I32),)), Op("copy", I64, X10, (T0,))],
        "%0 is used before it is defined",
    ),
    ("operand that is no register", [Op("copy", I64, X10, (Register(33),))], "register index 33"),
    ("operand below the registers", [Op("copy", I64, X10, (Register(-1),))], "register index -1"),
    ("destination that is no register", [Op("copy", I64, Register(33), (X10,))], "register index 33"),
    ("constant of another type", [Op("add", I64, X10, (X10, Const(1, I32)))], "operand of type i32 where T"),
    ("register in a narrow op", [Op("add", I32, Temp(0, I32), (X10, Const(1, I32)))], "operand of type i64 where T"),
    ("operands of two types", [Op("eq", I32, FLAG, (Const(1, I32), Const(1, I16)))], "operand of type i16 where T"),
    ("narrow address", [Op("load", I64, X10, (Const(1, I32),))], "operand of type i32 where A"),
    ("narrow address of a store", [Op("store", I32, None, (Const(1, I32), Const(1, I32)))], "type i32 where A"),
    ("stored value of another type", [Op("store", I32, None, (X10, X10))], "operand of type i64 where T"),
    ("condition of many bits", [Op("select", I64, X10, (X10, X10, X10))], "operand of type i64 where i1"),
    ("condition of a store", [Op("store_if", I64, None, (X10, X10, X10))], "operand of type i64 where i1"),
    ("condition of a trap", [Op("trap_if", I64, None, (X10, X10), "fetch")], "operand of type i64 where i1"),
    ("zext to the same type", [Op("zext", I64, X10, (X10,))], "operand of type i64 where S"),
    ("sext to a narrower type", [Op("sext", I32, Temp(0, I32), (X10,))], "operand of type i64 where S"),
    ("trunc to the same type", [Op("trunc", I64, X10, (X10,))], "operand of type i64 where L"),
    ("trunc to a wider type", [definition(Temp(1, I8)), Op("trunc", I64, X10, (Temp(1, I8),))], "type i8 where L"),
    ("no destination", [Op("add", I64, None, (X10, ONE))], "add needs a destination"),
    ("destination of a store", [Op("store", I64, T0, (X10, X10))], "store has no result"),
    ("destination of a trap", [definition(FLAG), Op("trap_if", I64, T0, (FLAG, X10), "fetch")], "has no result"),
    ("flag in a register", [Op("eq", I64, X10, (X10, ONE))], "gives i1, its destination holds i64"),
    ("flag in a wide temporary", [Op("eq", I64, T0, (X10, ONE))], "gives i1, its destination holds i64"),
    ("narrow result in a register", [Op("load", I32, X10, (X10,))], "gives i32, its destination holds i64"),
    ("result in a narrow temporary", [Op("copy", I64, Temp(0, I32), (X10,))], "gives i64, its destination holds i32"),
    ("trap without a kind", [definition(FLAG), Op("trap_if", I64, None, (FLAG, X10))], "trap kind ''"),
    ("trap of an unknown kind", [definition(FLAG), Op("trap_if", I64, None, (FLAG, X10), "bad")], "trap kind 'bad'"),
    ("kind of what is no trap", [Op("copy", I64, X10, (X10,), "fetch")], "copy: trap kind 'fetch'"),
)


@pytest.mark.parametrize(("ops", "message"), [w[1:] for w in WRONG_OPS], ids=[w[0] for w in WRONG_OPS])
def test_wrong_ops_are_refused(ops: list[Op], message: str) -> None:
    with pytest.raises(IRError, match=message) as caught:
        verify_block(block_of(ops))
    assert caught.value.pc == PC


TARGET = Const(PC, I64)
WRONG_TERMINATORS: tuple[tuple[str, Terminator, str], ...] = (
    ("unknown", Terminator("go", (), (TARGET,)), "unknown terminator 'go'"),
    ("jump with an operand", Terminator("jump", (X10,), (TARGET,)), "jump takes 0 operands and 1 targets"),
    ("jump without a target", Terminator("jump"), "jump takes 0 operands and 1 targets"),
    ("jump with two targets", Terminator("jump", (), (TARGET, TARGET)), "jump takes 0 operands and 1 targets"),
    ("branch without a condition", Terminator("branch", (), (TARGET, TARGET)), "branch takes 1 operands and 2"),
    ("branch with one target", Terminator("branch", (FLAG,), (TARGET,)), "branch takes 1 operands and 2 targets"),
    ("branch on many bits", Terminator("branch", (X10,), (TARGET, TARGET)), "operand of type i64 where i1"),
    ("branch on an unknown flag", Terminator("branch", (Temp(7, I1),), (TARGET, TARGET)), "%7 is used before"),
    ("target in a register", Terminator("jump", (), (X10,)), "a target must be a constant of type i64"),
    ("target in a temporary", Terminator("ecall", (), (T0,)), "a target must be a constant of type i64"),
    ("narrow target", Terminator("jump", (), (Const(PC, I32),)), "a target must be a constant of type i64"),
    ("indirect without an address", Terminator("indirect"), "indirect takes 1 operands and 0 targets"),
    ("indirect with a target", Terminator("indirect", (X10,), (TARGET,)), "indirect takes 1 operands and 0 targets"),
    ("indirect to a flag", Terminator("indirect", (FLAG,)), "operand of type i1 where A"),
    ("indirect to a narrow address", Terminator("indirect", (Const(1, I32),)), "operand of type i32 where A"),
    ("indirect through no register", Terminator("indirect", (Register(40),)), "register index 40"),
    ("ebreak with a target", Terminator("ebreak", (), (TARGET,)), "ebreak takes 0 operands and 0 targets"),
    ("ecall without a target", Terminator("ecall"), "ecall takes 0 operands and 1 targets"),
    ("fence_i without a target", Terminator("fence_i"), "fence_i takes 0 operands and 1 targets"),
    ("unsupported with an operand", Terminator("unsupported", (X10,)), "unsupported takes 0 operands"),
    ("trap without an address", Terminator("trap", (), (), "fetch"), "trap takes 1 operands and 0 targets"),
    ("trap without a kind", Terminator("trap", (X10,)), "trap kind ''"),
    ("trap of an unknown kind", Terminator("trap", (X10,), (), "bad"), "trap kind 'bad'"),
)


@pytest.mark.parametrize(
    ("terminator", "message"), [w[1:] for w in WRONG_TERMINATORS], ids=[w[0] for w in WRONG_TERMINATORS]
)
def test_wrong_terminators_are_refused(terminator: Terminator, message: str) -> None:
    with pytest.raises(IRError, match=message) as caught:
        verify_block(block_of([definition(FLAG)], terminator=terminator))
    assert caught.value.pc == PC


def test_a_terminator_is_refused_in_a_block_without_instructions() -> None:
    with pytest.raises(IRError, match="unknown terminator"):
        verify_block(Block(PC, REGISTERS[64, False], [], Terminator("go")))


def _two_instructions() -> Block:
    block = block_of([definition(FLAG)])
    block.instructions.append(GuestInstruction(PC + 4, 2, 1, []))
    return block


def _temporary_of_the_first(block: Block) -> None:
    block.instructions[1].ops = [Op("zext", I64, X10, (FLAG,))]


def _condition_of_the_first(block: Block) -> None:
    block.terminator = Terminator("branch", (FLAG,), (TARGET, TARGET))


def _gap(block: Block) -> None:
    block.instructions[1].pc = PC + 6


def _overlap(block: Block) -> None:
    block.instructions[1].pc = PC + 2


def _start_elsewhere(block: Block) -> None:
    block.pc = PC - 4


def _wrong_op_in_the_second(block: Block) -> None:
    block.instructions[1].ops = [Op("plus", I64, X10, (X10, ONE))]


@pytest.mark.parametrize(
    ("spoil", "message", "pc"),
    [
        (_temporary_of_the_first, "%0 is used before it is defined", PC + 4),
        (_condition_of_the_first, "%0 is used before it is defined", PC + 4),
        (_gap, "instruction at 0x1006 does not follow 0x1004", PC + 6),
        (_overlap, "instruction at 0x1002 does not follow 0x1004", PC + 2),
        (_start_elsewhere, "instruction at 0x1000 does not follow 0xffc", PC),
        (_wrong_op_in_the_second, "unknown op", PC + 4),
    ],
)
def test_wrong_blocks_are_refused(spoil: Callable[[Block], None], message: str, pc: int) -> None:
    block = _two_instructions()
    verify_block(block)
    spoil(block)
    with pytest.raises(IRError, match=message) as caught:
        verify_block(block)
    assert caught.value.pc == pc


@pytest.mark.parametrize("name", ["load", "store"])
def test_flags_are_not_kept_in_memory(name: str) -> None:
    """`i1` is the result of a comparison, never stored in a register or in memory."""
    load = Op("load", I1, Temp(1, I1), (X10,))
    store = Op("store", I1, None, (X10, FLAG))
    with pytest.raises(IRError):
        verify_block(block_of([definition(FLAG), load if name == "load" else store]))


@pytest.mark.parametrize("wrong", [I1, I8, I16, I64])
@pytest.mark.parametrize("name", [n for n, spec in OPS.items() if "T" in spec.operands])
def test_every_op_holds_its_operands_to_its_type(name: str, wrong: Type) -> None:
    """One operand at a time of another type than the op's, in ops on 32 bits."""
    good = ops_with(name, I32, I64)
    *definitions, op = good
    for i, letter in enumerate(OPS[name].operands):
        if letter != "T":
            continue
        other = Temp(9, wrong)
        args = (*op.args[:i], other, *op.args[i + 1 :])
        with pytest.raises(IRError, match=f"operand of type {wrong} where T"):
            verify_block(block_of([*definitions, definition(other), replace(op, args=args)]))
