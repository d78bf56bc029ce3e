"""The two that are compared: machines on a tier or device, and machines whose instructions somebody else executes.

Both are a `Machine`, which has the lanes' state, memory and environment: a state goes from one to the other as a
snapshot, and system calls are served by vmjit on both sides, so that only instructions are compared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from vmjit.compile_thread import COMPILE_THREAD
from vmjit.machine import Machine
from vmjit.snapshot import Snapshot
from vmjit.stops import Stop

# What lanes may retire beside what brings them to a place: with no more than that, the last block would be interpreted.
_MORE = 1024
_LONGEST_COMPILATION = 120.0


class Side(ABC):
    """`machine` has the state. `registers` are those that can be compared."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine
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
    """A tier or device of vmjit."""

    def advance(self, count: int) -> None:
        self.machine.run(count)
        # What was hot is compiled before it runs again: the same code then runs each time.
        COMPILE_THREAD.wait(_LONGEST_COMPILATION)

    def advance_to(self, pc: int, count: int) -> None:
        self.machine.run_until(pc, count + _MORE)
        stop = self.machine._state.stop
        stop[stop == int(Stop.ARRIVED)] = int(Stop.BUDGET)


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
