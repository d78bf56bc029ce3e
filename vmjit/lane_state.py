"""Lane state: structure-of-arrays, one element a lane, shared with the kernels by address."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ir.registers import RegisterFile
from vmjit.kernels.layout import MachineBlock

UNLIMITED = np.iinfo(np.int64).max

_LINE = 64
# Rows of so many bytes are a power of two apart where there are thousands of lanes: then a lane's registers fall into
# one set of a cache, which does not hold them.
_LONG_ROW = 1024


def _register_rows(count: int, lanes: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """(count, lanes) zeros; long rows begin at cache lines, an odd number of them apart."""
    size = lanes * dtype.itemsize
    if size < _LONG_ROW:
        return np.zeros((count, lanes), dtype)
    stride = (-(-size // _LINE) | 1) * _LINE
    room = np.zeros(count * stride + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    rows: NDArray[Any] = room[start : start + count * stride].view(dtype).reshape(count, -1)[:, :lanes]
    return rows


def index_of(lanes: NDArray[np.integer]) -> slice | NDArray[np.integer]:
    """What selects these lanes of an array: a slice where they are consecutive, which takes a fraction of the time."""
    if not len(lanes) or lanes[-1] - lanes[0] != len(lanes) - 1 or not (lanes[1:] - lanes[:-1] == 1).all():
        return lanes
    return slice(int(lanes[0]), int(lanes[-1]) + 1)


class LaneState:
    """The arrays of `lanes` lanes.

    registers: (registers, lanes) uint32 or uint64, as the register file's `storage` says; row r is register r.
    pc, retired, fault_address: (lanes,) uint64. stop: (lanes,) int32. budget: (lanes,) int64, instructions left.
    fault_access: (lanes,) uint8. code_index: (lanes,) uint32, the lane's code space. space: (lanes,) int32, its address
    space, where lanes have some (`vmjit/address_spaces.py`).
    """

    def __init__(self, lanes: int, registers: RegisterFile) -> None:
        self.lanes = lanes
        dtype = np.dtype(np.uint32 if registers.storage.bits == 32 else np.uint64)
        self.registers = _register_rows(len(registers), lanes, dtype)
        self.pc = np.zeros(lanes, np.uint64)
        self.stop = np.zeros(lanes, np.int32)
        self.budget = np.zeros(lanes, np.int64)
        self.retired = np.zeros(lanes, np.uint64)
        self.fault_address = np.zeros(lanes, np.uint64)
        self.fault_access = np.zeros(lanes, np.uint8)
        self.code_index = np.zeros(lanes, np.uint32)
        self.space = np.zeros(lanes, np.int32)
        self.attention = np.zeros(1, np.int32)

    BY_LANE = ("registers", "pc", "stop", "budget", "retired", "fault_address", "fault_access", "code_index", "space")

    def part(self, first: int, last: int) -> LaneState:
        """The lanes `first` to `last` - 1 of this very state, as views."""
        found = LaneState.__new__(LaneState)
        found.lanes = last - first
        for name in self.BY_LANE:
            setattr(found, name, getattr(self, name)[..., first:last])
        found.attention = self.attention
        return found

    def copy(self) -> LaneState:
        """The state of this moment."""
        found = LaneState.__new__(LaneState)
        found.lanes = self.lanes
        for name in (*self.BY_LANE, "attention"):
            setattr(found, name, getattr(self, name).copy())
        return found

    def assign(self, other: LaneState) -> None:
        """Take over the state of as many lanes."""
        for name in self.BY_LANE:
            getattr(self, name)[...] = getattr(other, name)

    def rearrange(self, order: NDArray[np.intp]) -> None:
        """Have the state of lane order[i] at i."""
        for name in self.BY_LANE:
            array = getattr(self, name)
            array[...] = array[..., order]

    def fill_block(self, block: NDArray[np.uint64]) -> None:
        """Write the arrays' addresses to a machine block."""
        for place, array in (
            (MachineBlock.REGISTERS, self.registers),
            (MachineBlock.PC, self.pc),
            (MachineBlock.STOP, self.stop),
            (MachineBlock.BUDGET, self.budget),
            (MachineBlock.RETIRED, self.retired),
            (MachineBlock.FAULT_ADDRESS, self.fault_address),
            (MachineBlock.FAULT_ACCESS, self.fault_access),
            (MachineBlock.CODE_INDEX, self.code_index),
            (MachineBlock.ATTENTION, self.attention),
        ):
            block[place // 8] = array.ctypes.data
        block[MachineBlock.REGISTER_STRIDE // 8] = self.registers.strides[0] // self.registers.itemsize
