"""What the analysis of values claims holds for every value it is about."""

from __future__ import annotations

import random
from functools import reduce

import pytest

from tests.differential.asm import encode
from vmjit.decoders.riscv import REGISTERS, Decoder, parse_isa
from vmjit.ir import I8, I16, Block
from vmjit.ir.evaluate import PURE
from vmjit.translators.regions import Region
from vmjit.translators.value_ranges import _RULES, Range, ValueRanges, _sext, anything, exactly

BASE = 0x1000
TWO_OPERANDS = sorted({"add", "sub", "mul", "and", "or", "xor", "shl", "shr"})


def holds(known: Range, value: int) -> bool:
    return known.lo <= value <= known.hi and value % known.step == known.rest and value % known.divisor == 0


def some_values(source: random.Random) -> list[int]:
    """A few values in arithmetic progression, as addresses are."""
    start, step = source.randrange(256), source.choice([0, 1, 2, 3, 4, 8, 16, 64])
    return [(start + i * step) & 0xFF for i in range(source.randrange(1, 5))]


def range_of(values: list[int]) -> Range:
    return reduce(Range.join, map(exactly, values))


@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_rules_hold_for_all_values(name: str) -> None:
    source = random.Random(name)
    for _ in range(2000):
        a, b = some_values(source), some_values(source)
        known = _RULES[name](I8, range_of(a), range_of(b))
        for x in a:
            for y in b:
                result = PURE[name](I8, x, y) & I8.mask
                assert holds(known, result), f"{name} {a} {b}: {x}, {y} gives {result}, not in {known}"


def test_extension_and_truncation() -> None:
    source = random.Random(1)
    for _ in range(2000):
        values = some_values(source)
        wide = [v * 3 for v in values]
        extended, cut = _sext(I16, range_of(values), I8), _RULES["trunc"](I8, range_of(wide))
        assert all(holds(extended, I8.signed(v) & 0xFFFF) for v in values)
        assert all(holds(cut, v & 0xFF) for v in wide)


def region(code: bytes, entries: list[int]) -> Region:
    decoder, blocks, todo = Decoder(parse_isa("rv32i")), dict[int, Block](), list(entries)
    while todo:
        pc = todo.pop()
        if pc not in blocks:
            blocks[pc] = decoder.block(lambda at, size: code[at - BASE :][:size], pc)
            todo += blocks[pc].successors()
    return Region(entries, blocks)


# x10 = 0x2002; then x10 += 8 and a byte is loaded from 1(x10), until x11 is zero.
LOOP = (
    encode("lui", 32, rd=10, imm=2)
    + encode("addi", 32, rd=10, rs1=10, imm=2)
    + encode("addi", 32, rd=10, rs1=10, imm=8)
    + encode("lbu", 32, rd=12, rs1=10, imm=1)
    + encode("bne", 32, rs1=11, imm=-8)
    + encode("ebreak", 32)
)


def test_a_pointer_that_steps_through_a_loop() -> None:
    """Its bounds are given up; its rest modulo its step stays."""
    made = region(LOOP, [BASE])
    ranges = ValueRanges(made, REGISTERS[32, False])
    head = BASE + 8
    assert ranges.register(head, 10) == anything(REGISTERS[32, False].type, 8, 2)
    address = next(ranges.addresses[id(op)] for op in made.blocks[head].ops() if op.name == "load")
    assert (address.step, address.rest) == (8, 3)
    assert ranges.entering(head, [head], 10).inside(0x200A, 1)


def test_nothing_is_known_where_lanes_enter() -> None:
    made = region(LOOP, [BASE, BASE + 8])
    ranges = ValueRanges(made, REGISTERS[32, False])
    assert ranges.register(BASE + 8, 10) == anything(REGISTERS[32, False].type)
    assert ranges.entering(BASE + 8, [BASE + 8], 10) == anything(REGISTERS[32, False].type)
