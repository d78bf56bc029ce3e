"""What a machine goes on from when its device fails: a state of all lanes that is kept on this computer.

Runs are deterministic, so it need not be the state of just before the failure: lanes that go on from an earlier one
come to the same place, and write the same output. What must not lie between is a change by the host (registers,
memory, input), so a state is kept when a run begins after such a change, and from time to time during a long run.
While the memory is as it was loaded, nothing is copied from the device for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vmjit.cpu_engine import CpuEngine
from vmjit.device_lane_memory import DeviceLaneMemory
from vmjit.engine import RunReport
from vmjit.environment.bare_metal import BareMetal
from vmjit.environment.saved import SavedEnvironment
from vmjit.lane_memory import LaneMemory
from vmjit.lane_state import LaneState
from vmjit.span_memory import Bytes
from vmjit.split_lane_memory import SplitLaneMemory

# A state is kept again when this many seconds have passed, and so many times what keeping the last one took.
_SECONDS = 10.0
_COST_FACTOR = 20.0


NewEngine = Callable[[LaneMemory], CpuEngine]
"""Makes the CPU's engine for the machine with this memory."""


@dataclass(frozen=True)
class _Kept:
    """State and environment of one moment. `run` is the run they are from, `compiled` what it had run compiled."""

    state: LaneState
    environment: SavedEnvironment
    run: int
    compiled: int


class Recovery:
    """For one machine: its lanes' `state`, their `environment` and their `memory` on devices."""

    def __init__(self, state: LaneState, environment: BareMetal, memory: DeviceLaneMemory | SplitLaneMemory) -> None:
        self._state = state
        self._environment = environment
        self._there = memory
        self._run = 0
        self._last = 0.0
        self._cost = 0.0
        self._memory: LaneMemory | None = None
        self._load: Callable[[LaneMemory], None] | None = None
        self._journal: list[tuple[int, Bytes]] = []  # what the host wrote to it before anything ran
        self._late: list[tuple[int, Bytes]] = []  # and what since a state was kept
        self._kept: _Kept | None = None
        self._fresh = self._stale = True

    # -- what happens to the machine

    def loaded(self, load: Callable[[LaneMemory], None] | None = None) -> None:
        """Its memory is as the program has it, as it is at first, or as `load` makes it."""
        self._load = load
        self._memory, self._kept = None, None
        self._journal, self._late = [], []
        self._fresh = self._stale = True

    def changed(self) -> None:
        """The host changed registers, pc or inputs."""
        self._stale = True

    def written(self, address: int, data: Bytes) -> None:
        """The host wrote (n,) or (lanes, n) bytes to memory."""
        self._stale = True
        (self._journal if self._fresh else self._late).append((address, data.copy()))

    def run_begins(self) -> None:
        """Every lane is ready to run."""
        self._run += 1
        if self._stale:
            self._keep(0)
        self._last = time.perf_counter()
        self._fresh = False

    def between_passes(self, compiled: int) -> None:
        """Keep the state of this moment if it is time to; `compiled` is what the run has had compiled so far."""
        if time.perf_counter() - self._last >= max(_SECONDS, _COST_FACTOR * self._cost):
            self._keep(compiled)

    def _keep(self, compiled: int) -> None:
        started = time.perf_counter()
        if not self._fresh:
            copy = self._as_loaded()
            self._there.download(copy)
            self._memory, self._journal = copy, []
        self._late = []
        self._kept = _Kept(self._state.copy(), self._environment.save(), self._run, compiled)
        self._stale = False
        self._last = time.perf_counter()
        self._cost = self._last - started

    def _as_loaded(self) -> LaneMemory:
        memory = LaneMemory(self._there.layout, self._state.lanes)
        if self._load is not None:
            self._load(memory)
        return memory

    # -- going on from it

    def _memory_kept(self) -> LaneMemory:
        memory = self._memory or self._as_loaded()
        for address, data in self._journal:
            memory.write(address, data)
        return memory

    def _go_back(self, kept: _Kept) -> None:
        self._state.assign(kept.state)
        self._environment.restore(kept.environment)

    def replay(self, new_engine: NewEngine) -> CpuEngine:
        """An engine with the memory that the lanes have now: they run again from the kept state to where they are."""
        kept, state = self._kept, self._state
        if kept is None:  # nothing has run yet
            return new_engine(self._memory_kept())
        now = _Kept(state.copy(), self._environment.save(), self._run, 0)
        self._go_back(kept)
        engine = new_engine(self._memory_kept())
        report = engine.begin(0)
        state.budget[:] = (now.state.retired - kept.state.retired).astype(np.int64)
        engine.go_on(report)
        self._go_back(now)
        for address, data in self._late:
            engine.memory.write(address, data)
        engine.reset_code()
        return engine

    def rewind(self, new_engine: NewEngine, report: RunReport, budget: int | None) -> CpuEngine:
        """An engine with state and memory of the kept moment, from which the lanes go on with what is left of the
        run's budget: for a failure that left the state as it is now half done."""
        kept, state = self._kept, self._state
        assert kept is not None, "nothing is launched before a state is kept"
        self._go_back(kept)
        engine = new_engine(self._memory_kept())
        report.compiled_instructions = kept.compiled if kept.run == self._run else 0
        if kept.run < self._run:
            engine.begin(budget)
            if budget is not None:
                allowed = report.retired_before + np.uint64(budget)
                state.budget[:] = (allowed - kept.state.retired).astype(np.int64)
        return engine
