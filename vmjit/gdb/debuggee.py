"""A machine as a debugger wants it: lanes that go on, one by one or together, until something happens, and go back.

Lanes are independent of each other: going back, one is brought from an earlier snapshot to the instruction before, and
the others to where they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmjit.hooks import HookedLanes
from vmjit.machine import Machine
from vmjit.next_instruction import next_instruction
from vmjit.snapshot import Snapshot
from vmjit.stops import Stop

Lanes = NDArray[np.int64]

SIGINT, SIGILL, SIGTRAP, SIGKILL, SIGSEGV = 2, 4, 5, 9, 11
_SIGNALS = {Stop.FAULT: SIGSEGV, Stop.UNSUPPORTED: SIGILL, Stop.EBREAK: SIGTRAP, Stop.MEMORY: SIGKILL}
_AT_END = (int(Stop.EXIT), int(Stop.MEMORY))

# How long lanes run between looks at whether somebody wants them to stop.
_SLICE_SECONDS = 0.05
# Snapshots to go back to.
_MOST_SNAPSHOTS = 64


@dataclass(frozen=True)
class Happened:
    """Why lanes stopped: `lane` is the one that it happened to. `reason` is "break", "step", "watch", "rwatch",
    "awatch", "signal", "exit" (all lanes are at their end), "interrupt" or "begin" (it goes back no further)."""

    reason: str
    lane: int
    number: int = 0  # the signal, the address that is watched, or the exit code


@dataclass(frozen=True)
class Watch:
    """Accesses to watch: `kind` is "watch" for stores, "rwatch" for loads, "awatch" for both."""

    kind: str
    address: int
    size: int

    def meets(self, address: int, size: int, *, stores: bool) -> bool:
        wanted = self.kind == "awatch" or stores == (self.kind == "watch")
        return wanted and address < self.address + self.size and self.address < address + size


class _HitError(Exception):
    """A lane came to a breakpoint: the others stop too."""


class Debuggee:
    """`machine` stands before its first instruction, or wherever its lanes are."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.breakpoints: set[int] = set()
        self.watches: list[Watch] = []
        self._snapshots: list[Snapshot] = [machine.snapshot()]
        self._hit: int | None = None
        self._told: tuple[int, int] | None = None
        self._changed = False

    # -- forward

    def going(self, lanes: Lanes | None = None) -> Lanes:
        """Those of some lanes, or all, that are not at their end."""
        chosen = np.arange(self.machine.lanes) if lanes is None else lanes
        going: Lanes = chosen[~np.isin(self.machine._state.stop[chosen], _AT_END)]
        return going

    def resume(self, lanes: Lanes, interrupted: Callable[[], bool]) -> Happened:
        """Have these lanes go on until something happens."""
        self._remember()
        if self.watches:
            return self._watched(lanes, interrupted)
        machine = self.machine
        self._hit = None
        machine._hooks.observe(frozenset(self.breakpoints), self._arrived)
        try:
            running = self.going(lanes)
            while len(running):
                self._run(running, None, _SLICE_SECONDS)
                happened = self._noticed(running)
                if happened is not None:
                    return happened
                running = self.going(running)
                if len(running) and interrupted():
                    return Happened("interrupt", int(running[0]), SIGINT)
            return self._ended(lanes)
        except _HitError:
            assert self._hit is not None
            return Happened("break", self._hit)
        finally:
            machine._hooks.observe(frozenset(), None)

    def changed(self) -> None:
        """The debugger wrote registers or memory: what was before leads elsewhere."""
        self._changed = True

    def step(self, lane: int) -> Happened:
        """One instruction of one lane."""
        if self._changed:
            self._remember()
        lanes = self.going(np.array([lane]))
        if not len(lanes):
            return self._ended(np.array([lane]))
        if (watched := self._about_to_meet(lane)) is not None:
            return watched
        self._run(lanes, 1, None)
        if (happened := self._noticed(lanes)) is not None:
            return happened
        return Happened("step", lane) if len(self.going()) else self._ended(lanes)

    def _run(self, lanes: Lanes, count: int | None, seconds: float | None) -> None:
        """Run some lanes; the others stay as they are."""
        engine, state = self.machine._engine, self.machine._state
        stop, address, access = state.stop.copy(), state.fault_address.copy(), state.fault_access.copy()
        report = engine.begin(count)
        others = np.ones(self.machine.lanes, bool)
        others[lanes] = False
        stop[stop == int(Stop.RUNNING)] = int(Stop.BUDGET)  # also those that have not run at all
        state.stop[others], state.fault_address[others] = stop[others], address[others]
        state.fault_access[others] = access[others]
        self.machine._snapshots.changed()
        engine.go_on(report, max_seconds=seconds)

    def _arrived(self, hooked: HookedLanes) -> None:
        hooked.stop()
        self._hit = int(hooked.lanes[0])
        raise _HitError

    def _noticed(self, lanes: Lanes) -> Happened | None:
        """What a lane stopped for, other than its end."""
        stop = self.machine._state.stop
        for lane in lanes.tolist():
            signal = _SIGNALS.get(Stop(int(stop[lane]))) if stop[lane] < len(Stop) else None
            if signal is not None:
                return Happened("signal", lane, signal)
        return None

    def _ended(self, lanes: Lanes) -> Happened:
        code = int(self.machine.environment.exit_code[lanes[0]])
        return Happened("exit", int(lanes[0]), code & 0xFF)

    # -- watched memory

    def _about_to_meet(self, lane: int) -> Happened | None:
        """What a lane's next instruction will access that is watched. It is told once, and before the access: GDB has
        a RISC-V hart execute the instruction itself."""
        here = lane, int(self.machine._state.retired[lane])
        if not self.watches or self._told == here:
            return None
        for address, data, stores in next_instruction(self.machine, lane).touched:
            for watch in self.watches:
                if watch.meets(address, max(len(data), 1), stores=stores):
                    self._told = here
                    return Happened(watch.kind, lane, watch.address)
        return None

    def _watched(self, lanes: Lanes, interrupted: Callable[[], bool]) -> Happened:
        """An instruction at a time, as long as some memory is watched."""
        first = True
        while len(running := self.going(lanes)):
            for lane in running.tolist():
                if not first and int(self.machine._state.pc[lane]) in self.breakpoints:
                    return Happened("break", lane)
                if (met := self._about_to_meet(lane)) is not None:
                    return met
            first = False
            self._run(running, 1, None)
            if (happened := self._noticed(running)) is not None:
                return happened
            if interrupted():
                return Happened("interrupt", int(running[0]), SIGINT)
        return self._ended(lanes)

    # -- backward

    def _remember(self) -> None:
        """A snapshot to come back to; of many, every other one is dropped."""
        self._changed = False
        self._snapshots.append(self.machine.snapshot())
        if len(self._snapshots) > _MOST_SNAPSHOTS:
            self._snapshots[1:] = self._snapshots[2::2]

    def _go_to(self, retired: NDArray[np.uint64]) -> None:
        """Have each lane as it was when it had retired so many instructions."""
        while len(self._snapshots) > 1 and (self._snapshots[-1].state["retired"] > retired).any():
            self._snapshots.pop()
        machine = self.machine
        machine.restore(self._snapshots[-1])
        engine, state = machine._engine, machine._state
        stops = state.stop.copy()
        report = engine.begin(0)
        state.budget[:] = (retired - state.retired).astype(np.int64)
        still = state.budget <= 0
        state.stop[still] = stops[still]
        machine._snapshots.changed()
        engine.go_on(report)

    def step_back(self, lane: int) -> Happened:
        """To before the last instruction that a lane retired."""
        wanted = self.machine._state.retired.copy()
        if wanted[lane] <= self._snapshots[0].state["retired"][lane]:
            return Happened("begin", lane)
        wanted[lane] -= np.uint64(1)
        self._go_to(wanted)
        return Happened("step", lane)

    def resume_back(self, lane: int) -> Happened:
        """To the last breakpoint that a lane came to before, or to the beginning."""
        here = self.machine._state.retired.copy()
        first = self._snapshots[0].state["retired"]
        hits: list[int] = []

        def note(hooked: HookedLanes) -> None:
            if lane in hooked.lanes:
                hits.append(int(self.machine._state.retired[lane]))

        for snapshot in reversed(self._snapshots):
            start = snapshot.state["retired"]
            if start[lane] >= here[lane]:
                continue
            self.machine._hooks.observe(frozenset(self.breakpoints), note)
            try:
                self.machine.restore(snapshot)
                self._run(np.array([lane]), int(here[lane] - start[lane]), None)
            finally:
                self.machine._hooks.observe(frozenset(), None)
            before = [hit for hit in hits if hit < here[lane]]
            if before:
                here[lane] = max(before)
                self._go_to(np.maximum(here, first))
                return Happened("break", lane)
        here[lane] = first[lane]
        self._go_to(here)
        return Happened("begin", lane)
