"""What whoever else executes instructions leaves to vmjit."""

from __future__ import annotations

_ATOMIC, _SYSTEM = 0x2F, 0x73
_RESERVING = (0x02, 0x03)  # LR, SC
_FLOAT_CSRS = (1, 2, 3)
_C_EBREAK = 0x9002


def is_left_to_vmjit(word: int) -> bool:
    """Calls, breakpoints, reservations, and CSRs other than those of floats: by the four bytes at an address."""
    opcode, function = word & 0x7F, word >> 12 & 7
    if opcode == _SYSTEM:
        return function == 0 or word >> 20 not in _FLOAT_CSRS
    return word & 0xFFFF == _C_EBREAK or (opcode == _ATOMIC and word >> 27 in _RESERVING)
