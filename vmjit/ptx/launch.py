"""What a launch is, for the engines, and what is counted of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.assembly.syntax import Function
from vmjit.ptx.errors import PtxFault

Dim3 = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LaunchStatistics:
    """What one launch executed: the same on every machine, but for the seconds.

    An instruction counts for every thread that comes to it, also where its guard then does not hold.
    """

    thread_instructions: int
    warp_instructions: int | None  # one executed for a set of lanes of a warp counts once; the SIMT engine knows it
    by_opcode: Mapping[str, int] | None  # thread instructions by stem, such as "ld.global"; the SIMT engine knows it
    seconds: float  # on the wall, compilation included
    engine: str  # the one that ran: simt or thread


@dataclass(slots=True, eq=False)
class Launch:
    """One launch as an engine gets it: everything checked, parameters packed."""

    function: Function
    grid: Dim3
    block: Dim3
    parameters: NDArray[np.uint8]
    dynamic_shared: int  # bytes
    budget: int  # thread instructions
    seconds: float | None  # wall-clock limit
    max_lanes: int  # threads run at once by the SIMT engine
    started: float = field(default_factory=time.monotonic)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.block[0] * self.block[1] * self.block[2]

    @property
    def blocks(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def deadline(self) -> float:
        """When it has to have ended, on the monotonic clock."""
        return float("inf") if self.seconds is None else self.started + self.seconds

    def fault(
        self, message: str, function: Function, line: int, thread: Dim3 | None, block: Dim3 | None, **details: Any
    ) -> PtxFault:
        """The error to raise for a fault at a line of a function, of a thread where one is at fault."""
        who = "" if thread is None else f", thread {thread} of block {block}"
        details.update(line=line, function=function.name, kernel=self.function.name, thread=thread, block=block)
        return PtxFault(f"{message} ({function.name}, {function.where(line)}{who})", **details)

    def over_budget(self, function: Function, line: int) -> PtxFault:
        return self.fault(f"budget of {self.budget} thread instructions exceeded", function, line, None, None)

    def over_time(self, function: Function, line: int) -> PtxFault:
        return self.fault(f"still running after {self.seconds} s", function, line, None, None)
