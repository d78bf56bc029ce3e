"""Taking snapshots of one machine and restoring them, with no more work than lanes have changed."""

from __future__ import annotations

import weakref

import numpy as np
from numpy.typing import NDArray

from vmjit.environment.bare_metal import BareMetal
from vmjit.errors import SnapshotError
from vmjit.ir.registers import RegisterFile
from vmjit.lane_memory import LaneMemory
from vmjit.lane_state import LaneState
from vmjit.program import Program
from vmjit.residence import Residence
from vmjit.snapshot import Snapshot, program_digest, take_memory, take_state


class Snapshots:
    """The snapshots of one machine, whose lanes have `memory_bytes` of heap and stack."""

    def __init__(
        self,
        program: Program,
        registers: RegisterFile,
        state: LaneState,
        environment: BareMetal,
        residence: Residence,
        memory_bytes: int,
    ) -> None:
        self.program = program
        self.registers = registers
        self.state = state
        self.environment = environment
        self.residence = residence
        self.memory_bytes = memory_bytes
        self._digest = ""
        # The snapshot that lanes were like, with their retired instructions then, until somebody else changes them.
        self._like: tuple[Snapshot, NDArray[np.uint64]] | None = None
        self._good: weakref.WeakSet[Snapshot] = weakref.WeakSet()

    def changed(self) -> None:
        """The host has changed lanes' memory."""
        self._like = None

    @property
    def digest(self) -> str:
        """The program's."""
        self._digest = self._digest or program_digest(self.program)
        return self._digest

    def take(self, lane: int | None, own: frozenset[int]) -> Snapshot:
        """The lanes as they are now, or one of them; `own` are the segments that each lane has for itself."""
        self.residence.on_memory(lambda memory: self.residence.engine.settle())
        base, pages = self.residence.on_memory(lambda memory: take_memory(memory, lane))
        environment = self.environment.save()
        snapshot = Snapshot(
            lanes=self.state.lanes if lane is None else 1,
            program=self.digest,
            memory_bytes=self.memory_bytes,
            linux=self.environment.has_signals,
            own=own,
            shared=self.residence.memory.shared.copy(),
            base=base,
            pages=pages,
            state=take_state(self.state, lane),
            environment=environment if lane is None else environment.of_lane(lane),
        )
        self._good.add(snapshot)
        if lane is None:
            self._like = (snapshot, self.state.retired.copy())
        return snapshot

    def check(self, snapshot: Snapshot) -> None:
        """Raise `SnapshotError` for one that these lanes cannot have."""
        if snapshot in self._good:
            return
        for condition, what in (
            (snapshot.program == self.digest, "it is of another program"),
            (
                snapshot.memory_bytes == self.memory_bytes,
                f"its lanes have {snapshot.memory_bytes} bytes of heap and stack, these have {self.memory_bytes}",
            ),
            (snapshot.linux == self.environment.has_signals, "it is of another environment"),
            (
                snapshot.lanes in (1, self.state.lanes),
                f"it is of {snapshot.lanes} lanes, the machine has {self.state.lanes}; one lane's goes to any number",
            ),
        ):
            if not condition:
                raise SnapshotError(f"this snapshot cannot be restored here: {what}")
        self._check_registers(snapshot)
        wrong = self.environment.refuses(snapshot.environment)
        if wrong:
            raise SnapshotError(f"the snapshot is damaged: {wrong}")

    def check_layout(self, snapshot: Snapshot) -> None:
        """The same for what its memory has to be, now that the machine has the same segments for each lane."""
        memory = self.residence.memory
        if snapshot.base.size != memory.layout.private_bytes or len(snapshot.shared) != len(memory.shared):
            raise SnapshotError("the snapshot is damaged: its memory has another size than the program's")
        self._good.add(snapshot)

    def _check_registers(self, snapshot: Snapshot) -> None:
        given, own = snapshot.state["registers"], self.state.registers
        if given.dtype != own.dtype or len(given) != len(own):
            raise SnapshotError("the snapshot is damaged: its registers are not the program's")
        for i in range(len(given)):
            mask = 0 if i == self.registers.zero else self.registers.type_of(i).mask
            if i == self.registers.float_status:
                mask = 0xFF
            if (given[i] > mask).any():
                raise SnapshotError(
                    f"the snapshot is damaged: its {self.registers.names[i]} has a value that cannot be"
                )
        if (snapshot.state["pc"] > self.registers.type.mask).any():
            raise SnapshotError("the snapshot is damaged: its pc has a value that cannot be")

    def restore(self, snapshot: Snapshot) -> None:
        """Have the lanes as they were; the memory's layout is the snapshot's already."""
        like, self._like = self._like, None
        residence, state = self.residence, self.state
        code_changed = not np.array_equal(snapshot.shared, residence.memory.shared)
        touched = np.ones(state.lanes, bool)
        if like is not None and like[0] is snapshot and not code_changed:
            touched = state.retired != like[1]
            memory = residence.memory
            if isinstance(memory, LaneMemory):
                touched = memory.in_groups_of(touched)
            if touched.any():
                residence.on_memory(lambda memory: snapshot.renew_memory(memory, touched))
        elif residence.memory.base is snapshot.base and not code_changed:
            residence.on_memory(lambda memory: snapshot.renew_memory(memory, touched))
        else:
            residence.on_memory(snapshot.load_memory)
        residence.restored(snapshot)
        snapshot.load_state(state)
        self.environment.restore(snapshot.saved_environment(state.lanes))
        if code_changed:
            residence.engine.assign_code(np.arange(state.lanes))
        else:
            residence.engine.code_may_have_changed(np.flatnonzero(touched))
        residence.engine.follow_mappings()
        self._like = (snapshot, state.retired.copy())
