"""Value types of the IR: integers of 1 to 64 bits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Type:
    """An integer type. `i1` is the result of a comparison; it is never stored in a register or in memory."""

    name: str
    bits: int

    @property
    def mask(self) -> int:
        return (1 << self.bits) - 1

    def signed(self, value: int) -> int:
        """`value` (any Python int) as a two's complement number of this width."""
        value &= self.mask
        return value - (1 << self.bits) if value >> (self.bits - 1) else value

    def __str__(self) -> str:
        return self.name


I1 = Type("i1", 1)
I8 = Type("i8", 8)
I16 = Type("i16", 16)
I32 = Type("i32", 32)
I64 = Type("i64", 64)

TYPES: dict[str, Type] = {t.name: t for t in (I1, I8, I16, I32, I64)}
INTEGER_BY_BITS: dict[int, Type] = {t.bits: t for t in TYPES.values()}
