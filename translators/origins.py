"""Where pointers lead, of lanes whose mappings change: by their values."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from vmjit.translators.region_body import WindowPlan


class Origin(Enum):
    STACK = "stack"
    DATA = "data"
    SHARED = "shared"
    UNKNOWN = "unknown"


class SeenPointers(NamedTuple):
    """Where a lane's registers led at one time: a bit for each, none for what leads nowhere."""

    stack: int = 0
    data: int = 0
    shared: int = 0

    def origins(self) -> dict[int, Origin]:
        """By register."""
        kinds = (self.stack, Origin.STACK), (self.data, Origin.DATA), (self.shared, Origin.SHARED)
        return {i: origin for bits, origin in kinds for i in range(bits.bit_length()) if bits >> i & 1}


def seen_pointers(windows: WindowPlan, registers: Sequence[int], stack: int | None) -> SeenPointers:
    """Of registers with these values, but for the stack pointer, which is known anyway. What is mapped counts as data:
    it is found by page, behind the least other windows."""
    paged = windows.paged
    if paged is None:
        return SeenPointers()

    def within(lo: int, size: int) -> int:
        return sum(1 << i for i, value in enumerate(registers) if lo <= value < lo + size and i != stack)

    return SeenPointers(
        within(paged.stack_lo, paged.stack_size),
        within(paged.hull_lo, paged.stack_lo - paged.hull_lo),
        within(windows.shared_lo, windows.shared_size),
    )
