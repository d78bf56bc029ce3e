"""Snapshots: the state of a machine's lanes at one moment, or of one lane, to go on from again and again.

What lanes have not changed since their memory was loaded is not copied. A snapshot of one lane is loaded into all lanes
of a machine (as fork does): it becomes the image that they start from, which they share page by page.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.environment.saved import SavedEnvironment
from vmjit.lane_state import LaneState
from vmjit.memory_image import Bytes, LanePages, MemoryImage
from vmjit.program import Program
from vmjit.span_memory import SpanMemory

Mask = NDArray[np.bool_]

STATE_ARRAYS = ("registers", "pc", "stop", "retired", "fault_address", "fault_access")
"""Arrays of lane state that a snapshot has; lanes are their last axis."""


def program_digest(program: Program) -> str:
    """What tells programs apart: their segments, entry and ISA."""
    digest = hashlib.blake2b(f"{program.isa} {program.entry:#x}".encode(), digest_size=16)
    for s in program.segments:
        digest.update(f" {s.address:#x} {s.size:#x} {s.permissions} {len(s.data)} ".encode())
        digest.update(s.data)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of `lanes` lanes: registers, pc, memory, streams, and what their environment keeps of them.

    Made by `machine.snapshot`, and by `Snapshot.load`. A snapshot is never changed. `machine.restore` takes it as often
    as wanted, also into other machines with the same program and the same `memory`.
    """

    lanes: int
    program: str
    memory_bytes: int
    linux: bool
    own: frozenset[int]
    """Addresses of read-only segments that each lane has for itself."""
    shared: Bytes
    base: MemoryImage
    pages: LanePages
    state: dict[str, NDArray[Any]]
    environment: SavedEnvironment

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, whole or not at all. Raises `SnapshotError` where that fails."""
        from vmjit.snapshot_file import write_snapshot

        write_snapshot(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Read a file that `save` wrote.

        The file may be from anywhere: it is checked, runs nothing, and takes no more memory than it is long. What is in
        it acts on lanes only, as the program itself could. Raises `SnapshotError` for what is no snapshot, is damaged,
        or was written by a later version.
        """
        from vmjit.snapshot_file import read_snapshot

        return read_snapshot(path)

    # -- what machines do with it

    def load_memory(self, memory: SpanMemory) -> None:
        """Have a memory of as many lanes, or of any number if it is of one, as it was."""
        memory.write_shared(self.shared)
        memory.load(self.base)
        memory.put_pages(self.pages)

    def renew_memory(self, memory: SpanMemory, lanes: Mask) -> None:
        """The same where only some lanes have changed since."""
        memory.renew(None if lanes.all() else lanes)
        wanted = lanes[self.pages.lanes]
        memory.put_pages(
            self.pages
            if wanted.all()
            else LanePages(self.pages.lanes[wanted], self.pages.numbers[wanted], self.pages.contents[wanted])
        )

    def load_state(self, state: LaneState) -> None:
        """Lane state, the one lane's for all if it is of one."""
        for name, array in self.state.items():
            getattr(state, name)[...] = array

    def saved_environment(self, lanes: int) -> SavedEnvironment:
        return self.environment if self.lanes == lanes else self.environment.repeated(lanes)


def take_state(state: LaneState, lane: int | None) -> dict[str, NDArray[Any]]:
    """A copy of the arrays that a snapshot has, of one lane or of all."""
    these = slice(None) if lane is None else slice(lane, lane + 1)
    return {name: getattr(state, name)[..., these].copy() for name in STATE_ARRAYS}


def take_memory(memory: SpanMemory, lane: int | None) -> tuple[MemoryImage, LanePages]:
    """(what lanes start from, where they differ from it); for one lane the first is all. None may lie interleaved."""
    if lane is None:
        return memory.base, memory.changed_pages()
    chosen = np.zeros(memory.lanes, bool)
    chosen[lane] = True
    pages = memory.changed_pages(chosen)
    return memory.base.with_pages(pages.numbers, pages.contents), LanePages.none()
