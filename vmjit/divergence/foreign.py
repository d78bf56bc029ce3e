"""What sides share whose instructions somebody else executes: what is left to vmjit, and the lane's memory by pages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vmjit.lane_memory import LaneMemory
from vmjit.machine import Machine
from vmjit.memory_image import PAGE
from vmjit.memory_layout import MemorySpan

Bytes = NDArray[np.uint8]

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


def held_by_lane(machine: Machine, span: MemorySpan) -> Bytes:
    """The bytes of a span that the one lane of a machine has, in place: on the CPU, and never interleaved."""
    memory = machine._lane_memory
    assert isinstance(memory, LaneMemory)
    assert memory.lanes == 1
    held: Bytes = memory.shared if span.shared else memory.rows[0]
    return held[span.offset : span.offset + span.size]


def runs_of_pages(spans: Sequence[MemorySpan]) -> list[tuple[int, int, list[MemorySpan]]]:
    """(start, end, spans) of whole pages that touch, by address."""
    runs: list[tuple[int, int, list[MemorySpan]]] = []
    for span in spans:
        lo, end = span.lo & -PAGE, -(-span.end // PAGE) * PAGE
        if runs and runs[-1][1] >= lo:
            first, _, others = runs.pop()
            runs.append((first, end, [*others, span]))
        else:
            runs.append((lo, end, [span]))
    return runs


def pieces_unlike(left: Bytes, right: Bytes) -> list[slice]:
    """The pieces of a page's size that differ."""
    whole = len(left) // PAGE * PAGE
    unlike = (left[:whole] != right[:whole]).reshape(-1, PAGE).any(axis=1)
    places = [int(i) * PAGE for i in np.flatnonzero(unlike)]
    if not np.array_equal(left[whole:], right[whole:]):
        places.append(whole)
    return [slice(place, place + PAGE) for place in places]
