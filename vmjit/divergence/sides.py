"""The two that are compared: machines on a tier or device, and machines whose instructions somebody else executes.

Both are a `Machine`, which has the lanes' state, memory and environment: a state goes from one to the other as a
snapshot, and system calls are served by vmjit on both sides, so that only instructions are compared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from vmjit.compile_thread import COMPILE_THREAD
from vmjit.cpu_engine import CpuEngine
from vmjit.machine import Machine
from vmjit.snapshot import Snapshot
from vmjit.stops import Stop

# What lanes may retire beside what brings them to a place: with no more than that, the last block would be interpreted.
_MORE = 1024
_LONGEST_COMPILATION = 120.0
# Tiers that compile what is hot, when that is, and how often code runs until it is compiled for groups too.
_IN_TIME = ("auto", "simd")
_SOON, _ATTEMPTS = 2, 6


class Side(ABC):
    """`machine` has the state. `registers` are those that can be compared."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        self.attempts = 1
        """How often the same is to be executed until it is executed by the code that there will be."""
        file = machine._engine.decoder.registers
        self.registers = [i for i in range(len(file)) if i not in file.hidden]

    @abstractmethod
    def advance(self, count: int) -> None:
        """Have every lane retire so many instructions more, if it does not stop before."""

    def advance_to(self, pc: int, count: int) -> None:
        """The same by code that ends at `pc`, where lanes come to after so many instructions, for the first time."""
        self.advance(count)

    def snapshot(self) -> Snapshot:
        return self.machine.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        self.machine.restore(snapshot)

    def is_over(self) -> bool:
        """Whether no lane goes on."""
        return not (self.machine._state.stop == int(Stop.BUDGET)).any()


class TierSide(Side):
    """A tier or device of vmjit. What is compiled once it is hot is hot soon."""

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(name, machine)
        engine = machine._engine
        if isinstance(engine, CpuEngine) and machine.tier in _IN_TIME:
            engine.visits_until_hot = _SOON
            engine.reset_code()
            engine.code_was_written = False  # else each reset would drop what was compiled
            self.attempts = _ATTEMPTS

    def advance(self, count: int) -> None:
        self.machine.run(count)
        self._settle()

    def advance_to(self, pc: int, count: int) -> None:
        self.machine.run_until(pc, count + _MORE)
        self._settle()
        stop = self.machine._state.stop
        stop[stop == int(Stop.ARRIVED)] = int(Stop.BUDGET)

    def _settle(self) -> None:
        """Have compiled what was hot before it runs again: the same code then runs each time."""
        COMPILE_THREAD.wait(_LONGEST_COMPILATION)


class ForeignSide(Side):
    """One lane whose instructions somebody else executes. What that one has no means for (system calls, counters,
    reservations) is left to vmjit's interpreter."""

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(name, machine)
        self.left_out = 0
        """Instructions that vmjit executed."""

    def advance(self, count: int) -> None:
        state = self.machine._state
        end = int(state.retired[0]) + count
        while (left := end - int(state.retired[0])) > 0:
            retired = self.execute(left)
            if retired == left:
                break
            # Whatever the instruction is: a call, a fault or what only vmjit knows.
            before = int(state.retired[0])
            self.machine.run(1)
            if int(state.stop[0]) != int(Stop.BUDGET):
                return
            self.left_out += int(state.retired[0]) - before
        state.stop[0] = int(Stop.BUDGET)

    def changed(self) -> None:
        """The lane's state was written."""
        self.machine._residence.changed()
        self.machine._snapshots.changed()

    @abstractmethod
    def execute(self, limit: int) -> int:
        """Execute at most so many instructions from the machine's state on, and leave their state there; gives how many
        were. Fewer: the next one is left to vmjit."""
