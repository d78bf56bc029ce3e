"""Zba, Zbb, Zbs, Zbc and Zicond (unprivileged specification, chapters "B" and "Zicond")."""

from __future__ import annotations

from collections.abc import Callable

from vmjit.decoders.riscv.row import BOTH, RV32, RV64, Meaning, Operands, Table
from vmjit.decoders.riscv.tables.atomic import _larger, _larger_unsigned, _smaller, _smaller_unsigned
from vmjit.decoders.riscv.tables.base import with_register, with_shamt, word
from vmjit.ir.builder import Builder
from vmjit.ir.types import I8, I16, I32, Type
from vmjit.ir.values import Operand

TABLE = Table("zbb")
_row = TABLE.row

Unary = Callable[[Builder, Operand], Operand]


def _unary(compute: Unary) -> Meaning:
    return lambda b, o: b.set(o.rd, compute(b, o.rs1))


def _unary_word(compute: Unary) -> Meaning:
    return lambda b, o: b.set(o.rd, b.sext(compute(b, b.trunc(o.rs1, I32))))


def _shifted_add(amount: int, *, unsigned_word: bool) -> Meaning:
    def meaning(b: Builder, o: Operands) -> None:
        x: Operand = b.zext(b.trunc(o.rs1, I32)) if unsigned_word else o.rs1
        b.set(o.rd, b.add(b.shl(x, amount) if amount else x, o.rs2))

    return meaning


def _or_combine(b: Builder, x: Operand) -> Operand:
    """orc.b: each byte becomes 0xff if any of its bits is set. Bit 7 of each byte collects the others, carry-free."""
    ones = int.from_bytes(b"\x01" * 8, "little")
    collected = b.or_(b.add(b.and_(x, ones * 0x7F), ones * 0x7F), x)
    return b.mul(b.and_(b.shr(collected, 7), ones), 0xFF)


def _narrow(type_: Type, *, signed: bool) -> Unary:
    def compute(b: Builder, x: Operand) -> Operand:
        low = b.trunc(x, type_)
        return b.sext(low) if signed else b.zext(low)

    return compute


def _bit(b: Builder, index: Operand) -> Operand:
    return b.shl(b.const(1), index)


_SINGLE_BIT = (
    ("bclr", "0100100", "001", lambda b, x, i: b.and_(x, b.not_(_bit(b, i)))),
    ("bext", "0100100", "101", lambda b, x, i: b.and_(b.shr(x, i), 1)),
    ("binv", "0110100", "001", lambda b, x, i: b.xor(x, _bit(b, i))),
    ("bset", "0010100", "001", lambda b, x, i: b.or_(x, _bit(b, i))),
)

# Zba
for _amount, _funct3 in ((1, "010"), (2, "100"), (3, "110")):
    _row(f"sh{_amount}add", f"0010000 rs2 rs1 {_funct3} rd 0110011", "rd, rs1, rs2",
         _shifted_add(_amount, unsigned_word=False), extensions="zba")  # fmt: skip
    _row(f"sh{_amount}add.uw", f"0010000 rs2 rs1 {_funct3} rd 0111011", "rd, rs1, rs2",
         _shifted_add(_amount, unsigned_word=True), xlens=RV64, extensions="zba")  # fmt: skip
_row("add.uw", "0000100 rs2 rs1 000 rd 0111011", "rd, rs1, rs2", _shifted_add(0, unsigned_word=True), xlens=RV64,
     extensions="zba")  # fmt: skip
_row("slli.uw", "000010 shamt[5:0] rs1 001 rd 0011011", "rd, rs1, shamt",
     lambda b, o: b.set(o.rd, b.shl(b.zext(b.trunc(o.rs1, I32)), o.shamt)), xlens=RV64, extensions="zba")  # fmt: skip

# Zbb
for _name, _funct7, _funct3, _compute in (
    ("andn", "0100000", "111", lambda b, x, y: b.and_(x, b.not_(y))),
    ("orn", "0100000", "110", lambda b, x, y: b.or_(x, b.not_(y))),
    ("xnor", "0100000", "100", lambda b, x, y: b.not_(b.xor(x, y))),
    ("min", "0000101", "100", _smaller),
    ("minu", "0000101", "101", _smaller_unsigned),
    ("max", "0000101", "110", _larger),
    ("maxu", "0000101", "111", _larger_unsigned),
    ("rol", "0110000", "001", Builder.rotl),
    ("ror", "0110000", "101", Builder.rotr),
):
    _row(_name, f"{_funct7} rs2 rs1 {_funct3} rd 0110011", "rd, rs1, rs2", with_register(_compute))
_row("rolw", "0110000 rs2 rs1 001 rd 0111011", "rd, rs1, rs2", with_register(word(Builder.rotl)), xlens=RV64)
_row("rorw", "0110000 rs2 rs1 101 rd 0111011", "rd, rs1, rs2", with_register(word(Builder.rotr)), xlens=RV64)
_row("rori", "0110000 shamt[4:0] rs1 101 rd 0010011", "rd, rs1, shamt", with_shamt(Builder.rotr), xlens=RV32)
_row("rori", "011000 shamt[5:0] rs1 101 rd 0010011", "rd, rs1, shamt", with_shamt(Builder.rotr), xlens=RV64)
_row("roriw", "0110000 shamt[4:0] rs1 101 rd 0011011", "rd, rs1, shamt", with_shamt(word(Builder.rotr)), xlens=RV64)
for _name, _funct12, _count in (
    ("clz", "011000000000", Builder.clz),
    ("ctz", "011000000001", Builder.ctz),
    ("cpop", "011000000010", Builder.popcount),
):
    _row(_name, f"{_funct12} rs1 001 rd 0010011", "rd, rs1", _unary(_count))
    _row(f"{_name}w", f"{_funct12} rs1 001 rd 0011011", "rd, rs1", _unary_word(_count), xlens=RV64)
_row("sext.b", "011000000100 rs1 001 rd 0010011", "rd, rs1", _unary(_narrow(I8, signed=True)))
_row("sext.h", "011000000101 rs1 001 rd 0010011", "rd, rs1", _unary(_narrow(I16, signed=True)))
_row("zext.h", "000010000000 rs1 100 rd 0110011", "rd, rs1", _unary(_narrow(I16, signed=False)), xlens=RV32)
_row("zext.h", "000010000000 rs1 100 rd 0111011", "rd, rs1", _unary(_narrow(I16, signed=False)), xlens=RV64)
_row("orc.b", "001010000111 rs1 101 rd 0010011", "rd, rs1", _unary(_or_combine))
_row("rev8", "011010011000 rs1 101 rd 0010011", "rd, rs1", _unary(Builder.bswap), xlens=RV32)
_row("rev8", "011010111000 rs1 101 rd 0010011", "rd, rs1", _unary(Builder.bswap), xlens=RV64)

# Zbs
for _name, _funct7, _funct3, _compute in _SINGLE_BIT:
    _row(_name, f"{_funct7} rs2 rs1 {_funct3} rd 0110011", "rd, rs1, rs2", with_register(_compute), extensions="zbs")
    _row(f"{_name}i", f"{_funct7} shamt[4:0] rs1 {_funct3} rd 0010011", "rd, rs1, shamt", with_shamt(_compute),
         xlens=RV32, extensions="zbs")  # fmt: skip
    _row(f"{_name}i", f"{_funct7[:-1]} shamt[5:0] rs1 {_funct3} rd 0010011", "rd, rs1, shamt", with_shamt(_compute),
         xlens=RV64, extensions="zbs")  # fmt: skip


# Zbc
def _clmulr(b: Builder, x: Operand, y: Operand) -> Operand:
    """Bits 2*xlen-2 to xlen-1 of the product: the high half and the top bit of the low one."""
    return b.or_(b.shl(b.clmulh(x, y), 1), b.shr(b.clmul(x, y), b.xlen.bits - 1))


for _name, _funct3, _compute in (
    ("clmul", "001", Builder.clmul),
    ("clmulr", "010", _clmulr),
    ("clmulh", "011", Builder.clmulh),
):
    _row(_name, f"0000101 rs2 rs1 {_funct3} rd 0110011", "rd, rs1, rs2", with_register(_compute), extensions="zbc")

# Zicond
_row("czero.eqz", "0000111 rs2 rs1 101 rd 0110011", "rd, rs1, rs2",
     lambda b, o: b.set(o.rd, b.select(b.eq(o.rs2, 0), 0, o.rs1)), xlens=BOTH, extensions="zicond")  # fmt: skip
_row("czero.nez", "0000111 rs2 rs1 111 rd 0110011", "rd, rs1, rs2",
     lambda b, o: b.set(o.rd, b.select(b.ne(o.rs2, 0), 0, o.rs1)), xlens=BOTH, extensions="zicond")  # fmt: skip
