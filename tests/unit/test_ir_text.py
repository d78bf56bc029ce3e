"""The text form: everything round-trips, and what cannot be read is refused with its line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ir_samples import INTEGERS, PC, block_of, definition, ops_with, sources_of, terminator_of, types_of
from vmjit.decoders.riscv import REGISTERS
from vmjit.errors import IRError
from vmjit.ir import (
    I1,
    I8,
    I64,
    OPS,
    TERMINATORS,
    Block,
    Const,
    ConstSlot,
    GuestInstruction,
    Op,
    Operand,
    Register,
    RegisterSlot,
    Temp,
    Terminator,
    Type,
    format_block,
    parse_block,
    verify_block,
)
from vmjit.ir.ops import TRAP_KINDS
from vmjit.ir.text import format_op, format_operand, format_terminator

REGISTERS64 = REGISTERS[64, False]


def assert_round_trips(block: Block) -> None:
    verify_block(block)
    text = format_block(block)
    again = parse_block(text)
    assert again == block, text
    assert format_block(again) == text


@pytest.mark.parametrize("xlen", [32, 64])
@pytest.mark.parametrize("name", OPS)
def test_every_op_round_trips(name: str, xlen: int) -> None:
    for own in types_of(name):
        assert_round_trips(block_of(ops_with(name, own, REGISTERS[xlen, False].type), xlen))


@pytest.mark.parametrize("xlen", [32, 64])
@pytest.mark.parametrize("name", TERMINATORS)
def test_every_terminator_round_trips(name: str, xlen: int) -> None:
    ops = [definition(Temp(0, I1))]
    assert_round_trips(block_of(ops, xlen, terminator_of(name, REGISTERS[xlen, False].type)))


@pytest.mark.parametrize("data", ["", "call", "return"])
def test_hints_round_trip(data: str) -> None:
    assert_round_trips(block_of([], terminator=Terminator("indirect", (Register(1),), (), data)))


@pytest.mark.parametrize("kind", TRAP_KINDS)
def test_trap_kinds_round_trip(kind: str) -> None:
    ops = [definition(Temp(0, I1)), Op("trap_if", I64, None, (Temp(0, I1), Register(10)), kind)]
    assert_round_trips(block_of(ops, terminator=Terminator("trap", (Const(5, I64),), (), kind)))


@pytest.mark.parametrize("index", range(33))
def test_registers_round_trip(index: int) -> None:
    assert_round_trips(block_of([Op("add", I64, Register(index), (Register(index), Const(1, I64)))]))


def test_the_form_of_the_documentation() -> None:
    text = """\
block 0x10074 riscv64 {
0x10074 4 0x00150513            ; addi a0, a0, 1
    x10 = add.i64 x10, 0x1
0x10078 4 0xfe051ee3            ; bnez a0, 0x10074
    %0 = ne.i64 x10, x0
    branch %0 -> 0x10074, 0x1007c
}
"""
    block = parse_block(text)
    assert format_block(block) == text
    first, second = block.instructions
    assert (block.pc, block.end, block.registers) == (0x10074, 0x1007C, REGISTERS64)
    assert first == GuestInstruction(
        0x10074, 4, 0x150513, [Op("add", I64, Register(10), (Register(10), Const(1, I64)))], "addi a0, a0, 1"
    )
    assert second.ops == [Op("ne", I64, Temp(0, I1), (Register(10), Register(0)))]
    assert block.terminator == Terminator("branch", (Temp(0, I1),), (Const(0x10074, I64), Const(0x1007C, I64)))
    assert block.successors() == (0x10074, 0x1007C)


def test_what_may_be_written_in_another_way() -> None:
    """Blank lines and comments, ABI names, decimal and negative numbers, other spacing."""
    block = parse_block(
        "; a comment first\n\nblock 4096 riscv64 {\n0x1000 4 0x13 ; nop\n\n; a comment\n"
        "  a0 = add.i64   sp,-1 ; a comment\njump -> 4100\n}\n"
    )
    assert block.instructions[0].ops == [Op("add", I64, Register(10), (Register(2), Const(-1, I64)))]
    assert block.terminator.targets == (Const(0x1004, I64),)
    assert block.instructions[0].text == "nop"


def test_slots_print() -> None:
    op = Op("add", I64, RegisterSlot(0), (RegisterSlot(1), ConstSlot(0, I64)))
    assert format_op(op, REGISTERS64) == "r{0} = add.i64 r{1}, k{0}"
    assert format_operand(Temp(3, I8), REGISTERS64) == "%3"
    jump = Terminator("jump", (), (ConstSlot(1, I64),))
    assert format_terminator(jump, REGISTERS64) == "jump -> k{1}"


def test_slots_are_not_read() -> None:
    with pytest.raises(IRError, match="line 3"):
        parse_block(format_block(block_of([Op("copy", I64, Register(1), (ConstSlot(0, I64),))])))


def test_a_block_without_instructions_round_trips() -> None:
    block = Block(PC, REGISTERS64, [], Terminator("jump", (), (Const(PC, I64),)))
    assert parse_block(format_block(block)) == block


@pytest.mark.parametrize(("name", "narrow"), [("zext", I8), ("sext", I8), ("sext", I1), ("trunc", I64)])
def test_constants_of_a_type_that_the_text_does_not_say(name: str, narrow: Type) -> None:
    """`sext.i64 0x80` does not say how wide 0x80 is: such IR is either refused or printed so that it can be read."""
    own = I8 if name == "trunc" else I64
    block = block_of([Op(name, own, Temp(0, own), (Const(0x80, narrow),))])
    with contextlib.suppress(IRError):
        verify_block(block)
        assert_round_trips(block)


# -- random blocks


@st.composite
def random_ops(draw: st.DrawFn, xlen: Type) -> list[Op]:
    """Ops that hold against the table, with operands of every kind."""
    ops: list[Op] = []
    temps: list[Temp] = []

    def operand(type_: Type, *, constant: bool) -> Operand:
        choices: list[Operand] = [t for t in temps if t.type == type_]
        if constant or not choices:
            choices.append(Const(draw(st.integers(0, type_.mask)), type_))
        if type_ == xlen:
            choices.append(Register(draw(st.integers(0, 32))))
        return draw(st.sampled_from(choices))

    for _ in range(draw(st.integers(0, 8))):
        name = draw(st.sampled_from(sorted(OPS)))
        own = draw(st.sampled_from(types_of(name)))
        args = []
        for letter in OPS[name].operands:
            sources = sources_of(letter, own, xlen)
            if letter in "SLF":  # constants there have no type in the text
                known = [t for t in temps if t.type in sources]
                if not known:
                    known = [Temp(len(ops), sources[0])]
                    ops.append(definition(known[0]))
                    temps += known
                args.append(draw(st.sampled_from(known)))
            else:
                args.append(operand(sources[0], constant=True))
        dest: Temp | Register | None = None
        if OPS[name].result:
            dest = Temp(len(ops), I1 if OPS[name].result == "i1" else own)
            if dest.type == xlen and draw(st.booleans()):
                dest = Register(draw(st.integers(0, 32)))
            else:
                temps.append(dest)
        kind = draw(st.sampled_from(TRAP_KINDS)) if name == "trap_if" else ""
        ops.append(Op(name, own, dest, tuple(args), kind))
    return ops


@st.composite
def random_blocks(draw: st.DrawFn) -> Block:
    registers = REGISTERS[draw(st.sampled_from((32, 64))), draw(st.booleans())]
    pc = draw(st.integers(0, registers.type.mask - 64)) & ~1
    block = Block(pc, registers)
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.sampled_from((2, 4)))
        raw = draw(st.integers(0, (1 << 8 * size) - 1))
        text = draw(st.sampled_from(("", "nop", "addi a0, a0, -1", "lw a0, 4(a1)", ".2byte 0x0")))
        block.instructions.append(GuestInstruction(block.end, size, raw, draw(random_ops(registers.type)), text))
    name = draw(st.sampled_from(sorted(TERMINATORS)))
    conditions = [o.dest for o in block.instructions[-1].ops if isinstance(o.dest, Temp) and o.dest.type is I1]
    condition = draw(st.sampled_from([*conditions, Const(1, I1)]))
    block.terminator = terminator_of(name, registers.type, condition)
    return block


@given(random_blocks())
def test_random_blocks_round_trip(block: Block) -> None:
    assert_round_trips(block)


# -- malformed text

GOOD = (
    "block 0x1000 riscv64 {",
    "0x1000 4 0x00150513 ; addi a0, a0, 1",
    "    x10 = add.i64 x10, 0x1",
    "    %0 = ne.i64 x10, x0",
    "    branch %0 -> 0x1000, 0x1004",
    "}",
)

# (line that is wrong, counted from 1, and what stands there)
MALFORMED = (
    (1, "blok 0x1000 riscv64 {"),
    (1, "block 0x1000 riscv64"),
    (1, "block 0x1000 {"),
    (1, "block 0x1000 mips32 {"),
    (1, "block here riscv64 {"),
    (1, "block 0x riscv64 {"),
    (1, "x10 = add.i64 x10, 0x1"),
    (2, "    x10 = copy.i64 x11"),
    (2, "0x1000 4"),
    (2, "0x1000 four 0x00150513"),
    (2, "0x1000 4 0x0015051x"),
    (2, "0x1000 4 0x00150513 addi"),
    (3, "    x10 = plus.i64 x10, 0x1"),
    (3, "    x10 = add.i63 x10, 0x1"),
    (3, "    x10 = add x10, 0x1"),
    (3, "    x10 = add.i64 x10"),
    (3, "    x10 = add.i64"),
    (3, "    x10 = add.i64 x10, 0x1, 0x2"),
    (3, "    x10 = add.i64 x10 0x1"),
    (3, "    x10 = add.i64 x10,"),
    (3, "    x10 = add.i64 , x10"),
    (3, "    x10 = add.i64 x10, one"),
    (3, "    x10 = add.i64 x10, 0y1"),
    (3, "    x10 = add.i64 x10, 012"),
    (3, "    x10 = add.i64 x10, x32"),
    (3, "    x10 = add.i64 x10, %1"),
    (3, "    x10 = add.i64 x10, %"),
    (3, "    x10 = add.i64 x10, %one"),
    (3, "    x10 = add.i64 x10, r{0}"),
    (3, "    x10 = add.i64 x10, k{0}"),
    (3, "    x32 = add.i64 x10, 0x1"),
    (3, "    0x1 = add.i64 x10, 0x1"),
    (3, "    % = add.i64 x10, 0x1"),
    (3, "    %one = add.i64 x10, 0x1"),
    (3, "    r{0} = add.i64 x10, 0x1"),
    (3, "    x10 add.i64 x10, 0x1"),
    (3, "    = add.i64 x10, 0x1"),
    (3, "    !"),
    (5, "    branch %1 -> 0x1000, 0x1004"),
    (5, "    branch %0, %0 -> 0x1000, 0x1004"),
    (5, "    branch -> 0x1000, 0x1004"),
    (5, "    branch %0 -> 0x1000, there"),
    (5, "    branch %0 -> 0x1000,"),
    (5, "    jump x10 -> 0x1000"),
    (5, "    jump 0x1000"),
    (5, "    indirect"),
    (5, "    ebreak x10"),
    (5, "    go -> 0x1000"),
    (5, "    Jump -> 0x1000"),
)


@pytest.mark.parametrize(("line", "text"), MALFORMED)
def test_malformed_text_is_refused_with_its_line(line: int, text: str) -> None:
    assert isinstance(parse_block("\n".join(GOOD)), Block)
    lines = list(GOOD)
    lines[line - 1] = text
    with pytest.raises(IRError, match=rf"^line {line}: "):
        parse_block("\n".join(lines))


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        ((), 0),
        (("", "; nothing but a comment"), 2),
        (GOOD[:5], 5),
        (GOOD[:4], 4),
        ((*GOOD[:4], "}"), 5),
        ((*GOOD[:5], GOOD[4], "}"), 6),
        ((*GOOD[:5], GOOD[2], "}"), 6),
        ((*GOOD[:5], "0x1004 4 0x00000013", "}"), 6),
    ],
    ids=[
        "nothing",
        "no block",
        "no end",
        "no terminator and no end",
        "no terminator",
        "two terminators",
        "an op behind the terminator",
        "an instruction behind the terminator",
    ],
)
def test_malformed_blocks_are_refused_with_a_line(lines: tuple[str, ...], number: int) -> None:
    with pytest.raises(IRError, match=rf"^line {number}: "):
        parse_block("\n".join(lines))


def test_cut_text_is_refused_or_still_a_block() -> None:
    """Whatever a text lost, it raises nothing but `IRError`."""
    text = "\n".join(GOOD)
    for start in range(len(text)):
        for count in range(1, 8):
            with contextlib.suppress(IRError):
                assert isinstance(parse_block(text[:start] + text[start + count :]), Block)


def test_temporaries_end_with_their_instruction() -> None:
    lines = [*GOOD[:4], "0x1004 4 0x00000013", "    x10 = zext.i64 %0", "    jump -> 0x1008", "}"]
    with pytest.raises(IRError, match=r"line 6: temporary %0 is not defined"):
        parse_block("\n".join(lines))


@pytest.mark.parametrize("type_", INTEGERS)
def test_constants_take_the_type_of_their_place(type_: Type) -> None:
    text = (
        "block 0x0 riscv64 {\n0x0 4 0x00000013\n"
        f"    %0 = eq.{type_} 0x1, 0x2\n    %1 = select.{type_} 0x1, 0x3, 0x4\n    store.{type_} 0x5, 0x6\n"
        "    branch 0x0 -> 0x7, 0x8\n}\n"
    )
    compare, select, store = parse_block(text).instructions[0].ops
    assert compare.args == (Const(1, type_), Const(2, type_))
    assert select.args == (Const(1, I1), Const(3, type_), Const(4, type_))
    assert store.args == (Const(5, I64), Const(6, type_))
    assert parse_block(text).terminator.args == (Const(0, I1),)
