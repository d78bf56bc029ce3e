"""A system call that several lanes make at once: their arguments, and how results get back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmjit.engine import GuestMemory
from vmjit.lane_state import LaneState, index_of

if TYPE_CHECKING:
    from vmjit.environment.bare_metal import BareMetal

Lanes = NDArray[np.intp]
Values = NDArray[np.int64]

_A0 = 10
_STDERR = 2


class Call:
    """One system call made by several lanes: their arguments as signed numbers."""

    def __init__(self, environment: BareMetal, state: LaneState, memory: GuestMemory, lanes: Lanes) -> None:
        self.environment = environment
        self.state = state
        self.memory = memory
        self.lanes = lanes
        self.index = index_of(lanes)

    def signed(self, index: int) -> Values:
        signed = np.int32 if self.environment.xlen == 32 else np.int64
        # Registers may be kept in more bits than they have.
        values: Values = self.state.registers[_A0 + index, self.index].astype(signed).astype(np.int64)
        return values

    def address(self, index: int) -> NDArray[np.uint64]:
        values: NDArray[np.uint64] = self.state.registers[_A0 + index, self.index].astype(np.uint64)
        return values

    def descriptor(self) -> Values:
        """The descriptors, -1 where there is none open under the number. File descriptors are 32-bit ints in C."""
        given = self.signed(0).astype(np.int32).astype(np.int64)
        known = (given >= 0) & (given <= _STDERR)
        if self.environment.closed.any():
            known &= ~self.environment.closed[np.where(known, given, 0), self.lanes]
        return np.where(known, given, -1)

    def give(self, result: Values) -> None:
        unsigned = np.uint32 if self.environment.xlen == 32 else np.uint64
        self.state.registers[_A0, self.index] = result.astype(unsigned)

    def write_struct(self, pointers: NDArray[np.uint64], rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Write one row of bytes for each lane; which lanes could take it."""
        sizes = np.full(len(self.lanes), rows.shape[1], np.int64)
        return self.memory.scatter(self.lanes, pointers, sizes, rows.reshape(-1))

    def nanoseconds(self) -> NDArray[np.uint64]:
        return self.state.retired[self.index]
