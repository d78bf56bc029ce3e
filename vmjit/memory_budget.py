"""How much of the host's memory a machine's lanes may come to have, and what becomes of those that would have more.

Lanes are given what they touch. While all of them together stay below the limit, a lane may have any part of it; once
they are above, the running lanes with more than an equal share stop, and what they had is given back. So no more than
twice the limit is ever in use, beside what is touched before it is noticed, and the operating system need kill nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmjit.host_memory import host_bytes
from vmjit.lane_memory import LaneMemory
from vmjit.memory_image import PAGE

# A machine's limit if none is given, as a part of what is free when it is made.
_OF_FREE = 3 / 8

# How much more lanes must have until they are counted again, where none had more than its share.
_MORE = 1.05


def _number_in(path: str) -> int | None:
    """The number that a file of the system has."""
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # "max"
        return None


def free_bytes() -> int:
    """Memory that this computer, or the control group that the process is in, can still give."""
    free = host_bytes()
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    most, used = (_number_in(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    return free if most is None else min(free, max(most - (used or 0), 0))


def default_limit() -> int:
    return max(int(free_bytes() * _OF_FREE), PAGE)


def _own_bytes() -> int:
    """Memory that this process has for itself now, as far as somebody tells: quick to ask for."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm", "rb", buffering=0) as file:
        _, resident, shared, *_ = file.read().split()
    return (int(resident) - int(shared)) * PAGE


class MemoryBudget:
    """The budget of `lanes` lanes, whose memory is on this computer: `limit` bytes in all, `share` for each."""

    def __init__(self, limit: int, lanes: int) -> None:
        self.limit = limit
        self.share = max(limit // lanes, PAGE)
        self._others = _own_bytes()
        self._look_from = limit

    def may_be_exceeded(self) -> bool:
        """Whether lanes have to be counted: also where less is in use by others than was thought."""
        more = _own_bytes() - self._others
        return more > self._look_from or more < -self.limit // 8

    def over_share(self, memory: LaneMemory) -> NDArray[np.bool_]:
        """Which lanes have more than their share while all have more than the limit; none may lie interleaved."""
        counts = memory.own_bytes_of_lanes()
        total = int(counts.sum())
        over = (counts > self.share) & (total > self.limit)
        self._others = max(_own_bytes() - total, 0)
        self._look_from = self.limit if over.any() else max(self.limit, int(total * _MORE))
        return over
