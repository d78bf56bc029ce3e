"""A: Zalrsc and Zaamo (unprivileged specification, chapter "A").

A lane is one hart with its own memory, so an atomic operation is a load, a computation and a store. Ordering bits
do not matter. Addresses must be naturally aligned; a misaligned one stops the lane (there is no Zam).
"""

from __future__ import annotations

from collections.abc import Callable

from vmjit.decoders.riscv.registers import RESERVATION
from vmjit.decoders.riscv.row import BOTH, RV64, Meaning, Operands, Table
from vmjit.ir.builder import Builder
from vmjit.ir.types import I32, I64, Type
from vmjit.ir.values import Operand, Register

TABLE = Table("zaamo")

_RESERVATION = Register(RESERVATION)


def _require_aligned(b: Builder, address: Operand, type_: Type) -> None:
    b.trap_if(b.ne(b.and_(address, type_.bits // 8 - 1), 0), "misaligned_access", address)


def _load_reserved(type_: Type) -> Meaning:
    def meaning(b: Builder, o: Operands) -> None:
        _require_aligned(b, o.rs1, type_)
        value = b.load(o.rs1, type_)
        b.set(_RESERVATION, b.add(o.rs1, 1))
        b.set(o.rd, b.sext(value))

    return meaning


def _store_conditional(type_: Type) -> Meaning:
    def meaning(b: Builder, o: Operands) -> None:
        _require_aligned(b, o.rs1, type_)
        reserved = b.eq(_RESERVATION, b.add(o.rs1, 1))
        failed = b.select(reserved, b.const(0), b.const(1))
        b.store_if(reserved, o.rs1, b.trunc(o.rs2, type_))
        b.set(_RESERVATION, 0)
        b.set(o.rd, failed)

    return meaning


def _amo(type_: Type, compute: Callable[[Builder, Operand, Operand], Operand]) -> Meaning:
    def meaning(b: Builder, o: Operands) -> None:
        _require_aligned(b, o.rs1, type_)
        old = b.load(o.rs1, type_)
        b.store(o.rs1, compute(b, old, b.trunc(o.rs2, type_)))
        b.set(o.rd, b.sext(old))

    return meaning


def _smaller(b: Builder, x: Operand, y: Operand) -> Operand:
    return b.select(b.lts(x, y), x, y)


def _larger(b: Builder, x: Operand, y: Operand) -> Operand:
    return b.select(b.lts(x, y), y, x)


def _smaller_unsigned(b: Builder, x: Operand, y: Operand) -> Operand:
    return b.select(b.ltu(x, y), x, y)


def _larger_unsigned(b: Builder, x: Operand, y: Operand) -> Operand:
    return b.select(b.ltu(x, y), y, x)


for _suffix, _funct3, _type, _xlens in (("w", "010", I32, BOTH), ("d", "011", I64, RV64)):
    _tail = f"rs1 {_funct3} rd 0101111"
    TABLE.row(f"lr.{_suffix}", f"00010 -- 00000 {_tail}", "rd, (rs1)", _load_reserved(_type), xlens=_xlens,
              extensions="zalrsc")  # fmt: skip
    TABLE.row(f"sc.{_suffix}", f"00011 -- rs2 {_tail}", "rd, rs2, (rs1)", _store_conditional(_type), xlens=_xlens,
              extensions="zalrsc")  # fmt: skip
    for _name, _funct5, _compute in (
        ("amoswap", "00001", lambda b, x, y: y),
        ("amoadd", "00000", Builder.add),
        ("amoxor", "00100", Builder.xor),
        ("amoand", "01100", Builder.and_),
        ("amoor", "01000", Builder.or_),
        ("amomin", "10000", _smaller),
        ("amomax", "10100", _larger),
        ("amominu", "11000", _smaller_unsigned),
        ("amomaxu", "11100", _larger_unsigned),
    ):
        TABLE.row(f"{_name}.{_suffix}", f"{_funct5} -- rs2 {_tail}", "rd, rs2, (rs1)", _amo(_type, _compute),
                  xlens=_xlens)  # fmt: skip
