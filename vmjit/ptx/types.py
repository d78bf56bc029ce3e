"""PTX's fundamental types by their names (PTX ISA, "Fundamental Types"), and the words that modify instructions."""

from __future__ import annotations

BITS: dict[str, int] = {
    "pred": 1,
    **dict.fromkeys(("b8", "u8", "s8"), 8),
    **dict.fromkeys(("b16", "u16", "s16", "f16", "bf16"), 16),
    **dict.fromkeys(("b32", "u32", "s32", "f32", "f16x2", "bf16x2"), 32),
    **dict.fromkeys(("b64", "u64", "s64", "f64"), 64),
    "b128": 128,
}

COMPARISONS = frozenset("eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan".split())
ROUNDINGS = frozenset("rn rz rm rp rni rzi rmi rpi rna".split())
STATE_SPACES = frozenset("global shared local param const".split())
BOOLEAN_OPERATORS = frozenset(("and", "or", "xor"))

_FLOATS = frozenset(("f16", "bf16", "f32", "f64"))


def byte_size(type_name: str) -> int:
    """Bytes of one value in memory; a predicate has no place there and counts as one."""
    return max(1, BITS[type_name] // 8)


def is_float(type_name: str) -> bool:
    return type_name in _FLOATS


def is_signed(type_name: str) -> bool:
    return type_name.startswith("s")


def unsigned(type_name: str) -> str:
    """The unsigned integer type of the same width."""
    return f"u{BITS[type_name]}"


def integer_range(type_name: str) -> tuple[int, int]:
    """Least and greatest value of an integer type."""
    bits = BITS[type_name]
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if is_signed(type_name) else (0, (1 << bits) - 1)
