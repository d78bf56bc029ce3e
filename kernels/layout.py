"""Byte offsets of the structures that kernels and Python share. Every field is eight bytes.

The *frame* holds one running lane on one worker thread: its registers side by side, so that a lane's accesses stay in
a few cache lines, and what the kernels need to know of the machine. The *machine* block holds pointers to the lane
state arrays. A *code space* maps guest addresses to code; lanes whose code differs have different ones.

The *code stream* is an array of 32-byte slots. A block is a record slot followed by one slot per guest instruction:

    record       handler        where to go when a lane reaches the block: its first instruction, or compiled code
                 interpret      the first instruction's handler, always
                 size, count    instructions in the block (low 32 bits); visits left until it is hot (0: not counted)
                 entry          where compiled code is entered: its function, its link table, the entry's number, and
                                what lane groups run there
    instruction  handler
                 registers      frame offsets of up to three registers, 16 bits each, and the number of the
                                instruction's own handler, which is not `handler` where that runs the next one too
                 constant 0 or link 0
                 constant 1 or link 1, or in its upper 16 bits the frame offset of a fourth register

A link is the address of the record where a static control transfer goes. A handler that runs an instruction and the
next one takes the second's operands from its slot; that slot is as complete as any, and lanes may come to it directly.
"""

from __future__ import annotations

from enum import IntEnum

SLOT_BYTES = 32
SLOT_WORDS = 4

RECORD_HANDLER = 0
RECORD_INTERPRET = 8
RECORD_SIZE = 16
RECORD_COUNT = 20
RECORD_ENTRY = 24

# An entry is read through one pointer, so that a record can be led to other code while lanes run.
ENTRY_FUNCTION = 0
ENTRY_LINKS = 8
ENTRY_NUMBER = 16
ENTRY_VECTOR = 24  # the entry's VectorEntry: what groups of lanes run there; 0: nothing
ENTRY_BYTES = 32

SLOT_HANDLER = 0
SLOT_REGISTERS = 8
SLOT_NUMBER = 14
SLOT_OPERANDS = 16
SLOT_FOURTH_REGISTER = 30


class Offset(IntEnum):
    """A number with a name. As text it is the number on every Python: LLVM IR is written with it."""

    def __str__(self) -> str:
        return int.__repr__(self)

    def __format__(self, spec: str) -> str:
        return int.__format__(self, spec)


class Frame(Offset):
    """Offsets in a worker's frame."""

    STOP = 0
    STOP_IP = 8  # slot at which the lane stopped; 0: STOP_PC says where
    STOP_PC = 16
    ADDRESS = 24
    ACCESS = 32
    REMAINING = 40
    LIMIT = 48  # retired count at which REMAINING becomes 0
    COMPILED = 56  # instructions retired in compiled code
    PRIVATE = 64  # this lane's memory
    SHARED = 72  # the image all lanes read
    WINDOW0_BASE = 80  # host address of the first byte of the private window
    WINDOW0_LO = 88  # its guest address
    WINDOW0_LIMIT = 96  # offsets below this take any access of up to 8 bytes
    WINDOW1_BASE = 104  # the same for the shared, read-only window
    WINDOW1_LO = 112
    WINDOW1_LIMIT = 120
    SPANS = 128
    SPAN_COUNT = 136
    CODE_LO = 144
    CODE_SIZE = 152
    CODE_TABLE = 160
    CODE_MORE = 168
    CODE_MORE_COUNT = 176
    SLOTS = 184
    SLOT_PCS = 192
    SLOT_RESTS = 200
    HOT = 208
    TAIL_RECORD = 216
    TAIL_START = 264  # byte offset of the first slot to run of a block that the budget cuts short
    # Entry points of the interpreter, for compiled code
    GOTO_TAIL = 224
    GOTO_COUNT = 232
    GOTO_INDIRECT = 240
    SLOW_LOAD = 248
    SLOW_STORE = 256
    GOTO_COMPUTED = 272
    SITE = 280  # the computed jump that the lane just made: its slot or guest address
    JUMPS = 288  # this worker's ring of computed jumps
    JUMP_COUNT = 296
    ENTRY = 304  # the entry that the lane came in by
    MODE = 312  # MODE_ bits; 0: run on as fast as can be
    WORD_SHIFT = 320  # byte a of private memory lies at (a / 4 << WORD_SHIFT) + a % 4: 2 if not interleaved
    SLICE = 328  # instructions that the lane was given, if it may stop before, at the start of a block; else 0
    GOTO_SLOT = 336
    EXACT_FLOAT = 344  # the function of exact_floats.py
    REGISTERS = 352
    HOOK_FAULT = 928  # whether a compiled hook made an access that is not permitted
    MAPPED = 936  # rows of MappedRange: device registers that compiled hooks stand for
    MAPPED_COUNT = 944
    # Of lanes whose mappings change; see AddressSpaceRow
    REACH = 952  # bytes of the private window from its start, data and heap, that can be read and written
    PAGES_LO = 960  # guest addresses whose permissions are asked for by page
    PAGES_SIZE = 968
    HULL_BASE = 976  # host address of the private memory that pages are asked for in compiled code too
    HULL_LO = 984
    HULL_LIMIT = 992
    READABLE = 1000  # bits of the hull's pages
    WRITABLE = 1008
    PERMITTED = 1016  # the function that decides for a whole range
    FAR = 1024  # the part of the AddressSpaceRow behind its bitmaps; 0: lanes' mappings do not change
    SCRATCH = 1056
    BYTES = 4096


# The lane's memory is interleaved: compiled scalar code cannot run.
MODE_INTERLEAVED = 1
# The lane stops where its group may go on in SIMD registers.
MODE_MEET = 2


# Registers that a register file has at most.
MAX_REGISTERS = 72

# Lanes in a group at most.
MAX_GROUP_LANES = 32


class GroupFrame(Offset):
    """Offsets in a worker's frame for a lane group that runs in SIMD registers: fields, then arrays with an element a
    lane, then the registers, each a row of the group's lanes."""

    STATUS = 0  # how the region was left, one of the GROUP_ constants
    WAIT_PC = 8  # the lowest pc that lanes of the group which do not take part wait at
    MASK = 16  # the lanes that take part, a bit each
    MEMORY = 24  # host address of the group's private memory, interleaved: word 0 of lane 0
    SHARED = 32  # host address of the shared window's first byte
    COMPILED = 40  # instructions retired in SIMD registers, over all lanes
    COPY = 48  # host address of room for a copy of a group's private memory
    RESIDENT = 56  # host address of room for a byte for each page of it
    LAST = 64  # the VectorEntry whose code ran last
    WORK = 72  # instructions of all lanes since the group was taken up
    EXACT_FLOATS = 80  # the function that does float operations for the lanes of FLOATS
    REACH = 88  # the least of the lanes' AddressSpaceRow.REACH
    SPACES = 96  # host address of the rows
    BITMAP_WORDS = 104  # words of 32 bits from a readable page's bit to the same page's writable one
    PCS = 128  # i64: where each lane is
    USED = PCS + 8 * MAX_GROUP_LANES  # i64: instructions that each lane retired since it was taken up
    LAG = USED + 8 * MAX_GROUP_LANES  # i32: instructions that a lane skipped of those the group counted
    SCRATCH = LAG + 4 * MAX_GROUP_LANES  # 8 bytes: where a lane that takes no part may store
    REGISTERS = SCRATCH + 8 * MAX_GROUP_LANES
    FLOATS = REGISTERS + MAX_REGISTERS * 8 * MAX_GROUP_LANES  # rows of i64: three operands, the status, the result
    SPACE_WORDS = FLOATS + 5 * 8 * MAX_GROUP_LANES  # i32: where the bits of each lane's hull are, in words
    BYTES = SPACE_WORDS + 4 * MAX_GROUP_LANES


# How a group left a region: at the lanes' pcs; at an instruction that only the interpreter can run; or at once,
# because the lanes' registers are not as the code assumes.
GROUP_LEFT = 0
GROUP_INTERPRET = 1
GROUP_UNFIT = 2


class VectorEntry(Offset):
    """Offsets in what is known of an entry for lane groups. Workers update it without locks: it is statistics."""

    STATE = 0  # VECTOR_
    CONVERGENT = 8  # function for a whole group in step, 0: none
    CONVERGENT_NUMBER = 16
    MASKED = 24  # function for any of a group's lanes, 0: none
    MASKED_NUMBER = 32
    UNIFORM = 48  # registers that were the same in all lanes of every group that met here, a bit each of the first 64
    NARROW = 56  # registers that were sign extensions of 32 bits in all of them
    MEETINGS = 64
    UNFIT = 72  # times that a group's registers were not as assumed
    VECTOR_CYCLES = 80
    VECTOR_WORK = 88  # instructions of all lanes, in these cycles
    SCALAR_CYCLES = 96
    SCALAR_WORK = 104
    KEPT = 120  # times that lanes which met here met again after running one by one
    PARTED = 128  # times that they did not
    ASKED = 136  # whether code for whole groups was asked for
    MASKED_ASKED = 144  # whether code for some of a group's lanes was
    BROKEN = 152  # times that such code was missing
    LOST = 160  # times in a row that beginning to go on together here did not pay
    BYTES = 168


# A machine's ring of hot places has addresses of blocks' records, which are multiples of 4, and of VectorEntries with
# bits that say what is asked for there.
HOT_WHOLE = 1
HOT_MASKED = 3


VECTOR_SAMPLING = 0  # no code yet: what groups have in common when they meet is noted
VECTOR_READY = 1
VECTOR_OFF = 2  # lanes are faster one by one


class GroupState(Offset):
    """Offsets in a lane group's row, which outlasts a pass."""

    INTERLEAVED = 0  # whether its private memory is
    APART = 8  # instructions that its lanes run one by one before they look for each other again
    COLD = 16  # instructions that its lanes ran one by one since the group ran together
    REST = 24  # whether its lanes shall run APART instructions now
    WATCHED = 32  # the VectorEntry that its lanes were together at, until it is known whether they stay so
    STARTED_AT = 40  # the VectorEntry where it began to go on together
    CYCLES = 48  # since then
    WORK = 56  # instructions of all lanes in these
    BYTES = 64


class MachineBlock(Offset):
    """Offsets in the machine block."""

    REGISTERS = 0
    REGISTER_STRIDE = 8  # from a register of one lane to the next register, in registers
    PC = 16
    STOP = 24
    BUDGET = 32
    RETIRED = 40
    FAULT_ADDRESS = 48
    FAULT_ACCESS = 56
    PRIVATE = 64
    PRIVATE_STRIDE = 72
    WINDOW0_OFFSET = 80
    CODE_INDEX = 88
    CODE_SPACES = 96
    ATTENTION = 104
    QUANTUM = 112
    GROUP_SHIFT = 120  # log2 of the lanes of a group
    GROUPS = 128  # GroupState rows
    MINCORE = 144  # the C library's function, 0: there is none
    HOT = 152
    MEETINGS = 160  # the VectorPolicy, see vmjit/vector_tier.py
    TRIAL_WORK = 168
    JUDGED_WORK = 176
    SCALAR_CYCLES = 184  # of running lanes one by one for long
    SCALAR_WORK = 192
    GROUP_CYCLES = 200  # of running together, with all that this costs beside
    GROUP_WORK = 208
    ALONE = 216  # whether groups shall not go on together anywhere for now
    SPACES = 224  # the AddressSpaceRows; 0: lanes' mappings do not change
    SPACE_BYTES = 232
    SPACE_INDEX = 240  # each lane's row
    BITMAP_BYTES = 248
    HULL_OFFSET = 256
    HULL_LIMIT = 264
    HULL_BITS = 272  # bytes of a bitmap in front of the hull's bits
    SHARED_LIMIT = 280  # the shared window's, for lanes that are regular
    BYTES = 288


class CodeSpaceBlock(Offset):
    """Offsets in a code space's descriptor. TABLE[(pc - LO) >> 1] is a record's address or 0."""

    LO = 0
    SIZE = 8
    TABLE = 16
    MORE = 24  # further executable spans: rows of (lo, size, table)
    MORE_COUNT = 32
    SLOTS = 40
    SLOT_PCS = 48
    SLOT_RESTS = 56
    BYTES = 64


class Span(Offset):
    """Offsets in a row of the table of spans: guest memory with its permissions and where it lies on the host."""

    LO = 0
    LAST = 8  # last guest address, so that a span may end at the top of the address space
    PERMISSIONS = 16
    SHARED = 24  # 1: offset is into the shared image, 0: into the lane's memory
    OFFSET = 32
    BYTES = 40


class AddressSpaceRow(Offset):
    """Offsets in what kernels know of the permissions of lanes with the same mappings: see `vmjit/address_spaces.py`.

    Behind it are two bitmaps, of the pages that can be read and of those that can be written; then a count, and as many
    rows as of `Span`, of memory that is mapped far from where it lies.
    """

    REACH = 0  # bytes of the private window from its start, data and heap, that can be read and written
    REGULAR = 8  # whether compiled code can run, and the shared window be read
    PAGES = 16


class MappedRange(Offset):
    """Offsets in a row of the table of device registers: guest addresses, and the functions for accesses; 0: none."""

    LO = 0
    LAST = 8
    READ = 16
    WRITE = 24
    BYTES = 32


class Hot(Offset):
    """Offsets in the ring of blocks that became hot.

    REGISTERS: the address of a row for each entry, with the integer registers that the lane came to the block with.
    """

    HEAD = 0
    MASK = 8
    REGISTERS = 16
    ENTRIES = 24


# Words of a row of `Hot.REGISTERS`.
HOT_REGISTERS = 32


# Computed jumps a worker remembers: pairs of (site, target).
JUMP_ENTRIES = 256

# Stops that the executor handles itself; the public ones are `vmjit.Stop`.
STOP_RUNNING = 0
STOP_NEED_CODE = 100
STOP_FENCE_I = 101
STOP_CALL = 102
STOP_HOOK_FAILED = 104  # a compiled hook raised an exception
STOP_GUEST_BREAK = 103  # a guest's own ebreak, where there is a breakpoint too

# What the wrapper of a compiled hook gives: the lane goes on; it stops there; its access faulted; an exception.
HOOK_GOES_ON, HOOK_STOPS, HOOK_FAULTS, HOOK_FAILS = range(4)

# The access of a fault that stands for an exception in a compiled hook.
ACCESS_HOOK_FAILED = 255

PERMISSION_READ = 1
PERMISSION_WRITE = 2
PERMISSION_EXECUTE = 4


def register_offset(index: int) -> int:
    """Frame offset of a guest register."""
    return Frame.REGISTERS + 8 * index
