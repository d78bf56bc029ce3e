"""Why a lane left the device."""

from __future__ import annotations

from enum import IntEnum


class Stop(IntEnum):
    """Why a lane stopped. The lane's pc is that of the instruction that stopped it, which has not retired."""

    RUNNING = 0
    """It has not: the run was interrupted, and the lane goes on with the next `run`."""
    EXIT = 1
    """The guest ended itself (exit, exit_group); `result.exit_code` holds its status."""
    ECALL = 2
    """An environment call that nobody handles (the embedding API); pc is that of the ecall."""
    EBREAK = 3
    """A breakpoint instruction."""
    FAULT = 4
    """A bad memory access or fetch; `result.fault_address`, `fault_pc` and `fault_access` say which."""
    BUDGET = 5
    """`max_instructions` were retired; the lane goes on with the next `run`."""
    UNSUPPORTED = 6
    """Bytes that are no instruction of the program's ISA, or one that vmjit has no meaning for."""
    LEFT = 7
    """The pc left the code that was given (the embedding API)."""
    ARRIVED = 8
    """The lane is where `run_until` was to bring it, or a hook stopped it there; it goes on with the next `run`."""
    MEMORY = 9
    """The lane would have had more than its share of the memory that the machine may have (`memory_limit`). It is at
    its end; what it had was given back, and its memory reads as when it started."""


class Access(IntEnum):
    """What a faulting lane tried."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXECUTE = 3
    MISALIGNED = 4
    """An atomic instruction at an address that is not a multiple of its size."""
    MISALIGNED_FETCH = 5
    """A jump to an address that no instruction can start at (ISAs without C)."""


TRAP_ACCESS: dict[str, Access] = {
    "fetch": Access.EXECUTE,
    "misaligned_access": Access.MISALIGNED,
    "misaligned_fetch": Access.MISALIGNED_FETCH,
}
"""The access that each trap kind of the IR reports."""
