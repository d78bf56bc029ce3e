"""Byte offsets of the structures that device kernels (CUDA, HIP, the PTX machine) and the host share.

Lanes are taken in groups of 32, as many as a warp has. A group's *frame* holds the state of its lanes interleaved: a
tile of registers, row r the 32 lanes' register r, and behind it a tile of 64-bit fields. So one base pointer reaches
every register at a constant offset, and lanes in step touch neighbouring words. A group's guest memory is interleaved
by words of the guest's width in the same way: word k of the 32 lanes lies side by side.

The *machine* block holds pointers and sizes, all 64 bits. A *code space* is a list of executable ranges, each with a
table that gives the slot of the instruction at an address ((pc - lo) / 2; 0: not decoded), and the slots:

    handler    u32  number of the interpreter's handler
    entry      u32  compiled code to enter when a jump arrives here: region number << 8 | entry number; 0: none
    registers  u32  up to four register numbers, a byte each
    visits     u32  how often a jump arrived here (counted without synchronisation: a hint)
    constants  2 x u64

What a lane writes to its standard outputs while a launch runs is kept as *records*, one behind the other:

    header     u32  the bytes that were written | the number of vectors << 16, 1 for `write` | the stream's number << 28
    filler     4 bytes for each vector but the first, so that a record tells by its size what the host needs for it
    data       the bytes of all vectors, and what fills up the last 32 bits

Everything lies in global memory at natural alignment.
"""

from __future__ import annotations

from vmjit.kernels.layout import Offset

GROUP = 32


class LaneField(Offset):
    """Rows of the tile of 64-bit fields behind the registers."""

    PC = 0
    STOP = 1
    BUDGET = 2  # instructions left to this lane, over all launches
    RETIRED = 3
    LIMIT = 4  # retired count at which the current slice ends
    FAULT_ADDRESS = 5
    ACCESS = 6
    CODE = 7  # number of the lane's code space
    COMPILED = 8  # instructions retired in compiled code
    REACH = 9  # bytes of the private window that can be accessed: all of it, or AddressSpaceRow.REACH
    SHARED = 10  # bytes of the shared window that can be read: all of it, or nothing
    SPACE = 11  # address of the lane's AddressSpaceRow; 0: its mappings do not change
    OUTPUT = 12  # address of the next record of what the lane writes
    OUTPUT_END = 13  # address behind what it may fill with records; nothing where the two are the same


LANE_FIELDS = len(LaneField)


class DeviceMachine(Offset):
    """Offsets in the machine block."""

    FRAMES = 0
    LANES = 8
    FRAME_BYTES = 16
    PRIVATE = 24
    PRIVATE_BYTES = 32  # of one group
    SHARED = 40
    SPANS = 48
    SPAN_COUNT = 56
    CODE_SPACES = 64
    QUANTUM = 72
    # The windows as the interpreter needs them: guest address, size, byte offset in the lane's or the shared memory.
    WINDOW0_LO = 80
    WINDOW0_SIZE = 88
    WINDOW0_OFFSET = 96
    WINDOW1_LO = 104
    WINDOW1_SIZE = 112
    WINDOW1_OFFSET = 120
    # Of lanes whose mappings change: what their address spaces' bits are for.
    PAGES_LO = 128
    PAGES_SIZE = 136
    HULL_LO = 144
    HULL_BITS = 152  # bytes of a bitmap in front of the hull's bits
    BITMAP_BYTES = 160
    GATHERS = 168  # whether lanes have `writev`
    BYTES = 176


class DeviceCode(Offset):
    """Offsets in a code space's descriptor."""

    RANGES = 0
    RANGE_COUNT = 8
    SLOTS = 16
    SLOT_PCS = 24
    SLOT_TARGETS = 32  # where the computed jump at a slot went last
    BYTES = 40


class CodeRange(Offset):
    """Offsets in one executable range of a code space."""

    LO = 0
    SIZE = 8
    TABLE = 16
    BYTES = 24


class DeviceSlot(Offset):
    """Offsets in a slot."""

    HANDLER = 0
    ENTRY = 4
    REGISTERS = 8
    VISITS = 12
    CONSTANTS = 16
    BYTES = 32


OUTPUT_HEADER = 4
OUTPUT_WRITES_SHIFT = 16
OUTPUT_STREAM_SHIFT = 28

# What a device function gives back: the instructions left of the slice, and in the top bits what comes next.
FORCE_INTERPRETER = 1 << 62  # run the instruction at the lane's pc in the interpreter, whatever is compiled there
STOPPED = 1 << 61  # the lane's STOP says why
LEFT_MASK = STOPPED - 1

# Entries of one region that can be told apart.
MAX_REGION_ENTRIES = 256


def registers_bytes(registers: int, bits: int) -> int:
    """Size of a group's tile of registers that are kept in so many bits each."""
    return registers * GROUP * (bits // 8)


def frame_bytes(registers: int, bits: int) -> int:
    """Size of a group's frame."""
    return registers_bytes(registers, bits) + LANE_FIELDS * GROUP * 8


def register_offset(index: int, bits: int) -> int:
    """Offset of a register from the lane's first one."""
    return index * GROUP * (bits // 8)


def field_offset(field: LaneField) -> int:
    """Offset of a field from the lane's first one."""
    return int(field) * GROUP * 8
