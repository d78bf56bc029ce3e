"""Where a machine's lanes live: their memory and what runs them, on devices or on the CPU.

When a device fails, the lanes move to the CPU with their last good state and go on there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from vmjit.cache import process_cache
from vmjit.cpu_engine import CpuEngine
from vmjit.engine import Accesses, Arrivals, Progress, RunReport
from vmjit.environment.bare_metal import BareMetal
from vmjit.errors import (
    CompileError,
    DeviceError,
    DeviceInitializationError,
    DeviceMissingError,
    UnsupportedFeatureError,
    VmjitError,
)
from vmjit.kernels.layout import MappedRange
from vmjit.lane_memory import LaneMemory
from vmjit.lane_state import LaneState
from vmjit.memory_budget import MemoryBudget
from vmjit.memory_layout import MemoryLayout
from vmjit.program import Program
from vmjit.statistics import ExecutionStatistics, RunCounter, compile_statistics

if TYPE_CHECKING:
    from vmjit.device_engine import DeviceEngine
    from vmjit.device_lane_memory import DeviceLaneMemory
    from vmjit.recovery import Recovery
    from vmjit.snapshot import Snapshot
    from vmjit.split_lane_memory import SplitLaneMemory

log = logging.getLogger("vmjit")

T = TypeVar("T")

# A run placed on a GPU by its own choice leaves it when, after so many passes, calls to the host come this often.
_PASSES_UNTIL_JUDGED = 64
_INSTRUCTIONS_PER_CALL = 500


@dataclass(frozen=True)
class Fallback:
    """A change from a device to the CPU: why, and whether lanes went on from an earlier state of theirs."""

    device: str
    reason: str
    replayed: bool

    def __str__(self) -> str:
        where = "an earlier state" if self.replayed else "where they were"
        return f"left {self.device}: {self.reason}; the lanes go on from {where} on the CPU"


class Residence:
    """The home of `state`'s lanes on `device`, and on the CPU once that failed and `fallback` allows it.

    `chosen` says that the device was vmjit's own choice, which it may take back.
    """

    def __init__(
        self,
        program: Program,
        state: LaneState,
        environment: BareMetal,
        *,
        device: str,
        tier: str,
        threads: int | None,
        fallback: bool,
        chosen: bool,
        memory_limit: int,
    ) -> None:
        self.memory_limit = memory_limit
        self.program = program
        self.state = state
        self.environment = environment
        self.device = device
        self.tier = tier
        self.threads = threads
        self.fallback = fallback
        self.chosen = chosen
        self.counter = RunCounter()
        self.fallbacks: list[Fallback] = []
        self._breakpoints: frozenset[int] = frozenset()
        self._hooks: dict[int, tuple[int, ...]] = {}
        self._mapped = np.zeros((0, MappedRange.BYTES // 8), np.uint64)
        self._accesses: Accesses | None = None
        self._arrivals: Arrivals | None = None
        self._recovery: Recovery | None = None
        self._report: RunReport | None = None

    # -- moving

    @property
    def memory(self) -> LaneMemory | DeviceLaneMemory | SplitLaneMemory:
        """The lanes' memory where they are."""
        return self.engine.memory

    def move_in(self, layout: MemoryLayout) -> None:
        """Take up the lanes with memory as the program has it; again, for a new layout."""
        self.engine = self._new_engine(layout)

    def set_breakpoints(self, addresses: frozenset[int], hooks: dict[int, tuple[int, ...]], arrivals: Arrivals) -> None:
        """Have lanes come to `arrivals` before they execute what is at these addresses, wherever they live, and call
        compiled hooks at others; where code cannot call them, lanes come to `arrivals` there too."""
        self._breakpoints, self._hooks, self._arrivals = addresses, hooks, arrivals
        self._tell_breakpoints(self.engine)

    def _tell_breakpoints(self, engine: CpuEngine | DeviceEngine) -> None:
        engine.arrivals = self._arrivals
        if engine.calls_hooks:
            engine.set_breakpoints(self._breakpoints, self._hooks)
        else:
            engine.set_breakpoints(self._breakpoints | self._hooks.keys(), {})
        engine.accesses = self._accesses
        engine.set_mapped(self._mapped)

    def set_mapped(self, rows: NDArray[np.uint64], accesses: Accesses | None) -> None:
        """Have accesses to device registers made by compiled hooks (`MappedRange`) where code can call them, and by
        `accesses` where it cannot."""
        self._mapped, self._accesses = rows, accesses
        self._tell_breakpoints(self.engine)

    def _new_engine(self, layout: MemoryLayout) -> CpuEngine | DeviceEngine:
        if self.device != "cpu":
            try:
                return self._device_engine(layout)
            except DeviceError as error:
                absent = isinstance(error, DeviceMissingError | DeviceInitializationError)
                if not self.fallback or (absent and not self.chosen):
                    raise
                self._left(Fallback(self.device, str(error), replayed=False))
        return self._cpu_engine(LaneMemory(layout, self.state.lanes))

    def _device_engine(self, layout: MemoryLayout) -> DeviceEngine:
        from vmjit.device_engine import DeviceEngine
        from vmjit.recovery import Recovery
        from vmjit.split_lane_memory import device_memory

        memory = device_memory(layout, self.state.lanes, self.device, self.program.xlen)
        for part in (memory, *(part for _, part in memory.parts())):
            part.spaces = self.environment.spaces
        isa = self.program.isa_config
        engine = DeviceEngine(isa, self.state, memory, tier=self.tier, environment=self.environment)
        self._tell_breakpoints(engine)
        if self.fallback:
            self._recovery = Recovery(self.state, self.environment, memory)
            engine.after_pass = self._between_passes
        return engine

    def _cpu_engine(self, memory: LaneMemory) -> CpuEngine:
        isa = self.program.isa_config
        memory.spaces = self.environment.spaces
        engine = CpuEngine(
            isa,
            self.state,
            memory,
            tier=self.tier,
            environment=self.environment,
            threads=self.threads,
            budget=MemoryBudget(self.memory_limit, self.state.lanes),
        )
        self._tell_breakpoints(engine)
        return engine

    def _left(self, fallback: Fallback) -> None:
        log.warning("%s", fallback)
        self.fallbacks.append(fallback)
        self.counter.fallbacks += 1
        self.device = "cpu"
        self._recovery = None

    def leave(self, error: VmjitError, budget: int | None = None) -> None:
        """Go over to the CPU with the lanes' last good state. Raises `error` where that is not to be."""
        engine, recovery = self.engine, self._recovery
        if recovery is None or isinstance(engine, CpuEngine):
            raise error
        replayed = False
        if engine.whole:
            try:
                memory = LaneMemory(engine.memory.layout, self.state.lanes)
                engine.memory.download(memory)
                cpu = self._cpu_engine(memory)
            except DeviceError:
                replayed = True
                cpu = recovery.replay(self._cpu_engine)
        else:
            replayed = True
            assert self._report is not None
            cpu = recovery.rewind(self._cpu_engine, self._report, budget)
        self.counter.keep(compile_statistics(engine))
        engine.release()
        self.engine = cpu
        self._left(Fallback(self.device, str(error), replayed))

    # -- what happens to the lanes

    def reset(self) -> None:
        """Memory as the program has it."""
        self.on_memory(lambda memory: memory.reset())
        if self._recovery is not None:
            self._recovery.loaded()

    def restored(self, snapshot: Snapshot) -> None:
        """The lanes' memory is a snapshot's."""
        if self._recovery is not None:
            self._recovery.loaded(snapshot.load_memory)

    def changed(self) -> None:
        """The host changed registers, pc or inputs."""
        if self._recovery is not None:
            self._recovery.changed()

    def on_memory(self, act: Callable[[LaneMemory | DeviceLaneMemory | SplitLaneMemory], T]) -> T:
        """Something with the lanes' memory; on the CPU, if the device turns out to have failed."""
        try:
            return act(self.memory)
        except DeviceError as error:
            self.leave(error)
            return act(self.memory)

    def written(self, address: int, data: NDArray[np.uint8]) -> None:
        """The host has written to memory."""
        if self._recovery is not None:
            self._recovery.written(address, data)

    # -- running

    def run(
        self, budget: int | None, *, progress: Progress | None = None, max_seconds: float | None = None
    ) -> RunReport:
        report = self._report = self.engine.begin(budget)
        try:
            if self._recovery is not None:
                self._recovery.run_begins()
            self.engine.go_on(report, progress=progress, max_seconds=max_seconds)
        except (DeviceError, CompileError) as error:
            self.leave(error, budget)
            rest = None if max_seconds is None else max(max_seconds - report.seconds, 0.0)
            self.engine.go_on(report, progress=progress, max_seconds=rest)
        return report

    def _between_passes(self) -> None:
        recovery, report = self._recovery, self._report
        if recovery is None or report is None:
            return
        recovery.between_passes(report.compiled_instructions)
        if self.chosen and report.passes == _PASSES_UNTIL_JUDGED:
            retired = int((self.state.retired - report.retired_before).sum())
            if report.served * _INSTRUCTIONS_PER_CALL > retired:
                raise UnsupportedFeatureError(
                    f"needs the host at every step: {report.served} system calls in {retired} instructions",
                    device=self.device,
                )

    # -- statistics

    def statistics(self) -> ExecutionStatistics:
        return self.counter.statistics(compile_statistics(self.engine), process_cache().statistics)
