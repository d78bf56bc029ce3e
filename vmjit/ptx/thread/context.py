"""The words that generated code, its driver and Python share: one array of 64-bit integers for a launch."""

from __future__ import annotations

from enum import IntEnum, auto


class Word(IntEnum):
    """Indices of the words. Of THREAD, BLOCK, NTID and NCTAID follow y and z."""

    SEGMENTS = 0  # address of (base, length, writable) of every segment
    SEGMENT_COUNT = auto()
    SITES = auto()  # address of (base, limit) for every access in the code: the segment it hit last
    COUNT = auto()  # thread instructions executed
    BUDGET = auto()  # thread instructions allowed; set to 0 from outside to stop the launch
    DEPTH = auto()  # of calls
    SHARED = auto()  # address of the block's shared memory
    SHARED_BYTES = auto()
    DYNAMIC_SHARED = auto()
    LOCAL = auto()  # address of the first thread's local memory
    LOCAL_STEP = auto()  # bytes from one thread's local memory to the next: 0 where they take turns with one
    LOCAL_SIZE = auto()  # bytes of one thread's local memory
    LOCAL_BYTES = auto()  # of all threads
    STACK = auto()  # where the next function's local memory begins
    STACK_END = auto()
    POISON = auto()  # the byte for fresh memory
    THREAD = auto()
    THREAD_Y = auto()
    THREAD_Z = auto()
    BLOCK = auto()
    BLOCK_Y = auto()
    BLOCK_Z = auto()
    NTID = auto()
    NTID_Y = auto()
    NTID_Z = auto()
    NCTAID = auto()
    NCTAID_Y = auto()
    NCTAID_Z = auto()
    RESUME = auto()  # which barrier a thread goes on from; 0 is the kernel's start
    BARRIER = auto()  # number of the barrier that a thread stopped at
    ARRIVING_TRUE = auto()  # of bar.red: predicates that hold among the threads come to the barrier so far
    ARRIVING = auto()  # and how many threads have come
    LEAVING_TRUE = auto()  # the same of the barrier just completed
    LEAVING = auto()
    FAULT = auto()  # a Fault
    FAULT_ADDRESS = auto()
    FAULT_SIZE = auto()  # bytes of the access, times two, plus one for a store
    FAULT_LINE = auto()
    FAULT_FUNCTION = auto()  # number of the function


class Fault(IntEnum):
    NONE = 0
    ACCESS = auto()
    BUDGET = auto()
    LOCAL_MEMORY = auto()
    TRAP = auto()
    BRANCH_TABLE = auto()
    ASSERTION = auto()
    CALL_TARGET = auto()
    CALL_DEPTH = auto()
    BARRIERS = auto()
