"""The builder: what rows write, and what becomes of it."""

from __future__ import annotations

import inspect

import pytest

from vmjit.decoders.riscv import REGISTERS
from vmjit.ir import (
    I1,
    I8,
    I16,
    I32,
    I64,
    OPS,
    TERMINATORS,
    Builder,
    Const,
    ConstSlot,
    Op,
    Register,
    RegisterSlot,
    Temp,
    Terminator,
    Type,
)
from vmjit.ir.ops import FLOAT_OPS

X0, X5, X10, X11 = Register(0), Register(5), Register(10), Register(11)


@pytest.fixture
def b() -> Builder:
    return Builder(REGISTERS[64, False])


def test_set_lets_the_last_op_write_the_register(b: Builder) -> None:
    b.set(X10, b.add(X10, X11))
    assert b.finish() == [Op("add", I64, X10, (X10, X11))]


def test_set_copies_what_was_not_computed_last(b: Builder) -> None:
    first = b.add(X10, X11)
    second = b.sub(X10, X11)
    b.set(X5, first)
    b.set(X10, second)
    assert b.finish() == [
        Op("add", I64, Temp(0, I64), (X10, X11)),
        Op("sub", I64, Temp(1, I64), (X10, X11)),
        Op("copy", I64, X5, (Temp(0, I64),)),
        Op("copy", I64, X10, (Temp(1, I64),)),
    ]


def test_set_copies_what_is_used_elsewhere(b: Builder) -> None:
    """A temporary that another op reads must stay one."""
    value = b.add(X10, X11)
    b.store(X5, value)
    b.set(X10, value)
    assert b.finish() == [
        Op("add", I64, Temp(0, I64), (X10, X11)),
        Op("store", I64, None, (X5, Temp(0, I64))),
        Op("copy", I64, X10, (Temp(0, I64),)),
    ]


@pytest.mark.parametrize("value", [X11, Const(5, I64), ConstSlot(0, I64), RegisterSlot(1)])
def test_set_copies_what_is_no_temporary(b: Builder, value: Register | Const | ConstSlot | RegisterSlot) -> None:
    b.set(X10, value)
    assert b.finish() == [Op("copy", I64, X10, (value,))]


def test_set_takes_numbers(b: Builder) -> None:
    b.set(X10, -1)
    assert b.finish() == [Op("copy", I64, X10, (Const(0xFFFFFFFFFFFFFFFF, I64),))]


def test_set_of_a_slot(b: Builder) -> None:
    b.set(RegisterSlot(0), b.add(RegisterSlot(1), ConstSlot(0, I64)))
    assert b.finish() == [Op("add", I64, RegisterSlot(0), (RegisterSlot(1), ConstSlot(0, I64)))]


def test_set_of_the_zero_register_writes_nothing(b: Builder) -> None:
    b.set(X0, b.add(X10, X11))
    b.set(X0, 5)
    assert b.finish() == []


def test_a_load_stays_when_its_result_goes_nowhere(b: Builder) -> None:
    b.set(X0, b.sext(b.load(b.add(X10, 4), I32)))
    assert b.finish() == [
        Op("add", I64, Temp(0, I64), (X10, Const(4, I64))),
        Op("load", I32, Temp(1, I32), (Temp(0, I64),)),
    ]


@pytest.mark.parametrize("dest", [Temp(0, I64), Const(1, I64), ConstSlot(0, I64)])
def test_set_writes_registers_only(b: Builder, dest: Temp | Const | ConstSlot) -> None:
    with pytest.raises(TypeError, match="set needs a guest register"):
        b.set(dest, 1)


def test_unused_pure_ops_are_dropped_with_what_they_use(b: Builder) -> None:
    b.mul(b.add(X10, 1), b.sub(X10, 1))
    b.set(X10, b.xor(X10, X11))
    assert b.finish() == [Op("xor", I64, X10, (X10, X11))]


def test_what_the_terminator_uses_is_kept(b: Builder) -> None:
    condition = b.eq(X10, X11)
    b.branch(condition, b.const(8), b.const(4))
    assert b.finish() == [Op("eq", I64, Temp(0, I1), (X10, X11))]
    assert b.terminator == Terminator("branch", (Temp(0, I1),), (Const(8, I64), Const(4, I64)))


def test_effects_are_kept(b: Builder) -> None:
    b.retired(I64)
    b.trap_if(b.ne(X10, 0), "fetch", X10)
    b.store_if(b.ne(X10, 1), X10, X11)
    assert [op.name for op in b.finish()] == ["retired", "ne", "trap_if", "ne", "store_if"]


def test_writes_of_registers_are_kept(b: Builder) -> None:
    """Even where the register is written again."""
    b.set(X10, b.add(X10, 1))
    b.set(X10, b.add(X10, 2))
    assert len(b.finish()) == 2


# -- types


def test_numbers_take_the_type_of_the_operand_beside_them(b: Builder) -> None:
    narrow = b.trunc(X10, I8)
    b.store(X10, b.add(narrow, -1))
    b.store(X10, b.sub(1, narrow))
    _, add, _, sub, _ = b.finish()
    assert (add.type, add.args) == (I8, (narrow, Const(0xFF, I8)))
    assert (sub.type, sub.args) == (I8, (Const(1, I8), narrow))


def test_numbers_alone_take_the_type_of_the_registers() -> None:
    for xlen, type_ in ((32, I32), (64, I64)):
        b = Builder(REGISTERS[xlen, False])
        b.set(X10, b.add(1, 2))
        assert b.finish() == [Op("add", type_, X10, (Const(1, type_), Const(2, type_)))]


def test_comparisons_give_a_flag(b: Builder) -> None:
    for name in ("eq", "ne", "lts", "ltu", "ges", "geu"):
        assert getattr(b, name)(X10, 1).type is I1
    assert {op.type for op in b.ops} == {I64}


def test_select_takes_the_type_of_its_values(b: Builder) -> None:
    condition = b.eq(X10, X11)
    assert b.select(condition, 1, b.trunc(X10, I16)).type is I16
    assert b.select(condition, 1, 2).type is I64
    assert b.ops[-2].args[1] == Const(1, I16)


@pytest.mark.parametrize("xlen", [32, 64])
def test_types_of_operands(xlen: int) -> None:
    b = Builder(REGISTERS[xlen, False])
    own = REGISTERS[xlen, False].type
    assert b.type_of(X10) == b.type_of(RegisterSlot(0)) == b.const(1).type == b.xlen == own
    assert b.type_of(Const(1, I8)) is b.type_of(Temp(0, I8)) is b.type_of(ConstSlot(0, I8)) is I8


# -- conversions


@pytest.mark.parametrize("name", ["zext", "sext", "trunc"])
def test_conversions_to_the_same_type_are_the_value_itself(b: Builder, name: str) -> None:
    assert getattr(b, name)(X10, I64) == X10
    assert b.zext(X10) == b.sext(X10) == X10
    assert b.ops == []


@pytest.mark.parametrize(
    ("name", "value", "narrow", "wide", "result"),
    [
        ("zext", 0x80, I8, I64, 0x80),
        ("sext", 0x80, I8, I64, 0xFFFFFFFFFFFFFF80),
        ("sext", 0x7F, I8, I64, 0x7F),
        ("sext", 0x80, I8, I16, 0xFF80),
        ("sext", 1, I1, I32, 0xFFFFFFFF),
        ("zext", 1, I1, I32, 1),
        ("sext", 0x80000000, I32, I64, 0xFFFFFFFF80000000),
        ("trunc", 0x123456789, I64, I32, 0x23456789),
        ("trunc", 0x1FF, I16, I8, 0xFF),
    ],
)
def test_conversions_of_constants_are_constants(
    b: Builder, name: str, value: int, narrow: Type, wide: Type, result: int
) -> None:
    assert getattr(b, name)(Const(value, narrow), wide) == Const(result, wide)
    assert b.ops == []


def test_other_conversions_are_ops(b: Builder) -> None:
    low = b.trunc(X10, I16)
    b.set(X10, b.sext(low))
    b.set(X11, b.zext(low))
    assert b.finish() == [
        Op("trunc", I16, Temp(0, I16), (X10,)),
        Op("sext", I64, X10, (Temp(0, I16),)),
        Op("zext", I64, X11, (Temp(0, I16),)),
    ]


def test_conversions_of_constant_slots_are_ops(b: Builder) -> None:
    """What a slot holds is not known when its template is built."""
    b.set(X10, b.sext(b.trunc(ConstSlot(0, I64), I32)))
    assert [op.name for op in b.finish()] == ["trunc", "sext"]


# -- the table


def test_every_op_has_a_method() -> None:
    by_hand = {"copy", "accrued", *FLOAT_OPS}  # written by set alone, and by float_op
    methods = {name.rstrip("_") for name, _ in inspect.getmembers(Builder, inspect.isfunction)}
    assert set(OPS) - by_hand <= methods


@pytest.mark.parametrize("name", [n for n, spec in OPS.items() if set(spec.operands) == {"T"} and n != "copy"])
def test_methods_emit_the_op_of_their_name(b: Builder, name: str) -> None:
    method = getattr(b, name, None) or getattr(b, f"{name}_")
    args = (X10, X11)[: len(OPS[name].operands)]
    result = method(*args)
    assert b.ops == [Op(name, I64, result, args)]
    assert result.type == (I1 if OPS[name].result == "i1" else I64)


def test_not_is_exclusive_or_with_ones(b: Builder) -> None:
    b.set(X10, b.not_(X11))
    assert b.finish() == [Op("xor", I64, X10, (X11, Const(-1, I64)))]


def test_terminators(b: Builder) -> None:
    made = []
    b.jump(b.const(4))
    made.append(b.terminator)
    b.branch(Const(1, I1), b.const(4), b.const(8))
    made.append(b.terminator)
    b.indirect(X10, "return")
    made.append(b.terminator)
    b.trap("fetch", X10)
    made.append(b.terminator)
    for name in ("ecall", "fence_i"):
        b.stop(name, b.const(4))
        made.append(b.terminator)
    b.stop("ebreak")
    made.append(b.terminator)
    b.stop("unsupported", data="ffff")
    made.append(b.terminator)
    four, eight = Const(4, I64), Const(8, I64)
    assert made == [
        Terminator("jump", (), (four,)),
        Terminator("branch", (Const(1, I1),), (four, eight)),
        Terminator("indirect", (X10,), (), "return"),
        Terminator("trap", (X10,), (), "fetch"),
        Terminator("ecall", (), (four,)),
        Terminator("fence_i", (), (four,)),
        Terminator("ebreak"),
        Terminator("unsupported", (), (), "ffff"),
    ]
    assert {t.name for t in made if t is not None} == set(TERMINATORS)
