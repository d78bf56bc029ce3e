"""The reference evaluator, op by op, against values computed by hand."""

from __future__ import annotations

import pytest

from tests.unit.ir_samples import PC, block_of
from vmjit.decoders.riscv import REGISTERS
from vmjit.ir import (
    I1,
    I8,
    I16,
    I32,
    I64,
    OPS,
    Block,
    Const,
    Evaluator,
    GuestInstruction,
    Op,
    Register,
    RegisterSlot,
    Temp,
    Terminator,
    Trap,
    Type,
)
from vmjit.ir.types import TYPES

MIN32, MAX32, ONES32 = 0x80000000, 0x7FFFFFFF, 0xFFFFFFFF
ONES64 = 0xFFFFFFFFFFFFFFFF

# op, type, operands, result. Conversions name the type of their operand behind the op.
VALUES: tuple[tuple[str, Type, tuple[int, ...], int], ...] = (
    ("copy", I32, (ONES32,), ONES32),
    ("add", I8, (0xFF, 0x02), 0x01),
    ("add", I64, (ONES64, 1), 0),
    ("sub", I16, (0, 1), 0xFFFF),
    ("mul", I8, (0x10, 0x11), 0x10),
    ("mul", I32, (0x10001, 0x10001), 0x20001),
    ("mulhs", I8, (0x80, 0x80), 0x40),
    ("mulhs", I32, (ONES32, 1), ONES32),
    ("mulhu", I8, (0xFF, 0xFF), 0xFE),
    ("mulhu", I64, (ONES64, 2), 1),
    ("mulhsu", I8, (0xFF, 0xFF), 0xFF),
    ("mulhsu", I8, (0x7F, 0xFF), 0x7E),
    ("divs", I32, (0xFFFFFFF9, 2), 0xFFFFFFFD),
    ("divs", I32, (7, 0xFFFFFFFE), 0xFFFFFFFD),
    ("divs", I32, (7, 0), ONES32),
    ("divs", I32, (MIN32, ONES32), MIN32),
    ("divs", I8, (0x80, 0xFF), 0x80),
    ("divu", I32, (0xFFFFFFF9, 2), 0x7FFFFFFC),
    ("divu", I16, (7, 0), 0xFFFF),
    ("rems", I32, (0xFFFFFFF9, 2), ONES32),
    ("rems", I32, (7, 0xFFFFFFFE), 1),
    ("rems", I32, (0xFFFFFFF9, 0), 0xFFFFFFF9),
    ("rems", I32, (MIN32, ONES32), 0),
    ("remu", I32, (ONES32, 10), 5),
    ("remu", I8, (0xF9, 0), 0xF9),
    ("and", I8, (0xF0, 0x3C), 0x30),
    ("or", I8, (0xF0, 0x3C), 0xFC),
    ("xor", I8, (0xF0, 0x3C), 0xCC),
    ("shl", I8, (0x81, 1), 0x02),
    ("shl", I8, (0x81, 9), 0x02),
    ("shl", I64, (1, 63), 1 << 63),
    ("shr", I8, (0x81, 1), 0x40),
    ("shr", I32, (MIN32, 63), 1),
    ("sar", I8, (0x81, 1), 0xC0),
    ("sar", I8, (0x41, 9), 0x20),
    ("rotl", I8, (0x81, 1), 0x03),
    ("rotl", I8, (0x81, 8), 0x81),
    ("rotl", I32, (0x12345678, 8), 0x34567812),
    ("rotr", I8, (0x81, 1), 0xC0),
    ("rotr", I32, (0x12345678, 40), 0x78123456),
    ("clz", I8, (0x10,), 3),
    ("clz", I8, (0,), 8),
    ("clz", I64, (1,), 63),
    ("ctz", I8, (0x10,), 4),
    ("ctz", I16, (0,), 16),
    ("popcount", I16, (0xF00F,), 8),
    ("popcount", I64, (ONES64,), 64),
    ("bswap", I16, (0x1234,), 0x3412),
    ("bswap", I32, (0x12345678,), 0x78563412),
    ("clmul", I8, (0x03, 0x03), 0x05),
    ("clmul", I8, (0xFF, 0x02), 0xFE),
    ("clmulh", I8, (0xFF, 0x02), 0x01),
    ("clmulh", I8, (0x80, 0x80), 0x40),
    ("eq", I8, (5, 5), 1),
    ("eq", I8, (5, 6), 0),
    ("ne", I8, (5, 6), 1),
    ("lts", I8, (0xFF, 0), 1),
    ("lts", I8, (0, 0xFF), 0),
    ("ltu", I8, (0xFF, 0), 0),
    ("ltu", I8, (0, 0xFF), 1),
    ("ges", I8, (0xFF, 0), 0),
    ("ges", I8, (5, 5), 1),
    ("geu", I8, (0xFF, 0), 1),
    ("geu", I8, (5, 5), 1),
    ("select", I8, (1, 2, 3), 2),
    ("select", I8, (0, 2, 3), 3),
    ("zext i8", I16, (0x80,), 0x80),
    ("zext i1", I64, (1,), 1),
    ("sext i8", I16, (0x80,), 0xFF80),
    ("sext i8", I64, (0x7F,), 0x7F),
    ("sext i1", I8, (1,), 0xFF),
    ("trunc i64", I32, (0x123456789,), 0x23456789),
    ("trunc i16", I8, (0x1FF,), 0xFF),
)


class NoMemory:
    """Every access faults."""

    def read(self, address: int, size: int) -> bytes:
        raise Trap("read", address)

    def write(self, address: int, data: bytes) -> None:
        raise Trap("write", address)


class Bytes:
    """A few bytes at address 0."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def read(self, address: int, size: int) -> bytes:
        if not 0 <= address <= len(self.data) - size:
            raise Trap("read", address)
        return bytes(self.data[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        if not 0 <= address <= len(self.data) - len(data):
            raise Trap("write", address)
        self.data[address : address + len(data)] = data


def result_of(name: str, own: Type, operands: tuple[int, ...]) -> int:
    """Run one op on constants; its result in full width."""
    name, _, source = name.partition(" ")
    spec = OPS[name]
    types = [I1 if letter == "i1" else TYPES.get(source, own) for letter in spec.operands]
    result = I1 if spec.result == "i1" else own
    ops = [Op(name, own, Temp(0, result), tuple(map(Const, operands, types)))]
    widen = Op("copy" if result is I64 else "zext", I64, Register(10), (Temp(0, result),))
    evaluator = Evaluator([0] * 33, NoMemory())
    evaluator.run(block_of([*ops, widen]))
    return evaluator.registers[10]


@pytest.mark.parametrize(("name", "own", "operands", "result"), VALUES, ids=lambda v: str(v))
def test_values(name: str, own: Type, operands: tuple[int, ...], result: int) -> None:
    assert result_of(name, own, operands) == result


def test_every_pure_op_has_values() -> None:
    assert {name.partition(" ")[0] for name, *_ in VALUES} == {n for n, spec in OPS.items() if spec.pure}


def evaluate(
    ops: list[Op], *, x10: int = 0, memory: Bytes | NoMemory | None = None, retired: int = 0, xlen: int = 64
) -> Evaluator:
    evaluator = Evaluator([0] * 10 + [x10] + [0] * 22, memory or NoMemory(), retired)
    evaluator.run(block_of(ops, xlen))
    return evaluator


@pytest.mark.parametrize(("type_", "value"), [(I8, 0x01), (I16, 0x0201), (I32, 0x04030201), (I64, 0x0807060504030201)])
def test_loads_are_little_endian(type_: Type, value: int) -> None:
    ops = [Op("load", type_, Temp(0, type_), (Register(10),))]
    ops.append(Op("copy" if type_ is I64 else "zext", I64, Register(11), (Temp(0, type_),)))
    assert evaluate(ops, x10=1, memory=Bytes(bytes(range(10)))).registers[11] == value


@pytest.mark.parametrize("type_", [I8, I16, I32, I64])
def test_stores_write_as_many_bytes_as_their_type(type_: Type) -> None:
    memory = Bytes(b"\xee" * 10)
    evaluate([Op("store", type_, None, (Register(10), Const(0x0807060504030201, type_)))], x10=1, memory=memory)
    size = type_.bits // 8
    assert memory.data == b"\xee" + bytes(range(1, size + 1)) + b"\xee" * (9 - size)


@pytest.mark.parametrize("condition", [0, 1])
def test_conditional_stores(condition: int) -> None:
    memory = Bytes(bytes(4))
    evaluate([Op("store_if", I8, None, (Const(condition, I1), Const(2, I64), Const(9, I8)))], memory=memory)
    assert memory.data == bytes([0, 0, 9 * condition, 0])


def test_a_conditional_store_without_its_condition_does_not_access_memory() -> None:
    evaluate([Op("store_if", I8, None, (Const(0, I1), Const(2, I64), Const(9, I8)))])


def test_retired_is_the_count_before_the_instruction() -> None:
    assert evaluate([Op("retired", I64, Register(10), ())], retired=1 << 40).registers[10] == 1 << 40
    narrow = [Op("retired", I32, Temp(0, I32), ()), Op("zext", I64, Register(10), (Temp(0, I32),))]
    assert evaluate(narrow, retired=(1 << 40) + 5).registers[10] == 5


def test_registers_are_as_wide_as_the_guest() -> None:
    assert evaluate([Op("add", I32, Register(10), (Register(10), Const(1, I32)))], x10=ONES32, xlen=32).registers[10] == 0  # fmt: skip


def test_the_zero_register() -> None:
    evaluator = evaluate([Op("copy", I64, Register(0), (Const(5, I64),)), Op("add", I64, Register(10), (Register(0), Register(0)))])  # fmt: skip
    assert evaluator.registers[0] == evaluator.registers[10] == 0


@pytest.mark.parametrize(
    ("op", "kind", "address"),
    [
        (Op("load", I64, Register(11), (Register(10),)), "read", 0x40),
        (Op("store", I64, None, (Register(10), Const(0, I64))), "write", 0x40),
        (Op("store_if", I64, None, (Const(1, I1), Register(10), Const(0, I64))), "write", 0x40),
        (Op("trap_if", I64, None, (Const(1, I1), Const(7, I64)), "misaligned_access"), "misaligned_access", 7),
    ],
)
def test_a_trap_undoes_its_instruction(op: Op, kind: str, address: int) -> None:
    registers = REGISTERS[64, False]
    first = GuestInstruction(PC, 4, 0, [Op("add", I64, Register(10), (Register(10), Const(1, I64)))])
    second = GuestInstruction(PC + 4, 4, 0, [Op("copy", I64, Register(12), (Const(1, I64),)), op])
    block = Block(PC, registers, [first, second], Terminator("jump", (), (Const(PC, I64),)))
    evaluator = Evaluator([0] * 10 + [0x3F] + [0] * 22, NoMemory(), 5)
    with pytest.raises(Trap) as caught:
        evaluator.run(block)
    assert (caught.value.kind, caught.value.address) == (kind, address)
    assert evaluator.pc == PC + 4
    assert evaluator.registers == [0] * 10 + [0x40] + [0] * 22
    assert evaluator.retired == 6


@pytest.mark.parametrize(
    ("terminator", "outcome", "retired"),
    [
        (Terminator("jump", (), (Const(0x40, I64),)), ("jump", 0x40), 1),
        (Terminator("branch", (Const(1, I1),), (Const(0x40, I64), Const(0x44, I64))), ("branch", 0x40), 1),
        (Terminator("branch", (Const(0, I1),), (Const(0x40, I64), Const(0x44, I64))), ("branch", 0x44), 1),
        (Terminator("indirect", (Register(10),), (), "return"), ("indirect", 0x123), 1),
        (Terminator("ecall", (), (Const(0x40, I64),)), ("ecall", PC), 1),
        (Terminator("fence_i", (), (Const(0x40, I64),)), ("fence_i", PC), 1),
        (Terminator("ebreak"), ("ebreak", PC), 0),
        (Terminator("unsupported", (), (), "ffff"), ("unsupported", PC), 0),
    ],
    ids=lambda v: v.name if isinstance(v, Terminator) else "",
)
def test_terminators(terminator: Terminator, outcome: tuple[str, int], retired: int) -> None:
    evaluator = Evaluator([0] * 10 + [0x123] + [0] * 22, NoMemory())
    assert evaluator.run(block_of([], terminator=terminator)) == outcome
    assert evaluator.retired == retired


def test_a_trap_as_the_end_of_a_block() -> None:
    evaluator = Evaluator([0] * 33, NoMemory())
    block = block_of([Op("copy", I64, Register(10), (Const(1, I64),))], terminator=Terminator("trap", (Const(9, I64),), (), "fetch"))  # fmt: skip
    with pytest.raises(Trap, match="fetch at 0x9"):
        evaluator.run(block)
    assert evaluator.registers == [0] * 33
    assert evaluator.retired == 0


def test_slots_have_no_value() -> None:
    with pytest.raises(TypeError, match="no value outside a handler"):
        evaluate([Op("copy", I64, Register(10), (RegisterSlot(0),))])
