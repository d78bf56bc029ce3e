"""How often compiled code ran each block, counted by the code itself: for looking at translations, not for running.

A machine whose code counts has a cache of its own, in memory only.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from vmjit.ir.block import Block

_ROWS = 1024


class Counter(IntEnum):
    """What is counted of a block: a lane alone running it to its end; groups doing so in SIMD registers, and lanes that
    took part."""

    ALONE = 0
    GROUPS = 1
    LANES = 2


@dataclass(frozen=True)
class BlockCount:
    """Of one block: how often lanes ran it alone in compiled code, how often groups did in SIMD registers, and lanes
    that took part in these."""

    alone: int = 0
    groups: int = 0
    lanes: int = 0


class BlockCounters:
    """Counters by block, at addresses that compiled code knows. Safe for several threads.

    Blocks of different regions overlap; each is counted for itself, by its first and its last instruction that code
    executes: system calls and what stops a lane are left to the interpreter.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[tuple[int, int], NDArray[np.uint64]] = {}
        self._tables: list[NDArray[np.uint64]] = []

    def address(self, block: Block, counter: Counter) -> int:
        """The host address of a 64-bit number that stays while this object does."""
        leaves = block.terminator.name not in ("jump", "branch", "indirect")
        executed = block.instructions[:-1] if leaves else block.instructions
        key = (block.pc, executed[-1].pc if executed else block.pc - 1)
        with self._lock:
            if key not in self._rows:
                place = len(self._rows) % _ROWS
                if place == 0:
                    self._tables.append(np.zeros((_ROWS, len(Counter)), np.uint64))
                self._rows[key] = self._tables[-1][place]
            return int(self._rows[key].ctypes.data) + 8 * counter

    def counts(self) -> list[tuple[int, int, BlockCount]]:
        """(address of the first instruction, of the last, how often) of every block that code counts."""
        with self._lock:
            return [(first, last, BlockCount(*row.tolist())) for (first, last), row in self._rows.items()]
