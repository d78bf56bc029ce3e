"""What lanes execute, an instruction or a system call at a time.

Instructions are traced where lanes come to them, as host hooks are called: all else runs as ever, and what is not
traced costs nothing. What an instruction writes and touches is worked out by the reference evaluator from the state
before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.checks import check_on_cpu
from vmjit.environment.linux_names import system_call_name
from vmjit.errors import ArgumentError
from vmjit.hooks import HookedLanes
from vmjit.lane_state import LaneState
from vmjit.machine import Machine
from vmjit.next_instruction import next_instruction

_A0, _A7, _ARGUMENTS = 10, 17, 6
_ERRORS = 4096  # results above so many below zero are none of errno


@dataclass(frozen=True)
class TracedInstruction:
    """An instruction that a lane is about to execute, which had retired `retired` before.

    registers: what it writes, by name. memory: (address, bytes, whether it stores) of what it loads and stores; of a
    load that is a fault, no bytes.
    """

    lane: int
    retired: int
    pc: int
    data: bytes
    text: str
    registers: dict[str, int]
    memory: tuple[tuple[int, bytes, bool], ...]


@dataclass(frozen=True)
class TracedCall:
    """A system call that a lane made. `result`: what it gave, None if the lane did not come back from it."""

    lane: int
    retired: int
    pc: int
    number: int
    arguments: tuple[int, ...]
    result: int | None

    @property
    def name(self) -> str:
        return system_call_name(self.number)


Event = TracedInstruction | TracedCall
Sink = Callable[[Event], None]


class _EnoughError(Exception):
    """As many events as were asked for."""


class Tracer:
    """Traces a machine on the CPU while it runs, into `sink`.

    Args:
        ranges: addresses, (start, end), whose instructions are traced; empty: none.
        calls: whether system calls are.
        lanes: those that are traced; None: all.
        first, count: the events that are told: without the first so many, and the run ends behind so many.
    """

    def __init__(
        self,
        machine: Machine,
        sink: Sink,
        *,
        ranges: Sequence[tuple[int, int]] = (),
        calls: bool = False,
        lanes: Sequence[int] | None = None,
        first: int = 0,
        count: int | None = None,
    ) -> None:
        check_on_cpu(machine.device, "traced")
        for lane in lanes or ():
            if not 0 <= lane < machine.lanes:
                raise ArgumentError(f"there is no lane {lane}: the machine has {machine.lanes}")
        self._machine, self._sink, self._calls = machine, sink, calls
        self._wanted = None if lanes is None else np.array(sorted(set(lanes)), np.int64)
        self._left_out, self._left = first, count
        step = 2 if machine.program.isa_config.compressed else 4
        self._addresses = frozenset(place for start, end in ranges for place in range(start, end, step))

    def run(self, max_instructions: int | None = None, *, max_seconds: float | None = None) -> None:
        """Run the machine, as `Machine.run` does; it can end in the midst of things when enough was told."""
        machine = self._machine
        engine, environment = machine._engine, machine._engine.environment
        if self._calls and environment is not None:
            engine.environment = _TracedEnvironment(environment, self._called)
        machine._hooks.observe(self._addresses, self._arrived)
        try:
            machine.run(max_instructions, max_seconds=max_seconds)
        except _EnoughError:
            pass
        finally:
            machine._hooks.observe(frozenset(), None)
            engine.environment = environment

    def _chosen(self, lanes: NDArray[np.integer]) -> list[int]:
        found: list[int] = (lanes if self._wanted is None else np.intersect1d(lanes, self._wanted)).tolist()
        return found

    def _tell(self, event: Event) -> None:
        if self._left_out:
            self._left_out -= 1
            return
        if self._left is not None:
            if not self._left:
                raise _EnoughError
            self._left -= 1
        self._sink(event)
        if self._left == 0:
            raise _EnoughError

    def _arrived(self, hooked: HookedLanes) -> None:
        for lane in self._chosen(hooked.lanes):
            self._tell(traced_instruction(self._machine, lane))

    def _called(self, event: TracedCall) -> None:
        if self._wanted is None or event.lane in self._wanted:
            self._tell(event)


def traced_instruction(machine: Machine, lane: int) -> TracedInstruction:
    """The instruction that a lane stands before, and what it is going to do."""
    found = next_instruction(machine, lane)
    file = machine._engine.decoder.registers
    written = {file.shown_name(i): value for i, value in found.writes.items() if i not in file.hidden}
    retired = int(machine._state.retired[lane])
    return TracedInstruction(lane, retired, found.pc, found.data, found.text, written, found.touched)


class _TracedEnvironment:
    """Tells of calls, and is the other environment in all else."""

    def __init__(self, environment: Any, tell: Callable[[TracedCall], None]) -> None:
        self._environment, self._tell = environment, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def serve(self, state: LaneState, memory: Any, lanes: NDArray[np.intp]) -> NDArray[np.intp]:
        before = state.registers[:, lanes].copy()
        pcs, retired = state.pc[lanes].copy(), state.retired[lanes].copy()
        going_on: NDArray[np.intp] = self._environment.serve(state, memory, lanes)
        back = np.isin(lanes, going_on)
        signed = np.int32 if state.registers.dtype.itemsize == 4 else np.int64
        for i, lane in enumerate(lanes.tolist()):
            result = int(state.registers[_A0, lane].astype(signed)) if back[i] else None
            if result is not None and result < -_ERRORS:
                result %= 1 << (8 * state.registers.dtype.itemsize)
            arguments = tuple(int(v) for v in before[_A0 : _A0 + _ARGUMENTS, i])
            self._tell(TracedCall(lane, int(retired[i]), int(pcs[i]), int(before[_A7, i]), arguments, result))
        return going_on
